"""Operators' orders: a join-semilattice, changed by one message; whatever order registers meet in, all end alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.core import standing, views
from wackamole.core.agreed import digest_of, facts_of
from wackamole.core.events import ConfigReloaded, OrderRequested
from wackamole.core.messages import Drain, Ordered
from wackamole.core.model import Address, NodeId, Vip
from wackamole.core.standing import VERSION_MAX, Kind, Order, Register, ended, following, in_force, join, obey
from wackamole.core.voice import BY_CONFIG
from wackamole.sim.plan import Fault, Plan
from wackamole.sim.search import A, B, C, small_world
from wackamole.sim.simulator import Simulation, Violation
from wackamole.sim.world import World

given_orders = st.builds(
    Order,
    st.sampled_from(Kind),
    st.sampled_from("abcdefg"),
    st.booleans(),
    st.integers(1, 6),
    st.sampled_from(("", "a", "b")),
    st.sampled_from(("root", "uid:7")),
    st.sampled_from(("", "disk")),
    st.sampled_from((0, 1, 9)),
)
registers = st.lists(given_orders, max_size=12).map(lambda orders: join((), tuple(orders)))


@pytest.fixture(params=[standing.ORDERS_MAX, 4], ids=["room", "full"])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(standing, "ORDERS_MAX", request.param)
    return int(request.param)


def test_join_is_a_least_upper_bound(room: int) -> None:
    @given(registers, registers, registers)
    def holds(a: Register, b: Register, c: Register) -> None:
        assert join(a, b) == join(b, a)
        assert join(a, join(b, c)) == join(join(a, b), c)
        assert join(a, a) == a
        assert join(a, ()) == a == join((), a)
        assert len(join(a, b)) <= room
        assert all(o in a or o in b for o in join(a, b))

    holds()


def test_the_newer_wins_and_on_a_tie_the_cautious_one() -> None:
    drained, free = Order(Kind.DRAIN, "b", True, 3), Order(Kind.DRAIN, "b", False, 3)
    assert join((drained,), (free,)) == (drained,)
    assert join((drained,), (replace(free, version=4),)) == (replace(free, version=4),)
    assert join((replace(drained, until_s=9),), (replace(drained, until_s=8),))[0].until_s == 9
    assert join((replace(drained, until_s=9),), (drained,)) == (drained,)


@given(registers, st.lists(given_orders, max_size=4))
def test_a_word_that_is_delivered_twice_or_late_changes_nothing(register: Register, wishes: list[Order]) -> None:
    said = following(register, [replace(w, version=0) for w in wishes])
    once = obey(register, said)
    assert join(register, once) == once
    assert obey(once, said) == once
    later = obey(once, following(once, [ended(o, "x") for o in once if o.in_force]))
    assert not any(o.in_force for o in later)
    assert obey(later, [w for w in said if w.about in {o.about for o in once if o.in_force}]) == later


def test_there_is_an_end_of_versions() -> None:
    register = (Order(Kind.HOLD, "v", True, VERSION_MAX),)
    assert obey(register, following(register, [ended(register[0], "x")])) == register


# -- in the machine ---------------------------------------------------------------------------------------------------------


def settled() -> World:
    world = small_world()
    world.run()
    return world


def drained(world: World) -> list[set[str]]:
    return [{r.name for r in s.table.reports if r.draining} for s in world.states().values()]


def test_an_order_is_the_same_on_all_and_in_every_digest() -> None:
    world = settled()
    before = digest_of(world.members[A].state.table)
    wishes = (
        Order(Kind.DRAIN, world.name(C), True),
        Order(Kind.HOLD, world.members[A].state.table.rows[0].vip.name, True),
    )
    world.tell(B, OrderRequested(wishes))
    world.run()
    tables = [s.table for s in world.states().values()]
    assert [len(t.orders) for t in tables] == [2, 2, 2]
    assert {digest_of(t) for t in tables} == {digest_of(tables[0])} != {before}
    assert drained(world) == [{world.name(C)}] * 3
    assert [row.sticky for row in tables[0].rows] == [True] + [False] * (len(tables[0].rows) - 1)


def in_force_on_all(world: World) -> list[set[tuple[Kind, str]]]:
    return [{o.about for o in s.table.orders if o.in_force} for s in world.states().values()]


def reload(world: World, node: NodeId, digest: str, names: tuple[str, ...], vips: tuple[Vip, ...]) -> None:
    world.with_settings(node, config_digest=digest, nodes=names, vips=vips)
    world.tell(node, ConfigReloaded(world.settings[node]))
    world.pass_time(1000)


def test_orders_about_what_no_config_has_any_more_are_over_when_all_have_read_it() -> None:
    world = settled()
    a, b, c = (world.name(n) for n in (A, B, C))
    vips = world.settings[A].vips
    gone, stays = vips[0].name, vips[1].name
    wishes = (
        Order(Kind.DRAIN, c, True),
        Order(Kind.HOLD, gone, True),
        Order(Kind.PIN, gone, True, node=a),
        Order(Kind.HOLD, stays, True),
        Order(Kind.PIN, stays, True, node=c),
    )
    world.tell(B, OrderRequested(wishes))
    world.run()
    given = {w.about for w in wishes}
    world.crash(C)
    world.pass_time(1000)
    assert in_force_on_all(world) == [given] * 2
    reload(world, A, "two", (a, b), vips[1:])
    assert in_force_on_all(world) == [given] * 2  # B still has them
    reload(world, B, "two", (a, b), vips[1:])
    assert in_force_on_all(world) == [{(Kind.HOLD, stays)}] * 2
    assert {o.by for o in world.members[A].state.table.orders if not o.in_force} == {BY_CONFIG}

    reload(world, A, "three", (a, b, c), vips)  # they come again: as others
    reload(world, B, "three", (a, b, c), vips)
    world.with_settings(C, config_digest="three", nodes=(a, b, c), vips=vips)
    world.power_on(C)
    world.pass_time(1000)
    assert in_force_on_all(world) == [{(Kind.HOLD, stays)}] * 3
    assert drained(world) == [set()] * 3


def test_an_order_stays_in_force_over_a_reload_that_defines_its_vip_anew() -> None:
    world = settled()
    names, vips = world.settings[A].nodes, world.settings[A].vips
    name = vips[0].name
    world.tell(B, OrderRequested((Order(Kind.HOLD, name, True),)))
    world.run()
    anew = (Vip(name, (Address("203.0.113.1", 32),)), *vips[1:])
    for node in (A, B, C):
        reload(world, node, "two", names, anew)
    assert in_force_on_all(world) == [{(Kind.HOLD, name)}] * 3
    (row,) = [r for r in world.members[A].state.table.rows if r.vip.name == name]
    assert (row.vip, row.sticky) == (anew[0], True)


def an_older_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the version `older` says nothing of orders."""
    own_report = views.own_report
    monkeypatch.setattr(
        views,
        "own_report",
        lambda w, restart_ms=0: replace(own_report(w, restart_ms), keeps_orders=w.s.settings.version != "older"),
    )


def test_beside_an_older_member_orders_do_not_count_and_its_own_word_does(monkeypatch: pytest.MonkeyPatch) -> None:
    an_older_member(monkeypatch)
    world = small_world()
    world.crash(C)
    world.run()
    world.tell(A, OrderRequested((Order(Kind.DRAIN, world.name(B), True),)))
    pin = Order(Kind.PIN, world.members[A].state.table.rows[0].vip.name, True, node=world.name(B))
    world.tell(A, OrderRequested((pin,)))
    world.run()
    assert drained(world) == [{world.name(B)}] * 2
    world.with_settings(C, version="older")
    world.power_on(C)
    world.run()
    table = world.members[A].state.table
    assert not facts_of(world.members[A].state).prefer
    assert drained(world) == [{world.name(B)}] * 3  # B says so itself
    world.tell(A, OrderRequested((Order(Kind.HOLD, "v", True),)))
    world.run()
    assert world.members[A].state.table.orders == table.orders
    view = world.members[C].state.view
    assert view is not None
    world.network.multicast(C, world.pack((view.id, Drain(B, draining=False))))
    world.run()
    assert drained(world) == [set()] * 3
    assert not in_force(world.members[B].state.table.orders, Kind.DRAIN)


def test_a_word_that_follows_an_order_nobody_knows_is_void() -> None:
    world = settled()
    state = world.members[A].state
    assert state.view is not None
    late = Ordered((Order(Kind.DRAIN, world.name(B), True, version=7),))
    world.network.multicast(B, world.pack((state.view.id, late)))
    world.run()
    assert [s.table.orders for s in world.states().values()] == [()] * 3


# -- in the simulator ---------------------------------------------------------------------------------------------------------


def forgets_in_a_merge(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(views, "join", lambda one, other: other)


def takes_up_the_older(patch: pytest.MonkeyPatch) -> None:
    def older_wins(one: Register, other: Register) -> Register:
        found = {o.about: o for o in one}
        return tuple(sorted({**found, **{o.about: o for o in other}}.values(), key=lambda o: (o.kind.value, o.subject)))

    patch.setattr(views, "join", older_wins)


def invents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(views, "join", lambda one, other: join(join(one, other), (Order(Kind.HOLD, "v1", True, 1),)))


PLAN = Plan(
    1,
    3,
    3,
    until=20_000,
    faults=tuple(
        Fault(at, verb, tuple(words.split()))
        for at, verb, words in (
            (6000, "hold", "a v2"),
            (7000, "drain", "a b"),
            (9000, "split", "a,b c"),
            (10_000, "resume", "a b"),
            (11_000, "hold", "c v3"),
            (13_000, "heal", ""),
            (16_000, "kill", "b"),
            (17_000, "start", "b"),
        )
    ),
)


def test_the_plan_is_right_without_a_fault() -> None:
    counts = Simulation(PLAN).run()
    assert counts["orders given"] >= 9
    assert counts["orders learnt in a merge"] > 0


@pytest.mark.parametrize("fault", [forgets_in_a_merge, takes_up_the_older, invents])
def test_a_fault_is_found(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(Violation, match=r"lost an order|nobody has given|does not know"):
        Simulation(PLAN).run()
