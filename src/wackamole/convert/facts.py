"""What a foreign configuration file says, before it is put together: places, remarks, problems, and one host's facts."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum

ENTRIES_MAX = 8192
"""Entries of one list of a file; more of them are a mistake or an attack."""
TOKENS_MAX = 200_000
"""Words and braces of a file."""
PROBLEMS_MAX = 200
"""After so many, people look for another file."""
SAID_CHARACTERS_MAX = 100
ENGINES = ("corosync", "spread")


class Kind(Enum):
    """Whose file it is."""

    WACKAMOLE = "wackamole"
    KEEPALIVED = "keepalived"
    CTDB = "ctdb"


@dataclass(frozen=True, slots=True)
class Source:
    """One file. `node` is the host that it belongs to, None if it is every host's."""

    path: str
    text: str
    node: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something is written; lines and columns count from 1, a line of 0 is the whole."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.path, *(str(n) for n in (self.line, self.column) if n)])


class Fate(Enum):
    """What became of something that a file says."""

    CARRIED = "carried over"
    CHANGED = "changed"
    NOT_NEEDED = "not needed"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Remark:
    """What became of one statement: what the file said, and a sentence."""

    place: Place
    said: str
    fate: Fate
    sentence: str

    def __str__(self) -> str:
        return f"{self.place}  {self.fate.value}  {self.said}  →  {self.sentence}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be understood, or that no cluster could serve."""

    place: Place
    sentence: str

    def __str__(self) -> str:
        return f"{self.place}  {self.sentence}"


@dataclass(frozen=True, slots=True)
class Served:
    """One address of a VIP, as `IP` or `IP/prefix`; `interface` is "" where the file names none."""

    text: str
    interface: str
    place: Place

    @property
    def ip(self) -> str:
        """The address alone, in its one canonical form."""
        return str(ipaddress.ip_interface(self.text).ip)


@dataclass(frozen=True, slots=True)
class Routed:
    """A route or rule of a VIP; `key` is "routes" or "rules"."""

    key: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class ServedVip:
    """Addresses that move as one. `priority`: how much this host wants them, None if it does not say."""

    name: str  # "": that of its first address
    addresses: tuple[Served, ...]
    priority: int | None
    place: Place
    routing: tuple[Routed, ...] = ()

    @property
    def ips(self) -> frozenset[str]:
        """What makes it the same VIP on every host."""
        return frozenset(a.ip for a in self.addresses)


@dataclass(frozen=True, slots=True)
class Called:
    """A program that a host calls: our `[[hook]]`. `vip`: the addresses of the VIP that it is for; empty: of all. One
    without a command is a form to fill in."""

    on: tuple[str, ...]
    command: tuple[str, ...]
    each: str
    vip: frozenset[str]
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Told:
    """Hosts that are to be told where a VIP is: one, or a network's. `throttle` of them a second, None if it does not say."""

    network: str
    interface: str
    throttle: int | None
    ping: bool
    place: Place


@dataclass(slots=True, eq=False)
class Host:
    """What one file says; its reader fills it."""

    source: Source
    own: str | None = None  # the host's own address
    peers: list[tuple[str, Place]] = field(default_factory=list)
    nodes: list[tuple[str, tuple[str, ...], Place]] = field(default_factory=list)
    vips: list[ServedVip] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    settings: dict[str, tuple[str, Place]] = field(default_factory=dict)
    hooks: list[Called] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def at(self, line: int, column: int = 0) -> Place:
        """A place in this file."""
        return Place(self.source.path, line, column)

    def wrong(self, place: Place, sentence: str) -> None:
        """A problem."""
        self.problems.append(Problem(place, sentence))

    def say(self, place: Place, said: str, fate: Fate, sentence: str) -> None:
        """A remark."""
        self.remarks.append(Remark(place, shown(said), fate, sentence))

    def set(self, key: str, value: str, place: Place) -> None:
        """A setting of the cluster; the last one of a file counts."""
        self.settings[key] = (value, place)


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert. `nodes`: names and their addresses; `engine` and `cluster`, its name: if not the file's."""

    nodes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    engine: str | None = None
    cluster: str | None = None
    kind: Kind | None = None


def shown(text: str) -> str:
    """Text of a file on one line, printable, cut to a readable length."""
    line = "".join(c if c.isprintable() else "?" for c in re.sub(r"\s+", " ", text).strip())
    return line if len(line) <= SAID_CHARACTERS_MAX else line[: SAID_CHARACTERS_MAX - 1] + "…"


def is_address(text: str) -> bool:
    """Whether it is an IP address, with or without a prefix length, and without an interface in it."""
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "%" not in text
