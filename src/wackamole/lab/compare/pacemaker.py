"""Pacemaker on Corosync, with an IPaddr2 resource for each VIP.

The resources have no stickiness and no constraints, so Pacemaker itself spreads them evenly, also after a come-back. There
is no fencing device (`stonith-enabled=false`): a lab has no power switch, and with one every fault would cost its power
cycle as well. That makes Pacemaker faster here than it is in production, and less safe; the table of two owners has what
that costs.

Once with Corosync's own timings (token 3 s, which becomes 3.65 s with three nodes), once with ours: then what differs is not
detection.
"""

from __future__ import annotations

import signal
from pathlib import Path
from xml.sax.saxutils import quoteattr

from ...engine.corosync.conf import RingNode, corosync_conf, timings
from ..lab import Lab
from ..namespaces import tool
from .system import About, Peer, address, first_line, named, not_installed, send

OWN = {
    "/etc/corosync": "etc/corosync",
    "/var/lib/corosync": "var/corosync",
    "/var/lib/pacemaker": "var/pacemaker",
    "/var/log/pacemaker": "var/log",
}
USER, GROUP = "hacluster", "haclient"
START = """\
#!/bin/sh
# as the unit files do: Pacemaker after Corosync is ready
corosync -f &
until corosync-cpgtool >/dev/null 2>&1; do sleep 0.05; done
exec pacemakerd
"""
QUORUM = "quorum {\n    provider: corosync_votequorum\n}\n"


class Pacemaker(Peer):
    """Pacemaker, as Debian has it."""

    programs = ("pacemaker",)

    def __init__(self, detection_ms: int | None = None) -> None:
        self._detection_ms = detection_ms
        if detection_ms is None:
            self.about = About("pacemaker", "Pacemaker, default", "IPaddr2 for each VIP; no fencing device", slow=True)
        else:
            self.about = About(
                "pacemaker-300ms",
                f"Pacemaker, {detection_ms} ms",
                f"Corosync with our timings ({detection_ms} ms); IPaddr2 for each VIP; no fencing device",
                slow=True,
            )

    def missing(self) -> str | None:
        """The packages."""
        wanted = (("pacemakerd", "pacemaker"), ("corosync", "corosync"), ("crm_resource", "pacemaker-cli-utils"))
        agent = Path("/usr/lib/ocf/resource.d/heartbeat/IPaddr2")
        without = next((why for p, package in wanted if (why := not_installed(p, package))), None)
        return without or (None if agent.exists() else f"{agent} is not there (Debian: resource-agents)")

    def version(self) -> str:
        """Both."""
        return f"{first_line('pacemakerd', '--version')}; {first_line('corosync', '-v')}"

    def corosync(self, lab: Lab) -> str:
        """corosync.conf."""
        nodes = [RingNode(n, i, (address(lab, n),)) for i, n in enumerate(lab.layout.nodes, 1)]
        if self._detection_ms is not None:
            timers = timings(self._detection_ms)
            text = corosync_conf(
                "lab", tuple(nodes), timers, key_file=None, log_file="/run/corosync.log", state_dir="/var/lib/corosync"
            )
            return text + QUORUM
        lines = ["totem {", "    version: 2", "    cluster_name: lab", "    transport: knet", "}", "nodelist {"]
        for node in nodes:
            lines += [
                "    node {",
                f"        name: {node.name}",
                f"        nodeid: {node.number}",
                f"        ring0_addr: {node.addresses[0]}",
                "    }",
            ]
        return "\n".join(
            [*lines, "}", "logging {", "    to_logfile: yes", "    logfile: /run/corosync.log", "}", QUORUM]
        )

    @staticmethod
    def cib(lab: Lab) -> str:
        """The cluster's configuration, as `cibadmin --replace` would have brought it there."""
        options = {"stonith-enabled": "false", "cluster-name": "lab"}
        lines = [
            '<cib crm_feature_set="3.16.2" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="1">',
            '<configuration><crm_config><cluster_property_set id="options">',
            *(
                f"<nvpair id={quoteattr('o-' + k)} name={quoteattr(k)} value={quoteattr(v)}/>"
                for k, v in options.items()
            ),
            "</cluster_property_set></crm_config><nodes>",
            *(f'<node id="{i}" uname="{n}"/>' for i, n in enumerate(lab.layout.nodes, 1)),
            "</nodes><resources>",
        ]
        for name, vip in lab.layout.vips:
            attributes = {"ip": vip, "cidr_netmask": "32", "nic": "eth0"}
            lines += [
                f'<primitive id="{name}" class="ocf" provider="heartbeat" type="IPaddr2">',
                f'<instance_attributes id="{name}-a">',
                *(f'<nvpair id="{name}-{k}" name="{k}" value="{v}"/>' for k, v in attributes.items()),
                "</instance_attributes><operations>",
                f'<op id="{name}-m" name="monitor" interval="10s" timeout="20s"/>',
                f'<op id="{name}-s" name="start" interval="0s" timeout="20s"/>',
                f'<op id="{name}-t" name="stop" interval="0s" timeout="20s"/>',
                "</operations></primitive>",
            ]
        return "\n".join([*lines, "</resources><constraints/></configuration><status/></cib>", ""])

    def start(self, lab: Lab, node: str) -> None:
        """Corosync, then Pacemaker."""
        lab.boot(node)
        home = lab.home / node
        for folder in OWN.values():
            (home / folder).mkdir(parents=True, exist_ok=True)
        (home / "run/resource-agents").mkdir(exist_ok=True)
        (home / "run/crm").mkdir(exist_ok=True)
        if not (home / "var/pacemaker/cib").exists():  # what is on its disk stays there when it crashes
            for folder in ("blackbox", "cib", "cores", "pengine"):
                (home / "var/pacemaker" / folder).mkdir()
            self.file(lab, node, "var/pacemaker/cib/cib.xml", self.cib(lab))
        (home / "var/log/bundles").mkdir(exist_ok=True)
        for folder in ("var/pacemaker", "var/log", "run/crm"):
            tool("chown", "-R", f"{USER}:{GROUP}", str(home / folder))
        self.file(lab, node, "etc/corosync/corosync.conf", self.corosync(lab))
        self.file(lab, node, "run/start", START, 0o700)
        for above in (home, *home.parents):
            if lab.home in (above, *above.parents):
                above.chmod(0o755)  # Pacemaker's parts are not root
        (home / "run").chmod(0o755)
        lab.begin(node, "/run/start", own=OWN, log="daemon.log")

    def leave(self, lab: Lab, node: str) -> None:
        """SIGTERM to Pacemaker; Corosync is stopped after it."""
        send(signal.SIGTERM, named(lab, node, ["pacemakerd"]))

    def left(self, lab: Lab, node: str) -> bool:
        """Pacemaker has ended, then Corosync."""
        if self.daemons(lab, node):
            return False
        corosync = named(lab, node, ["corosync"])
        send(signal.SIGTERM, corosync)
        return not corosync

    @staticmethod
    def _crm(lab: Lab, node: str, *command: str) -> None:
        lab.begin(node, *command, own=OWN, log="daemon.log").wait()

    def move(self, lab: Lab, vip: str, source: str, target: str) -> None:  # noqa: ARG002
        """`crm_resource --move`."""
        name = next(n for n, a in lab.layout.vips if a == vip)
        self._crm(lab, target, "crm_resource", "--move", "--resource", name, "--node", target)

    def unmove(self, lab: Lab, vip: str, source: str, target: str) -> None:  # noqa: ARG002
        """`crm_resource --clear`."""
        name = next(n for n, a in lab.layout.vips if a == vip)
        self._crm(lab, target, "crm_resource", "--clear", "--resource", name)
