"""The original Wackamole, in C, on Spread; only where it is installed: WACKAMOLE_ORIGINAL=/path/to/wackamole.

Once with Spread's own timeouts, and once with those that ours on Spread has, so that what differs is not detection. The
configuration is that of its own sample, with `mature` and the interval of balancing as there. It sends ARP only to those who
are on a VIP's network, which is what stands behind the `n`; without that, a /24, and the client is outside of it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from ..lab import Lab, Layout
from .system import About, Peer, address, first_line, layout

VARIABLE = "WACKAMOLE_ORIGINAL"
START = """\
#!/bin/bash
# it ends when Spread does not listen yet
until (exec 3<>/dev/tcp/127.0.0.1/4803) 2>/dev/null; do sleep 0.05; done
echo "$2" >/proc/sys/kernel/hostname  # what it finds by its host's name is who it is to the others
exec stdbuf --output=L "$1" -d -c /run/wackamole.conf  # its last words before an assertion count
"""


class Original(Peer):
    """Wackamole 2.1."""

    programs = ("wackamole",)

    def __init__(self, detection_ms: int | None = None) -> None:
        self._detection_ms = detection_ms
        if detection_ms is None:
            self.about = About(
                "original",
                "Wackamole 2.1 (C), default",
                "its sample configuration; Spread's defaults",
                slow=True,
                notices_s=4.0,
            )
        else:
            self.about = About(
                f"original-{detection_ms}ms",
                f"Wackamole 2.1 (C), {detection_ms} ms",
                f"its sample configuration; Spread with the timings of ours on Spread ({detection_ms} ms)",
                slow=True,
            )

    def missing(self) -> str | None:
        """The program, and Spread."""
        if shutil.which("spread") is None:
            return "spread is not on the PATH (www.spread.org; not in Debian)"
        given = os.environ.get(VARIABLE)
        return None if given and Path(given).is_file() else f"{VARIABLE} names no program built from its source"

    def version(self) -> str:
        """`wackamole -v`."""
        said = first_line("sh", "-c", f'"${VARIABLE}" -v 2>&1 | grep -o "Version [0-9.]*" || true')
        return f"Wackamole {said}; Spread"

    def layout(self, name: str) -> Layout:
        """On Spread."""
        return replace(layout(name, engine="spread"), detection_ms=self._detection_ms)

    @staticmethod
    def config(lab: Lab) -> str:
        """wackamole.conf, the same on all nodes."""
        vips = "".join(f"    {{ eth0:{a}/32n16 }}\n" for _, a in lab.layout.vips)
        return (
            "Spread = 4803@127.0.0.1\nSpreadRetryInterval = 5s\nGroup = lab\nControl = /run/wack.it\nPrefer None\n"
            f"VirtualInterfaces {{\n{vips}}}\n"
            "Arp-Cache = 90s\nNotify {\n    eth0:10.77.0.200/32\n    arp-cache\n}\n"
            "balance {\n    AcquisitionsPerRound = all\n    interval = 4s\n}\nmature = 5s\n"
        )

    def start(self, lab: Lab, node: str) -> None:
        """Spread, then Wackamole."""
        lab.boot(node)
        lab.start_spread(node)
        self.file(lab, node, "run/wackamole.conf", self.config(lab))
        self.file(lab, node, "run/start", START, 0o700)
        lab.begin(node, "unshare", "--uts", "/run/start", os.environ[VARIABLE], address(lab, node), log="wackamole.log")
