"""Messages as bytes, and back. MessagePack by msgspec, which checks every field; above COMPRESS_FROM zlib.

    frame := version (1 byte) · flags (1 byte; 1: zlib) · body
    body  := [view, message], the message as a map with its type under "t"

Whatever comes from the wire is bounded before it is decoded; anything that is not a message of ours raises WireError
with a sentence, and nothing else is ever raised.
"""

from __future__ import annotations

import zlib
from ipaddress import ip_address
from typing import Any, get_args

import msgspec

from .core import messages as say
from .core.model import Address, Report, ViewId, Vip
from .engine.contract import PAYLOAD_BYTES_MAX

VERSION = 1
COMPRESSED = 1
COMPRESS_FROM = 8192
BODY_BYTES_MAX = 16 << 20
TEXT_MAX = 512
WEIGHT_MAX = 1000
VOTES_MAX = 1000
RESTART_MS_MAX = 60_000
ELECTORATES_MAX = 64

_BY_NAME: dict[str, type] = {kind.__name__: kind for kind in get_args(say.Message)}
_NAMES: dict[type, str] = {kind: name for name, kind in _BY_NAME.items()}
_ENCODER = msgspec.msgpack.Encoder()
_OUTER = msgspec.msgpack.Decoder(tuple[ViewId, str, msgspec.Raw])
_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(kind) for name, kind in _BY_NAME.items()
}


class WireError(Exception):
    """These bytes are no message of ours; the sentence says why."""


def encode(view: ViewId, message: say.Message) -> bytes:
    """A payload for the engine. ValueError if the message is too large for it."""
    body = _ENCODER.encode((view, _NAMES[type(message)], message))
    flags = 0
    if len(body) >= COMPRESS_FROM:
        body, flags = zlib.compress(body, 1), COMPRESSED
    if len(body) + 2 > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a {type(message).__name__} of {len(body)} bytes does not fit into a message")
    return bytes((VERSION, flags)) + body


def decode(payload: bytes) -> tuple[ViewId, say.Message]:
    """The view a message was sent in, and the message. Raises WireError for anything else."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise WireError(f"{len(payload)} bytes are more than a message may have")
    if len(payload) < 2:
        raise WireError("too short for a message")
    if payload[0] != VERSION:
        raise WireError(f"message format {payload[0]}; this is format {VERSION}")
    if payload[1] not in (0, COMPRESSED):
        raise WireError(f"unknown flags {payload[1]:#04x}")
    body = payload[2:]
    if payload[1] == COMPRESSED:
        body = _inflate(body)
    try:
        view, name, rest = _OUTER.decode(body)
        if name not in _DECODERS:
            raise WireError(f"unknown kind of message {name[:40]!r}")
        message: say.Message = _DECODERS[name].decode(rest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise WireError(f"not a message: {wrong}") from None
    _check(message)
    return view, message


def _inflate(body: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(body, BODY_BYTES_MAX)
    except zlib.error as wrong:
        raise WireError(f"not compressed as it says: {wrong}") from None
    if stream.unconsumed_tail or not stream.eof:
        raise WireError("compressed body is cut short or too large")
    return plain


def _check(message: say.Message) -> None:
    """What the types cannot say: addresses must be addresses, texts short."""
    match message:
        case say.StateMessage():
            for known in message.known:
                _check_vip(known.vip)
            _check_report(message.report)
        case say.Attributes():
            for vip in message.new:
                _check_vip(vip)
            _check_report(message.report)
        case say.Adopt():
            for row in message.rows:
                _check_vip(row.vip)
                if row.key != row.vip.key:
                    raise WireError(f"row {row.key[:80]!r} has another VIP's key")
        case say.Restart():
            _check_restart(message.bound_ms)
        case say.Failed():
            _check_text(message.reason)
        case _:
            pass


def _check_report(report: Report) -> None:
    _check_text(report.name, *report.nodes, report.version)
    for electorate in report.electorates:
        if electorate.epoch < 0:
            raise WireError(f"epoch {electorate.epoch} of an electorate is below 0")
    if len(report.electorates) > ELECTORATES_MAX:
        raise WireError(f"{len(report.electorates)} electorates are more than {ELECTORATES_MAX}")
    for name, votes in (*report.votes, *(pair for e in report.electorates for pair in e.votes)):
        _check_text(name)
        if not 0 <= votes <= VOTES_MAX:
            raise WireError(f"{votes} votes are not from 0 to {VOTES_MAX}")
    _check_restart(report.restart_ms)
    if not 0 <= report.weight <= WEIGHT_MAX:
        raise WireError(f"a weight of {report.weight} is not from 0 to {WEIGHT_MAX}")


def _check_restart(bound_ms: int) -> None:
    if not 0 <= bound_ms <= RESTART_MS_MAX:
        raise WireError(f"a restart within {bound_ms} ms is not from 0 to {RESTART_MS_MAX} ms")


def _check_vip(vip: Vip) -> None:
    _check_text(vip.name)
    if not vip.addresses:
        raise WireError(f"VIP {vip.name!r} has no address")
    for address in vip.addresses:
        _check_address(address)


def _check_address(address: Address) -> None:
    _check_text(address.ip, address.interface)
    try:
        ip = ip_address(address.ip)
    except ValueError:
        raise WireError(f"{address.ip!r} is not an address") from None
    if not 0 <= address.prefix <= ip.max_prefixlen:
        raise WireError(f"{address.ip} cannot have prefix length {address.prefix}")


def _check_text(*texts: str) -> None:
    for text in texts:
        if len(text) > TEXT_MAX:
            raise WireError(f"a text of {len(text)} characters is too long")
