"""A Spread daemon behind the contract of a group engine.

The daemon is somebody else's: it is connected to, again and again with a growing pause, and never started or stopped. When
the connection ends, whatever the reason, everything is dropped (Lost): a daemon does not say whether it died or threw us
out because we read too slowly.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket

from ...core.model import NodeId
from ..chunks import split
from ..connecting import Connecting
from ..contract import DISPATCH_BUDGET, PAYLOAD_BYTES_MAX, Joined, Listener, Lost, Recorder
from . import codec
from .address import SESSION_DEFAULT, SpreadAddress
from .codec import Decoder, Handshake, SpreadError
from .membership import GroupMembership, private_name

RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 0.02, 2.0
RETRY_FACTOR = 1.5
LASTING_SECONDS = 10.0
"""A connection that lasted for so long may end without a pause before the next attempt."""
HANDSHAKE_SECONDS_MAX = 5.0
"""A daemon answers within milliseconds, also while its ring forms; one that is stopped never does."""
GOODBYE_SECONDS_MAX = 2.0
"""How long a daemon may take to close after our goodbye; 5.0 waits until its ring is formed."""
OUTBOX_BYTES_MAX = 8 << 20
"""What may wait for the daemon to read it; it reads nothing for some seconds while its ring forms."""
INBOX_BYTES_MAX = 1 << 20
"""What may wait to be dispatched; then no more is read for a moment."""


def group_name(cluster: str) -> str:
    """The Spread group of a cluster; a name that does not fit into one is digested."""
    found = f"wackamole/{cluster}"
    if codec.is_name(found, codec.GROUP_NAME_MAX):
        return found
    return f"wackamole/{hashlib.blake2b(cluster.encode(), digest_size=10).hexdigest()}"


class _Wire(asyncio.Protocol):
    """One connection: the handshake, then messages, then perhaps a goodbye."""

    def __init__(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        self.handshake = Handshake(name)
        self.decoder = Decoder()
        self.ready: asyncio.Future[str] = loop.create_future()  # the private group
        self.closed: asyncio.Future[None] = loop.create_future()
        self.engine: SpreadEngine | None = None
        """Who reads it now."""
        self._transport: asyncio.Transport | None = None
        self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        found: socket.socket = transport.get_extra_info("socket")
        if found.family != socket.AF_UNIX:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        transport.write(self.handshake.start)

    def data_received(self, data: bytes) -> None:
        if self._leaving or self._transport is None:
            return
        if self.ready.done():
            self.decoder.feed(data)
        else:
            self._shake(data)
        if self.decoder.waiting > INBOX_BYTES_MAX:
            self._transport.pause_reading()
        if self.engine is not None:
            self.engine.readable(self)

    def _shake(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            answer = self.handshake.receive(data)
        except SpreadError as wrong:
            self._refused(wrong)
            self._transport.abort()
            return
        if answer:
            self._transport.write(answer)
        if self.handshake.private_group is not None:
            self.decoder.feed(self.handshake.rest)
            self.ready.set_result(self.handshake.private_group)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set_result(None)
        if not self.ready.done():
            self._refused(ConnectionResetError("the Spread daemon hung up during the handshake"))
        if self.engine is not None:
            why = f": {exc}" if exc is not None else ""
            self.engine.hung_up(self, f"the Spread daemon closed the connection{why}")

    def _refused(self, why: Exception) -> None:
        self.ready.set_exception(why)
        self.ready.exception()  # whether or not somebody waits for it still

    def resume(self) -> None:
        """Read on, after what waited was taken."""
        if self._transport is not None and self.decoder.waiting <= INBOX_BYTES_MAX:
            self._transport.resume_reading()

    def send(self, *messages: bytes) -> bool:
        """Whether there was room for them."""
        if self._transport is None or self._transport.is_closing() or self._leaving:
            return True
        if self._transport.get_write_buffer_size() > OUTBOX_BYTES_MAX:
            return False
        self._transport.writelines(messages)
        return True

    def goodbye(self, *messages: bytes) -> None:
        """Say so, and wait for the daemon to close: closed at once, over TCP, it might not be read any more."""
        self.engine = None
        if self._transport is None:
            return
        self.send(*messages)
        self._leaving = True
        self._transport.resume_reading()
        asyncio.get_running_loop().call_later(GOODBYE_SECONDS_MAX, self.abort)

    def abort(self) -> None:
        """Close at once."""
        self.engine = None
        if self._transport is not None:
            self._transport.abort()


class SpreadEngine:
    """A member of one group, as a client of the Spread daemon at `address`, which should be this host's. `session` starts
    the private names; `retry_s` is the longest pause between two attempts to connect, seconds."""

    def __init__(
        self,
        group: str,
        node: NodeId,
        address: SpreadAddress,
        *,
        on_record: Recorder,
        session: str = SESSION_DEFAULT,
        retry_s: float = RETRY_SECONDS_MAX,
    ) -> None:
        if not codec.is_name(group, codec.GROUP_NAME_MAX):
            raise ValueError(f"{group!r} is no name of a Spread group")
        self._group = group
        self._node = node
        self._address = address
        self._session = session
        self._retry_s = retry_s
        self._record = on_record
        self._listener: Listener | None = None
        self._wire: _Wire | None = None
        self._membership: GroupMembership | None = None
        self._connecting = Connecting()
        self._more = False
        self._joined = False
        self._serial = 0
        self._reconnects = 0
        self._pause_s = 0.0
        self._connected_at = 0.0

    # -- the contract -----------------------------------------------------------------------------------------------------

    async def start(self, listener: Listener) -> None:
        """Begin to connect, and go on trying."""
        self._listener = listener
        self._connect_again()

    def multicast(self, payload: bytes) -> None:
        """Queue a payload; dropped while not a member."""
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a payload of {len(payload)} bytes is larger than {PAYLOAD_BYTES_MAX}")
        if not self._joined:
            return
        self._serial += 1
        self._send(*(self._message(codec.AGREED, chunk) for chunk in split(payload, self._serial)))

    async def rejoin(self, reason: str, pause_s: float = 0.0) -> None:
        """Leave at once, and join again after a pause with a new incarnation."""
        self._lost(reason, pause_s)

    async def leave(self) -> None:
        """Say goodbye, and wait until the daemon has heard it."""
        self._listener = None
        self._connecting.cancel()
        wire = self._wire
        self._goodbye()
        if wire is not None:
            await wire.closed

    def describe(self) -> dict[str, str]:
        """Facts for `status`."""
        facts = {"type": "spread", "address": str(self._address), "state": "joined" if self._joined else "connecting"}
        if self._wire is not None:
            facts["daemon"] = ".".join(map(str, self._wire.handshake.version))
        if self._membership is not None:
            facts["session"] = self._membership.me
            counts = {"strangers": self._membership.strangers, "malformed": self._membership.malformed}
            facts |= {what: str(number) for what, number in counts.items() if number}
        facts["reconnects"] = str(self._reconnects)
        return facts

    # -- connecting ---------------------------------------------------------------------------------------------------------

    def _connect_again(self, pause_s: float = 0.0) -> None:
        if not self._connecting.under_way and self._listener is not None:
            self._connecting.begin(self._connect(pause_s))

    async def _connect(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        last = ""
        while True:
            try:
                wire = await self._open()
            except (OSError, TimeoutError, SpreadError) as wrong:
                reason = str(wrong) or "it does not answer"
                if reason != last:
                    last = reason
                    self._record("engine_unreachable", reason=reason)
            else:
                break
            await asyncio.sleep(self._longer_pause())
        self._connecting.over()
        self._connected_at = asyncio.get_running_loop().time()
        self._wire = wire
        self._membership = GroupMembership(self._group, self._session, wire.ready.result(), secrets.randbits(64))
        wire.engine = self
        self._send(self._message(codec.JOIN))
        if wire.closed.done():
            self.hung_up(wire, "the Spread daemon closed the connection")
        else:
            self.readable(wire)

    def _longer_pause(self) -> float:
        self._pause_s = min(max(RETRY_SECONDS_MIN, self._pause_s * RETRY_FACTOR), self._retry_s)
        return self._pause_s

    def _pause_after(self) -> float:
        """Before the next attempt, when a connection has ended that was not ended here."""
        if asyncio.get_running_loop().time() - self._connected_at < LASTING_SECONDS:
            return self._longer_pause()
        self._pause_s = 0.0
        return 0.0

    async def _open(self) -> _Wire:
        """A connection that the daemon has accepted. Raises OSError, TimeoutError or SpreadError."""
        loop = asyncio.get_running_loop()
        name = private_name(self._session, self._node)
        made: list[_Wire] = []

        def make() -> _Wire:
            made.append(_Wire(name))
            return made[-1]

        where = self._address
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                if where.path:
                    _, wire = await loop.create_unix_connection(make, where.path)
                else:
                    _, wire = await loop.create_connection(make, where.host, where.port)
                await wire.ready
        except BaseException:
            for wire in made:
                wire.abort()
            raise
        return wire

    # -- the connection's life --------------------------------------------------------------------------------------------

    def readable(self, wire: _Wire) -> None:
        """Something came, or waits since the last turn."""
        if not self._more:
            self._dispatch(wire)

    def hung_up(self, wire: _Wire, reason: str) -> None:
        """The connection has ended."""
        if wire is self._wire:
            self._lost(reason, self._pause_after())

    def _dispatch(self, wire: _Wire) -> None:
        self._more = False
        for _ in range(DISPATCH_BUDGET):
            membership = self._membership
            if wire is not self._wire or membership is None:
                return
            try:
                message = wire.decoder.next()
            except SpreadError as wrong:
                self._lost(f"the Spread daemon sent what is not its protocol: {wrong}", self._pause_after())
                return
            if message is None:
                wire.resume()
                return
            for event in membership.take(message):
                if isinstance(event, Lost):
                    self._lost(event.reason, self._retry_s)
                    return
                if isinstance(event, Joined):
                    self._joined = True
                if self._listener is not None:
                    self._listener(event)
                if self._membership is not membership:
                    return
        self._more = True
        asyncio.get_running_loop().call_soon(self._dispatch, wire)

    def _message(self, service: int, body: bytes = b"") -> bytes:
        assert self._membership is not None
        me = self._membership.me
        return codec.message_bytes(service, me, (me if service == codec.KILL else self._group,), body)

    def _send(self, *messages: bytes) -> None:
        assert self._wire is not None
        if not self._wire.send(*messages):
            # found out while the listener speaks: not in its own call
            asyncio.get_running_loop().call_soon(
                self.hung_up, self._wire, f"the Spread daemon took none of the last {OUTBOX_BYTES_MAX >> 20} MB"
            )

    def _goodbye(self) -> None:
        if self._wire is not None:
            self._wire.goodbye(self._message(codec.LEAVE), self._message(codec.KILL))
        self._wire = self._membership = None
        self._joined = False

    def _lost(self, reason: str, pause_s: float = 0.0) -> None:
        """Everything of this membership is void; tell once, then try again."""
        if self._wire is None:
            return
        wire, self._joined = self._wire, False
        if self._listener is not None:
            self._listener(Lost(reason))  # first: what closes the connection is a death to the others (hazard 6)
        if wire is self._wire:
            self._goodbye()
            self._reconnects += 1
            self._connect_again(pause_s)
