"""One Spread daemon without a network of others, for one test: a server on a Unix socket, in the test's own loop.

It does what the transcripts show of one daemon (test_spread_adapter.py compares its bytes with theirs) and can be told to
misbehave.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from pathlib import Path

from wackamole.engine.spread.codec import (
    CHOICE_BYTES,
    JOIN,
    KILL,
    LEAVE,
    NAME_BYTES,
    SELF_DISCARD,
    Cause,
    Membership,
    message_bytes,
)

HEADER_BYTES = 48


def padded(name: str) -> bytes:
    return name.encode("latin-1").ljust(NAME_BYTES, b"\0")


def membership_bytes(change: Membership, order: str = "<") -> bytes:
    """A membership as a daemon of that byte order writes it."""
    sets = [struct.pack(f"{order}I", len(s)) + b"".join(map(padded, s)) for s in change.sets]
    offset = sum(map(len, sets[: change.mine]))
    body = struct.pack(f"{order}iiiII", *change.group_id, len(sets), offset) + b"".join(sets)
    mark = 0x80000080 if order == "<" else 0
    kind = 0x1000 | change.cause.value | mark
    header = struct.pack(f"{order}I32siIi", kind, padded(change.group), len(change.members), mark, len(body))
    return header + b"".join(map(padded, change.members)) + body


def self_leave_bytes(group: str) -> bytes:
    """To whom has left."""
    return struct.pack("<I32siIi", Cause.LEAVE.value | 0x80000080, padded(group), 0, 0x80000080, 0)


@dataclass
class Session:
    """A client that was let in."""

    name: str
    writer: asyncio.StreamWriter


@dataclass
class SpreadDaemon:
    """`answers` are first bytes for the next clients, each of which is hung up on then."""

    path: Path
    version: tuple[int, int, int] = (4, 4, 0)
    answers: list[bytes] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    changes: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _clients: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._client, self.path)

    async def stop(self) -> None:
        """Die: every connection ends."""
        assert self._server is not None
        self._server.close()
        for session in list(self.sessions.values()):
            session.writer.transport.abort()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self.groups.clear()
        self.path.unlink()

    def send(self, name: str, raw: bytes) -> None:
        """Any bytes to a client."""
        self.sessions[name].writer.write(raw)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._clients.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = await reader.readexactly(5)
        private = (await reader.readexactly(connect[4])).decode()
        if self.answers:
            writer.write(self.answers.pop(0))
            return
        writer.write(b"\5NULL ")
        await reader.readexactly(CHOICE_BYTES)
        name = f"#{private}#d1"
        self.sessions[name] = Session(name, writer)
        writer.write(bytes((1, *self.version, len(name))) + name.encode())
        try:
            while await self._message(name, reader):
                pass
        finally:
            del self.sessions[name]
            for group in [g for g, members in self.groups.items() if name in members]:
                self._gone(group, name, Cause.DISCONNECT)

    async def _message(self, name: str, reader: asyncio.StreamReader) -> bool:
        header = await reader.readexactly(HEADER_BYTES)
        kind, sender, names, hint, length = struct.unpack("<I32siIi", header)
        kind &= ~0x80000080
        assert sender == padded(name)
        raw_names = await reader.readexactly(NAME_BYTES * names)
        groups = [raw_names[i : i + NAME_BYTES].rstrip(b"\0").decode() for i in range(0, len(raw_names), NAME_BYTES)]
        body = await reader.readexactly(length)
        if kind == KILL:
            return False
        if kind == JOIN:
            self._join(groups[0], name)
        elif kind == LEAVE and name in self.groups.get(groups[0], ()):
            self.send(name, self_leave_bytes(groups[0]))
            self._gone(groups[0], name, Cause.LEAVE)
        elif not kind & (JOIN | LEAVE):
            raw = message_bytes(kind, name, tuple(groups), body, hint >> 8 & 0xFFFF)
            for member in sorted({m for g in groups for m in self.groups.get(g, ())}):
                if not (kind & SELF_DISCARD and member == name):
                    self.send(member, raw)
        return True

    def _join(self, group: str, name: str) -> None:
        members = self.groups.setdefault(group, [])
        if name not in members:
            members.append(name)
            members.sort()
            self._tell(group, name, Cause.JOIN)

    def _gone(self, group: str, name: str, cause: Cause) -> None:
        self.groups[group].remove(name)
        self._tell(group, name, cause)

    def _tell(self, group: str, who: str, cause: Cause) -> None:
        self.changes += 1
        change = Membership(group, cause, tuple(self.groups[group]), (0x7F000001, 1, self.changes), ((who,),), 0)
        for member in self.groups[group]:
            if member in self.sessions:
                self.send(member, membership_bytes(change))
        self.changed.set()
