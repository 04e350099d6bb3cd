"""ucarp: one process for each VIP and host, as its README says; scripts of a line put the address on the interface.

Its fastest interval is a second. advskew rotates as priorities do, and --preempt makes shares even again after a come-back.
Without --shutdown a process that ends would leave its address behind. SIGUSR2 demotes a master for three seconds and whoever
comes next takes over: no order to go somewhere and stay, so there is no planned move.
"""

from __future__ import annotations

import signal

from ..lab import Lab
from .system import About, Peer, address, first_line, not_installed, preference, send

SKEW = 10
"""Between first, second and third: 10/256 s, enough for one advertisement to be heard before the next wants to begin."""
UP = '#!/bin/sh\nexec ip addr add "$2/32" dev "$1"\n'
DOWN = '#!/bin/sh\nexec ip addr del "$2/32" dev "$1"\n'


class Ucarp(Peer):
    """CARP in user space, with its defaults: advbase 1, deadratio 3."""

    programs = ("ucarp",)
    about = About("ucarp", "ucarp", "defaults (advbase 1); a process for each VIP; --preempt, --shutdown")

    def missing(self) -> str | None:
        """The package."""
        return not_installed("ucarp", "ucarp")

    def version(self) -> str:
        """Of the package: the program does not say."""
        return "ucarp " + first_line("dpkg-query", "-W", "-f", "${Version}", "ucarp")

    def commands(self, lab: Lab, node: str) -> str:
        """A script that starts all of a node's."""
        lines = ["#!/bin/sh"]
        for index, (_, vip) in enumerate(lab.layout.vips):
            skew = SKEW * preference(index, lab.layout.nodes).index(node)
            lines.append(
                f"ucarp --interface=eth0 --srcip={address(lab, node)} --vhid={index + 1} --pass=lab --addr={vip}"
                f" --advskew={skew} --preempt --shutdown --upscript=/run/vip-up --downscript=/run/vip-down"
                f" >>/run/ucarp.{index + 1}.log 2>&1 &"
            )
        return "\n".join([*lines, "wait", ""])

    def start(self, lab: Lab, node: str) -> None:
        """All of a node's processes."""
        lab.boot(node)
        self.file(lab, node, "run/vip-up", UP, 0o700)
        self.file(lab, node, "run/vip-down", DOWN, 0o700)
        script = self.file(lab, node, "run/ucarps", self.commands(lab, node), 0o700)
        lab.begin(node, f"/run/{script.name}", log="daemon.log")

    def leave(self, lab: Lab, node: str) -> None:
        """SIGTERM to each."""
        send(signal.SIGTERM, self.daemons(lab, node))
