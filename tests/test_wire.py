"""Messages as bytes: there and back, and nothing but WireError for whatever else comes in."""

from __future__ import annotations

import random
import zlib
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole import wire
from wackamole.core import messages as say
from wackamole.core.messages import Adopt, Attributes, Beat, KnownVip, StateMessage
from wackamole.core.model import Address, NodeId, Report, Row, ViewId, Vip
from wackamole.engine.contract import PAYLOAD_BYTES_MAX

VIEW = ViewId(1, 8, 0)
st.register_type_strategy(int, st.integers(0, 2**63 - 1))  # what MessagePack can carry
names = st.text(min_size=1, max_size=20)
ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
addresses = st.builds(Address, ip=ips, prefix=st.integers(0, 32), interface=st.text(max_size=15))
vips = st.builds(Vip, name=names, addresses=st.lists(addresses, min_size=1, max_size=3).map(tuple))
rows = vips.map(lambda v: Row(v.key, v))
reports = st.builds(Report, weight=st.integers(0, wire.WEIGHT_MAX))
strategies: dict[Any, Any] = {Vip: vips, Address: addresses, Row: rows, Report: reports}
for kind, strategy in strategies.items():
    st.register_type_strategy(kind, strategy)
messages = st.one_of(*[st.builds(kind) for kind in get_args(say.Message)])


@given(messages, st.builds(ViewId, st.integers(1, 2**32 - 1), st.integers(0, 2**60), st.integers(0, 2**30)))
@settings(max_examples=300)
def test_every_message_comes_back_as_it_was(message: say.Message, view: ViewId) -> None:
    assert wire.decode(wire.encode(view, message)) == (view, message)


def test_there_is_a_case_for_every_kind_of_message() -> None:
    seen: set[type] = set()

    @given(messages)
    @settings(max_examples=400, database=None, derandomize=True)
    def gather(message: say.Message) -> None:
        seen.add(type(message))

    gather()
    assert seen == set(get_args(say.Message))
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
def test_a_damaged_message_is_another_message_or_a_wire_error(message: say.Message, data: st.DataObject) -> None:
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


@pytest.mark.parametrize("weight", [-1, wire.WEIGHT_MAX + 1])
def test_a_weight_that_no_config_can_have_is_refused(weight: int) -> None:
    message = Attributes(Report(NodeId(1), 1, "a", weight=weight))
    with pytest.raises(wire.WireError, match="weight"):
        wire.decode(wire.encode(VIEW, message))


def test_a_row_under_anothers_key_is_refused() -> None:
    vip = Vip("v", (Address("10.0.0.1", 32),))
    with pytest.raises(wire.WireError, match="another VIP's key"):
        wire.decode(wire.encode(VIEW, Adopt((Row(Vip("w", vip.addresses).key, vip),))))


def test_a_message_that_is_too_large_is_refused_by_its_sender() -> None:
    noise = random.Random(1).randbytes(1_300_000).hex()
    huge = StateMessage(1, Report(NodeId(1), 1, "a", nodes=(noise,)), (), (), (), (), ())
    with pytest.raises(ValueError, match="does not fit"):
        wire.encode(VIEW, huge)


def test_a_beat_is_small() -> None:
    assert len(wire.encode(VIEW, Beat(2**40, 2**20, "0123456789abcdef", 2**40))) < 128
