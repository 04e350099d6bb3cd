"""`python -m wackamole.lab.enter NAMESPACE RUN [TARGET=SOURCE…] COMMAND…`: become a process of a lab's node.

RUN is shown as /run: several Corosyncs on one host need one each. What outlives a crash is in its folder `state`. /dev/shm is
the node's own as well: a Corosync that is killed leaves 10 MB there, and a lab kills many. Each TARGET shows its SOURCE.
"""

from __future__ import annotations

import os
import sys
from itertools import dropwhile, takewhile

from .namespaces import SHM, enter_network, own_mounts


def _is_mount(word: str) -> bool:
    return word.startswith("/") and "=" in word


def main() -> None:
    """Enter, then become the command."""
    namespace, run, *rest = sys.argv[1:]
    command = list(dropwhile(_is_mount, rest))
    own = dict(each.split("=", 1) for each in takewhile(_is_mount, rest))
    enter_network(namespace)
    shared = SHM / namespace
    shared.mkdir(exist_ok=True)
    shared.chmod(0o1777)  # as the one that it stands for: not everything on a node is root
    own_mounts({**own, str(SHM): str(shared), "/run": run})  # /run last: the sources are below it
    os.environ["STATE_DIRECTORY"] = "/run/state"
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as wrong:
        sys.exit(f"{command[0]}: {wrong.strerror}")


if __name__ == "__main__":
    main()
