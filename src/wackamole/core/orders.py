"""Messages in the agreed order: what each of them changes in the table, and when it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from . import placement as placing
from . import settling, views
from .agreed import agreement, heard, keep_orders, renew, renews, representative
from .effects import Announce, Hand, Multicast, Record, ShowWitness, TakeNote
from .electorate import grown
from .events import (
    MessageDelivered,
    MoveRequested,
    NoteRequested,
    OrderRequested,
    SegmentAsked,
)
from .messages import (
    Adopt,
    Assign,
    Attributes,
    Beat,
    Drain,
    Evict,
    Failed,
    Lapsed,
    Move,
    Moves,
    Note,
    Ordered,
    Released,
    Restart,
    StateMessage,
    Unstick,
    Witnessed,
)
from .model import (
    GENERATION_TAKEN_MAX,
    Cause,
    NodeId,
    NotEligible,
    OnWire,
    Phase,
    Vip,
    VipKey,
)
from .standing import Kind, Order, ended, following, in_force, obey
from .state import changed
from .work import Work

FORCED_INTERVAL_MS = 5000
"""A digest forces at most one exchange in this time (hazard 22)."""


def on_message(w: Work, event: MessageDelivered) -> None:
    """A message of this view: count it, and let it change the table."""
    view = w.s.view
    sender, message = event.sender, event.message
    if view is None or event.view != view.id or sender not in view.members:
        return  # said in another view: its sender will say it again if it is still true
    w.s = heard(w.s, sender, w.now_ms)
    if isinstance(message, Beat) and sender == w.s.me and renews(w.s, message, w.now_ms):
        w.s, effects = renew(w.s, message, w.now_ms)
        w.effects += effects
    if sender == w.s.me and not isinstance(message, Beat):
        w.s = changed(w.s, said=tuple(x for x in w.s.said if x.message != message))
    if not isinstance(message, Beat | Note):
        w.s = changed(w.s, applied=w.s.applied + 1)
        w.applied_one = True
    if sender in w.evicted:
        return  # (hazard 17) the only way back is a new incarnation
    match message:
        case Beat():
            on_beat(w, sender, message)
        case StateMessage():
            views.on_state(w, sender, message)
        case Attributes():
            on_attributes(w, sender, message)
        case Moves():
            on_moves(w, message)
        case Released():
            on_released(w, sender, message)
        case Failed():
            on_failed(w, sender, message)
        case Assign():
            on_assign(w, sender, message)
        case Evict():
            on_evict(w, sender, message)
        case Lapsed():
            if w.lapsing.get(message.node, (None,))[0] == message.incarnation:
                w.record("lapsed", node=message.node)
                w.forget_lapse(message.node)
                settling.settle(w)
        case Drain():
            on_drain(w, sender, message)
        case Restart():
            on_restart(w, sender, message)
        case Witnessed():
            on_witnessed(w, sender, message)
        case Note():
            w.effects.append(TakeNote(view.id, sender, message.body))
        case Unstick():
            on_unstick(w, message)
        case Ordered():
            on_ordered(w, message)
        case Adopt():
            on_adopt(w, sender, message)
        case _:
            assert_never(message)


def on_beat(w: Work, sender: NodeId, beat: Beat) -> None:
    """Compare digests at the same place of the order; one that differs forces an exchange (hazard 22)."""
    if sender == w.s.me or not beat.digest or w.s.phase is not Phase.SETTLED:
        return
    mine = dict(w.s.recent).get(beat.applied)
    if mine is None or mine == beat.digest:
        return
    since = w.now_ms - w.s.forced_ms if w.s.forced_ms is not None else None
    if since is not None and since < FORCED_INTERVAL_MS:
        return
    again = since is not None and since < 4 * FORCED_INTERVAL_MS
    divergences = w.s.divergences + 1 if again else 1
    w.s = changed(w.s, forced_ms=w.now_ms, divergences=divergences)
    w.record("diverged", node=sender, applied=beat.applied, mine=mine, theirs=beat.digest, in_a_row=divergences)
    if divergences > 2 and representative(w.s) == w.s.me:
        w.say(Adopt(tuple(w.rows[k] for k in sorted(w.rows))))
    else:
        views.open_exchange(w, w.s.exchange_round + 1)


def on_attributes(w: Work, sender: NodeId, message: Attributes) -> None:
    """Something of a member changed."""
    if sender not in w.reports:
        return
    report = replace(message.report, node=sender)
    w.put_report(report)
    w.add_rows(message.new)
    reports = w.reports.values()
    if w.s.phase is Phase.SETTLED and report.mature and not all(r.mature for r in reports) and grown(reports):
        views.mature_all(w)
    settling.settle(w)


def on_moves(w: Work, message: Moves) -> None:
    """These should go there, if they still are where the sender saw them (hazard 10)."""
    if w.s.phase is not Phase.SETTLED:
        return
    facts = w.placement()
    alike = agreement(w.reports.values())
    cause = Cause.OPERATOR if message.operator else Cause.BALANCE
    for m in message.moves:
        row = w.rows.get(m.key)
        if row is None or row.holder != m.holder or row.generation != m.generation or row.target != row.holder:
            continue
        if row.releasing:
            continue  # a conflict's loser may still serve it: one who acquires it now would be a second one
        if m.to not in w.reports or w.reports[m.to].leaving or facts.forbidden(m.to, m.key):
            continue
        if m.to == row.holder:
            w.put(replace(row, sticky=row.sticky or message.operator))
            continue
        if alike and facts.full(m.to, m.key):
            continue
        if row.holder in facts.held:
            facts.move(m.key, row.holder, m.to)
        w.put(
            replace(
                row,
                target=m.to,
                generation=row.generation + 1,
                sticky=message.operator,
                cause=cause_of_move(row.holder, m.key, facts, cause),
            )
        )


def cause_of_move(holder: NodeId | None, key: VipKey, facts: placing.Placement, otherwise: Cause) -> Cause:
    """What to tell people."""
    why = facts.why_not(holder, key) if holder is not None else None
    return otherwise if why is None or otherwise is Cause.OPERATOR else why.cause


def on_released(w: Work, sender: NodeId, message: Released) -> None:
    """A kernel's confirmation: the target acquires, or a conflict's loser is out of the way."""
    handed_over = False
    announce: list[Vip] = []
    for key, generation in message.released:
        row = w.rows.get(key)
        if row is None:
            continue
        if (sender, generation) in row.releasing:
            w.put(replace(row, releasing=tuple(x for x in row.releasing if x[0] != sender)))
            if row.holder == w.s.me:
                announce.append(row.vip)  # neighbours may have learnt the loser's MAC
            handed_over = True
        elif row.holder == sender and row.target != sender and row.generation == generation:
            w.put(
                replace(
                    row,
                    holder=row.target,
                    generation=generation + 1,
                    previous=sender,
                    sticky=row.sticky and row.target is not None,
                )
            )
            handed_over = True
    if announce:
        w.effects.append(Announce(tuple(announce)))
    if handed_over:
        settling.settle(w)


def on_failed(w: Work, sender: NodeId, message: Failed) -> None:
    """A kernel refused: the VIP goes back, or to somebody else (hazard 25)."""
    row = w.rows.get(message.key)
    report = w.reports.get(sender)
    if row is None or report is None or row.holder != sender or row.generation != message.generation:
        return
    reasons = dict(report.ineligible)
    if message.key not in reasons or not reasons[message.key].forbids:
        reasons[message.key] = NotEligible.REFUSED
    w.put_report(replace(report, ineligible=tuple(sorted(reasons.items(), key=lambda kv: kv[0]))))
    facts = w.placement()
    back = row.previous if row.previous is not None and not facts.forbidden(row.previous, row.key) else None
    if w.s.phase is not Phase.SETTLED or row.releasing:
        back = None
    w.put(
        replace(
            row,
            holder=back,
            target=back,
            previous=None,
            generation=row.generation + 1,
            sticky=False,
            cause=Cause.FAILED,
        )
    )
    w.record("failed", vip=row.key, node=sender, reason=message.reason, back_to=w.name_of(back))
    settling.settle(w)


def on_assign(w: Work, sender: NodeId, message: Assign) -> None:
    """Orphans, given out by the first member because configs differ (hazard 9)."""
    if w.s.phase is not Phase.SETTLED or sender != w.first():
        return
    facts, busy = w.placement(), placing.busy(w.rows.values())
    for key, generation, to in message.assigned:
        row = w.rows.get(key)
        if row is None or row.generation != generation or facts.forbidden(to, key):
            continue
        if placing.free(row, busy):
            settling.give(w, row, to)
            busy.update(a.ip for a in row.vip.addresses)


def on_evict(w: Work, sender: NodeId, message: Evict) -> None:
    """A member was silent, unless it spoke meanwhile (hazard 4)."""
    view = w.s.view
    assert view is not None
    heard = {m: n for m, n, _ in w.s.heard}
    report = w.reports.get(message.node)
    if message.node not in view.members or message.node in w.evicted or message.node == sender:
        return
    if message.round:
        if w.s.phase is not Phase.EXCHANGE or message.round != w.s.exchange_round or report is not None:
            return  # its State was delivered meanwhile
    elif heard[message.node] != message.heard:
        return  # something of it was delivered meanwhile (hazard 4)
    if report is not None and report.incarnation != message.incarnation:
        return
    w.record("evict", node=message.node, by=w.name_of(sender), name=w.name_of(message.node))
    settling.evict(w, message.node, message.incarnation)
    views.complete_if_all(w)
    settling.settle(w)


def on_drain(w: Work, sender: NodeId, message: Drain) -> None:
    """A member is on its way out; or, where not all keep orders, is to be emptied or taken back."""
    report = w.reports.get(message.node)
    if report is None:
        return
    leaving = report.leaving or (message.leaving and sender == message.node)
    w.put_report(replace(report, draining=message.draining, leaving=leaving))
    if message.node == w.s.me and not message.leaving and not keep_orders(w.reports.values()):
        w.put_orders(obey(w.orders, following(w.orders, [Order(Kind.DRAIN, report.name, message.draining)])))
    w.record("drain" if message.draining else "resume", node=message.node, leaving=leaving)
    settling.settle(w)


def on_ordered(w: Work, message: Ordered) -> None:
    """Operators' orders change, in the agreed order."""
    if w.s.phase is not Phase.SETTLED or not keep_orders(w.reports.values()):
        return
    before = dict.fromkeys(w.orders)
    w.put_orders(obey(w.orders, message.wishes))
    tell(w, [order for order in w.orders if order not in before])
    settling.settle(w)


def tell(w: Work, orders: Iterable[Order]) -> None:
    """Tell people of orders: `drain`, `pin`, `hold`, and when they are over `resume`, `unpin`, `unhold`; those that were given
    together at once."""
    over = {Kind.DRAIN: "resume", Kind.PIN: "unpin", Kind.HOLD: "unhold"}
    alike: dict[Order, list[str]] = {}
    for order in orders:
        alike.setdefault(replace(order, subject=""), []).append(order.subject)
    for order, subjects in alike.items():
        told = {
            "node" if order.kind is Kind.DRAIN else "vips": ",".join(subjects),
            "to": order.node,
            "by": order.by,
            "reason": order.reason,
            "until": str(order.until_s or ""),
        }
        what = order.kind.value if order.in_force else over[order.kind]
        w.effects.append(Record(what, tuple((k, v) for k, v in told.items() if v)))


def on_unstick(w: Work, message: Unstick) -> None:
    """An operator asks for balance: pins are over, a round is due, and somebody looks after them who flapped."""
    if keep_orders(w.reports.values()):
        pins = in_force(w.orders, Kind.PIN).values()
        on_ordered(w, Ordered(following(w.orders, [ended(pin, message.by) for pin in pins])))
    for row in list(w.rows.values()):
        if row.sticky:
            w.put(replace(row, sticky=False))
    w.s = changed(w.s, next_balance_ms=w.now_ms, balance_at_once=message.at_once, balance_left=0, joins=())


def on_restart(w: Work, sender: NodeId, message: Restart) -> None:
    """A member's process is to be replaced: one at a time in the cluster (hazard 20)."""
    report = w.reports.get(sender)
    if report is None or report.leaving or w.s.phase is not Phase.SETTLED:
        return
    if message.bound_ms and any(r.restart_ms for r in w.reports.values()):
        return
    w.put_report(replace(report, restart_ms=message.bound_ms))
    w.record("restart", node=sender, within_ms=message.bound_ms)
    if sender == w.s.me and message.bound_ms:
        w.effects.append(Hand(message.sent_ms + message.bound_ms))


def on_adopt(w: Work, sender: NodeId, message: Adopt) -> None:
    """The last resort of hazard 22; it counts as a bug, and says so."""
    if w.s.phase is not Phase.SETTLED or sender != w.first():
        return
    w.record("adopted", node=sender, rows=len(message.rows))
    w.rows = {row.key: replace(row, generation=min(row.generation, GENERATION_TAKEN_MAX)) for row in message.rows}
    w.table_changed = True


def on_move_requested(w: Work, event: MoveRequested) -> None:
    """An operator asks: say it with the holders and generations of now."""
    moves = tuple(
        Move(key, row.holder, row.generation, event.to)
        for key in event.keys
        if (row := w.rows.get(key)) is not None and row.holder is not None
    )
    if moves and w.s.phase is Phase.SETTLED:
        w.say(Moves(moves, operator=True))


def on_order_requested(w: Work, event: OrderRequested) -> None:
    """An operator orders: say it by the register of now, as far as it is not so."""
    wishes = following(w.orders, event.wishes)
    if wishes and w.s.phase is Phase.SETTLED and keep_orders(w.reports.values()):
        w.say(Ordered(wishes))


def on_segment_asked(w: Work, event: SegmentAsked) -> None:
    """Tell the others once, if it is still about the same holder."""
    row = w.row(event.key)
    if w.s.view is not None and row is not None and row.holder == row.target == event.holder:
        w.effects.append(Multicast(w.s.view.id, Witnessed(event.key, row.generation, event.result)))


def on_witnessed(w: Work, sender: NodeId, message: Witnessed) -> None:
    """Advice: it is shown, and a holder that was not heard alone announces again; nothing that is agreed changes."""
    row = w.row(message.key)
    if row is None or row.holder is None or row.generation != message.generation:
        return
    w.effects.append(ShowWitness(message.key, sender, message.result))
    if row.holder == w.s.me and message.result is not OnWire.VERIFIED:
        w.effects.append(Announce((row.vip,)))


def on_note_requested(w: Work, event: NoteRequested) -> None:
    """Say it, if nothing of importance is being agreed."""
    if w.s.view is not None and w.s.phase is Phase.SETTLED:
        w.effects.append(Multicast(w.s.view.id, Note(event.body)))
