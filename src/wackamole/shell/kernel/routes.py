"""Routes and policy rules as the kernel is told them (linux/rtnetlink.h, fib_rules.h); routing.py says when.

They carry our tag as their protocol, so that what a former run left behind is found.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...routing import SCOPES, TYPES, Net, Route, Rule
from .rtnl import (
    HEADER,
    NLM_F_CREATE_EXCL,
    NLM_F_REQUEST,
    OURS,
    SOL_NETLINK,
    Rtnl,
    attribute,
    attributes,
)

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
RTAX_MTU, RTNH_F_ONLINK = 2, 4
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE = 1, 2, 3, 6, 10, 15
FRA_FWMASK, FRA_OIFNAME, FRA_PROTOCOL = 16, 17, 21
FIB_RULE_INVERT = 2
NETLINK_GET_STRICT_CHK = 12
"""Linux ≥ 4.20: a list is filtered by the kernel; a router may have a million routes."""
GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV)

_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RULE = struct.Struct("=BBBBBxxBI")  # family, dst_len, src_len, tos, table, action, flags


@dataclass(frozen=True, slots=True)
class Entry:
    """A route or rule as the kernel is told it. Two VIPs may have the same one."""

    kind: int  # RTM_NEWROUTE or RTM_NEWRULE
    body: bytes


def _u32(number: int) -> bytes:
    return struct.pack("=I", number)


def _family(ip: bytes) -> int:
    return socket.AF_INET if len(ip) == 4 else socket.AF_INET6


def route_entry(route: Route, index: int | None) -> Entry:
    """A route; `index` is that of its interface, None if it names none."""
    scope = route.scope
    if scope is None and route.kind == TYPES["local"]:
        scope = SCOPES["host"]
    elif scope is None:
        scope = SCOPES["link"] if index is not None and route.via is None else SCOPES["global"]
    flags = RTNH_F_ONLINK if route.onlink else 0
    table = min(route.table, 252) if route.table > 255 else route.table  # RT_TABLE_COMPAT
    body = _ROUTE.pack(_family(route.to.ip), route.to.prefix, 0, 0, table, OURS, scope, route.kind, flags)
    if route.to.prefix:
        body += attribute(RTA_DST, route.to.ip)
    for kind, content in ((RTA_GATEWAY, route.via), (RTA_PREFSRC, route.src)):
        if content is not None:
            body += attribute(kind, content)
    for kind, number in ((RTA_OIF, index), (RTA_PRIORITY, route.metric), (RTA_TABLE, route.table)):
        if number is not None:
            body += attribute(kind, _u32(number))
    if route.mtu is not None:
        body += attribute(RTA_METRICS, attribute(RTAX_MTU, _u32(route.mtu)))
    return Entry(RTM_NEWROUTE, body)


def rule_entry(rule: Rule, device: Callable[[str], str]) -> Entry:
    """A policy rule; `device` maps the names of interfaces."""
    to, source = rule.to or Net(b"", 0), rule.from_ or Net(b"", 0)
    family = socket.AF_INET6 if rule.v6 else socket.AF_INET
    flags = FIB_RULE_INVERT if rule.negated else 0
    body = _RULE.pack(family, to.prefix, source.prefix, 0, rule.table if rule.table < 256 else 0, rule.action, flags)
    for kind, net in ((FRA_DST, to), (FRA_SRC, source)):
        if net.prefix:
            body += attribute(kind, net.ip)
    for kind, name in ((FRA_IIFNAME, rule.iif), (FRA_OIFNAME, rule.oif)):
        if name is not None:
            body += attribute(kind, device(name).encode() + b"\0")
    mark, mask = rule.mark if rule.mark is not None else (None, None)
    for kind, number in (
        (FRA_PRIORITY, rule.priority),
        (FRA_FWMARK, mark),
        (FRA_FWMASK, mask),
        (FRA_TABLE, rule.table or None),
    ):
        if number is not None:
            body += attribute(kind, _u32(number))
    return Entry(RTM_NEWRULE, body + attribute(FRA_PROTOCOL, bytes((OURS,))))


def same(wanted: Entry, found: Entry) -> bool:
    """Whether what the kernel lists is what was asked for: it says more than it was told."""
    if wanted.kind != found.kind:
        return False
    layout = _ROUTE if wanted.kind == RTM_NEWROUTE else _RULE
    mine, theirs = layout.unpack_from(wanted.body), layout.unpack_from(found.body)
    if layout is _ROUTE:
        alike = (mine[0], mine[1], mine[7]) == (theirs[0], theirs[1], theirs[7])
    else:
        alike = mine[:3] == theirs[:3] and mine[5] == theirs[5] and not (mine[6] ^ theirs[6]) & FIB_RULE_INVERT
    said = attributes(found.body[layout.size :])
    return alike and attributes(wanted.body[layout.size :]).items() <= said.items()


class RoutingTables(Rtnl):
    """Routes and rules with our tag, besides what Rtnl does."""

    def __init__(self) -> None:
        super().__init__()
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)

    def ours(self) -> list[Entry]:
        """All that carry our tag."""
        routes = self._ours(RTM_GETROUTE, lambda family: _ROUTE.pack(family, 0, 0, 0, 0, OURS, 0, 0, 0))
        return routes + self.our_rules()

    def our_rules(self) -> list[Entry]:
        """The rules among them."""
        return self._ours(RTM_GETRULE, lambda family: _RULE.pack(family, 0, 0, 0, 0, 0, 0))

    def _ours(self, command: int, asked: Callable[[int], bytes]) -> list[Entry]:
        listed = (
            found for family in (socket.AF_INET, socket.AF_INET6) for found in self.listed(command, asked(family))
        )
        return [Entry(kind, body) for kind, body in listed if _is_ours(kind, body)]

    def put(self, entries: Iterable[Entry]) -> dict[Entry, int]:
        """Add, routes first; returns the errno of each that was refused (EEXIST: there is such a one)."""
        ordered = sorted(entries, key=lambda e: e.kind)
        return self.batches(ordered, lambda n, e, ack: _message(e.kind, n, e.body, NLM_F_CREATE_EXCL | ack))

    def take(self, entries: Iterable[Entry]) -> dict[Entry, int]:
        """Remove, rules first; what is gone already is no error."""
        ordered = sorted(entries, key=lambda e: -e.kind)
        refused = self.batches(ordered, lambda n, e, ack: _message(e.kind + 1, n, e.body, ack))
        return {e: code for e, code in refused.items() if code not in GONE}


def _message(command: int, sequence: int, body: bytes, flags: int) -> bytes:
    return HEADER.pack(HEADER.size + len(body), command, NLM_F_REQUEST | flags, sequence, 0) + body


def _is_ours(kind: int, body: bytes) -> bool:
    if kind == RTM_NEWROUTE:
        return len(body) >= _ROUTE.size and _ROUTE.unpack_from(body)[5] == OURS
    return kind == RTM_NEWRULE and attributes(body[_RULE.size :]).get(FRA_PROTOCOL, b"") == bytes((OURS,))
