"""Hazard 22: tables that differ, by a bug put in on purpose, are noticed by beats, healed by an exchange, and never
cause a storm of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wackamole.core import machine, work
from wackamole.core.agreed import digest_of
from wackamole.core.events import Event, OrderRequested
from wackamole.core.invariants import every_address_is_held_once, settled_members_agree
from wackamole.core.model import NodeId, Table
from wackamole.core.orders import FORCED_INTERVAL_MS
from wackamole.core.standing import Kind, Order
from wackamole.sim.search import A, B, C, small_world
from wackamole.sim.world import World


def settled_world() -> World:
    world = small_world()
    world.beats = True
    world.log = []
    world.run()
    world.pass_time(1000)
    world.log.clear()
    return world


def diverged(world: World) -> list[str]:
    assert world.log is not None
    return [line for line in world.log if " diverged" in line]


def adopted(world: World) -> bool:
    return any(m.state.divergences > 2 for m in world.members.values())


def test_a_member_whose_table_differs_is_found_and_healed() -> None:
    world = settled_world()
    member = world.members[B]
    rows = member.state.table.rows
    wrong = replace(rows[0], holder=B, target=B, generation=rows[0].generation + 5)
    table = replace(member.state.table, rows=(wrong, *rows[1:]))
    member.state = replace(member.state, table=table, recent=((member.state.applied, digest_of(table)),))
    world.pass_time(2000)
    assert diverged(world)
    settled_members_agree(world)
    every_address_is_held_once(world)
    before = len(diverged(world))
    world.pass_time(30_000)
    assert len(diverged(world)) == before


def test_a_difference_that_stays_forces_few_exchanges_and_keeps_everything_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = settled_world()
    plain, handle = digest_of, machine.handle
    who: list[NodeId] = [A]

    def handling(w: work.Work, event: Event) -> None:
        who[0] = w.s.me
        handle(w, event)

    def digest(table: Table) -> str:
        return plain(table) + ("x" if who[0] == B else "")

    monkeypatch.setattr(machine, "handle", handling)
    monkeypatch.setattr(work, "digest_of", digest)
    served = {n: world.members[n].kernel for n in world.members}
    seconds = 60
    for second in range(seconds):  # something must change, or nobody computes a digest again
        world.tell(
            A, OrderRequested((Order(Kind.DRAIN, world.name(C), in_force=second % 2 == 0),))
        )  # who holds nothing
        world.pass_time(1000)
        assert {n: world.members[n].kernel for n in world.members} == served, second
    members = len(world.members)
    assert 2 <= len(diverged(world)) <= members * (seconds * 1000 // FORCED_INTERVAL_MS + 1)
    assert adopted(world)
