"""What is told of who holds what."""

from __future__ import annotations

from dataclasses import replace

from wackamole.core.model import Address, Cause, NodeId, Phase, Settings, Vip
from wackamole.core.state import State
from wackamole.shell.holders import Holders
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
