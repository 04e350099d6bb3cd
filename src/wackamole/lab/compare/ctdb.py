"""CTDB, with its public addresses, and a cluster lock in a file that all nodes have, as its manual demands.

The file stands for one on a cluster file system. It is on this machine's disk, so a crashed host's lock is free at once and
every side of a split can reach it: both favour CTDB. Once with the defaults, where a silent host is dead after 25 to 30 s,
once with keepalives each second and a limit of 2, the smallest that leaves one lost keepalive without consequence.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ..lab import Lab
from .system import About, Peer, address, first_line, named, not_installed

OWN = {"/etc/ctdb": "etc/ctdb", "/var/lib/ctdb": "var/ctdb", "/mnt": "../shared"}
HELPER = "/usr/libexec/ctdb/ctdb_mutex_fcntl_helper"
TUNABLES = "KeepaliveInterval=1\nKeepaliveLimit=2\n"


class Ctdb(Peer):
    """CTDB without a file server above it."""

    programs = ("ctdb",)

    def __init__(self, *, tuned: bool) -> None:
        self._tuned = tuned
        self.about = (
            About("ctdb-1s", "CTDB, 1 s", "KeepaliveInterval=1, KeepaliveLimit=2; a cluster lock", slow=True)
            if tuned
            else About("ctdb", "CTDB, default", "defaults; a cluster lock", slow=True)
        )

    def missing(self) -> str | None:
        """The package."""
        return not_installed("ctdbd", "ctdb")

    def version(self) -> str:
        """`ctdb version`."""
        return f"CTDB {first_line('ctdb', 'version')}"

    def start(self, lab: Lab, node: str) -> None:
        """`ctdbd`, as its unit does."""
        lab.boot(node)
        home = lab.home / node
        if not (home / "etc/ctdb").exists():
            shutil.copytree("/etc/ctdb", home / "etc/ctdb", symlinks=True)
            for folder in ("persistent", "state", "volatile"):
                (home / "var/ctdb" / folder).mkdir(parents=True)
        (lab.home / "shared").mkdir(exist_ok=True)
        self.file(
            lab,
            node,
            "etc/ctdb/ctdb.conf",
            f"[logging]\nlocation = file:/run/ctdb.log\nlog level = NOTICE\n[cluster]\ncluster lock = !{HELPER} /mnt/lock\n",
        )
        self.file(lab, node, "etc/ctdb/nodes", "".join(f"{address(lab, n)}\n" for n in lab.layout.nodes))
        self.file(lab, node, "etc/ctdb/public_addresses", "".join(f"{a}/32 eth0\n" for _, a in lab.layout.vips))
        self.file(lab, node, "etc/ctdb/ctdb.tunables", TUNABLES if self._tuned else "")
        (home / "run/ctdb").mkdir(exist_ok=True)
        lab.begin(node, "ctdbd", "--interactive", own=OWN, log="daemon.log")

    def _ctdb(self, lab: Lab, node: str, *arguments: str) -> subprocess.Popen[bytes]:
        return lab.begin(node, "ctdb", *arguments, own=OWN, log="daemon.log")

    def daemons(self, lab: Lab, node: str) -> list[int]:
        """ctdbd and its helpers."""
        found = named(lab, node, self.programs)
        return [p for p in found if Path(f"/proc/{p}/comm").read_text().strip() != "ctdb"]

    def leave(self, lab: Lab, node: str) -> None:
        """`ctdb shutdown`."""
        self._ctdb(lab, node, "shutdown")

    def move(self, lab: Lab, vip: str, source: str, target: str) -> None:  # noqa: ARG002
        """`ctdb moveip`, which wants that there is no automatic failing back meanwhile."""
        for node in lab.layout.nodes:
            self._ctdb(lab, node, "setvar", "NoIPFailback", "1").wait()
        self._ctdb(lab, target, "moveip", vip, str(lab.layout.nodes.index(target)))

    def unmove(self, lab: Lab, vip: str, source: str, target: str) -> None:  # noqa: ARG002
        """`ctdb moveip` back."""
        self._ctdb(lab, source, "moveip", vip, str(lab.layout.nodes.index(source))).wait()
        for node in lab.layout.nodes:
            self._ctdb(lab, node, "setvar", "NoIPFailback", "0").wait()
