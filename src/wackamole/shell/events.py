"""This process's part in the cluster's event log: what it tells the others (telling.py says when), and who reads it here."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from ..core import effects as do
from ..core import events as ev
from ..core.agreed import representative
from ..core.model import NodeId, OnWire, Phase, View
from ..core.state import State
from ..eventlog import Entry as EventEntry
from ..eventlog import EventLog, Wanted, plain
from .alarm import Alarm
from .clock import boottime_ms
from .journal import COMMON_FIELDS, Entry, Follower, Journal
from .telling import SPEAKERS, EventFile, Speaker, Telling, events_path, read

AT_ONCE = 100
"""Entries that are handed out before others have their turn."""


class Events:
    """`state` gives the state of now, `request` hands a note to the core. While the core is `busy` nothing is set off for each
    record: whoever runs it calls `arm` at the end."""

    def __init__(
        self,
        state: Callable[[], State],
        busy: Callable[[], bool],
        state_dir: Path,
        journal: Journal,
        request: Callable[[ev.NoteRequested], None],
    ) -> None:
        self._state = state
        self._busy = busy
        self._node = state().settings.node
        self._request = request
        path = events_path(state_dir)
        log = EventLog()
        read(path, log)
        self._telling = Telling(self._node, secrets.token_hex(8), log)
        self._file = EventFile(path, lambda why: journal.record("events_failed", file=path, reason=why))
        self._followers: set[Follower[EventEntry]] = set()
        self._alarm = Alarm(self._say)
        self._members: dict[NodeId, str] = {}  # as of the last settled table
        self._gone: dict[NodeId, str] = {}  # since then, and why
        self._closed = False
        journal.listen(self._recorded)

    def start(self) -> None:
        """Begin to keep the file."""
        self._file.start()

    def hand_over(self) -> None:
        """All is in the file, for the process that goes on. Blocks."""
        self._file.close()

    def close(self) -> None:
        """Say nothing more; all is in the file. Blocks."""
        self._closed = True
        self._alarm.set(None)
        self._file.close()

    # -- what is told -------------------------------------------------------------------------------------------------

    def _recorded(self, entry: Entry) -> None:
        """What is of common interest goes into the cluster's event log, said by one member. Who has yet to meet the others
        speaks for itself only: what it sees of the VIPs is not what they see."""
        what = str(entry["event"])
        speaker = SPEAKERS.get(what)
        if speaker is None:
            return
        if what == "witness" and entry["result"] == OnWire.VERIFIED.value:
            return  # as it should be
        if what == "resume" and entry.get("leaving") == "True":
            return  # `leave_requested` tells it
        state = self._state()
        first = self._is_mature() and representative(state) == state.me
        fields = {k: str(v) for k, v in entry.items() if k not in COMMON_FIELDS}
        match speaker:
            case Speaker.OWN:
                mine = True
            case Speaker.FIRST:
                mine = first
            case str():
                who = fields.get(speaker)
                mine = first if who == "nobody" else self._is_mature() and who == self._node
        if mine:
            self._telling.happened(what, fields, round(float(str(entry["time"])) * 1000), boottime_ms())
            if not self._busy():
                self.arm()

    def _is_mature(self) -> bool:
        state = self._state()
        return any(r.node == state.me and r.mature for r in state.table.reports)

    def on_engine_view(self, view: View) -> None:
        """Remember why members are gone until that is told."""
        self._gone |= {n: why.value for n, why in view.left}

    def on_view(self, view: View | None, me: NodeId, now_ms: int) -> None:
        """The core has another view."""
        self._telling.on_view(view, me, now_ms)

    def on_table(self, now_ms: int) -> None:
        """The table changed: what is to be told waits, and who is here now, and who is gone since it was told last, is."""
        self._telling.disturbed(now_ms)
        state = self._state()
        if state.phase is not Phase.SETTLED:
            return
        members = {r.node: r.name for r in state.table.reports}
        if members == self._members or not self._is_mature():
            return
        left = {n: name for n, name in self._members.items() if n not in members}
        came = [name for n, name in sorted(members.items()) if n not in self._members]
        fields = {"id": state.view.id if state.view else "-", "members": ",".join(sorted(members.values()))}
        if left:
            fields["left"] = ",".join(f"{name}:{self._gone.get(n, 'unknown')}" for n, name in sorted(left.items()))
        if came and self._members:
            fields["joined"] = ",".join(came)
        self._members, self._gone = members, {}
        if representative(state) == state.me:
            self._telling.happened("view", fields, round(time.time() * 1000), boottime_ms())

    def arm(self) -> None:
        """Notes are said while nothing of importance goes on, by who has met the others."""
        due_ms = self._telling.due_ms()
        calm = self._state().phase is Phase.SETTLED and not self._closed
        self._alarm.set(due_ms if due_ms is not None and calm and self._is_mature() else None)

    def _say(self) -> None:
        body = self._telling.note(boottime_ms())
        if body is not None:
            self._request(ev.NoteRequested(body))
        else:
            self.arm()

    def tell_what_waits(self) -> None:
        """What waits to be told, before this process goes."""
        body = self._telling.last_words(boottime_ms()) if self._state().phase is Phase.SETTLED else None
        if body is not None:
            self._request(ev.NoteRequested(body))

    # -- what is heard ------------------------------------------------------------------------------------------------

    def take(self, note: do.TakeNote) -> None:
        """A note has its place in the order. Raises NoteError if it is none."""
        entries = self._telling.on_note(note.by, note.body)
        self._file.put(entries)
        for entry in entries:
            if not self._telling.log.is_repeated(entry):
                for follower in self._followers:
                    follower.offer(entry)

    async def shown(self, wanted: Wanted, *, follow: bool) -> AsyncIterator[dict[str, Any]]:
        """The cluster's history as this member knows it, then, if asked, what comes."""
        follower = Follower[EventEntry]()
        if follow:
            self._followers.add(follower)
        try:
            for number, entry in enumerate(self._telling.log.shown()):
                if wanted.has(entry):
                    yield plain(entry)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            while follow:
                entry = await follower.next()
                if wanted.has(entry):
                    yield plain(entry)
        finally:
            self._followers.discard(follower)
