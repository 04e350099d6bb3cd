"""The control socket: one JSON object per line, asked and answered.

    request   {"verb": "move", "vips": ["web-1"], "node": "b"}                    at most REQUEST_BYTES_MAX
              `by` is put there by the server: the user who asks
    answers   {"progress": …}*  then  {"ok": true, "result": …}  or  {"ok": false, "error": "a sentence"}

The kernel says who asks (SO_PEERCRED). Root, the daemon's own user and the group `wackamole` may everything; others may
read if the config allows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import pwd
import select
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from ..client import GROUP

REQUEST_BYTES_MAX = 65536
CLIENTS_MAX = 32
REQUEST_SECONDS_MAX = 10.0
ANSWER_SECONDS_MAX = 30.0
"""A client that reads nothing for so long is dropped; what it has not read is at most ANSWER_BYTES_MAX and one line."""
ANSWER_BYTES_MAX = 1 << 20
SENTENCE_MAX = 16_000
"""Of a refusal, which may be all the problems of a config."""
READ_ONLY = frozenset({"status", "events", "why", "history", "table"})

Handler = Callable[[str, dict[str, Any]], AsyncIterator[dict[str, Any]]]


class Refused(Exception):
    """A request that cannot be carried out; the sentence is the operator's answer."""


class ControlServer:
    """Serves the socket for one daemon."""

    def __init__(self, path: Path, handler: Handler, *, read_only_for_others: bool) -> None:
        self._path = path
        self._handler = handler
        self._others_read = read_only_for_others
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        """Listen. Raises Refused if another daemon does already, or the path cannot be used."""
        try:
            self._server = await asyncio.start_unix_server(self._serve, sock=bound(self._path), limit=REQUEST_BYTES_MAX)
            group = _group_id()
            if group is not None and os.geteuid() == 0:
                os.chown(self._path, -1, group)
            self.let_others_read(self._others_read)
        except OSError as wrong:
            raise Refused(f"the control socket {self._path} cannot be made: {wrong.strerror or wrong}") from None

    def let_others_read(self, others_read: bool) -> None:
        """Whether everybody may ask the verbs that change nothing. Raises OSError."""
        os.chmod(self._path, 0o666 if others_read else 0o660)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writer.transport.set_write_buffer_limits(ANSWER_BYTES_MAX)
        try:
            if len(self._open) >= CLIENTS_MAX:
                self._drop_gone()
            if len(self._open) >= CLIENTS_MAX:
                await _answer(writer, _refusal(f"more than {CLIENTS_MAX} clients at once"))
                return
            self._open[task] = writer
            await self._converse(reader, writer)
        except ConnectionError:
            pass  # the client went away: its affair
        except TimeoutError:
            writer.transport.abort()  # it reads nothing; closing would wait for it
        finally:
            self._open.pop(task, None)
            writer.close()

    def _drop_gone(self) -> None:
        """Who followed the events and went away is noticed at the next event only; end those now."""
        for task, writer in list(self._open.items()):
            watch = select.poll()
            watch.register(writer.get_extra_info("socket").fileno(), 0)
            if watch.poll(0):  # POLLHUP, POLLERR
                del self._open[task]
                task.cancel()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), REQUEST_SECONDS_MAX)
        except TimeoutError:
            return
        except ValueError:
            await _answer(writer, _refusal(f"a request has at most {REQUEST_BYTES_MAX} bytes"))
            return
        if not line:
            return
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
                raise ValueError("a request is an object with a text `verb`")  # noqa: TRY004
        except (ValueError, RecursionError) as wrong:
            await _answer(writer, _refusal(f"this is no request: {wrong}"))
            return
        verb = request["verb"]
        if verb not in READ_ONLY and not _may_command(writer):
            await _answer(writer, _refusal(f"only root and the group {GROUP} may {verb[:40]}"))
            return
        try:
            async for said in self._handler(verb, {**request, "by": _asker(writer)}):
                await _answer(writer, said if "progress" in said else {"ok": True, **said})
        except Refused as no:
            await _answer(writer, _refusal(str(no)))


def bound(path: Path) -> socket.socket:
    """A Unix socket at this path, its owner's alone (0600), in the place of one that a dead daemon left. Raises Refused if
    somebody listens there, and OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    if path.is_socket():
        if _answers(path):
            raise Refused(f"another daemon listens on {path} already")
        path.unlink()
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        found.bind(str(path))
    except OSError:
        found.close()
        raise
    finally:
        os.umask(old)
    return found


def _refusal(sentence: str) -> dict[str, Any]:
    return {"ok": False, "error": sentence if len(sentence) <= SENTENCE_MAX else sentence[: SENTENCE_MAX - 1] + "…"}


async def _answer(writer: asyncio.StreamWriter, said: dict[str, Any]) -> None:
    writer.write(json.dumps(said, separators=(",", ":")).encode() + b"\n")
    await asyncio.wait_for(writer.drain(), ANSWER_SECONDS_MAX)


def _peer(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """The user and the group who ask, as the kernel knows them."""
    sock = writer.get_extra_info("socket")
    _, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid, gid


def _asker(writer: asyncio.StreamWriter) -> str:
    """The user as the log names it: by number, as only that needs no directory that may not answer."""
    uid, _ = _peer(writer)
    return "root" if uid == 0 else f"uid:{uid}"


def _may_command(writer: asyncio.StreamWriter) -> bool:
    uid, gid = _peer(writer)
    if uid in (0, os.geteuid()):
        return True
    group = _group_id()
    if group is None:
        return False
    try:
        return group == gid or group in os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return False


def _group_id() -> int | None:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.setblocking(False)
        try:
            s.connect(str(path))
        except BlockingIOError:
            return True  # somebody does, whose queue is full: that is no reason to wait for him
        except OSError:
            return False
        return True
