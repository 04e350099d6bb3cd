"""Wackamole itself. The fence is on, as it is by default."""

from __future__ import annotations

import shutil
import signal

from ..lab import Lab, Layout
from .system import About, Peer, first_line, layout, not_installed, send

SETTINGS = '[balance]\ninterval = "1s"\nsettle = "2s"\n'
"""Sooner than the defaults, 4 s and 10 s: only how soon shares are even again after a come-back depends on it."""


class Ours(Peer):
    """Wackamole on one of its engines."""

    def __init__(self, engine: str, detection: str = "300ms") -> None:
        self._engine, self._detection = engine, detection
        name = {"corosync": "Corosync", "spread": "Spread"}[engine]
        default = engine == "corosync" and detection == "300ms"
        self.about = About(
            f"wackamole-{engine}",
            f"Wackamole on {name}",
            "defaults; balances after 2 s instead of 10 s" if default else f"detection {detection}; balances after 2 s",
            ours=True,
        )

    def missing(self) -> str | None:
        """Its engine has to be there."""
        if self._engine == "spread":
            return None if shutil.which("spread") else "spread is not on the PATH (www.spread.org; not in Debian)"
        return not_installed("corosync", "corosync")

    def version(self) -> str:
        """This package's, and the engine's."""
        from ... import __version__

        engine = first_line("corosync", "-v") if self._engine == "corosync" else "Spread"
        return f"Wackamole {__version__}; {engine}"

    def layout(self, name: str) -> Layout:
        """With its configuration."""
        return layout(name, engine=self._engine, detection=self._detection, settings=SETTINGS)

    def start(self, lab: Lab, node: str) -> None:
        """The daemon, and Spread's if it is to run on that."""
        lab.start(node)

    def ready(self, lab: Lab) -> bool:
        """All agree, and the kernels have what the table says."""
        return lab.settled()

    def daemons(self, lab: Lab, node: str) -> list[int]:
        """The daemon."""
        pid = lab._daemon(node)
        return [pid] if pid is not None else []

    def leave(self, lab: Lab, node: str) -> None:
        """SIGTERM."""
        send(signal.SIGTERM, self.daemons(lab, node))

    def move(self, lab: Lab, vip: str, source: str, target: str) -> None:  # noqa: ARG002
        """`wackamole move`."""
        lab.ask(target, "move", {"vips": [_name(lab, vip)], "node": target})

    def unmove(self, lab: Lab, vip: str, source: str, target: str) -> None:
        """`wackamole move` back."""
        lab.ask(target, "move", {"vips": [_name(lab, vip)], "node": source})


def _name(lab: Lab, vip: str) -> str:
    return next(name for name, address in lab.layout.vips if address == vip)
