"""What one member does about everything that happens: `step(state, event, now_ms) -> (state, effects)`.

The theory in one page
----------------------
The group engine gives all members of a component the same views and messages in the same order. Each member keeps the
same *table* (for every VIP its holder, its target and a generation) and changes it only on delivered views and
messages, so equal inputs give equal tables, and whoever reads `holder == me` may act without asking anybody.

    phase     view, vouched for,     view, any      State (new       all States      Evict of me /
              nobody joined          other          round)           delivered       engine lost
    OFFLINE   –                      → EXCHANGE     –                –               –
    EXCHANGE  → EXCHANGE             → EXCHANGE     restart          → SETTLED       → OFFLINE
    SETTLED   stays, fills orphans   → EXCHANGE     → EXCHANGE       –               → OFFLINE

* A VIP is acquired only by a delivered event: the view in which its holder is gone, the holder's `Released`, an
  `Assign`, an `Evict`. Never on an intention.
* What a member has to say is not queued but derived from its state after every event, and said again when its own
  delivery is overdue (hazard 21): voice.py.
* What its kernel should have is derived as well, from the table: holding.py. The kernel's confirmation is an event; only
  then `Released` is said.
* Time never changes the table. It only makes a member say something, which changes the table when it is delivered.

Numbers of HAZARDS are cited as (hazard n).
"""

from __future__ import annotations

from typing import assert_never

from . import holding, orders, settling, views, voice
from .agreed import heard, renew, renews, representative
from .effects import Effect, KeepOrders, Remember
from .electorate import quorate, worth_keeping
from .events import (
    BalanceRequested,
    ConfigReloaded,
    EligibilityChanged,
    EngineJoined,
    EngineLost,
    Event,
    FenceChanged,
    HealthChanged,
    KernelConfirmed,
    LeaveRequested,
    LoadMeasured,
    MessageDelivered,
    MoveRequested,
    NoteRequested,
    OrderRequested,
    Paused,
    Remembered,
    RestartRequested,
    SegmentAsked,
    TimePassed,
    ViewInstalled,
)
from .messages import (
    Beat,
    Restart,
    Unstick,
)
from .model import Partition, Phase
from .shares import measured
from .state import State, changed
from .work import Work


def step(state: State, event: Event, now_ms: int) -> tuple[State, tuple[Effect, ...]]:
    """Return the next state and what shall be done, in order. Pure: equal arguments give equal results."""
    if (
        isinstance(event, MessageDelivered)
        and isinstance(event.message, Beat)
        and _is_plain(state, event, event.message)
    ):
        if event.sender == state.me and renews(state, event.message, now_ms):
            return renew(heard(state, event.sender, now_ms), event.message, now_ms)
        return heard(state, event.sender, now_ms), ()
    work = Work(state, now_ms)
    handle(work, event)
    return finish(work)


def next_deadline_ms(state: State) -> int | None:
    """When `TimePassed` is due next; None while there is no group and nothing inherited."""
    if state.view is None or state.phase in (Phase.OFFLINE, Phase.GONE):
        return state.inherited_until_ms if state.inherited else None
    waits = [state.next_beat_ms]
    if state.phase is Phase.SETTLED and representative(state) == state.me:
        waits.append(state.next_balance_ms)
        waits += [at for _, _, at in state.lapse_due]
    return min(waits)


def _is_plain(state: State, event: MessageDelivered, beat: Beat) -> bool:
    """Whether a beat says nothing new: most events are such, and they must cost next to nothing."""
    if state.view is None or event.view != state.view.id or event.sender not in state.view.members:
        return False
    if event.sender == state.me or not beat.digest or state.phase is not Phase.SETTLED:
        return True
    return all(digest == beat.digest for applied, digest in state.recent if applied == beat.applied)


def handle(w: Work, event: Event) -> None:
    """Change the work by one event."""
    match event:
        case EngineJoined():
            views.on_joined(w, event)
        case EngineLost():
            views.on_lost(w, event)
        case ViewInstalled():
            views.on_view(w, event.view)
        case MessageDelivered():
            orders.on_message(w, event)
        case KernelConfirmed():
            holding.on_kernel(w, event)
        case EligibilityChanged():
            w.s = changed(w.s, ineligible=event.ineligible)
        case HealthChanged():
            w.s = changed(w.s, failing=event.failing, chosen=event.chosen)
        case FenceChanged():
            w.s = changed(w.s, fenced=event.fenced)
        case Remembered():
            w.s = changed(w.s, electorates=event.electorates)
        case ConfigReloaded():
            w.s = changed(w.s, settings=event.settings)
        case Paused():
            on_paused(w, event.gap_ms)
        case MoveRequested():
            orders.on_move_requested(w, event)
        case OrderRequested():
            orders.on_order_requested(w, event)
        case LeaveRequested():
            if w.s.leaving_since_ms is None:
                w.s = changed(w.s, leaving_since_ms=w.now_ms)
        case RestartRequested():
            w.say(Restart(event.bound_ms, w.now_ms))
        case SegmentAsked():
            orders.on_segment_asked(w, event)
        case NoteRequested():
            orders.on_note_requested(w, event)
        case BalanceRequested():
            w.say(Unstick(event.at_once, event.by))
        case LoadMeasured():
            w.s = changed(w.s, load=measured(w.s.load, event.load, w.now_ms, w.s.settings.shares))
        case TimePassed():
            pass
        case _:
            assert_never(event)


def on_paused(w: Work, gap_ms: int) -> None:
    """I did not run for longer than my lease. Alone in the view nobody can have taken over without being seen in what
    comes next, but a clock that jumped has not waited for anybody's lease; otherwise somebody may have."""
    view = w.s.view
    if view is None or view.members == (w.s.me,):
        waits = {n: ms for n, (_, ms) in w.lapsing.items()}
        again = tuple((n, i, w.now_ms + waits[n] + waits[n] // 100) for n, i, _ in w.s.lapse_due if n in waits)
        w.s = changed(w.s, lapse_due=again, started_ms=w.s.started_ms if w.s.mature else w.now_ms)
        return
    w.record("paused", gap_ms=gap_ms)
    w.fall_back(f"did not run for {gap_ms} ms")


def remember(w: Work) -> None:
    """Keep on the disk which electorates may count, if this component may say so (hazard 15)."""
    s = w.s
    if s.settings.partition is not Partition.MAJORITY or s.phase is not Phase.SETTLED or s.table is w.before.table:
        return
    mine = w.reports.get(s.me)
    if mine is None or mine.electorates != s.remembering:
        return  # what was decided last is not agreed yet: to decide anew without it would undo it, and so on for ever
    if quorate(s.table.reports):
        keep = worth_keeping(s.table.reports)
        if keep != s.remembering:
            w.s = changed(s, remembering=keep)
            w.effects.append(Remember(keep))


def note_shares(w: Work) -> None:
    """Remember when a VIP last changed its holder: until the loads have followed, nothing moves for them."""
    s = w.s
    if not s.settings.shares.follows_load or s.table is w.before.table:
        return
    before = {row.key: row.holder for row in w.before.table.rows}
    if any(row.holder != before.get(row.key) for row in s.table.rows):
        w.s = changed(s, shares_changed_ms=w.now_ms)


def finish(w: Work) -> tuple[State, tuple[Effect, ...]]:
    """What follows from the change, and the next state."""
    if w.table_changed and w.s.phase is Phase.SETTLED:
        settling.obey_orders(w)
    w.freeze_table()
    if w.s.table.orders != w.before.table.orders:
        w.effects.append(KeepOrders(w.s.table.orders))
    if w.applied_one or w.s.view is not w.before.view or w.s.phase is not w.before.phase:
        w.remember_digest()
    holding.want(w)
    remember(w)
    note_shares(w)
    voice.speak(w)
    return w.s, tuple(w.effects)
