"""Who holds each VIP, as it is told to people: since when, from whom, and what its segment said."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping

from ..core import effects as do
from ..core.agreed import witness_of
from ..core.model import Cause, NodeId, OnWire, Phase, Report, Row, Table, Vip, VipKey
from ..core.state import State
from .clock import boottime_ms
from .journal import Journal
from .status import name_of

TOLD_AT_ONCE = 200
"""Moves that are written down in one turn of the loop: some 10 ms."""


class Holders:
    """Compares each settled table with the one before. `ask` sends for whoever answers for a VIP on its segment."""

    def __init__(
        self,
        state: Callable[[], State],
        journal: Journal,
        ask: Callable[[Vip, NodeId], None],
    ) -> None:
        self._state = state
        self._journal = journal
        self._ask = ask
        self.since: dict[VipKey, float] = {}
        """Wall clock of each VIP's last change of holder, seconds."""
        self.witness: dict[VipKey, dict[str, object]] = {}
        """What another member heard when it asked for it, since then."""
        self._holders: dict[VipKey, NodeId | None] = {}  # as of the last settled table
        self._previous: dict[VipKey, str | None] = {}  # who held it before, by name
        self._looked_at: dict[VipKey, tuple[NodeId, int] | None] = {}
        self._began: dict[VipKey, int] = {}
        """When it began to change its holder: it was given another target, or its holder was heard for the last time (ms)."""
        self._lost: dict[NodeId, int] = {}  # when who is gone was heard for the last time
        self._untold: deque[tuple[float, dict[str, object]]] = deque()  # moves, and when they came to be known
        self._more: asyncio.Handle | None = None
        self._reports: dict[NodeId, Report] = {}  # the last of everybody, also of who is gone
        self._named: tuple[Table, dict[str, Row]] = (Table(), {})

    def on_view(self, before: State, after: State) -> None:
        """The membership changed: remember since when nothing was heard of who is gone."""
        here = frozenset(after.view.members if after.view is not None else ())
        self._lost = {n: at for n, at in self._lost.items() if n not in here}
        self._lost |= {n: at for n, count, at in before.heard if n not in here and count}

    def on_table(self, before: Table) -> None:
        """The table is another than `before`: tell who moved, and look who answers."""
        state = self._state()
        self._reports |= {r.node: r for r in (*before.reports, *state.table.reports)}
        if state.phase is not Phase.SETTLED:
            return
        now_ms = boottime_ms()
        for row in state.table.rows:
            self._settled(row, self._reports, state, now_ms)
            self._look_on_the_wire(row, state)
        if self._more is None:
            self._tell_some()
        if len(self._holders) > len(state.table.rows):
            self._forget({row.key for row in state.table.rows})

    def _tell_some(self) -> None:
        """To write thousands down takes longer than a beat may wait."""
        self._more = None
        self._write_down(TOLD_AT_ONCE)
        if self._untold:
            self._more = asyncio.get_running_loop().call_soon(self._tell_some)

    def tell_all(self) -> None:
        """What waits to be told, before this process goes."""
        if self._more is not None:
            self._more.cancel()
        self._more = None
        self._write_down(len(self._untold))

    def _write_down(self, most: int) -> None:
        for _ in range(min(most, len(self._untold))):
            moment, fields = self._untold.popleft()
            self._journal.record_of(moment, "moved", fields)

    def _settled(self, row: Row, reports: Mapping[NodeId, Report], state: State, now_ms: int) -> None:
        """Compare with what was known when this member was settled last; a first sight of somebody who held it all along
        is no move."""
        seen = row.key in self._holders
        was = self._holders.get(row.key)
        if seen and was == row.holder:
            if row.target != row.holder:
                self._began.setdefault(row.key, now_ms)
            elif row.holder is not None:
                self._began.pop(row.key, None)  # it stays after all
            return
        if was is not None:
            self._began.setdefault(row.key, self._lost.get(was, now_ms))
        began_ms = self._began.get(row.key)
        if row.holder is not None:
            self._began.pop(row.key, None)
        self._holders[row.key] = row.holder
        self._previous[row.key] = name_of(reports, was)
        self.since[row.key] = time.time()
        self.witness.pop(row.key, None)
        if was is None and (row.holder is None or row.cause is Cause.CLAIM):
            return
        fields: dict[str, object] = {
            "vip": row.vip.name,
            "source": name_of(reports, was) or "nobody",
            "to": name_of(reports, row.holder) or "nobody",
            "cause": row.cause.value,
            "view": str(state.view.id) if state.view else "-",
        }
        if began_ms is not None and row.holder is not None:
            fields["took_ms"] = now_ms - began_ms
        self._untold.append((time.monotonic(), fields))

    def _look_on_the_wire(self, row: Row, state: State) -> None:
        """Whoever is its holder's witness asks for a VIP that was acquired, or kept in a conflict; one that is on its way
        when it has arrived, and one that was held all along not at all."""
        if row.holder is not None and (row.target != row.holder or row.releasing):
            return
        was = self._looked_at.get(row.key)
        now = (row.holder, row.generation if row.cause is Cause.CONFLICT else 0) if row.holder is not None else None
        if now == was:
            return
        seen = row.key in self._looked_at
        self._looked_at[row.key] = now
        if row.holder is None or (not seen and row.cause is Cause.CLAIM):
            return
        if witness_of(state, row.holder) == state.me:
            self._ask(row.vip, row.holder)

    def _forget(self, shown: set[VipKey]) -> None:
        """What a table no longer has, no config has."""
        for known in (self.since, self.witness, self._holders, self._previous, self._looked_at, self._began):
            for key in known.keys() - shown:
                del known[key]

    def show_witness(self, effect: do.ShowWitness) -> None:
        """Keep what a witness heard, and tell it if it is mine, or not as it should be."""
        state = self._state()
        told = {"by": name_of({r.node: r for r in state.table.reports}, effect.by), "result": effect.result.value}
        self.witness[effect.key] = {**told, "at": time.time()}
        if effect.by == state.me or effect.result is not OnWire.VERIFIED:
            self._journal.record("witness", vip=effect.key.split("#")[0], **told)

    def about(self, name: str) -> Mapping[str, object]:
        """What hooks hear of a VIP."""
        state = self._state()
        if self._named[0] is not state.table:
            mine = {v.key for v in state.settings.vips}
            rows = sorted(state.table.rows, key=lambda r: r.key in mine)  # of two of one name, mine
            self._named = (state.table, {r.vip.name: r for r in rows})
        row = self._named[1].get(name)
        vip = row.vip if row is not None else next((v for v in state.settings.vips if v.name == name), None)
        reports = {r.node: r for r in state.table.reports}
        settled = state.phase is Phase.SETTLED and row is not None
        return {
            "vip": name,
            "addresses": [
                {"ip": a.ip, "prefix": a.prefix, "interface": a.interface} for a in (vip.addresses if vip else ())
            ],
            "cause": row.cause.value if settled and row is not None else state.phase.value,
            "holder": name_of(reports, row.holder) if row is not None else None,
            "target": name_of(reports, row.target) if row is not None else None,
            "previous": self._previous.get(row.key) if row is not None else None,
        }
