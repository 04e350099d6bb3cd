"""Spread in the lab: `python -m wackamole.lab.spread NODE` becomes a node's Spread daemon, in the node's namespaces.

A Spread daemon puts its socket into /tmp whatever its configuration says; so each gets a /tmp of its own, and nobody's
real daemon loses its socket.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable

from .namespaces import own_mounts

FOLDER = "/run/spread"
PORT = 4803


def spread_conf(nodes: Iterable[tuple[str, str]], broadcast: str, detection_ms: int | None) -> str:
    """The text of spread.conf for these names and addresses of one network, with timeouts for that detection time. None:
    with Spread's own, with which the token is lost after 1250 ms and a dead one is out after up to 3 s.

    The proportions were measured with Spread 4.4: from 250 ms on (TokenTimeout 150) they gave no false alarm under load.
    """
    parts = {  # of 100 of the time that it takes to notice a death
        "TokenTimeout": 61,
        "HurryTimeout": 19,
        "AliveTimeout": 6,
        "SegTimeout": 15,
        "JoinTimeout": 6,
        "RepTimeout": 18,
        "GatherTimeout": 24,
        "FormTimeout": 37,
        "LookupTimeout": 490,
    }
    return "\n".join(
        [
            "# Written by wackamole lab.",
            f"Spread_Segment {broadcast}:{PORT} {{",
            *(f"    {name} {address}" for name, address in nodes),
            "}",
            "SocketPortReuse = ON",
            "DaemonUser = root",
            "DaemonGroup = root",
            "RuntimeDir = /",
            "DebugFlags = { PRINT EXIT CONFIGURATION MEMBERSHIP }",
            f"EventLogFile = {FOLDER}/spread.log",
            "EventTimeStamp",
            *(f"{name} = {detection_ms * part // 100}" for name, part in parts.items() if detection_ms is not None),
            "",
        ]
    )


def main() -> None:
    """Become the daemon, which is opened first: it may itself be somewhere in /tmp."""
    program = shutil.which("spread")
    if program is None:
        sys.exit("spread: not found")
    opened = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    own_mounts({"/tmp": FOLDER})  # noqa: S108
    os.execve(opened, ["spread", "-n", sys.argv[1], "-c", f"{FOLDER}/spread.conf"], os.environ)  # noqa: S606


if __name__ == "__main__":
    main()
