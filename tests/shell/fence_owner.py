"""A process that has a fence, a guard and addresses, to be killed: `python -m tests.shell.fence_owner NAMESPACE IP…`.

It says one line of JSON when all is in place. A line on its standard input lets it dismiss the guard and end.
"""

from __future__ import annotations

import json
import socket
import sys

from wackamole.lab.namespaces import enter_network
from wackamole.shell.clock import boottime_ms
from wackamole.shell.kernel.fence import Fence, Guarded
from wackamole.shell.kernel.guard import Guard
from wackamole.shell.kernel.rtnl import Placed, Rtnl
from wackamole.shell.kernel.surroundings import packed

LEASE_MS = 600_000
"""Far longer than any test: what goes dark in it does not owe it to the lease."""


def main() -> None:
    """Be there until killed, or told to end."""
    namespace, *ips = sys.argv[1:]
    enter_network(namespace)
    guard = Guard()
    index = socket.if_nametoindex("eth0")
    fence = Fence(LEASE_MS)
    fence.install((Guarded(index, "eth0", frozenset(packed(ip) for ip in ips)),))
    rtnl = Rtnl()
    guard.arm()
    refused = rtnl.add([Placed(packed(ip), 128 if ":" in ip else 32, index) for ip in ips])
    assert not refused, refused
    took = fence.renew(boottime_ms())
    sys.stdout.write(
        json.dumps({"took": sorted(took), "index": index, "guard": guard.pid, "fd": fence.fileno()}) + "\n"
    )
    sys.stdout.flush()
    sys.stdin.readline()
    guard.dismiss()


if __name__ == "__main__":
    main()
