"""What follows from the table alone, computed alike by all members: void hand-overs, VIPs that must go, orphans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import placement as placing
from .agreed import agreement, keep_orders
from .electorate import grown
from .model import (
    MEMBERS_MAX,
    Cause,
    NodeId,
    NotEligible,
    Phase,
    Row,
    VipKey,
)
from .standing import Kind, in_force
from .work import Work


def settle(w: Work) -> None:
    """Everything that follows from the table alone, computed alike by all: void hand-overs, VIPs that must go,
    orphans. Where configs or versions differ only the representative places, by messages (hazard 9)."""
    if w.s.phase is not Phase.SETTLED:
        return
    if w.s.me in w.evicted:
        return
    obey_orders(w)
    orphans = [row.key for row in w.rows.values() if row.holder is None and not row.releasing]
    known = {k for keys in {r.known for r in w.reports.values()} for k in keys} if orphans else set()
    for key in orphans:
        if key not in known:
            del w.rows[key]
            w.table_changed = True
    facts = w.placement()
    void = [row for row in w.rows.values() if row.holder is not None and is_void(w, row, facts)]
    for row in void:
        w.put(replace(row, target=row.holder, generation=row.generation + 1))
    if void:
        facts = w.placement()
    alike = agreement(w.reports.values())
    leavers = facts.leavers()
    if alike:
        leavers |= {key: NotEligible.FULL for key in facts.overflow() if key not in leavers}
    if leavers:
        evacuate(w, leavers, facts, alike)
    if alike and any(row.holder is None for row in w.rows.values()) and grown(w.reports.values()):
        for key, node in placing.fill(w.placement() if leavers else facts):
            give(w, w.rows[key], node)


def is_void(w: Work, row: Row, facts: placing.Placement) -> bool:
    """Whether a VIP is to go to somebody who may not have it any more."""
    to = row.target
    if to is None or to == row.holder:
        return False
    return facts.forbidden(to, row.key) or w.reports[to].leaving


def obey_orders(w: Work) -> None:
    """Note at the members who is drained, and at the VIPs which of them balance leaves alone, as the register has it."""
    if not keep_orders(w.reports.values()):
        return
    drained, held, pins = (in_force(w.orders, kind) for kind in (Kind.DRAIN, Kind.HOLD, Kind.PIN))
    for report in list(w.reports.values()):
        if report.draining != (report.name in drained):
            w.put_report(replace(report, draining=not report.draining))
    for row in list(w.rows.values()):
        pin = pins.get(row.vip.name)
        at_home = pin is not None and row.holder in w.reports and w.reports[row.holder].name == pin.node
        if row.sticky != (at_home or row.vip.name in held):
            w.put(replace(row, sticky=not row.sticky))


def evacuate(w: Work, leavers: Mapping[VipKey, NotEligible], facts: placing.Placement, alike: bool) -> None:
    """Give VIPs whose holders may not, or should not, have them a better target."""
    quotas = facts.quotas()
    for key, reason in sorted(leavers.items(), key=lambda kv: kv[0]):
        row = w.rows[key]
        assert row.holder is not None
        to = placing.refuge(facts, key, quotas) if alike and not row.releasing else None  # its loser first
        if to is None and not reason.forbids:
            continue
        if reason is NotEligible.NOT_LISTED and not alike:
            continue  # who shall have it now may not have read so yet: until then it is served as before
        if to is not None:
            facts.move(key, row.holder, to)
        w.put(replace(row, target=to, generation=row.generation + 1, cause=reason.cause, sticky=False))


def give(w: Work, row: Row, to: NodeId) -> None:
    """An orphan gets its holder."""
    cause = row.cause if row.cause not in (Cause.NONE, Cause.CLAIM) else Cause.FILL
    w.put(row.held_by(to, cause))


def evict(w: Work, node: NodeId, incarnation: int) -> None:
    """Count a member as gone although its engine still lists it (hazards 4, 7, 17)."""
    if node in w.evicted:
        return
    w.evicted[node] = incarnation
    w.table_changed = True
    report = w.reports.pop(node, None)
    silenced = report is not None and report.lease_ms > 0  # it ran out while the evictor was patient
    for row in list(w.rows.values()):
        if row.holder == node:
            w.put(
                replace(
                    row,
                    holder=None,
                    target=None,
                    generation=row.generation + 1,
                    previous=None,
                    sticky=False,
                    cause=Cause.EVICTED,
                )
            )
            if not silenced:  # nothing silences it: its VIPs stay where they are until it is gone
                must_release(w, w.rows[row.key], node)
        elif row.target == node:
            w.put(replace(row, target=row.holder, generation=row.generation + 1))
    if report is None:  # it said nothing in this exchange: what others saw it hold before
        for key, holder in w.s.may_serve:
            if holder == node and key in w.rows:
                must_release(w, w.rows[key], node)
    if node == w.s.me:
        w.fall_back("evicted for silence")


def must_release(w: Work, row: Row, node: NodeId) -> None:
    """A member that lost a VIP keeps it blocked until it has confirmed that it is gone."""
    if not any(n == node for n, _ in row.releasing) and len(row.releasing) < MEMBERS_MAX:
        generation = row.generation + 1
        entry = (*row.releasing, (node, generation))
        w.put(replace(row, generation=generation, releasing=tuple(sorted(entry))))
