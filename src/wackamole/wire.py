"""Messages as bytes, and back. MessagePack by msgspec, which checks every field; above COMPRESS_FROM zlib.

    frame := version (1 byte) · flags (1 byte; 1: zlib) · body
    body  := [view, message], the message as a map with its type under "t"

Members of two versions live in one group while a cluster is upgraded. So a message is only ever extended, by fields that
have a default: who does not know a field leaves it out. A reason that is not known is NotEligible.OTHER or Cause.OTHER. A new
kind of message is said only where every member's Report says, by a field of its own, that it is understood: what is dropped is
not counted by whoever dropped it, and tables are compared by such counts. What else agreed tables are made of is the same in
both versions, or PLACEMENT_VERSION differs. tests/test_versions.py holds us to it; VERSION changes when that cannot be kept.

Whatever comes from the wire is bounded before it is decoded; anything that is not a message of ours raises WireError
with a sentence, and nothing else is ever raised.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sized
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, assert_never, get_args

import msgspec

from .advice import NEIGHBOURS_MAX, SEGMENTS_MAX, Arrived, Neighbours
from .core import messages as say
from .core.damping import JOINS_MAX
from .core.model import (
    BLOCKED_MAX,
    MEMBERS_MAX,
    NOTE_BYTES_MAX,
    ROW_ADDRESSES_MAX,
    ROWS_MAX,
    VIPS_MAX,
    VOTES_MAX,
    WEIGHT_MAX,
    Address,
    Report,
    Row,
    Table,
    ViewId,
    Vip,
)
from .core.shares import LOAD_MAX
from .core.standing import BY_MAX, ORDERS_MAX, REASON_MAX, UNTIL_S_MAX, VERSION_MAX, Kind, Order
from .engine.contract import PAYLOAD_BYTES_MAX, SEAL_BYTES_MAX

VERSION = 1
COMPRESSED = 1
COMPRESS_FROM = 8192
BODY_BYTES_MAX = 16 << 20
TEXT_MAX = 512
RESTART_MS_MAX = 60_000
LEASE_MS_MAX = 3_600_000
ROUNDS_MAX = 2**31
COUNT_MAX = 2**53
NODE_MAX = 2**32 - 1
INCARNATION_MAX = 2**64 - 1
NAME = re.compile(r"[\x21-\x22\x24-\x7e]{1,63}\Z")
"""A node's or VIP's: printable, without blanks, and without the # that keys have."""
KEY = re.compile(r"[\x21-\x22\x24-\x7e]{1,63}#[0-9a-f]{12}\Z")
INTERFACE = re.compile(r"[^\s/]{1,15}\Z")
ELECTORATES_MAX = 64

Message = say.Message | Neighbours | Arrived

_BY_NAME: dict[str, type] = {kind.__name__: kind for kind in get_args(Message)}
_NAMES: dict[type, str] = {kind: name for name, kind in _BY_NAME.items()}
_ENCODER = msgspec.msgpack.Encoder()
_OUTER = msgspec.msgpack.Decoder(tuple[ViewId, str, msgspec.Raw])
_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(kind) for name, kind in _BY_NAME.items()
}


class WireError(Exception):
    """These bytes are no message of ours; the sentence says why."""


def encode(view: ViewId, message: Message) -> bytes:
    """A payload for the engine. ValueError if the message is too large for it."""
    body = _ENCODER.encode((view, _NAMES[type(message)], message))
    flags = 0
    if len(body) >= COMPRESS_FROM:
        body, flags = zlib.compress(body, 1), COMPRESSED
    if len(body) + 2 > PAYLOAD_BYTES_MAX - SEAL_BYTES_MAX:
        raise ValueError(f"a {type(message).__name__} of {len(body)} bytes does not fit into a message")
    return bytes((VERSION, flags)) + body


def decode(payload: bytes) -> tuple[ViewId, Message]:
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
        message: Message = _DECODERS[name].decode(rest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise WireError(f"not a message: {wrong}") from None
    _check_count("view", view.node)
    _check_count("view", view.seq)
    _check_count("view", view.change)
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


def _check(message: Message) -> None:
    """What the types cannot say: addresses must be addresses, texts short, lists no longer and numbers no greater than
    anybody of ours makes them. What grows by one at a time stays far below what MessagePack can carry."""
    match message:
        case say.StateMessage():
            _check_number("round", message.round, 1, ROUNDS_MAX)
            _check_report(message.report)
            _check_length("VIPs known", message.known, 2 * VIPS_MAX)  # its own, and those that it holds still
            _check_length("VIPs held", message.held, ROWS_MAX)
            _check_length("VIPs on their way out", message.releasing, ROWS_MAX)
            _check_length("evicted members", message.evicted, MEMBERS_MAX)
            _check_length("blocked VIPs", message.blocked, BLOCKED_MAX)
            _check_length("lapsing members", message.lapsing, MEMBERS_MAX)
            _check_orders(message.orders)
            _check_length("members that came", message.joins, MEMBERS_MAX)
            for node, times in message.joins:
                _check_node(node)
                _check_number("number of joins", times, 0, JOINS_MAX)
            for known in message.known:
                _check_count("generation", known.generation)
            _check_vips(known.vip for known in message.known)
            _check_keys(*message.held, *message.releasing, *(key for key, _ in message.blocked))
            for node, incarnation in message.evicted:
                _check_member(node, incarnation)
            for _, node in message.blocked:
                _check_node(node)
            for node, incarnation, wait_ms in message.lapsing:
                _check_member(node, incarnation)
                _check_number("lease", wait_ms, 0, LEASE_MS_MAX)
        case say.Attributes():
            _check_report(message.report)
            _check_length("new VIPs", message.new, VIPS_MAX)
            _check_vips(message.new)
        case say.Moves():
            _check_length("moves", message.moves, ROWS_MAX)
            for move in message.moves:
                _check_keys(move.key)
                _check_node(move.holder, move.to)
                _check_count("generation", move.generation)
        case say.Released():
            _check_length("released VIPs", message.released, ROWS_MAX)
            for key, generation in message.released:
                _check_keys(key)
                _check_count("generation", generation)
        case say.Restart():
            _check_number("restart", message.bound_ms, 0, RESTART_MS_MAX)
            _check_count("time", message.sent_ms)
        case say.Failed():
            _check_keys(message.key)
            _check_count("generation", message.generation)
            _check_text(message.reason)
        case say.Beat():
            _check_count("number of a beat", message.number)
            _check_count("number of messages", message.applied)
            _check_count("time", message.sent_ms)
            _check_text(message.digest)
        case say.Assign():
            _check_length("assigned VIPs", message.assigned, ROWS_MAX)
            for key, generation, node in message.assigned:
                _check_keys(key)
                _check_count("generation", generation)
                _check_node(node)
        case say.Evict():
            _check_member(message.node, message.incarnation)
            _check_count("number of messages", message.heard)
            _check_number("round", message.round, 0, ROUNDS_MAX)
        case say.Lapsed():
            _check_member(message.node, message.incarnation)
        case say.Drain():
            _check_node(message.node)
        case say.Witnessed():
            _check_keys(message.key)
            _check_count("generation", message.generation)
        case say.Note():
            _check_length("bytes of a note", message.body, NOTE_BYTES_MAX)
        case say.Unstick():
            _check_length("characters of a name", message.by, BY_MAX)
        case say.Ordered():
            _check_orders(message.wishes)
        case say.Adopt():
            _check_length("rows", message.rows, ROWS_MAX)
            _check_vips(row.vip for row in message.rows)
            for row in message.rows:
                _check_row(row)
        case Arrived():
            _check_length("VIPs that arrived", message.vips, ROWS_MAX)
            _check_keys(*message.vips)
        case Neighbours():
            _check_length("segments", message.segments, SEGMENTS_MAX)
            _check_number("number of neighbours", sum(len(s.known) for s in message.segments), 0, NEIGHBOURS_MAX)
            for segment in message.segments:
                _check_ip(segment.vip)
                for ip, mac in segment.known:
                    if len(ip) not in (4, 16) or len(mac) != 6:
                        raise WireError(f"{ip[:16].hex()} {mac[:16].hex()} is no neighbour")
        case _:
            assert_never(message)


def _check_report(report: Report) -> None:
    _check_member(report.node, report.incarnation)
    _check_name(report.name)
    _check_length("nodes", report.nodes, MEMBERS_MAX)
    for name in report.nodes:
        _check_name(name)
    _check_text(report.version, report.config_digest)
    _check_length("VIPs known", report.known, VIPS_MAX)
    _check_length("reasons", report.ineligible, 2 * VIPS_MAX)
    _check_length("VIPs that it was chosen for", report.chosen, VIPS_MAX)
    _check_keys(*report.known, *report.chosen, *(key for key, _ in report.ineligible))
    _check_number("weight", report.weight, 0, WEIGHT_MAX)
    _check_number("lease", report.lease_ms, 0, LEASE_MS_MAX)
    _check_number("load", report.load or 0, 0, LOAD_MAX)
    _check_number("capacity", report.capacity or 0, 0, ROW_ADDRESSES_MAX)
    _check_number("restart", report.restart_ms, 0, RESTART_MS_MAX)
    _check_number("component", report.component, 0, MEMBERS_MAX)
    _check_count("version of placement", report.placement_version)
    _check_length("electorates", report.electorates, ELECTORATES_MAX)
    for votes in (report.votes, *(electorate.votes for electorate in report.electorates)):
        _check_length("votes", votes, MEMBERS_MAX)
        for name, number in votes:
            _check_name(name)
            _check_number("number of votes", number, 0, VOTES_MAX)
    for electorate in report.electorates:
        _check_count("epoch of an electorate", electorate.epoch)


def table_text(table: Table) -> str:
    """A table as JSON."""
    return msgspec.json.encode(table).decode()


def table_from(text: str) -> Table:
    """Back again. Raises WireError."""
    try:
        return msgspec.json.decode(text, type=Table)
    except msgspec.MsgspecError as wrong:
        raise WireError(f"this is no table: {wrong}") from None


def plain_orders(orders: tuple[Order, ...]) -> object:
    """Orders as JSON has them."""
    return msgspec.to_builtins(orders)


def orders_from(plain: object) -> tuple[Order, ...]:
    """Back again. Raises WireError."""
    try:
        orders = msgspec.convert(plain, tuple[Order, ...])
    except msgspec.ValidationError as wrong:
        raise WireError(f"these are no orders: {wrong}") from None
    _check_orders(orders)
    return orders


def _check_orders(orders: tuple[Order, ...]) -> None:
    _check_length("orders", orders, ORDERS_MAX)
    for order in orders:
        _check_order(order)


def _check_order(order: Order) -> None:
    _check_name(order.subject)
    if order.node or (order.kind is Kind.PIN and order.in_force):
        _check_name(order.node)
    _check_number("version of an order", order.version, 0, VERSION_MAX)
    _check_number("time", order.until_s, 0, UNTIL_S_MAX)
    _check_length("characters of a name", order.by, BY_MAX)
    _check_length("characters of a reason", order.reason, REASON_MAX)


def _check_row(row: Row) -> None:
    if row.key != row.vip.key:
        raise WireError(f"row {row.key[:80]!r} has another VIP's key")
    _check_count("generation", row.generation)
    _check_node(*(n for n in (row.holder, row.target, row.previous) if n is not None))
    _check_length("members that release it", row.releasing, MEMBERS_MAX)
    for node, generation in row.releasing:
        _check_node(node)
        _check_count("generation", generation)


def _check_vips(vips: Iterable[Vip]) -> None:
    addresses, interfaces = 0, {""}
    for vip in vips:
        _check_name(vip.name)
        if not vip.addresses:
            raise WireError(f"VIP {vip.name!r} has no address")
        addresses += len(vip.addresses)
        if addresses > ROW_ADDRESSES_MAX:
            raise WireError(f"there are more than {ROW_ADDRESSES_MAX} addresses")
        for address in vip.addresses:
            _check_address(address, interfaces)


def _check_address(address: Address, interfaces: set[str]) -> None:
    """`interfaces`: names that are known to be good, and become so here."""
    longest = _check_ip(address.ip)
    if address.interface not in interfaces:
        _check_text(address.interface)
        if not INTERFACE.match(address.interface):
            raise WireError(f"{address.interface!r} is no interface")
        interfaces.add(address.interface)
    if not 0 <= address.prefix <= longest:
        raise WireError(f"{address.ip} cannot have prefix length {address.prefix}")


def _check_ip(text: str) -> int:
    """Returns how many bits such an address has."""
    _check_text(text)
    if "%" in text:
        raise WireError(f"{text!r}: an address has no interface in it")
    family, bits = (AF_INET6, 128) if ":" in text else (AF_INET, 32)
    try:
        inet_pton(family, text)  # a tenth of what ip_address takes, and there may be 20 000
    except (OSError, ValueError):
        raise WireError(f"{text!r} is not an address") from None
    return bits


def _check_name(name: str) -> None:
    if not NAME.match(name):
        raise WireError(f"{name[:80]!r} is no name")


def _check_keys(*keys: str) -> None:
    for key in keys:
        if not KEY.match(key):
            raise WireError(f"{key[:80]!r} is no VIP's key")


def _check_text(*texts: str) -> None:
    for text in texts:
        if len(text) > TEXT_MAX:
            raise WireError(f"a text of {len(text)} characters is too long")


def _check_length(what: str, listed: Sized, most: int) -> None:
    if len(listed) > most:
        raise WireError(f"{len(listed)} {what} are more than {most}")


def _check_number(what: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise WireError(f"a {what} of {number} is not from {least} to {most}")


def _check_count(what: str, number: int) -> None:
    _check_number(what, number, 0, COUNT_MAX)


def _check_node(*nodes: int) -> None:
    for node in nodes:
        _check_number("node number", node, 1, NODE_MAX)


def _check_member(node: int, incarnation: int) -> None:
    _check_node(node)
    _check_number("incarnation", incarnation, 0, INCARNATION_MAX)
