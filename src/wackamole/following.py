"""Following one daemon from outside, over its control socket, for as long as somebody looks: `wackamole watch`.

    a thread     the cluster's events: its history, then what comes
    a thread     the node's own events: nothing is shown of them, but whatever happens there is a reason to ask again
    a thread     `status`, when there is a reason, at most each PAUSE_SECONDS; and each QUIET_SECONDS, for what changes
                 without an event, and because a daemon that hangs says nothing

A daemon that goes away is missed at once, as its connections end, and looked for each AGAIN_SECONDS.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .client import NotReachable, Refused, ask, converse

PAUSE_SECONDS = 0.25
QUIET_SECONDS = 5.0
AGAIN_SECONDS = 1.0
HISTORY_MAX = 1000

Entry = Mapping[str, Any]
EventId = tuple[str, str, int]
"""Which event it is, wherever it is told: who said it, in which run, its number there."""


def event_id(entry: Entry) -> EventId:
    """Which event an entry of the cluster's history is of."""
    return str(entry["said_by"]), str(entry["run"]), int(entry["number"])


def _place(entry: Entry) -> tuple[int, str, int]:
    """The order of the history (eventlog.py)."""
    place = entry["place"]
    return place["epoch"], place["view"], place["index"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known now. Times are of the monotonic clock, seconds."""

    status: Mapping[str, Any] | None = None
    status_at: float = 0.0
    entries: tuple[Entry, ...] = ()  # of the cluster's history, oldest first, HISTORY_MAX at most
    gone: str | None = None  # why there is no answer
    asked_at: float | None = None  # of a question that has no answer yet


class Following:
    """Follows the daemon of this socket from `start` until `close`. `heard` is called by its threads whenever there is
    something new; it must not wait."""

    def __init__(self, path: str, heard: Callable[[], None]) -> None:
        self._path = path
        self._heard = heard
        self._lock = threading.Lock()
        self._now = Heard()
        self._history: list[Entry] = []
        self._known: set[EventId] = set()
        self._added = False  # since the entries were asked for
        self._reason = threading.Event()
        self._closed = threading.Event()

    def start(self) -> None:
        """Begin. The threads end with the process, or when they next hear something after `close`."""
        for work in (self._ask, self._follow_cluster, self._follow_node):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()
        self._reason.set()

    def now(self) -> Heard:
        """What is known now."""
        with self._lock:
            if self._added:
                self._now, self._added = replace(self._now, entries=tuple(self._history)), False
            return self._now

    def look(self) -> None:
        """There is a reason to ask again."""
        self._reason.set()

    def _say(self, **known: Any) -> None:
        with self._lock:
            self._now = replace(self._now, **known)
        self._heard()

    # -- the threads ------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        pause = 0.0
        while not self._closed.wait(pause):
            if self._now.gone is None and self._now.status is not None:
                self._reason.wait(QUIET_SECONDS - pause)
            self._reason.clear()
            self._say(asked_at=time.monotonic())
            try:
                status = ask(self._path, "status")
            except (NotReachable, Refused, ValueError) as no:  # ValueError: it was killed in the middle of a line
                self._say(asked_at=None, gone=str(no))
                pause = AGAIN_SECONDS
            else:
                self._say(asked_at=None, gone=None, status=status, status_at=time.monotonic())
                pause = PAUSE_SECONDS

    def _follow_cluster(self) -> None:
        while not self._closed.is_set():
            for entry in self._events(cluster=True):
                if self._is_new(entry):
                    self._heard()
                    self._reason.set()

    def _is_new(self, entry: Entry) -> bool:
        """Put it at its place, unless it is known, as most is that a new connection tells, or older than what is kept."""
        with self._lock:
            full = len(self._history) >= HISTORY_MAX
            if event_id(entry) in self._known or (full and _place(entry) < _place(self._history[0])):
                return False
            insort(self._history, entry, key=_place)
            self._added = True
            self._known.add(event_id(entry))
            if full:
                self._known.discard(event_id(self._history.pop(0)))
            return True

    def _follow_node(self) -> None:
        while not self._closed.is_set():
            for _ in self._events(cluster=False):
                self._reason.set()

    def _events(self, *, cluster: bool) -> Iterator[Entry]:
        """What one connection tells, until it ends; then wait until it is time for another."""
        try:
            for kind, said in converse(self._path, "events", {"cluster": cluster, "follow": True}, patient=True):
                if self._closed.is_set():
                    return
                if kind == "progress":
                    yield said
        except (NotReachable, Refused, ValueError):
            pass  # `status` is asked at once, and says why
        self._reason.set()
        self._closed.wait(AGAIN_SECONDS)
