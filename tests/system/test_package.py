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
    assert tree.run("systemd-analyze", "verify", "--man=no", "wackamole.service") == ""
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
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(folder), str(made)], check=True, capture_output=True)
    return made


def test_under_systemd(tree: Tree, package: Path, networks: tuple[str, str], tmp_path: Path) -> None:
    """A cluster of two hosts: started, killed, stuck, upgraded, replaced, stopped, switched off, purged."""
    install(tree, package)
    tree.run("systemctl", "disable", "corosync")
    tree.run("wackamole", "keygen", "/etc/wackamole/system.key")
    other = tree.copy(tmp_path / "other")
    later = newer(package, tmp_path)
    with ExitStack() as stack:
        a = stack.enter_context(tree.booted("a", networks[0]))
        b = stack.enter_context(other.booted("b", networks[1]))
        assert a.run("systemctl", "is-active", "wackamole", check=False).strip() == "inactive"  # it has no config yet
        for host, root in ((a, tree), (b, other)):
            assert host.state() == "running", host.run("systemctl", "--failed", "--no-pager")
            (root.path / "etc/wackamole/wackamole.toml").write_text(CONFIG)
            host.run("systemctl", "start", "--no-block", "wackamole")
        for host in (a, b):
            host.until(lambda host=host: host.run("systemctl", "is-active", "wackamole", check=False).strip() == "active", "it is ready")
        a.until(lambda: set(holders(a).values()) == {"a", "b"}, "each has a VIP")
        found = status(a)
        assert found["fence"]["mode"] == "nftables"
        assert found["process"]["scheduling"] == "rr"
        assert found["warnings"] == []
        print(a.run("systemctl", "status", "--no-pager", "wackamole"))
        print(a.run("systemd-analyze", "security", "--no-pager", "wackamole").splitlines()[-1])
