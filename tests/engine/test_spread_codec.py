"""The Spread protocol: recorded conversations are understood and said alike, and rubbish ends in one error."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.spread_transcripts import OTHER_HANDSHAKE, Conversation, conversations, heard, meant
from wackamole.engine.spread import codec
from wackamole.engine.spread.codec import (
    AGREED,
    BODY_BYTES_MAX,
    MEMBERS_MAX,
    Decoder,
    Handshake,
    Message,
    Refused,
    Regular,
    Rejected,
    SpreadError,
)

ALL = conversations()
SPOKEN = [c for c in ALL if (c.file, c.label) not in OTHER_HANDSHAKE]
EVERY_CONVERSATION = pytest.mark.parametrize("talk", SPOKEN, ids=str)


def expected(talk: Conversation) -> tuple[list[Message], int | None, str | None]:
    refusals = [p.meaning["code"] for p in talk.came if p.meaning["kind"] == "reject"]
    names = [p.meaning["private_group"] for p in talk.came if p.meaning["kind"] == "accept"]
    messages = [m for p in talk.came if (m := meant(p.meaning)) is not None]
    return messages, refusals[0] if refusals else None, names[0] if names else None


@EVERY_CONVERSATION
@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_what_came_is_understood_however_it_is_cut(talk: Conversation, size: int) -> None:
    stream = b"".join(p.raw for p in talk.came)
    handshake, messages, refused = heard([stream[i : i + size] for i in range(0, len(stream), size)])
    assert (messages, refused, handshake.private_group) == expected(talk)


def test_the_transcripts_show_what_they_are_there_for() -> None:
    kinds = [p.meaning["kind"] for c in SPOKEN for p in c.came]
    assert {"regular", "membership", "transition", "self_leave", "reject", "accept"} <= set(kinds)
    orders = {p.meaning["byte_order"] for c in SPOKEN for p in c.came if "byte_order" in p.meaning}
    assert orders == {"little", "big"}
    assert {expected(c)[1] for c in SPOKEN} == {None, -3, -5, -6, -7, -9}


@pytest.mark.parametrize("talk", ALL, ids=str)
def test_what_is_sent_is_said_alike(talk: Conversation) -> None:
    for piece in talk.sent:
        say = piece.meaning
        match say["kind"]:
            case "connect" if len(say["version"]) == 3:
                version = (say["version"][0], say["version"][1], say["version"][2])
                assert piece.raw == codec.connect_bytes(
                    say["private_name"], version, priority=say["priority"], membership=say["membership"]
                )
            case "connect":
                assert say["version"] == [3, 14]
            case "auth_choice":
                assert piece.raw == codec.choice_bytes(*say["methods"])
            case _:
                assert piece.raw == codec.message_bytes(
                    say["service"],
                    say["sender"],
                    tuple(say["groups"]),
                    bytes.fromhex(say["data"]),
                    say["mess_type"],
                    say["byte_order"],
                )


@pytest.mark.parametrize("talk", conversations("handshake-tcp", "handshake-unix", "big-endian-daemon"), ids=str)
def test_the_handshake_says_what_was_recorded(talk: Conversation) -> None:
    handshake = Handshake(talk.sent[0].meaning["private_name"])
    assert handshake.start == talk.sent[0].raw
    assert handshake.receive(talk.came[0].raw) == talk.sent[1].raw
    assert handshake.receive(talk.came[1].raw) == b""
    assert list(handshake.version) == talk.came[1].meaning["daemon_version"]


def test_a_handshake_picks_what_needs_no_secret_and_says_why_not() -> None:
    assert Handshake("w1-x").receive(b"\3IP ") == codec.choice_bytes("IP")
    with pytest.raises(SpreadError, match="only by PWORD"):
        Handshake("w1-x").receive(b"\6PWORD ")
    with pytest.raises(Refused, match="by any method"):
        Handshake("w1-x").receive(b"\0")
    with pytest.raises(Refused, match="private name is in use"):
        Handshake("w1-x").receive(b"\xfa")
    with pytest.raises(SpreadError, match=r"Spread 3\.17\.4 is too old"):
        Handshake("w1-x").receive(b"\5NULL \1\3\21\4\4#a#b")
    with pytest.raises(SpreadError, match="no Spread daemon"):
        Handshake("w1-x").receive(b"\5NULL \2")


@EVERY_CONVERSATION
def test_a_stream_that_ends_anywhere_gives_only_whole_messages(talk: Conversation) -> None:
    whole, _, _ = expected(talk)
    stream = b"".join(p.raw for p in talk.came)
    for end in range(0, len(stream), 1 + len(stream) // 300):
        _, messages, _ = heard([stream[:end]])
        assert messages == whole[: len(messages)]


def body_of(*sets: tuple[str, ...], mine: int = 0, order: str = "<") -> bytes:
    parts = [struct.pack(f"{order}I", len(s)) + b"".join(n.encode().ljust(32, b"\0") for n in s) for s in sets]
    return struct.pack(f"{order}iiiII", 1, 2, 1, len(sets), sum(map(len, parts[:mine]))) + b"".join(parts)


def raw_message(kind: int, names: int, body: bytes, length: int | None = None, mark: int = 0x80000080) -> bytes:
    length = len(body) if length is None else length
    return (
        struct.pack("<I32siIi", kind | mark, b"grp", names, 0x80000080, length)
        + b"#a#b".ljust(32, b"\0") * min(max(names, 0), 5000)
        + body
    )


def fed(raw: bytes) -> list[Message]:
    decoder = Decoder()
    decoder.feed(raw)
    found = []
    while (message := decoder.next()) is not None:
        found.append(message)
    return found


GOOD = raw_message(0x1800, 1, body_of(("#a#b",)))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (raw_message(AGREED, 1, b"", mark=0x80), "without a byte order"),
        (raw_message(AGREED, 1, b"", mark=0x80000000), "without a byte order"),
        (raw_message(AGREED, -1, b""), "-1 names"),
        (raw_message(AGREED, 101, b""), "101 names"),
        (raw_message(0x1800, MEMBERS_MAX + 1, b""), "names"),
        (raw_message(AGREED, 1, b"", length=-1), "-1 bytes"),
        (raw_message(0x1800, 1, b"", length=BODY_BYTES_MAX + 1), "a membership of"),
        (raw_message(0x1800, 1, b"x" * 19), "a membership of 19 bytes"),
        (raw_message(0x1C00, 1, body_of(("#a#b",))), "without one cause"),
        (raw_message(0x1000, 1, body_of(("#a#b",))), "without one cause"),
        (raw_message(0x1800, 1, body_of(("#a#b",))[:-1]), "cut short"),
        (raw_message(0x1800, 1, struct.pack("<iiiIII", 1, 2, 1, 1, 0, 2**31)), "cut short"),
        (raw_message(0x1800, 1, struct.pack("<iiiII", 1, 2, 1, 2**31, 0)), "cut short"),
        (raw_message(0x1800, 1, body_of(("#a#b",)) + b"x"), "do not fill it"),
        (raw_message(0x1800, 1, struct.pack("<iiiIII", 1, 2, 1, 1, 4, 0)), "do not fill it"),
        (raw_message(0x1800, 1, struct.pack("<iiiII", 1, 2, 1, 0, 0)), "do not fill it"),
        (raw_message(0x2000, 0, b"x" * 11), "signal of 11 bytes"),
    ],
)
def test_what_is_no_message_is_an_error_that_says_why(raw: bytes, why: str) -> None:
    assert len(fed(GOOD)) == 1
    with pytest.raises(SpreadError, match=why):
        fed(GOOD + raw)


def test_what_is_behind_the_end_of_a_name_means_nothing() -> None:
    raw = bytearray(GOOD)
    raw[4 + 5] = ord("x")
    assert fed(bytes(raw)) == fed(GOOD)


def test_a_message_too_large_for_us_is_passed_over_in_bounded_memory() -> None:
    decoder = Decoder()
    length = 10 * BODY_BYTES_MAX
    decoder.feed(raw_message(AGREED, 1, b"", length=length))
    for _ in range(100):
        assert decoder.next() is None
        assert decoder.waiting < BODY_BYTES_MAX
        decoder.feed(bytes(length // 100))
    decoder.feed(GOOD)
    assert decoder.next() == fed(GOOD)[0]
    assert decoder.passed_over == 1


def test_a_long_list_of_members() -> None:
    names = tuple(f"#w{i:x}-abcd#d{i % 9}" for i in range(MEMBERS_MAX))
    raw = b"".join(n.encode().ljust(32, b"\0") for n in names)
    header = struct.pack(">I32siIi", 0x1800, b"grp", len(names), 0, len(body_of(names[:100], names[100:])))
    (found,) = fed(header + raw + body_of(names[:100], names[100:], mine=1, order=">"))
    assert isinstance(found, codec.Membership)
    assert (found.members, found.sets, found.mine) == (names, (names[:100], names[100:]), 1)


def test_a_rejected_join() -> None:
    raw = struct.pack("<I32siIi", 0x400000 | 0x80000080, b"#a#b", 1, 0x80000080, 0) + struct.pack(
        "<I", 0x100 | 0x80000080
    )
    assert fed(raw + b"grp".ljust(32, b"\0")) == [Rejected(0x100, ("grp",))]


def test_more_destinations_than_a_daemon_serves_are_refused() -> None:
    with pytest.raises(ValueError, match="would reach none"):
        codec.message_bytes(AGREED, "#a#b", tuple(f"g{i}" for i in range(44)))


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_rubbish_never_does_worse_than_an_error(cuts: list[bytes]) -> None:
    decoder, handshake = Decoder(), Handshake("w1-x")
    total = 0
    try:
        for cut in cuts:
            total += len(cut)
            decoder.feed(cut)
            while decoder.next() is not None:
                pass
            assert decoder.waiting <= total
    except SpreadError:
        pass
    try:
        for cut in cuts:
            handshake.receive(cut)
    except SpreadError:
        pass


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_conversation_never_does_worse_than_an_error(data: st.DataObject) -> None:
    talk = data.draw(st.sampled_from(SPOKEN))
    raw = bytearray(b"".join(p.raw for p in talk.came))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        _, messages, _ = heard([bytes(raw)])
    except SpreadError:
        return
    for message in messages:
        if isinstance(message, Regular):
            assert len(message.body) <= BODY_BYTES_MAX
