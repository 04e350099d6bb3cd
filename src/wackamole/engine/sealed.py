"""A group engine whose payloads nobody else can have made: each carries an HMAC-SHA256 under the cluster's key.

    payload := version (1 byte) · incarnation (8) · counter (8) · HMAC (32) · the payload itself

The HMAC is over all of that and the sender's number. The counter grows with every payload of an incarnation, and what is
not newer than the last one is dropped: a payload that somebody says again is none. What is said again much later, to
members that never heard it, is of another view, and dropped for that (wire.py puts the view into every payload).

For engines that have no key of their own, or not ours: Spread, and a Corosync that is not managed here. Who is a member, and
in which order what is said arrives, is the engine's word, and is not sealed.
"""

from __future__ import annotations

import hmac
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..core.model import NodeId
from .contract import PAYLOAD_BYTES_MAX, SEAL_BYTES_MAX, Delivered, EngineEvent, GroupEngine, Joined, Listener, Lost

VERSION = 1
TAG_BYTES = 32
HEARD_MAX = 4096
"""Incarnations whose last counter is remembered."""

_HEAD = struct.Struct(">BQQ")  # version, incarnation, counter
_SENDER = struct.Struct(">I")
SEAL_BYTES = _HEAD.size + TAG_BYTES
assert SEAL_BYTES <= SEAL_BYTES_MAX


class NotOurs(Exception):
    """A payload that no member with our key has just made; the sentence says why."""


class Seal:
    """Makes and checks seals. The first secret signs, all of them verify: so a key is changed without an outage."""

    def __init__(self, cluster: str, secrets: Sequence[bytes]) -> None:
        self._purpose = b"wackamole payload v1\0" + cluster.encode()
        self._heard: OrderedDict[tuple[NodeId, int], int] = OrderedDict()
        self.change(secrets)

    def change(self, secrets: Sequence[bytes]) -> None:
        """Other secrets, from now on."""
        if not secrets:
            raise ValueError("there is no secret")
        self._keys = [hmac.digest(secret, self._purpose, "sha256") for secret in secrets]

    def close(self, sender: NodeId, incarnation: int, counter: int, payload: bytes) -> bytes:
        """The payload with its seal."""
        head = _HEAD.pack(VERSION, incarnation, counter)
        return head + _tag(self._keys[0], sender, head, payload) + payload

    def open(self, sender: NodeId, sealed: bytes) -> bytes:
        """The payload in a seal. Raises NotOurs."""
        if len(sealed) < SEAL_BYTES or sealed[0] != VERSION:
            raise NotOurs("it has no seal")
        head, tag, payload = sealed[: _HEAD.size], sealed[_HEAD.size : SEAL_BYTES], sealed[SEAL_BYTES:]
        if not any(hmac.compare_digest(tag, _tag(key, sender, head, payload)) for key in self._keys):
            raise NotOurs("its seal is not made with a key of this cluster")
        _, incarnation, counter = _HEAD.unpack(head)
        who = (sender, incarnation)
        if counter <= self._heard.get(who, 0):
            raise NotOurs("it was said before")
        self._heard[who] = counter
        self._heard.move_to_end(who)
        if len(self._heard) > HEARD_MAX:
            self._heard.popitem(last=False)
        return payload


def _tag(key: bytes, sender: NodeId, head: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, _SENDER.pack(sender) + head + payload, "sha256")


class SealedEngine:
    """Any engine, with seals. Payloads may be SEAL_BYTES_MAX smaller than PAYLOAD_BYTES_MAX. `on_refused` is called for
    each that is not handed on."""

    def __init__(self, engine: GroupEngine, seal: Seal, *, on_refused: Callable[[NodeId, NotOurs], None]) -> None:
        self._engine = engine
        self.seal = seal
        self._on_refused = on_refused
        self._listener: Listener | None = None
        self._me: Joined | None = None
        self._counter = 0
        self._refused = 0

    async def start(self, listener: Listener) -> None:
        """As the engine within."""
        self._listener = listener
        await self._engine.start(self._hear)

    def multicast(self, payload: bytes) -> None:
        """Queue a payload with its seal; dropped while not a member."""
        if len(payload) > PAYLOAD_BYTES_MAX - SEAL_BYTES_MAX:
            raise ValueError(f"a payload of {len(payload)} bytes is larger than {PAYLOAD_BYTES_MAX - SEAL_BYTES_MAX}")
        if self._me is None:
            return
        self._counter += 1
        self._engine.multicast(self.seal.close(self._me.me, self._me.incarnation, self._counter, payload))

    async def rejoin(self, reason: str, pause_s: float = 0.0) -> None:
        """As the engine within."""
        await self._engine.rejoin(reason, pause_s)

    async def leave(self) -> None:
        """As the engine within."""
        await self._engine.leave()

    def describe(self) -> dict[str, str]:
        """The engine's facts, and how many payloads were refused."""
        return {**self._engine.describe(), "sealed": "HMAC-SHA256", "refused": str(self._refused)}

    def _hear(self, event: EngineEvent) -> None:
        assert self._listener is not None
        match event:
            case Joined():
                self._me, self._counter = event, 0
            case Lost():
                self._me = None
            case Delivered():
                try:
                    event = replace(event, payload=self.seal.open(event.sender, event.payload))
                except NotOurs as no:
                    self._refused += 1
                    self._on_refused(event.sender, no)
                    return
        self._listener(event)
