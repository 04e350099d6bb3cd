"""The configuration file: TOML, the same on every node. Every problem is told at once, each with its place.

    web.toml:14  vip[3].address  "10.0.0.300/24" is not an address

Entries of `[[node]]` and `[[vip]]` are counted from 1, as people do.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import json
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from . import __version__
from .core.model import (
    ADDRESSES_MAX,
    NODES_MAX,
    VIPS_MAX,
    VOTES_MAX,
    WEIGHT_MAX,
    Address,
    By,
    Count,
    Partition,
    Settings,
    ShareRule,
    Shares,
    Takeover,
    Vip,
)
from .engine.corosync.conf import LINKS_MAX, NODE_ID_MAX, node_id
from .engine.spread.address import SESSION, SESSION_DEFAULT, SpreadAddress, spread_address
from .original import PATH_BYTES_MAX, ControlAddress, control_address
from .routing import ROUTING_PER_VIP_MAX, Route, Rule, route, rule

ADDRESSES_PER_VIP_MAX = 64
FILE_BYTES_MAX = 4 << 20
PROBLEMS_MAX = 200
"""Then it is read no further: nobody reads more, and each costs time."""
DETECTION_MS_MIN, DETECTION_MS_MAX = 150, 60_000
"""Below 150 ms Corosync refuses the token time that is left (it must be three retransmissions of at least 30 ms)."""
PROFILES = {"lan-fast": 150, "lan": 200, "cloud": 1000, "wan": 5000}
"""What is asked of Corosync, by profile, in milliseconds (docs/decisions/0027-profiles.md)."""
PROFILE_DEFAULT = "lan"
DETECTION_MS_SPREAD = 3200
"""What a Spread daemon with its own defaults takes at most (measured: 2.5 to 3.2 s)."""
BEAT_MS_MIN, BEAT_MS_MAX = 50, 200
FENCE_SLACK_MS = 50
"""Rounding of the kernel's timers (a tick is at most 10 ms) and of ours, on top of lease and beat_age_max."""
LIFETIME_LATE_MS = 1000
"""The kernel removes an address up to half a second after its lifetime's end (measured: 5 to 460 ms)."""
WITHDRAW_AFTER_MAX = 10
"""Claims are counted over ten seconds, at most one of each second."""
COMMAND_CHARACTERS_MAX, TEXT_CHARACTERS_MAX = 4096, 200
MARK_DEFAULT = 0x10000000
HOSTS_MAX = 256
"""Hosts and networks that are told of VIPs: of `[notify]`, and of all VIPs together."""
RANGE_MAX = 1 << 16
"""Addresses of such a network: they are gone through one by one."""
THROTTLE_DEFAULT, THROTTLE_MAX = 128, 10_000
SPREAD_DEFAULT = "4803@localhost"
RUN_DIR = "/run/wackamole"
HOOKS_MAX, WORDS_MAX = 256, 64
"""Hooks of a file, and words of a hook's command."""
CHECKS_MAX, CHECKS_PER_SECOND_MAX = 256, 256
"""Of a file, and how often they all run together: what one process does on the side."""
LABELS_MAX = 16
CHECK_KINDS: dict[str, tuple[str, ...]] = {
    "tcp": ("address",),
    "http": ("url", "status", "body", "host", "tls_verify", "tls_ca", "tls_name", "tls_cert", "tls_key"),
    "exec": ("command",),
    "process": ("process", "pid_file"),
    "unit": ("unit",),
    "file": ("path", "exists"),
    "interface": ("interface",),
    "gateway": ("gateway", "interface"),
}
"""What a check can look at, and the keys that are only for that."""
BUDGET_MS_MAX = 1000
"""How long `before_release` may hold up a hand-over: less than anybody who waits for it gives up after."""
VIP_EVENTS = (
    *("acquired", "released", "before_release", "moved", "duplicate", "duplicate_withdrawn"),
    *("conflict", "failed"),
)
NODE_EVENTS = ("view", "settled", "evict", "drain", "resume", "engine_lost", "paused")
"""What a hook can be `on`: what concerns a VIP, and what does not. All but `before_release` are words of the history."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}\Z")
INTERFACE = re.compile(r"[^\s/]{1,15}\Z")
ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", re.ASCII)
UNIT = re.compile(r"(?!-)[A-Za-z0-9@_.:\\-]{1,255}\Z")
HOST_PORT = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})\Z")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h)\Z")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class ConfigError(Exception):
    """A config that cannot be used; one line per problem, each with its place."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class HostsMissing(ConfigError):
    """A wackamole.conf in which all is well, but that does not list the hosts."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """`[cluster]`"""

    name: str
    key_file: str | None
    partition: Partition
    mature_ms: int


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`[engine]`; `address`, `retry_ms` and `session` are those of a Spread daemon's client."""

    type: str
    detection_ms: int
    managed: bool
    evict_after_ms: int
    beat_ms: int
    address: SpreadAddress
    retry_ms: int
    session: str


@dataclass(frozen=True, slots=True)
class FenceConfig:
    """`[fence]`; `mode` is "nftables", "lifetime" or "off"."""

    mode: str
    lease_ms: int
    lifetime_s: int
    beat_age_max_ms: int
    takeover: Takeover
    mark: int
    link_up_delay_ms: int
    duplicates: str  # "announce" or "withdraw"
    withdraw_after: int
    witness: bool

    @property
    def dark_after_ms(self) -> int:
        """A host of which no good beat is delivered any more is dark this long after it sent the last; 0: never for sure."""
        if self.mode == "nftables":
            return self.lease_ms + self.beat_age_max_ms + FENCE_SLACK_MS
        if self.mode == "lifetime":
            return self.lifetime_s * 1000 + LIFETIME_LATE_MS + self.beat_age_max_ms + FENCE_SLACK_MS
        return 0

    def arithmetic(self, detection_ms: int, evict_after_ms: int) -> str:
        """What these times mean, for people (docs/fence.md)."""
        dark = self.dark_after_ms
        if not dark:
            return "no fence: nothing silences a frozen host or daemon, and it is not replaced"
        lost = detection_ms + (dark + dark // 100 if self.takeover is Takeover.STRICT else 0)
        double = 0 if self.takeover is Takeover.STRICT else max(0, dark - FENCE_SLACK_MS - detection_ms)
        return (
            f"a silent host is dark after {dark}ms and evicted after {evict_after_ms}ms; a lost one is replaced after"
            f" {lost}ms; if it is only frozen, two may answer for {double}ms"
        )


@dataclass(frozen=True, slots=True)
class BalanceConfig:
    """`[balance]`; `moves_per_round` None: all. `entry_point` and the version of its distribution: with By.ENTRY_POINT."""

    interval_ms: int
    moves_per_round: int | None
    settle_ms: int
    count: Count
    by: By
    entry_point: str = ""
    entry_version: str = ""


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """`[load]`; `command` empty: the load average for each CPU. `hysteresis` in percent."""

    command: tuple[str, ...]
    interval_ms: int
    timeout_ms: int
    keep_ms: int
    smoothing_ms: int
    hysteresis: int
    moves_per_round: int


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """`[control]`; `original` is where Wackamole 2.1's own control protocol is offered, None: nowhere."""

    socket: str
    read_only_for_others: bool
    original: ControlAddress | None


@dataclass(frozen=True, slots=True)
class HostsConfig:
    """Hosts that are told: one, or a network's. `interface`: only those behind it, "" for any; `throttle`: frames a second."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    interface: str
    throttle: int
    ping: bool


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """`[notify]`: who is told of every VIP; `throttle` and `ping` are also those of the neighbours. `interval_ms` is that of
    `[neighbours]`."""

    hosts: tuple[HostsConfig, ...]
    throttle: int
    neighbours: bool
    ping: bool
    interval_ms: int


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One `[[node]]`; `id` is its number in the ring, `addresses` are its links, `interfaces` its names for the VIPs' interfaces.
    `capacity`: what its VIPs may count for, None: anything; `avoid`: all VIPs that do not name it would rather be elsewhere."""

    name: str
    id: int
    addresses: tuple[str, ...]
    weight: int
    votes: int
    interfaces: tuple[tuple[str, str], ...]
    capacity: int | None = None
    avoid: bool = False


@dataclass(frozen=True, slots=True)
class VipConfig:
    """One `[[vip]]`; `prefer` are node names, best first; `notify`: who is told of it besides those of `[notify]`;
    `connections`: "destroy" or "keep" those of TCP when it goes. `nodes`: only these may hold it, () for all (`pin` is the same
    list here and as `prefer`); `avoid`: nodes that get it last; `apart`: its group, "" for none."""

    vip: Vip
    prefer: tuple[str, ...]
    notify: tuple[HostsConfig, ...] = ()
    routing: tuple[Route | Rule, ...] = ()
    connections: str = "destroy"
    labels: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    apart: str = ""


@dataclass(frozen=True, slots=True)
class HookConfig:
    """One `[[hook]]`: either `command` or `python` is not empty; empty `vips` and `nodes` mean all."""

    name: str
    on: tuple[str, ...]
    command: tuple[str, ...]
    python: str
    vips: tuple[str, ...]
    nodes: tuple[str, ...]
    each: str  # "vip" or "round"
    timeout_ms: int
    budget_ms: int


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """One `[[check]]`. `options`: what the checker's process is told of what to look at (shell/probes.py). `vips`: the names
    of all that it is about; `nodes`: where it runs, empty for everywhere. `withdraw`: a VIP that nobody is well enough for
    is held by nobody; `only_one`: so it is also if it passes on several members."""

    name: str
    kind: str
    options: tuple[tuple[str, object], ...]
    vips: tuple[str, ...]
    nodes: tuple[str, ...]
    interval_ms: int
    timeout_ms: int
    rise: int
    fall: int
    withdraw: bool
    only_one: bool


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, valid."""

    path: str
    cluster: ClusterConfig
    engine: EngineConfig
    fence: FenceConfig
    balance: BalanceConfig
    load: LoadConfig | None  # None: nothing is measured
    control: ControlConfig
    notify: NotifyConfig
    nodes: tuple[NodeConfig, ...]
    vips: tuple[VipConfig, ...]
    digest: str
    """Equal for equal meaning: not for blanks, comments, order of entries, or what concerns one host only."""
    notes: tuple[str, ...] = ()
    """What a wackamole.conf says and means here something else, or nothing."""
    hooks: tuple[HookConfig, ...] = ()
    checks: tuple[CheckConfig, ...] = ()


def load(path: Path) -> Config:
    """Read and validate a file, ours or a wackamole.conf of 2.1. Raises ConfigError with every problem."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as wrong:
        raise ConfigError([f"{path}: cannot be read: {wrong.strerror}"]) from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError([f"{path}: is larger than {FILE_BYTES_MAX} bytes"])
    try:
        return parse(_utf8(raw, path), str(path))
    except ConfigError:
        from .convert import load as load_foreign
        from .convert.files import text_of

        foreign = load_foreign(text_of(raw), str(path))  # a wackamole.conf of 2.1 is no TOML, and the other way round
        if foreign is None:
            raise
        return foreign


def _utf8(raw: bytes, path: Path) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as wrong:
        raise ConfigError([f"{path}:{raw[: wrong.start].count(10) + 1}  is not UTF-8 text"]) from None


def parse(text: str, path: str = "config") -> Config:
    """Validate the text of a config. Raises ConfigError with every problem."""
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{path}  is not TOML: nested too deeply"]) from None
    except ValueError as wrong:  # TOMLDecodeError is one; a number of thousands of digits is another
        found = re.search(r"\(at line (\d+), column \d+\)", str(wrong))
        place = f"{path}:{found[1]}" if found else path
        raise ConfigError([f"{place}  is not TOML: {_cut(str(wrong).partition(' (at ')[0])}"]) from None
    return Reader(path, _places(text)).config(document)


# -- where things are ---------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]")
_KEY = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_.-]+))\s*=""")


def _places(text: str) -> dict[str, int]:
    """The line of each table, array entry and key, by its path (`vip[2].address`). tomllib does not tell; so the lines
    are looked at, which is exact for the way such files are written and at worst finds the enclosing table."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    inside = ""  # the delimiter of a multi-line string
    for number, line in enumerate(text.splitlines(), 1):
        if inside:
            if inside in line:
                inside = ""
            continue
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = header[2]
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                table = f"{table}[{counts[table]}]"
            elif "." in table and (start := table.split(".")[0]) in counts:
                table = table.replace(start, f"{start}[{counts[start]}]", 1)
            found.setdefault(table, number)
        elif key:
            name = key[1] or key[2] or key[3]
            found.setdefault(f"{table}.{name}" if table else name, number)
        for quote in ('"""', "'''"):
            if line.count(quote) % 2:
                inside = quote
    return found


# -- reading ------------------------------------------------------------------------------------------------------------


class Reader:
    """Reads one document and gathers its problems."""

    def __init__(self, path: str, places: Mapping[str, int]) -> None:
        self._path = path
        self._places = places
        self._problems: list[tuple[int, str]] = []

    def wrong(self, where: str, sentence: str) -> None:
        """A problem at a path of the document."""
        place = where
        while place and place not in self._places:
            shorter = re.sub(r"(\.[^.\[]+|\[\d+\])\Z", "", place)
            place = shorter if shorter != place else ""
        line = self._places.get(place, 0)
        at = f"{self._path}:{line}" if line else self._path
        self._problems.append((line, f"{at}  {where}  {sentence}"))
        if len(self._problems) >= PROBLEMS_MAX:
            self.fail(f"{self._path}  has more problems than these {PROBLEMS_MAX}")

    def fail(self, *more: str) -> NoReturn:
        """Every problem so far, in the order of the lines."""
        raise ConfigError([*(problem for _, problem in sorted(self._problems, key=lambda p: p[0])), *more])

    def line(self, where: str) -> str:
        """`on line 9`, or `` when it is not known."""
        line = self._places.get(where)
        return f" on line {line}" if line else ""

    def config(self, document: dict[str, Any]) -> Config:
        """Everything; raises ConfigError."""
        self.keys(
            document,
            "",
            (
                *("cluster", "engine", "fence", "balance", "load", "control", "notify", "neighbours"),
                *("node", "vip", "hook", "check"),
            ),
        )
        cluster = self.cluster(self.table(document, "cluster"))
        if isinstance(document.get("fence"), str):  # `fence = "off"` is short for the table with that mode
            document = {**document, "fence": {"mode": document["fence"]}}
        engine, fence = self.timings(self.table(document, "engine"), self.table(document, "fence"), cluster)
        balance = self.balance(self.table(document, "balance"))
        load = self.load(self.table(document, "load"), balance.by, "load" in document)
        control = self.control(self.table(document, "control"))
        notify = self.notify(self.table(document, "notify"), self.table(document, "neighbours"))
        nodes = self.nodes(self.entries(document, "node", NODES_MAX))
        vips = self.vips(self.entries(document, "vip", VIPS_MAX), {n.name for n in nodes}, notify)
        hooks = self.hooks(document, {v.vip.name for v in vips}, {n.name for n in nodes})
        checks = self.checks(document, vips, {n.name for n in nodes})
        if self._problems:
            self.fail()
        return Config(
            self._path,
            cluster,
            engine,
            fence,
            balance,
            load,
            control,
            notify,
            nodes,
            vips,
            _digest(cluster, engine, fence, balance, load, nodes, vips, checks),
            hooks=hooks,
            checks=checks,
        )

    # -- the kinds of values

    def keys(self, table: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
        """Nothing but the known keys."""
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(known)})"
                name = key if NAME.match(key) else _shown(key)
                self.wrong(f"{where}.{name}" if where else name, f"there is no such key{hint}")

    def table(self, document: dict[str, Any], name: str) -> dict[str, Any]:
        """A table; {} if it is missing."""
        found = document.get(name, {})
        if isinstance(found, dict):
            return found
        self.wrong(name, f"must be a table: [{name}]")
        return {}

    def entries(self, document: dict[str, Any], name: str, at_most: int) -> list[dict[str, Any]]:
        """An array of tables."""
        found = document.get(name)
        if found is None:
            self.wrong(name, f"at least one [[{name}]] is needed")
            return []
        if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
            self.wrong(name, f"must be written as [[{name}]]")
            return []
        if len(found) > at_most:
            self.wrong(name, f"there are {len(found)}; at most {at_most} are supported")
            return []
        return found

    def text(self, table: Mapping[str, Any], where: str, key: str, default: str | None = None) -> str | None:
        """A text that is not empty."""
        if key not in table:
            return default
        found = table[key]
        if isinstance(found, str) and found.strip():
            return found
        self.wrong(f"{where}.{key}", f"must be a text, not {_shown(found)}")
        return default

    def name(self, table: Mapping[str, Any], where: str, key: str = "name") -> str:
        """A name; required."""
        found = self.text(table, where, key)
        if found is None:
            if key not in table:
                self.wrong(where, f"needs a {key}")
            return ""
        if not NAME.match(found):
            self.wrong(f"{where}.{key}", f"{_shown(found)} is no name: letters, digits and . _ : - (at most 63)")
        return found

    def flag(self, table: Mapping[str, Any], where: str, key: str, default: bool) -> bool:
        """true or false."""
        found = table.get(key, default)
        if isinstance(found, bool):
            return found
        self.wrong(f"{where}.{key}", f"must be true or false, not {_shown(found)}")
        return default

    def number(self, table: Mapping[str, Any], where: str, key: str, default: int, least: int, most: int) -> int:
        """A whole number in bounds."""
        found = table.get(key, default)
        if isinstance(found, int) and not isinstance(found, bool) and least <= found <= most:
            return found
        self.wrong(f"{where}.{key}", f"must be a whole number from {least} to {most}, not {_shown(found)}")
        return default

    def duration(self, table: Mapping[str, Any], where: str, key: str, default: int, least: int, most: int) -> int:
        """Milliseconds, from "250ms", "4s", "1.5s", "2m"."""
        if key not in table:
            return default
        found = table[key]
        try:
            ms = duration_ms(found)
        except ValueError as wrong:
            self.wrong(f"{where}.{key}", str(wrong))
            return default
        if not least <= ms <= most:
            self.wrong(f"{where}.{key}", f"must be from {spoken(least)} to {spoken(most)}, not {found}")
            return default
        return ms

    def choice(self, table: Mapping[str, Any], where: str, key: str, default: str, known: tuple[str, ...]) -> str:
        """One of a few words."""
        found = table.get(key, default)
        if isinstance(found, str) and found in known:
            return found
        options = ", ".join(f'"{k}"' for k in known)
        self.wrong(f"{where}.{key}", f"must be one of {options}, not {_shown(found)}")
        return default

    def texts(self, table: Mapping[str, Any], where: str, key: str) -> tuple[str, ...]:
        """A list of texts."""
        found = table.get(key, [])
        if isinstance(found, list) and all(isinstance(x, str) for x in found):
            return tuple(found)
        self.wrong(f"{where}.{key}", f"must be a list of texts, not {_shown(found)}")
        return ()

    # -- the tables

    def cluster(self, table: dict[str, Any]) -> ClusterConfig:
        self.keys(table, "cluster", ("name", "key_file", "partition", "mature"))
        name = self.name(table, "cluster")
        key_file = self.text(table, "cluster", "key_file")
        if key_file is not None and not key_file.startswith("/"):
            self.wrong("cluster.key_file", f"{_shown(key_file)} must be an absolute path")
        partition = self.choice(table, "cluster", "partition", "cover", tuple(p.value for p in Partition))
        mature = self.duration(table, "cluster", "mature", 5000, 0, 600_000)
        return ClusterConfig(name, key_file, Partition(partition), mature)

    def timings(
        self, engine: dict[str, Any], fence: dict[str, Any], cluster: ClusterConfig
    ) -> tuple[EngineConfig, FenceConfig]:
        """Engine and fence: their times depend on each other (docs/fence.md has the arithmetic)."""
        self.keys(
            engine,
            "engine",
            ("type", "profile", "detection", "managed", "evict_after", "beat", "address", "retry", "session"),
        )
        self.keys(
            fence,
            "fence",
            (
                "mode",
                "lease",
                "lifetime",
                "beat_age_max",
                "takeover",
                "mark",
                "link_up_delay",
                "duplicates",
                "withdraw_after",
                "witness",
            ),
        )
        kind = self.choice(engine, "engine", "type", "corosync", ("corosync", "spread"))
        profile = self.choice(engine, "engine", "profile", PROFILE_DEFAULT, tuple(PROFILES))
        usual = DETECTION_MS_SPREAD if kind == "spread" else PROFILES[profile]
        detection = self.duration(engine, "engine", "detection", usual, DETECTION_MS_MIN, DETECTION_MS_MAX)
        beat = self.duration(engine, "engine", "beat", self.beat_of(detection), 20, 5000)
        if 5 * beat > 4 * detection:
            self.wrong(
                "engine.beat",
                f"{spoken(beat)} is too rare: a daemon that did not run for longer than `detection` ({spoken(detection)}) shuts"
                f" its fence, and at rest it runs for beats; at most {spoken(detection * 4 // 5)}",
            )
        mode = self.choice(fence, "fence", "mode", "nftables", ("nftables", "lifetime", "off"))
        takeover = self.choice(fence, "fence", "takeover", "fast", tuple(t.value for t in Takeover))
        age = self.duration(fence, "fence", "beat_age_max", max(100, detection // 2), 20, 60_000)
        lease = self.duration(fence, "fence", "lease", max(3 * detection, age + 4 * beat), 100, 600_000)
        life = self.duration(fence, "fence", "lifetime", max(3000, -(-3 * detection // 1000) * 1000), 2000, 600_000)
        found = FenceConfig(
            mode,
            lease,
            life // 1000,
            age,
            Takeover(takeover),
            self.mark(fence),
            self.duration(fence, "fence", "link_up_delay", 2000, 0, 600_000),
            self.choice(fence, "fence", "duplicates", "announce", ("announce", "withdraw")),
            self.number(fence, "fence", "withdraw_after", 5, 1, WITHDRAW_AFTER_MAX),
            self.flag(fence, "fence", "witness", True),
        )
        if found.duplicates != "withdraw" and "withdraw_after" in fence:
            self.wrong("fence.withdraw_after", 'is only for duplicates = "withdraw"')
        if mode != "lifetime" and "lifetime" in fence:
            self.wrong("fence.lifetime", 'is only for mode = "lifetime"')
        if life % 1000:
            self.wrong("fence.lifetime", f"must be whole seconds, not {spoken(life)}: the kernel counts no others")
        if mode == "nftables":
            least = max(2 * detection + beat, age + 3 * beat)
            if lease < least:
                self.wrong(
                    "fence.lease" if "lease" in fence else "fence",
                    f"{spoken(lease)} is too short: it must outlive a change of membership and a few lost beats, or every"
                    f" death would darken the survivors as well; at least 2 × detection + beat and beat_age_max + 3 ×"
                    f" beat: {spoken(least)}",
                )
        if mode == "off" and found.takeover is Takeover.STRICT:
            self.wrong("fence.takeover", '"strict" waits for a lease to run out, and without a fence there is none')
        if mode == "off" and cluster.partition is Partition.MAJORITY:
            self.wrong(
                "fence", 'partition = "majority" waits for a lease to run out, and without a fence there is none'
            )
        dark = found.dark_after_ms
        least = max(5 * beat, 2 * detection, dark + -(-dark // 100))
        evict = self.duration(engine, "engine", "evict_after", max(least, 0 if dark else 1500), 100, 600_000)
        if evict < least:
            self.wrong(
                "engine.evict_after" if "evict_after" in engine else "engine",
                f"{spoken(evict)} is too soon: a healthy member is silent for up to twice `detection`"
                f" ({spoken(detection)}) or a few beats ({spoken(beat)}), and a silent one may serve for"
                f" {spoken(dark)} (lease + beat_age_max + {FENCE_SLACK_MS}ms); at least {spoken(least)}",
            )
        managed = self.flag(engine, "engine", "managed", kind == "corosync")
        return EngineConfig(kind, detection, managed, evict, beat, *self.spread(engine, kind)), found

    @staticmethod
    def beat_of(detection_ms: int) -> int:
        """Rare, since a beat wakes every daemon; but a daemon that did not run for a whole detection shuts its fence, and at rest
        it is beats that it runs for."""
        return max(BEAT_MS_MIN, min(BEAT_MS_MAX, detection_ms * 3 // 5))

    def spread(self, engine: dict[str, Any], kind: str) -> tuple[SpreadAddress, int, str]:
        """What concerns a Spread daemon, and nothing of Corosync's: address, retry, session."""
        foreign = ("managed", "profile") if kind == "spread" else ("address", "retry", "session")
        for key in foreign:
            if key in engine:
                self.wrong(f"engine.{key}", f'is not for type = "{kind}"')
        address = SpreadAddress("")
        try:
            address = spread_address(self.text(engine, "engine", "address", SPREAD_DEFAULT) or SPREAD_DEFAULT)
        except ValueError as wrong:
            self.wrong("engine.address", f"{_shown(engine['address'])} {wrong}")
        session = self.text(engine, "engine", "session", SESSION_DEFAULT) or SESSION_DEFAULT
        if not SESSION.match(session):
            self.wrong(
                "engine.session", f"{_shown(session)} must be one to three letters: the node's number follows it"
            )
        return address, self.duration(engine, "engine", "retry", 2000, 20, 600_000), session

    def mark(self, table: Mapping[str, Any]) -> int:
        """One bit of the packet mark."""
        found = table.get("mark", MARK_DEFAULT)
        if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 1 << 32 and not found & (found - 1):
            return found
        self.wrong("fence.mark", f"must be one bit of a 32-bit packet mark, such as 0x10000000, not {_shown(found)}")
        return MARK_DEFAULT

    def balance(self, table: dict[str, Any]) -> BalanceConfig:
        self.keys(table, "balance", ("interval", "moves_per_round", "settle", "count", "by"))
        moves: int | None = None
        if table.get("moves_per_round", "all") != "all":
            found = table["moves_per_round"]
            if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= VIPS_MAX:
                moves = found
            else:
                self.wrong("balance.moves_per_round", f'must be "all" or a whole number, not {_shown(found)}')
        return BalanceConfig(
            self.duration(table, "balance", "interval", 4000, 100, 86_400_000),
            moves,
            self.duration(table, "balance", "settle", 10_000, 0, 86_400_000),
            Count(self.choice(table, "balance", "count", "vips", tuple(c.value for c in Count))),
            *self.by(table),
        )

    def by(self, table: dict[str, Any]) -> tuple[By, str, str]:
        """What shares follow; an entry point, and the version of the distribution that has it."""
        words = {by.value: by for by in (By.COUNT, By.WEIGHT, By.LOAD)}
        found = table.get("by", By.WEIGHT.value)
        if isinstance(found, str) and found in words:
            return words[found], "", ""
        if not isinstance(found, str) or not ENTRY_POINT.match(found):
            options = ", ".join(f'"{word}"' for word in words)
            self.wrong("balance.by", f'must be one of {options}, or "module:function", not {_shown(found)}')
            return By.WEIGHT, "", ""
        version = _version_of(found)
        if version is None:
            module = found.partition(":")[0].partition(".")[0]
            self.wrong(
                "balance.by",
                f"no installed distribution has the module {module}; members could not compare its version",
            )
        return By.ENTRY_POINT, found, version or ""

    def load(self, table: dict[str, Any], by: By, given: bool) -> LoadConfig | None:
        """How loads are measured; only where shares follow them."""
        self.keys(
            table,
            "load",
            ("source", "command", "interval", "timeout", "keep", "smoothing", "hysteresis", "moves_per_round"),
        )
        if by not in (By.LOAD, By.ENTRY_POINT):
            if given:
                self.wrong("load", 'is only for by = "load" or an entry point under [balance]')
            return None
        if by is By.ENTRY_POINT and not given:
            return None
        command = self.texts(table, "load", "command")
        source = self.choice(table, "load", "source", "command" if command else "loadavg", ("loadavg", "command"))
        if (source == "command") != bool(command):
            self.wrong("load", 'needs a `command` exactly if source = "command"')
        elif command and not command[0].startswith("/"):
            self.wrong("load.command", f"{_shown(command[0])} must be an absolute path")
        elif any("\0" in word for word in command) or sum(map(len, command)) > COMMAND_CHARACTERS_MAX:
            self.wrong("load.command", f"has a NUL, or more than {COMMAND_CHARACTERS_MAX} characters")
        interval = self.duration(table, "load", "interval", 10_000, 1000, 3_600_000)
        timeout = self.duration(table, "load", "timeout", min(5000, interval), 100, 60_000)
        if timeout > interval:
            self.wrong("load.timeout", f"is longer than `interval` ({spoken(interval)})")
        return LoadConfig(
            command,
            interval,
            timeout,
            self.duration(table, "load", "keep", 6 * interval, 1000, 86_400_000),
            self.duration(table, "load", "smoothing", 60_000, 1000, 3_600_000),
            self.number(table, "load", "hysteresis", 15, 5, 100),
            self.number(table, "load", "moves_per_round", 1, 0, VIPS_MAX),
        )

    def control(self, table: dict[str, Any]) -> ControlConfig:
        self.keys(table, "control", ("socket", "read_only_for_others", "original"))
        path = self.text(table, "control", "socket", f"{RUN_DIR}/control.sock") or ""
        if not path.startswith("/") or "\0" in path:
            self.wrong("control.socket", f"{_shown(path)} must be an absolute path")
        elif len(path.encode()) > PATH_BYTES_MAX:
            self.wrong("control.socket", f"is longer than the {PATH_BYTES_MAX} bytes that a socket's path may have")
        original, text = None, self.text(table, "control", "original")
        if text is not None:
            try:
                original = control_address(text)
            except ValueError as wrong:
                self.wrong("control.original", f"{_shown(text)} {wrong}")
        if original is not None and original.path == path:
            self.wrong("control.original", f"{_shown(text)} is `socket` already, which speaks another protocol")
        return ControlConfig(path, self.flag(table, "control", "read_only_for_others", False), original)

    def notify(self, table: dict[str, Any], neighbours: dict[str, Any]) -> NotifyConfig:
        self.keys(table, "notify", ("hosts", "throttle", "neighbours", "ping"))
        self.keys(neighbours, "neighbours", ("interval",))
        throttle = self.number(table, "notify", "throttle", THROTTLE_DEFAULT, 1, THROTTLE_MAX)
        ping = self.flag(table, "notify", "ping", False)
        return NotifyConfig(
            self.hosts(table, "notify", "hosts", throttle, ping),
            throttle,
            self.flag(table, "notify", "neighbours", False),
            ping,
            self.duration(neighbours, "neighbours", "interval", 60_000, 1000, 86_400_000),
        )

    def hosts(
        self, table: Mapping[str, Any], where: str, key: str, throttle: int, ping: bool
    ) -> tuple[HostsConfig, ...]:
        """A list of hosts and networks to tell."""
        given = table.get(key, [])
        if not isinstance(given, list) or len(given) > HOSTS_MAX:
            self.wrong(f"{where}.{key}", f"must be a list of at most {HOSTS_MAX} hosts and networks")
            return ()
        found: dict[tuple[object, str], HostsConfig] = {}
        for item in given:
            entry = item if isinstance(item, dict) else {"address": item}
            self.keys(entry, f"{where}.{key}", ("address", "interface", "throttle", "ping"))
            network = self.network(entry.get("address"), f"{where}.{key}")
            hosts = HostsConfig(
                network or ipaddress.IPv4Network(0),
                self.interface(entry, f"{where}.{key}"),
                self.number(entry, f"{where}.{key}", "throttle", throttle, 1, THROTTLE_MAX),
                self.flag(entry, f"{where}.{key}", "ping", ping),
            )
            if network is not None and found.setdefault((network, hosts.interface), hosts) is not hosts:
                self.wrong(f"{where}.{key}", f"names {network} twice")
        return tuple(found.values())

    def network(self, text: object, where: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
        """A host, or a network whose hosts are gone through one by one."""
        if not isinstance(text, str):
            self.wrong(where, f"an address must be a text, not {_shown(text)}")
            return None
        try:
            found = ipaddress.ip_network(text)
        except ValueError as wrong:
            hint = ": it has bits after its prefix length" if "host bits" in str(wrong) else ""
            self.wrong(where, f"{_shown(text)} is no address and no network{hint}")
            return None
        if "%" in text:
            self.wrong(where, f"{_shown(text)}: name the interface by `interface`, not by %")
        elif found.is_multicast or found.is_loopback or found.network_address.is_unspecified:
            self.wrong(where, f"{_shown(text)} cannot be told anything: it is no host's")
        elif found.num_addresses > RANGE_MAX:
            longest = found.max_prefixlen - RANGE_MAX.bit_length() + 1
            self.wrong(where, f"{_shown(text)} has more than {RANGE_MAX} addresses: /{longest} is the largest")
        else:
            return found
        return None

    def nodes(self, entries: list[dict[str, Any]]) -> tuple[NodeConfig, ...]:
        found: list[NodeConfig] = []
        names: dict[str, str] = {}
        taken: dict[str, str] = {}
        numbers: dict[int, str] = {}
        for index, table in enumerate(entries, 1):
            where = f"node[{index}]"
            self.keys(
                table,
                where,
                ("name", "id", "address", "addresses", "weight", "votes", "interfaces", "capacity", "avoid"),
            )
            name = self.name(table, where)
            self.unique(names, name, f"{where}.name", "node")
            addresses = self.links(table, where)
            doubled = any(address in taken for address in addresses)
            for address in addresses:
                self.unique(taken, address, where + (".address" if "address" in table else ".addresses"), "address")
            number = self.number(table, where, "id", node_id(addresses[0]) if addresses else 1, 1, NODE_ID_MAX)
            other = numbers.setdefault(number, name)
            if addresses and other != name and not doubled:  # one address twice is one mistake, not two
                self.wrong(
                    f"{where}.id" if "id" in table else where,
                    f"has the number {number}, as node {other} has"
                    + ("" if "id" in table else " (the last 16 bits of its address); set `id`"),
                )
            weight = self.number(table, where, "weight", 1, 0, WEIGHT_MAX)
            votes = self.number(table, where, "votes", 1, 0, VOTES_MAX)
            interfaces = self.interfaces(table, where)
            capacity = self.number(table, where, "capacity", 0, 0, ADDRESSES_MAX) if "capacity" in table else None
            avoid = self.flag(table, where, "avoid", False)
            found.append(NodeConfig(name, number, addresses, weight, votes, interfaces, capacity, avoid))
        if found and not any(n.votes for n in found):
            self.wrong("node", "no node has a vote")
        self.same_links(found)
        return tuple(found)

    def unique(self, seen: dict[str, str], value: str, where: str, what: str) -> None:
        """Complain about the second one."""
        if value and value in seen:
            self.wrong(where, f"{what} {value} is already declared{self.line(seen[value])}")
        elif value:
            seen[value] = where

    def either(self, table: dict[str, Any], where: str) -> tuple[str | None, Any]:
        """Which of `address` and `addresses` is there, and its values as a list; None if not exactly one is."""
        if ("address" in table) == ("addresses" in table):
            self.wrong(where, "needs either `address` or `addresses`")
            return None, []
        return ("address", [table["address"]]) if "address" in table else ("addresses", table["addresses"])

    def links(self, table: dict[str, Any], where: str) -> tuple[str, ...]:
        """A node's own addresses."""
        key, given = self.either(table, where)
        if key is None:
            return ()
        if not isinstance(given, list) or not given or not all(isinstance(x, str) for x in given):
            self.wrong(f"{where}.{key}", f"must be a text or a list of texts, not {_shown(table[key])}")
            return ()
        if len(given) > LINKS_MAX:
            self.wrong(f"{where}.{key}", f"a node has at most {LINKS_MAX} addresses")
            return ()
        found: list[str] = []
        for text in given:
            try:
                ip = ipaddress.ip_address(text)
            except ValueError:
                hint = "; a node's address has no /prefix" if "/" in text else ""
                self.wrong(f"{where}.{key}", f"{_shown(text)} is not an address{hint}")
                continue
            if ip.is_multicast or ip.is_unspecified:
                self.wrong(f"{where}.{key}", f"{_shown(text)} cannot be a node's address")
                continue
            found.append(str(ip))
        return tuple(found)

    def same_links(self, nodes: list[NodeConfig]) -> None:
        """Every node has the same links, each of one family: Corosync's ring needs it."""
        if not nodes or self._problems:
            return
        first = nodes[0]
        for index, node in enumerate(nodes[1:], 2):
            if len(node.addresses) != len(first.addresses):
                self.wrong(
                    f"node[{index}].addresses" if len(node.addresses) != 1 else f"node[{index}]",
                    f"{node.name} has {len(node.addresses)} addresses and {first.name} has {len(first.addresses)};"
                    " every node needs one per link",
                )
                continue
            for link, (mine, theirs) in enumerate(zip(node.addresses, first.addresses, strict=True), 1):
                if (":" in mine) != (":" in theirs):
                    self.wrong(f"node[{index}]", f"link {link}: {mine} and {theirs} of {first.name} cannot talk")

    def interfaces(self, table: dict[str, Any], where: str) -> tuple[tuple[str, str], ...]:
        """A node's names for the VIPs' interfaces."""
        found = table.get("interfaces", {})
        if not isinstance(found, dict):
            self.wrong(f"{where}.interfaces", 'must be a table such as { public = "eno1" }')
            return ()
        for name, real in found.items():
            if not isinstance(real, str) or not INTERFACE.match(real):
                self.wrong(f"{where}.interfaces", f"{name}: {_shown(real)} is no interface name (1 to 15 letters)")
        return tuple(sorted((k, v) for k, v in found.items() if isinstance(v, str)))

    def vips(self, entries: list[dict[str, Any]], nodes: set[str], notify: NotifyConfig) -> tuple[VipConfig, ...]:
        found: list[VipConfig] = []
        names: dict[str, str] = {}
        taken: dict[str, str] = {}
        for index, table in enumerate(entries, 1):
            where = f"vip[{index}]"
            self.keys(
                table,
                where,
                (
                    *("name", "address", "addresses", "interface", "prefer", "pin", "nodes", "avoid", "apart"),
                    *("notify", "routes", "rules", "connections", "labels"),
                ),
            )
            addresses = self.addresses(table, where)
            key = "address" if "address" in table else "addresses"
            for address in addresses:
                self.unique(taken, address.ip, f"{where}.{key}", "address")
            name = self.name(table, where) if "name" in table else (addresses[0].ip if addresses else "")
            self.unique(names, name, f"{where}.name" if "name" in table else where, "VIP")
            prefer, only, avoid = self.wishes(table, where, nodes)
            apart = self.name(table, where, "apart") if "apart" in table else ""
            told = self.hosts(table, where, "notify", notify.throttle, notify.ping)
            routing = (*self.routing(table, where, "routes", route), *self.routing(table, where, "rules", rule))
            connections = self.choice(table, where, "connections", "destroy", ("destroy", "keep"))
            labels = self.texts(table, where, "labels")
            if len(labels) > LABELS_MAX or not all(map(NAME.match, labels)):
                self.wrong(f"{where}.labels", f"must be at most {LABELS_MAX} names: letters, digits and . _ : -")
            if name and addresses:
                vip = Vip(name, addresses)
                found.append(VipConfig(vip, prefer, told, routing, connections, labels, only, avoid, apart))
        lists = {hosts for vip in found for hosts in vip.notify}
        if len(lists) > HOSTS_MAX:
            self.wrong(
                "vip", f"{len(lists)} hosts and networks are to be told in all; at most {HOSTS_MAX} are supported"
            )
        if len(taken) > ADDRESSES_MAX:
            self.wrong("vip", f"there are {len(taken)} addresses in all; at most {ADDRESSES_MAX} are supported")
        return tuple(found)

    def wishes(
        self, table: dict[str, Any], where: str, nodes: set[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Whom a VIP prefers, who may hold it at all (() for all), and whom it avoids."""
        lists = {key: self.texts(table, where, key) for key in ("prefer", "pin", "nodes", "avoid")}
        for key, names in lists.items():
            self.known(names, nodes, f"{where}.{key}", "node")
            if len(set(names)) != len(names):
                self.wrong(f"{where}.{key}", "names a node twice")
            if key in ("pin", "nodes") and key in table and not table[key]:
                self.wrong(f"{where}.{key}", "names no node, so nobody could hold it")
        if "pin" in table:
            for key in ("prefer", "nodes"):
                if key in table:
                    self.wrong(f"{where}.{key}", "is said by `pin` already: only these nodes, the best first")
            lists["prefer"] = lists["nodes"] = lists["pin"]
        for key in ("prefer", "avoid"):
            for name in lists[key]:
                if lists["nodes"] and name not in lists["nodes"]:
                    self.wrong(f"{where}.{key}", f"{_shown(name)} may not hold it at all, as `nodes` or `pin` say")
        for name in lists["avoid"]:
            if name in lists["prefer"]:
                self.wrong(f"{where}.avoid", f"{_shown(name)} is preferred as well")
        return lists["prefer"], lists["nodes"], lists["avoid"]

    def routing(
        self, table: dict[str, Any], where: str, key: str, read: Callable[[str], Route | Rule]
    ) -> list[Route | Rule]:
        """A VIP's routes or rules."""
        found: list[Route | Rule] = []
        texts = self.texts(table, where, key)
        if len(texts) > ROUTING_PER_VIP_MAX:
            self.wrong(f"{where}.{key}", f"has {len(texts)}; at most {ROUTING_PER_VIP_MAX} are supported")
            return found
        for text in texts:
            try:
                found.append(read(text))
            except ValueError as wrong:
                self.wrong(f"{where}.{key}", f"{_shown(text)} {wrong}")
        return found

    def known(self, names: Iterable[str], known: set[str], where: str, what: str) -> None:
        """Complain about names that nothing has."""
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                self.wrong(where, f"there is no {what} {_shown(name)}{hint}")

    def hooks(self, document: dict[str, Any], vips: set[str], nodes: set[str]) -> tuple[HookConfig, ...]:
        found: list[HookConfig] = []
        for index, table in enumerate(self.entries(document, "hook", HOOKS_MAX) if "hook" in document else (), 1):
            where = f"hook[{index}]"
            self.keys(
                table,
                where,
                ("name", "on", "command", "python", "vips", "nodes", "each", "timeout", "budget"),
            )
            on = self.texts(table, where, "on")
            if not on:
                self.wrong(where, 'needs `on`: a list of what it is called for, such as ["acquired"]')
            self.known(on, {*VIP_EVENTS, *NODE_EVENTS}, f"{where}.on", "event")
            chosen = self.texts(table, where, "vips")
            self.known(chosen, vips, f"{where}.vips", "VIP")
            for event in on:
                if chosen and event in NODE_EVENTS:
                    self.wrong(f"{where}.vips", f"{event} concerns no VIP")
            on_nodes = self.texts(table, where, "nodes")
            self.known(on_nodes, nodes, f"{where}.nodes", "node")
            command, python = self.program(table, where)
            if "budget" in table and "before_release" not in on:
                self.wrong(f"{where}.budget", "is only for before_release: nothing else waits for a hook")
            usual = python or command[0].rpartition("/")[2] if python or command else ""
            found.append(
                HookConfig(
                    self.text(table, where, "name", usual) or usual,
                    on,
                    command,
                    python,
                    chosen,
                    on_nodes,
                    self.choice(table, where, "each", "vip", ("vip", "round")),
                    self.duration(table, where, "timeout", 10_000, 10, 3_600_000),
                    self.duration(table, where, "budget", 200, 1, BUDGET_MS_MAX),
                )
            )
        return tuple(found)

    def checks(self, document: dict[str, Any], vips: tuple[VipConfig, ...], nodes: set[str]) -> tuple[CheckConfig, ...]:
        found: list[CheckConfig] = []
        names: dict[str, str] = {}
        one: dict[str, str] = {}
        by_label: dict[str, list[str]] = {}
        for vip in vips:
            for label in vip.labels:
                by_label.setdefault(label, []).append(vip.vip.name)
        for index, table in enumerate(self.entries(document, "check", CHECKS_MAX) if "check" in document else (), 1):
            where = f"check[{index}]"
            self.keys(
                table,
                where,
                (
                    *("name", "kind", "vips", "labels", "nodes", "interval", "timeout", "rise", "fall"),
                    *("unhealthy", "only_one", "address", "url", "status", "body", "host"),
                    *("tls_verify", "tls_ca", "tls_name", "tls_cert", "tls_key", "command", "process", "pid_file"),
                    *("unit", "path", "exists", "interface", "gateway"),
                ),
            )
            name = self.name(table, where)
            self.unique(names, name, f"{where}.name", "check")
            chosen, labels = self.texts(table, where, "vips"), self.texts(table, where, "labels")
            self.known(chosen, {v.vip.name for v in vips}, f"{where}.vips", "VIP")
            self.known(labels, set(by_label), f"{where}.labels", "label of a VIP")
            about = {*chosen, *(v for label in labels for v in by_label.get(label, ()))}
            if "vips" not in table and "labels" not in table:
                about = {v.vip.name for v in vips}
            on_nodes = self.texts(table, where, "nodes")
            self.known(on_nodes, nodes, f"{where}.nodes", "node")
            interval = self.duration(table, where, "interval", 2000, 100, 3_600_000)
            timeout = self.duration(table, where, "timeout", min(2000, interval), 10, 600_000)
            if timeout > interval:
                self.wrong(f"{where}.timeout", f"is longer than `interval` ({spoken(interval)})")
            only_one = self.flag(table, where, "only_one", False)
            unhealthy = self.choice(table, where, "unhealthy", "withdraw" if only_one else "keep", ("keep", "withdraw"))
            if only_one and unhealthy != "withdraw":
                self.wrong(f"{where}.unhealthy", "only_one withdraws a VIP that no member is chosen for")
            for vip_name in sorted(about) if only_one else ():
                if vip_name in one:
                    self.wrong(f"{where}.only_one", f"{vip_name} has such a check already: {one[vip_name]}")
                one[vip_name] = name
            found.append(
                CheckConfig(
                    name,
                    self.choice(table, where, "kind", "", tuple(CHECK_KINDS)),
                    self.looked_at(table, where, {a.ip for v in vips for a in v.vip.addresses}),
                    tuple(sorted(about)),
                    on_nodes,
                    interval,
                    timeout,
                    self.number(table, where, "rise", 2, 1, 100),
                    self.number(table, where, "fall", 3, 1, 100),
                    unhealthy == "withdraw",
                    only_one,
                )
            )
        if sum(1000 / c.interval_ms for c in found) > CHECKS_PER_SECOND_MAX:
            self.wrong(
                "check", f"they run more than {CHECKS_PER_SECOND_MAX} times a second in all; raise their `interval`"
            )
        return tuple(found)

    def looked_at(self, table: dict[str, Any], where: str, ips: set[str]) -> tuple[tuple[str, object], ...]:
        """What a check looks at, as its kind needs it. `ips`: of all VIPs."""
        kind = table.get("kind")
        if not isinstance(kind, str) or kind not in CHECK_KINDS:
            return ()  # that is told already
        for key in {k for known in CHECK_KINDS.values() for k in known} & table.keys() - set(CHECK_KINDS[kind]):
            self.wrong(f"{where}.{key}", f'is not for kind = "{kind}"')
        found: dict[str, object]
        match kind:
            case "tcp":
                found = self.host_and_port(self.needed(table, where, "address"), f"{where}.address")
            case "http":
                found = self.page(table, where)
            case "exec":
                found = {"command": self.words(table, where)}
            case "process":
                if ("process" in table) == ("pid_file" in table):
                    self.wrong(where, "needs either `process` or `pid_file`")
                found = {
                    "name": self.text(table, where, "process", ""),
                    "pid_file": self.path(table, where, "pid_file") if "pid_file" in table else "",
                }
            case "unit":
                unit = self.needed(table, where, "unit")
                if unit and not UNIT.match(unit):
                    self.wrong(f"{where}.unit", f'{_shown(unit)} is no name of a unit, such as "nginx.service"')
                found = {"unit": unit}
            case "file":
                found = {"path": self.path(table, where, "path"), "exists": self.flag(table, where, "exists", True)}
            case "interface":
                self.needed(table, where, "interface")
                found = {"interface": self.interface(table, where)}
            case _:
                self.needed(table, where, "interface")
                found = {
                    "gateway": self.gateway(table, where, ips),
                    "interface": self.interface(table, where),
                }
        return tuple(found.items())

    def needed(self, table: dict[str, Any], where: str, key: str) -> str:
        """A text that has to be there."""
        if key not in table:
            self.wrong(where, f'needs `{key}`, as its kind is "{table["kind"]}"')
        return self.text(table, where, key) or ""

    def path(self, table: dict[str, Any], where: str, key: str) -> str:
        """An absolute path."""
        found = self.needed(table, where, key)
        if found and (not found.startswith("/") or "\0" in found):
            self.wrong(f"{where}.{key}", f"{_shown(found)} must be an absolute path")
        return found

    def gateway(self, table: dict[str, Any], where: str, ips: set[str]) -> str:
        """A neighbour's address."""
        text = self.needed(table, where, "gateway")
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            if text:
                self.wrong(f"{where}.gateway", f"{_shown(text)} is not an address")
            return ""
        if "%" in text:
            self.wrong(f"{where}.gateway", f"{_shown(text)}: name the interface by `interface`, not by %")
        elif ip.is_multicast or ip.is_unspecified or ip.is_loopback or str(ip) in ips:
            self.wrong(f"{where}.gateway", f"{_shown(text)} is no neighbour's address, or a VIP's")
        return str(ip)

    def host_and_port(self, text: str, where: str) -> dict[str, object]:
        """An address with a port: 127.0.0.1:80, [::1]:80, localhost:80."""
        match = HOST_PORT.match(text)
        if match is None or not 0 < int(match[3]) < 1 << 16:
            if text:
                self.wrong(where, f'{_shown(text)} is no address with a port, such as "127.0.0.1:80" or "[::1]:80"')
            return {}
        return {"host": match[1] or match[2], "port": int(match[3])}

    def page(self, table: dict[str, Any], where: str) -> dict[str, object]:
        """What an HTTP check asks for, and what it wants to hear."""
        text = self.needed(table, where, "url")
        host = self.text(table, where, "host", "") or ""
        body = self.text(table, where, "body", "") or ""
        if len(body) > TEXT_CHARACTERS_MAX or not re.fullmatch(r"[!-~]*", host):
            self.wrong(where, f"`host` must be a name, and `body` at most {TEXT_CHARACTERS_MAX} characters")
        try:
            url = urlsplit(text)
            port, name = url.port, url.hostname
        except ValueError:
            url, port, name = urlsplit(""), None, None
        tls = url.scheme == "https"
        if text and (url.scheme not in ("http", "https") or not name or not re.fullmatch(r"[!-~]+", text)):
            self.wrong(f"{where}.url", f"{_shown(text)} is no http:// or https:// URL")
        elif "@" in url.netloc:
            self.wrong(f"{where}.url", "must not have a user or a password")
        files = {key: self.path(table, where, key) if key in table else "" for key in ("tls_ca", "tls_cert", "tls_key")}
        for key in sorted(table.keys() & {"tls_verify", "tls_name", *files}) if text and not tls else ():
            self.wrong(f"{where}.{key}", "is only for https://")
        if files["tls_key"] and not files["tls_cert"]:
            self.wrong(f"{where}.tls_key", "needs `tls_cert`")
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        return {
            "host": name or "",
            "port": port or (443 if tls else 80),
            "path": path,
            "host_header": host or url.netloc,
            "status": self.statuses(table, where),
            "body": body,
            "tls": tls,
            "tls_verify": self.flag(table, where, "tls_verify", True),
            "tls_name": self.text(table, where, "tls_name", name) or "",
            **files,
        }

    def statuses(self, table: dict[str, Any], where: str) -> list[tuple[int, int]]:
        """Status codes: numbers, and ranges such as "200-299"."""
        given = table.get("status", ["200-399"])
        found: list[tuple[int, int]] = []
        for item in given if isinstance(given, list) and given else [given]:
            match = re.fullmatch(r"([1-5]\d\d)(?:-([1-5]\d\d))?", str(item)) if isinstance(item, str | int) else None
            if match is None or len(found) == WORDS_MAX:
                self.wrong(f"{where}.status", f'{_shown(item)} must be a status such as 200, or a range as "200-299"')
                break
            found.append((int(match[1]), int(match[2] or match[1])))
        return found

    def program(self, table: dict[str, Any], where: str) -> tuple[tuple[str, ...], str]:
        """A hook's `command` or `python`; the other is empty, and both when it is wrong."""
        if ("command" in table) == ("python" in table):
            self.wrong(where, "needs either `command` or `python`")
            return (), ""
        if "python" in table:
            python = self.text(table, where, "python") or ""
            if python and not ENTRY_POINT.match(python):
                self.wrong(f"{where}.python", f'{_shown(python)} is no entry point such as "package.module:function"')
                return (), ""
            return (), python
        return self.words(table, where), ""

    def words(self, table: dict[str, Any], where: str) -> tuple[str, ...]:
        """A program and its arguments; empty when it is wrong."""
        given = table.get("command", ())
        if isinstance(given, str):
            self.wrong(
                f"{where}.command", 'must be a list of words, such as ["/usr/bin/logger", "moved"]: no shell reads it'
            )
            return ()
        words = self.texts(table, where, "command")
        if not 1 <= len(words) <= WORDS_MAX or any("\0" in word for word in words):
            self.wrong(f"{where}.command", f"must be a list of 1 to {WORDS_MAX} words")
            return ()
        if not words[0].startswith("/"):
            self.wrong(f"{where}.command", f"{_shown(words[0])} must be an absolute path")
        return words

    def addresses(self, table: dict[str, Any], where: str) -> tuple[Address, ...]:
        """A VIP's addresses."""
        key, given = self.either(table, where)
        if key is None:
            return ()
        if not isinstance(given, list) or not given or len(given) > ADDRESSES_PER_VIP_MAX:
            self.wrong(f"{where}.{key}", f"must be a list of 1 to {ADDRESSES_PER_VIP_MAX} addresses")
            return ()
        default = self.interface(table, where)
        found: list[Address] = []
        for item in given:
            text, interface = item, default
            if isinstance(item, dict):
                self.keys(item, f"{where}.{key}", ("address", "interface"))
                text = item.get("address")
                interface = self.interface(item, f"{where}.{key}") or default
            address = self.address(text, interface, f"{where}.{key}")
            if address is not None:
                found.append(address)
        return tuple(found)

    def interface(self, table: Mapping[str, Any], where: str) -> str:
        """The interface of a VIP or address, "" for the one whose subnet holds it."""
        found = table.get("interface", "")
        if "interface" in table and (not isinstance(found, str) or not INTERFACE.match(found)):
            self.wrong(f"{where}.interface", f"{_shown(found)} is no interface name (1 to 15 letters)")
            return ""
        return str(found)

    def address(self, text: object, interface: str, where: str) -> Address | None:
        """One address with its prefix length; without one it is a single host's."""
        if not isinstance(text, str):
            self.wrong(where, f"must be a text, not {_shown(text)}")
            return None
        try:
            found = ipaddress.ip_interface(text)
        except ValueError:
            self.wrong(where, f"{_shown(text)} is not an address")
            return None
        ip, prefix = found.ip, found.network.prefixlen
        if "%" in text:
            self.wrong(where, f"{_shown(text)}: name the interface by `interface`, not by %")
        elif ip.is_multicast or ip.is_unspecified or ip.is_loopback or str(ip) == "255.255.255.255":
            self.wrong(where, f"{_shown(text)} cannot be served by a host")
        elif ip.version == 4 and prefix < 31 and ip in (found.network.network_address, found.network.broadcast_address):
            what = "network" if ip == found.network.network_address else "broadcast"
            self.wrong(where, f"{_shown(text)} is the {what} address of its subnet")
        elif ip.version == 6 and ip.is_link_local and not interface:
            self.wrong(where, f"{_shown(text)} is link-local and needs an `interface`")
        else:
            return Address(str(ip), prefix, interface)
        return None


def duration_ms(text: object) -> int:
    """Milliseconds, from "250ms", "4s", "1.5s", "2m". Raises ValueError with a sentence."""
    match = _DURATION.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'must be a duration such as "250ms" or "4s", not {_shown(text)}')
    return round(float(match[1]) * _UNIT_MS[match[2]])


def _shown(value: object) -> str:
    """A value of the file as people wrote it, cut to a readable length."""
    return _cut(json.dumps(value, default=str, ensure_ascii=False))


def _cut(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text[:60])
    return text if len(text) < 60 else text[:57] + "…"


def _version_of(entry_point: str) -> str | None:
    """Name and version of the distribution that has this function; None if none is installed."""
    from importlib import metadata  # slow, and hardly ever needed

    module = entry_point.partition(":")[0].partition(".")[0]
    names = metadata.packages_distributions().get(module)
    return f"{min(names)} {metadata.version(min(names))}" if names else None


def spoken(ms: int) -> str:
    """A time as people write it: "4s"."""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms >= size and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def _digest(
    cluster: ClusterConfig,
    engine: EngineConfig,
    fence: FenceConfig,
    balance: BalanceConfig,
    load: LoadConfig | None,
    nodes: tuple[NodeConfig, ...],
    vips: tuple[VipConfig, ...],
    checks: tuple[CheckConfig, ...],
) -> str:
    """What all nodes must have alike to compute alike."""
    meaning = [
        [cluster.name, cluster.partition.value, cluster.mature_ms],
        [engine.type, engine.detection_ms, engine.evict_after_ms, engine.beat_ms, engine.session],
        [balance.interval_ms, balance.moves_per_round, balance.settle_ms, balance.count.value],
        [fence.takeover.value],
        sorted([n.name, n.id, list(n.addresses), n.weight, n.votes] for n in nodes),
        sorted([str(v.vip.key), list(v.prefer)] for v in vips),
    ]
    if balance.by is not By.WEIGHT:  # else as it was before there was a choice
        meaning.append([balance.by.value, balance.entry_point, balance.entry_version])
    wishes = sorted([str(v.vip.key), sorted(v.nodes), sorted(v.avoid), v.apart] for v in vips)
    if any(any(wish[1:]) for wish in wishes):
        meaning.append(wishes)
    limits = sorted([n.name, n.capacity, n.avoid] for n in nodes)
    if any(capacity is not None or avoid for _, capacity, avoid in limits):
        meaning.append(limits)
    if load is not None:
        meaning.append([load.smoothing_ms, load.hysteresis, load.moves_per_round])
    if checks:  # what they decide, not how they find it out
        meaning.append(
            sorted(
                [c.name, sorted(c.vips), sorted(c.nodes), "withdraw" * c.withdraw, "one" * c.only_one] for c in checks
            )
        )
    return hashlib.blake2b(json.dumps(meaning).encode(), digest_size=8).hexdigest()


# -- for one node -------------------------------------------------------------------------------------------------------


def find_self(
    config: Config,
    name: str | None,
    *,
    hostname: Callable[[], str] = socket.gethostname,
    is_local: Callable[[str], bool] | None = None,
) -> NodeConfig:
    """Which node this host is: by name, by hostname (whole or before the first dot), or by a local address."""
    by_name = {n.name: n for n in config.nodes}
    listed = ", ".join(by_name)
    if name is not None:
        if name in by_name:
            return by_name[name]
        raise ConfigError([f"{config.path}: there is no node {name!r} (there are: {listed})"])
    host = hostname()
    for candidate in (host, host.partition(".")[0]):
        if candidate in by_name:
            return by_name[candidate]
    local = [n for n in config.nodes if any(map(is_local or _is_local, n.addresses))]
    if len(local) == 1:
        return local[0]
    if local:
        names = ", ".join(n.name for n in local)
        raise ConfigError([f"{config.path}: this host has addresses of several nodes ({names}); say which by --node"])
    sentence = (
        f"{config.path}: this host is none of the nodes ({listed}): its name is {host!r} and it has none of their"
        " addresses; say which by --node"
    )
    raise ConfigError([sentence])


def _is_local(address: str) -> bool:
    """Whether an address is configured on this host: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        try:
            s.bind((address, 0))
        except OSError:
            return False
    return True


def _shares(config: Config, rule: ShareRule | None) -> Shares:
    load = config.load
    if load is None:
        return Shares(config.balance.by, rule)
    return Shares(config.balance.by, rule, load.hysteresis, load.smoothing_ms, load.moves_per_round)


def _avoided(config: Config, vip: VipConfig) -> tuple[str, ...]:
    """Whom a VIP avoids: those of its own list, and nodes that all avoid, unless it names them."""
    spare = [n.name for n in config.nodes if n.avoid and n.name not in (*vip.prefer, *vip.nodes)]
    return tuple(sorted({*vip.avoid, *spare}))


def settings_for(config: Config, node: NodeConfig, rule: ShareRule | None = None) -> Settings:
    """What the core of one node needs. `rule`: the function of the entry point, if shares follow one."""
    return Settings(
        node=node.name,
        nodes=tuple(sorted(n.name for n in config.nodes)),
        vips=tuple(sorted((v.vip for v in config.vips), key=lambda v: v.key)),
        config_digest=config.digest,
        prefer=tuple(sorted((v.vip.key, v.prefer) for v in config.vips if v.prefer)),
        avoid=tuple(sorted((v.vip.key, names) for v in config.vips if (names := _avoided(config, v)))),
        apart=tuple(sorted((v.vip.key, v.apart) for v in config.vips if v.apart)),
        not_mine=tuple(sorted(v.vip.key for v in config.vips if v.nodes and node.name not in v.nodes)),
        weight=node.weight,
        capacity=node.capacity,
        votes=tuple(sorted((n.name, n.votes) for n in config.nodes if n.votes != 1)),
        partition=config.cluster.partition,
        mature_ms=config.cluster.mature_ms,
        beat_ms=config.engine.beat_ms,
        evict_after_ms=config.engine.evict_after_ms,
        detection_ms=config.engine.detection_ms,
        lease_ms=config.fence.dark_after_ms,
        beat_age_max_ms=config.fence.beat_age_max_ms,
        takeover=config.fence.takeover,
        count=config.balance.count,
        balance_interval_ms=config.balance.interval_ms,
        moves_per_round=config.balance.moves_per_round,
        settle_ms=config.balance.settle_ms,
        shares=_shares(config, rule),
        version=__version__,
    )
