"""One member's whole state: the agreed table, what it knows of its own kernel, and its timers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .damping import Joins
from .messages import Message, StateMessage
from .model import Electorate, NodeId, NotEligible, Phase, Settings, Table, View, Vip, VipKey
from .shares import Load
from .standing import Register

__all__ = ("NOBODY", "Refusal", "Said", "State", "changed", "initial")

NOBODY = NodeId(0)
"""No engine gives out 0."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message that was multicast in this view, and when: not repeated before its own delivery is overdue (hazard 21)."""

    message: Message
    at_ms: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """My kernel refused a VIP: `generation` is still to be answered by Failed (None: it was), and when to try again."""

    key: VipKey
    generation: int | None
    reason: str
    count: int
    until_ms: int


@dataclass(frozen=True)
class State:
    """One member. `initial` makes one; only machine.step makes the next."""

    settings: Settings
    phase: Phase = Phase.OFFLINE
    me: NodeId = NOBODY
    incarnation: int = 0
    view: View | None = None
    table: Table = field(default_factory=Table)
    component: int = 1  # members of my last settled view
    exchange_round: int = 0  # of the last exchange in this view; 0: none was needed yet
    exchange_since_ms: int = 0
    statement: StateMessage | None = None  # what I say in the exchange that is open
    applied: int = 0  # ordered messages, without beats, delivered in this view
    recent: tuple[tuple[int, str], ...] = ()  # (applied, digest) of late, to compare beats with
    heard: tuple[
        tuple[NodeId, int, int], ...
    ] = ()  # member, messages delivered from it in this view, when the last (ms)
    said: tuple[Said, ...] = ()
    settled_table: Table | None = None  # of the last settled view, while an exchange is open: who had what then
    may_serve: tuple[
        tuple[VipKey, NodeId], ...
    ] = ()  # in an exchange, by the States so far: what members that nothing silences had before it
    lapse_due: tuple[
        tuple[NodeId, int, int], ...
    ] = ()  # of Table.lapsing: node, incarnation, when its wait is over here
    # my own side
    wanted: tuple[Vip, ...] = ()  # of the last HoldExactly
    serial: int = 0  # of the last HoldExactly
    may_hold: tuple[VipKey, ...] = ()  # my kernel may have these: confirmed, or asked for since
    confirmed: tuple[VipKey, ...] = ()  # my kernel has these, by its last word
    gone: tuple[tuple[VipKey, int], ...] = ()
    """What the table takes from me and `may_hold` lacks, by generation: follows from these two, and is kept since every beat
    asks for it."""
    refusals: tuple[Refusal, ...] = ()
    ineligible: tuple[tuple[VipKey, NotEligible], ...] = ()  # as my kernel is now
    failing: tuple[tuple[VipKey, NotEligible], ...] = ()  # by my health checks
    chosen: tuple[VipKey, ...] = ()  # as in Report
    fenced: bool = False
    renewed_ms: int | None = None  # when the last good own beat came back; None: not since I joined
    mature: bool = False
    falling_back: str | None = None  # why I shall leave and come back, once my kernel is dark or empty
    load: Load = field(default_factory=Load)
    inherited: tuple[Vip, ...] = ()  # what my predecessor handed over, until I have said so
    inherited_until_ms: int = 0
    electorates: tuple[Electorate, ...] = ()  # on my disk
    remembering: tuple[Electorate, ...] = ()  # of the last Remember
    leaving_since_ms: int | None = None
    started_ms: int | None = None
    beat_number: int = 0
    next_beat_ms: int = 0
    next_balance_ms: int = 0
    at_rest: tuple[Table, Settings, tuple[NodeId, ...] | None, int, int] | None = None
    """What a round of balance looked at that moved nothing."""
    balance_at_once: bool = False  # an operator wants all of it in the next round
    balance_left: int = 0  # moves that a round of balance may still make which goes on then; 0: it is a new one
    member_since: tuple[
        tuple[NodeId, int], ...
    ] = ()  # when I first saw it, ms: `settle` is the representative's judgement
    joins: Joins = ()  # who came of late, and how often: damping.py
    shares_changed_ms: int | None = None  # when a VIP last changed its holder, while shares follow loads
    forced_ms: int | None = None  # when a digest forced the last exchange
    divergences: int = 0  # forced exchanges in a row


if TYPE_CHECKING:
    from dataclasses import replace as changed
else:

    def changed(state: State, /, **fields: Any) -> State:
        """`dataclasses.replace` of a state, in 1 us instead of 20: each event makes several, and without slots one dict is
        copied instead of each field."""
        new = object.__new__(State)
        new.__dict__.update(state.__dict__, **fields)
        return new


def initial(
    settings: Settings,
    electorates: tuple[Electorate, ...] = (),
    inherited: tuple[Vip, ...] = (),
    inherited_until_ms: int = 0,
    orders: Register = (),
) -> State:
    """A member that has not met its group yet. `electorates`: what its disk remembers (the last Remembered). `inherited`:
    the VIPs that its predecessor's process has left on the interfaces for it, reserved until then (Restart). `orders`: the
    last KeepOrders that reached the disk."""
    return State(
        settings=settings,
        table=Table(orders=orders),
        electorates=electorates,
        remembering=electorates,
        inherited=inherited,
        inherited_until_ms=inherited_until_ms,
        wanted=inherited,
        may_hold=tuple(sorted(v.key for v in inherited)),
    )
