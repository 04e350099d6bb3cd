"""keepalived: a VRRP instance for each VIP, so that every host is master of its share and backup for the others'.

That is how its users do "active/active" (its own SYNOPSIS and samples have two instances with swapped priorities; this is
the same for three hosts). Everybody begins as BACKUP and the priorities decide; preemption is on, the default, so shares are
even again after a come-back. Priorities are close to the top: a backup waits (256 - priority) / 256 of an interval longer
than three, and with the 150, 100 and 50 of many examples that would be up to 80 ms of each 100 ms more.
"""

from __future__ import annotations

from ..lab import Lab
from .system import About, Peer, first_line, not_installed, preference

PRIORITY, STEP = 250, 8
"""Of the first; each next one has so much less. Eight steps keep two backups apart by 3 ms at 100 ms: enough for one
advertisement to be heard, so that there is one election and not two."""


class Keepalived(Peer):
    """VRRP with its defaults, or VRRP 3 with an advertisement each 100 ms."""

    programs = ("keepalived",)

    def __init__(self, *, tuned: bool) -> None:
        self._tuned = tuned
        if tuned:
            self.about = About(
                "keepalived-100ms",
                "keepalived, 100 ms",
                "VRRP 3, advert_int 0.1, vrrp_rt_priority, vrrp_no_swap, vrrp_higher_prio_send_advert; an instance for each VIP",
            )
        else:
            self.about = About("keepalived", "keepalived, default", "defaults (advert_int 1); an instance for each VIP")

    def missing(self) -> str | None:
        """The package."""
        return not_installed("keepalived", "keepalived")

    def version(self) -> str:
        """`keepalived --version`."""
        return first_line("sh", "-c", "keepalived --version 2>&1")

    def config(self, lab: Lab, node: str) -> str:
        """keepalived.conf of one node."""
        lines = ["global_defs {", f"    router_id {node}"]
        if self._tuned:
            # keepalived.conf(5): with short intervals the process must not wait for others, or it is taken for dead
            lines += ["    vrrp_version 3", "    vrrp_rt_priority 50", "    vrrp_no_swap"]
            # by default the kernel kills a real-time process of its that computes for 10 ms at a stretch: too little for
            # reading ten instances on a busy host
            lines.append("    vrrp_rlimit_rttime 1000000")
            # after a split the one that stays master must hear that there was another, to announce itself again: without
            # this, clients that believed the other are dark for some 20 s
            lines.append("    vrrp_higher_prio_send_advert true")
        lines.append("}")
        for index, (name, address) in enumerate(lab.layout.vips):
            priority = PRIORITY - STEP * preference(index, lab.layout.nodes).index(node)
            lines += [
                # the documented way to move an instance: what is written to the file is added to its priority
                f"track_file move_{name} {{",
                f"    file /run/move/{name}",
                "    weight 1",
                "    init_file 0",
                "}",
                f"vrrp_instance {name} {{",
                "    state BACKUP",
                "    interface eth0",
                f"    virtual_router_id {index + 1}",
                f"    priority {priority}",
                f"    advert_int {'0.1' if self._tuned else '1'}",
                "    virtual_ipaddress {",
                f"        {address}/32",
                "    }",
                "    track_file {",
                f"        move_{name} weight 1",
                "    }",
                "}",
            ]
        return "\n".join([*lines, ""])

    def start(self, lab: Lab, node: str) -> None:
        """As its unit does, without the load balancer's part."""
        lab.boot(node)
        self.file(lab, node, "run/keepalived.conf", self.config(lab, node))
        (lab.home / node / "run/move").mkdir(exist_ok=True)
        command = ("keepalived", "--dont-fork", "--log-console", "--vrrp", "--use-file", "/run/keepalived.conf")
        lab.begin(node, *command, log="daemon.log")

    def _priority(self, lab: Lab, vip: str, node: str, more: int) -> None:
        name = next(n for n, a in lab.layout.vips if a == vip)
        (lab.home / node / f"run/move/{name}").write_text(f"{more}\n")

    def move(self, lab: Lab, vip: str, source: str, target: str) -> None:  # noqa: ARG002
        """The target's priority becomes the highest; it preempts."""
        index = [a for _, a in lab.layout.vips].index(vip)
        place = preference(index, lab.layout.nodes).index(target)
        self._priority(lab, vip, target, STEP * place + 2)

    def unmove(self, lab: Lab, vip: str, source: str, target: str) -> None:  # noqa: ARG002
        """As configured."""
        self._priority(lab, vip, target, 0)
