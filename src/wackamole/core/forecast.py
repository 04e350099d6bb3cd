"""What would happen if: the core's own rules, run ahead on a table until nothing changes any more.

It is `settle`, hand-overs that all succeed, and rounds of balance: the very functions by which members place VIPs, so what
it says is what then happens, as long as nothing else does. It supposes that all members read the same config at the same
moment, that the cluster has matured, that balance has waited for `settle`, and that loads stay as they are (what only they
ask for is not foreseen).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from . import balancing, settling, views
from .model import Cause, Left, NodeId, Phase, Report, Row, Settings, Table
from .orders import cause_of_move
from .standing import Kind, Order, following, obey
from .state import State
from .voice import MOVES_AT_ONCE
from .work import Work

ROUNDS_MAX = 10_000
"""Every round brings members closer to their shares: more than there can be."""


def supposed(table: Table, settings: Settings, me: NodeId) -> State:
    """A settled member of a group with this table, in which all agree."""
    reports = tuple(
        replace(r, config_digest=settings.config_digest, placement_version=0, mature=True) for r in table.reports
    )
    return State(settings, phase=Phase.SETTLED, me=me, table=replace(table, reports=reports))


def cluster(members: Iterable[tuple[NodeId, Settings]]) -> Table:
    """The table of a cluster in which nobody holds anything yet and all are there."""
    listed = tuple(members)
    reports = tuple(report_of(node, settings) for node, settings in sorted(listed, key=lambda m: m[0]))
    vips = {v.key: v for _, settings in listed for v in settings.vips}
    return Table(tuple(Row(k, vips[k]) for k in sorted(vips)), reports)


def report_of(node: NodeId, settings: Settings) -> Report:
    """What a member with these settings says of itself when it starts, nothing being wrong with it."""
    return views.own_report(Work(State(settings, me=node), 0))


def without(state: State, names: Iterable[str]) -> State:
    """The hosts of these nodes are lost."""
    gone = frozenset(names)
    w = Work(state, 0)
    stay = frozenset(n for n, r in w.reports.items() if r.name not in gone)
    lost = {n: Left.HOST_LOST for n in w.reports if n not in stay}
    w.reports = {n: r for n, r in w.reports.items() if n in stay}
    w.table_changed = True
    for row in list(w.rows.values()):
        views.without(w, row, stay, lost)
    return _done(w)


def drained(state: State, names: Iterable[str]) -> State:
    """These nodes are drained."""
    w = Work(state, 0)
    wishes = [Order(Kind.DRAIN, name, in_force=True) for name in names]
    w.put_orders(obey(w.orders, following(w.orders, wishes)))
    for report in list(w.reports.values()):
        if any(report.name == wish.subject for wish in wishes):
            w.put_report(replace(report, draining=True))
    return _done(w)


def forecast(state: State) -> tuple[Row, ...]:
    """Where every VIP is when all has come to rest, and why."""
    w = Work(state, 0)
    w.add_rows(vip for vip in state.settings.vips)
    most = state.settings.moves_per_round
    for _ in range(ROUNDS_MAX):
        settling.settle(w)
        if _hand_over(w):
            continue
        facts = w.placement()
        moves = balancing.balance(w.placement(), None, MOVES_AT_ONCE if most is None else min(most, MOVES_AT_ONCE))
        if not moves:
            break
        for key, to in moves:
            row = w.rows[key]
            why = cause_of_move(row.holder, key, facts, Cause.BALANCE)
            w.put(replace(row, target=to, generation=row.generation + 1, cause=why))
    return tuple(w.rows[k] for k in sorted(w.rows))


def _hand_over(w: Work) -> bool:
    """Whoever lets go of something has done so, and whoever is to take it has it. Returns whether there was any."""
    under_way = [r for r in w.rows.values() if r.releasing or r.holder != r.target]
    for row in under_way:
        w.put(replace(row, holder=row.target, releasing=(), generation=row.generation + 1))
    return bool(under_way)


def _done(w: Work) -> State:
    w.freeze_table()
    return w.s
