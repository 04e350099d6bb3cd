"""The control protocol of Wackamole 2.1, as its own wackatrl speaks it. Pure: bytes and values, no socket.

A client sends one byte for each command, as many as it likes, one after the other. Numbers are 32 bits in network order.

    0  list      answered by the length of what follows, and a record of 900 bytes for each VIP
    1  fail      answered by 0 when it is done, by -1 when it cannot be
    2  succeed   likewise: the end of a failure
    a record     claim priority, then 32 interfaces: the holder's own, the VIP's first, and up to 30 that move with it
    an interface name (16 bytes, padded with zeros), address, broadcast address, netmask; all zero if there is none

It has no IPv6. The client reads at most 254 records, and what it does with none is undefined: so it is never sent none.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config, NodeConfig

RECORDS_MAX = 254
WITH_IT_MAX = 30
PATH_BYTES_MAX = 100
DONE, NOT_DONE = struct.pack("!i", 0), struct.pack("!i", -1)
SOMEBODY = ipaddress.IPv4Address("255.255.255.255")
"""The holder, where not even its number is known."""

_INTERFACE = struct.Struct("!16s4s4s4s")
_NUMBER = struct.Struct("!i")
_NAME_BYTES_MAX = 15
_TCP = re.compile(r"([^\s:]+):(\d{1,5})\Z")


class Command(Enum):
    """What a client may ask, by its byte."""

    LIST = 0
    FAIL = 1
    SUCCEED = 2


class Claim(Enum):
    """Why a VIP is where it is, in the original's words."""

    UNCLAIMED = 0
    CLAIMED = 2
    PREFER_CLAIMED = 5


@dataclass(frozen=True, slots=True)
class Record:
    """One VIP. `interfaces` are pairs of a name ("" if the config has none) and an address, the first one first."""

    claim: Claim
    holder: ipaddress.IPv4Address | None
    interfaces: tuple[tuple[str, ipaddress.IPv4Interface], ...]


def encode(records: Sequence[Record]) -> bytes:
    """The answer to a list: as many of the records, and of their interfaces, as the original's client can read. Raises
    ValueError if there is none."""
    if not records:
        raise ValueError("an empty list cannot be told")
    body = b"".join(map(_record, records[:RECORDS_MAX]))
    return _NUMBER.pack(len(body)) + body


def _record(record: Record) -> bytes:
    holder = _INTERFACE.pack(b"", record.holder.packed if record.holder is not None else b"", b"", b"")
    served = b"".join(_interface(name, address) for name, address in record.interfaces[: WITH_IT_MAX + 1])
    whole = _NUMBER.pack(record.claim.value) + holder + served
    return whole.ljust(_NUMBER.size + _INTERFACE.size * (WITH_IT_MAX + 2), b"\0")


def _interface(name: str, address: ipaddress.IPv4Interface) -> bytes:
    network = address.network
    return _INTERFACE.pack(
        name.encode()[:_NAME_BYTES_MAX], address.packed, network.broadcast_address.packed, network.netmask.packed
    )


# -- what a cluster of ours amounts to ----------------------------------------------------------------------------------


def records(config: Config, node: NodeConfig, status: Mapping[str, Any]) -> tuple[Record, ...]:
    """What the daemon's `status` says, in the config's order and with this node's names of interfaces. A holder without
    an IPv4 address is named by its number in the ring: 12 is 0.0.0.12."""
    own = {n.name: _own(n) for n in config.nodes}
    numbers = {m["name"]: ipaddress.IPv4Address(m["id"] & 0xFFFFFFFF) for m in status["view"]["members"]}
    holders = {vip["key"]: vip["holder"] for vip in status["vips"]}
    names = dict(node.interfaces)
    found = []
    for vip in config.vips:
        served = tuple(
            (names.get(a.interface, a.interface), ipaddress.IPv4Interface(str(a)))
            for a in vip.vip.addresses
            if ":" not in a.ip
        )
        if not served:
            continue
        name = holders.get(vip.vip.key)
        if name is None:
            found.append(Record(Claim.UNCLAIMED, None, served))
        else:
            claim = Claim.PREFER_CLAIMED if vip.prefer[:1] == (name,) else Claim.CLAIMED
            found.append(Record(claim, own.get(name) or numbers.get(name, SOMEBODY), served))
    return tuple(found)


def _own(node: NodeConfig) -> ipaddress.IPv4Address | None:
    return next((ipaddress.IPv4Address(a) for a in node.addresses if ":" not in a), None)


def notes(config: Config) -> Iterator[str]:
    """What an operator should know of it: who can command, and what a list of the original's form cannot hold."""
    if config.control.original is None:
        return
    if config.control.original.warning:
        yield config.control.original.warning
    counts = [sum(":" not in a.ip for a in vip.vip.addresses) for vip in config.vips]
    six = sum(1 for n, vip in zip(counts, config.vips, strict=True) if n < len(vip.vip.addresses))
    if six:
        yield f"an original wackatrl is not shown the IPv6 addresses of {six} VIPs"
    if len(listed := [n for n in counts if n]) > RECORDS_MAX:
        yield f"an original wackatrl is shown the first {RECORDS_MAX} of {len(listed)} VIPs"
    if cut := sum(n > WITH_IT_MAX + 1 for n in counts):
        yield f"an original wackatrl is shown the first {WITH_IT_MAX + 1} addresses of {cut} VIPs"


# -- where it is offered ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ControlAddress:
    """A Unix socket's path, or (`path` empty) a TCP port of an address of this host."""

    path: str
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    @property
    def exposed(self) -> bool:
        """Whether others than this host's users can reach it."""
        return not self.path and not ipaddress.IPv4Address(self.host).is_loopback

    @property
    def warning(self) -> str:
        """Who can command there, "" if it is root alone."""
        if self.path:
            return ""
        who = "anybody on the network" if self.exposed else "every user of this host"
        return f"{who} can drain this node by way of {self}: the original's protocol asks nobody who he is"


def control_address(text: str) -> ControlAddress:
    """Read a path, or ADDRESS:PORT as the original's Windows build has it. Raises ValueError with a sentence."""
    if text.startswith("/"):
        if len(text.encode()) > PATH_BYTES_MAX:
            raise ValueError(f"is longer than the {PATH_BYTES_MAX} bytes that a socket's path may have")
        if "\0" in text:
            raise ValueError("is no path: there is a zero byte in it")
        return ControlAddress(text)
    found = _TCP.match(text)
    if found is None:
        raise ValueError("is neither the whole path of a socket nor an address and a port such as 127.0.0.1:2413")
    host, port = "127.0.0.1" if found[1] == "localhost" else found[1], int(found[2])
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        raise ValueError(f"has {host[:40]!r} for the IPv4 address to listen on; names are not looked up") from None
    if not 0 < port < 65536:
        raise ValueError("has no port: it is a number from 1 to 65535")
    return ControlAddress("", host, port)
