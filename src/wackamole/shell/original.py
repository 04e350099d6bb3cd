"""Serves the control protocol of Wackamole 2.1, so that its own wackatrl can list, fail and un-fail this node.

The protocol asks nobody who he is. A Unix socket is its owner's alone, as the original's was; a TCP port is for whoever can
reach it. So what one asks is little, and costs little: see the bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..engine.contract import Recorder
from ..original import DONE, NOT_DONE, Command, ControlAddress, Record, encode
from .claim import Refused, bound
from .control import Handler

CLIENTS_MAX = 8
IDLE_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 30.0
"""A client that does not read its answer for so long is dropped."""
COMMAND_SECONDS = 0.1
"""Between the beginnings of two commands, whoever gives them: a list of all VIPs takes a while to be put together."""
COMMANDS_MAX = 100
"""Of one connection; the original's client gives two."""
BAD_TOLD_MAX = 10
"""So many wrong commands are told; whoever sends them must not fill the log."""
READ_ONLY_HINT = "; under systemd the daemon may write in /run/wackamole only, unless ReadWritePaths= allows more"
VERBS = {Command.FAIL: "drain", Command.SUCCEED: "resume"}


class OriginalServer:
    """Serves the socket for one daemon. `listing` makes the records of an answer to `status`."""

    def __init__(
        self,
        address: ControlAddress,
        handler: Handler,
        listing: Callable[[Mapping[str, Any]], tuple[Record, ...]],
        on_record: Recorder,
    ) -> None:
        self.address = address
        self._handler = handler
        self._listing = listing
        self._record = on_record
        self._server: asyncio.Server | None = None
        self._clients = 0
        self._bad = 0
        self._pace = asyncio.Lock()
        self._next_at = 0.0

    async def start(self) -> None:
        """Listen. Raises Refused if the address cannot be used, or another daemon listens there."""
        where = self.address
        try:
            if where.path:
                self._server = await asyncio.start_unix_server(self._serve, sock=bound(Path(where.path)), limit=64)
            else:
                self._server = await asyncio.start_server(self._serve, where.host, where.port, limit=64)
        except OSError as wrong:
            hint = READ_ONLY_HINT if wrong.errno == errno.EROFS else ""
            raise Refused(f"cannot listen on {where}: {os.strerror(wrong.errno or 0)}{hint}") from None

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if self.address.path:
            with contextlib.suppress(OSError):
                Path(self.address.path).unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= CLIENTS_MAX:
            writer.close()
            return
        self._clients += 1
        try:
            for _ in range(COMMANDS_MAX):
                byte = await asyncio.wait_for(reader.read(1), IDLE_SECONDS_MAX)
                answer = await self._answer(byte[0], _peer(writer)) if byte else b""
                if not answer:
                    break
                writer.write(answer)
                await asyncio.wait_for(writer.drain(), ANSWER_SECONDS_MAX)
        except ConnectionError:
            pass  # the client went away: its affair
        except TimeoutError:
            writer.transport.abort()  # it says nothing, or reads nothing: closing would wait for it
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, byte: int, peer: str) -> bytes:
        """The answer to one command; nothing if the client is to be dropped, which tells it that there is none."""
        try:
            command = Command(byte)
        except ValueError:
            self._bad += 1
            if self._bad < BAD_TOLD_MAX:
                self._record("bad_command", where=self.address, peer=peer, byte=byte)
            return b""
        await self._turn()
        try:
            if command is Command.LIST:
                listed = self._listing(await self._asked("status", peer))
                return encode(listed) if listed else b""
            self._record("wackatrl", command=command.name.lower(), verb=VERBS[command], peer=peer)
            await self._asked(VERBS[command], peer)
        except Refused as no:
            self._record("wackatrl_refused", command=command.name.lower(), peer=peer, reason=str(no))
            return NOT_DONE if command is not Command.LIST else b""
        return DONE

    async def _asked(self, verb: str, peer: str) -> Any:
        result = None
        async for said in self._handler(verb, {"verb": verb, "force": True, "by": f"wackatrl:{peer}"}):
            result = said.get("result", result)
        return result

    async def _turn(self) -> None:
        """Wait until the next command may begin."""
        async with self._pace:
            now = asyncio.get_running_loop().time()
            if now < self._next_at:
                await asyncio.sleep(self._next_at - now)
            self._next_at = max(now, self._next_at) + COMMAND_SECONDS


def _peer(writer: asyncio.StreamWriter) -> str:
    sock: socket.socket = writer.get_extra_info("socket")
    name = writer.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if sock.family == socket.AF_INET and name else "local"
