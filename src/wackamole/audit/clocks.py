"""Bounds between hosts' clocks, from the messages between them. No two clocks are trusted to agree."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ..records import AnyRecord, Heard, Joined, Out, Said, Told, View
from .reading import Clock, Run
from .spans import Span

DRIFT_PPM = 1000
"""How far apart two hosts' CLOCK_BOOTTIME may go: NTP slews each by 500 ppm at most."""
NEAREST = 16
"""Messages on either side of a moment that its bounds are taken from; more would hardly narrow them."""


class Clocks:
    """Bounds between the clocks of hosts, from messages: what was sent at s was delivered at d."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._sent: dict[tuple[Clock, Clock], list[Span]] = defaultdict(list)
        self._wall: dict[Clock, int] = {}
        for run in runs:
            self._wall.setdefault(run.clock, run.start.wall - run.start.at)
        ids: dict[int, set[Clock]] = defaultdict(set)
        said: dict[tuple[int, str], tuple[Clock, int]] = {}
        for run, me, record in _with_id(runs):
            ids[me].add(run.clock)
            if isinstance(record, Said):
                said.setdefault((me, record.what), (run.clock, record.at))
        self.lived: dict[Clock, int] = {}
        for sender, sent, receiver, delivered in _joins(runs):
            self._learn(sender, sent, receiver, delivered)
        for run, _, record in _with_id(runs):
            if isinstance(record, Told) and (record.member, record.what) in said:
                sender, at = said[record.member, record.what]
                self._learn(sender, at, run.clock, record.at)
            elif isinstance(record, Heard) and ids[record.member]:
                # A host that was booted anew has a new clock, and the beat does not say which it was: by the wall clocks.
                wall, sent = record.wall, record.sent
                sender = min(sorted(ids[record.member]), key=lambda c: abs(self._wall[c] + sent - wall))
                self._learn(sender, sent, run.clock, record.at)
        self._by_arrival = {pair: sorted(both, key=lambda sd: sd[1]) for pair, both in self._sent.items()}
        for both in self._sent.values():
            both.sort()
        self.reference = runs[0].clock
        self._memory: dict[tuple[Clock, int], int] = {}

    def _learn(self, sender: Clock, sent: int, receiver: Clock, delivered: int) -> None:
        if sender != receiver:
            self._sent[sender, receiver].append((sent, delivered))
            self.lived[sender] = max(self.lived.get(sender, 0), sent)

    def latest(self, x: Clock, t: int, y: Clock) -> int | None:
        """What y shows at the latest when x shows t; None: not known."""
        if x == y:
            return t
        both = self._sent.get((x, y), [])
        i = bisect_left(both, (t, 0))
        found = [d - (s - t) + _drift(s - t) if s >= t else d + (t - s) + _drift(t - s) for s, d in _near(both, i)]
        return min(found, default=None)

    def earliest(self, x: Clock, t: int, y: Clock) -> int | None:
        """What y shows at the earliest when x shows t; None: not known."""
        if x == y:
            return t
        both = self._by_arrival.get((y, x), [])
        i = bisect_right(both, t, key=lambda sd: sd[1])
        found = [s + (t - d) - _drift(t - d) if d <= t else s - (d - t) - _drift(d - t) for s, d in _near(both, i)]
        return max(found, default=None)

    def before(self, x: Clock, t: int, y: Clock, u: int) -> bool:
        """Whether it is certain that x showed t no later than y showed u."""
        latest = self.latest(x, t, y)
        return latest is not None and latest <= u

    def bounds(self, x: Clock, t: int) -> Span | None:
        """What the reference shows when x shows t, at the earliest and at the latest; through a third host if need be."""
        best: Span | None = None
        for via in (x, *self._wall):
            low, high = self.earliest(x, t, via), self.latest(x, t, via)
            low = self.earliest(via, low, self.reference) if low is not None else None
            high = self.latest(via, high, self.reference) if high is not None else None
            if low is not None and high is not None and (best is None or high - low < best[1] - best[0]):
                best = (low, high)
            if best is not None and via == x:
                break
        return best

    def common(self, x: Clock, t: int) -> int:
        """The best estimate of the reference's wall clock when x shows t; by x's own wall clock if they never met."""
        known = self._memory.get((x, t))
        if known is None:
            bound = self.bounds(x, t)
            known = t + self._wall[x] if bound is None else (bound[0] + bound[1]) // 2 + self._wall[self.reference]
            self._memory[x, t] = known
        return known

    def wall(self, x: Clock, t: int) -> int:
        """x's own wall clock, as it was set when its first run started."""
        return t + self._wall[x]

    def contradictions(self) -> list[str]:
        """Pairs of hosts of which no two clocks can be true: a message that came before it was sent."""
        found = []
        for (x, y), both in sorted(self._sent.items()):
            for s, d in both:
                earliest = self.earliest(x, s, y)
                if earliest is not None and earliest > d:
                    found.append(
                        f"a message from {x[0]} to {y[0]} came {(earliest - d) / 1000:.1f} ms before it was sent: clocks that"
                        f" go more than {DRIFT_PPM} ppm apart, or records of different hosts under one number"
                    )
                    break
        return found


def _with_id(runs: Sequence[Run]) -> Iterator[tuple[Run, int, AnyRecord]]:
    for run in runs:
        me = 0
        for record in run.records:
            if isinstance(record, Joined):
                me = record.id
            if me:
                yield run, me, record


def _joins(runs: Sequence[Run]) -> Iterator[tuple[Clock, int, Clock, int]]:
    """A view is installed nowhere before its members have asked to join: after their start, or after they were out last."""
    asked: dict[str, list[tuple[Clock, int]]] = defaultdict(list)
    installed: dict[str, list[tuple[Clock, int]]] = defaultdict(list)
    for run in runs:
        free = run.start.at if run.start.part == 1 else None
        view = ""
        for record in run.records:
            match record:
                case Out():
                    free, view = record.at, ""
                case View() if record.id != view:
                    view = record.id
                    installed[view].append((run.clock, record.at))
                    if free is not None:
                        asked[view].append((run.clock, free))
                case _:
                    pass
    for view in sorted(asked):
        for sender, sent in asked[view]:
            for receiver, delivered in installed[view]:
                yield sender, sent, receiver, delivered


def _near(both: list[Span], i: int) -> list[Span]:
    return both[max(0, i - NEAREST) : i + NEAREST]


def _drift(us: int) -> int:
    return us * DRIFT_PPM // 1_000_000 + 1 if us else 0
