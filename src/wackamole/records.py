"""What a member writes down about itself, so that it can be proved afterwards who served what (docs/audit.md).

One JSON object per line. Every record carries `at`, the host's CLOCK_BOOTTIME, and `wall`, its wall clock, both in whole
microseconds. `Recorder` makes records of what the core is told and asks for; it is given the clocks, so that the
simulator can feed it as well. The file is shell/record.py's business, reading it audit.py's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec

from .core import effects as do
from .core import events as ev
from .core.messages import Beat, Message, StateMessage
from .core.model import NodeId, NotEligible, Phase, Settings, VipKey
from .core.state import State

FORMAT = 1
RENEWAL_WRITTEN_MS = 1000
"""Renewals come with every beat; while the fence stays open, only the first of each second is written."""
HEARD_WRITTEN_US = 10_000_000
"""How often a member's beat is written that ties its clock to ours."""

Micros = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Text = Annotated[str, msgspec.Meta(max_length=512)]
Member = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag=str.lower):
    """What all records have: when. `at`: CLOCK_BOOTTIME; `wall`: CLOCK_REALTIME; microseconds."""

    at: Micros
    wall: Micros


class Start(Record, frozen=True, kw_only=True):
    """The first record of every file, and the one after a gap. `part` counts them in one run from 1; a later one is
    followed by where the run stands."""

    mono: Micros  # CLOCK_MONOTONIC: `at` less the time that the host was suspended
    format: int
    cluster: Text
    node: Text
    version: Text
    boot: Text  # /proc/sys/kernel/random/boot_id: a clock is good for one boot of one host
    run: Text
    part: Annotated[int, msgspec.Meta(ge=1)]
    nodes: tuple[Text, ...]
    partition: Text
    open_ms: Millis  # a renewal opens the fence for at most so long; 0: there is no fence
    slack_ms: Millis  # and for at least so much less
    renewal_written_ms: Millis  # renewals of an open fence are written no more often
    patience_ms: (
        Millis  # by the config's times an address can be without a host for so long (evict_after + lease + mature)
    )
    vips: dict[Text, tuple[Text, ...]]  # name: addresses


class Stop(Record, frozen=True, kw_only=True):
    """The daemon ends, its kernel holds nothing."""

    reason: Text


class Joined(Record, frozen=True, kw_only=True):
    """The engine's number for this host."""

    id: Member
    incarnation: int


class View(Record, frozen=True, kw_only=True):
    """Who can talk to each other from now on."""

    id: Text
    members: tuple[Member, ...]


class Out(Record, frozen=True, kw_only=True):
    """There is no view any longer: the engine is lost, or this member leaves."""

    reason: Text


class Settled(Record, frozen=True, kw_only=True):
    """Whether the table is agreed: no after every change of the view that needs an exchange, until that is done."""

    settled: bool


class Evicted(Record, frozen=True, kw_only=True):
    """Members of the view that count as gone, all of them."""

    members: tuple[Member, ...]


class Ask(Record, frozen=True, kw_only=True):
    """The kernel was asked to have exactly these addresses: from now on it may have the new ones, and lack the old."""

    serial: int
    addresses: tuple[Text, ...]


class Hold(Record, frozen=True, kw_only=True):
    """The kernel was read back and has exactly these addresses. `again`: nobody asked; some had been removed behind our
    back, and were put back."""

    serial: int
    addresses: tuple[Text, ...]
    acquired: tuple[Text, ...]
    released: tuple[Text, ...]
    again: bool = False


class Fence(Record, frozen=True, kw_only=True):
    """The fence is open until then at the latest; null: shut. `lapsed`: it had run out before, at that time."""

    until: Micros | None
    lapsed: Micros | None = None


class Heard(Record, frozen=True, kw_only=True):
    """A beat of another member was delivered; `sent`: its clock when it sent that."""

    member: Member
    sent: Micros


class Said(Record, frozen=True, kw_only=True):
    """A message is handed to the engine; `what` tells it from all others of this member."""

    what: Text


class Told(Record, frozen=True, kw_only=True):
    """Another member's message was delivered; `what` as its sender wrote it."""

    member: Member
    what: Text


class Barred(Record, frozen=True, kw_only=True):
    """The addresses that this host cannot hold now, with the reason."""

    addresses: dict[Text, Text]


class Gap(Record, frozen=True, kw_only=True):
    """Records could not be written from `since` until now: comes after a Start, and where the run stands follows."""

    since: Micros
    lost: int


AnyRecord = (
    Start | Stop | Joined | View | Out | Settled | Evicted | Ask | Hold | Fence | Heard | Said | Told | Barred | Gap
)

encoder = msgspec.json.Encoder()
decoder: msgspec.json.Decoder[AnyRecord] = msgspec.json.Decoder(AnyRecord)


def line(record: AnyRecord) -> bytes:
    """A record as it stands in the file."""
    return encoder.encode(record) + b"\n"


class Reading(NamedTuple):
    """The clocks, read together; microseconds."""

    at: int
    wall: int
    mono: int


def read_clocks() -> Reading:
    """This host's clocks now."""
    clocks = (time.CLOCK_BOOTTIME, time.CLOCK_REALTIME, time.CLOCK_MONOTONIC)
    return Reading(*(time.clock_gettime_ns(c) // 1000 for c in clocks))


def mark_of(view: object, message: Message) -> str:
    """Tells a message from all others that its sender says, alike at its sender and at who gets it."""
    name = type(message).__name__
    if isinstance(message, StateMessage):  # large, and there is one in each round
        return f"{name} {view} {message.round}"
    return f"{name} {view} {hashlib.blake2b(repr(message).encode(), digest_size=6).hexdigest()}"


class Recorder:
    """Makes the records of one run out of what its core is told and what it asks for. `slack_ms`: how much earlier than
    the announced lease its kernel may fall silent."""

    def __init__(
        self,
        settings: Settings,
        *,
        cluster: str,
        boot: str,
        run: str,
        slack_ms: int,
        clocks: Callable[[], Reading] = read_clocks,
    ) -> None:
        self._settings = settings
        self._cluster, self._boot, self._run = cluster, boot, run
        self._slack_ms = slack_ms
        self._clocks = clocks
        self._part = 0
        self._me: tuple[NodeId, int] | None = None
        self._view: View | None = None
        self._settled = False
        self._evicted: tuple[int, ...] = ()
        self._asked: Ask | None = None
        self._held: Hold | None = None
        self._until: int | None = None
        self._fence_written = 0
        self._heard: dict[NodeId, int] = {}
        self._barred: dict[str, str] = {}
        self._barred_by: dict[type, dict[str, str]] = {}  # kernel and health checks
        self._addresses: dict[VipKey, tuple[str, ...]] = {
            v.key: tuple(a.ip for a in v.addresses) for v in settings.vips
        }

    @property
    def _open_us(self) -> int:
        return max(0, self._settings.lease_ms - self._settings.beat_age_max_ms) * 1000

    def begin(self) -> list[AnyRecord]:
        """The first records of a file: the header, and in a later file of the same run where it stands."""
        now = self._clocks()
        start = self._start(now)
        return [start] if self._part == 1 else [start, *self._standing(now)]

    def gap(self, since: int, lost: int) -> list[AnyRecord]:
        """After `lost` records that could not be written, the first at `since`: say so, and where the run stands."""
        now = self._clocks()
        return [self._start(now), Gap(at=now.at, wall=now.wall, since=since, lost=lost), *self._standing(now)]

    def _start(self, now: Reading) -> Start:
        self._part += 1
        s = self._settings
        return Start(
            at=now.at,
            wall=now.wall,
            mono=now.mono,
            format=FORMAT,
            cluster=self._cluster,
            node=s.node,
            version=s.version,
            boot=self._boot,
            run=self._run,
            part=self._part,
            nodes=s.nodes,
            partition=s.partition.value,
            open_ms=self._open_us // 1000,
            slack_ms=self._slack_ms,
            renewal_written_ms=RENEWAL_WRITTEN_MS,
            patience_ms=s.evict_after_ms + s.lease_ms + s.mature_ms,
            vips={v.name: tuple(a.ip for a in v.addresses) for v in s.vips},
        )

    def stop(self, reason: str) -> Stop:
        """The last record."""
        now = self._clocks()
        return Stop(at=now.at, wall=now.wall, reason=reason)

    def _standing(self, now: Reading) -> list[AnyRecord]:
        at, wall = now.at, now.wall
        found: list[AnyRecord] = []
        if self._me is not None:
            found.append(Joined(at=at, wall=wall, id=self._me[0], incarnation=self._me[1]))
        if self._view is not None:
            found.append(msgspec.structs.replace(self._view, at=at, wall=wall))
            found.append(Settled(at=at, wall=wall, settled=self._settled))
            found.append(Evicted(at=at, wall=wall, members=self._evicted))
        found.append(Barred(at=at, wall=wall, addresses=self._barred))
        if self._held is not None:
            found.append(msgspec.structs.replace(self._held, at=at, wall=wall, acquired=(), released=(), again=False))
        if self._asked is not None:
            found.append(msgspec.structs.replace(self._asked, at=at, wall=wall))
        if self._until is not None and self._until > at:
            found.append(self._fence(now, None))
        return found

    # -- what happens -----------------------------------------------------------------------------------------------------

    def note(self, event: ev.Event, effects: tuple[do.Effect, ...], state: State) -> list[AnyRecord]:
        """The records of one step: `state` is the one after it. To be called before the effects are carried out: what is
        asked of the kernel must not come before its record."""
        if isinstance(event, ev.MessageDelivered) and not effects and isinstance(event.message, Beat):
            last = self._heard.get(event.sender)
            if event.sender == state.me or (last is not None and self._clocks().at - last < HEARD_WRITTEN_US):
                return []  # most steps are such
        now = self._clocks()
        found = self._of_event(event, state, now)
        found += self._of_state(event, effects, state, now)
        for effect in effects:
            found += self._of_effect(effect, now)
        return found

    def _of_event(self, event: ev.Event, state: State, now: Reading) -> list[AnyRecord]:
        at, wall = now.at, now.wall
        match event:
            case ev.EngineJoined():
                self._me = (event.me, event.incarnation)
                return [Joined(at=at, wall=wall, id=event.me, incarnation=event.incarnation)]
            case ev.KernelConfirmed() if self._asked is None or event.serial == self._asked.serial:
                return self._confirmed(event, now)
            case ev.EligibilityChanged():
                return [self._bar(type(event), event.ineligible, now)]
            case ev.HealthChanged():
                return [self._bar(type(event), event.failing, now)]
            case ev.MessageDelivered() if event.sender != state.me:
                if not isinstance(event.message, Beat):
                    return [Told(at=at, wall=wall, member=event.sender, what=mark_of(event.view, event.message))]
                last = self._heard.get(event.sender)
                if last is None or at - last >= HEARD_WRITTEN_US:
                    self._heard[event.sender] = at
                    return [Heard(at=at, wall=wall, member=event.sender, sent=event.message.sent_ms * 1000)]
            case _:
                pass
        return []

    def _bar(self, by: type, reasons: tuple[tuple[VipKey, NotEligible], ...], now: Reading) -> Barred:
        hard = {ip: why.value for key, why in reasons if why.forbids for ip in self._addresses.get(key, ())}
        self._barred_by[by] = hard
        self._barred = {ip: why for found in self._barred_by.values() for ip, why in found.items()}
        return Barred(at=now.at, wall=now.wall, addresses=self._barred)

    def _confirmed(self, event: ev.KernelConfirmed, now: Reading) -> list[AnyRecord]:
        addresses = tuple(sorted(ip for key in event.held for ip in self._addresses.get(key, ())))
        was = self._held
        before = was.addresses if was is not None else ()
        again = was is not None and was.serial == event.serial
        self._held = Hold(
            at=now.at,
            wall=now.wall,
            serial=event.serial,
            addresses=addresses,
            acquired=tuple(sorted(set(addresses) - set(before))),
            released=tuple(sorted(set(before) - set(addresses))),
            again=again,
        )
        return [self._held]

    def _of_state(self, event: ev.Event, effects: tuple[do.Effect, ...], state: State, now: Reading) -> list[AnyRecord]:
        """What is read off the state: view, settled or not, who is evicted."""
        at, wall = now.at, now.wall
        found: list[AnyRecord] = []
        view = state.view
        if view is None:
            if self._view is not None:
                said = [e.reason for e in effects if isinstance(e, do.LeaveGroup)]
                reason = event.reason if isinstance(event, ev.EngineLost) else (said or ["leaving"])[0]
                found.append(Out(at=at, wall=wall, reason=reason[:512]))
            self._view, self._settled, self._evicted = None, False, ()
            self._heard.clear()
            return found
        if self._view is None or self._view.id != str(view.id):
            self._view = View(at=at, wall=wall, id=str(view.id), members=view.members)
            self._settled, self._evicted = False, ()
            self._heard.clear()
            found.append(self._view)
        settled = state.phase is Phase.SETTLED
        if settled is not self._settled:
            self._settled = settled
            found.append(Settled(at=at, wall=wall, settled=settled))
        evicted = tuple(n for n, _ in state.table.evicted)
        if evicted != self._evicted:
            self._evicted = evicted
            found.append(Evicted(at=at, wall=wall, members=evicted))
        return found

    def _of_effect(self, effect: do.Effect, now: Reading) -> list[AnyRecord]:
        at, wall = now.at, now.wall
        match effect:
            case do.Multicast() if not isinstance(effect.message, Beat):
                return [Said(at=at, wall=wall, what=mark_of(effect.view, effect.message))]
            case do.HoldExactly():
                self._addresses.update({v.key: tuple(a.ip for a in v.addresses) for v in effect.vips})
                wanted = tuple(sorted(a.ip for v in effect.vips for a in v.addresses))
                self._asked = Ask(at=at, wall=wall, serial=effect.serial, addresses=wanted)
                return [self._asked]
            case do.RenewLease() if self._open_us:
                was, self._until = self._until, at + self._open_us
                if was is None or was < at:
                    return [self._fence(now, was)]
                if at - self._fence_written >= RENEWAL_WRITTEN_MS * 1000:
                    return [self._fence(now, None)]
            case do.Hand():
                self._until = effect.until_ms * 1000
                return [self._fence(now, None)]
            case do.ShutFence() if self._until is not None:
                was, self._until = self._until, None
                return [self._fence(now, was if was < at else None)]
            case _:
                pass
        return []

    def _fence(self, now: Reading, lapsed: int | None) -> Fence:
        self._fence_written = now.at
        return Fence(at=now.at, wall=now.wall, until=self._until, lapsed=lapsed)
