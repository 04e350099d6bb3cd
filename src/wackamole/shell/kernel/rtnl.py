"""rtnetlink, as far as addresses and links need it (linux/rtnetlink.h, if_addr.h, if_link.h).

Spoken by hand because it is the hot path: 1000 addresses in 19 ms where the library takes 0.6 s. A sendmsg is worked off
by the kernel before it returns; batches are cut to BATCH_MAX so that a caller never waits long in one call.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

OURS = 0x57
"""IFA_PROTO of our addresses ("W"); Linux ≥ 5.18 keeps it, older kernels ignore it."""

BATCH_MAX = 100
FOR_EVER = 0xFFFFFFFF
"""INFINITY_LIFE_TIME."""
RECEIVE_BYTES = 1 << 20

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLM_F_DUMP_INTR = 0x10
DUMPS_MAX = 8
NLM_F_CREATE_EXCL, NLM_F_CREATE, NLM_F_REPLACE = 0x600, 0x400, 0x100
IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS, IFA_PROTO = 1, 2, 6, 8, 11
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
IFLA_ADDRESS, IFLA_IFNAME = 1, 3
NDA_DST, NDA_LLADDR = 1, 2
NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE = 0x02, 0x04, 0x08, 0x10
IFF_UP, IFF_RUNNING, IFF_LOWER_UP, IFF_LOOPBACK = 0x1, 0x40, 0x10000, 0x8
GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
SOL_NETLINK, NETLINK_EXT_ACK = 270, 11
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

T = TypeVar("T")

HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_IFADDR = struct.Struct("=BBBBI")
_IFINFO = struct.Struct("=BxHiII")
_NEIGHBOUR = struct.Struct("=BxHiHBB")
_ATTR = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Placed:
    """An address on an interface. `ours`: it carries our tag."""

    ip: bytes  # 4 or 16 bytes
    prefix: int
    index: int
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """An interface."""

    index: int
    name: str
    flags: int
    mac: bytes

    @property
    def carries(self) -> bool:
        """Up, with a carrier, and operational."""
        wanted = IFF_UP | IFF_RUNNING | IFF_LOWER_UP
        return self.flags & wanted == wanted


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour on an interface; `mac` is b"" while the kernel does not know it, or was told it for ever."""

    index: int
    ip: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification: an address or a link came, changed or went."""

    kind: int
    what: Placed | Link


class NetlinkError(OSError):
    """The kernel did not answer as it should."""


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute of a message, padded."""
    return _ATTR.pack(4 + len(content), kind) + content + b"\0" * (-len(content) % 4)


def address_message(command: int, sequence: int, address: Placed, flags: int, valid_s: int = FOR_EVER) -> bytes:
    """RTM_NEWADDR or RTM_DELADDR. New ones are tagged, bring no prefix route, skip duplicate address detection (v6, 2 s
    otherwise) and are deprecated (v6), so that the host never chooses a VIP as its own source address. `valid_s`: the
    kernel removes it by itself after so many seconds."""
    v4 = len(address.ip) == 4
    family = socket.AF_INET if v4 else socket.AF_INET6
    body = _IFADDR.pack(family, address.prefix, 0, 0, address.index)
    if v4:
        body += attribute(IFA_LOCAL, address.ip)
    body += attribute(IFA_ADDRESS, address.ip)
    if command == RTM_NEWADDR:
        body += attribute(IFA_FLAGS, struct.pack("=I", IFA_F_NOPREFIXROUTE | (0 if v4 else IFA_F_NODAD)))
        body += attribute(IFA_PROTO, bytes((OURS,)))
        if not v4:
            body += attribute(IFA_CACHEINFO, struct.pack("=IIII", 0, valid_s, 0, 0))
        elif valid_s != FOR_EVER:
            body += attribute(IFA_CACHEINFO, struct.pack("=IIII", valid_s, valid_s, 0, 0))
    return HEADER.pack(HEADER.size + len(body), command, NLM_F_REQUEST | flags, sequence, 0) + body


def neighbour_message(sequence: int, neighbour: Neighbour, flags: int) -> bytes:
    """RTM_NEWNEIGH: this is its hardware address, and it was heard of just now."""
    family = socket.AF_INET if len(neighbour.ip) == 4 else socket.AF_INET6
    body = _NEIGHBOUR.pack(family, 0, neighbour.index, NUD_REACHABLE, 0, 0)
    body += attribute(NDA_DST, neighbour.ip) + attribute(NDA_LLADDR, neighbour.mac)
    flags |= NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE
    return HEADER.pack(HEADER.size + len(body), RTM_NEWNEIGH, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split a datagram into (type, sequence, body); stops at the first message that does not fit."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield kind, sequence, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def interrupted(data: bytes) -> bool:
    """Whether the kernel says that what it lists was changed while it was listed."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, _, flags, _, _ = HEADER.unpack_from(data, offset)
        if flags & NLM_F_DUMP_INTR:
            return True
        if length < HEADER.size:
            return False
        offset += (length + 3) & ~3
    return False


def attributes(data: bytes) -> dict[int, bytes]:
    """A message's attributes, by their type; stops at the first that does not fit."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def parse(kind: int, body: bytes) -> Placed | Link | Neighbour | None:
    """The address, link or neighbour of a notification or dump; None for anything else, also for what is cut short."""
    if kind in (RTM_NEWADDR, RTM_DELADDR) and len(body) >= _IFADDR.size:
        _, prefix, _, _, index = _IFADDR.unpack_from(body)
        found = attributes(body[_IFADDR.size :])
        ip = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
        if ip is None or len(ip) not in (4, 16):
            return None
        return Placed(ip, prefix, index, found.get(IFA_PROTO, b"\0")[:1] == bytes((OURS,)))
    if kind in (RTM_NEWLINK, RTM_DELLINK) and len(body) >= _IFINFO.size:
        _, _, index, flags, _ = _IFINFO.unpack_from(body)
        found = attributes(body[_IFINFO.size :])
        name = found.get(IFLA_IFNAME, b"").split(b"\0")[0].decode(errors="replace")
        return Link(index, name, flags, found.get(IFLA_ADDRESS, b"")) if name else None
    if kind == RTM_NEWNEIGH and len(body) >= _NEIGHBOUR.size:
        _, _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
        found = attributes(body[_NEIGHBOUR.size :])
        ip = found.get(NDA_DST, b"")
        known = state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE)
        return Neighbour(index, ip, found.get(NDA_LLADDR, b"") if known else b"") if len(ip) in (4, 16) else None
    return None


class Rtnl:
    """One request socket; not shared between threads."""

    def __init__(self) -> None:
        self._socket = _open(0)
        self._sequence = 0

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def add(self, addresses: Sequence[Placed], valid_s: int = FOR_EVER) -> dict[Placed, int]:
        """Add; returns the errno of each that the kernel refused (EEXIST, ENODEV, …)."""
        return self._change(RTM_NEWADDR, addresses, NLM_F_CREATE_EXCL, valid_s)

    def refresh(self, addresses: Sequence[Placed], valid_s: int) -> dict[Placed, int]:
        """Let addresses that are there live for so many seconds from now; returns the errno of each that is not."""
        return self._change(RTM_NEWADDR, addresses, NLM_F_REPLACE, valid_s)

    def delete(self, addresses: Sequence[Placed]) -> dict[Placed, int]:
        """Delete; what is gone already is no error."""
        refused = self._change(RTM_DELADDR, addresses, 0)
        return {a: e for a, e in refused.items() if e not in (errno.EADDRNOTAVAIL, errno.ENODEV)}

    def _change(
        self, command: int, addresses: Sequence[Placed], flags: int, valid_s: int = FOR_EVER
    ) -> dict[Placed, int]:
        return self.batches(addresses, lambda n, a, ack: address_message(command, n, a, flags | ack, valid_s))

    def confirm(self, neighbours: Sequence[Neighbour]) -> dict[Neighbour, int]:
        """Write neighbour entries, as if they had just been heard of; returns the errno of each that was refused."""
        return self.batches(neighbours, neighbour_message)

    def batches(self, things: Sequence[T], message: Callable[[int, T, int], bytes]) -> dict[T, int]:
        """Send a message for each; the last of each batch asks for an acknowledgement, errors come in any case."""
        refused: dict[T, int] = {}
        for start in range(0, len(things), BATCH_MAX):
            part = things[start : start + BATCH_MAX]
            first = self._sequence + 1
            self._sequence += len(part)
            last = len(part) - 1
            self._socket.send(
                b"".join(message(first + i, x, NLM_F_ACK if i == last else 0) for i, x in enumerate(part))
            )
            for sequence, code in self._acknowledged(self._sequence):
                if code and first <= sequence < first + len(part):
                    refused[part[sequence - first]] = code
        return refused

    def _acknowledged(self, last: int) -> Iterator[tuple[int, int]]:
        while True:
            for kind, sequence, body in messages(self._socket.recv(RECEIVE_BYTES)):
                if kind == NLMSG_ERROR and len(body) >= 4:
                    yield sequence, -struct.unpack_from("=i", body)[0]
                    if sequence == last:
                        return

    def addresses(self) -> list[Placed]:
        """Every address of this network namespace."""
        return [a for a in self._dump(RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)) if isinstance(a, Placed)]

    def links(self) -> list[Link]:
        """Every interface of this network namespace."""
        return [x for x in self._dump(RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)) if isinstance(x, Link)]

    def neighbours(self) -> list[Neighbour]:
        """Every neighbour entry of this network namespace."""
        return [x for x in self._dump(RTM_GETNEIGH, _NEIGHBOUR.pack(0, 0, 0, 0, 0, 0)) if isinstance(x, Neighbour)]

    def _dump(self, command: int, body: bytes) -> list[Placed | Link | Neighbour]:
        return [x for kind, content in self.listed(command, body) if (x := parse(kind, content)) is not None]

    def listed(self, command: int, body: bytes) -> list[tuple[int, bytes]]:
        """The kernel's whole list, as type and body of each message; one that others changed while it was read is read
        again."""
        for _ in range(DUMPS_MAX):
            found, whole = self._listed_once(command, body)
            if whole:
                break
        return found

    def _listed_once(self, command: int, body: bytes) -> tuple[list[tuple[int, bytes]], bool]:
        self._sequence += 1
        wanted = self._sequence
        header = HEADER.pack(HEADER.size + len(body), command, NLM_F_REQUEST | NLM_F_DUMP, wanted, 0)
        self._socket.send(header + body)
        found: list[tuple[int, bytes]] = []
        whole = True
        while True:
            datagram = self._socket.recv(RECEIVE_BYTES)
            whole = whole and not interrupted(datagram)
            for kind, sequence, content in messages(datagram):
                if sequence != wanted:
                    continue
                if kind == NLMSG_DONE:
                    return found, whole
                if kind == NLMSG_ERROR and len(content) >= 4:
                    code = -struct.unpack_from("=i", content)[0]
                    raise NetlinkError(code, os.strerror(code))
                found.append((kind, content))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Notifications:
    """A socket subscribed to links and addresses; non-blocking."""

    def __init__(self) -> None:
        self._socket = _open(GROUPS)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._socket.fileno()

    def read(self) -> list[Notice] | None:
        """What came, or None when the kernel dropped some (ENOBUFS): look at everything again."""
        found: list[Notice] = []
        for _ in range(64):
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as wrong:
                if wrong.errno == errno.ENOBUFS:
                    return None
                raise
            for kind, _, body in messages(data):
                what = parse(kind, body)
                if isinstance(what, Placed | Link):
                    found.append(Notice(kind, what))
        return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _open(groups: int) -> socket.socket:
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        try:
            s.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        except PermissionError:
            break  # without CAP_NET_ADMIN the default must do; ENOBUFS is handled
    s.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    s.bind((0, groups))
    return s
