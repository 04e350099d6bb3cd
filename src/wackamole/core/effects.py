"""What shall be done: everything the core ever asks for."""

from __future__ import annotations

from dataclasses import dataclass

from .messages import Message
from .model import Electorate, NodeId, OnWire, ViewId, Vip, VipKey
from .standing import Register


@dataclass(frozen=True, slots=True)
class Multicast:
    """Send this to the group, stamped with the view it was said in."""

    view: ViewId
    message: Message


@dataclass(frozen=True, slots=True)
class RenewLease:
    """Let the fence pass my VIPs for one more lease: an own beat came back that was sent at `sent_ms` (CLOCK_BOOTTIME)."""

    sent_ms: int


@dataclass(frozen=True, slots=True)
class ShutFence:
    """Let nothing of mine pass from this moment on."""


@dataclass(frozen=True, slots=True)
class HoldExactly:
    """The kernel shall have exactly these of our VIPs: drop first, then add, announce what is new, read back, and answer
    with KernelConfirmed(serial). The latest wins; an older one that was overtaken needs no answer."""

    serial: int
    vips: tuple[Vip, ...]  # sorted


@dataclass(frozen=True, slots=True)
class Remember:
    """Have these electorates on the disk, in place of those that are there, also after a loss of power; then answer with
    Remembered. The latest wins."""

    electorates: tuple[Electorate, ...]


@dataclass(frozen=True, slots=True)
class KeepOrders:
    """Have this register on the disk soon, in place of the one that is there. The latest wins; nothing waits for it."""

    orders: Register


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce these again, from the start of the schedule: neighbours may have learnt another's MAC."""

    vips: tuple[Vip, ...]


@dataclass(frozen=True, slots=True)
class ShowWitness:
    """A member has asked a VIP's segment who has it: show that for as long as its holder is the same."""

    key: VipKey
    by: NodeId
    result: OnWire


@dataclass(frozen=True, slots=True)
class TakeNote:
    """A member's note has this place: after all notes of this view that came before. All who are in the view take the same
    ones in the same order."""

    view: ViewId
    by: NodeId
    body: bytes


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """Leave the group. `come_back`: join again as a newcomer (after an eviction); else the daemon is done."""

    come_back: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Hand:
    """The group keeps my VIPs for me: let the kernel serve them until `until_ms` (CLOCK_BOOTTIME), and hand this process
    over to its successor."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """Something to tell people: one log line, one entry of the history."""

    what: str  # a word: `view`, `acquire`, `release`, `move`, `conflict`, `evict`, `settled`, `failed`, `diverged`, …
    fields: tuple[tuple[str, str], ...]
    vip: VipKey | None = None
    node: NodeId | None = None


Effect = (
    Multicast
    | RenewLease
    | ShutFence
    | HoldExactly
    | Remember
    | KeepOrders
    | Announce
    | ShowWitness
    | TakeNote
    | LeaveGroup
    | Hand
    | Record
)
