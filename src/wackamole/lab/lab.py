"""The lab: hosts as network namespaces on a bridge, each with a real Corosync and a real daemon.

    switch ── bridge br0 ──┬── a (eth0)      a crash is the switch's port going down and SIGKILL for all of the host;
                           ├── b (eth0)      a cut is the port going down; a partition is dropped frames between
                           ├── client        ports, with all carriers up.
                           └── observer      A second network has a bridge of its own, and may have a `server`.

All that a lab is stands in its directory and in its namespaces' names, so that another process, or a later one after
a SIGKILL, can go on with it or take it away.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..client import NotReachable, Refused, ask, converse
from ..config import load, parse
from ..convert import Source, convert
from ..engine.corosync.managed import noted, start_time
from ..routing import Route, Rule
from ..shell.kernel.rtnl import Placed, Rtnl
from .namespaces import NETNS, SHM, ToolFailed, ip, opened_in, processes_in, tool
from .spread import spread_conf

LABS = Path("/run/wackamole-lab")
CLIENT, OBSERVER, SERVER, SWITCH = "client", "observer", "server", "switch"
PREFIX = "wl-"
RINGS_MAX = 2
FROZEN = ("all", "daemon", "corosync")
ENGINES = ("corosync", "spread")
ARP_IGNORE = Path("/proc/sys/net/ipv4/conf/all/arp_ignore")
FORWARDING = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding"))
GATEWAY = "gateway"
GATEWAY_ADDRESSES = ((0, "10.77.9.1"), (0, "fd77::9:1"), (1, "10.78.9.1"), (1, "fd78::9:1"))
"""Of a lab of routers: network and address."""
SETTLED_SECONDS_MAX = 60.0


class NotInTime(AssertionError):
    """A fact that did not come; the first line says which, the others what the daemons wrote last."""


class LabRefused(Exception):
    """The lab cannot do that; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a lab consists of. `config` is the text of the daemons' configuration."""

    name: str
    nodes: tuple[str, ...]
    rings: int
    vips: tuple[tuple[str, str], ...]  # name, address
    config: str
    engine: str = "corosync"
    detection_ms: int | None = 200
    """What a lab's Spread daemons are told, None: nothing; the nodes' own Corosyncs read it from the config."""
    routed: bool = False
    """The nodes are routers between two networks. `client` stands on the first and `server` on the second, and the VIP that
    they have as their default gateway, GATEWAY, has an address of each family on both."""

    @staticmethod
    def of(
        name: str,
        *,
        nodes: int = 3,
        vips: int = 6,
        vips6: int | None = None,
        detection: str = "200ms",
        rings: int = 1,
        settings: str = "",
        cluster: str = "",
        config: Path | None = None,
        engine: str = "corosync",
        routed: bool = False,
    ) -> Layout:
        """A layout of that many nodes and VIPs, the last `vips6` of them IPv6 (default: one of six). `settings` is
        TOML that goes in front, `cluster` what goes into that table; `config` a file whose nodes, VIPs and settings
        are used instead, and its engine; `engine` is one of ENGINES. `routed`: with a second network, and the VIP GATEWAY beside the others. Raises
        ConfigError."""
        rings = 2 if routed else rings
        if routed and config is not None:
            raise LabRefused("a lab of routers has a configuration of its own")
        if engine == "spread" and (config is not None or rings > 1):
            raise LabRefused("a lab on Spread has one network; of a file, its own `type` under [engine] counts")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,23}", name):
            raise LabRefused(f"{name!r} is no name for a lab: small letters, digits and -, at most 24")
        names = tuple(string.ascii_lowercase[:nodes])
        if config is not None:
            return _layout_of_file(name, config)
        six = vips // 6 if vips6 is None else vips6
        addresses = [f"10.77.{1 + i // 250}.{1 + i % 250}" for i in range(vips - six)]
        addresses += [f"fd77::1:{i + 1:x}" for i in range(six)]
        named = tuple((f"v{i}", a) for i, a in enumerate(addresses, 1))
        table = f'[engine]\ntype = "{engine}"\ndetection = "{detection}"\n'
        lines = [settings, f'[cluster]\nname = "{name}"\n{cluster}\n', table]
        lines += [_node_toml(n, i, rings) for i, n in enumerate(names)]
        lines += [f'[[vip]]\nname = "{n}"\naddress = "{a}"\ninterface = "eth0"\n' for n, a in named]
        if routed:
            inline = [f'{{ address = "{a}", interface = "eth{ring}" }}' for ring, a in GATEWAY_ADDRESSES]
            lines.append(f'[[vip]]\nname = "{GATEWAY}"\naddresses = [ {", ".join(inline)} ]\n')
            named += tuple((GATEWAY, a) for _, a in GATEWAY_ADDRESSES)
        text = "\n".join(line for line in lines if line)
        return Layout(name, names, rings, named, text, engine, parse(text, "lab").engine.detection_ms, routed)

    def namespace(self, host: str) -> str:
        """The network namespace of a host."""
        return f"{PREFIX}{self.name}-{host}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Everything with a cable."""
        return (*self.nodes, CLIENT, OBSERVER, *((SERVER,) if self.routed else ()))


def _node_addresses(index: int, rings: int) -> list[str]:
    return [f"10.{77 + ring}.0.{11 + index}" for ring in range(rings)]


def _node_toml(name: str, index: int, rings: int) -> str:
    return f'[[node]]\nname = "{name}"\naddresses = {json.dumps(_node_addresses(index, rings))}\n'


def _layout_of_file(name: str, path: Path) -> Layout:
    """The layout for a config: all of it but `[control]` and where the engine is, on the lab's own node addresses, and with
    the nodes' first interface in place of every other."""
    found = load(path)
    document = _document(path)
    document.pop("control", None)
    engine = document.pop("engine", {})
    document["engine"] = {key: engine[key] for key in ("type", "detection", "evict_after", "beat") if key in engine}
    rings = 1 if found.engine.type == "spread" else min(len(found.nodes[0].addresses), RINGS_MAX)
    routing = [item for v in found.vips for item in v.routing]
    names: set[str | None] = {a.interface for v in found.vips for a in v.vip.addresses}
    names |= {h.interface for hosts in (found.notify.hosts, *(v.notify for v in found.vips)) for h in hosts}
    names |= {item.dev for item in routing if isinstance(item, Route)}
    names |= {name for item in routing if isinstance(item, Rule) for name in (item.iif, item.oif)}
    interfaces = {each: "eth0" for each in sorted(n for n in names if n) if each != "lo"}
    for index, node in enumerate(document["node"]):
        kept = {key: value for key, value in node.items() if key not in ("address", "id")}
        addresses = _node_addresses(index, rings)
        document["node"][index] = kept | {"addresses": addresses, "interfaces": interfaces}
    for table, v in zip(document["vip"], found.vips, strict=True):
        for key in ("address", "interface"):
            table.pop(key, None)
        table["name"] = v.vip.name
        table["addresses"] = [{"address": str(a), "interface": a.interface or "eth0"} for a in v.vip.addresses]
    vips = tuple((v.vip.name, a.ip) for v in found.vips for a in v.vip.addresses)
    nodes, text = tuple(n.name for n in found.nodes), "\n".join(_toml_lines(document)) + "\n"
    return Layout(name, nodes, rings, vips, text, found.engine.type, found.engine.detection_ms)


def _document(path: Path) -> dict[str, Any]:
    """A valid file's tables, also of a wackamole.conf."""
    text = path.read_text()
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return tomllib.loads(convert([Source(str(path), text)]).toml)


def _toml_lines(document: dict[str, Any]) -> Iterator[str]:
    """As TOML: tables at the first level, everything below in one line."""
    for key, value in document.items():
        if not isinstance(value, dict) and not (isinstance(value, list) and value and isinstance(value[0], dict)):
            yield f"{key} = {_toml_value(value)}"
    for key, value in document.items():
        tables = [(f"[{key}]", value)] if isinstance(value, dict) else []
        if isinstance(value, list):
            tables = [(f"[[{key}]]", table) for table in value if isinstance(table, dict)]
        for header, table in tables:
            yield header
            yield from (f"{json.dumps(k)} = {_toml_value(v)}" for k, v in table.items())


def _toml_value(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(k)} = {_toml_value(v)}' for k, v in value.items())} }}"
    return f"[{', '.join(map(_toml_value, value))}]" if isinstance(value, list) else json.dumps(value)


class Lab:
    """A lab that exists, made by this process or another."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._kernels: dict[str, tuple[int, Rtnl]] = {}

    # -- made, found, taken away ----------------------------------------------------------------------------------------

    @staticmethod
    def create(layout: Layout, *, ephemeral: bool = False) -> Lab:
        """Make the network; no node runs yet. `ephemeral`: it shall not outlive this process; if this process is
        killed, the next `create` takes it away."""
        if os.geteuid() != 0:
            raise LabRefused("a lab needs root: it makes network namespaces")
        if layout.engine == "spread" and shutil.which("spread") is None:
            raise LabRefused("there is no `spread` on the PATH: a lab on Spread needs its daemon (www.spread.org)")
        LABS.mkdir(mode=0o755, exist_ok=True)
        with _locked():
            _sweep()
            home = LABS / layout.name
            if home.exists():
                raise LabRefused(f"the lab {layout.name} is up already; `wackamole lab down --name {layout.name}`")
            home.mkdir(mode=0o700)
            note = {"layout": asdict(layout), "owner": [os.getpid(), start_time(os.getpid())], "ephemeral": True}
            (home / "lab.json").write_text(json.dumps(note))
        lab = Lab(layout)
        try:
            lab._make_network()
        except BaseException as wrong:
            lab.down()
            if isinstance(wrong, ToolFailed):
                raise LabRefused(f"the network cannot be made: {wrong}") from None
            raise
        if not ephemeral:
            lab.keep()
        return lab

    def keep(self) -> None:
        """Let it outlive this process."""
        file = self.home / "lab.json"
        note = json.loads(file.read_text())
        file.write_text(json.dumps({**note, "ephemeral": False}))

    @staticmethod
    def open(name: str, *, missing_ok: bool = False) -> Lab:
        """A lab that is up. Raises LabRefused if there is none, unless what may be left of it is to be removed."""
        if os.geteuid() != 0:
            raise LabRefused("a lab needs root")
        try:
            note = json.loads((LABS / name / "lab.json").read_text())["layout"]
        except (OSError, ValueError, KeyError):
            if not missing_ok:
                raise LabRefused(f"there is no lab {name}; `wackamole lab up`") from None
            return Lab(Layout(name, (), 1, (), ""))
        return Lab(
            Layout(
                note["name"],
                tuple(note["nodes"]),
                note["rings"],
                tuple((n, a) for n, a in note["vips"]),
                note["config"],
                note["engine"],
                note["detection_ms"],
                note["routed"],
            )
        )

    @property
    def home(self) -> Path:
        """The lab's directory."""
        return LABS / self.layout.name

    def down(self) -> None:
        """End every process of its namespaces, and remove them and the directory."""
        self._close_kernels()
        _remove(self.layout.name)
        for child in self._children.values():
            child.kill()  # one that was not found in its namespace would be waited for without end
            child.wait()
        self._children.clear()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- the network ----------------------------------------------------------------------------------------------------

    def _make_network(self) -> None:
        switch = self.layout.namespace(SWITCH)
        tool("ip", "netns", "add", switch)
        lines = ["link set lo up"]
        for ring in range(self.layout.rings):
            lines += [f"link add br{ring} type bridge forward_delay 0 mcast_snooping 0", f"link set br{ring} up"]
        ip(*lines, namespace=switch)
        for host in self.layout.hosts:
            self._make_host(host)

    def _ports(self, host: str) -> list[str]:
        return [f"{host}.{ring}" for ring in self._networks(host)]

    def _networks(self, host: str) -> range:
        if host in self.layout.nodes:
            return range(self.layout.rings)
        return range(1, 2) if host == SERVER else range(1)

    def _number(self, host: str) -> int:
        return {CLIENT: 200, OBSERVER: 201, SERVER: 202}.get(host) or 11 + self.layout.nodes.index(host)

    def macs(self) -> dict[str, str]:
        """The nodes' hardware addresses on the first network."""
        return {n: f"02:57:00:00:00:{self._number(n):02x}" for n in self.layout.nodes}

    def _make_host(self, host: str) -> None:
        here, switch = self.layout.namespace(host), self.layout.namespace(SWITCH)
        tool("ip", "netns", "add", here)
        number = self._number(host)
        for ring, port in zip(self._networks(host), self._ports(host), strict=True):
            mac = f"02:57:00:{ring:02x}:00:{number:02x}"  # a host that was crashed comes back with its own
            ip(f"link add {port} type veth peer name eth{ring} address {mac} netns {here}", namespace=switch)
            ip(f"link set {port} master br{ring} up", namespace=switch)
            ip(
                "link set lo up",
                f"addr add 10.{77 + ring}.0.{number}/16 dev eth{ring}",
                f"addr add fd{77 + ring}::{number}/64 dev eth{ring} nodad",
                f"link set eth{ring} up",
                namespace=here,
            )
        if self.layout.routed and host in (CLIENT, SERVER):
            mine = [a for ring, a in GATEWAY_ADDRESSES if ring in self._networks(host)]
            ip(*[f"route add default via {a}" for a in mine], namespace=here)
        elif host == CLIENT:
            elsewhere = [a for _, a in self.layout.vips if not a.startswith(("10.77.", "fd77::"))]
            if elsewhere:
                ip(*[f"route add {a} dev eth0" for a in elsewhere], namespace=here)
        if len(self._ports(host)) > 1:
            # with two interfaces a host answers ARP for every address on each of them, if it is not told otherwise
            opened_in(here, lambda: ARP_IGNORE.write_text("1"))
        if self.layout.routed and host in self.layout.nodes:
            opened_in(here, lambda: [file.write_text("1") for file in FORWARDING])
        for folder in ("run/wackamole", "run/state"):
            (self.home / host / folder).mkdir(parents=True, exist_ok=True)

    # -- processes ------------------------------------------------------------------------------------------------------

    def _command(self, host: str, *command: str, own: Mapping[str, str] | None = None) -> list[str]:
        home = self.home / host
        enter = [sys.executable, "-m", "wackamole.lab.enter", self.layout.namespace(host), str(home / "run")]
        return [*enter, *(f"{target}={home / source}" for target, source in (own or {}).items()), *command]

    @staticmethod
    def environment(source: Path | None = None) -> dict[str, str]:
        """This process's, with this very package first on the path, or the one in `source`."""
        here = str(source or Path(__file__).resolve().parents[2])
        rest = os.environ.get("PYTHONPATH")
        return {**os.environ, "PYTHONPATH": f"{here}:{rest}" if rest else here}

    def begin(
        self, host: str, *command: str, own: Mapping[str, str] | None = None, log: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Run a command on a host beside everything else. It ends with the host. `own`: paths that show something of the
        host's directory in the lab, whose name stands behind each; `log`: the file there that gets what it writes."""
        self._known(host, self.layout.hosts)
        command_line, env = self._command(host, *command, own=own), self.environment()
        if log is None:
            return subprocess.Popen(command_line, env=env, stdin=subprocess.DEVNULL)
        with (self.home / host / log).open("ab") as out:
            return subprocess.Popen(
                command_line, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def boot(self, node: str) -> None:
        """Make a crashed host anew: its network, and nothing that runs."""
        self._known(node)
        if not (NETNS / self.layout.namespace(node)).exists():
            self._make_host(node)

    def call(self, host: str, *command: str) -> int:
        """Run a command on a host in the foreground; its exit code."""
        self._known(host, self.layout.hosts)
        if command[0] == "--":
            command = command[1:]
        env = {**self.environment(), "WACKAMOLE_SOCKET": "/run/wackamole/control.sock"}
        env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', os.defpath)}"
        try:
            return subprocess.run(self._command(host, *command), env=env, check=False).returncode
        except KeyboardInterrupt:
            return 130

    def start_all(self) -> None:
        """Start every node."""
        for node in self.layout.nodes:
            self.start(node)

    def start(self, node: str, config: str | None = None, *, source: Path | None = None) -> None:
        """Start a node's daemon; a crashed host is made anew first. `source`: the folder of another version of this package."""
        self.boot(node)
        if self._daemon(node) is not None:
            raise LabRefused(f"the daemon of {node} runs already")
        if self.layout.engine == "spread":
            self.start_spread(node)
        home = self.home / node
        file = self.config(node)
        file.write_text(config if config is not None else self.layout.config)
        with (home / "daemon.log").open("ab") as log:
            child = subprocess.Popen(
                self._command(
                    node,
                    sys.executable,
                    "-m",
                    "wackamole.shell.daemon" if source is not None else "wackamole.shell.start",
                    "--config",
                    "/run/wackamole.toml",
                    "--node",
                    node,
                ),
                env=self.environment(source),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[node] = child
        (home / "daemon.json").write_text(json.dumps([child.pid, start_time(child.pid)]))

    def start_spread(self, node: str) -> None:
        """Start a node's Spread daemon, unless it runs."""
        if self.spread(node) is not None:
            return
        self._reap(_spread(node))
        home = self.home / node
        (home / "run/spread").mkdir(parents=True, exist_ok=True)
        hosts = [(n, f"10.77.0.{self._number(n)}") for n in self.layout.nodes]
        (home / "run/spread/spread.conf").write_text(spread_conf(hosts, "10.77.255.255", self.layout.detection_ms))
        with (home / "daemon.log").open("ab") as log:
            child = subprocess.Popen(
                self._command(node, sys.executable, "-m", "wackamole.lab.spread", node),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[_spread(node)] = child
        (home / "spread.json").write_text(json.dumps([child.pid, start_time(child.pid)]))

    def spread(self, node: str) -> int | None:
        """The pid of a node's Spread daemon, if it lives."""
        return _alive(self.home / node / "spread.json")

    def _daemon(self, node: str) -> int | None:
        """The pid of a node's daemon, if it lives."""
        return _alive(self.home / node / "daemon.json")

    def corosync(self, node: str) -> int | None:
        """The pid of a node's Corosync, if it lives."""
        found = noted(self.home / node / "run/wackamole/corosync/running.json")
        return found[0].pid if found is not None and found[0].alive() else None

    def daemon(self, node: str) -> int:
        """The pid of a node's daemon."""
        self._known(node)
        pid = self._daemon(node)
        if pid is None:
            raise LabRefused(f"the daemon of {node} does not run")
        return pid

    def log(self, node: str) -> str:
        """What a node's daemons wrote."""
        return (self.home / node / "daemon.log").read_text(errors="replace")

    def _reap(self, node: str) -> None:
        child = self._children.pop(node, None)
        if child is not None:
            child.wait()

    # -- trouble --------------------------------------------------------------------------------------------------------

    def crash(self, node: str) -> float:
        """The host is gone at once: nothing of it runs any more when its ports go down, so that no process sees that and
        acts on it; then its kernel's state goes. Returns when (monotonic)."""
        when = self.power_off(node)
        self._forget_kernel(node)
        _remove_namespace(self.layout.namespace(node))
        with contextlib.suppress(ToolFailed):  # gone with its peer, unless the namespace lingers
            ip(*[f"link del {port}" for port in self._ports(node)], namespace=self.layout.namespace(SWITCH))
        for entry in (self.home / node / "run").iterdir():
            if entry.is_dir() and entry.name != "state":
                shutil.rmtree(entry, ignore_errors=True)
            elif not entry.is_dir():
                entry.unlink()
        return when

    def power_off(self, node: str) -> float:
        """The first half of a crash: the others see all of it. What its kernel had is left to `crash`: this machine's one
        kernel needs long to take away thousands of addresses, and the others' changes wait for that."""
        self._known(node)
        if not (NETNS / self.layout.namespace(node)).exists():
            raise LabRefused(f"{node} has crashed already; `wackamole lab start {node}`")
        switch = self.layout.namespace(SWITCH)
        running = processes_in(self.layout.namespace(node))
        when = time.monotonic()
        _send(signal.SIGSTOP, *running)
        ip(*[f"link set {port} down" for port in self._ports(node)], namespace=switch)
        _kill_all(self.layout.namespace(node))
        self._reap(node)
        self._reap(_spread(node))
        (self.home / node / "daemon.json").unlink(missing_ok=True)
        return when

    def kill_daemon(self, node: str) -> float:
        """kill -9 of the daemon alone. Returns when (monotonic)."""
        pid = self.daemon(node)
        when = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self._reap(node)
        return when

    def kill_corosync(self, node: str) -> float:
        """kill -9 of the node's Corosync alone. Returns when (monotonic)."""
        pid = self.corosync(node)
        if pid is None:
            raise LabRefused(f"{node} runs no Corosync")
        when = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return when

    def stop(self, node: str) -> float:
        """SIGTERM: hand everything over and leave. Returns when (monotonic); the daemon ends by itself."""
        pid = self.daemon(node)
        when = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        return when

    def freeze(self, node: str, what: str = "all") -> float:
        """SIGSTOP for `all` processes of a node, or for its `daemon` or its `corosync` alone. Returns when (monotonic)."""
        return self._signal(node, what, signal.SIGSTOP)

    def thaw(self, node: str, what: str = "all") -> float:
        """SIGCONT for them. Returns when (monotonic)."""
        return self._signal(node, what, signal.SIGCONT)

    def _signal(self, node: str, what: str, number: signal.Signals) -> float:
        self._known(node)
        if what not in FROZEN:
            raise LabRefused(f"{what!r} cannot be frozen (there are: {', '.join(FROZEN)})")
        one = {"daemon": self._daemon, "corosync": self.corosync}
        pids = processes_in(self.layout.namespace(node)) if what == "all" else [one[what](node)]
        if not pids or None in pids:
            raise LabRefused(f"{node} runs no {'process' if what == 'all' else what}")
        when = time.monotonic()
        _send(number, *[p for p in pids if p is not None])
        return when

    def flush_rules(self, node: str) -> float:
        """What a firewall's reload does: `nft flush ruleset` on a node. Returns when (monotonic)."""
        self._known(node)
        when = time.monotonic()
        tool("ip", "netns", "exec", self.layout.namespace(node), "nft", "flush", "ruleset")
        return when

    def cut(self, node: str, ring: int | None = None) -> float:
        """Pull the cables, or that of one network: no carrier on both sides. Returns when (monotonic)."""
        return self._cables(node, ring, "down")

    def plug(self, node: str, ring: int | None = None) -> float:
        """Plug the cables in, or that of one network. Returns when (monotonic)."""
        return self._cables(node, ring, "up")

    def _cables(self, node: str, ring: int | None, state: str) -> float:
        self._known(node)
        ports = self._ports(node) if ring is None else [self._ports(node)[ring]]
        when = time.monotonic()
        ip(*[f"link set {port} {state}" for port in ports], namespace=self.layout.namespace(SWITCH))
        return when

    def interface_down(self, node: str) -> float:
        """`ip link set eth0 down` on a node: what an operator or a network service does. Returns when (monotonic)."""
        self._known(node)
        when = time.monotonic()
        ip("link set eth0 down", namespace=self.layout.namespace(node))
        return when

    def interface_up(self, node: str) -> float:
        """Up again, with the host's own IPv6 address, which the kernel forgot. Returns when (monotonic)."""
        self._known(node)
        when = time.monotonic()
        own = f"addr replace fd77::{self._number(node)}/64 dev eth0 nodad"
        ip("link set eth0 up", own, namespace=self.layout.namespace(node))
        return when

    def remove_address(self, node: str, address: str) -> float:
        """Take an address away behind the daemon's back. Returns when (monotonic)."""
        self._known(node)
        when = time.monotonic()
        ip(f"addr del {address}/{128 if ':' in address else 32} dev eth0", namespace=self.layout.namespace(node))
        return when

    def partition(self, *groups: Iterable[str]) -> float:
        """Nodes of different groups do not hear each other any more; client and observer hear all. Nodes that are not
        named are one more group. Returns when (monotonic)."""
        sides = [tuple(g) for g in groups]
        named = [n for side in sides for n in side]
        for node in named:
            self._known(node)
        if len(set(named)) != len(named):
            raise LabRefused("a node can be in one group only")
        rest = tuple(n for n in self.layout.nodes if n not in named)
        if rest:
            sides.append(rest)
        rules = [
            f'iifname "{a}" oifname "{b}" drop'
            for one in sides
            for other in sides
            if one is not other
            for x in one
            for y in other
            for a in self._ports(x)
            for b in self._ports(y)
        ]
        return self._filter(rules)

    def heal(self) -> float:
        """Everybody hears everybody again. Returns when (monotonic)."""
        return self._filter([])

    def _filter(self, rules: list[str]) -> float:
        body = "\n".join(rules)
        text = (
            "table bridge lab\ndelete table bridge lab\n"
            f"table bridge lab {{\nchain forward {{\ntype filter hook forward priority 0;\n{body}\n}}\n}}\n"
        )
        when = time.monotonic()
        tool("ip", "netns", "exec", self.layout.namespace(SWITCH), "nft", "-f", "-", text=text)
        return when

    # -- facts ----------------------------------------------------------------------------------------------------------

    def ask(self, node: str, verb: str, arguments: dict[str, object] | None = None) -> Any:
        """One request to a node's daemon."""
        return ask(str(self.home / node / "run/wackamole/control.sock"), verb, arguments)

    def records(self, node: str, since: float = 0.0) -> list[dict[str, Any]]:
        """What a node's daemon has recorded since then (CLOCK_MONOTONIC, seconds), oldest first. Raises NotReachable."""
        path = str(self.home / node / "run/wackamole/control.sock")
        found = [entry for kind, entry in converse(path, "events", {"follow": False}) if kind == "progress"]
        return sorted((e for e in found if e["monotonic"] >= since), key=lambda e: float(e["monotonic"]))

    def config(self, node: str) -> Path:
        """A node's config file; who writes to it does what an operator with an editor does."""
        return self.home / node / "run/wackamole.toml"

    def status(self, node: str) -> dict[str, Any] | None:
        """A node's status, or None when its daemon does not answer."""
        try:
            found = self.ask(node, "status")
        except (NotReachable, Refused):
            return None
        return found if isinstance(found, dict) else None

    def kernel(self, node: str) -> frozenset[str]:
        """The VIP addresses that a node's kernel has, as text without prefix; also foreign ones of the same address."""
        wanted = {a for _, a in self.layout.vips}
        return frozenset(text for text in map(_text, self._addresses(node)) if text in wanted)

    def _addresses(self, node: str) -> list[Placed]:
        path = NETNS / self.layout.namespace(node)
        try:
            inode = path.stat().st_ino
        except FileNotFoundError:
            return []
        known = self._kernels.get(node)
        if known is None or known[0] != inode:
            self._forget_kernel(node)
            self._kernels[node] = (inode, opened_in(self.layout.namespace(node), Rtnl))
        return self._kernels[node][1].addresses()

    def _forget_kernel(self, node: str) -> None:
        known = self._kernels.pop(node, None)
        if known is not None:
            known[1].close()

    def _close_kernels(self) -> None:
        for node in list(self._kernels):
            self._forget_kernel(node)

    def holders(self, address: str) -> set[str]:
        """The nodes whose kernel has an address."""
        return {n for n in self.layout.nodes if address in map(_text, self._addresses(n))}

    def statuses(self) -> dict[str, Any]:
        """Everything of everybody, for people and programs."""
        nodes = {}
        for node in self.layout.nodes:
            up = (NETNS / self.layout.namespace(node)).exists()
            nodes[node] = {
                "host": "up" if up else "crashed",
                "daemon": "runs" if self._daemon(node) is not None else "-",
                "kernel": sorted(self.kernel(node)),
                "status": self.status(node),
            }
        return {"lab": self.layout.name, "nodes": nodes}

    def settled(self, nodes: Iterable[str] | None = None) -> bool:
        """Whether these nodes (default: all) are the members of one settled view, agree on every VIP, and their
        kernels have exactly what the table says, each address once."""
        wanted = sorted(nodes if nodes is not None else self.layout.nodes)
        found = [self.status(n) for n in wanted]
        tables = set()
        for status in found:
            if status is None or status["phase"] != "settled":
                return False
            if sorted(m["name"] for m in status["view"]["members"]) != wanted:
                return False
            if any(v["moving"] or v["holder"] is None for v in status["vips"]):
                return False
            tables.add(json.dumps([[v["name"], v["holder"]] for v in status["vips"]]))
        if len(tables) != 1:
            return False
        first = found[0]
        assert first is not None
        # once each, for there may be thousands; also of VIPs that a reload has brought
        kernels = {n: frozenset(map(_text, self._addresses(n))) for n in wanted}
        for vip in first["vips"]:
            for address in vip["addresses"]:
                if [n for n in wanted if address.partition("/")[0] in kernels[n]] != [vip["holder"]]:
                    return False
        return True

    def until(self, fact: Callable[[], bool], *, within_s: float, story: str) -> float:
        """Wait for a fact; how long it took, seconds. Raises NotInTime with the story and everybody's last words."""
        began = time.monotonic()
        while not fact():
            if time.monotonic() - began > within_s:
                logs = "\n".join(
                    f"--- {n}\n" + "\n".join(self.log(n).splitlines()[-15:])
                    for n in self.layout.nodes
                    if (self.home / n / "daemon.log").exists()
                )
                raise NotInTime(f"not within {within_s:g} s: {story}\n{logs}")
            time.sleep(0.01)
        return time.monotonic() - began

    def until_settled(self, nodes: Iterable[str] | None = None, *, within_s: float = SETTLED_SECONDS_MAX) -> float:
        """Wait until these nodes (default: all) are settled; how long it took, seconds."""
        wanted = tuple(nodes) if nodes is not None else self.layout.nodes
        return self.until(lambda: self.settled(wanted), within_s=within_s, story=f"{', '.join(wanted)} settle")

    def _known(self, host: str, hosts: tuple[str, ...] = ()) -> None:
        if host not in (hosts or self.layout.nodes):
            raise LabRefused(f"the lab has no {host!r} (there are: {', '.join(hosts or self.layout.nodes)})")


def _spread(node: str) -> str:
    """Under which name a node's Spread daemon is among the children."""
    return f"{node}/spread"


def _text(address: Placed) -> str:
    import ipaddress

    return str(ipaddress.ip_address(address.ip))


def _alive(file: Path) -> int | None:
    try:
        pid, started = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == started else None


def _kill_all(namespace: str) -> None:
    """SIGKILL for all processes of a namespace that is ours, until there are none."""
    for _ in range(200):
        found = processes_in(namespace)
        if not found:
            return
        _send(signal.SIGKILL, *found)
        for pid in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def _send(number: signal.Signals, *pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _remove_namespace(namespace: str) -> None:
    if (NETNS / namespace).exists():
        tool("ip", "netns", "delete", namespace)
    shutil.rmtree(SHM / namespace, ignore_errors=True)


def _remove(name: str) -> None:
    """Take a lab away, whatever is there of it."""
    namespaces = [p.name for p in NETNS.glob(f"{PREFIX}{name}-*")] if NETNS.is_dir() else []
    mine = [n for n in namespaces if "-" not in n.removeprefix(f"{PREFIX}{name}-")]
    for namespace in mine:
        _kill_all(namespace)
    for namespace in mine:
        _remove_namespace(namespace)
    shutil.rmtree(LABS / name, ignore_errors=True)


def _sweep() -> None:
    """Remove labs that were not to outlive their owner, and whose owner is gone."""
    for home in LABS.iterdir():
        if not home.is_dir():
            continue
        try:
            note = json.loads((home / "lab.json").read_text())
            pid, started = note["owner"]
            if not note["ephemeral"] or start_time(int(pid)) == started:
                continue
        except (OSError, ValueError, KeyError):
            pass  # killed before it could write down what it is
        _remove(home.name)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with (LABS / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
