"""Messages as bytes: there and back, and nothing but WireError for whatever else comes in."""

from __future__ import annotations

import random
import zlib
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole import wire
from wackamole.advice import NEIGHBOURS_MAX, SEGMENTS_MAX, Neighbours, Segment
from wackamole.core import messages as say
from wackamole.core import model
from wackamole.core.messages import Adopt, Attributes, Beat, KnownVip, Moves, StateMessage
from wackamole.core.model import (
    BLOCKED_MAX,
    MEMBERS_MAX,
    ROW_ADDRESSES_MAX,
    ROWS_MAX,
    VIPS_MAX,
    Address,
    Electorate,
    NodeId,
    NotEligible,
    Report,
    Row,
    ViewId,
    Vip,
    VipKey,
)
from wackamole.core.shares import LOAD_MAX
from wackamole.core.standing import BY_MAX, ORDERS_MAX, REASON_MAX, VERSION_MAX, Kind, Order
from wackamole.engine.contract import PAYLOAD_BYTES_MAX

VIEW = ViewId(1, 8, 0)
st.register_type_strategy(int, st.integers(0, 2**31))
names = st.text("abz.:-_09~", min_size=1, max_size=20)
nodes = st.integers(1, 2**32 - 1).map(NodeId)
ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
packed_ips = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
macs = st.binary(min_size=6, max_size=6)
interfaces = st.sampled_from(("", "eth0", "br-lan.100", "ä"))
addresses = st.builds(Address, ip=ips, prefix=st.integers(0, 32), interface=interfaces)
vips = st.builds(Vip, name=names, addresses=st.lists(addresses, min_size=1, max_size=3).map(tuple))
votes = st.lists(st.tuples(names, st.integers(0, model.VOTES_MAX)), max_size=3).map(tuple)
electorates = st.builds(Electorate, epoch=st.integers(0, 2**50), votes=votes)
orders = st.builds(
    Order,
    subject=names,
    version=st.integers(0, VERSION_MAX),
    node=names,
    by=st.text(max_size=BY_MAX),
    reason=st.text(max_size=REASON_MAX),
    until_s=st.integers(0, 2**40),
)
strategies: dict[Any, Any] = {
    NodeId: nodes,
    VipKey: vips.map(lambda v: v.key),
    Vip: vips,
    Row: vips.map(lambda v: Row(v.key, v)),
    Report: st.builds(
        Report,
        node=nodes,
        incarnation=st.integers(0, 2**64 - 1),
        name=names,
        nodes=st.lists(names, max_size=3).map(tuple),
        votes=votes,
        electorates=st.lists(electorates, max_size=2).map(tuple),
        weight=st.integers(0, model.WEIGHT_MAX),
        load=st.one_of(st.none(), st.integers(0, LOAD_MAX)),
    ),
    say.Restart: st.builds(say.Restart, bound_ms=st.integers(0, wire.RESTART_MS_MAX), sent_ms=st.integers(0, 2**50)),
    Order: orders,
    say.StateMessage: st.builds(
        say.StateMessage, round=st.integers(1, 2**31), orders=st.lists(orders, max_size=3).map(tuple)
    ),
    say.Unstick: st.builds(say.Unstick, at_once=st.booleans(), by=st.text(max_size=BY_MAX)),
    Segment: st.builds(Segment, vip=ips, known=st.lists(st.tuples(packed_ips, macs), max_size=5).map(tuple)),
}
for kind, strategy in strategies.items():
    st.register_type_strategy(kind, strategy)
messages = st.one_of(*[st.from_type(kind) for kind in get_args(wire.Message)])


@given(messages, st.builds(ViewId, st.integers(1, 2**32 - 1), st.integers(0, 2**50), st.integers(0, 2**30)))
@settings(max_examples=300)
def test_every_message_comes_back_as_it_was(message: wire.Message, view: ViewId) -> None:
    assert wire.decode(wire.encode(view, message)) == (view, message)


def test_there_is_a_case_for_every_kind_of_message() -> None:
    seen: set[type] = set()

    @given(messages)
    @settings(max_examples=1000, database=None, derandomize=True)
    def gather(message: wire.Message) -> None:
        seen.add(type(message))

    gather()
    assert seen == set(get_args(wire.Message))
    for kind in seen:
        assert {f.name for f in fields(kind)} == set(get_type_hints(kind))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_wire_error(payload: bytes) -> None:
    for head in (b"", bytes((wire.VERSION, 0)), bytes((wire.VERSION, wire.COMPRESSED))):
        try:
            wire.decode(head + payload)
        except wire.WireError as wrong:
            assert str(wrong)  # noqa: PT017 - nothing else may be raised


@given(messages, st.data())
@settings(max_examples=300)
def test_a_damaged_message_is_another_message_or_a_wire_error(message: wire.Message, data: st.DataObject) -> None:
    payload = bytearray(wire.encode(VIEW, message))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    try:
        wire.decode(bytes(payload[:cut]) if data.draw(st.booleans()) else bytes(payload))
    except wire.WireError as wrong:
        assert str(wrong)  # noqa: PT017 - nothing else may be raised


def large() -> StateMessage:
    known = tuple(
        KnownVip(Vip(f"v{i:04}", (Address(f"10.77.{i // 250}.{1 + i % 250}", 32, "eth0"),)), i) for i in range(4000)
    )
    return StateMessage(1, Report(NodeId(1), 2**63, "a"), known, (), (), (), ())


def test_large_messages_are_compressed_and_come_back() -> None:
    payload = wire.encode(VIEW, large())
    assert payload[1] == wire.COMPRESSED
    assert len(payload) < 100_000
    assert wire.decode(payload) == (VIEW, large())


def test_a_bomb_is_not_inflated() -> None:
    bomb = bytes((wire.VERSION, wire.COMPRESSED)) + zlib.compress(b"\0" * (wire.BODY_BYTES_MAX + 1))
    with pytest.raises(wire.WireError, match="too large"):
        wire.decode(bomb)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "too short"),
        (bytes((99, 0)), "message format 99"),
        (bytes((wire.VERSION, 8)), "unknown flags"),
        (bytes((wire.VERSION, 1)) + b"abc", "not compressed"),
        (bytes((wire.VERSION, 1)) + zlib.compress(b"abc")[:-1], "cut short"),
        (bytes((wire.VERSION, 0)) + wire._ENCODER.encode((VIEW, "Gossip", 1)), "unknown kind"),
        (b"x" * (PAYLOAD_BYTES_MAX + 1), "more than a message may have"),
    ],
)
def test_what_is_wrong_is_said(payload: bytes, words: str) -> None:
    with pytest.raises(wire.WireError, match=words):
        wire.decode(payload)


@pytest.mark.parametrize(
    "vip",
    [
        Vip("v", ()),
        Vip("v", (Address("10.0.0.300", 32),)),
        Vip("v", (Address("10.0.0.1", 33),)),
        Vip("v", (Address("10.0.0.1", -1),)),
        Vip("v" * 1000, (Address("10.0.0.1", 32),)),
    ],
)
def test_addresses_that_are_none_are_refused_before_they_reach_the_kernel(vip: Vip) -> None:
    message = StateMessage(1, Report(NodeId(1), 1, "a"), (KnownVip(vip, 1),), (), (), (), ())
    with pytest.raises(wire.WireError):
        wire.decode(wire.encode(VIEW, message))


HOST = (bytes(4), bytes(6))
REPORT = Report(NodeId(1), 1, "a")
VIP = Vip("v", (Address("10.0.0.1", 32),))
TOO_MANY = tuple(Vip(f"v{i}", (Address("10.0.0.1", 32),)) for i in range(VIPS_MAX + 1))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Attributes(replace(REPORT, weight=-1)), "weight of -1"),
        (Attributes(replace(REPORT, weight=model.WEIGHT_MAX + 1)), "weight of 1001"),
        (Attributes(replace(REPORT, node=NodeId(0))), "node number of 0"),
        (Attributes(replace(REPORT, node=NodeId(2**32))), "node number"),
        (Attributes(replace(REPORT, incarnation=-1)), "incarnation of -1"),
        (Attributes(replace(REPORT, name="")), "'' is no name"),
        (Attributes(replace(REPORT, name="a\nb")), "is no name"),
        (Attributes(replace(REPORT, lease_ms=wire.LEASE_MS_MAX + 1)), "lease of"),
        (Attributes(replace(REPORT, component=2**53)), "component of"),
        (Attributes(replace(REPORT, placement_version=2**53 + 1)), "version of placement"),
        (Attributes(replace(REPORT, load=LOAD_MAX + 1)), "load"),
        (Attributes(replace(REPORT, load=-1)), "load"),
        (Attributes(replace(REPORT, version="v" * 513)), "too long"),
        (Attributes(replace(REPORT, nodes=("n",) * (MEMBERS_MAX + 1))), "513 nodes are more than 512"),
        (Attributes(replace(REPORT, votes=(("a", 1001),))), "number of votes of 1001"),
        (Attributes(replace(REPORT, votes=(("a", 1),) * (MEMBERS_MAX + 1))), "513 votes"),
        (Attributes(replace(REPORT, electorates=(Electorate(-1, ()),))), "epoch of an electorate of -1"),
        (Attributes(replace(REPORT, electorates=(Electorate(1, ()),) * 65)), "65 electorates"),
        (Attributes(replace(REPORT, known=(VipKey("no key"),))), "no VIP's key"),
        (Attributes(replace(REPORT, known=(VIP.key,) * (VIPS_MAX + 1))), "VIPs known"),
        (Attributes(replace(REPORT, chosen=(VIP.key,) * (VIPS_MAX + 1))), "chosen for"),
        (Attributes(replace(REPORT, ineligible=((VIP.key, NotEligible.REFUSED),) * (2 * VIPS_MAX + 1))), "reasons"),
        (Attributes(REPORT, TOO_MANY), "10001 new VIPs are more than 10000"),
        (Attributes(REPORT, (Vip("v", VIP.addresses * (ROW_ADDRESSES_MAX + 1)),)), "40000 addresses"),
        (Attributes(REPORT, (Vip("v", (Address("10.0.0.1", 32, "a/b"),)),)), "no interface"),
        (Attributes(REPORT, (Vip("v", (Address("fe80::1%eth0", 64),)),)), "no interface"),
        (StateMessage(0, REPORT, (), (), (), ()), "round of 0"),
        (StateMessage(2**31 + 1, REPORT, (), (), (), ()), "round of"),
        (StateMessage(1, REPORT, (KnownVip(VIP, 2**53 + 1),), (), (), ()), "generation of"),
        (StateMessage(1, REPORT, (KnownVip(VIP, -1),), (), (), ()), "generation of -1"),
        (StateMessage(1, REPORT, (KnownVip(VIP, 1),) * (2 * VIPS_MAX + 1), (), (), ()), "20001 VIPs known"),
        (StateMessage(1, REPORT, (), (VIP.key,) * (ROWS_MAX + 1), (), ()), "VIPs held"),
        (StateMessage(1, REPORT, (), (), (VIP.key,) * (ROWS_MAX + 1), ()), "on their way out"),
        (StateMessage(1, REPORT, (), (), (), ((NodeId(2), 1),) * (MEMBERS_MAX + 1)), "evicted members"),
        (StateMessage(1, REPORT, (), (), (), ((NodeId(0), 1),)), "node number of 0"),
        (StateMessage(1, REPORT, (), (), (), (), ((VIP.key, NodeId(2)),) * (BLOCKED_MAX + 1)), "blocked VIPs"),
        (StateMessage(1, REPORT, (), (), (), (), (), ((NodeId(2), 1, 1),) * (MEMBERS_MAX + 1)), "lapsing members"),
        (StateMessage(1, REPORT, (), (), (), (), (), ((NodeId(2), 1, 2**40),)), "lease of"),
        (Moves((say.Move(VIP.key, NodeId(1), 2**60, NodeId(2)),), operator=True), "generation of"),
        (Moves((say.Move(VIP.key, NodeId(1), 1, NodeId(-2)),), operator=True), "node number of -2"),
        (Moves((say.Move(VIP.key, NodeId(1), 1, NodeId(2)),) * (ROWS_MAX + 1), operator=True), "moves"),
        (say.Released(((VIP.key, -1),)), "generation of -1"),
        (say.Released(((VIP.key, 1),) * (ROWS_MAX + 1)), "released VIPs"),
        (say.Failed(VIP.key, 1, "r" * 513), "too long"),
        (say.Failed(VIP.key, 2**60, "r"), "generation of"),
        (Beat(-1, 0, "", 0), "number of a beat"),
        (Beat(1, 2**60, "", 0), "number of messages"),
        (Beat(1, 0, "", -1), "time of -1"),
        (Beat(1, 0, "x" * 513, 1), "too long"),
        (say.Assign(((VIP.key, 1, NodeId(0)),)), "node number of 0"),
        (say.Assign(((VIP.key, 1, NodeId(1)),) * (ROWS_MAX + 1)), "assigned VIPs"),
        (say.Evict(NodeId(0), 1, 1), "node number of 0"),
        (say.Evict(NodeId(1), 1, 1, 2**40), "round of"),
        (say.Evict(NodeId(1), 1, -1), "number of messages"),
        (say.Lapsed(NodeId(1), -1), "incarnation"),
        (say.Drain(NodeId(2**33), draining=True), "node number"),
        (say.Ordered((Order(Kind.DRAIN, "a b", True),)), "is no name"),
        (say.Ordered((Order(Kind.PIN, "v", True),)), "is no name"),
        (say.Ordered((Order(Kind.HOLD, "v", True, version=VERSION_MAX + 1),)), "version of an order"),
        (say.Ordered((Order(Kind.HOLD, "v", True, until_s=-1),)), "time"),
        (say.Ordered((Order(Kind.HOLD, "v", True, by="b" * (BY_MAX + 1)),)), "characters of a name"),
        (say.Ordered((Order(Kind.HOLD, "v", True, reason="r" * (REASON_MAX + 1)),)), "characters of a reason"),
        (say.Ordered((Order(Kind.HOLD, "v", True),) * (ORDERS_MAX + 1)), "orders"),
        (Adopt((Row(VIP.key, VIP, holder=NodeId(0)),)), "node number of 0"),
        (Neighbours((Segment("10.0.0.1", ()),) * (SEGMENTS_MAX + 1)), "65 segments are more than 64"),
        (
            Neighbours((Segment("10.0.0.1", (HOST,) * NEIGHBOURS_MAX), Segment("fd00::1", (HOST,)))),
            "neighbours of 1025",
        ),
        (Neighbours((Segment("fe80::1%eth0", ()),)), "no interface"),
        (Neighbours((Segment("10.0.0.300", ()),)), "not an address"),
        (Neighbours((Segment("10.0.0.1", ((bytes(5), bytes(6)),)),)), "no neighbour"),
        (Neighbours((Segment("10.0.0.1", ((bytes(4), bytes(8)),)),)), "no neighbour"),
        (Adopt((Row(VIP.key, VIP, generation=-1),)), "generation of -1"),
        (Adopt((Row(VIP.key, VIP, releasing=((NodeId(1), 1),) * (MEMBERS_MAX + 1)),)), "that release it"),
        (Adopt((Row(VIP.key, VIP),) * (ROWS_MAX + 1)), "20001 rows are more than 20000"),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, str) else x[:24],
)
def test_what_nobody_of_ours_says_is_refused_with_a_sentence(message: wire.Message, words: str) -> None:
    payload = wire.encode(VIEW, message)
    with pytest.raises(wire.WireError, match=words):
        wire.decode(payload)


@pytest.mark.parametrize("view", [ViewId(-1, 0, 0), ViewId(1, 2**60, 0), ViewId(1, 0, -1)])
def test_a_view_that_no_engine_gives_out_is_refused(view: ViewId) -> None:
    with pytest.raises(wire.WireError, match="view of"):
        wire.decode(wire.encode(view, say.Unstick()))


def test_a_row_under_anothers_key_is_refused() -> None:
    vip = Vip("v", (Address("10.0.0.1", 32),))
    with pytest.raises(wire.WireError, match="another VIP's key"):
        wire.decode(wire.encode(VIEW, Adopt((Row(Vip("w", vip.addresses).key, vip),))))


def test_a_message_that_is_too_large_is_refused_by_its_sender() -> None:
    noise = random.Random(1).randbytes(PAYLOAD_BYTES_MAX).hex()
    huge = StateMessage(1, Report(NodeId(1), 1, "a", nodes=(noise,)), (), (), (), (), ())
    with pytest.raises(ValueError, match="does not fit"):
        wire.encode(VIEW, huge)


def test_a_full_neighbour_cache_is_one_small_message() -> None:
    noise = random.Random(1)
    known = tuple((noise.randbytes(16), noise.randbytes(6)) for _ in range(NEIGHBOURS_MAX))
    assert len(wire.encode(VIEW, Neighbours((Segment("fd00::1", known),)))) < 32_000


def test_a_beat_is_small() -> None:
    assert len(wire.encode(VIEW, Beat(2**40, 2**20, "0123456789abcdef", 2**40))) < 128
