"""Routes and policy rules that come and go with a VIP, as people write them: a part of ip-route(8) and ip-rule(8).

default via 10.0.0.1 table 100          from 192.0.2.10 lookup 100 priority 1000
10.1.0.0/16 via 10.0.0.1 dev eth1       not to 10.0.0.0/8 fwmark 0x1/0xff lookup 100
unreachable 2001:db8::/32               inet6 iif eth1 prohibit
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

ROUTING_PER_VIP_MAX = 64
U32 = 0xFFFFFFFF
TABLES = {"main": 254, "default": 253, "local": 255}
TYPES = {"unicast": 1, "local": 2, "blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9}
"""RTN_… of linux/rtnetlink.h."""
SCOPES = {"global": 0, "link": 253, "host": 254}
ACTIONS = {"blackhole": 6, "unreachable": 7, "prohibit": 8}
"""FR_ACT_… of linux/fib_rules.h; a rule without one looks up a table."""
LOOKUP = 1
_INTERFACE = re.compile(r"[^\s/]{1,15}\Z")


@dataclass(frozen=True, slots=True, order=True)
class Net:
    """Where packets go to or come from."""

    ip: bytes  # 4 or 16 bytes, the host's bits 0
    prefix: int


@dataclass(frozen=True, slots=True)
class Route:
    """One route; None where nothing was said. `text` is as it was written."""

    text: str
    to: Net
    kind: int = 1
    via: bytes | None = None
    dev: str | None = None
    src: bytes | None = None
    table: int = 254
    metric: int | None = None
    mtu: int | None = None
    scope: int | None = None
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy rule; None where nothing was said."""

    text: str
    v6: bool
    from_: Net | None = None
    to: Net | None = None
    negated: bool = False
    iif: str | None = None
    oif: str | None = None
    mark: tuple[int, int] | None = None  # and its mask
    priority: int | None = None
    action: int = LOOKUP
    table: int = 0


class _Words:
    """The words of one line, taken one after the other."""

    def __init__(self, text: str) -> None:
        self._words = text.split()
        self._words.reverse()
        self._seen: set[str] = set()

    def take(self, after: str) -> str:
        """The next word; `after` is the one that needs it, or ""."""
        if not self._words:
            raise ValueError(f"ends after {after!r}" if after else "names no network")
        return self._words.pop()

    def peek(self) -> str | None:
        """The next word, if there is one."""
        return self._words[-1] if self._words else None

    def key(self) -> str | None:
        """The next keyword; None at the end. Raises ValueError for one that was there already."""
        if not self._words:
            return None
        word = self._words.pop()
        if word in self._seen:
            raise ValueError(f"says {word!r} twice")
        self._seen.add(word)
        return word


def route(text: str) -> Route:
    """Read a route. Raises ValueError with a sentence's end: what is wrong with it."""
    words = _Words(text)
    kind = TYPES.get(words.peek() or "", 0)
    if kind:
        words.key()
    if words.peek() == "to":
        words.key()
    to_word = words.take("")
    found: dict[str, object] = {"kind": kind or 1}
    readers: dict[str, tuple[str, Callable[[str], object]]] = {
        "via": ("via", _address),
        "dev": ("dev", _interface),
        "src": ("src", _address),
        "table": ("table", _table),
        "metric": ("metric", _number(1, U32)),
        "mtu": ("mtu", _number(68, 65_535)),
        "scope": ("scope", _one_of(SCOPES)),
    }
    while (word := words.key()) is not None:
        if word == "onlink":
            found["onlink"] = True
        elif word in readers:
            key, reader = readers[word]
            found[key] = reader(words.take(word))
        else:
            raise ValueError(f"has {word!r}; a route may have {', '.join(readers)} and onlink")
    given = [x for x in (found.get("via"), found.get("src")) if isinstance(x, bytes)]
    to = Net(bytes(len(given[0]) if given else 4), 0) if to_word in ("default", "any") else _net(to_word)
    if any(len(x) != len(to.ip) for x in given):
        raise ValueError("mixes IPv4 and IPv6")
    if kind in (0, 1) and "via" not in found and "dev" not in found:
        raise ValueError("needs a gateway (`via`) or an interface (`dev`)")
    if kind not in (0, 1, 2) and ("via" in found or "dev" in found):
        raise ValueError("goes nowhere, and yet has a gateway or an interface")
    return Route(text, to, **found)  # type: ignore[arg-type]


def rule(text: str) -> Rule:
    """Read a policy rule. Raises ValueError with a sentence's end: what is wrong with it."""
    words = _Words(text)
    found: dict[str, object] = {}
    if words.peek() == "not":
        words.key()
        found["negated"] = True
    family = None
    readers: dict[str, tuple[str, Callable[[str], object]]] = {
        "from": ("from_", _net_or_all),
        "to": ("to", _net_or_all),
        "iif": ("iif", _interface),
        "dev": ("iif", _interface),
        "oif": ("oif", _interface),
        "fwmark": ("mark", _mark),
        "priority": ("priority", _number(1, U32)),
        "pref": ("priority", _number(1, U32)),
        "lookup": ("table", _table),
        "table": ("table", _table),
    }
    while (word := words.key()) is not None:
        if word in ("inet", "inet6"):
            family = word
        elif word in ACTIONS:
            found["action"] = ACTIONS[word]
        elif word in readers:
            key, reader = readers[word]
            if key in found:
                raise ValueError(f"says {word!r} twice")
            value = reader(words.take(word))
            if value is not None:
                found[key] = value
        else:
            raise ValueError(
                f"has {word!r}; a rule may have not, {', '.join(readers)}, inet6, blackhole, unreachable and prohibit"
            )
    if ("table" in found) == ("action" in found):
        raise ValueError("needs a table (`lookup 100`), or else blackhole, unreachable or prohibit")
    sizes = {len(x.ip) for x in (found.get("from_"), found.get("to")) if isinstance(x, Net)}
    sizes |= {"inet": {4}, "inet6": {16}}.get(family or "", set())
    if len(sizes) > 1:
        raise ValueError("mixes IPv4 and IPv6")
    return Rule(text, 16 in sizes, **found)  # type: ignore[arg-type]


def _address(word: str) -> bytes:
    try:
        return ipaddress.ip_address(word).packed
    except ValueError:
        raise ValueError(f"has {word[:60]!r}, which is no address") from None


def _net(word: str) -> Net:
    try:
        found = ipaddress.ip_network(word)
    except ValueError:
        raise ValueError(f"has {word[:60]!r}, which is no network (or has bits beyond its length)") from None
    return Net(found.network_address.packed, found.prefixlen)


def _net_or_all(word: str) -> Net | None:
    return None if word in ("all", "any", "default") else _net(word)


def _interface(word: str) -> str:
    if not _INTERFACE.match(word):
        raise ValueError(f"has {word[:60]!r}, which is no interface name (1 to 15 letters)")
    return word


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(word: str) -> int:
        found = int(word) if word.isascii() and word.isdecimal() and len(word) <= 10 else -1
        if not least <= found <= most:
            raise ValueError(f"has {word[:60]!r}, which is no number from {least} to {most}")
        return found

    return read


def _table(word: str) -> int:
    return TABLES[word] if word in TABLES else _number(1, U32)(word)


def _one_of(known: dict[str, int]) -> Callable[[str], int]:
    def read(word: str) -> int:
        if word not in known:
            raise ValueError(f"has {word[:60]!r}, which is none of {', '.join(known)}")
        return known[word]

    return read


def _mark(word: str) -> tuple[int, int]:
    mark, _, mask = word.partition("/")
    try:
        found = int(mark, 0), int(mask or "0xffffffff", 0)
    except ValueError:
        found = U32 + 1, 0
    if min(found) < 0 or max(found) > U32:
        raise ValueError(f"has {word[:60]!r}, which is no mark such as 0x1 or 0x1/0xff")
    return found
