"""What people read: one line per event, `event key=value …`, on stderr and in a bounded history."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Generic, TypeVar

HISTORY_MAX = 1000
ENTRIES_OF_A_VIP = 3
"""Where all VIPs change hands at once, what led to it must not be pushed out of the history by what they say of it."""
FOLLOWER_BACKLOG_MAX = 1000
WARNINGS = frozenset(
    {
        "adopted",
        "audit_failed",
        "bad_command",
        "bad_message",
        "conflict",
        "diverged",
        "duplicate",
        "duplicate_withdrawn",
        "engine_lost",
        "engine_refused",
        "events_failed",
        "evict",
        "failed",
        "fence_broken",
        "hook_failed",
        "load_failed",
        "message_too_large",
        "not_remembered",
        "original_exposed",
        "original_refused",
        "paused",
        "renewed_late",
        "restart_refused",
        "routing_failed",
        "shares_failed",
        "suspect",
        "wackatrl_refused",
    }
)
DETAILS = frozenset({"kernel", "acquired", "released", "hook"})
"""Logged only when asked to be verbose; always in the history."""

T = TypeVar("T")
Entry = dict[str, object]
COMMON_FIELDS = ("number", "time", "monotonic", "event")
"""What every entry has."""


def line(what: str, fields: Mapping[str, object]) -> str:
    """`event key=value`; values with blanks or quotes are quoted."""
    return " ".join([what, *(f"{k}={_quoted(str(v))}" for k, v in fields.items())])


def _quoted(text: str) -> str:
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Follower(Generic[T]):
    """Somebody who reads what comes; one who is too slow misses some."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue(FOLLOWER_BACKLOG_MAX)

    def offer(self, entry: T) -> None:
        """One more."""
        if not self._queue.full():
            self._queue.put_nowait(entry)

    async def next(self) -> T:
        """The next one, when it is there."""
        return await self._queue.get()


class Journal:
    """The daemon's log. Under systemd lines carry their priority (sd-daemon(3)). `vips`: how many there are."""

    def __init__(self, *, verbose: bool = False, vips: int = 0) -> None:
        self._verbose = verbose
        self._systemd = "JOURNAL_STREAM" in os.environ
        self._history: deque[Entry] = deque(maxlen=max(HISTORY_MAX, ENTRIES_OF_A_VIP * vips))
        self._followers: set[Follower[Entry]] = set()
        self._number = 0
        self._listeners: list[Callable[[Entry], None]] = []

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Have somebody told of every entry, before it is written."""
        self._listeners.append(listener)

    def record(self, what: str, **fields: object) -> None:
        """Write one event down."""
        self.put(what, fields)

    def put(self, what: str, fields: Mapping[str, object]) -> None:
        """The same, for those who have the fields together."""
        self.record_of(time.monotonic(), what, fields)

    def record_of(self, moment: float, what: str, fields: Mapping[str, object]) -> None:
        """Write down what came to be known at that moment (time.monotonic)."""
        self._number += 1
        entry: Entry = {
            "number": self._number,
            "time": time.time() - (time.monotonic() - moment),
            "monotonic": moment,
            "event": what,
            **{k: str(v) for k, v in fields.items()},
        }
        self._history.append(entry)
        for listener in self._listeners:
            listener(entry)
        for follower in self._followers:
            follower.offer(entry)
        if what in DETAILS and not self._verbose:
            return
        if self._systemd:
            prefix = "<4>" if what in WARNINGS else "<6>"
        else:
            prefix = time.strftime("%H:%M:%S", time.localtime()) + f".{int(time.time() * 1000) % 1000:03} "
        with contextlib.suppress(OSError):  # a full disk or a closed pipe is no reason to stop in the middle of a step
            sys.stderr.write(prefix + line(what, fields) + "\n")

    async def follow(self, *, follow: bool) -> AsyncIterator[Entry]:
        """The history, oldest first; then, if asked, what comes. A reader who is too slow misses some."""
        follower = Follower[Entry]()
        if follow:
            self._followers.add(follower)
        try:
            for entry in tuple(self._history):
                yield entry
            while follow:
                yield await follower.next()
        finally:
            self._followers.discard(follower)
