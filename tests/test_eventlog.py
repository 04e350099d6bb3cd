"""The event log: places, what is shown, what members compare, and bytes from outside."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole import eventlog
from wackamole.core.model import NOTE_BYTES_MAX, NodeId
from wackamole.eventlog import (
    BATCH_BYTES_MAX,
    BATCH_MAX,
    EVENT_BYTES_MAX,
    PART,
    RECENT_BYTES_MAX,
    RECENT_MAX,
    Again,
    Entry,
    Event,
    EventLog,
    Has,
    NoteError,
    Told,
    Wanted,
    batch,
    decode,
    encode,
    event_of,
    line,
    missing,
    plain,
    read_lines,
)

RUN = "0123456789abcdef"
A, B, C = NodeId(1), NodeId(2), NodeId(3)


def event(number: int, node: str = "a", what: str = "moved", **fields: object) -> Event:
    return event_of(node, RUN, number, 1000 * number, what, fields)


def entry(epoch: int, view: str, index: int, number: int | None = None) -> Entry:
    return Entry(epoch, view, index, event(number if number is not None else 100 * epoch + index))


def log_of(*entries: Entry) -> EventLog:
    log = EventLog()
    for each in entries:
        log.add(each)
    return log


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_whatever_comes_first_the_history_is_the_same(dice: random.Random, most: int) -> None:
    """Of what is known, the newest is kept, in the one order."""
    entries = [entry(e, v, i) for e in (1, 2, 3) for v in (f"1.{e}.0", f"2.{e}.0") for i in range(4)]
    log = EventLog(most)
    for each in dice.sample(entries, len(entries)) + dice.choices(entries, k=5):
        log.add(each)
    assert [e.place for e in log._entries] == sorted(e.place for e in entries)[-most:]


def test_an_event_that_was_told_twice_is_shown_once_at_its_first_place() -> None:
    first, again, other = entry(1, "1.8.0", 5, number=7), entry(2, "2.9.0", 0, number=7), entry(1, "1.8.0", 6)
    log = log_of(again, other)
    assert not log.is_repeated(again)
    log.add(first)
    assert log.is_repeated(first)
    assert log.shown() == [first, other]


def test_parts_say_what_is_known_and_recent_is_bounded() -> None:
    entries = [*(entry(1, "1.8.0", i) for i in (0, 1, 5, PART + 1)), entry(2, "1.9.0", 0)]
    log = log_of(*entries)
    assert [(view, number) for view, number, _ in log.parts()] == [("1.9.0", 0), ("1.8.0", 1), ("1.8.0", 0)]
    assert [digest for _, _, digest in log_of(*entries[:3]).parts()] == [log.parts()[2][2]]
    assert len({log_of(*entries[:n]).parts()[0][2] for n in (1, 2, 3)}) == 3
    many = log_of(*(Entry(1, "1.8.0", i, event(i, text="x" * 250)) for i in range(2 * RECENT_MAX)))
    recent = many.recent()
    assert 100 < len(recent) < RECENT_MAX
    assert recent[-1].index == 2 * RECENT_MAX - 1
    assert sum(len(msgspec.msgpack.encode(e)) for e in recent) <= RECENT_BYTES_MAX
    apart = log_of(*(entry(i, f"ac14000b.{2**63 + i}.1", 0, number=i) for i in range(2000)))
    assert len(encode(Has(apart.epoch(), apart.parts()))) <= NOTE_BYTES_MAX


def told(logs: Mapping[NodeId, EventLog], view: str) -> dict[NodeId, list[Entry]]:
    has = {node: Has(log.epoch(), log.parts()) for node, log in logs.items()}
    return {node: missing(log.recent(), view, node, has) for node, log in logs.items()}


def test_what_somebody_lacks_is_told_by_the_first_who_has_it() -> None:
    old, new, here = entry(1, "1.8.0", 0), entry(1, "1.8.0", PART), entry(2, "1.9.0", 0)
    both = log_of(old, new, here)
    assert told({A: log_of(old), B: both, C: both}, "1.9.0") == {A: [], B: [new], C: []}
    assert told({A: EventLog(), B: both, C: both}, "1.9.0") == {A: [], B: [old, new], C: []}
    assert told({A: both, B: both, C: both}, "1.9.0") == {A: [], B: [], C: []}


def test_what_two_sides_heard_last_when_their_ring_broke_stands_at_one_place_and_both_get_both() -> None:
    """Each side may deliver something that the other never got: it has the same number there."""
    common, mine, others = entry(1, "1.8.0", 0), entry(1, "1.8.0", 1, number=7), entry(1, "1.8.0", 1, number=8)
    logs = {A: log_of(common, mine), B: log_of(common, others), C: log_of(common, others)}
    again = told(logs, "1.9.0")
    assert again == {A: [common, mine], B: [common, others], C: []}
    for log in logs.values():
        for entries in again.values():
            for each in entries:
                log.add(each)
        assert log.shown() == [common, mine, others]
    assert told(logs, "1.10.0") == {A: [], B: [], C: []}


def test_a_batch_is_bounded_and_never_empty() -> None:
    huge = event(1, **{f"k{i}": "ä" * 400 for i in range(16)})
    assert sum(len(text.encode()) for _, text in huge.fields) <= EVENT_BYTES_MAX
    assert batch([huge] * 9) < 9
    assert batch([event(i) for i in range(100)]) == BATCH_MAX
    events = [event(i, text="x" * 290) for i in range(100)]
    count = batch(events)
    assert 10 < count < 64
    assert len(encode(Told(1, tuple(events[:count])))) <= BATCH_BYTES_MAX + 100


def test_a_text_that_is_none_is_made_one() -> None:
    assert event(1, file="\udcff").fields == (("file", "?"),)


def test_the_files_end_is_read_as_far_as_it_is_there() -> None:
    entries = [entry(1, "1.8.0", i) for i in range(3)]
    content = b"".join(map(line, entries))
    assert read_lines(content) == entries
    assert read_lines(content[5:-5]) == entries[1:2]
    assert read_lines(b'\xff\n{}\n[1]\n{"epoch":-1}\n' + b"[" * 5000 + b"\n" + line(entries[0])) == entries[:1]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (Wanted(), [1, 2, 3, 4]),
        (Wanted(since=3), [3, 4]),
        (Wanted(vip="v1"), [1, 3]),
        (Wanted(vip="v"), []),
        (Wanted(node="c"), [1, 4]),
        (Wanted(node="b"), [2, 3, 4]),
        (Wanted(node="an"), []),
        (Wanted(vip="v1", node="c", since=2), []),
    ],
    ids=str,
)
def test_what_is_wanted_is_found(wanted: Wanted, seen: list[int]) -> None:
    events = [
        event(1, vip="v1", source="a", to="c"),
        event(2, node="b", what="started"),
        event(3, node="b", what="ineligible", reason="an address is there", vips="v2,v1"),
        event(4, what="view", members="a,b", left="c:its daemon died"),
    ]
    found = [Entry(1, "1.8.0", i, e) for i, e in enumerate(events)]
    assert [e.event.number for e in found if wanted.has(e)] == seen


def test_an_entry_for_programs_is_no_forgery() -> None:
    found = plain(Entry(3, "1.8.0", 4, event(7, event="x", time="y", said_by="z", vip="v")))
    assert found == {
        "event": "moved",
        "time": 7.0,
        "said_by": "a",
        "run": RUN,
        "number": 7,
        "place": {"epoch": 3, "view": "1.8.0", "index": 4},
        "vip": "v",
    }


words = st.from_regex(re.compile(r"[a-z_]{1,32}"), fullmatch=True)
events = st.builds(
    event_of,
    st.sampled_from(("a", "node-2")),
    st.just(RUN),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
    words,
    st.dictionaries(words, st.text(max_size=400), max_size=20),
)
entries = st.builds(
    Entry, st.integers(0, 2**53), st.sampled_from(("1.8.0", "ac14.99.3")), st.integers(0, 2**53), events
)
notes: st.SearchStrategy[eventlog.Note] = st.one_of(
    st.builds(Told, st.integers(0, 2**53), st.lists(events, max_size=3).map(tuple)),
    st.builds(Again, st.lists(entries, max_size=3).map(tuple)),
    st.builds(
        Has,
        st.integers(0, 2**53),
        st.lists(st.tuples(st.just("1.8.0"), st.integers(0, 9), st.integers(0, 9)), max_size=3).map(tuple),
    ),
)


@given(notes)
def test_every_note_comes_back_as_it_was(note: eventlog.Note) -> None:
    assert decode(encode(note)) == note


@given(notes, st.data())
def test_a_damaged_note_is_another_note_or_a_note_error(note: eventlog.Note, data: st.DataObject) -> None:
    body = bytearray(encode(note))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(body))
    except NoteError as wrong:
        assert str(wrong)  # noqa: PT017 - nothing else may be raised


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x91" * 5000,
        encode(Told(0, tuple(event(i) for i in range(BATCH_MAX + 1)))),
        encode(Told(0, (Event("a", RUN, 1, 1, "moved", (("vip", "x" * 301),)),))),
        encode(Told(0, (Event("a b", RUN, 1, 1, "moved"),))),
        encode(Told(0, (Event("a", "run", 1, 1, "moved"),))),
        encode(Told(0, (Event("a", RUN, 1, 1, "moved\x1b"),))),
        encode(Told(2**53 + 1, ())),
        encode(Again((Entry(1, "1.8", 0, event(1)),))),
        encode(Has(1, (("1.8.0", -1, 0),))),
        b"\x00" * (NOTE_BYTES_MAX + 1),
    ],
    ids=["empty", "deep", "events", "text", "name", "run", "word", "epoch", "view", "range", "long"],
)
def test_what_is_beyond_its_bounds_is_no_note(body: bytes) -> None:
    with pytest.raises(NoteError):
        decode(body)
