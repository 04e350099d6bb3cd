"""Facts about what is agreed: pure functions of the table, of reports, of a member's state."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from .effects import Announce, Effect, RenewLease
from .electorate import quorate
from .messages import Beat
from .model import NodeId, Phase, Report, Row, Settings, Table, VipKey
from .placement import Placement
from .standing import Kind, Register, in_force
from .state import State, changed


def representative(state: State) -> NodeId | None:
    """The first member in order that is in good standing: it balances, and assigns when configs differ."""
    if state.view is None:
        return None
    evicted = {n for n, _ in state.table.evicted}
    return min((n for n in state.view.members if n not in evicted), default=None)


def witness_of(state: State, holder: NodeId) -> NodeId | None:
    """Who looks whether a VIP of this member is answered for on the wire: the next one in good standing, in order."""
    evicted = {n for n, _ in state.table.evicted}
    others = [n for n in state.view.members if n != holder and n not in evicted] if state.view is not None else []
    return min(others, key=lambda n: (n < holder, n), default=None)


def facts_of(state: State) -> Placement:
    """What placement knows of the agreed table."""
    table = state.table
    return facts(state.settings, table.rows, table.reports, (n for n, _ in table.evicted), table.orders)


def facts(
    settings: Settings,
    rows: Collection[Row],
    reports: Collection[Report],
    evicted: Iterable[NodeId] = (),
    orders: Register = (),
) -> Placement:
    """What placement knows. An operator's pin comes before all that the config wishes, and is one more wish all the same."""
    prefer, avoid = dict(settings.prefer), dict(settings.avoid)
    if orders and keep_orders(reports):
        pins = in_force(orders, Kind.PIN)
        for key, pin in [(row.key, pins[row.vip.name]) for row in rows if row.vip.name in pins]:
            prefer[key] = (pin.node, *(name for name in prefer.get(key, ()) if name != pin.node))
            if key in avoid:
                avoid[key] = tuple(name for name in avoid[key] if name != pin.node)
    return Placement(
        rows,
        reports,
        evicted,
        prefer,
        settings.count,
        settings.shares,
        avoid=avoid,
        apart=dict(settings.apart),
    )


def keep_orders(reports: Iterable[Report]) -> bool:
    """Whether all members keep operators' orders. While one does not, none counts: all must compute alike."""
    return all(r.keeps_orders for r in reports)


def agreement(reports: Iterable[Report]) -> bool:
    """Whether all place by the same config and the same version of placement, so that each may compute alone (hazard 9)."""
    return len({(r.config_digest, r.placement_version) for r in reports}) <= 1


def digest_of(table: Table) -> str:
    """A short digest of holders, targets, generations, good standing and what placement reads."""
    h = hashlib.blake2b(digest_size=8)
    for row in table.rows:
        h.update(f"{row.key}|{row.holder}|{row.target}|{row.generation}|{row.releasing}|{row.sticky}\n".encode())
    for r in table.reports:
        h.update(
            f"{r.node}|{r.incarnation}|{r.name}|{r.mature}|{r.draining}|{r.leaving}|{r.restart_ms}|{r.weight}|".encode()
        )
        # not why: a version that does not know a reason has another for it
        h.update(f"{r.config_digest}|{[key for key, _ in r.ineligible]}|{r.electorates}\n".encode())
        if r.load is not None:
            h.update(f"{r.load}\n".encode())
        if r.chosen:
            h.update(f"{r.chosen}\n".encode())
    h.update(repr((table.evicted, table.lapsing)).encode())
    if keep_orders(table.reports):
        for o in table.orders:
            h.update(f"{o.kind.value}|{o.subject}|{o.rank}\n".encode())
    return h.hexdigest()


def heard(state: State, sender: NodeId, now_ms: int) -> State:
    """One more message of this member was delivered in this view."""
    heard = tuple((m, n + 1, now_ms) if m == sender else (m, n, at) for m, n, at in state.heard)
    return changed(state, heard=heard)


def renews(state: State, beat: Beat, now_ms: int) -> bool:
    """Whether this beat of mine, delivered now, proves that loop, engine and group all work: it is young, I am in good
    standing in the view (hazards 3, 14, 16), and my kernel has nothing but what the table gives me. A kernel that is slow
    to let go of what I had before I fell back would else answer for it again, beside its new holder."""
    if not 0 <= now_ms - beat.sent_ms <= state.settings.beat_age_max_ms:
        return False
    if any(n == state.me for n, _ in state.table.evicted):
        return False
    mine = {row.key for row in state.table.rows if row.holder == state.me}
    if not mine.issuperset(state.may_hold):
        return False
    if state.phase is Phase.SETTLED:
        return quorate(state.table.reports)
    return state.phase is Phase.EXCHANGE and any(r.node == state.me for r in state.table.reports)


def renew(state: State, beat: Beat, now_ms: int) -> tuple[State, tuple[Effect, ...]]:
    """My lease begins anew. If I was dark before, nobody heard what I announced since: announce again (hazard 29)."""
    bound_ms = max(state.settings.lease_ms - state.settings.beat_age_max_ms, 0)
    dark = state.renewed_ms is None or now_ms - state.renewed_ms >= bound_ms > 0
    confirmed = frozenset(state.confirmed) if dark else frozenset[VipKey]()
    unheard = tuple(v for v in state.wanted if v.key in confirmed)
    again = (Announce(unheard),) if unheard else ()
    return changed(state, renewed_ms=now_ms), (RenewLease(beat.sent_ms), *again)


def lapsed(state: State, now_ms: int) -> bool:
    """Whether my lease has run out since the last good beat came back."""
    bound_ms = state.settings.lease_ms or state.settings.evict_after_ms
    return state.renewed_ms is not None and now_ms - state.renewed_ms > bound_ms
