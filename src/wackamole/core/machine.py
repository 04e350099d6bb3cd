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
  delivery is overdue (hazard 21): `_speak`.
* What its kernel should have is derived as well, from the table: `_wanted`. The kernel's confirmation is an event; only
  then `Released` is said.
* Time never changes the table. It only makes a member say something, which changes the table when it is delivered.

Numbers of HAZARDS are cited as (hazard n).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import assert_never

from . import placement as placing
from .effects import Announce, Effect, HoldExactly, LeaveGroup, Multicast, Record
from .events import (
    BalanceRequested,
    DrainRequested,
    EligibilityChanged,
    EngineJoined,
    EngineLost,
    Event,
    KernelConfirmed,
    LeaveRequested,
    MessageDelivered,
    MoveRequested,
    TimePassed,
    ViewInstalled,
)
from .messages import (
    Adopt,
    Assign,
    Attributes,
    Beat,
    Drain,
    Evict,
    Failed,
    KnownVip,
    Message,
    Move,
    Moves,
    Released,
    StateMessage,
    Unstick,
)
from .model import (
    PLACEMENT_VERSION,
    Cause,
    Left,
    NodeId,
    NotEligible,
    Phase,
    Report,
    Row,
    Table,
    View,
    Vip,
    VipKey,
)
from .state import Refusal, Said, State

RECENT_MAX = 64
"""Pairs of (applied, digest) kept to compare beats with: more than is ever in flight."""

FORCED_INTERVAL_MS = 5000
"""A digest forces at most one exchange in this time (hazard 22)."""

REFUSED_AGAIN_MS = (5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000)
"""How long a member keeps off a VIP that its kernel refused, by the number of refusals (hazard 25)."""

_CAUSE_OF_LEAVING = {
    Left.LEFT: Cause.LEFT,
    Left.PROCESS_DIED: Cause.PROCESS_DIED,
    Left.HOST_LOST: Cause.HOST_LOST,
}


def step(state: State, event: Event, now_ms: int) -> tuple[State, tuple[Effect, ...]]:
    """Return the next state and what shall be done, in order. Pure: equal arguments give equal results."""
    if (
        isinstance(event, MessageDelivered)
        and isinstance(event.message, Beat)
        and _is_plain(state, event, event.message)
    ):
        return _heard(state, event.sender, now_ms), ()
    work = _Step(state, now_ms)
    work.handle(event)
    return work.finish()


def next_deadline_ms(state: State) -> int | None:
    """When `TimePassed` is due next; None while there is no group."""
    if state.view is None or state.phase in (Phase.OFFLINE, Phase.GONE):
        return None
    waits = [state.next_beat_ms]
    if state.phase is Phase.SETTLED and representative(state) == state.me:
        waits.append(state.next_balance_ms)
    return min(waits)


def representative(state: State) -> NodeId | None:
    """The first member in order that is in good standing: it balances, and assigns when configs differ."""
    if state.view is None:
        return None
    evicted = {n for n, _ in state.table.evicted}
    return min((n for n in state.view.members if n not in evicted), default=None)


def agreement(reports: Iterable[Report]) -> bool:
    """Whether all place by the same config and the same version of placement, so that each may compute alone (hazard 9)."""
    return len({(r.config_digest, r.placement_version) for r in reports}) <= 1


def _is_plain(state: State, event: MessageDelivered, beat: Beat) -> bool:
    """Whether a beat says nothing new: most events are such, and they must cost next to nothing."""
    if state.view is None or event.view != state.view.id or event.sender not in state.view.members:
        return False
    if event.sender == state.me or not beat.digest or state.phase is not Phase.SETTLED:
        return True
    return all(digest == beat.digest for applied, digest in state.recent if applied == beat.applied)


def _heard(state: State, sender: NodeId, now_ms: int) -> State:
    """One more message of this member was delivered in this view."""
    heard = tuple((m, n + 1, now_ms) if m == sender else (m, n, at) for m, n, at in state.heard)
    return replace(state, heard=heard)


def digest_of(table: Table) -> str:
    """A short digest of holders, targets, generations, good standing and what placement reads."""
    h = hashlib.blake2b(digest_size=8)
    for row in table.rows:
        h.update(f"{row.key}|{row.holder}|{row.target}|{row.generation}|{row.releasing}|{row.sticky}\n".encode())
    for r in table.reports:
        h.update(f"{r.node}|{r.incarnation}|{r.name}|{r.mature}|{r.draining}|{r.leaving}|{r.weight}|".encode())
        h.update(f"{r.config_digest}|{[(k, why.name) for k, why in r.ineligible]}\n".encode())
    h.update(repr(table.evicted).encode())
    return h.hexdigest()


class _Step:
    """The state while one event is handled: the table's parts as dicts, and the effects so far."""

    def __init__(self, state: State, now_ms: int) -> None:
        self.before = state
        self.now_ms = now_ms
        self.s = state
        self.rows: dict[VipKey, Row] = {row.key: row for row in state.table.rows}
        self.reports: dict[NodeId, Report] = {r.node: r for r in state.table.reports}
        self.evicted: dict[NodeId, int] = dict(state.table.evicted)
        self.effects: list[Effect] = []
        self.table_changed = False
        self.applied_one = False

    # -- plumbing ---------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        match event:
            case EngineJoined():
                self._on_joined(event)
            case EngineLost():
                self._on_lost(event)
            case ViewInstalled():
                self._on_view(event.view)
            case MessageDelivered():
                self._on_message(event)
            case KernelConfirmed():
                self._on_kernel(event)
            case EligibilityChanged():
                self.s = replace(self.s, ineligible=event.ineligible)
            case MoveRequested():
                self._on_move_requested(event)
            case DrainRequested():
                self._say(Drain(event.node, event.draining))
            case LeaveRequested():
                if self.s.leaving_since_ms is None:
                    self.s = replace(self.s, leaving_since_ms=self.now_ms)
            case BalanceRequested():
                self._say(Unstick())
            case TimePassed():
                pass
            case _:
                assert_never(event)

    def finish(self) -> tuple[State, tuple[Effect, ...]]:
        self._freeze_table()
        if self.applied_one or self.s.view is not self.before.view or self.s.phase is not self.before.phase:
            self._remember_digest()
        self._want()
        self._speak()
        return self.s, tuple(self.effects)

    def _freeze_table(self) -> None:
        if self.table_changed:
            table = Table(
                rows=tuple(self.rows[k] for k in sorted(self.rows)),
                reports=tuple(self.reports[n] for n in sorted(self.reports)),
                evicted=tuple(sorted(self.evicted.items())),
            )
            self.s = replace(self.s, table=table)

    def _remember_digest(self) -> None:
        if self.s.phase is not Phase.SETTLED:
            self.s = replace(self.s, recent=())
            return
        recent = self.s.recent
        if not self.table_changed and recent:
            digest = recent[-1][1]
        else:
            digest = digest_of(self.s.table)
        if not recent or recent[-1] != (self.s.applied, digest):
            recent = (*(pair for pair in recent if pair[0] != self.s.applied), (self.s.applied, digest))
            self.s = replace(self.s, recent=recent[-RECENT_MAX:])

    def _put(self, row: Row) -> None:
        self.rows[row.key] = row
        self.table_changed = True

    def _report(self, report: Report) -> None:
        self.reports[report.node] = report
        self.table_changed = True

    def _record(self, what: str, *, vip: VipKey | None = None, node: NodeId | None = None, **fields: object) -> None:
        self.effects.append(Record(what, tuple((k, str(v)) for k, v in fields.items()), vip, node))

    def _name(self, node: NodeId | None) -> str:
        if node is None:
            return "nobody"
        if node == self.s.me:
            return self.s.settings.node
        report = self.reports.get(node)
        return report.name if report else f"#{node}"

    def _say(self, message: Message) -> None:
        """Multicast, unless the same was said in this view and may still be under way."""
        view = self.s.view
        if view is None:
            return
        overdue_ms = 3 * self.s.settings.beat_ms
        said = [x for x in self.s.said if x.message != message]
        for x in self.s.said:
            if x.message == message and self.now_ms - x.at_ms < overdue_ms:
                return
        said.append(Said(message, self.now_ms))
        self.s = replace(self.s, said=tuple(said[-64:]))
        self.effects.append(Multicast(view.id, message))

    # -- the group --------------------------------------------------------------------------------------------------

    def _on_joined(self, event: EngineJoined) -> None:
        self._drop_group()
        started = self.s.started_ms if self.s.started_ms is not None else self.now_ms
        self.s = replace(self.s, me=event.me, incarnation=event.incarnation, started_ms=started)
        self._record("joined", node=event.me)

    def _on_lost(self, event: EngineLost) -> None:
        self._drop_group()
        self._record("engine_lost", reason=event.reason)

    def _drop_group(self) -> None:
        self.rows, self.reports, self.evicted = {}, {}, {}
        self.table_changed = True
        self.s = replace(
            self.s,
            phase=Phase.OFFLINE,
            view=None,
            component=1,
            exchange_round=0,
            statement=None,
            applied=0,
            recent=(),
            heard=(),
            said=(),
            member_since=(),
        )

    def _on_view(self, view: View) -> None:
        before = self.s.view
        came_along = before is not None and self.s.me in before.members
        zero_rounds = self.s.phase is Phase.SETTLED and came_along and view.direct and not view.joined
        since = dict(self.s.member_since)
        self.s = replace(
            self.s,
            view=view,
            applied=0,
            recent=(),
            heard=tuple((m, 0, self.now_ms) for m in view.members),
            said=(),
            exchange_round=0,
            next_beat_ms=self.now_ms,
            member_since=tuple(
                (m, since[m] if m in since and m not in view.joined else self.now_ms) for m in view.members
            ),
        )
        stay = frozenset(view.members) - frozenset(view.joined)
        left = dict(view.left)
        if before is not None:
            for node in before.members:
                if node not in stay:
                    left.setdefault(node, Left.HOST_LOST)
        self._record(
            "view",
            id=view.id,
            members=",".join(self._name(m) for m in view.members),
            left=",".join(f"{self._name(n)}:{why.value}" for n, why in view.left) or "-",
            exchange="no" if zero_rounds else "yes",
        )
        self.evicted = {n: i for n, i in self.evicted.items() if n in stay}
        self.table_changed = True
        if not zero_rounds:
            self._open_exchange(1, stay)
            return
        self.s = replace(
            self.s,
            component=len(view.members) - len(self.evicted),
            next_balance_ms=self.now_ms + self.s.settings.balance_interval_ms,
        )
        self.reports = {n: r for n, r in self.reports.items() if n in stay}
        for row in list(self.rows.values()):
            self._without(row, stay, left)
        self._settle()

    def _without(self, row: Row, stay: frozenset[NodeId], left: Mapping[NodeId, Left]) -> None:
        """Take those who are gone out of a row."""
        new = row
        if any(n not in stay for n, _ in row.releasing):
            new = replace(new, releasing=tuple(x for x in row.releasing if x[0] in stay))
        if row.previous is not None and row.previous not in stay:
            new = replace(new, previous=None)
        if row.holder is not None and row.holder not in stay:
            why = _CAUSE_OF_LEAVING[left.get(row.holder, Left.HOST_LOST)]
            # A hand-over that was under way is void: whom it was for is decided anew.
            new = replace(
                new, holder=None, target=None, generation=row.generation + 1, previous=None, sticky=False, cause=why
            )
        elif row.target is not None and row.target not in stay:
            new = replace(new, target=row.holder, generation=row.generation + 1)
        if new is not row:
            self._put(new)

    # -- the exchange -----------------------------------------------------------------------------------------------

    def _open_exchange(self, number: int, stay: frozenset[NodeId] | None = None) -> None:
        """Forget the table, keep what my kernel has, and say so."""
        view = self.s.view
        assert view is not None
        me = self.s.me
        old_statement = self.s.statement
        definitions = {row.key: row.vip for row in self.rows.values()}
        generations = {row.key: row.generation for row in self.rows.values()}
        sticky = {row.key for row in self.rows.values() if row.sticky}
        may = frozenset(self.s.may_hold)
        if self.s.phase is Phase.EXCHANGE and me not in self.reports and old_statement is not None:
            held = [k for k in old_statement.held if k in may]
            for known in old_statement.known:
                key = known.vip.key
                definitions.setdefault(key, known.vip)
                generations[key] = max(generations.get(key, 0), known.generation)
                if known.sticky:
                    sticky.add(key)
            blocked_before = old_statement.blocked
        else:
            held = [r.key for r in self.rows.values() if r.holder == me and (r.target == me or r.key in may)]
            blocked_before = ()
        for vip in self.s.settings.vips:
            definitions.setdefault(vip.key, vip)
        for vip in self.s.wanted:
            definitions.setdefault(vip.key, vip)
        here = frozenset(view.members) if stay is None else stay
        blocked = {(r.key, n) for r in self.rows.values() for n, _ in r.releasing if n in self.evicted and n in here}
        blocked |= {(k, n) for k, n in blocked_before if n in self.evicted and n in here}
        held_set = frozenset(held)
        statement = StateMessage(
            round=number,
            report=self._own_report(),
            known=tuple(KnownVip(definitions[k], generations.get(k, 0), k in sticky) for k in sorted(definitions)),
            held=tuple(sorted(held_set)),
            releasing=tuple(k for k in self.s.may_hold if k not in held_set and k in definitions),
            evicted=tuple(sorted(self.evicted.items())),
            blocked=tuple(sorted(blocked)),
        )
        self.rows, self.reports = {}, {}
        self.table_changed = True
        self.s = replace(
            self.s,
            phase=Phase.EXCHANGE,
            exchange_round=number,
            exchange_since_ms=self.now_ms,
            statement=statement,
            said=(),
            recent=(),
        )

    def _own_report(self) -> Report:
        """What I say of myself now."""
        settings = self.s.settings
        reasons = dict(self.s.ineligible)
        for refusal in self.s.refusals:
            if refusal.until_ms > self.now_ms:
                reasons.setdefault(refusal.key, NotEligible.REFUSED)
        return Report(
            node=self.s.me,
            incarnation=self.s.incarnation,
            name=settings.node,
            known=tuple(sorted(v.key for v in settings.vips)),
            config_digest=settings.config_digest,
            nodes=settings.nodes,
            placement_version=PLACEMENT_VERSION,
            weight=settings.weight,
            mature=self._is_mature(),
            draining=self.s.draining,
            leaving=self.s.leaving_since_ms is not None,
            ineligible=tuple(sorted(reasons.items(), key=lambda kv: kv[0])),
            fenced=self.s.fenced,
            lease_ms=self.s.lease_ms,
            component=self.s.component,
            partition=settings.partition,
            version=settings.version,
        )

    def _is_mature(self) -> bool:
        started = self.s.started_ms
        return self.s.mature or (started is not None and self.now_ms - started >= self.s.settings.mature_ms)

    def _on_state(self, sender: NodeId, message: StateMessage) -> None:
        if message.round < self.s.exchange_round:
            return
        if message.round == self.s.exchange_round and self.s.phase is Phase.SETTLED:
            return
        if message.round > self.s.exchange_round:
            self._open_exchange(message.round)
        if sender in self.reports:
            return
        view = self.s.view
        assert view is not None
        report = replace(message.report, node=sender)
        self._report(report)
        for known in message.known:
            key = known.vip.key
            row = self.rows.get(key)
            if row is None:
                row = Row(key, known.vip, generation=known.generation, sticky=known.sticky)
            self._put(replace(row, generation=max(row.generation, known.generation), sticky=row.sticky or known.sticky))
        for key in message.held:
            if key in self.rows:
                self._claim(self.rows[key], sender)
        for key in message.releasing:
            if key in self.rows:
                self._must_release(self.rows[key], sender)
        for key, node in message.blocked:
            if key in self.rows and node in view.members:
                self._must_release(self.rows[key], node)
        for node, incarnation in message.evicted:
            heard_as = self.reports.get(node)
            if node in view.members and (heard_as is None or heard_as.incarnation == incarnation):
                self._evict(node, incarnation)
            if self.s.view is None:
                return  # it was me
        self._complete_if_all()

    def _must_release(self, row: Row, node: NodeId) -> None:
        if not any(n == node for n, _ in row.releasing):
            generation = row.generation + 1
            entry = (*row.releasing, (node, generation))
            self._put(replace(row, generation=generation, releasing=tuple(sorted(entry))))

    def _claim(self, row: Row, claimant: NodeId) -> None:
        """A member says that it holds this. If another does, one of them loses at once (hazard 23)."""
        rivals = [
            other
            for other in self.rows.values()
            if other.holder is not None
            and other.holder != claimant
            and (other.key == row.key or _overlap(other.vip, row.vip))
        ]
        for rival in rivals:
            assert rival.holder is not None
            if self._standing(claimant, row.key) < self._standing(rival.holder, rival.key):
                self._record("conflict", vip=rival.key, winner=self._name(claimant), loser=self._name(rival.holder))
                loser = rival.holder
                self._put(replace(rival, holder=None, target=None, cause=Cause.CONFLICT))
                self._must_release(self.rows[rival.key], loser)
            else:
                self._record("conflict", vip=row.key, winner=self._name(rival.holder), loser=self._name(claimant))
                self._must_release(self.rows[row.key], claimant)
                return
        row = self.rows[row.key]
        self._put(
            replace(
                row,
                holder=claimant,
                target=claimant,
                generation=row.generation + 1,
                cause=Cause.CONFLICT if rivals else Cause.CLAIM,
            )
        )

    def _standing(self, node: NodeId, key: VipKey) -> tuple[int, int, int]:
        """The lesser wins a conflict: who may hold it, then who comes from the larger component, then by order."""
        report = self.reports[node]
        reason = dict(report.ineligible).get(key)
        barred = key not in report.known or (reason is not None and reason.forbids)
        return (int(barred), -report.component, node)

    def _awaited(self, view: View) -> tuple[NodeId, ...]:
        """Members whose State has not been delivered in this exchange; the evicted are not waited for (hazard 17)."""
        return tuple(m for m in view.members if m not in self.evicted and m not in self.reports)

    def _complete_if_all(self) -> None:
        view = self.s.view
        if view is None or self.s.phase is not Phase.EXCHANGE or self._awaited(view):
            return
        self.s = replace(
            self.s,
            phase=Phase.SETTLED,
            component=len(view.members) - len(self.evicted),
            statement=None,
            next_balance_ms=self.now_ms + self.s.settings.balance_interval_ms,
        )
        for row in list(self.rows.values()):
            self._put(replace(row, target=row.holder, generation=row.generation + 1))
        names = {r.name for r in self.reports.values()}
        met = any(r.mature for r in self.reports.values())
        if met or all(set(r.nodes) <= names for r in self.reports.values()):
            self._mature_all()
        self._record("settled", view=view.id, round=self.s.exchange_round, members=len(view.members))
        self._settle()

    def _mature_all(self) -> None:
        """Maturity spreads to everybody who meets a mature member (hazard 28)."""
        for report in list(self.reports.values()):
            if not report.mature:
                self._report(replace(report, mature=True))
        self.s = replace(self.s, mature=True)

    # -- messages ---------------------------------------------------------------------------------------------------

    def _on_message(self, event: MessageDelivered) -> None:
        view = self.s.view
        sender, message = event.sender, event.message
        if view is None or event.view != view.id or sender not in view.members:
            return  # said in another view: its sender will say it again if it is still true
        self.s = _heard(self.s, sender, self.now_ms)
        if sender == self.s.me and not isinstance(message, Beat):
            self.s = replace(self.s, said=tuple(x for x in self.s.said if x.message != message))
        if not isinstance(message, Beat):
            self.s = replace(self.s, applied=self.s.applied + 1)
            self.applied_one = True
        if sender in self.evicted:
            return  # (hazard 17) the only way back is a new incarnation
        match message:
            case Beat():
                self._on_beat(sender, message)
            case StateMessage():
                self._on_state(sender, message)
            case Attributes():
                self._on_attributes(sender, message)
            case Moves():
                self._on_moves(message)
            case Released():
                self._on_released(sender, message)
            case Failed():
                self._on_failed(sender, message)
            case Assign():
                self._on_assign(sender, message)
            case Evict():
                self._on_evict(sender, message)
            case Drain():
                self._on_drain(sender, message)
            case Unstick():
                for row in list(self.rows.values()):
                    if row.sticky:
                        self._put(replace(row, sticky=False))
                self.s = replace(self.s, next_balance_ms=self.now_ms)
            case Adopt():
                self._on_adopt(sender, message)
            case _:
                assert_never(message)

    def _on_beat(self, sender: NodeId, beat: Beat) -> None:
        if sender == self.s.me or not beat.digest or self.s.phase is not Phase.SETTLED:
            return
        mine = dict(self.s.recent).get(beat.applied)
        if mine is None or mine == beat.digest:
            return
        since = self.now_ms - self.s.forced_ms if self.s.forced_ms is not None else None
        if since is not None and since < FORCED_INTERVAL_MS:
            return
        again = since is not None and since < 4 * FORCED_INTERVAL_MS
        divergences = self.s.divergences + 1 if again else 1
        self.s = replace(self.s, forced_ms=self.now_ms, divergences=divergences)
        self._record("diverged", node=sender, applied=beat.applied, mine=mine, theirs=beat.digest, in_a_row=divergences)
        if divergences > 2 and representative(self.s) == self.s.me:
            self._say(Adopt(tuple(self.rows[k] for k in sorted(self.rows))))
        else:
            self._open_exchange(self.s.exchange_round + 1)

    def _on_attributes(self, sender: NodeId, message: Attributes) -> None:
        if sender not in self.reports:
            return
        report = replace(message.report, node=sender)
        self._report(report)
        for vip in message.new:
            if vip.key not in self.rows:
                self._put(Row(vip.key, vip))
        if self.s.phase is Phase.SETTLED and report.mature and not all(r.mature for r in self.reports.values()):
            self._mature_all()
        self._settle()

    def _on_moves(self, message: Moves) -> None:
        if self.s.phase is not Phase.SETTLED:
            return
        facts = self._placement()
        cause = Cause.OPERATOR if message.operator else Cause.BALANCE
        for m in message.moves:
            row = self.rows.get(m.key)
            if row is None or row.holder != m.holder or row.generation != m.generation or row.target != row.holder:
                continue
            if m.to not in self.reports or self.reports[m.to].leaving or facts.forbidden(m.to, m.key):
                continue
            if m.to == row.holder:
                self._put(replace(row, sticky=row.sticky or message.operator))
                continue
            self._put(
                replace(
                    row,
                    target=m.to,
                    generation=row.generation + 1,
                    sticky=message.operator,
                    cause=self._cause_of_move(row.holder, m.key, facts, cause),
                )
            )

    def _cause_of_move(self, holder: NodeId | None, key: VipKey, facts: placing.Placement, otherwise: Cause) -> Cause:
        why = facts.why_not(holder, key) if holder is not None else None
        if why is None or otherwise is Cause.OPERATOR:
            return otherwise
        return Cause.DRAIN if why is NotEligible.DRAINING else Cause.NOT_ELIGIBLE

    def _on_released(self, sender: NodeId, message: Released) -> None:
        handed_over = False
        announce: list[Vip] = []
        for key, generation in message.released:
            row = self.rows.get(key)
            if row is None:
                continue
            if (sender, generation) in row.releasing:
                self._put(replace(row, releasing=tuple(x for x in row.releasing if x[0] != sender)))
                if row.holder == self.s.me:
                    announce.append(row.vip)  # neighbours may have learnt the loser's MAC
                handed_over = True
            elif row.holder == sender and row.target != sender and row.generation == generation:
                self._put(
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
            self.effects.append(Announce(tuple(announce)))
        if handed_over:
            self._settle()

    def _on_failed(self, sender: NodeId, message: Failed) -> None:
        row = self.rows.get(message.key)
        report = self.reports.get(sender)
        if row is None or report is None or row.holder != sender or row.generation != message.generation:
            return
        reasons = dict(report.ineligible)
        reasons.setdefault(message.key, NotEligible.REFUSED)
        self._report(replace(report, ineligible=tuple(sorted(reasons.items(), key=lambda kv: kv[0]))))
        facts = self._placement()
        back = row.previous if row.previous is not None and not facts.forbidden(row.previous, row.key) else None
        if self.s.phase is not Phase.SETTLED:
            back = None
        self._put(
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
        self._record("failed", vip=row.key, node=sender, reason=message.reason, back_to=self._name(back))
        self._settle()

    def _on_assign(self, sender: NodeId, message: Assign) -> None:
        if self.s.phase is not Phase.SETTLED or sender != self._first():
            return
        for key, generation, to in message.assigned:
            row = self.rows.get(key)
            if row is None or row.generation != generation or to not in self.reports:
                continue
            if placing.free(row, placing.by_ip(self.rows.values())):
                self._give(row, to)

    def _give(self, row: Row, to: NodeId) -> None:
        cause = row.cause if row.cause not in (Cause.NONE, Cause.CLAIM) else Cause.FILL
        self._put(replace(row, holder=to, target=to, generation=row.generation + 1, previous=None, cause=cause))

    def _on_evict(self, sender: NodeId, message: Evict) -> None:
        view = self.s.view
        assert view is not None
        heard = {m: n for m, n, _ in self.s.heard}
        report = self.reports.get(message.node)
        if message.node not in view.members or message.node in self.evicted or message.node == sender:
            return
        if message.round:
            if self.s.phase is not Phase.EXCHANGE or message.round != self.s.exchange_round or report is not None:
                return  # its State was delivered meanwhile
        elif heard[message.node] != message.heard:
            return  # something of it was delivered meanwhile (hazard 4)
        if report is not None and report.incarnation != message.incarnation:
            return
        self._record("evict", node=message.node, by=self._name(sender), name=self._name(message.node))
        self._evict(message.node, message.incarnation)
        self._complete_if_all()
        self._settle()

    def _evict(self, node: NodeId, incarnation: int) -> None:
        """Count a member as gone although its engine still lists it (hazards 4, 7, 17)."""
        if node in self.evicted:
            return
        self.evicted[node] = incarnation
        self.table_changed = True
        report = self.reports.pop(node, None)
        fenced = report is not None and report.fenced
        for row in list(self.rows.values()):
            if row.holder == node:
                self._put(
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
                if not fenced:  # nothing silences it: its VIPs stay where they are until it is gone
                    self._must_release(self.rows[row.key], node)
            elif row.target == node:
                self._put(replace(row, target=row.holder, generation=row.generation + 1))
        if node == self.s.me:
            self._drop_group()
            self.effects.append(LeaveGroup(True, "evicted for silence"))

    def _on_drain(self, sender: NodeId, message: Drain) -> None:
        report = self.reports.get(message.node)
        if report is None:
            return
        leaving = report.leaving or (message.leaving and sender == message.node)
        self._report(replace(report, draining=message.draining, leaving=leaving))
        if message.node == self.s.me:
            self.s = replace(self.s, draining=message.draining)
        self._record("drain" if message.draining else "resume", node=message.node, leaving=leaving)
        self._settle()

    def _on_adopt(self, sender: NodeId, message: Adopt) -> None:
        """The last resort of hazard 22; it counts as a bug, and says so."""
        if self.s.phase is not Phase.SETTLED or sender != self._first():
            return
        self._record("adopted", node=sender, rows=len(message.rows))
        self.rows = {row.key: row for row in message.rows}
        self.table_changed = True

    def _on_move_requested(self, event: MoveRequested) -> None:
        moves = tuple(
            Move(key, row.holder, row.generation, event.to)
            for key in event.keys
            if (row := self.rows.get(key)) is not None and row.holder is not None
        )
        if moves and self.s.phase is Phase.SETTLED:
            self._say(Moves(moves, operator=True))

    def _first(self) -> NodeId | None:
        view = self.s.view
        return min((m for m in view.members if m not in self.evicted), default=None) if view else None

    # -- the table follows from what was delivered --------------------------------------------------------------------

    def _placement(self) -> placing.Placement:
        return placing.Placement(self.rows.values(), self.reports.values(), self.evicted, dict(self.s.settings.prefer))

    def _settle(self) -> None:
        """Everything that follows from the table alone, computed alike by all: void hand-overs, VIPs that must go,
        orphans. Where configs or versions differ only the representative places, by messages (hazard 9)."""
        if self.s.phase is not Phase.SETTLED:
            return
        if self.s.me in self.evicted:
            return
        known = {k for r in self.reports.values() for k in r.known}
        for row in list(self.rows.values()):
            if row.holder is None and not row.releasing and row.key not in known:
                del self.rows[row.key]
                self.table_changed = True
        facts = self._placement()
        for row in list(self.rows.values()):
            holder, target = row.holder, row.target
            if holder is None or target == holder or target is None:
                continue
            if facts.forbidden(target, row.key) or self.reports[target].leaving:
                self._put(replace(row, target=holder, generation=row.generation + 1))
        alike = agreement(self.reports.values())
        facts = self._placement()
        leavers = [
            row.key
            for row in facts.rows.values()
            if row.holder in facts.reports
            and row.holder == row.target
            and facts.why_not(row.holder, row.key) is not None
        ]
        if leavers:
            self._evacuate(sorted(leavers), facts, alike)
        if alike and any(r.mature for r in self.reports.values()):
            for key, node in placing.fill(self._placement()):
                self._give(self.rows[key], node)

    def _evacuate(self, keys: list[VipKey], facts: placing.Placement, alike: bool) -> None:
        quotas = facts.quotas()
        for key in keys:
            row = self.rows[key]
            assert row.holder is not None
            reason = facts.why_not(row.holder, key)
            assert reason is not None
            to = placing.refuge(facts, key, quotas) if alike else None
            if to is None and not reason.forbids:
                continue
            if to is not None:
                facts.loads[row.holder] -= 1
                facts.take(to)
            cause = Cause.DRAIN if reason is NotEligible.DRAINING else Cause.NOT_ELIGIBLE
            self._put(replace(row, target=to, generation=row.generation + 1, cause=cause, sticky=False))

    # -- my kernel ----------------------------------------------------------------------------------------------------

    def _on_kernel(self, event: KernelConfirmed) -> None:
        if event.serial != self.s.serial:
            return  # a later one is under way, and will be confirmed
        refused = dict(event.refused)
        wanted = {v.key for v in self.s.wanted}
        by_key = {r.key: r for r in self.s.refusals}
        for key in sorted(refused):
            row = self.rows.get(key)
            if key not in wanted or row is None:
                continue
            count = by_key[key].count + 1 if key in by_key else 1
            wait_ms = REFUSED_AGAIN_MS[min(count, len(REFUSED_AGAIN_MS)) - 1]
            by_key[key] = Refusal(key, row.generation, refused[key], count, self.now_ms + wait_ms)
        for key in event.held:
            if key in wanted:
                by_key.pop(key, None)
        held = tuple(sorted(event.held))
        for key in sorted(set(held) - set(self.s.confirmed)):
            self._record("acquired", vip=key, node=self.s.me)
        for key in sorted(set(self.s.confirmed) - set(held)):
            self._record("released", vip=key, node=self.s.me)
        self.s = replace(
            self.s,
            may_hold=held,
            confirmed=held,
            refusals=tuple(by_key[k] for k in sorted(by_key)),
        )

    def _wanted(self) -> tuple[Vip, ...]:
        me = self.s.me
        if self.s.phase is Phase.SETTLED or (self.s.phase is Phase.EXCHANGE and me in self.reports):
            failing = {(r.key, r.generation) for r in self.s.refusals if r.generation is not None}
            return tuple(
                row.vip
                for row in self.s.table.rows
                if row.holder == me and row.target == me and (row.key, row.generation) not in failing
            )
        if self.s.phase is Phase.EXCHANGE and self.s.statement is not None:
            held = frozenset(self.s.statement.held)
            return tuple(k.vip for k in self.s.statement.known if k.vip.key in held)
        return ()

    def _want(self) -> None:
        was, now = self.before, self.s
        if (
            now.table is was.table
            and now.phase is was.phase
            and now.statement is was.statement
            and now.refusals is was.refusals
        ):
            return
        wanted = self._wanted()
        if wanted == self.s.wanted:
            return
        may = set(self.s.may_hold) | {v.key for v in wanted}
        self.s = replace(self.s, wanted=wanted, serial=self.s.serial + 1, may_hold=tuple(sorted(may)))
        self.effects.append(HoldExactly(self.s.serial, wanted))

    # -- what there is to say -----------------------------------------------------------------------------------------

    def _speak(self) -> None:
        s = self.s
        view = s.view
        if view is None or s.phase in (Phase.OFFLINE, Phase.GONE):
            self._leave_if_empty()
            return
        if self.now_ms >= s.next_beat_ms:
            self._beat()
            self._watch_for_silence()
        if s.leaving_since_ms is not None and self._may_leave(s.leaving_since_ms):
            self._go()
            return
        if self.s.phase is Phase.EXCHANGE and self.s.me not in self.reports:
            if self.s.statement is not None:
                self._say(self.s.statement)
            return
        self._say_released()
        self._say_failed()
        mine = self.reports.get(self.s.me)
        if mine is not None:
            if self.s.leaving_since_ms is not None and not mine.leaving:
                self._say(Drain(self.s.me, self.s.draining, leaving=True))
            own = self._own_report()
            if replace(own, component=mine.component, mature=own.mature or mine.mature, leaving=mine.leaving) != mine:
                self._say(Attributes(own, self._new_vips()))
        if self.s.phase is Phase.SETTLED and self._first() == self.s.me:
            self._represent()

    def _new_vips(self) -> tuple[Vip, ...]:
        return tuple(v for v in self.s.settings.vips if v.key not in self.rows)

    def _beat(self) -> None:
        view = self.s.view
        assert view is not None
        digest = self.s.recent[-1][1] if self.s.recent and self.s.phase is Phase.SETTLED else ""
        number = self.s.beat_number + 1
        self.s = replace(self.s, beat_number=number, next_beat_ms=self.now_ms + self.s.settings.beat_ms)
        self.effects.append(Multicast(view.id, Beat(number, self.s.applied, digest, self.now_ms)))

    def _watch_for_silence(self) -> None:
        """Judge others only while my own beats come back (hazard 4)."""
        patience_ms = self.s.settings.evict_after_ms
        heard = {m: (n, at) for m, n, at in self.s.heard}
        own_count, own_at = heard[self.s.me]
        if self.now_ms - own_at > 3 * self.s.settings.beat_ms or not own_count:
            return
        for member, (count, at) in sorted(heard.items()):
            if member == self.s.me or member in self.evicted:
                continue
            report = self.reports.get(member)
            if self.now_ms - at >= patience_ms:
                self._say(Evict(member, report.incarnation if report else 0, count))
            elif (
                self.s.phase is Phase.EXCHANGE
                and report is None
                and self.now_ms - self.s.exchange_since_ms >= 2 * patience_ms
            ):
                self._say(Evict(member, 0, count, self.s.exchange_round))

    def _say_released(self) -> None:
        me = self.s.me
        may = frozenset(self.s.may_hold)
        gone = [
            (row.key, row.generation)
            for row in self.s.table.rows
            if row.holder == me and row.target != me and row.key not in may
        ]
        gone += [
            (row.key, generation)
            for row in self.s.table.rows
            for node, generation in row.releasing
            if node == me and row.key not in may
        ]
        if gone:
            self._say(Released(tuple(sorted(gone))))

    def _say_failed(self) -> None:
        keep: list[Refusal] = []
        for refusal in self.s.refusals:
            row = self.rows.get(refusal.key)
            if refusal.generation is not None:
                if row is not None and row.holder == self.s.me and row.generation == refusal.generation:
                    self._say(Failed(refusal.key, refusal.generation, refusal.reason))
                else:
                    refusal = replace(refusal, generation=None)
            keep.append(refusal)
        if tuple(keep) != self.s.refusals:
            self.s = replace(self.s, refusals=tuple(keep))

    def _represent(self) -> None:
        """What only the first member does: assign and evacuate where not all compute alike, and balance in rounds."""
        reports = self.s.table.reports
        if not agreement(reports):
            self._place_for_all()
        if self.now_ms < self.s.next_balance_ms:
            return
        settings = self.s.settings
        self.s = replace(self.s, next_balance_ms=self.now_ms + settings.balance_interval_ms)
        if not any(r.mature for r in reports):
            return
        since = dict(self.s.member_since)
        steady = [n for n in self.reports if self.now_ms - since.get(n, self.now_ms) >= settings.settle_ms]
        moves = placing.balance(self._placement(), steady)
        if settings.moves_per_round is not None:
            moves = moves[: settings.moves_per_round]
        self._say_moves(moves)

    def _say_moves(self, moves: Iterable[tuple[VipKey, NodeId]]) -> None:
        said: list[Move] = []
        for key, to in moves:
            row = self.rows[key]
            if row.holder is not None:
                said.append(Move(key, row.holder, row.generation, to))
        if said:
            self._say(Moves(tuple(said), operator=False))

    def _place_for_all(self) -> None:
        facts = self._placement()
        quotas = facts.quotas()
        moves: list[tuple[VipKey, NodeId]] = []
        for row in self.s.table.rows:
            if row.holder is None or row.holder != row.target or row.holder not in facts.reports:
                continue
            if facts.why_not(row.holder, row.key) is NotEligible.DRAINING:
                to = placing.refuge(facts, row.key, quotas)
                if to is not None:
                    moves.append((row.key, to))
                    facts.take(to)
        self._say_moves(moves)
        if any(r.mature for r in self.s.table.reports):
            given = placing.fill(self._placement())
            if given:
                self._say(Assign(tuple((k, self.rows[k].generation, n) for k, n in given)))

    def _may_leave(self, since_ms: int) -> bool:
        """Whether everything was handed over that somebody else can take, or the time for it is over."""
        if self.now_ms - since_ms >= self.s.settings.leave_ms:
            return True
        mine = self.reports.get(self.s.me)
        if self.s.phase is not Phase.SETTLED or mine is None or not mine.leaving:
            return False
        return not any(row.holder == self.s.me and self._can_go_elsewhere(row) for row in self.s.table.rows)

    def _go(self) -> None:
        """Let go of everything; the group is left when the kernel has confirmed that."""
        self._record("leaving", held=len(self.s.may_hold))
        self._drop_group()
        self._freeze_table()
        self._want()
        self._leave_if_empty()

    def _leave_if_empty(self) -> None:
        if self.s.leaving_since_ms is not None and self.s.phase is not Phase.GONE and not self.s.may_hold:
            self.s = replace(self.s, phase=Phase.GONE)
            self.effects.append(LeaveGroup(False, "asked to leave"))

    def _can_go_elsewhere(self, row: Row) -> bool:
        if row.target != row.holder:
            return True
        facts = self._placement()
        return any(n != row.holder and facts.why_not(n, row.key) is None for n in facts.candidates(row.key))


def _overlap(one: Vip, other: Vip) -> bool:
    return bool({a.ip for a in one.addresses} & {a.ip for a in other.addresses})
