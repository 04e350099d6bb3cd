"""Records made by hand: a history in true time, told by hosts whose clocks are set as they please; and what is true of it,
found by looking at every moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from wackamole.records import (
    FORMAT,
    AnyRecord,
    Ask,
    Fence,
    Heard,
    Hold,
    Joined,
    Settled,
    Start,
    Stop,
    View,
    line,
)

EPOCH_US = 1_700_000_000_000_000
OPEN_MS = 40


@dataclass(frozen=True)
class Moment:
    """What a host does at a moment: None leaves a thing as it is."""

    view: tuple[int, ...] | None = None
    hold: frozenset[str] | None = None
    renews: bool | None = None


@dataclass
class Host:
    """One host's history: what it does at each tick (a millisecond), when its daemon is killed, and how its clocks are set."""

    number: int
    moments: dict[int, Moment]
    ahead_us: int
    wall_ahead_us: int
    killed: int | None = None
    records: list[AnyRecord] = field(default_factory=list)
    truth: list[tuple[tuple[int, ...], frozenset[str]]] = field(default_factory=list)  # by tick: view, what it serves

    @property
    def name(self) -> str:
        return f"n{self.number}"

    def clock(self, us: int) -> tuple[int, int]:
        """`at` and `wall` at a true time."""
        return us + self.ahead_us, EPOCH_US + us + self.wall_ahead_us


def played(hosts: list[Host], ticks: int, addresses: tuple[str, ...], heard_every: int, latency: int) -> None:
    """Let the histories happen: fill in every host's records and the truth."""
    for host in hosts:
        host.records += _told(host, hosts, ticks, addresses, heard_every, latency)


def _told(
    host: Host, hosts: list[Host], ticks: int, addresses: tuple[str, ...], heard_every: int, latency: int
) -> Iterator[AnyRecord]:
    at, wall = host.clock(0)
    yield Start(
        at=at,
        wall=wall,
        mono=at,
        format=FORMAT,
        cluster="web",
        node=host.name,
        version="1",
        boot=f"boot {host.number}",
        run=f"run {host.number}",
        part=1,
        nodes=tuple(h.name for h in hosts),
        partition="cover",
        open_ms=OPEN_MS,
        slack_ms=0,
        renewal_written_ms=0,
        patience_ms=1000,
        vips={a: (a,) for a in addresses},
    )
    yield Joined(at=at, wall=wall, id=host.number, incarnation=1)
    view: tuple[int, ...] = (host.number,)
    holds: frozenset[str] = frozenset()
    renews, serial = True, 0
    until: int | None = None
    end = ticks if host.killed is None else host.killed
    for tick in range(end):
        at, wall = host.clock(tick * 1000)
        moment = host.moments.get(tick, Moment())
        renews = renews if moment.renews is None else moment.renews
        if renews:
            lapsed = until if until is not None and until < tick else None
            until = tick + OPEN_MS
            last = None if lapsed is None else host.clock(lapsed * 1000)[0]
            yield Fence(at=at, wall=wall, until=host.clock(until * 1000)[0], lapsed=last)
        if tick == 0 or (moment.view is not None and moment.view != view):
            view = moment.view or view
            # equal members at different times are different views
            yield View(at=at, wall=wall, id=f"{tick} {view}", members=view)
            yield Settled(at=at, wall=wall, settled=True)
        if moment.hold is not None and moment.hold != holds:
            serial, before, holds = serial + 1, holds, moment.hold
            wanted = tuple(sorted(holds))
            yield Ask(at=at, wall=wall, serial=serial, addresses=wanted)
            yield Hold(
                at=at,
                wall=wall,
                serial=serial,
                addresses=wanted,
                acquired=tuple(sorted(holds - before)),
                released=tuple(sorted(before - holds)),
            )
        for other in hosts:
            sent = tick - latency
            if other is not host and tick % heard_every == 0 and 0 <= sent < (other.killed or ticks):
                yield Heard(at=at, wall=wall, member=other.number, sent=other.clock(sent * 1000)[0])
        is_open = until is not None and tick < until
        host.truth.append((view, holds if is_open else frozenset()))
    if host.killed is None:
        at, wall = host.clock(ticks * 1000)
        yield Stop(at=at, wall=wall, reason="left")


def files(hosts: list[Host]) -> list[tuple[str, bytes]]:
    """What they wrote."""
    return [(f"{h.name}.jsonl", b"".join(line(r) for r in h.records)) for h in hosts]


def doubles(hosts: list[Host], address: str) -> list[bool]:
    """For every tick: whether two hosts that are in each other's view serve the address."""
    found = []
    for tick in range(max(len(h.truth) for h in hosts)):
        serving = [(h.number, h.truth[tick][0]) for h in hosts if tick < len(h.truth) and address in h.truth[tick][1]]
        found.append(any(a in their and b in mine for a, mine in serving for b, their in serving if a < b))
    return found


def bare(hosts: list[Host], host: Host, address: str) -> list[bool]:
    """For every tick that a host lived: whether nobody in its view served the address."""
    return [
        not any(h.number in view and tick < len(h.truth) and address in h.truth[tick][1] for h in hosts)
        for tick, (view, _) in enumerate(host.truth)
    ]


def longest(flags: list[bool]) -> int:
    """The longest stretch of True."""
    best = now = 0
    for flag in flags:
        now = now + 1 if flag else 0
        best = max(best, now)
    return best
