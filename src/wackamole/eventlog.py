"""The cluster's event log: what happened on any node, as one history that is the same on all of them.

    Event    what a node says: `moved vip=web-1 …`, known by (node, run, number)
    Entry    an event at its place: (epoch, view, index)
    notes    how it travels: Told (new events), Has (what a member knows), Again (entries for who does not have them)

All members of a view take the same notes in the same order (effects.TakeNote), so each of them counts the same index for
an event. The epoch orders views: it is one more than any that a member had heard of before it, as the notes of the view
say. Views of two sides of a partition may have the same epoch; their ids then tell which side is shown first. No clock has
a part in it; an event's time is for people.

Entries never change, so what two members know is put together by taking both. An event that was told in two views, because
its node could not know whether the first had heard it, has two entries and is shown once, at the first. Where a ring breaks,
each side may have delivered something last that the other never got: then two events have one number in one view, and stand
there one after the other.

Everything here is pure; shell/telling.py speaks and writes. docs/decisions/0011-the-event-log.md has the reasons.
"""

from __future__ import annotations

import re
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated

import msgspec

from .core.model import NOTE_BYTES_MAX, NodeId

ENTRIES_MAX = 4000
"""Kept in memory: some 4 MB."""
RECENT_MAX = 500
RECENT_BYTES_MAX = 64 << 10
"""What a late-comer is told, at most."""
COMPARED_MAX = 2 * RECENT_MAX
"""What members compare reaches further back than what they tell again, so that nothing is told twice that is known."""
PART = 32
"""So many entries of a view are compared as one, and told again together if somebody has others."""
PARTS_BYTES_MAX = 12 << 10
BATCH_BYTES_MAX = 8 << 10
BATCH_MAX = 64
EVENT_BYTES_MAX = 4 << 10
COUNT_MAX = 2**53
FIELDS_MAX = 16
TEXT_MAX = 300

Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z_0-9]{1,32}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x22\x24-\x7e]{1,63}\Z")]
Run = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
ViewText = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,16}\.[0-9]{1,20}\.[0-9]{1,20}\Z")]


class NoteError(Exception):
    """These bytes are no note of ours; the sentence says why."""


class Event(msgspec.Struct, frozen=True):
    """One event. `run`: which process of its node said it; `time_ms`: of that node's wall clock, since 1970."""

    node: Name
    run: Run
    number: Count
    time_ms: Count
    what: Word
    fields: Annotated[tuple[tuple[Word, Text], ...], msgspec.Meta(max_length=FIELDS_MAX)] = ()

    @property
    def id(self) -> tuple[str, str, int]:
        """Which event this is, wherever it stands."""
        return self.node, self.run, self.number


class Entry(msgspec.Struct, frozen=True):
    """An event and its place: the `index`th of those that were told in `view`."""

    epoch: Count
    view: ViewText
    index: Count
    event: Event

    @property
    def place(self) -> tuple[int, str, int, tuple[str, str, int]]:
        """The order of the history."""
        return self.epoch, self.view, self.index, self.event.id

    @property
    def part(self) -> tuple[str, int]:
        """Which part of which view this belongs to."""
        return self.view, self.index // PART


class Told(msgspec.Struct, frozen=True, tag=True):
    """New events of the sender. `epoch`: the highest that it knew before this view."""

    epoch: Count
    events: Annotated[tuple[Event, ...], msgspec.Meta(max_length=BATCH_MAX)]


class Has(msgspec.Struct, frozen=True, tag=True):
    """What the sender knows of the recent past: parts of views, and a digest of what it has of each. `epoch`: as in Told."""

    epoch: Count
    parts: Annotated[tuple[tuple[ViewText, Count, Count], ...], msgspec.Meta(max_length=COMPARED_MAX)]


class Again(msgspec.Struct, frozen=True, tag=True):
    """Entries of earlier views, for members who do not have them."""

    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=BATCH_MAX)]


Note = Told | Has | Again
_NOTES = msgspec.msgpack.Decoder(Note)
_LINES = msgspec.json.Decoder(Entry)


def encode(note: Note) -> bytes:
    """A note's bytes."""
    return msgspec.msgpack.encode(note)


def decode(body: bytes) -> Note:
    """The note. Raises NoteError for anything else."""
    if len(body) > NOTE_BYTES_MAX:
        raise NoteError(f"a note of {len(body)} bytes is too long")
    try:
        note: Note = _NOTES.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise NoteError(f"not a note: {wrong}") from None
    return note


def line(entry: Entry) -> bytes:
    """An entry as a line of the file."""
    return msgspec.json.encode(entry) + b"\n"


def read_lines(content: bytes) -> list[Entry]:
    """The entries of a file's end. What is no entry is passed over: the first line may have lost its beginning, the last one
    its end."""
    found = []
    for text in content.splitlines():
        try:
            found.append(_LINES.decode(text))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return found


def event_of(node: str, run: str, number: int, time_ms: int, what: str, fields: Mapping[str, object]) -> Event:
    """An event within its bounds: texts that are too long are cut."""
    texts = [(k, _cut(str(v), TEXT_MAX)) for k, v in fields.items()][:FIELDS_MAX]
    if sum(len(text.encode()) for _, text in texts) > EVENT_BYTES_MAX:
        texts = [(k, _cut(text, EVENT_BYTES_MAX // FIELDS_MAX // 4)) for k, text in texts]
    return Event(node, run, number, time_ms, what, tuple(texts))


def _cut(text: str, most: int) -> str:
    text = text.encode("utf-8", "replace").decode()  # a name of a file may be no text
    return text if len(text) <= most else text[: most - 1] + "…"


def batch(events: Iterable[Event | Entry]) -> int:
    """How many of these, from the first, go into one note; at least one."""
    count = size = 0
    for each in events:
        size += len(msgspec.msgpack.encode(each))
        if count and (size > BATCH_BYTES_MAX or count == BATCH_MAX):
            break
        count += 1
    return count


class EventLog:
    """The entries that a node knows, in order: the newest `most` of them."""

    def __init__(self, most: int = ENTRIES_MAX) -> None:
        self._most = most
        self._entries: list[Entry] = []
        self._places: set[tuple[object, ...]] = set()
        self._told: Counter[tuple[str, str, int]] = Counter()

    def add(self, entry: Entry) -> bool:
        """Put it at its place. Returns whether it was not known."""
        if entry.place[1:] in self._places:
            return False
        if len(self._entries) >= self._most and entry.place < self._entries[0].place:
            return False
        if self._entries and entry.place < self._entries[-1].place:
            insort(self._entries, entry, key=lambda e: e.place)
        else:
            self._entries.append(entry)
        self._places.add(entry.place[1:])
        self._told[entry.event.id] += 1
        if len(self._entries) > self._most:
            old = self._entries.pop(0)
            self._places.discard(old.place[1:])
            self._told[old.event.id] -= 1
            if not self._told[old.event.id]:
                del self._told[old.event.id]
        return True

    def is_repeated(self, entry: Entry) -> bool:
        """Whether its event stands at another place too."""
        return self._told[entry.event.id] > 1

    def epoch(self) -> int:
        """The highest that is known; 0 if there is nothing."""
        return self._entries[-1].epoch if self._entries else 0

    def shown(self) -> list[Entry]:
        """The history: each event once, oldest first."""
        found: dict[tuple[str, str, int], Entry] = {}
        for entry in self._entries:
            found.setdefault(entry.event.id, entry)
        return list(found.values())

    def parts(self) -> tuple[tuple[str, int, int], ...]:
        """What is known of the recent past, newest first: view, number and digest of each part."""
        known: dict[tuple[str, int], list[Entry]] = {}
        for entry in reversed(self._entries[-COMPARED_MAX:]):
            known.setdefault(entry.part, []).append(entry)
        found: list[tuple[str, int, int]] = []
        size = 0
        for (view, number), entries in known.items():
            size += len(view) + 16
            if size > PARTS_BYTES_MAX:
                break
            found.append((view, number, _digest(entries)))
        return tuple(found)

    def recent(self) -> list[Entry]:
        """What a late-comer is told: the newest, within bounds, oldest first."""
        found: list[Entry] = []
        size = 0
        for entry in reversed(self._entries[-RECENT_MAX:]):
            size += len(msgspec.msgpack.encode(entry))
            if size > RECENT_BYTES_MAX:
                break
            found.append(entry)
        return found[::-1]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries somebody wants to see."""

    since: float | None = None  # seconds since 1970, by the clocks of those who said them
    vip: str | None = None
    node: str | None = None

    def has(self, entry: Entry) -> bool:
        """Whether this is one of them: `node` said it or is named in it."""
        event = entry.event
        if self.since is not None and event.time_ms < self.since * 1000:
            return False
        if self.node is not None and self.node != event.node:
            listed = [item for key, text in event.fields if key in NODE_FIELDS for item in text.split(",")]
            if all(self.node not in (item, item.rpartition(":")[0]) for item in listed):
                return False
        return self.vip is None or any(
            self.vip in re.split("[, ]+", text) for key, text in event.fields if key in VIP_FIELDS
        )


VIP_FIELDS = frozenset({"vip", "vips"})
NODE_FIELDS = frozenset({"node", "by", "to", "source", "winner", "loser", "back_to", "members", "left", "joined"})
"""Names, with commas between them; those who left have a colon and the reason behind them."""


def plain(entry: Entry) -> dict[str, object]:
    """An entry for programs. The fields of the event stand beside what the log says of it, which comes first."""
    event = entry.event
    said = {"said_by": event.node, "run": event.run, "number": event.number}
    place = {"epoch": entry.epoch, "view": entry.view, "index": entry.index}
    return {**dict(event.fields), **said, "place": place, "time": event.time_ms / 1000, "event": event.what}


def missing(recent: Iterable[Entry], view: str, me: NodeId, has: Mapping[NodeId, Has]) -> list[Entry]:
    """What this member tells again in `view`: the parts that not all have as it has them, if it is the first in order who
    has them so. What was told in this view, all have."""
    said = {node: {(name, number): digest for name, number, digest in has[node].parts} for node in sorted(has)}
    mine = said.get(me, {})
    tells: dict[tuple[str, int], bool] = {}
    for part, digest in mine.items():
        alike = [node for node, parts in said.items() if parts.get(part) == digest]
        tells[part] = len(alike) < len(said) and alike[0] == me
    return [entry for entry in recent if entry.view != view and tells.get(entry.part, False)]


def _digest(entries: Iterable[Entry]) -> int:
    """Of which entries these are; it fits into a Count."""
    names = msgspec.msgpack.encode([(entry.index, entry.event.id) for entry in entries])
    return int.from_bytes(blake2b(names, digest_size=6).digest())
