"""How this node has its part in the cluster's event log (eventlog.py): when it speaks, and what it takes.

It never speaks at once. An event waits for others that come with it, and whatever happens to the table makes it wait
longer, up to a bound: the log must not delay a take-over. One note in PAUSE_MS, at most BATCH_BYTES_MAX; what a node says in
the long run is bounded by a budget, and what is beyond that is counted and told as `lost`.

In every view each member first says what it has (Has). Who is the first to have something that another one lacks tells
it again. New events wait for everybody's Has, so that their epoch is beyond all that anybody knows, but not for ever.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import islice
from pathlib import Path

from ..core.model import NOTE_BYTES_MAX, NodeId, View
from ..eventlog import (
    COUNT_MAX,
    Again,
    Entry,
    Event,
    EventLog,
    Has,
    Told,
    batch,
    decode,
    encode,
    event_of,
    line,
    missing,
    read_lines,
)
from . import scheduling
from .record import AuditFile

HOLD_MS = 200
"""What is to be said waits for so long, and for as long after the last change of the table."""
RANK_MS = 2
"""The members of a view say their first word one after the other."""
PATIENCE_MS = 1000
"""However restless the table is, something is said after this."""
GATHER_MS = 2000
"""A member that has not said within this what it has is not waited for."""
PAUSE_MS = 100
AGAIN_MS = 2000
"""A note that did not come back was lost (hazard 21)."""
PENDING_MAX = 1000
BUDGET_MAX = 1000
BUDGET_MS = 500
"""A node may say BUDGET_MAX events at once (a host's VIPs that are taken over), and one more each BUDGET_MS."""

REPEATED = frozenset({"duplicate", "renewed_late"})
REPEATED_MS = 60_000
"""What may go on and on is told once in this time, of each VIP."""
REPEATED_MAX = 1000

BYTES_MAX = 2 << 20
"""Of one file; there are two, of some 8000 events each."""
READ_BYTES_MAX = 1 << 20
"""Of each file, at the start: more than fits into memory."""
QUEUE_MAX = 2000
CLOSE_SECONDS_MAX = 2.0


class Speaker(Enum):
    """Who tells of an event, so that it is told once."""

    OWN = "whose record it is: the others know nothing of it"
    FIRST = "the first member in order, of what all members record alike"


SPEAKERS: dict[str, Speaker | str] = {
    # A text names the field that names the node; if that is nobody, the first member.
    "moved": "to",
    "failed": "node",
    "witness": "by",
    **dict.fromkeys(("evict", "conflict", "lapsed", "drain", "resume", "restart", "adopted"), Speaker.FIRST),
    **dict.fromkeys(("pin", "unpin", "hold", "unhold"), Speaker.FIRST),
    **dict.fromkeys(
        (
            *("started", "leave_requested", "command", "command_refused", "restart_refused", "hook", "hook_failed"),
            *("load_failed", "load_known", "shares_failed", "routing_failed", "check_failed", "check_passed"),
            "checker_failed",
            *("eligible", "ineligible", "duplicate", "duplicate_withdrawn", "put_back_waits", "kernel_unreadable"),
            *("fence_broken", "renewed_late", "paused", "suspect", "diverged", "rejoin_waits", "engine_lost"),
            *("engine_died", "engine_refused", "audit_failed", "events_failed"),
            *("not_remembered", "message_too_large"),
        ),
        Speaker.OWN,
    ),
}
"""The records of the journal that are of common interest. What is not here is a node's own affair."""


class Telling:
    """The part of one process. Whoever calls says what time it is (milliseconds, monotonic)."""

    def __init__(self, node: str, run: str, log: EventLog) -> None:
        self.log = log
        self._node, self.run = node, run
        self.number = 0
        """How many events it has had to tell."""
        self._pending: dict[int, Event] = {}  # until they come back
        self._sent: dict[int, int] = {}  # when, in this view
        self._lost = 0
        self._repeated: dict[tuple[str, object], int] = {}
        self._budget, self._budget_at_ms = BUDGET_MAX, 0
        self._me = NodeId(0)
        self._view: str | None = None
        self._members: tuple[NodeId, ...] = ()
        self._base = self._epoch = self._index = 0
        self._has: dict[NodeId, Has] = {}
        self._again: deque[Entry] | None = None  # None: not known yet
        self._again_ms = 0  # the first of these are under way until then
        self._hello_ms = self._gather_ms = self._batch_ms = 0
        self._quiet_ms = self._patience_ms = self._pause_ms = 0

    # -- what happens ---------------------------------------------------------------------------------------------------

    def happened(self, what: str, fields: Mapping[str, object], time_ms: int, now_ms: int) -> None:
        """Something to be told to all."""
        if what in REPEATED and not self._is_due_again((what, fields.get("vip")), now_ms):
            return
        earned = (now_ms - self._budget_at_ms) // BUDGET_MS
        self._budget = min(BUDGET_MAX, self._budget + earned)
        self._budget_at_ms += earned * BUDGET_MS
        if len(self._pending) >= PENDING_MAX or not self._budget:
            self._lost += 1
            return
        self._budget -= 1
        if self._lost:
            self._put("lost", {"count": self._lost}, time_ms)
            self._lost = 0
        if len(self._pending) == len(self._sent):
            self._batch_ms, self._patience_ms = now_ms + HOLD_MS, now_ms + PATIENCE_MS
        self._put(what, fields, time_ms)

    def _is_due_again(self, key: tuple[str, object], now_ms: int) -> bool:
        if now_ms - self._repeated.get(key, now_ms - REPEATED_MS) < REPEATED_MS:
            return False
        if len(self._repeated) >= REPEATED_MAX:
            self._repeated.clear()
        self._repeated[key] = now_ms
        return True

    def _put(self, what: str, fields: Mapping[str, object], time_ms: int) -> None:
        self.number += 1
        self._pending[self.number] = event_of(self._node, self.run, self.number, time_ms, what, fields)

    def disturbed(self, now_ms: int) -> None:
        """The table changed."""
        self._quiet_ms = min(now_ms + HOLD_MS, self._patience_ms)

    def on_view(self, view: View | None, me: NodeId, now_ms: int) -> None:
        """Another view, or none: what has not come back will be told again. In the middle of a take-over, so it is brief."""
        self._me = me
        self._view, self._members = (str(view.id), view.members) if view is not None else (None, ())
        self._base = self.log.epoch()
        self._epoch = self._index = 0
        self._sent, self._has, self._again, self._again_ms = {}, {}, None, 0
        rank = sum(1 for m in self._members if m < me)
        self._hello_ms = now_ms + HOLD_MS + rank * RANK_MS
        self._gather_ms = now_ms + GATHER_MS
        self._patience_ms = self._gather_ms

    def on_note(self, by: NodeId, body: bytes) -> list[Entry]:
        """A note of this view. Returns the entries that are new to this node. Raises NoteError."""
        note = decode(body)
        found: list[Entry] = []
        match note:
            case Told():
                self._epoch = max(self._epoch, note.epoch)
                for event in note.events:
                    found.append(Entry(min(self._epoch + 1, COUNT_MAX), self._view or "0.0.0", self._index, event))
                    self._index += 1
                    if (event.node, event.run) == (self._node, self.run):
                        self._pending.pop(event.number, None)
                        self._sent.pop(event.number, None)
            case Has():
                self._epoch = max(self._epoch, note.epoch)
                if by not in self._has:
                    self._has[by] = note
                    # also for who comes late: it was not waited for, and may lack something
                    self._again, self._again_ms = None, 0
            case Again():
                if by == self._me:
                    self._told_again(note)
                found += [entry for entry in note.entries if entry.view != self._view]
        return [entry for entry in found if self.log.add(entry)]

    # -- what is to be said ---------------------------------------------------------------------------------------------

    def _gathered_ms(self) -> int:
        return 0 if all(m in self._has for m in self._members) else self._gather_ms

    def _told_waits(self) -> list[int]:
        """When there are events to be told: new ones, and those that have not come back."""
        new = [max(self._gathered_ms(), self._batch_ms)] if len(self._pending) > len(self._sent) else []
        return new + [at + AGAIN_MS for at in self._sent.values()]

    def due_ms(self) -> int | None:
        """When `note` has something to say."""
        if self._view is None:
            return None
        waits = []
        if self._me not in self._has:
            waits.append(self._hello_ms)
        else:
            if self._again is None or self._again:
                waits.append(max(self._gathered_ms(), self._again_ms))
            waits += self._told_waits()
        return max(min(waits), self._pause_ms, self._quiet_ms) if waits else None

    def note(self, now_ms: int) -> bytes | None:
        """What is to be said now, if anything."""
        due_ms = self.due_ms()
        if due_ms is None or now_ms < due_ms:
            return None
        if self._me not in self._has:
            self._hello_ms = now_ms + AGAIN_MS
            return self._say(Has(self._base, self.log.parts()), now_ms)
        if self._again is None and now_ms >= self._gathered_ms():
            assert self._view is not None
            self._again = deque(missing(self.log.recent(), self._view, self._me, self._has))
        if any(now_ms >= at for at in self._told_waits()):
            return self.last_words(now_ms)
        if self._again and now_ms >= self._again_ms:
            note = Again(tuple(islice(self._again, batch(self._again))))
            self._again_ms = now_ms + AGAIN_MS
            body = self._say(note, now_ms)
            if body is None:
                self._told_again(note)
            return body
        return None

    def _told_again(self, note: Again) -> None:
        """These came back, or can never be told."""
        told = {entry.place for entry in note.entries}
        while self._again and self._again[0].place in told:
            self._again.popleft()
        self._again_ms = 0

    def last_words(self, now_ms: int) -> bytes | None:
        """What waits to be told, as much as goes into a note, without waiting any longer."""
        if self._view is None:
            return None
        waiting = [e for n, e in self._pending.items() if n not in self._sent or now_ms - self._sent[n] >= AGAIN_MS]
        if not waiting:
            return None
        events = tuple(waiting[: batch(waiting)])
        self._sent |= {e.number: now_ms for e in events}
        return self._say(Told(self._base, events), now_ms)

    def _say(self, note: Told | Has | Again, now_ms: int) -> bytes | None:
        self._pause_ms, self._patience_ms = now_ms + PAUSE_MS, now_ms + PATIENCE_MS
        body = encode(note)
        return body if len(body) <= NOTE_BYTES_MAX else None  # only what others told can be so large


def events_path(state_dir: Path) -> Path:
    """Where the log is kept over a restart."""
    return state_dir / "events.jsonl"


def read(path: Path, log: EventLog) -> None:
    """Put what is on the disk into the log. What cannot be read is not there: other members tell the recent part again."""
    for file in (path.with_name(path.name + ".1"), path):
        try:
            with file.open("rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                opened.seek(max(0, size - READ_BYTES_MAX))
                content = opened.read(READ_BYTES_MAX)
        except OSError:
            continue
        for entry in read_lines(content):
            log.add(entry)


class EventFile:
    """Appends entries to `path` (mode 0600; full, it becomes `path`.1) in a thread, so that a slow disk never holds up the
    loop. A disk that is full, or too slow, costs lines of the file and nothing else; that is told once."""

    def __init__(self, path: Path, warn: Callable[[str], None], *, bytes_max: int = BYTES_MAX) -> None:
        self._file = AuditFile(path)
        self._warn = warn
        self._room = bytes_max - self._file.size()
        self._bytes_max = bytes_max
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._broken: str | None = None  # the thread sets it, the loop reads it
        self._warned = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that writes; until then lines wait."""
        self._thread = threading.Thread(target=self._write, name="events", daemon=True)
        self._thread.start()

    def put(self, entries: list[Entry]) -> None:
        """Have these written. Never waits."""
        broken = self._broken
        if self._queue.qsize() >= QUEUE_MAX:
            broken = "the disk is too slow"
        elif entries:
            self._queue.put(b"".join(map(line, entries)))
        if broken is not None and not self._warned:
            self._warn(broken)
        self._warned = broken is not None

    def close(self) -> None:
        """Have everything written; waits for CLOSE_SECONDS_MAX at most."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS_MAX)
            self._thread = None

    def _write(self) -> None:
        scheduling.behind_the_loop()
        while (text := self._queue.get()) is not None:
            if len(text) > self._room:
                with contextlib.suppress(OSError):
                    self._file.rotate()
                self._room = self._bytes_max
            try:
                self._file.append(text)
            except OSError as wrong:
                self._broken = wrong.strerror or str(wrong)
            else:
                self._room -= len(text)
                self._broken = None
        self._file.close()
