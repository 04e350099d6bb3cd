"""A segment of four hosts: HOST, which is examined, another node of its cluster, a stranger, and the switch between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from wackamole.doctor.examination import CHECKS, run
from wackamole.doctor.finding import Finding
from wackamole.doctor.host import look
from wackamole.lab.lab import Lab
from wackamole.lab.namespaces import SHM, ip, opened_in, tool

HOST, NODE, STRANGER, SWITCH = (f"wd{os.getpid()}-{name}" for name in ("host", "node", "stranger", "switch"))
NUMBERS = {HOST: 1, NODE: 2, STRANGER: 99}
V4, V6 = "10.9.0.100", "fd09::100"
T = TypeVar("T")


def mac(host: str) -> str:
    return f"02:09:00:00:00:{NUMBERS[host]:02x}"


@dataclass(frozen=True)
class Segment:
    """Its config is a file in `folder`."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "wackamole.toml"

    def configure(self, *vips: str, engine: str = "", fence: str = "", cluster: str = "", more: str = "") -> None:
        """Write the config; a VIP is an address, or the text of a table."""
        tables = [f"[[vip]]\n{v}\n" if "=" in v else f'[[vip]]\naddress = "{v}"\n' for v in vips or (V4, V6)]
        nodes = [f'[[node]]\nname = "{name}"\naddress = "10.9.0.{number}"\n' for name, number in (("a", 1), ("b", 2))]
        text = f'[cluster]\nname = "web"\n{cluster}\n[engine]\n{engine}\n[fence]\n{fence}\n{more}\n'
        self.config.write_text(text + "".join(nodes + tables))

    def check(self, name: str, node: str = "a") -> Finding:
        """What one check finds on HOST."""
        socket = str(self.folder / "control.sock")
        return opened_in(HOST, lambda: run({name: CHECKS[name]}, look(self.config, node, socket))[name])

    def doctor(self, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
        """Run the whole program on HOST, with `folder`/run as its /run, by a program such as setpriv(1)."""
        (self.folder / "run").mkdir(exist_ok=True)
        enter = [sys.executable, "-m", "wackamole.lab.enter", HOST, str(self.folder / "run"), *before]
        command = [*enter, sys.executable, "-m", "wackamole", "doctor", "--json", "-c", str(self.config), "--node", "a"]
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False, env=Lab.environment(), timeout=120
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def found(self, name: str, *arguments: str, before: tuple[str, ...] = ()) -> dict[str, str]:
        """What one check of the whole program finds."""
        _, said = self.doctor("--quiet", *arguments, before=before)
        return next(c for c in said["checks"] if c["check"] == name)

    def sysctl(self, path: str, value: int) -> None:
        """Set a kernel parameter of HOST's network."""
        opened_in(HOST, lambda: Path("/proc/sys/net", *path.split(".")).write_text(str(value)))

    def second_interface(self, address: str = "10.9.0.51/24") -> None:
        """HOST is plugged in twice."""
        _plug(HOST, "eth1", "02:09:00:00:01:01")
        ip(f"addr add {address} dev eth1", "link set eth1 up", namespace=HOST)


def _plug(host: str, interface: str, address: str) -> None:
    port = f"{host.rpartition('-')[2]}{interface[-1]}"
    ip(f"link add {port} type veth peer name {interface} address {address} netns {host}", namespace=SWITCH)
    ip(f"link set {port} master br0 up", namespace=SWITCH)


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    """The hosts, with a config of two nodes and two VIPs."""
    for name in (HOST, NODE, STRANGER, SWITCH):
        tool("ip", "netns", "add", name)
    try:
        ip("link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up", namespace=SWITCH)
        for host, number in NUMBERS.items():
            _plug(host, "eth0", mac(host))
            ip("link set lo up", f"addr add 10.9.0.{number}/24 dev eth0", f"addr add fd09::{number}/64 dev eth0 nodad",
               "link set eth0 addrgenmode none", "link set eth0 up", namespace=host)  # fmt: skip
            ip(f"addr add fe80::{number}/64 dev eth0 nodad", namespace=host)
        found = Segment(tmp_path)
        found.configure()
        yield found
    finally:
        for name in (HOST, NODE, STRANGER, SWITCH):
            tool("ip", "netns", "delete", name)
        shutil.rmtree(SHM / HOST, ignore_errors=True)


def on(host: str, opener: Callable[[], T]) -> T:
    return opened_in(host, opener)
