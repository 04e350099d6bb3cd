"""What there is to say, derived from the state after every event (hazard 21): nothing is queued."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from . import balancing, damping, holding, views
from . import placement as placing
from .agreed import agreement, keep_orders
from .effects import LeaveGroup, Multicast
from .electorate import grown
from .messages import (
    Assign,
    Attributes,
    Beat,
    Drain,
    Evict,
    Failed,
    Lapsed,
    Move,
    Moves,
    Ordered,
    Released,
)
from .model import (
    ROWS_MAX,
    NodeId,
    Phase,
    Row,
    Vip,
    VipKey,
)
from .standing import Kind, ended, following
from .state import Refusal, State, changed
from .work import Work

BY_CONFIG = "config"
"""Who takes an order back whose VIP or node is in no config any more."""
MOVES_AT_ONCE = 256
"""Of balance, in one step: some milliseconds of work (docs/decisions/0021-placement.md)."""


def speak(w: Work) -> None:
    """Say what there is to say, and nothing twice."""
    if w.s.table is not w.before.table or w.s.may_hold is not w.before.may_hold:
        w.s = changed(w.s, gone=gone(w.s))
    s = w.s
    view = s.view
    if view is None or s.phase in (Phase.OFFLINE, Phase.GONE):
        leave_if_empty(w)
        return
    beat_due = w.now_ms >= s.next_beat_ms
    if beat_due:
        say_beat(w)
        watch_for_silence(w)
    if s.leaving_since_ms is not None and may_leave(w, s.leaving_since_ms):
        go(w)
        return
    if w.s.phase is Phase.EXCHANGE and w.s.me not in w.reports:
        if w.s.statement is not None:
            w.say(w.s.statement)
        return
    say_released(w)
    say_failed(w)
    mine = w.reports.get(w.s.me)
    if mine is not None:
        if w.s.leaving_since_ms is not None and not mine.leaving:
            w.say(Drain(w.s.me, mine.draining, leaving=True))
        own = views.own_report(w, mine.restart_ms)
        if replace(own, component=mine.component, mature=own.mature or mine.mature, leaving=mine.leaving) != mine:
            w.say(Attributes(own, new_vips(w)))
    if w.s.phase is Phase.SETTLED and w.first() == w.s.me:
        represent(w)
        if beat_due:
            end_orders(w)


def new_vips(w: Work) -> tuple[Vip, ...]:
    """My VIPs that the table does not have yet."""
    return tuple(v for v in w.s.settings.vips if v.key not in w.rows)


def say_beat(w: Work) -> None:
    """I am alive."""
    view = w.s.view
    assert view is not None
    digest = w.s.recent[-1][1] if w.s.recent and w.s.phase is Phase.SETTLED else ""
    number = w.s.beat_number + 1
    w.s = changed(w.s, beat_number=number, next_beat_ms=w.now_ms + w.s.settings.beat_ms)
    w.effects.append(Multicast(view.id, Beat(number, w.s.applied, digest, w.now_ms)))


def watch_for_silence(w: Work) -> None:
    """Judge others only while my own beats come back (hazard 4)."""
    known = {r.node: r for r in (w.s.settled_table.reports if w.s.settled_table is not None else ())} | w.reports
    heard = {m: (n, at) for m, n, at in w.s.heard}
    own_count, own_at = heard[w.s.me]
    if w.now_ms - own_at > 3 * w.s.settings.beat_ms or not own_count:
        return
    for member, (count, at) in sorted(heard.items()):
        if member == w.s.me or member in w.evicted:
            continue
        report = w.reports.get(member)
        announced_ms = max(known[member].lease_ms, known[member].restart_ms) if member in known else 0
        patience_ms = max(w.s.settings.evict_after_ms, announced_ms + announced_ms // 100)
        if w.now_ms - at >= patience_ms:
            w.say(Evict(member, report.incarnation if report else 0, count))
        elif w.s.phase is Phase.EXCHANGE and report is None and w.now_ms - w.s.exchange_since_ms >= 2 * patience_ms:
            w.say(Evict(member, 0, count, w.s.exchange_round))


def say_released(w: Work) -> None:
    """What the table takes from me and my kernel no longer has."""
    if w.s.gone:
        w.say(Released(w.s.gone))


def gone(state: State) -> tuple[tuple[VipKey, int], ...]:
    """What a member no longer has and is waited for to say so."""
    me = state.me
    taken = [r for r in state.table.rows if r.releasing or (r.holder == me and r.target != me)]
    may = frozenset(state.may_hold) if taken else frozenset[VipKey]()
    found = [(r.key, r.generation) for r in taken if r.holder == me and r.target != me and r.key not in may]
    found += [(r.key, number) for r in taken for node, number in r.releasing if node == me and r.key not in may]
    return tuple(sorted(found))


def say_failed(w: Work) -> None:
    """What my kernel refused."""
    keep: list[Refusal] = []
    for refusal in w.s.refusals:
        row = w.rows.get(refusal.key)
        if refusal.generation is not None:
            if row is not None and row.holder == w.s.me and row.generation == refusal.generation:
                w.say(Failed(refusal.key, refusal.generation, refusal.reason))
            else:
                refusal = replace(refusal, generation=None)
        keep.append(refusal)
    if tuple(keep) != w.s.refusals:
        w.s = changed(w.s, refusals=tuple(keep))


def represent(w: Work) -> None:
    """What only the first member does: assign and evacuate where not all compute alike, and balance in rounds."""
    reports = w.s.table.reports
    for node, incarnation, due_ms in w.s.lapse_due:
        if w.now_ms >= due_ms:
            w.say(Lapsed(node, incarnation))
    if not agreement(reports):
        place_for_all(w)
    if w.now_ms < w.s.next_balance_ms:
        return
    settings = w.s.settings
    w.s = changed(w.s, next_balance_ms=w.now_ms + settings.balance_interval_ms)
    if grown(reports) and agreement(reports):
        balance(w)
    else:
        w.s = changed(w.s, balance_at_once=False)  # while a config goes round, what is to move is not known yet


def balance(w: Work) -> None:
    """A round; one of many moves is made in parts, so that no step takes long."""
    settings, at_once = w.s.settings, w.s.balance_at_once
    all_of_it = ROWS_MAX if at_once or settings.moves_per_round is None else settings.moves_per_round
    left = w.s.balance_left or all_of_it
    onto = None if at_once else tuple(steady(w.s, w.now_ms))
    # what only loads ask for has to wait for the loads all the same
    for_load = 0 if at_once or w.s.balance_left else moves_for_load(w.s, w.now_ms)
    part = min(left, MOVES_AT_ONCE)
    rest = (settings, onto, for_load, part)
    if w.s.at_rest is not None and w.s.at_rest[0] is w.s.table and w.s.at_rest[1:] == rest:
        w.s = changed(w.s, balance_at_once=False)
        return  # the same facts: nothing would move
    made = balancing.Balance(w.placement(), onto, part, for_load)
    w.s = changed(w.s, at_rest=None if made.moves else (w.s.table, *rest))
    left = left - len(made.moves) if made.moves and made.cut_short else 0
    w.s = changed(w.s, balance_left=left, balance_at_once=at_once and left > 0)
    if left:
        w.s = changed(w.s, next_balance_ms=w.now_ms + settings.beat_ms)
    say_moves(w, made.moves)


def end_orders(w: Work) -> None:
    """Take back what is ordered about VIPs and nodes that no config has any more, as the first member: who comes later under an
    old name is another. Not while a config goes round, which may yet be taken back."""
    table = w.s.table
    if not any(o.in_force for o in table.orders) or not keep_orders(table.reports) or not agreement(table.reports):
        return
    vips = {row.vip.name for row in table.rows}
    nodes = {name for r in table.reports for name in (r.name, *r.nodes)}
    lost = [
        order
        for order in table.orders
        if order.in_force
        and (order.subject not in (nodes if order.kind is Kind.DRAIN else vips) or order.node not in {"", *nodes})
    ]
    if lost:
        w.say(Ordered(following(table.orders, [ended(order, BY_CONFIG) for order in lost])))


def steady(state: State, now_ms: int) -> list[NodeId]:
    """Members that have been there for long enough to be given more; the longer, the more often they came of late."""
    since, settle_ms = dict(state.member_since), state.settings.settle_ms
    return [
        r.node
        for r in state.table.reports
        if now_ms - since.get(r.node, now_ms) >= damping.patience_ms(state.joins, r.node, settle_ms, now_ms)
    ]


def moves_for_load(state: State, now_ms: int) -> int:
    """How many VIPs may move now that only the load asks for: none until the loads have followed the last change."""
    shares, since_ms = state.settings.shares, state.shares_changed_ms
    return shares.moves_per_round if since_ms is not None and now_ms - since_ms >= shares.pause_ms else 0


def say_moves(w: Work, moves: Iterable[tuple[VipKey, NodeId]]) -> None:
    """Moves of the balance."""
    said: list[Move] = []
    for key, to in moves:
        row = w.rows[key]
        if row.holder is not None:
            said.append(Move(key, row.holder, row.generation, to))
    if said:
        w.say(Moves(tuple(said), operator=False))


def place_for_all(w: Work) -> None:
    """Where configs differ: assign orphans, and empty the drained and the sick."""
    facts = w.placement()
    quotas = facts.quotas()
    moves: list[tuple[VipKey, NodeId]] = []
    for row in w.s.table.rows:
        if row.holder is None or row.holder != row.target or row.holder not in facts.reports or row.releasing:
            continue
        why = facts.why_not(row.holder, row.key)
        if why is not None and not why.forbids:
            to = placing.refuge(facts, row.key, quotas)
            if to is not None:
                moves.append((row.key, to))
                facts.move(row.key, row.holder, to)
    say_moves(w, moves)
    if grown(w.s.table.reports):
        given = placing.fill(w.placement())
        if given:
            w.say(Assign(tuple((k, w.rows[k].generation, n) for k, n in given)))


def may_leave(w: Work, since_ms: int) -> bool:
    """Whether everything was handed over that somebody else can take, or the time for it is over."""
    if w.now_ms - since_ms >= w.s.settings.leave_ms:
        return True
    mine = w.reports.get(w.s.me)
    if w.s.phase is not Phase.SETTLED or mine is None or not mine.leaving:
        return False
    return not can_go_elsewhere(w, [row for row in w.s.table.rows if row.holder == w.s.me])


def go(w: Work) -> None:
    """Let go of everything; the group is left when the kernel has confirmed that."""
    w.record("leaving", held=len(w.s.may_hold))
    w.drop_group()
    w.freeze_table()
    holding.want(w)
    leave_if_empty(w)


def leave_if_empty(w: Work) -> None:
    """Leave the group once the kernel has nothing of mine; to come back, a fence that is shut is enough."""
    if w.s.leaving_since_ms is not None:
        if w.s.phase is not Phase.GONE and not w.s.may_hold:
            w.s = changed(w.s, phase=Phase.GONE)
            w.effects.append(LeaveGroup(False, "asked to leave"))
    elif w.s.falling_back is not None and (w.s.fenced or not w.s.may_hold):
        w.effects.append(LeaveGroup(True, w.s.falling_back))
        w.s = changed(w.s, falling_back=None)


def can_go_elsewhere(w: Work, mine: Sequence[Row]) -> bool:
    """Whether another member can take any of these."""
    if not mine:
        return False
    if any(row.target != row.holder for row in mine):
        return True
    facts = w.placement()
    return any(facts.why_not(n, r.key) is None for r in mine for n in facts.candidates(r.key) if n != r.holder)
