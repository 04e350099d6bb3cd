"""What is told of who holds what."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from wackamole.core.model import Address, Cause, NodeId, Phase, Settings, Table, Vip
from wackamole.core.state import State
from wackamole.shell.holders import TOLD_AT_ONCE, Holders
from wackamole.shell.journal import Entry, Journal
from wackamole.sim.world import World

A, C = NodeId(1), NodeId(3)
VIP = Vip("web", (Address("192.0.2.10", 32),))


def test_a_move_names_who_is_gone_also_after_an_exchange_without_it() -> None:
    world = World({n: Settings("?a?c"[n], ("a", "c"), (VIP,), "digest", mature_ms=0) for n in (A, C)})
    for node in (A, C):
        world.power_on(node)
    world.pass_time(3000)
    told: list[Entry] = []
    journal = Journal()
    journal.listen(told.append)
    now: list[State] = [world.members[A].state]
    holders = Holders(lambda: now[-1], journal, lambda vip, holder: None)

    def table(phase: Phase, holder: NodeId | None, *members: NodeId) -> None:
        table = now[0].table
        rows = tuple(replace(r, holder=holder, target=holder, cause=Cause.FILL) for r in table.rows)
        reports = tuple(r for r in table.reports if r.node in members)
        now.append(replace(now[0], phase=phase, table=replace(table, rows=rows, reports=reports)))
        holders.on_table(now[-2].table)

    table(Phase.SETTLED, C, A, C)
    table(Phase.EXCHANGE, None, A)
    table(Phase.SETTLED, A, A)
    assert [(e["source"], e["to"]) for e in told] == [("nobody", "c"), ("c", "a")]


def test_thousands_of_moves_are_told_in_many_turns_and_none_is_forgotten() -> None:
    vips = tuple(Vip(f"v{i}", (Address(f"192.0.{i >> 8}.{i & 255}", 32),)) for i in range(2 * TOLD_AT_ONCE + 1))
    told: list[Entry] = []
    journal = Journal()
    journal.listen(told.append)
    world = World({A: Settings("a", ("a",), vips, "digest", mature_ms=0)})
    world.power_on(A)
    world.pass_time(3000)
    state = world.members[A].state
    assert len(state.table.rows) == len(vips)
    holders = Holders(lambda: state, journal, lambda vip, holder: None)

    async def story() -> None:
        turns = []
        holders.on_table(Table())
        while len(told) < len(vips):
            turns.append(len(told))
            await asyncio.sleep(0)
        assert turns == [TOLD_AT_ONCE, 2 * TOLD_AT_ONCE]
        holders._forget(set())
        holders.on_table(Table())
        holders.tell_all()

    asyncio.run(story())
    assert [e["vip"] for e in told] == 2 * [row.vip.name for row in state.table.rows]
