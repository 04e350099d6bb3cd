"""What all checks look at: the config, what the daemon answers, and the interfaces of this host."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..client import NotReachable, Refused, ask
from ..config import RUN_DIR, Config, ConfigError, NodeConfig, find_self, load
from ..core.model import Address
from ..shell.kernel.rtnl import IFF_LOOPBACK, Link, Rtnl
from ..shell.kernel.surroundings import Surroundings
from .finding import NotChecked

TOOL_SECONDS_MAX = DAEMON_SECONDS_MAX = 5.0
SYSCTL = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class Host:
    """This host. `wrong`: why there is no config, or no node of it; `status` is the daemon's, None with the reason in
    `silent`."""

    config: Config | None
    node: NodeConfig | None
    wrong: tuple[str, ...]
    status: Mapping[str, Any] | None
    silent: str
    around: Surroundings
    socket: str
    """Where a daemon is asked."""

    def configured(self) -> Config:
        """The config, for checks that need it."""
        if self.config is None:
            raise NotChecked("the configuration cannot be used")
        return self.config

    def itself(self) -> NodeConfig:
        """The node that this host is, for checks that need it."""
        self.configured()
        if self.node is None:
            raise NotChecked("it is not known which node this host is")
        return self.node

    def others(self) -> tuple[NodeConfig, ...]:
        """The other nodes; NotChecked if there are none."""
        me = self.itself()
        found = tuple(n for n in self.configured().nodes if n.name != me.name)
        if not found:
            raise NotChecked("there is no other node")
        return found

    def addresses(self) -> list[Address]:
        """The addresses of all VIPs."""
        return [a for v in self.configured().vips for a in v.vip.addresses]

    def places(self) -> dict[int, list[Address]]:
        """The VIPs' addresses by the interface that each belongs on; those that belong on none are left out."""
        found: dict[int, list[Address]] = {}
        for address in self.addresses():
            link = self.around.locate(address)
            if link is not None:
                found.setdefault(link.index, []).append(address)
        return found

    def segments(self, version: int) -> list[tuple[Link, list[Link]]]:
        """Each interface with VIPs of this IP version, and the other interfaces with a subnet of the same segment."""
        found = []
        for index, addresses in self.places().items():
            if any((":" in a.ip) == (version == 6) for a in addresses):
                same = sorted(self.around.segment(index) - {index})
                found.append((self.around.links[index], [self.around.links[i] for i in same]))
        return found


def look(config_path: Path, node_name: str | None, socket_path: str | None) -> Host:
    """Read the config, ask the daemon and list the interfaces. A daemon that is stuck is waited for no longer
    than DAEMON_SECONDS_MAX."""
    config: Config | None = None
    node: NodeConfig | None = None
    wrong: tuple[str, ...] = ()
    try:
        config = load(config_path)
        node = find_self(config, node_name)
    except ConfigError as no:
        wrong = no.problems
    path = socket_path or (config.control.socket if config is not None else f"{RUN_DIR}/control.sock")
    status: Mapping[str, Any] | None = None
    silent = ""
    try:
        status = ask(path, "status", seconds=DAEMON_SECONDS_MAX)
    except (NotReachable, Refused) as no:
        silent = str(no)
    around = Surroundings(dict(node.interfaces) if node else {})
    rtnl = Rtnl()
    try:
        around.read(rtnl.links(), rtnl.addresses())
    finally:
        rtnl.close()
    return Host(config, node, wrong, status, silent, around, path)


def sysctl(*path: str) -> int:
    """A number under net; NotChecked where this kernel has none of that name."""
    try:
        return int(SYSCTL.joinpath(*path).read_text())
    except OSError as no:
        raise NotChecked(f"net.{'.'.join(path)} cannot be read: {no.strerror}") from None


def tool(*command: str) -> str:
    """What a program prints; NotChecked if it is not there, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TOOL_SECONDS_MAX)
    except FileNotFoundError:
        raise NotChecked(f"the program {command[0]!r} is not installed") from None
    except subprocess.TimeoutExpired:
        raise NotChecked(f"`{' '.join(command)}` took longer than {TOOL_SECONDS_MAX:.0f} s") from None
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise NotChecked(f"`{' '.join(command)}` failed: {words[0] if words else done.returncode}")
    return done.stdout


def wired(around: Surroundings) -> list[Link]:
    """The interfaces that are up and have addresses, without the loopback."""
    with_address = {a.index for a in around.foreign}
    return [x for x in around.links.values() if x.carries and not x.flags & IFF_LOOPBACK and x.index in with_address]
