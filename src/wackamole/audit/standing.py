"""Where a member stood at every moment, and what it served then: surely, and at most."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..records import Ask, Barred, Evicted, Fence, Gap, Hold, Joined, Out, Settled, Start, Stop, View
from .reading import Clock, Run
from .spans import Span

FOREVER_US = 10 * 365 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A time in which nothing changed at one member. By its own clock, microseconds; `lived`: it wrote something that late."""

    since: int
    until: int
    lived: int
    me: int = 0
    view: str = "-"
    members: frozenset[int] = frozenset()  # in good standing
    entered: int = 0
    settled: bool = False
    asked: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()
    began: tuple[tuple[str, int], ...] = ()  # since when it may have had each address
    known: bool = True  # False: records are missing


@dataclass(frozen=True, slots=True)
class Opening:
    """The fence was open: surely until `surely`, at most until `until`."""

    since: int
    surely: int
    until: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One member may have served one address from `since` to `until`, and surely in `sure`, by its own clock."""

    run: Run
    segment: Segment
    address: str
    since: int
    until: int
    sure: Span | None

    @property
    def clock(self) -> Clock:
        """By which its times are."""
        return self.run.clock

    @property
    def inherited(self) -> bool:
        """Whether it had the address before it entered its view."""
        return dict(self.segment.began).get(self.address, 0) < self.segment.entered

    @property
    def passing(self) -> bool:
        """Whether a double that came along into its view may not be resolved yet: no table is agreed, or it lets go."""
        return not self.segment.settled or self.address not in self.segment.asked


def segments(run: Run, next_start: int | None, lived: int) -> list[Segment]:
    """Where a run stood, all its time. `next_start`: of the same host's next run, by the same clock; `lived`: others heard
    it as late as that."""
    found: list[Segment] = []
    now = Segment(run.start.at, run.start.at, run.start.at)
    began: dict[str, int] = {}
    serial = 0
    resumed = not run.whole
    view_members: frozenset[int] = frozenset()

    def close(at: int, lived_until: int) -> None:
        if at > now.since:
            found.append(replace(now, until=at, lived=max(now.since, min(at, lived_until)), began=tuple(began.items())))

    previous = run.start.at
    for record in run.records[1:]:
        at = record.at
        new = now
        match record:
            case Gap():
                since = record.since if record is run.records[1] else max(now.since, record.since)
                close(since, since)
                found.append(Segment(since, at, since, known=False))
                now, began, serial, resumed = Segment(at, at, at), {}, 0, True
                previous = at
                continue
            case Joined():
                new = replace(now, me=record.id)
            case View():
                view_members = frozenset(record.members)
                if record.id != now.view:
                    entered = 1 if resumed else at
                    new = replace(now, view=record.id, members=view_members, entered=entered, settled=False)
            case Out():
                new = replace(now, view="-", members=frozenset(), settled=False)
            case Settled():
                new = replace(now, settled=record.settled)
                resumed = False
            case Evicted():
                new = replace(now, members=view_members - frozenset(record.members))
            case Barred():
                new = replace(now, barred=frozenset(record.addresses))
            case Ask():
                serial = record.serial
                new = replace(now, asked=frozenset(record.addresses))
            case Hold():
                held = frozenset(record.addresses)
                new = replace(now, held=held, asked=held if record.serial >= serial else now.asked)
            case Stop():
                close(at, previous if now.held | now.asked else at)
                return found
            case _:
                pass
        if new != now:
            close(at, at)
            now = replace(new, since=at)
            may = now.asked | now.held
            began = {a: began.get(a, 0 if resumed else at) for a in sorted(may)}
        previous = at
    if lived > run.last.at + run.start.renewal_written_ms * 2000 and (next_start is None or next_start > lived):
        close(run.last.at, run.last.at)
        until = lived + (run.start.open_ms + run.start.renewal_written_ms) * 1000
        found.append(Segment(run.last.at, until, run.last.at, known=False))
    else:
        close(next_start if next_start is not None else run.last.at + FOREVER_US, run.last.at)
    return found


def openings(run: Run) -> list[Opening]:
    """When its fence was open."""
    start, last = run.start, run.last
    ended = isinstance(last, Stop)
    if not start.open_ms:
        return [Opening(start.at, last.at, last.at if ended else last.at + FOREVER_US)]
    slack = start.slack_ms * 1000
    found: list[Opening] = []
    opened: int | None = None
    written: Fence | None = None
    for record in run.records:
        if isinstance(record, Gap) and opened is not None:
            found.append(Opening(opened, record.since, record.since))
            opened = None
        if not isinstance(record, Fence):
            continue
        if opened is not None and record.lapsed is not None:
            found.append(Opening(opened, record.lapsed - slack, record.lapsed))
            opened = None
        elif opened is not None and record.until is None:
            found.append(Opening(opened, record.at, record.at + slack))
            opened = None
        if record.until is not None:
            opened, written = record.at if opened is None else opened, record
    if opened is not None and written is not None and written.until is not None:
        # Renewals between the written ones are not in the file: the last may have been just before the next was due.
        longest = written.until + start.renewal_written_ms * 1000
        found.append(Opening(opened, min(last.at, written.until - slack), min(last.at, longest) if ended else longest))
    return found


def pieces(run: Run, stood: Sequence[Segment]) -> list[Piece]:
    """What a run served."""
    found: list[Piece] = []
    opened = openings(run)
    every = sorted({a for record in run.records if isinstance(record, Start) for v in record.vips.values() for a in v})
    for segment in stood:
        if not segment.known:
            found += [Piece(run, segment, a, segment.since, segment.until, None) for a in every]
            continue
        may = segment.asked | segment.held
        if not may:
            continue
        first = max(0, bisect_right(opened, segment.since, key=lambda o: o.since) - 1)
        for opening in opened[first:]:
            if opening.since >= segment.until:
                break
            since, until = max(segment.since, opening.since), min(segment.until, opening.until)
            if since >= until:
                continue
            surely = min(segment.lived, opening.surely, until)
            for address in sorted(may):
                sure = address in segment.asked & segment.held and since < surely
                found.append(Piece(run, segment, address, since, until, (since, surely) if sure else None))
    return found
