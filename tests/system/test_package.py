"""The Debian package in a Debian of its own: installed, running under its own systemd, upgraded, purged."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .debian import Host, Tree

CONFIG = """
[cluster]
name = "system"
key_file = "/etc/wackamole/system.key"
mature = "2s"

[engine]
detection = "1s"

[[node]]
name = "a"
address = "10.99.0.11"

[[node]]
name = "b"
address = "10.99.0.12"

[[vip]]
name = "one"
address = "10.99.0.101"

[[vip]]
name = "two"
address = "10.99.0.102"
"""
UNITS = ("wackamole.service", "wackamole-web.service", "wackamole-metrics.service")
INSTALL = ("apt-get", "install", "-qq", "-y", "--no-install-recommends", "/wackamole.deb")


def install(tree: Tree, package: Path) -> None:
    (tree.path / "wackamole.deb").write_bytes(package.read_bytes())
    tree.run(*INSTALL)


def test_installed_it_works_and_purged_it_leaves_nothing(tree: Tree, package: Path) -> None:
    before = tree.snapshot()
    install(tree, package)
    assert tree.run("wackamole", "--version").startswith("wackamole 3")
    (tree.path / "etc/wackamole/wackamole.toml").write_text(CONFIG)
    tree.run("wackamole", "keygen", "/etc/wackamole/system.key")
    assert "2 nodes, 2 VIPs" in tree.run("wackamole", "check")
    assert tree.run("getent", "group", "wackamole").startswith("wackamole:x:")
    assert (tree.path / "etc/systemd/system/multi-user.target.wants/wackamole.service").is_symlink()
    assert tree.run("systemd-analyze", "verify", "--man=no", *UNITS) == ""
    for unit in UNITS[1:]:
        assert not (tree.path / f"etc/systemd/system/multi-user.target.wants/{unit}").exists()
    said = tree.run("env", "COMP_WORDS=wackamole st", "COMP_CWORD=1", "_WACKAMOLE_COMPLETE=complete_bash", "wackamole")
    assert "status" in said.split()

    tree.run("apt-get", "purge", "-qq", "-y", "wackamole")
    (tree.path / "wackamole.deb").unlink()
    after = tree.snapshot()
    assert {k: v for k, v in after.items() if before.get(k) != v} == {}
    assert sorted(before.keys() - after.keys()) == []


def status(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.run("wackamole", "status", "--json"))
    return found


def holders(host: Host) -> dict[str, str | None]:
    return {v["name"]: v["holder"] for v in status(host)["vips"]}


def main_pid(host: Host) -> str:
    return host.run("systemctl", "show", "--property=MainPID", "--value", "wackamole").strip()


def newer(package: Path, to: Path) -> Path:
    """The same package as a later version."""
    folder = to / "newer"
    subprocess.run(["dpkg-deb", "-R", str(package), str(folder)], check=True)
    control = folder / "DEBIAN/control"
    lines = [line + "+later" if line.startswith("Version: ") else line for line in control.read_text().splitlines()]
    control.write_text("\n".join(lines) + "\n")
    made = to / "newer.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(folder), str(made)],
        check=True,
        capture_output=True,
    )
    return made


def addresses(host: Host) -> set[str]:
    """Of the VIPs, those that the host's kernel has."""
    links = json.loads(host.run("ip", "-json", "address", "show", "dev", "eth0"))
    found = {a["local"] for link in links for a in link["addr_info"]}
    return found & {"10.99.0.101", "10.99.0.102"}


def restarts(host: Host) -> int:
    return int(host.run("systemctl", "show", "--property=NRestarts", "--value", "wackamole"))


def why_gone(host: Host) -> dict[str, str]:
    """Why the members that went last are gone, as the cluster's history has it since the last one came."""
    views = [
        e
        for line in host.run("wackamole", "events", "--json").splitlines()
        if (e := json.loads(line))["event"] == "view"
    ]
    return dict(pair.split(":") for pair in views[-1]["left"].split(",")) if "left" in views[-1] else {}


def failed(host: Host) -> str:
    return host.run("systemctl", "--failed", "--no-pager", "--plain")


def is_active(host: Host) -> bool:
    return host.run("systemctl", "is-active", "wackamole", check=False).strip() == "active"


def serve_alike(a: Host, b: Host) -> bool:
    """Whether both are members, hold a VIP each, and each kernel has what the table says."""
    if not (is_active(a) and is_active(b)):
        return False
    return set(holders(a).values()) == {"a", "b"} and len(addresses(a)) == len(addresses(b)) == 1


def test_under_systemd(tree: Tree, package: Path, networks: tuple[str, str], tmp_path: Path) -> None:
    """A cluster of two hosts: started, killed, stuck, upgraded, replaced, stopped, reloaded, switched off, purged."""
    install(tree, package)
    tree.run("systemctl", "disable", "corosync")
    tree.run("wackamole", "keygen", "/etc/wackamole/system.key")
    (tree.path / "usr/sbin/policy-rc.d").unlink()  # from here on it is a host of its own
    other = tree.copy(tmp_path / "other")
    newer(package, tmp_path).rename(tree.path / "newer.deb")
    with ExitStack() as stack:
        a = stack.enter_context(tree.booted("a", networks[0]))
        b = stack.enter_context(other.booted("b", networks[1]))
        for host, root in ((a, tree), (b, other)):
            assert not is_active(host)  # it has no config yet
            assert "wackamole" not in failed(host)
            (root.path / "etc/wackamole/wackamole.toml").write_text(CONFIG)
        b.run("systemctl", "start", "--no-block", "wackamole")
        a.run("systemctl", "start", "wackamole")  # comes back when it is a settled member: sd_notify
        a.until(lambda: serve_alike(a, b), "each host serves a VIP")
        found = status(a)
        assert found["fence"]["mode"] == "nftables"
        assert found["warnings"] == []
        level = a.run("systemd-analyze", "security", "--no-pager", "wackamole").splitlines()[-1]
        assert float(level.split(":")[1].split()[0]) <= 3.0, level
        limits = a.run("cat", f"/proc/{main_pid(a)}/limits")
        if int(limits.partition("Max realtime priority")[2].split()[0]) >= 10:  # else this machine cannot give it
            assert found["process"]["scheduling"] == "rr"

        # killed: what is left is released, and it is started again
        a.run("kill", "-9", main_pid(a))
        a.until(lambda: restarts(a) == 1 and serve_alike(a, b), "it is back after SIGKILL")
        # stuck: the watchdog ends it
        a.run("kill", "-STOP", main_pid(a))
        a.until(lambda: restarts(a) == 2 and serve_alike(a, b), "it is back after a watchdog's timeout")
        assert "Watchdog timeout" in a.run("journalctl", "--no-pager", "--unit=wackamole")

        # upgraded: the daemon serves on, then is replaced by the same process
        before, serving = status(a)["process"], addresses(a)
        said = a.run("apt-get", "install", "-qq", "-y", "/newer.deb")
        assert "wackamole restart" in said
        assert status(a)["process"] == before
        a.run("wackamole", "restart")
        after = status(a)["process"]
        assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"] + 1)
        assert addresses(a) == serving
        assert is_active(a)
        assert restarts(a) == 2

        # stopped: handed over, and nothing stays
        a.run("systemctl", "stop", "wackamole")
        assert set(holders(b).values()) == {"b"}
        assert addresses(a) == set()
        assert "corosync" not in a.run("ps", "-A", "-o", "comm")
        a.run("systemctl", "start", "wackamole")
        a.until(lambda: serve_alike(a, b), "it is back after a stop")

        # reloaded: a VIP more
        for host, root in ((a, tree), (b, other)):
            more = f'{CONFIG}\n[[vip]]\nname = "three"\naddress = "10.99.0.103"\n'
            (root.path / "etc/wackamole/wackamole.toml").write_text(more)
            host.run("systemctl", "reload", "wackamole")
        a.until(lambda: holders(a).get("three") is not None, "the new VIP is served")

        # switched off: it leaves before its Corosync does
        b.run("systemctl", "poweroff")
        a.until(lambda: len(addresses(a)) == 2, "a serves everything")
        a.until(lambda: "b" in why_gone(a), "a tells that b is gone")
        assert why_gone(a)["b"] == "left"
        b.until(b.down, "it is off", within_s=90)

        a.run("apt-get", "purge", "-qq", "-y", "wackamole")
        assert addresses(a) == set()
        assert "wackamole" not in a.run("nft", "list", "tables")
        left = a.run("ps", "-A", "-o", "args")
        assert "wackamole" not in left
        assert "corosync" not in left
        assert "wackamole" not in failed(a)
