"""Notes have a place in the order, and no effect on anything that is agreed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.core import effects as do
from wackamole.core.agreed import digest_of
from wackamole.core.events import MessageDelivered, NoteRequested
from wackamole.core.machine import step
from wackamole.core.messages import Beat, Note
from wackamole.core.model import Address, NodeId, Phase, Settings, Vip
from wackamole.core.state import State
from wackamole.sim.world import World

NODES = tuple(NodeId(n) for n in (1, 2, 3))
VIPS = tuple(sorted((Vip(f"v{i}", (Address(f"10.0.0.{i}", 32),)) for i in range(1, 5)), key=lambda v: v.key))


class Noting(World):
    """A world that keeps what its members note."""

    noted: dict[NodeId, list[tuple[object, ...]]]

    def tell(self, node: NodeId, event: object) -> None:
        before = self.members[node].state
        _, effects = self.step(before, event)  # type: ignore[arg-type]
        taken = [(e.view, e.by, e.body) for e in effects if isinstance(e, do.TakeNote)]
        self.noted.setdefault(node, []).extend(taken)
        super().tell(node, event)  # type: ignore[arg-type]


def world() -> Noting:
    made = Noting({n: Settings("abc"[n - 1], tuple("abc"), VIPS, "digest", mature_ms=0, settle_ms=0) for n in NODES})
    made.noted = {}
    return made


steps = st.lists(
    st.one_of(
        st.tuples(st.just("act"), st.integers(0, 30)),
        st.tuples(st.just("time"), st.integers(1, 500)),
        st.tuples(st.just("start"), st.sampled_from(NODES)),
        st.tuples(st.just("crash"), st.sampled_from(NODES)),
        st.tuples(st.just("cut"), st.sampled_from(NODES)),
        st.tuples(st.just("heal"), st.just(0)),
        st.tuples(st.just("hang"), st.sampled_from(NODES)),
        st.tuples(st.just("wake"), st.sampled_from(NODES)),
    ),
    max_size=30,
)


def play(made: Noting, said: list[tuple[str, int]], *, notes: bool) -> None:
    number = 0
    for node in NODES:
        made.power_on(node)
    for what, value in said:
        node = NodeId(value)
        match what:
            case "act":
                if actions := made.actions():
                    made.act(actions[value % len(actions)])
            case "time":
                made.pass_time(value)
            case "start" if node not in made.members:
                made.power_on(node)
            case "crash" if node in made.members:
                made.crash(node)
            case "cut":
                made.partition([[node], [n for n in NODES if n != node]])
            case "heal":
                made.partition([NODES])
            case "hang" if node in made.members and node not in made.hung:
                made.hang(node)
            case "wake" if node in made.members and node in made.hung:
                made.wake(node)
            case _:
                pass
        for member in sorted(made.members) if notes else ():
            number += 1
            before = made.members[member].state
            state, effects = step(before, NoteRequested(b"%d" % number), made.now_ms)
            assert state.table is before.table
            if before.phase is not Phase.SETTLED:
                assert not any(isinstance(e, do.Multicast) and isinstance(e.message, Note) for e in effects)


def plain(state: State, event: MessageDelivered, now_ms: int) -> None:
    """A note does what a beat of another member does, and is handed on."""
    view = state.view
    assert view is not None
    with_note, effects = step(state, event, now_ms)
    assert [e for e in effects if isinstance(e, do.TakeNote)] == [do.TakeNote(view.id, event.sender, b"x")]
    beat = MessageDelivered(event.sender, view.id, Beat(10**6, 0, "", now_ms))
    with_beat, others = step(state, beat, now_ms)
    assert with_note == with_beat
    assert [e for e in effects if not isinstance(e, do.TakeNote)] == list(others)


@given(steps)
@settings(max_examples=60)
def test_a_note_changes_no_state_that_a_beat_does_not_change(said: list[tuple[str, int]]) -> None:
    made = world()
    play(made, said, notes=True)
    made.run(2000)
    for node, member in made.members.items():
        state = member.state
        if state.view is None or node in made.hung:
            continue
        # what is due is said before: whatever comes would make it so
        state, _ = step(state, MessageDelivered(node, state.view.id, Beat(0, 0, "", made.now_ms - 10**6)), made.now_ms)
        view = state.view
        assert view is not None
        others = [n for n in view.members if n != node and n not in dict(state.table.evicted)]
        for sender in others:
            plain(state, MessageDelivered(sender, view.id, Note(b"x")), made.now_ms)


def test_members_of_a_view_take_the_same_notes_in_the_same_order() -> None:
    made = world()
    for node in NODES:
        made.power_on(node)
    made.pass_time(3000)
    for number in range(30):
        made.tell(NODES[number % 3], NoteRequested(b"%d" % number))
        if number % 4 == 0:
            made.act(made.actions()[-1])
    made.run()
    assert len(made.noted[NODES[0]]) == 30
    assert made.noted[NODES[0]] == made.noted[NODES[1]] == made.noted[NODES[2]]
    assert len({digest_of(m.state.table) for m in made.members.values()}) == 1


def test_a_note_of_an_older_view_or_of_an_evicted_member_has_no_place() -> None:
    made = world()
    for node in NODES:
        made.power_on(node)
    made.pass_time(3000)
    state = made.members[NODES[0]].state
    assert state.view is not None
    older = replace(state.view.id, seq=state.view.id.seq - 1)
    assert step(state, MessageDelivered(NODES[1], older, Note(b"x")), made.now_ms)[1] == ()
    gone = replace(state, table=replace(state.table, evicted=((NODES[1], 1),)))
    _, effects = step(gone, MessageDelivered(NODES[1], state.view.id, Note(b"x")), made.now_ms)
    assert not any(isinstance(e, do.TakeNote) for e in effects)
