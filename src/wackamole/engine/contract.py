"""What every group engine promises. One contract test-suite runs on all of them (tests/engine/test_contract.py).

Events arrive in one total order that all members of a component share. Members that go together from one view to the
next, when that view says `direct`, have delivered the same messages. A multicast may be lost silently at a change of
the ring; only own delivery in the current view counts as sent. The engine hands over payloads untouched; the view a
message was sent in is the caller's business (wire.py puts it into every payload).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..core.model import NodeId, View


@dataclass(frozen=True, slots=True)
class Joined:
    """This process is a member; its first view follows. The incarnation is 64 random bits, new at every join."""

    me: NodeId
    incarnation: int


@dataclass(frozen=True, slots=True)
class NewView:
    """One real change of membership."""

    view: View


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message in the agreed order; own messages are delivered too."""

    sender: NodeId
    payload: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """The engine died, threw us out or cannot be reached: there is no group until the next Joined."""

    reason: str


class Recorder(Protocol):
    """Where facts for people go: the journal's `record`."""

    def __call__(self, what: str, **fields: object) -> None: ...


EngineEvent = Joined | NewView | Delivered | Lost
Listener = Callable[[EngineEvent], None]

PAYLOAD_BYTES_MAX = 4_000_000
"""More than a State of VIPS_MAX VIPs with two addresses and the longest names, all ineligible (3.5 MB). What an engine does
not carry whole goes in chunks.py's."""
SEAL_BYTES_MAX = 64
"""What sealed.py adds at most: whoever makes payloads leaves room for it."""

DISPATCH_BUDGET = 64
"""Events handed over in one turn of the loop; the rest waits for the next."""


class GroupEngine(Protocol):
    """A connection to the group. All calls and all callbacks happen on the thread of the asyncio loop."""

    async def start(self, listener: Listener) -> None:
        """Connect, and keep connecting with back-off for as long as it takes; returns once trying has begun.
        `listener` is called for every event, at most DISPATCH_BUDGET times per turn of the loop."""

    def multicast(self, payload: bytes) -> None:
        """Queue a payload (≤ PAYLOAD_BYTES_MAX) for the group; nothing is sent while not joined. Never blocks."""

    async def rejoin(self, reason: str, pause_s: float = 0.0) -> None:
        """Leave at once, and join again after a pause, with a new incarnation. Emits Lost, then Joined."""

    async def leave(self) -> None:
        """Say goodbye (others see Left.LEFT) and disconnect. No events after this returns."""

    def describe(self) -> dict[str, str]:
        """Facts for `status`: type, version, ring, timings, links."""
