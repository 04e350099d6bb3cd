"""What this process has counted since it started, for `status` and so for `wackamole metrics` (docs/metrics.md).

Everything is bounded: by the members and nodes of the config, the causes, and the words in `WARNINGS`. Nothing here asks for a
timer or a system call of its own but the clock.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping

from ..core.model import Cause, NodeId, Phase, Row, View, VipKey
from ..core.state import State
from .journal import WARNINGS, Entry

LAG_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Bounds of how late the loop wakes up. 0.02 is what one turn may take, 0.1 what a beat may be late by default."""
TAKEOVER_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
LOST = frozenset({Cause.HOST_LOST, Cause.PROCESS_DIED, Cause.DISCONNECTED, Cause.LEFT, Cause.EVICTED})
"""Causes whose VIPs are free from the moment that their holder was."""


class Histogram:
    """How often a duration was at most each of `bounds` (seconds, ascending), or longer than all."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def describe(self) -> dict[str, object]:
        """The bounds, how many fell between each and the one before (the last: above all), and the sum in seconds."""
        return {"bounds": list(self._bounds), "counts": list(self._counts), "sum": round(self._sum, 6)}


class Counts:
    """Told by the daemon, all on its loop's thread. `clock`: seconds, monotonic."""

    def __init__(self, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._views = 0
        self._rejoins = 0
        self._moves: Counter[Cause] = Counter()
        self._warnings: Counter[str] = Counter()
        self._evictions: Counter[str] = Counter()
        self._sent = 0
        self._heard: dict[NodeId, int] = {}
        self._missed: Counter[NodeId] = Counter()
        self._heard_at: dict[NodeId, float] = {}
        self._lag = Histogram(LAG_SECONDS)
        self._lag_max = 0.0
        self._takeovers = {after: Histogram(TAKEOVER_SECONDS) for after in ("loss", "decision")}
        self._due: dict[
            VipKey, tuple[float, str]
        ] = {}  # what is to be held here and is not yet: since when, after what
        self._lost_at: float | None = None  # when a holder was lost last
        self._rows: tuple[Row, ...] = ()

    # -- what is told -----------------------------------------------------------------------------------------------------

    def woken(self, late_s: float) -> None:
        """The loop's timer rang so much later than it was due."""
        late_s = max(0.0, late_s)
        self._lag.observe(late_s)
        self._lag_max = max(self._lag_max, late_s)

    def viewed(self, view: View) -> None:
        """The engine installed a view."""
        self._views += 1
        if view.left:
            self._lost_at = self._clock()
        self._heard_at = {n: at for n, at in self._heard_at.items() if n in view.members and n not in view.joined}

    def rejoined(self) -> None:
        """This member leaves the group to come back as a newcomer."""
        self._rejoins += 1

    def sent_beat(self) -> None:
        """A beat was handed to the engine."""
        self._sent += 1

    def heard_beat(self, sender: NodeId, beat_ms: int) -> None:
        """A beat was delivered. What should have come between it and the one before was missed: it was lost, its sender
        was late, or this process was."""
        now = self._clock()
        gap = now - self._heard_at.get(sender, now)
        self._heard_at[sender] = now
        self._heard[sender] = self._heard.get(sender, 0) + 1
        self._missed[sender] += max(0, int(gap * 1000 / beat_ms) - 1)

    def recorded(self, entry: Entry) -> None:
        """The journal has one more entry."""
        what = str(entry["event"])
        if what in WARNINGS:
            self._warnings[what] += 1
        if what == "evict":
            self._evictions[str(entry["name"])] += 1
            self._lost_at = self._clock()
        elif what == "moved" and entry["to"] == self._node:
            self._moves[Cause(entry["cause"])] += 1

    def stepped(self, before: State, after: State, began: float) -> None:
        """The core has another state, by an event that came at `began`."""
        if after.phase is Phase.SETTLED and after.table.rows is not self._rows:
            self._rows = after.table.rows
            held, me = set(after.confirmed), after.me
            self._due = {
                row.key: self._due.get(row.key) or self._free_since(row.cause, began)
                for row in after.table.rows
                if row.target == me and row.key not in held
            }
        if self._due and after.confirmed is not before.confirmed:
            now = self._clock()
            for key in self._due.keys() & set(after.confirmed):
                since, after_what = self._due.pop(key)
                self._takeovers[after_what].observe(now - since)

    def _free_since(self, cause: Cause, began: float) -> tuple[float, str]:
        if cause in LOST and self._lost_at is not None:
            return self._lost_at, "loss"
        return began, "decision"

    # -- what is said -----------------------------------------------------------------------------------------------------

    def describe(self, names: Mapping[NodeId, str]) -> dict[str, object]:
        """For `status`. `names`: of the nodes that are told one by one."""
        return {
            "views": self._views,
            "rejoins": self._rejoins,
            "moves": {cause.name.lower(): self._moves[cause] for cause in Cause},
            "takeovers": {after: h.describe() for after, h in self._takeovers.items()},
            "beats_sent": self._sent,
            "beats_received": {name: self._heard.get(n, 0) for n, name in names.items()},
            "beats_missed": {name: self._missed[n] for n, name in names.items()},
            "evictions": {name: self._evictions[name] for name in names.values()},
            "lag": self._lag.describe() | {"max": round(self._lag_max, 6)},
            "warnings": {what: self._warnings[what] for what in sorted(WARNINGS)},
        }
