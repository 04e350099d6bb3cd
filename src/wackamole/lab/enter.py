"""`python -m wackamole.lab.enter NAMESPACE RUN COMMAND…`: become a process of a lab's node.

RUN is shown as /run: several Corosyncs on one host need one each. What outlives a crash is in its folder `state`.
"""

from __future__ import annotations

import os
import sys

from .namespaces import enter_network, own_mounts


def main() -> None:
    """Enter, then become the command."""
    namespace, run, *command = sys.argv[1:]
    enter_network(namespace)
    own_mounts({"/run": run})
    os.environ["STATE_DIRECTORY"] = "/run/state"
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as wrong:
        sys.exit(f"{command[0]}: {wrong.strerror}")


if __name__ == "__main__":
    main()
