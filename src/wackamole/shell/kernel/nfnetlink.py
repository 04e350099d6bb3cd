"""nf_tables over nfnetlink, as far as the fence needs it (linux/netfilter/nf_tables.h, nfnetlink.h).

Spoken by hand because the owner of a table is a *socket*: the kernel removes what it owns when the last descriptor of it
closes, so its number and its life must be ours (hazard 5), and a renewal or a look must cost microseconds. Everything is
one batch, so a change is made whole or not at all. A batch waits for nftables' commit lock, which a large firewall
reload holds for some 0.4 s: nothing here is on the path of a take-over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import struct
import threading
from collections.abc import Iterable, Iterator

NETLINK_NETFILTER = 12
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 1, 10, 11
NFNLGRP_NFTABLES = 7
SUBSYSTEM = 10 << 8
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, GETTABLE, DELTABLE = SUBSYSTEM | 0, SUBSYSTEM | 1, SUBSYSTEM | 2
NEWCHAIN, GETCHAIN, NEWRULE = SUBSYSTEM | 3, SUBSYSTEM | 4, SUBSYSTEM | 6
NEWSET, NEWSETELEM, GETSETELEM, DELSETELEM = SUBSYSTEM | 9, SUBSYSTEM | 12, SUBSYSTEM | 13, SUBSYSTEM | 14
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND, NLM_F_DUMP, NLM_F_DUMP_INTR = 1, 4, 0x400, 0x800, 0x300, 0x10
NFPROTO_NETDEV = 5
OWNER, PERSIST = 2, 4  # NFT_TABLE_F_*
SET_TIMEOUT, SET_EVAL = 0x10, 0x20
TYPE_IPV4, TYPE_IPV6, TYPE_IFINDEX = 7, 8, 20  # only for people who list the ruleset
REGISTER, VERDICT_REGISTER = 1, 0
META_PROTOCOL, META_MARK, META_IIF, META_OIF = 1, 3, 4, 5
BASE_NETWORK = 1
DYNSET_UPDATE, DYNSET_DELETE = 1, 2
FIB_SADDR, FIB_DADDR, FIB_IIF = 1, 2, 8
FIB_ADDRTYPE, RTN_LOCAL = 3, 2
DROP, ACCEPT = 0, 1

HIGH_DESCRIPTOR = 512
"""The owner's descriptor is at least this (hazard 5): the kernel closes the highest numbers first."""
ELEMENTS_MAX = 500
"""Elements in one message; a netlink attribute is at most 64 KiB."""
DUMPS_MAX = 5
"""A list that somebody changed while it was read is read again, so often at most."""

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("!BBH")


class NftablesError(OSError):
    """The kernel refused a change or a look; `errno` says why. `at`: which message of the batch, if it was one of them."""

    def __init__(self, code: int, at: int | None = None) -> None:
        super().__init__(code, os.strerror(code))
        self.at = at


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(content), kind) + content + b"\0" * (-len(content) % 4)


def nested(kind: int, *contents: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | 0x8000, b"".join(contents))


def text(kind: int, content: str) -> bytes:
    """A text with its zero."""
    return attribute(kind, content.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """32 bits, big endian, as nf_tables has all its numbers."""
    return attribute(kind, struct.pack("!I", value))


def long(kind: int, value: int) -> bytes:
    """64 bits, big endian: times in milliseconds."""
    return attribute(kind, struct.pack("!Q", value))


# -- expressions of a rule ------------------------------------------------------------------------------------------------


def _expression(name: str, *contents: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *contents))


def _value(kind: int, content: bytes) -> bytes:
    return nested(kind, attribute(1, content))


def meta(key: int) -> bytes:
    """Load a fact about the packet."""
    return _expression("meta", number(2, key), number(1, REGISTER))


def set_mark() -> bytes:
    """Make the register the packet's mark."""
    return _expression("meta", number(2, META_MARK), number(3, REGISTER))


def payload(base: int, offset: int, length: int) -> bytes:
    """Load bytes of the packet."""
    return _expression("payload", number(1, REGISTER), number(2, base), number(3, offset), number(4, length))


def equals(content: bytes) -> bytes:
    """Go on only if the register has these bytes."""
    return _expression("cmp", number(1, REGISTER), number(2, 0), _value(3, content))


def mask_and_flip(mask: int, flip: int) -> bytes:
    """register = register & mask ^ flip, on the 32 bits of a mark (host order)."""
    return _expression(
        "bitwise",
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, 4),
        _value(4, struct.pack("=I", mask)),
        _value(5, struct.pack("=I", flip)),
    )


def lookup(name: str) -> bytes:
    """Go on only if the register is in the set."""
    return _expression("lookup", text(1, name), number(2, REGISTER))


def fib_type(flags: int) -> bytes:
    """Load what kind of address the packet's source or destination is to this host (RTN_LOCAL, …; host order)."""
    return _expression("fib", number(1, REGISTER), number(2, FIB_ADDRTYPE), number(3, flags))


def change_element(name: str, operation: int, timeout_ms: int = 0) -> bytes:
    """Renew, or remove, the register's element of a set."""
    timeout = (long(6, timeout_ms),) if timeout_ms else ()
    return _expression("dynset", text(1, name), number(3, operation), number(4, REGISTER), *timeout)


def verdict(code: int) -> bytes:
    """Drop or accept."""
    return _expression("immediate", number(1, VERDICT_REGISTER), nested(2, nested(2, number(1, code))))


# -- objects ----------------------------------------------------------------------------------------------------------------

Message = tuple[int, int, int, bytes]
"""Type, flags, family, attributes."""


def table(family: int, name: str, flags: int = 0) -> Message:
    """Create a table."""
    return NEWTABLE, NLM_F_CREATE, family, text(1, name) + number(2, flags)


def no_table(family: int, name: str) -> Message:
    """Delete a table with all it has; ENOENT if there is none."""
    return DELTABLE, 0, family, text(1, name)


def anew(family: int, name: str, flags: int = 0) -> tuple[Message, ...]:
    """A table, empty and ours, whatever was there: fresh, ours, or orphaned."""
    return table(family, name, flags), no_table(family, name), table(family, name, flags)


def chain(family: int, table_name: str, name: str, hook: int, priority: int, device: str = "") -> Message:
    """A base chain of type filter that accepts what no rule decides."""
    where = number(1, hook) + number(2, priority & 0xFFFFFFFF) + (text(3, device) if device else b"")
    body = text(1, table_name) + text(3, name) + nested(4, where) + number(5, ACCEPT) + text(7, "filter")
    return NEWCHAIN, NLM_F_CREATE, family, body


def rule(family: int, table_name: str, chain_name: str, *expressions: bytes) -> Message:
    """A rule at the end of a chain."""
    body = text(1, table_name) + text(2, chain_name) + nested(4, *expressions)
    return NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, body


def make_set(
    family: int, table_name: str, name: str, number_in_batch: int, kind: int, length: int, *, timeout_ms: int = 0
) -> Message:
    """A set; with a timeout its elements end by themselves, and rules may renew them."""
    flags = SET_TIMEOUT | SET_EVAL if timeout_ms else 0
    body = text(1, table_name) + text(2, name) + number(3, flags) + number(4, kind) + number(5, length)
    body += number(10, number_in_batch)
    if timeout_ms:
        body += long(11, timeout_ms) + number(12, 1000)
    return NEWSET, NLM_F_CREATE, family, body


def elements(family: int, table_name: str, name: str, keys: Iterable[bytes], *, remove: bool = False) -> list[Message]:
    """Add or remove elements, in messages that fit."""
    rest = list(keys)
    found: list[Message] = []
    for start in range(0, len(rest), ELEMENTS_MAX):
        listed = (nested(1, _value(1, key)) for key in rest[start : start + ELEMENTS_MAX])
        body = text(1, table_name) + text(2, name) + nested(3, *listed)
        kind = DELSETELEM if remove else NEWSETELEM
        found.append((kind, 0 if remove else NLM_F_CREATE, family, body))
    return found


def no_elements(family: int, table_name: str, name: str) -> Message:
    """Remove every element of a set."""
    return DELSETELEM, 0, family, text(1, table_name) + text(2, name)


def timed_element(family: int, table_name: str, name: str, key: bytes, timeout_ms: int) -> Message:
    """Add an element that ends after so many milliseconds."""
    body = text(1, table_name) + text(2, name) + nested(3, nested(1, _value(1, key), long(4, timeout_ms)))
    return NEWSETELEM, NLM_F_CREATE, family, body


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """A body's attributes as (kind, content), in order; stops at the first that does not fit."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4 or offset + length > len(data):
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a body, the last of each kind."""
    return dict(each_attribute(data))


def listed(data: bytes) -> list[bytes]:
    """The contents of a list."""
    return [content for kind, content in each_attribute(data) if kind == 1]


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """A datagram's messages as (type, flags, sequence, body); stops at the first that does not fit."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


# -- sockets ------------------------------------------------------------------------------------------------------------------


class Nftables:
    """A socket that asks and changes; `high`: one that may own tables, above every engine's descriptors."""

    def __init__(self, *, high: bool = False, descriptor: int | None = None) -> None:
        if descriptor is not None:  # a former process's, which owns tables
            os.set_inheritable(descriptor, False)
            self._socket = socket.socket(fileno=descriptor)
        else:
            self._socket = _open()
            if high:
                self._socket = raised(self._socket)
        self._sequence = 0
        self._turn = threading.Lock()  # one question at a time: answers go to whoever reads

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def commit(self, messages: Iterable[Message]) -> None:
        """Make all changes, or none: NftablesError with the first reason."""
        with self._turn:
            self._commit(messages)

    def _commit(self, messages: Iterable[Message]) -> None:
        first = self._sequence + 1
        parts = [_pack(BATCH_BEGIN, NLM_F_REQUEST, first, 0, b"", resource_id=10)]
        count = first
        for kind, flags, family, body in messages:
            count += 1
            parts.append(_pack(kind, NLM_F_REQUEST | NLM_F_ACK | flags, count, family, body))
        last = count
        parts.append(_pack(BATCH_END, NLM_F_REQUEST, count + 1, 0, b"", resource_id=10))
        self._sequence = count + 1
        if last == first:
            return
        self._socket.send(b"".join(parts))
        wrong: NftablesError | None = None
        while True:
            for kind, _, sequence, body in split(self._socket.recv(1 << 20)):
                if kind != NLMSG_ERROR or len(body) < 4 or not first <= sequence <= last + 1:
                    continue
                code = -struct.unpack_from("=i", body)[0]
                if code and wrong is None:
                    wrong = NftablesError(code, sequence - first - 1 if first < sequence <= last else None)
                if sequence == last or (code and sequence in (first, last + 1)):
                    if wrong is not None:
                        raise wrong
                    return

    def ask(self, kind: int, family: int, body: bytes, *, dump: bool = False) -> list[bytes]:
        """The bodies of the answer; [] where there is no such thing."""
        with self._turn:
            for _ in range(DUMPS_MAX):
                found, whole = self._ask(kind, family, body, NLM_F_DUMP if dump else NLM_F_ACK)
                if whole:
                    break
        return found

    def _ask(self, kind: int, family: int, body: bytes, flags: int) -> tuple[list[bytes], bool]:
        self._sequence += 1
        wanted = self._sequence
        self._socket.send(_pack(kind, NLM_F_REQUEST | flags, wanted, family, body))
        found: list[bytes] = []
        whole = True
        while True:
            for answer, seen, sequence, content in split(self._socket.recv(1 << 20)):
                if sequence != wanted:
                    continue
                whole = whole and not seen & NLM_F_DUMP_INTR
                if answer == NLMSG_DONE:
                    return found, whole
                if answer == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    if code in (0, errno.ENOENT):
                        return found, whole
                    raise NftablesError(code)
                found.append(content[_FAMILY.size :])

    def close(self) -> None:
        """Close it: the kernel removes what it owned."""
        self._socket.close()


class Changes:
    """A socket that is told when anybody changes nftables; non-blocking."""

    def __init__(self) -> None:
        self._socket = _open()
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Read what came; what it was does not matter, whoever asks looks at the tables."""
        for _ in range(256):
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as wrong:
                if wrong.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def high_descriptor() -> int:
    """The least number for a descriptor that is to be closed before others: HIGH_DESCRIPTOR, if the process may have it."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return HIGH_DESCRIPTOR if limit == resource.RLIM_INFINITY else min(HIGH_DESCRIPTOR, limit - 32)


def raised(low: socket.socket) -> socket.socket:
    """The same socket under a high descriptor; the low one is closed."""
    high = fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, high_descriptor())
    low.close()
    return socket.socket(fileno=high)


def _pack(kind: int, flags: int, sequence: int, family: int, body: bytes, *, resource_id: int = 0) -> bytes:
    body = _FAMILY.pack(family, 0, resource_id) + body
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body + b"\0" * (-len(body) % 4)


def _open() -> socket.socket:
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    for option in (32, 33):  # SO_SNDBUFFORCE, SO_RCVBUFFORCE
        try:
            s.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        except PermissionError:
            break
    s.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    s.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    s.bind((0, 0))
    return s
