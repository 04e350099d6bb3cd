"""What happened: everything the core is ever told."""

from __future__ import annotations

from dataclasses import dataclass

from .messages import Message
from .model import Electorate, NodeId, NotEligible, OnWire, Settings, View, ViewId, VipKey
from .standing import Order


@dataclass(frozen=True, slots=True)
class EngineJoined:
    """The group engine is there; the first view follows."""

    me: NodeId
    incarnation: int


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The group engine is gone: hold nothing until there is a view again."""

    reason: str


@dataclass(frozen=True, slots=True)
class ViewInstalled:
    """The membership changed."""

    view: View


@dataclass(frozen=True, slots=True)
class MessageDelivered:
    """A message was delivered, in the agreed order. `view` is the one it was sent in."""

    sender: NodeId
    view: ViewId
    message: Message


@dataclass(frozen=True, slots=True)
class KernelConfirmed:
    """The kernel was read back after HoldExactly number `serial`: it has exactly `held` of ours; `refused` says why not."""

    serial: int
    held: tuple[VipKey, ...]  # sorted
    refused: tuple[tuple[VipKey, str], ...]  # sorted


@dataclass(frozen=True, slots=True)
class EligibilityChanged:
    """Links, interfaces or foreign addresses changed: the VIPs that this host cannot hold now, with the reason."""

    ineligible: tuple[tuple[VipKey, NotEligible], ...]  # sorted


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """Health checks changed their minds. `failing`: the VIPs that they have something against, with the reason; `chosen`:
    those whose check may pass on one member only, and passes here. Both sorted."""

    failing: tuple[tuple[VipKey, NotEligible], ...]
    chosen: tuple[VipKey, ...]


@dataclass(frozen=True, slots=True)
class FenceChanged:
    """Whether the fence is proven: installed, renewed, read back, and closed before the engine when the process dies."""

    fenced: bool


@dataclass(frozen=True, slots=True)
class Remembered:
    """These electorates are on the disk, and those that were there before are not."""

    electorates: tuple[Electorate, ...]


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """The config was read again, was good, and says something else."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Paused:
    """This process did not run for `gap_ms`, longer than its lease: told before anything that came meanwhile."""

    gap_ms: int


@dataclass(frozen=True, slots=True)
class MoveRequested:
    """An operator asks for VIPs to go to a node. That they belong there from now on is an order of its own."""

    keys: tuple[VipKey, ...]
    to: NodeId


@dataclass(frozen=True, slots=True)
class OrderRequested:
    """An operator orders what is to stay so; their versions do not count. What is so already is not said."""

    wishes: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class LeaveRequested:
    """Hand everything over, then go (SIGTERM, `wackamole leave`)."""


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """This process is to be replaced by another that goes on with its VIPs, within `bound_ms`; 0: not after all."""

    bound_ms: int


@dataclass(frozen=True, slots=True)
class SegmentAsked:
    """This host asked a VIP's segment who has it, when `holder` held it."""

    key: VipKey
    holder: NodeId
    result: OnWire


@dataclass(frozen=True, slots=True)
class NoteRequested:
    """This host has a note for everybody. It is said in the view of now, or not at all: whether it was delivered there is for
    its author to see."""

    body: bytes


@dataclass(frozen=True, slots=True)
class BalanceRequested:
    """An operator asks for a round of balancing now; pins are over. `at_once`: all of it, onto whoever is there."""

    at_once: bool = False
    by: str = ""


@dataclass(frozen=True, slots=True)
class LoadMeasured:
    """This host's load, in hundredths; None: it cannot be told any more."""

    load: int | None


@dataclass(frozen=True, slots=True)
class TimePassed:
    """A deadline was due; the time is `step`'s argument."""


Event = (
    EngineJoined
    | EngineLost
    | ViewInstalled
    | MessageDelivered
    | KernelConfirmed
    | EligibilityChanged
    | HealthChanged
    | FenceChanged
    | Remembered
    | ConfigReloaded
    | Paused
    | MoveRequested
    | OrderRequested
    | LeaveRequested
    | RestartRequested
    | SegmentAsked
    | NoteRequested
    | BalanceRequested
    | LoadMeasured
    | TimePassed
)
