"""The protocol between a Spread client and its daemon, as bytes: no socket, no clock.

A handshake of three steps, then messages: a header of 48 bytes, names of 32 bytes each, a body. Two marks say the byte
order: one in `type` for the header and for what the daemon itself writes into bodies, one in `hint` for the mess_type of
the message's sender. Names are bytes; here they are text, one character per byte (Latin-1).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Literal

VERSION = (4, 4, 0)
"""What a client of this protocol calls itself; daemons from 4.0 to 5.0 answer it alike."""
DAEMON_MAJOR_MIN = 4
"""Older daemons have other bodies of memberships."""

PRIVATE_NAME_MAX, GROUP_NAME_MAX, NAME_BYTES = 10, 31, 32
CHOICE_BYTES, METHOD_BYTES = 90, 30
METHODS = ("NULL", "IP")
"""Ways to be let in that a client needs no secret for."""

DESTINATIONS_MAX = 43
"""With more, a daemon takes the message and delivers it to nobody."""
BODY_BYTES_MAX = 256_000
"""Of a message to us; what is longer is passed over."""
MEMBERS_MAX = 4096
"""Of a group. A message that names more is no membership that could be meant for us."""

UNRELIABLE, RELIABLE, FIFO, CAUSAL, AGREED, SAFE = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
SELF_DISCARD = 0x40
JOIN, LEAVE, KILL = 0x10000, 0x20000, 0x40000
_REGULAR, _CAUSES, _MEMBERSHIP, _TRANSITION, _REJECT = 0x3F, 0xF00, 0x1000, 0x2000, 0x400000

_MARK = 0x80000080
_HEADER_BYTES = 48
_DESTINATIONS_TAKEN = 100  # what a daemon lets through

ByteOrder = Literal["little", "big"]
_HEADER = {"little": struct.Struct("<I32siIi"), "big": struct.Struct(">I32siIi")}
_WORD = {"little": struct.Struct("<i"), "big": struct.Struct(">i")}
_GROUP_ID = {"little": struct.Struct("<iii"), "big": struct.Struct(">iii")}
_SETS = {"little": struct.Struct("<iiiII"), "big": struct.Struct(">iiiII")}
_COUNT = {"little": struct.Struct("<I"), "big": struct.Struct(">I")}


class SpreadError(Exception):
    """What came is not this protocol, or not a version of it that is spoken here; the connection is of no use."""


class Refused(SpreadError):
    """The daemon does not let us in; `code` is its number."""

    def __init__(self, code: int) -> None:
        super().__init__(
            f"the Spread daemon refuses the connection: {REASONS.get(code, 'for a reason unknown here')} ({code})"
        )
        self.code = code


REASONS = {
    -3: "it has too many connections",
    -4: "no private name was given",
    -5: "the private name is not allowed",
    -6: "the private name is in use on this daemon",
    -7: "it does not serve clients of this version",
    -9: "it does not allow this client by any method that needs no secret",
}


class Cause(Enum):
    """Why a group's membership changed."""

    JOIN = 0x100
    LEAVE = 0x200
    DISCONNECT = 0x400
    NETWORK = 0x800


@dataclass(frozen=True, slots=True)
class Regular:
    """A message that a client sent."""

    sender: str
    groups: tuple[str, ...]
    service: int
    mess_type: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Membership:
    """The members of a group after a change, in an order that is the same everywhere. `sets`: who came along together (of
    a change of the network), or the one member that joined or left; `mine` is the receiver's own of them."""

    group: str
    cause: Cause
    members: tuple[str, ...]
    group_id: tuple[int, int, int]
    sets: tuple[tuple[str, ...], ...]
    mine: int


@dataclass(frozen=True, slots=True)
class Transition:
    """From here to the next membership of this group, messages may not have reached everybody in it. The id is that of
    the membership that ends."""

    group: str
    group_id: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SelfLeave:
    """The receiver has left the group."""

    group: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The daemon's access policy forbids what was asked for; `service` is what it was."""

    service: int
    groups: tuple[str, ...]


Message = Regular | Membership | Transition | SelfLeave | Rejected


# -- from client to daemon ----------------------------------------------------------------------------------------------


def is_name(text: str, most: int) -> bool:
    """Whether a text may be a private name or group name; the daemon itself does not look at groups' names."""
    return 0 < len(text) <= most and all("$" <= letter <= "~" for letter in text)


def connect_bytes(
    name: str, version: tuple[int, int, int] = VERSION, *, priority: int = 0, membership: bool = True
) -> bytes:
    """The first message; it must leave in one write. Without a `name` the daemon invents one."""
    raw = name.encode("latin-1")
    return bytes((*version, priority << 4 | membership, len(raw))) + raw


def choice_bytes(*methods: str) -> bytes:
    """How to be let in; it must leave in one write."""
    return b"".join(m.encode().ljust(METHOD_BYTES, b"\0") for m in methods).ljust(CHOICE_BYTES, b"\0")


def message_bytes(
    service: int,
    sender: str,
    groups: tuple[str, ...],
    body: bytes = b"",
    mess_type: int = 0,
    order: ByteOrder = "little",
) -> bytes:
    """A message, or a join, leave or kill (KILL names the sender's own private group)."""
    if len(groups) > DESTINATIONS_MAX:
        raise ValueError(f"a message to {len(groups)} groups would reach none; at most {DESTINATIONS_MAX}")
    mark = _MARK if order == "little" else 0
    hint = (mess_type & 0xFFFF) << 8 | mark
    header = _HEADER[order].pack(service | mark, sender.encode("latin-1"), len(groups), hint, len(body))
    return header + b"".join(g.encode("latin-1").ljust(NAME_BYTES, b"\0") for g in groups) + body


# -- from daemon to client ----------------------------------------------------------------------------------------------


class Handshake:
    """What is said before the first message. Send `start` first, then whatever `receive` returns, each in one write."""

    def __init__(self, name: str) -> None:
        self.start = connect_bytes(name)
        self.private_group: str | None = None
        """Set when the daemon has let us in."""
        self.version = (0, 0, 0)
        self.rest = b""
        """What came after the handshake."""
        self._chosen = False
        self._came = b""

    def receive(self, came: bytes) -> bytes:
        """Bytes to send now, often none. Raises Refused, or SpreadError for what is no Spread daemon."""
        self._came += came
        if not self._chosen:
            return self._choose()
        self._accept()
        return b""

    def _choose(self) -> bytes:
        if not self._came:
            return b""
        count = self._came[0]
        if count > 127:
            raise Refused(count - 256)
        if len(self._came) < 1 + count:
            return b""
        if count == 0:
            raise Refused(-9)
        offered = self._came[1 : 1 + count].decode("latin-1").split()
        method = next((m for m in METHODS if m in offered), None)
        if method is None:
            raise SpreadError(f"the Spread daemon lets clients in only by {' or '.join(offered)[:90] or 'nothing'}")
        self._came = self._came[1 + count :]
        self._chosen = True
        self._accept()
        return choice_bytes(method)

    def _accept(self) -> None:
        came = self._came
        if not came:
            return
        if came[0] > 127:
            raise Refused(came[0] - 256)
        if came[0] != 1:
            raise SpreadError(f"this is no Spread daemon: it answers {came[0]}")
        if len(came) < 5 or len(came) < 5 + came[4]:
            return
        self.version = (came[1], came[2], came[3])
        if came[1] < DAEMON_MAJOR_MIN:
            raise SpreadError(
                f"Spread {came[1]}.{came[2]}.{came[3]} is too old: {DAEMON_MAJOR_MIN}.0 or later is needed"
            )
        if not 0 < came[4] < NAME_BYTES:
            raise SpreadError(f"this is no Spread daemon: it gives a name of {came[4]} bytes")
        self.private_group = came[5 : 5 + came[4]].decode("latin-1")
        self.rest = came[5 + came[4] :]
        self._came = b""


class Decoder:
    """Messages from a stream of bytes that is cut anywhere. It keeps at most one message more than it is fed."""

    def __init__(self) -> None:
        self._came = bytearray()
        self._pass_over = 0
        self.passed_over = 0
        """Messages too large for us."""

    @property
    def waiting(self) -> int:
        """Bytes that wait to be decoded."""
        return len(self._came)

    def feed(self, came: bytes) -> None:
        """More of the stream."""
        self._came += came

    def next(self) -> Message | None:
        """The next whole message, or None. Raises SpreadError for what is none."""
        while True:
            if self._pass_over:
                taken = min(self._pass_over, len(self._came))
                del self._came[:taken]
                self._pass_over -= taken
            if self._pass_over or len(self._came) < _HEADER_BYTES:
                return None
            order = _byte_order(self._came)
            kind, name, names, hint, length = _HEADER[order].unpack_from(self._came)
            kind &= ~_MARK
            most = MEMBERS_MAX if not kind & (_REGULAR | _REJECT) and kind & _MEMBERSHIP else _DESTINATIONS_TAKEN
            if not 0 <= names <= most:
                raise SpreadError(f"a message with {names} names")
            if length < 0:
                raise SpreadError(f"a message of {length} bytes")
            more = 4 if kind & _REJECT else 0
            start = _HEADER_BYTES + more + NAME_BYTES * names
            if length > BODY_BYTES_MAX:
                if kind & _MEMBERSHIP and not kind & _REGULAR:
                    raise SpreadError(f"a membership of {length} bytes")
                self.passed_over += 1
                self._pass_over = start + length
                continue
            if len(self._came) < start + length:
                return None
            head = bytes(self._came[:start])
            body = bytes(self._came[start : start + length])
            del self._came[: start + length]
            found = _message(order, kind, _text(name), head, names, hint, body)
            if found is not None:
                return found


def _byte_order(came: bytearray) -> ByteOrder:
    marks = (came[0] >> 7, came[3] >> 7)
    if marks == (1, 1):
        return "little"
    if marks == (0, 0):
        return "big"
    raise SpreadError("a header without a byte order")


def _text(raw: bytes) -> str:
    """A name ends at its first zero; what is behind it means nothing."""
    return raw.partition(b"\0")[0].decode("latin-1")


def _names(raw: bytes, at: int, count: int) -> tuple[str, ...]:
    return tuple(_text(raw[i : i + NAME_BYTES]) for i in range(at, at + NAME_BYTES * count, NAME_BYTES))


def _message(order: ByteOrder, kind: int, name: str, head: bytes, names: int, hint: int, body: bytes) -> Message | None:
    """Regular first: the daemon passes on what a client sets besides (the membership bits, for one)."""
    if kind & _REJECT:
        (service,) = _WORD[order].unpack_from(head, _HEADER_BYTES)
        return Rejected(service & ~_MARK & 0x7FFFFFFF, _names(head, _HEADER_BYTES + 4, names))
    if kind & _REGULAR:
        return Regular(name, _names(head, _HEADER_BYTES, names), kind, _mess_type(hint, order), body)
    if kind & _MEMBERSHIP:
        return _membership(order, kind, name, _names(head, _HEADER_BYTES, names), body)
    if kind & _TRANSITION:
        if len(body) != _GROUP_ID[order].size:
            raise SpreadError(f"a transitional signal of {len(body)} bytes")
        return Transition(name, _GROUP_ID[order].unpack(body))
    if kind & Cause.LEAVE.value:
        return SelfLeave(name)
    return None


def _mess_type(hint: int, order: ByteOrder) -> int:
    """As the sender meant it: the mark in the hint is the sender's own, and the bytes are as it wrote them."""
    raw = _COUNT[order].pack(hint)
    value = int.from_bytes(raw, "little" if raw[0] & raw[3] & 0x80 else "big") >> 8 & 0xFFFF
    return value - 0x10000 if value & 0x8000 else value


def _membership(order: ByteOrder, kind: int, group: str, members: tuple[str, ...], body: bytes) -> Membership:
    try:
        cause = Cause(kind & _CAUSES)
    except ValueError:
        raise SpreadError(f"a membership without one cause ({kind:#x})") from None
    fixed = _SETS[order]
    if len(body) < fixed.size:
        raise SpreadError(f"a membership of {len(body)} bytes")
    one, two, three, count, offset = fixed.unpack_from(body)
    sets: list[tuple[str, ...]] = []
    mine = None
    at = fixed.size
    for _ in range(min(count, MEMBERS_MAX)):
        if at - fixed.size == offset:
            mine = len(sets)
        if len(body) < at + 4:
            raise SpreadError("a membership that is cut short")
        (size,) = _COUNT[order].unpack_from(body, at)
        if size > MEMBERS_MAX or len(body) < at + 4 + NAME_BYTES * size:
            raise SpreadError(f"a membership with a set of {size} that is cut short")
        sets.append(_names(body, at + 4, size))
        at += 4 + NAME_BYTES * size
    if at != len(body) or len(sets) != count or mine is None:
        raise SpreadError(f"a membership of {len(body)} bytes whose {count} sets do not fill it")
    return Membership(group, cause, members, (one, two, three), tuple(sets), mine)
