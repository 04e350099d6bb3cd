"""What is kept, and looked up by halves, is what would be found by looking through everything."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from wackamole.core.events import TimePassed
from wackamole.core.machine import step
from wackamole.core.model import VIPS_MAX, Address, NodeId, Phase, Row, Settings, Table, Vip
from wackamole.core.placement import shared
from wackamole.core.state import initial
from wackamole.core.voice import gone
from wackamole.core.work import Work
from wackamole.sim.world import World

VIPS = tuple(sorted((Vip(f"v{i}", (Address(f"10.0.{i >> 8}.{i & 255}", 32),)) for i in range(40)), key=lambda v: v.key))


@given(st.sets(st.sampled_from(VIPS)), st.sampled_from(VIPS), st.booleans())
def test_a_row_is_found_in_the_table_or_in_the_index(there: set[Vip], asked: Vip, indexed: bool) -> None:
    rows = tuple(Row(v.key, v) for v in sorted(there, key=lambda v: v.key))
    state = initial(Settings("a", ("a",), VIPS, ""))
    work = Work(state.__class__(settings=state.settings, table=Table(rows)), 0)
    if indexed:
        assert len(work.rows) == len(rows)
    assert work.row(asked.key) == next((r for r in rows if r.key == asked.key), None)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=8))
def test_addresses_that_several_rows_have_are_found(addresses: list[list[int]]) -> None:
    vips = [
        Vip(f"v{i}", tuple(Address(f"10.0.0.{n}", 32) for n in dict.fromkeys(of))) for i, of in enumerate(addresses)
    ]
    rows = [Row(v.key, v) for v in vips]
    naive = {
        f"10.0.0.{n}": [r.key for r in rows if any(a.ip == f"10.0.0.{n}" for a in r.vip.addresses)] for n in range(10)
    }
    assert shared(rows) == {ip: keys for ip, keys in naive.items() if len(keys) > 1}


def test_settings_know_their_keys_in_order() -> None:
    vips = tuple(reversed(VIPS))
    assert Settings("a", ("a",), vips, "").keys == tuple(v.key for v in VIPS)
    assert VIPS_MAX >= 10_000


def test_who_goes_forgets_what_it_was_to_release() -> None:
    """Its time to leave is over before the others have heard that it let go of something."""
    a, b = NodeId(1), NodeId(2)
    settings = {n: Settings(name, ("a", "b"), VIPS, "", mature_ms=0) for n, name in ((a, "a"), (b, "b"))}
    world = World(settings)
    world.power_on(a)
    world.power_on(b)
    world.pass_time(3000)
    state = world.members[b].state
    row = next(r for r in state.table.rows if r.holder == b)
    rows = tuple(replace(r, target=a) if r is row else r for r in state.table.rows)
    letting_go = replace(
        state,
        table=replace(state.table, rows=rows),
        may_hold=(),
        wanted=(),
        gone=((row.key, row.generation),),
        leaving_since_ms=0,
    )
    assert letting_go.gone == gone(letting_go)
    left, _ = step(letting_go, TimePassed(), state.settings.leave_ms)
    assert left.phase is Phase.GONE
    assert left.gone == gone(left) == ()


def test_balance_that_found_nothing_looks_again_when_it_may_move_more() -> None:
    """What a part of a round may move is one of the facts."""
    a = NodeId(1)
    world = World({a: Settings("a", ("a",), VIPS, "", mature_ms=0)})
    world.power_on(a)
    world.pass_time(3000)
    state = world.members[a].state
    looked, _ = step(state, TimePassed(), state.next_balance_ms)
    assert looked.at_rest is not None
    assert looked.at_rest[0] is looked.table
    again, _ = step(looked, TimePassed(), looked.next_balance_ms)
    assert again.at_rest is looked.at_rest
    part, _ = step(replace(again, balance_left=1), TimePassed(), again.next_balance_ms)
    assert part.at_rest is not None
    assert part.at_rest[-1] == 1


def test_holding_is_a_generation() -> None:
    row = Row(VIPS[0].key, VIPS[0], previous=NodeId(3), sticky=True, generation=4)
    held = row.held_by(NodeId(2), row.cause)
    assert (held.holder, held.target, held.generation, held.previous, held.sticky) == (2, 2, 5, None, True)
