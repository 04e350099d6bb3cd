"""How members tell each other: several on a modelled network, which decides what is delivered; and the file."""

from __future__ import annotations

import stat
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wackamole.core.model import NodeId, ViewId
from wackamole.engine.contract import Delivered, NewView
from wackamole.engine.memory import Network
from wackamole.eventlog import BATCH_BYTES_MAX, Again, Entry, EventLog, Has, Told, decode, encode, event_of
from wackamole.shell.telling import (
    BUDGET_MAX,
    BUDGET_MS,
    HOLD_MS,
    PATIENCE_MS,
    PAUSE_MS,
    REPEATED_MS,
    EventFile,
    Telling,
    read,
)

NODES = tuple(NodeId(n) for n in (1, 2, 3))
TICK_MS = 20


class Group:
    """Members that tell. As the core does, it drops what was said in another view."""

    def __init__(self) -> None:
        self.network = Network()
        self.now_ms = 1_000_000
        self.tellings: dict[NodeId, Telling] = {}
        self.views: dict[NodeId, ViewId | None] = {}
        self.runs = 0
        self.said: list[tuple[int, NodeId, Any]] = []
        self.happened: Counter[NodeId] = Counter()
        self.loses: type | None = None  # notes of this kind

    def power_on(self, node: NodeId, log: EventLog | None = None) -> None:
        self.runs += 1
        self.tellings[node] = Telling(f"n{node}", f"{self.runs:016x}", log or EventLog())
        self.views[node] = None
        self.network.power_on(node)

    def crash(self, node: NodeId) -> EventLog:
        self.network.crash(node)
        del self.views[node]
        return self.tellings.pop(node).log

    def happens(self, node: NodeId, what: str = "moved", **fields: object) -> None:
        self.happened[node] += 1
        self.tellings[node].happened(what, fields or {"n": self.happened[node]}, self.now_ms, self.now_ms)

    def deliver(self, node: NodeId) -> None:
        match self.network.deliver(node):
            case NewView(view):
                self.views[node] = view.id
                self.tellings[node].on_view(view, node, self.now_ms)
            case Delivered(by, payload):
                view_id, body = cast(tuple[ViewId, bytes], payload)
                if view_id == self.views[node]:
                    self.tellings[node].on_note(by, body)
            case _:
                pass

    def run(self, ms: int) -> None:
        end = self.now_ms + ms
        while self.now_ms < end:
            self.now_ms += TICK_MS
            for node, telling in sorted(self.tellings.items()):
                while self.network.pending(node):
                    self.deliver(node)
                if (body := telling.note(self.now_ms)) is not None:
                    self.said.append((self.now_ms, node, decode(body)))
                    if type(decode(body)) is not self.loses:
                        self.network.multicast(node, (self.views[node], body))

    def history(self, node: NodeId) -> list[tuple[str, str, int]]:
        return [entry.event.id for entry in self.tellings[node].log.shown()]


@pytest.fixture
def three() -> Group:
    group = Group()
    for node in NODES:
        group.power_on(node)
    group.run(3000)
    return group


def same_everywhere(group: Group) -> list[tuple[str, str, int]]:
    histories = [group.history(node) for node in group.tellings]
    assert all(h == histories[0] for h in histories)
    assert len(set(histories[0])) == len(histories[0])
    return histories[0]


def test_all_have_the_same_history_in_the_same_order(three: Group) -> None:
    for number in range(30):
        three.happens(NODES[number % 3])
        three.run(TICK_MS * (number % 4))
    three.run(2000)
    assert len(same_everywhere(three)) == 30


def test_events_that_come_together_go_in_one_note_and_never_at_once(three: Group) -> None:
    three.said.clear()
    began = three.now_ms
    for _ in range(5):
        three.happens(NODES[0])
    three.run(1000)
    ((when, node, note),) = three.said
    assert (node, len(note.events)) == (NODES[0], 5)
    assert when - began >= HOLD_MS


def test_a_restless_table_is_waited_for_but_not_for_ever(three: Group) -> None:
    three.said.clear()
    began = three.now_ms
    three.happens(NODES[0])
    while not three.said and three.now_ms - began < 10_000:
        three.tellings[NODES[0]].disturbed(three.now_ms)
        three.run(TICK_MS)
    assert PATIENCE_MS <= three.said[0][0] - began <= PATIENCE_MS + 2 * TICK_MS


def a_late_comer(group: Group) -> None:
    """100 events later than the others."""
    group.crash(NODES[2])
    for _ in range(100):
        group.happens(NODES[0])
    group.run(3000)
    group.said.clear()
    group.power_on(NODES[2])


def test_a_late_comer_gets_the_recent_part_from_one_member(three: Group) -> None:
    a_late_comer(three)
    three.run(5000)
    assert len(same_everywhere(three)) == 100
    assert {n for _, n, note in three.said if isinstance(note, Again)} == {NODES[0]}


def test_what_is_told_again_and_lost_is_told_once_more(three: Group) -> None:
    """The simulator's seed 95092."""
    a_late_comer(three)
    three.loses = Again
    three.run(5000)
    assert any(isinstance(note, Again) for _, _, note in three.said)
    assert three.history(NODES[2]) == []
    three.loses = None
    three.run(5000)
    assert len(same_everywhere(three)) == 100


def test_who_comes_back_with_its_log_is_told_what_it_missed(three: Group) -> None:
    for _ in range(50):
        three.happens(NODES[0])
    three.run(3000)
    log = three.crash(NODES[2])
    three.run(3000)
    three.happens(NODES[1])
    three.run(1000)
    three.said.clear()
    three.power_on(NODES[2], log)
    three.run(5000)
    assert len(same_everywhere(three)) == 51
    assert sum(len(note.entries) for _, _, note in three.said if isinstance(note, Again)) == 1


def test_two_sides_of_a_partition_are_put_together(three: Group) -> None:
    one, others = NODES[0], NODES[1:]
    three.network.partition([[one], others])
    for _ in range(20):
        three.happens(one)
        three.happens(others[0])
        three.run(100)
    three.network.heal()
    three.happens(one)
    three.run(6000)
    ids = same_everywhere(three)
    assert len(ids) == 41
    assert ids[-1][0] == "n1", "what is told after the merge comes after both sides"
    sides = [name for name, _, _ in ids[:-1]]
    assert len([1 for a, b in pairwise(sides) if a != b]) == 1, "one side after the other"


ops = st.lists(
    st.one_of(
        st.tuples(st.just("happens"), st.sampled_from(NODES), st.integers(0, 300)),
        st.tuples(
            st.sampled_from(("cut", "lose and cut")), st.sampled_from(NODES), st.sampled_from((0, 40, 400, 3000))
        ),
        st.tuples(st.just("heal"), st.sampled_from(NODES), st.sampled_from((0, 40, 400, 3000))),
        st.tuples(st.sampled_from(("forgets", "comes back")), st.just(NODES[2]), st.sampled_from((0, 400))),
        st.tuples(st.just("lose"), st.just(NODES[0]), st.integers(0, 300)),
        st.tuples(st.just("some"), st.sampled_from(NODES), st.integers(0, 2)),
    ),
    max_size=25,
)


@given(ops)
@example([("lose", NODES[0], 81), ("happens", NODES[0], 201), ("forgets", NODES[2], 0), ("lose", NODES[0], 221)])
@settings(max_examples=60)
def test_whatever_happens_nothing_is_lost_and_nothing_is_there_twice(steps: list[tuple[str, NodeId, int]]) -> None:
    """Of members that live. What one that dies had not yet told is lost with it."""
    group = Group()
    for node in NODES:
        group.power_on(node)
    for what, node, number in steps:
        if what == "happens":
            group.happens(node)
        elif what in ("cut", "lose and cut"):
            rest = [n for n in NODES if n != node]
            group.network.partition([[node], rest], lose=what != "cut")
        elif what == "heal":
            group.network.heal()
        elif what == "lose":
            group.network.lose()
        elif what == "some":
            for _ in range(number):
                if group.network.pending(node):
                    group.deliver(node)
            continue
        else:
            log = group.crash(node)
            group.power_on(node, log if what == "comes back" else None)
        group.run(number)
    group.network.heal()
    group.run(15_000)
    ids = same_everywhere(group)
    told = Counter(name for name, _, _ in ids)
    for node in NODES[:2]:
        assert told[f"n{node}"] == group.happened[node]


def test_a_note_that_is_lost_is_said_again_and_who_is_due_has_something_to_say(three: Group) -> None:
    telling = three.tellings[NODES[0]]
    three.happens(NODES[0])
    three.run(HOLD_MS)
    three.network.lose()
    spoken = 0
    for number in range(300):
        if number % 20 == 0:
            three.happens(NODES[0])
        due_ms = telling.due_ms()
        if due_ms is not None and due_ms <= three.now_ms:
            assert telling.note(three.now_ms) is not None
            spoken += 1
        three.now_ms += TICK_MS
    assert spoken > 10


def test_a_flood_is_cut_and_counted(three: Group) -> None:
    three.said.clear()
    began = three.now_ms
    for _ in range(20 * BUDGET_MAX):
        three.happens(NODES[0], "flood", text="x" * 200)
    three.run(60_000)
    three.happens(NODES[0], "after")
    three.run(5000)
    log = three.tellings[NODES[1]].log.shown()
    flood = [e for e in log if e.event.what == "flood"]
    assert len(flood) == BUDGET_MAX
    assert [dict(e.event.fields) for e in log if e.event.what == "lost"] == [{"count": str(19 * BUDGET_MAX)}]
    assert log[-1].event.what == "after"
    told = [(when, note) for when, _, note in three.said if isinstance(note, Told)]
    assert all(b - a >= PAUSE_MS for (a, _), (b, _) in pairwise(told))
    assert all(len(encode(note)) <= BATCH_BYTES_MAX + 100 for _, note in told)
    assert three.now_ms - began > BUDGET_MS


def test_what_goes_on_and_on_is_told_once_in_a_while(three: Group) -> None:
    for _ in range(10):
        three.happens(NODES[0], "duplicate", vip="v1")
        three.happens(NODES[0], "duplicate", vip="v2")
    three.run(REPEATED_MS)
    three.happens(NODES[0], "duplicate", vip="v1")
    three.run(2000)
    assert [dict(e.event.fields)["vip"] for e in three.tellings[NODES[1]].log.shown()] == ["v1", "v2", "v1"]


def test_a_member_that_says_nothing_is_not_waited_for_for_ever(three: Group) -> None:
    silent = three.tellings.pop(NODES[2])
    three.network.partition([NODES])
    three.power_on(NodeId(4))
    three.happens(NODES[0])
    three.run(10_000)
    assert len(three.history(NODES[1])) == 1
    assert silent.log.shown() == []


def test_nobody_can_put_anything_at_a_place_of_this_view(three: Group) -> None:
    view = three.views[NODES[0]]
    forged = Entry(9, str(view), 0, event_of("n3", "f" * 16, 1, 0, "moved", {}))
    assert three.tellings[NODES[0]].on_note(NODES[2], encode(Again((forged,)))) == []


def test_a_second_word_of_what_one_has_counts_for_nothing(three: Group) -> None:
    telling = three.tellings[NODES[0]]
    before = dict(telling._has)
    telling.on_note(NODES[2], encode(Has(0, (("1.1.1", 0, 5),))))
    assert telling._has == before


# -- the file ---------------------------------------------------------------------------------------------------------------


def entries(first: int, count: int) -> list[Entry]:
    return [Entry(1, "1.8.0", i, event_of("a", "f" * 16, i, i, "moved", {})) for i in range(first, first + count)]


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    path, log = tmp_path / "state" / "events.jsonl", EventLog()
    file = EventFile(path, pytest.fail)
    file.start()
    file.put(entries(0, 3))
    file.put(entries(3, 2))
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("ab") as cut:
        cut.write(b'{"epoch":1,"view')
    read(path, log)
    assert log.shown() == entries(0, 5)
    file = EventFile(path, pytest.fail)
    file.start()
    file.put(entries(5, 1))
    file.close()
    log = EventLog()
    read(path, log)
    assert log.shown() == entries(0, 6)


def test_two_files_are_kept_within_their_bound(tmp_path: Path) -> None:
    path, log = tmp_path / "events.jsonl", EventLog()
    file = EventFile(path, pytest.fail, bytes_max=2000)
    file.start()
    for number in range(100):
        file.put(entries(number, 1))
    file.close()
    sizes = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert sorted(sizes) == ["events.jsonl", "events.jsonl.1"]
    assert all(size <= 2000 for size in sizes.values())
    read(path, log)
    kept = log.shown()
    assert len(kept) > 10
    assert kept == entries(100 - len(kept), len(kept))


def test_a_disk_that_refuses_is_told_once(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "file"
    path.write_text("")
    file = EventFile(path / "events.jsonl", said.append)
    file.start()
    file.put(entries(0, 1))
    file.close()
    for _ in range(3):
        file.put([])
    assert len(said) == 1


def test_nothing_on_the_disk_is_no_trouble(tmp_path: Path) -> None:
    log = EventLog()
    read(tmp_path / "nowhere" / "events.jsonl", log)
    assert log.shown() == []
