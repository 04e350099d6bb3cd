"""Whether nftables' rules let the ring through: what would become of its packets, rule by rule.

Rules are read as nft(8) lists them (libnftables-json(5)), and gone through as the kernel would, for the first packet of a node
to another one. What a rule asks that is not known before the packet is there (a mark, a limit, a module of iptables) makes
its outcome uncertain; then the rule is named, and nothing is claimed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

CHAINS_DEEP_MAX = 16
"""The kernel's own limit of jumps in jumps (NFT_JUMP_STACK_SIZE)."""


class Fate(Enum):
    """What becomes of a packet."""

    PASSES = "passes"
    DROPPED = "is dropped"
    UNCERTAIN = "may be dropped"


@dataclass(frozen=True, slots=True)
class Packet:
    """A UDP packet at a hook; `iif` and `oif` are "" where there is none."""

    source: str
    destination: str
    port: int
    iif: str = ""
    oif: str = ""
    state: str = "new"
    """Of connection tracking."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of a packet, and by which rule: `family table chain: why`."""

    fate: Fate
    place: str = ""


class _Unknown(Exception):
    """It depends on something that is not known here."""


class Verdict(Enum):
    """How a rule or a chain ends for a packet."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    GOES_ON = "continue"


_VERDICTS = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.DROP,
    "return": Verdict.RETURN,
    "continue": Verdict.GOES_ON,
}
_HARMLESS = ("counter", "log", "comment", "notrack", "mangle", "ct helper")
_HARMLESS_XT = ("comment", "LOG", "NFLOG", "CT", "MARK")
"""Of the modules of iptables that nft lists by their name alone."""
Chain = tuple[str, str, str]
"""Family, table, name."""


@dataclass(slots=True)
class _Doubts:
    """The first rule that may let a packet pass, and the first that may drop it, of those that cannot be told."""

    accept: str = ""
    drop: str = ""

    def add(self, place: str, expressions: list[Any]) -> None:
        """A rule whose outcome is not known."""
        text = repr(expressions)
        either = ["jump", "goto", "return", "queue", "vmap"]
        if "'REJECT'" not in text:
            either.append("target")
        if not self.accept and any(f"'{word}'" in text for word in ("accept", *either)):
            self.accept = place
        if not self.drop and any(f"'{word}'" in text for word in ("drop", "reject", "REJECT", *either)):
            self.drop = place


class Ruleset:
    """All tables of this network namespace, from what `nft -j list ruleset` prints."""

    def __init__(self, listed: Mapping[str, Any]) -> None:
        self._chains: dict[Chain, dict[str, Any]] = {}
        self._rules: dict[Chain, list[dict[str, Any]]] = {}
        self._sets: dict[Chain, list[Any]] = {}
        for thing in listed.get("nftables", ()):
            for kind, what in thing.items():
                if kind == "chain":
                    self._chains[what["family"], what["table"], what["name"]] = what
                elif kind == "rule":
                    self._rules.setdefault((what["family"], what["table"], what["chain"]), []).append(what)
                elif kind in ("set", "map"):
                    self._sets[what["family"], what["table"], what["name"]] = what.get("elem", [])

    @property
    def names(self) -> set[str]:
        """The names of all tables and chains."""
        return {name for _, table, chain in self._chains for name in (table, chain)}

    def judge(self, packet: Packet, *hooks: str) -> Judgement:
        """What becomes of a packet that goes through these hooks of ip, ip6 and inet."""
        family = "ip6" if ":" in packet.source else "ip"
        found = Judgement(Fate.PASSES)
        for hook in hooks:
            base = [
                key
                for key, c in self._chains.items()
                if c.get("hook") == hook and c.get("type") == "filter" and key[0] in (family, "inet")
            ]
            for key in sorted(base, key=lambda key: _priority(self._chains[key].get("prio"))):
                judged = self._base_chain(key, packet)
                if judged.fate is Fate.DROPPED:
                    return judged
                if found.fate is Fate.PASSES:
                    found = judged
        return found

    def _base_chain(self, key: Chain, packet: Packet) -> Judgement:
        doubts = _Doubts()
        verdict, place = self._chain(key, packet, doubts, 0)
        if verdict in (Verdict.GOES_ON, Verdict.RETURN):
            policy = self._chains[key].get("policy", "accept")
            verdict, place = _VERDICTS[policy], f"{' '.join(key)}: policy {policy}"
        if verdict is Verdict.DROP:
            return Judgement(Fate.UNCERTAIN if doubts.accept else Fate.DROPPED, place)
        return Judgement(Fate.UNCERTAIN, doubts.drop) if doubts.drop else Judgement(Fate.PASSES)

    def _chain(self, key: Chain, packet: Packet, doubts: _Doubts, depth: int) -> tuple[Verdict, str]:
        if depth > CHAINS_DEEP_MAX:
            raise _Unknown
        for rule in self._rules.get(key, ()):
            place = f"{' '.join(key)}: rule with handle {rule.get('handle', '?')}"
            try:
                verdict, where = self._rule(key, rule["expr"], packet, doubts, depth)
            except _Unknown:
                doubts.add(place, rule["expr"])
                continue
            if verdict is not Verdict.GOES_ON:
                return verdict, where or place
        return Verdict.GOES_ON, ""

    def _rule(
        self, key: Chain, expressions: list[Any], packet: Packet, doubts: _Doubts, depth: int
    ) -> tuple[Verdict, str]:
        unknown = False
        for expression in expressions:
            kind, content = _only(expression)
            if kind == "match":
                try:
                    if not self._matches(key, content, packet):
                        return Verdict.GOES_ON, ""
                except _Unknown:
                    unknown = True  # a later condition may still say that it is not about this packet
            elif kind == "vmap":
                if unknown:
                    raise _Unknown
                found = self._mapped(key, content, packet)
                if found is not None:
                    return self._verdict(key, *next(iter(found.items())), packet, doubts, depth)
                return Verdict.GOES_ON, ""
            elif kind in _VERDICTS or kind in ("jump", "goto"):
                if unknown:
                    raise _Unknown
                return self._verdict(key, kind, content, packet, doubts, depth)
            elif kind == "xt" and content["name"] == "REJECT":
                if unknown:
                    raise _Unknown
                return Verdict.DROP, ""
            elif kind not in _HARMLESS and not (kind == "xt" and content["name"] in _HARMLESS_XT):
                unknown = True
        if unknown:
            raise _Unknown
        return Verdict.GOES_ON, ""

    def _verdict(
        self, key: Chain, kind: str, content: Any, packet: Packet, doubts: _Doubts, depth: int
    ) -> tuple[Verdict, str]:
        if kind not in ("jump", "goto"):
            return _VERDICTS[kind], ""
        verdict, where = self._chain((key[0], key[1], content["target"]), packet, doubts, depth + 1)
        if verdict in (Verdict.GOES_ON, Verdict.RETURN):
            return (Verdict.RETURN if kind == "goto" else Verdict.GOES_ON), ""
        return verdict, where

    # -- what a rule asks

    def _matches(self, key: Chain, match: Mapping[str, Any], packet: Packet) -> bool:
        if match["op"] not in ("==", "!=", "in"):
            raise _Unknown
        value = _field(match["left"], packet)
        if value is None:  # another protocol has that field: the rule is not about this packet
            return False
        found = any(_equal(value, wanted) for wanted in self._wanted(key, match["right"]))
        return found is not (match["op"] == "!=")

    def _mapped(self, key: Chain, vmap: Mapping[str, Any], packet: Packet) -> Mapping[str, Any] | None:
        value = _field(vmap["key"], packet)
        if value is None:
            return None
        for wanted, verdict in self._wanted(key, vmap["data"]):
            if _equal(value, wanted):
                found: Mapping[str, Any] = verdict if isinstance(verdict, dict) else {verdict: None}
                return found
        return None

    def _wanted(self, key: Chain, right: Any) -> Iterator[Any]:
        if isinstance(right, str) and right.startswith("@"):
            yield from self._elements(self._sets.get((key[0], key[1], right[1:]), []))
        elif isinstance(right, dict) and "set" in right:
            yield from self._elements(right["set"])
        elif isinstance(right, list):
            yield from right
        else:
            yield right

    @staticmethod
    def _elements(listed: Any) -> Iterator[Any]:
        for element in listed if isinstance(listed, list) else [listed]:
            yield element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _only(thing: Any) -> tuple[str, Any]:
    """The one key of an object, and its value; for anything else, its text."""
    return next(iter(thing.items())) if isinstance(thing, dict) and thing else (str(thing), None)


def _field(left: Any, packet: Packet) -> tuple[str, ...] | None:
    """The values that a packet has for an expression; None if it is of a protocol that the packet is not."""
    six = ":" in packet.source
    kind, content = _only(left)
    if kind == "payload":
        protocol, name = content.get("protocol"), content.get("field")
        if protocol in ("tcp", "icmp", "icmpv6", "sctp", "dccp", "arp", "vlan", "ip" if six else "ip6"):
            return None
        found = {
            ("ip6" if six else "ip", "saddr"): packet.source,
            ("ip6" if six else "ip", "daddr"): packet.destination,
            ("ip", "protocol"): "udp",
            ("ip6", "nexthdr"): "udp",
            ("udp", "dport"): str(packet.port),
            ("th", "dport"): str(packet.port),
        }.get((protocol, name))
        if found is not None:
            return (found,)
    elif kind == "meta":
        interface = {"iif": packet.iif, "iifname": packet.iif, "oif": packet.oif, "oifname": packet.oif}
        if content["key"] in interface:
            return (interface[content["key"]],)
        if content["key"] in ("l4proto", "nfproto", "protocol"):
            return {"l4proto": ("udp",), "nfproto": ("ipv6" if six else "ipv4",)}.get(
                content["key"], ("ip6" if six else "ip",)
            )
    elif kind == "ct" and content.get("key") == "state":
        return (packet.state,)
    raise _Unknown


def _equal(values: tuple[str, ...], wanted: Any) -> bool:
    try:
        return _is_one_of(values, wanted)
    except ValueError:  # a range or prefix of something else than numbers and addresses
        raise _Unknown from None


def _is_one_of(values: tuple[str, ...], wanted: Any) -> bool:
    if isinstance(wanted, dict):
        if "range" in wanted:
            low, high = wanted["range"]
            return any(_between(low, v, high) for v in values)
        if "prefix" in wanted:
            network = ipaddress.ip_network(f"{wanted['prefix']['addr']}/{wanted['prefix']['len']}", strict=False)
            return any(ipaddress.ip_address(v) in network for v in values)
        raise _Unknown
    if isinstance(wanted, list):
        return any(_is_one_of(values, w) for w in wanted)
    text = str(wanted)
    if text.endswith("*") and not text.endswith("\\*"):
        return any(v.startswith(text[:-1]) for v in values)
    return text in values


def _between(low: Any, value: str, high: Any) -> bool:
    if value.isdigit():
        return int(low) <= int(value) <= int(high)
    lowest, found, highest = (ipaddress.ip_address(x) for x in (low, value, high))
    return int(lowest) <= int(found) <= int(highest)


def _priority(given: Any) -> int:
    return given if isinstance(given, int) else 0
