"""Entering a view: with zero rounds, or with an exchange of State messages in which conflicts are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from . import damping, electorate, settling
from . import placement as placing
from .agreed import lapsed
from .events import (
    EngineJoined,
    EngineLost,
)
from .messages import (
    KnownVip,
    StateMessage,
)
from .model import (
    ADDRESSES_MAX,
    BLOCKED_MAX,
    GENERATION_TAKEN_MAX,
    PLACEMENT_VERSION,
    ROUNDS_AHEAD_MAX,
    VIPS_MAX,
    Cause,
    Left,
    NodeId,
    NotEligible,
    Partition,
    Phase,
    Report,
    Row,
    Table,
    Takeover,
    View,
    VipKey,
)
from .standing import Kind, in_force, join
from .state import changed
from .work import Work

HASTY_PERCENT = 85
"""Of the detection. A host that dies is silent for all of it, less what this member was late to hear its last word; a ring
that broke otherwise was quiet for a consensus or two, a fifth or two of it."""
MERGE_MS = 400
"""A Corosync that starts hears the others so late at the latest, and is merged with them within a detection or two."""
GUARD_MS = 500
"""What a dead daemon without a proven fence had is removed by its guard process within this (measured: 3 to 35 ms)."""

_CAUSE_OF_LEAVING = {
    Left.LEFT: Cause.LEFT,
    Left.PROCESS_DIED: Cause.PROCESS_DIED,
    Left.DISCONNECTED: Cause.DISCONNECTED,
    Left.HOST_LOST: Cause.HOST_LOST,
}
_PERHAPS_DIED = (Left.PROCESS_DIED, Left.DISCONNECTED)
_PERHAPS_LIVES = (Left.DISCONNECTED, Left.HOST_LOST)


def on_joined(w: Work, event: EngineJoined) -> None:
    """The engine is there: begin as a newcomer."""
    w.drop_group()
    started = w.s.started_ms if w.s.started_ms is not None else w.now_ms
    w.s = changed(w.s, me=event.me, incarnation=event.incarnation, started_ms=started)
    w.record("joined", node=event.me)


def on_lost(w: Work, event: EngineLost) -> None:
    """The engine is gone, and with it everything that was agreed. It comes back alone, before it finds the others: as a
    newcomer this member takes nothing until it has met them, or has waited."""
    w.drop_group()
    w.s = changed(w.s, mature=False, started_ms=w.now_ms)
    w.record("engine_lost", reason=event.reason)


def on_view(w: Work, view: View) -> None:
    """The membership changed: go on with the table (zero rounds), or open an exchange."""
    if w.s.falling_back is not None:
        return  # I am on my way out
    before = w.s.view
    came_along = before is not None and w.s.me in before.members
    zero_rounds = w.s.phase is Phase.SETTLED and came_along and view.direct and not view.joined
    stay = frozenset(view.members) - frozenset(view.joined)
    left = dict(view.left)
    if before is not None:
        for node in before.members:
            if node not in stay:
                left.setdefault(node, Left.HOST_LOST)
    hasty = is_hasty(w)
    if hasty and len(view.members) > 1 and Left.HOST_LOST in left.values():
        zero_rounds = False  # the others' clocks may tell them something else
    if zero_rounds and electorate.changing(w.s.table.reports):
        zero_rounds = False  # one who is gone may have counted what somebody here keeps and has not been heard to say
    note_joins(w, view, came_along=came_along)
    since = dict(w.s.member_since)
    w.s = changed(
        w.s,
        view=view,
        applied=0,
        recent=(),
        heard=tuple((m, 0, w.now_ms) for m in view.members),
        said=(),
        exchange_round=0,
        next_beat_ms=w.now_ms,
        balance_at_once=False,
        member_since=tuple((m, since[m] if m in since and m not in view.joined else w.now_ms) for m in view.members),
    )
    w.record(
        "view",
        id=view.id,
        members=",".join(w.name_of(m) for m in view.members),
        left=",".join(f"{w.name_of(n)}:{why.value}" for n, why in view.left) or "-",
        exchange="no" if zero_rounds else "yes",
    )
    settled = w.s.table if w.s.phase is Phase.SETTLED else w.s.settled_table
    had = settled if settled is not None else Table()
    if electorate.quorate(had.reports) and suspect(w, before, stay):
        w.record("suspect", since_ms=w.now_ms - (w.s.renewed_ms or 0))
        w.fall_back("cut off or frozen for longer than the lease")
        return
    for node in view.members:
        w.forget_lapse(node)
    for node in sorted(set(before.members if before is not None else ()) - set(view.members)):
        lose(w, had, node, left.get(node, Left.HOST_LOST), hasty=hasty)
    w.evicted = {n: i for n, i in w.evicted.items() if n in stay}
    w.table_changed = True
    if not zero_rounds:
        open_exchange(w, 1, stay, had)
        return
    w.s = changed(
        w.s,
        component=len(view.members) - len(w.evicted),
        next_balance_ms=w.now_ms + w.s.settings.balance_interval_ms,
        balance_left=0,
    )
    w.reports = {n: r for n, r in w.reports.items() if n in stay}
    for row in list(w.rows.values()):
        without(w, row, stay, left)
    settling.settle(w)


def note_joins(w: Work, view: View, *, came_along: bool) -> None:
    """Count who came, if most of us stayed; not who comes back from a restart that it had announced."""
    settle_ms, now_ms = w.s.settings.settle_ms, w.now_ms
    gone = set(view.joined) | (set(w.reports) - set(view.members))
    planned = {n for n in gone if n in w.reports and w.reports[n].restart_ms}
    w.s = changed(w.s, joins=tuple((n, count - (n in planned), at) for n, count, at in w.s.joins))
    if came_along and 2 * len(view.joined) <= len(view.members):
        counts = [(n, 1 + damping.times(w.s.joins, n, settle_ms, now_ms)) for n in view.joined]
        w.s = changed(w.s, joins=damping.noted(w.s.joins, counts, settle_ms, now_ms))


def suspect(w: Work, before: View | None, stay: frozenset[NodeId]) -> bool:
    """Whether it is rather I who was gone: my lease ran out before this view came, and most of us are not in it. The
    others may have taken over long ago, so to take over from them now would be the mistake of a frozen host that wakes."""
    if before is None or not lapsed(w.s, w.now_ms):
        return False
    standing_before = [n for n in before.members if n not in w.evicted]
    return len(standing_before) > 1 and 2 * len(stay & set(standing_before)) <= len(standing_before)


def is_hasty(w: Work) -> bool:
    """Whether something was delivered so shortly before this view that nobody can have died of silence: then the ring broke
    although everybody lives, as it may when a host joins that not all can reach at once, and it is about to merge again
    (docs/decisions/0010-…)."""
    detection_ms = w.s.settings.detection_ms
    last_ms = max((at for _, _, at in w.s.heard), default=None)
    return last_ms is not None and 100 * (w.now_ms - last_ms) < HASTY_PERCENT * detection_ms


def lose(w: Work, had: Table, node: NodeId, why: Left, *, hasty: bool) -> None:
    """A member is gone: note for how long its kernel may serve on, if that has to be waited for (hazards 5, 6, 7, 14)."""
    if (
        node in w.evicted
    ):  # its lease was waited for before, if it had one; else its guard has yet to remove what it has
        serves = any(n == node for row in (*had.rows, *w.rows.values()) for n, _ in row.releasing)
        w.expect_lapse(node, w.evicted[node], GUARD_MS if serves and why in _PERHAPS_DIED else 0)
        return
    report = next((r for r in had.reports if r.node == node), None) or w.reports.get(node)
    if report is None:
        return  # it never held anything here
    everybody = (*had.reports, *w.reports.values())
    strict = any(r.takeover is Takeover.STRICT or r.partition is Partition.MAJORITY for r in everybody)
    wait_ms = 0
    if report.restart_ms and (why is not Left.HOST_LOST or strict):
        wait_ms = report.restart_ms + GUARD_MS  # it said that its kernel would serve on (hazard 20)
    elif why in _PERHAPS_DIED and not report.fenced:
        wait_ms = report.lease_ms or GUARD_MS
    elif why in _PERHAPS_LIVES and strict:
        wait_ms = report.lease_ms
    if why is Left.HOST_LOST and hasty:
        wait_ms = max(wait_ms, 2 * w.s.settings.detection_ms)
    w.expect_lapse(node, report.incarnation, wait_ms)


def without(w: Work, row: Row, stay: frozenset[NodeId], left: Mapping[NodeId, Left]) -> None:
    """Take those who are gone out of a row."""
    new = row
    if any(n not in stay and n not in w.lapsing for n, _ in row.releasing):
        new = replace(new, releasing=tuple(x for x in row.releasing if x[0] in stay or x[0] in w.lapsing))
    if row.previous is not None and row.previous not in stay:
        new = replace(new, previous=None)
    if row.holder is not None and row.holder not in stay:
        why = _CAUSE_OF_LEAVING[left.get(row.holder, Left.HOST_LOST)]
        # A hand-over that was under way is void: whom it was for is decided anew.
        new = Row(row.key, row.vip, generation=row.generation + 1, releasing=new.releasing, cause=why)
        if row.holder in w.lapsing:
            new = replace(new, releasing=tuple(sorted({*new.releasing, (row.holder, new.generation)})))
    elif row.target is not None and row.target not in stay:
        new = replace(new, target=row.holder, generation=row.generation + 1)
    if new is not row:
        w.put(new)


def open_exchange(w: Work, number: int, stay: frozenset[NodeId] | None = None, had: Table | None = None) -> None:
    """Forget the table, keep what my kernel has, and say so. `had`: the table of the last settled view."""
    view = w.s.view
    assert view is not None
    me = w.s.me
    old_statement = w.s.statement
    definitions = {vip.key: vip for vip in (*w.s.settings.vips, *w.s.wanted)}
    addresses = sum(len(vip.addresses) for vip in definitions.values())
    for row in [
        w.rows[key] for key in sorted(w.rows)
    ]:  # of VIPs that are not mine as many as a config may have: others know them as well
        addresses += len(row.vip.addresses)
        if len(definitions) < VIPS_MAX and addresses <= ADDRESSES_MAX:
            definitions.setdefault(row.key, row.vip)
    generations = {row.key: row.generation for row in w.rows.values()}
    sticky = {row.key for row in w.rows.values() if row.sticky}
    may = frozenset(w.s.may_hold)
    if w.s.phase is Phase.EXCHANGE and me not in w.reports and old_statement is not None:
        held = [k for k in old_statement.held if k in may]
        for known in old_statement.known:
            key = known.vip.key
            if len(definitions) < VIPS_MAX:
                definitions.setdefault(key, known.vip)
            generations[key] = max(generations.get(key, 0), known.generation)
            if known.sticky:
                sticky.add(key)
        blocked_before = old_statement.blocked
    else:
        held = [r.key for r in w.rows.values() if r.holder == me and r.key in may]  # what the kernel has, not the table
        blocked_before = ()
    if w.s.inherited:
        # Handed over by my predecessor, and reserved for me, if it is not too late.
        held += [v.key for v in w.s.inherited if w.now_ms < w.s.inherited_until_ms]
        w.s = changed(w.s, inherited=())
    here = frozenset(view.members) if stay is None else stay
    blocked = {(r.key, n) for r in w.rows.values() for n, _ in r.releasing if n in w.evicted and n in here}
    blocked |= {(k, n) for k, n in blocked_before if n in w.evicted and n in here}
    if had is None:
        had = w.s.table if w.s.phase is Phase.SETTLED else w.s.settled_table or Table()
    for r in (*had.rows, *w.rows.values()):
        blocked |= {(r.key, n) for n in (r.holder, *(x for x, _ in r.releasing)) if n is not None and n in w.lapsing}
    blocked |= {(k, n) for k, n in blocked_before if n in w.lapsing}
    # without a lease what a member was heard to have stays blocked until it speaks, also if that exchange was not over
    spoke = (*had.reports, *w.reports.values())
    unsilenced = here - {me} - {r.node for r in spoke if r.lease_ms}
    heard = {r.node for r in spoke} & unsilenced
    blocked |= {(r.key, r.holder) for r in (*had.rows, *w.rows.values()) if r.holder is not None and r.holder in heard}
    blocked |= {(k, n) for k, n in blocked_before if n in unsilenced}
    held_set = frozenset(held)
    statement = StateMessage(
        round=number,
        report=own_report(w),
        known=tuple(KnownVip(definitions[k], generations.get(k, 0), k in sticky) for k in sorted(definitions)),
        held=tuple(sorted(held_set)),
        releasing=tuple(k for k in w.s.may_hold if k not in held_set and k in definitions),
        evicted=tuple(sorted(w.evicted.items())),
        blocked=tuple(sorted(blocked)[:BLOCKED_MAX]),
        lapsing=tuple((n, i, ms) for n, (i, ms) in sorted(w.lapsing.items())),
        orders=w.orders,
        joins=tuple(
            (n, times)
            for n, _, _ in w.s.joins
            if (times := damping.times(w.s.joins, n, w.s.settings.settle_ms, w.now_ms))
        ),
    )
    w.rows, w.reports = {}, {}
    w.table_changed = True
    w.s = changed(
        w.s,
        phase=Phase.EXCHANGE,
        exchange_round=number,
        exchange_since_ms=w.now_ms,
        statement=statement,
        settled_table=had,
        may_serve=(),
        said=(),
        recent=(),
    )


def own_report(w: Work, restart_ms: int = 0) -> Report:
    """What I say of myself now; for how long my kernel serves on is the group's to say (Restart)."""
    settings = w.s.settings
    refused = {r.key: NotEligible.REFUSED for r in w.s.refusals if r.until_ms > w.now_ms}
    reasons = {**dict(w.s.failing), **refused, **dict(w.s.ineligible)}
    for key in settings.not_mine:  # another reason that forbids would not let me keep it for a while
        if key not in w.s.may_hold or key not in reasons or not reasons[key].forbids:
            reasons[key] = NotEligible.NOT_LISTED
    return Report(
        node=w.s.me,
        incarnation=w.s.incarnation,
        name=settings.node,
        known=settings.keys,
        config_digest=settings.config_digest,
        nodes=settings.nodes,
        votes=settings.votes,
        electorates=w.s.electorates,
        placement_version=PLACEMENT_VERSION,
        weight=settings.weight,
        mature=is_mature(w),
        draining=settings.node in in_force(w.orders, Kind.DRAIN),
        leaving=w.s.leaving_since_ms is not None,
        ineligible=tuple(sorted(reasons.items(), key=lambda kv: kv[0])),
        fenced=w.s.fenced,
        lease_ms=settings.lease_ms,
        restart_ms=restart_ms,
        component=w.s.component,
        partition=settings.partition,
        takeover=settings.takeover,
        version=settings.version,
        load=w.s.load.announced,
        keeps_orders=True,
        chosen=w.s.chosen,
        capacity=settings.capacity,
    )


def is_mature(w: Work) -> bool:
    """Whether I have waited long enough, or met somebody who has. Who comes new does not know whether a member was lost just before
    it joined, so where a lease is to be waited for, one's length is waited from then on; and without a fence, that a guard
    has done its work."""
    started, settings = w.s.started_ms, w.s.settings
    strict = settings.takeover is Takeover.STRICT or settings.partition is Partition.MAJORITY
    lost_ms = settings.lease_ms + settings.lease_ms // 100 + 2 * settings.detection_ms + MERGE_MS if strict else 0
    wait_ms = max(lost_ms, 0 if w.s.fenced else GUARD_MS)
    if w.s.mature or started is None:
        return w.s.mature
    joined = max(started, dict(w.s.member_since).get(w.s.me, w.now_ms))
    met = settings.partition is Partition.MAJORITY and any(r.mature for r in w.reports.values())  # but no majority
    return (met or w.now_ms - started >= settings.mature_ms) and w.now_ms - joined >= wait_ms


def on_state(w: Work, sender: NodeId, message: StateMessage) -> None:
    """A member's word in an exchange; one of a new round opens it for everybody."""
    if not w.s.exchange_round <= message.round <= w.s.exchange_round + ROUNDS_AHEAD_MAX:
        return
    if message.round == w.s.exchange_round and w.s.phase is Phase.SETTLED:
        return
    if message.round > w.s.exchange_round:
        open_exchange(w, message.round)
    if sender in w.reports:
        return
    view = w.s.view
    assert view is not None
    report = replace(message.report, node=sender)
    w.put_report(report)
    w.put_orders(join(w.orders, message.orders))
    if sender == w.s.me:
        w.s = changed(w.s, next_beat_ms=w.now_ms)  # only now may a beat renew my lease (hazard 16)
    joins = damping.noted(
        w.s.joins, [j for j in message.joins if j[0] in view.members], w.s.settings.settle_ms, w.now_ms
    )
    w.s = changed(w.s, joins=joins)
    w.add_rows(known.vip for known in message.known)
    rows = w.rows
    for known in message.known:
        row = rows.get(known.vip.key)
        if row is None:
            continue
        generation = max(row.generation, min(known.generation, GENERATION_TAKEN_MAX))
        sticky = row.sticky or known.sticky
        if (generation, sticky) != (row.generation, row.sticky):
            w.put(replace(row, generation=generation, sticky=sticky))
    shared = placing.shared(rows.values()) if message.held else {}
    for key in message.held:
        if key in rows:
            claim(w, rows[key], sender, shared)
    for key in message.releasing:
        if key in w.rows:
            settling.must_release(w, w.rows[key], sender)
    for node, incarnation, wait_ms in message.lapsing:
        if node not in view.members:
            w.expect_lapse(node, incarnation, wait_ms)
    gone = {node for node, _ in message.evicted} | set(w.evicted) | set(w.lapsing)
    for key, node in message.blocked:
        if key in w.rows and node in gone:
            settling.must_release(w, w.rows[key], node)
    silent = {(key, node) for key, node in message.blocked if node in view.members and node not in gone}
    w.s = changed(w.s, may_serve=tuple(sorted({*w.s.may_serve, *silent})))
    for node, incarnation in message.evicted:
        heard_as = w.reports.get(node)
        if node in view.members and (heard_as is None or heard_as.incarnation == incarnation):
            settling.evict(w, node, incarnation)
        if w.s.view is None:
            return  # it was me
    complete_if_all(w)


def claim(w: Work, row: Row, claimant: NodeId, shared: Mapping[str, Sequence[VipKey]]) -> None:
    """A member says that it holds this. If another does, one of them loses at once (hazard 23). `shared`: which rows have an
    address that others have as well."""
    sharing = {row.key}
    if shared:
        sharing.update(key for address in row.vip.addresses for key in shared.get(address.ip, ()))
    rivals = [other for key in sorted(sharing) if (other := w.rows[key]).holder not in (None, claimant)]
    for rival in rivals:
        assert rival.holder is not None
        if standing(w, claimant, row.key) < standing(w, rival.holder, rival.key):
            w.record("conflict", vip=rival.key, winner=w.name_of(claimant), loser=w.name_of(rival.holder))
            loser = rival.holder
            w.put(replace(rival, holder=None, target=None, cause=Cause.CONFLICT))
            settling.must_release(w, w.rows[rival.key], loser)
        else:
            w.record("conflict", vip=row.key, winner=w.name_of(rival.holder), loser=w.name_of(claimant))
            settling.must_release(w, w.rows[row.key], claimant)
            return
    w.put(w.rows[row.key].held_by(claimant, Cause.CONFLICT if rivals else Cause.CLAIM))


def standing(w: Work, node: NodeId, key: VipKey) -> tuple[int, int, int]:
    """The lesser wins a conflict: who may hold it, then who comes from the larger component, then by order."""
    report = w.reports[node]
    reason = dict(report.ineligible).get(key)
    barred = key not in report.known or (reason is not None and reason.forbids)
    return (int(barred), -report.component, node)


def awaited(w: Work, view: View) -> tuple[NodeId, ...]:
    """Members whose State has not been delivered in this exchange; the evicted are not waited for (hazard 17)."""
    return tuple(m for m in view.members if m not in w.evicted and m not in w.reports)


def complete_if_all(w: Work) -> None:
    """The exchange is over when all that are awaited have spoken."""
    view = w.s.view
    if view is None or w.s.phase is not Phase.EXCHANGE or awaited(w, view):
        return
    w.s = changed(
        w.s,
        phase=Phase.SETTLED,
        component=len(view.members) - len(w.evicted),
        statement=None,
        settled_table=None,
        may_serve=(),
        next_balance_ms=w.now_ms + w.s.settings.balance_interval_ms,
        balance_left=0,
    )
    for row in list(w.rows.values()):
        w.put(row.held_by(row.holder, row.cause))
    names = {r.name for r in w.reports.values()}
    if electorate.grown(w.reports.values()) or all(set(r.nodes) <= names for r in w.reports.values()):
        mature_all(w)
    w.record("settled", view=view.id, round=w.s.exchange_round, members=len(view.members))
    settling.settle(w)


def mature_all(w: Work) -> None:
    """Maturity spreads to everybody who meets the mature (hazard 28)."""
    for report in list(w.reports.values()):
        if not report.mature:
            w.put_report(replace(report, mature=True))
    w.s = changed(w.s, mature=True)
