"""What members say to each other. wire.py turns these into bytes and back."""

from __future__ import annotations

from dataclasses import dataclass

from .model import NodeId, OnWire, Report, Row, Vip, VipKey
from .standing import Order, Register


@dataclass(frozen=True, slots=True)
class KnownVip:
    """A VIP of the sender's config or table, with the highest generation the sender knows of it."""

    vip: Vip
    generation: int
    sticky: bool = False


@dataclass(frozen=True, slots=True)
class StateMessage:
    """Said once in every exchange: who I am, and what my kernel has or may have."""

    round: int  # number of the exchange in this view, from 1
    report: Report
    known: tuple[KnownVip, ...]  # sorted by key
    held: tuple[VipKey, ...]  # sorted
    releasing: tuple[VipKey, ...]  # my kernel may still have these, but I am letting go
    evicted: tuple[tuple[NodeId, int], ...]  # member and incarnation
    blocked: tuple[
        tuple[VipKey, NodeId], ...
    ] = ()  # what an evicted member without a fence, or a lost one, may still serve; or one that nothing can silence, if
    # it should say nothing in this exchange
    lapsing: tuple[tuple[NodeId, int, int], ...] = ()  # lost members as in Table.lapsing
    orders: Register = ()  # all that I know of
    joins: tuple[tuple[NodeId, int], ...] = ()  # members that came of late, and how often


@dataclass(frozen=True, slots=True)
class Attributes:
    """Something of mine changed since my State."""

    report: Report
    new: tuple[Vip, ...] = ()  # definitions that a reload added


@dataclass(frozen=True, slots=True)
class Move:
    """One VIP, from `holder` (as of `generation`) to `to`; void if either is no longer so."""

    key: VipKey
    holder: NodeId
    generation: int
    to: NodeId


@dataclass(frozen=True, slots=True)
class Moves:
    """These VIPs should go there; `operator`: a person wants it, and balance keeps off."""

    moves: tuple[Move, ...]
    operator: bool


@dataclass(frozen=True, slots=True)
class Released:
    """The kernel confirmed that I no longer hold these (key and the generation this answers)."""

    released: tuple[tuple[VipKey, int], ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """I was to hold this and my kernel refused."""

    key: VipKey
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    """I am alive and processing; what I had applied, and my table's digest then ("" during an exchange)."""

    number: int
    applied: int
    digest: str
    sent_ms: int  # the sender's CLOCK_BOOTTIME


@dataclass(frozen=True, slots=True)
class Assign:
    """From the representative when configs or placement versions differ: who takes which orphan."""

    assigned: tuple[tuple[VipKey, int, NodeId], ...]  # key, generation, to


@dataclass(frozen=True, slots=True)
class Evict:
    """`node` has been silent; void if more than `heard` messages of it were delivered in this view before this.
    With a `round`: it beats, but has said no State in that exchange; void if it has meanwhile."""

    node: NodeId
    incarnation: int
    heard: int
    round: int = 0


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The lease that a lost member had announced has run out since it was lost: what it had is free."""

    node: NodeId
    incarnation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """A node on its way out says `leaving`. Without that, it is an operator's word, said by members that keep no orders."""

    node: NodeId
    draining: bool
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Restart:
    """I shall be away for at most `bound_ms` after `sent_ms` (my CLOCK_BOOTTIME), and my kernel serves on: my VIPs are kept
    for me until then (hazard 20). 0: I shall not after all."""

    bound_ms: int
    sent_ms: int


@dataclass(frozen=True, slots=True)
class Witnessed:
    """I asked a VIP's segment who has it. Advice, and said once: it changes nothing that is agreed."""

    key: VipKey
    generation: int
    result: OnWire


@dataclass(frozen=True, slots=True)
class Note:
    """Something for people, of which the core knows only its place in the order (eventlog.py): it changes nothing that is
    agreed, is not counted in `Beat.applied`, and is said once."""

    body: bytes  # at most NOTE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Unstick:
    """An operator asks for balance: pins are over, and who flapped need not settle for longer; `at_once`: whatever the rounds'
    limits say."""

    at_once: bool = False
    by: str = ""


@dataclass(frozen=True, slots=True)
class Ordered:
    """An operator's wishes, each of the version that its author saw (standing.py). Only said where all members keep orders."""

    wishes: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Adopt:
    """From the representative after two exchanges in a row that digests forced: its rows, whole (hazard 22)."""

    rows: tuple[Row, ...]


Message = (
    StateMessage
    | Attributes
    | Moves
    | Released
    | Failed
    | Beat
    | Assign
    | Evict
    | Lapsed
    | Drain
    | Restart
    | Witnessed
    | Note
    | Unstick
    | Ordered
    | Adopt
)
