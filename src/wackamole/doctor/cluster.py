"""The config, its key, and what a running daemon says."""

from __future__ import annotations

import os
from pathlib import Path

from ..keys import KeyRefused, read, read_all
from .finding import Finding, NotChecked, few, note, ok, problem
from .host import Host


def configuration(host: Host) -> Finding:
    """The file is valid, and this host is one of its nodes."""
    if host.wrong:
        return problem("; ".join(host.wrong), "wackamole check FILE")
    config, node = host.configured(), host.itself()
    return ok(f"{config.path}: {len(config.nodes)} nodes, {len(config.vips)} VIPs; this host is {node.name}")


def key(host: Host) -> Finding:
    """The ring has a key that can be used."""
    config = host.configured()
    if config.cluster.key_file is None:
        said = note if not config.engine.managed else problem
        return said(
            "the ring has no key: anybody on its network can join it",
            "wackamole keygen /etc/wackamole/ring.key\n"
            '# copy it to every node, and under [cluster]: key_file = "/etc/wackamole/ring.key"',
        )
    if os.geteuid() and os.path.lexists(config.cluster.key_file) and not os.access(config.cluster.key_file, os.R_OK):
        raise NotChecked("the key can only be read by root")
    try:
        (read if config.engine.managed else read_all)(Path(config.cluster.key_file))
    except KeyRefused as no:
        return problem(str(no), f"# copy the key of another node\nchmod 600 {config.cluster.key_file}")
    return ok(f"{config.cluster.key_file} can be used")


def cluster(host: Host) -> Finding:
    """The daemon is a member, everybody is there, and all have the same config."""
    status = host.status
    if status is None:
        raise NotChecked(host.silent)
    absent = few(status["absent"])
    if status["phase"] != "settled":
        return problem(
            f"the daemon is not settled but {status['phase']}, its engine {status['engine'].get('state', '?')}",
            "wackamole events --local\njournalctl -u wackamole -n 50",
        )
    if absent:
        return problem(f"{absent}: not in the group", f"# on {absent}:\nsystemctl status wackamole\nwackamole doctor")
    differ = [m["name"] for m in status["view"]["members"] if not m["config_agrees"]]
    if differ:
        return problem(
            f"the config of {few(differ)} differs from that of {status['node']}",
            "# copy the file to every node, then on each, one after the other:\nwackamole restart",
        )
    if host.config is not None and host.config.cluster.name != status["cluster"]:
        return problem(
            f"the daemon is of the cluster {status['cluster']}, the file of {host.config.cluster.name}",
            "wackamole doctor --config FILE",
        )
    if status["warnings"]:
        return note("; ".join(status["warnings"]))
    return ok(f"settled, with all {len(status['view']['members'])} nodes")
