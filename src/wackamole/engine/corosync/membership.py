"""From CPG's callbacks to views: a state machine without sockets.

CPG tells who left, who joined and which ring in separate callbacks; a view is one of each. Three rules:

* After a change of the ring, lists of left (NODEDOWN) and joined (NODEUP) are gathered until the ring id that follows
  them; then there is one view (hazard 11). A member in both lists was away: it is `joined`.
* One process per node: the last that joined counts (hazard 13).
* A view's id is the ring and the number of group changes within it, 0 at a change of the ring (hazard 12). Who joins
  within a ring does not know that number. It says Hello, every member that knows answers Welcome with the number at
  the *place of that Hello in the agreed order*; the newcomer keeps all its events back until then and counts from
  there. Whose elders have all gone founds the count anew, at random.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from ...core.model import Left, NodeId, View, ViewId
from ..chunks import Joiner, split
from ..contract import Delivered, EngineEvent, Joined, NewView
from .cpg import Callback, Confchg, Message, Process, Totem

JOIN, LEAVE, NODEDOWN, NODEUP, PROCDOWN = 1, 2, 3, 4, 5
RING_STEP = 4
"""A ring's number is its direct predecessor's plus this (totemsrp: memb_state_commit_token_create)."""

PAYLOAD, HELLO, WELCOME, CHUNK = 0, 1, 2, 3
WHOLE_BYTES_MAX = 1_000_000
"""Of a payload that goes as one message: CPG carries 1 MiB. A member that knows no chunks could not have so many VIPs."""
_HELLO = struct.Struct(">BQI")  # kind, incarnation, attempt
_WELCOME = struct.Struct(">BQIIIQ")  # kind, incarnation, attempt, count, ring's node, ring's number

_REASONS = {LEAVE: Left.LEFT, PROCDOWN: Left.PROCESS_DIED, NODEDOWN: Left.HOST_LOST}


def payload_frames(payload: bytes, serial: int) -> list[bytes]:
    """What goes to CPG for a payload. `serial` is another one for each of this sender."""
    if len(payload) <= WHOLE_BYTES_MAX:
        return [bytes((PAYLOAD,)) + payload]
    return [bytes((CHUNK,)) + chunk for chunk in split(payload, serial)]


@dataclass(slots=True)
class _Change:
    """What happened to the group since the last view."""

    left: dict[int, Left] = field(default_factory=dict)
    joined: set[int] = field(default_factory=set)
    dirty: bool = False


class Membership:
    """One process's sight of its group. `take` a callback, get engine events; frames to send go to `send`."""

    def __init__(
        self,
        me: Process,
        incarnation: int,
        founders_count: Callable[[], int],
        send: Callable[[bytes], None],
    ) -> None:
        self.me = me
        self.incarnation = incarnation
        self.malformed = 0
        self._founders_count = founders_count
        self._send = send
        self._members: dict[int, int] = {}  # node id → pid
        self._ring: tuple[int, int] | None = None
        self._count: int | None = None  # None: not a member yet, or not welcomed
        self._view: View | None = None
        self._change = _Change()
        self._gathering = False  # the ring changes: its id is yet to come
        self._joiner = Joiner()
        # before the welcome
        self._kept: list[Callback] | None = None
        self._elders: set[Process] = set()
        self._attempt = 0
        self._changes_at_hello: dict[int, int] = {}

    @property
    def waits_for_welcome(self) -> bool:
        """Whether Hello was said and not answered yet; say it again when that takes long."""
        return self._kept is not None

    @property
    def ring(self) -> tuple[int, int] | None:
        """The ring's representative and number, as last told."""
        return self._ring

    def hello(self) -> None:
        """Ask for the count."""
        self._attempt += 1
        self._send(_HELLO.pack(HELLO, self.incarnation, self._attempt))

    def take(self, callback: Callback) -> list[EngineEvent]:
        """One callback of CPG, in its order."""
        if self._kept is not None:
            self._kept.append(callback)
            return self._look_for_welcome(callback)
        match callback:
            case Confchg():
                return self._on_confchg(callback)
            case Totem():
                return self._on_totem(callback)
            case Message():
                return self._on_message(callback)

    # -- a member that knows the count --------------------------------------------------------------------------------

    def _on_confchg(self, change: Confchg) -> list[EngineEvent]:
        mine = any((p.nodeid, p.pid) == (self.me.nodeid, self.me.pid) for p in change.joined)
        if self._count is None and self._view is None:
            if not mine:
                return []  # not a member yet
            self._members = _one_per_node(change.members, self.me)
            self._elders = {Process(p.nodeid, p.pid) for p in change.members if p.nodeid != self.me.nodeid}
            self._kept = [change]
            if self._elders:
                self.hello()
            return []
        ring_changes = any(p.reason in (NODEDOWN, NODEUP) for p in (*change.left, *change.joined))
        for gone in change.left:
            if self._members.get(gone.nodeid) == gone.pid:
                del self._members[gone.nodeid]
                self._change.left[gone.nodeid] = _REASONS.get(gone.reason, Left.HOST_LOST)
                self._change.dirty = True
        for new in change.joined:
            if new.nodeid == self.me.nodeid:
                continue
            self._members[new.nodeid] = new.pid
            self._change.joined.add(new.nodeid)
            self._change.dirty = True
        if ring_changes or self._change.dirty is False or self._gathering:
            self._gathering = self._gathering or ring_changes
            return []
        assert self._count is not None
        self._count += 1
        return [self._new_view(direct=True)]

    def _on_totem(self, totem: Totem) -> list[EngineEvent]:
        ring = (totem.node, totem.seq)
        if ring == self._ring and not self._gathering:
            return []
        before = self._ring
        self._ring = ring
        self._gathering = False
        if self._count is None:
            return []
        self._count = 0
        return [self._new_view(direct=before is not None and ring[1] == before[1] + RING_STEP)]

    def _new_view(self, *, direct: bool) -> EngineEvent:
        assert self._ring is not None
        assert self._count is not None
        members = tuple(NodeId(n) for n in sorted(self._members))
        old = self._view.members if self._view is not None else ()
        joined = tuple(n for n in members if n not in old or n in self._change.joined)
        left = tuple((n, self._change.left.get(n, Left.HOST_LOST)) for n in old if n not in members)
        self._view = View(ViewId(self._ring[0], self._ring[1], self._count), members, joined, left, direct)
        self._change = _Change()
        self._joiner.clear()  # by all alike
        return NewView(self._view)

    def _on_message(self, message: Message) -> list[EngineEvent]:
        sender, frame = message.sender, message.payload
        kind = frame[0] if frame else None
        if kind == PAYLOAD:
            if self._members.get(sender.nodeid) != sender.pid:
                return []  # an older process of that node
            return [Delivered(NodeId(sender.nodeid), frame[1:])]
        if kind == CHUNK:
            return self._on_chunk(sender, frame[1:])
        if kind == HELLO and len(frame) == _HELLO.size:
            _, incarnation, attempt = _HELLO.unpack(frame)
            if sender.nodeid != self.me.nodeid and self._ring is not None and self._count is not None:
                self._send(_WELCOME.pack(WELCOME, incarnation, attempt, self._count, *self._ring))
        elif kind != WELCOME or len(frame) != _WELCOME.size:
            self.malformed += 1
        return []

    def _on_chunk(self, sender: Process, chunk: bytes) -> list[EngineEvent]:
        if self._members.get(sender.nodeid) != sender.pid:
            return []
        try:
            payload = self._joiner.take(str(sender.nodeid), chunk)
        except ValueError:
            self.malformed += 1
            return []
        return [Delivered(NodeId(sender.nodeid), payload)] if payload is not None else []

    # -- a newcomer -----------------------------------------------------------------------------------------------------

    def _look_for_welcome(self, callback: Callback) -> list[EngineEvent]:
        """Whether what was kept is enough to know the count; if so, become a member and replay it."""
        assert self._kept is not None
        if isinstance(callback, Totem):
            first = self._ring is None
            self._ring = (callback.node, callback.seq)
            if first and not self._elders:
                return self._become(self._founders_count())
            if not first and self._kept_ring() != self._ring:
                return self._become_by_ring()
        elif isinstance(callback, Confchg):
            for gone in callback.left:
                self._elders.discard(Process(gone.nodeid, gone.pid))
            if not self._elders and self._ring is not None and not _of_ring(callback):
                return self._become(self._founders_count())
        elif self._ring is not None:
            return self._kept_message(callback)
        return []

    def _kept_ring(self) -> tuple[int, int] | None:
        """The ring that was told first."""
        assert self._kept is not None
        return next(((x.node, x.seq) for x in self._kept if isinstance(x, Totem)), None)

    def _kept_message(self, message: Message) -> list[EngineEvent]:
        frame = message.payload
        assert self._kept is not None
        if len(frame) == _HELLO.size and frame[0] == HELLO:
            _, incarnation, attempt = _HELLO.unpack(frame)
            if incarnation == self.incarnation:
                self._changes_at_hello[attempt] = sum(_changes_group(x) for x in self._kept[1:])
        elif len(frame) == _WELCOME.size and frame[0] == WELCOME:
            _, incarnation, attempt, count, node, seq = _WELCOME.unpack(frame)
            if incarnation == self.incarnation and attempt in self._changes_at_hello and (node, seq) == self._ring:
                return self._become(max(0, count - self._changes_at_hello[attempt]))
        return []

    def _become(self, count: int) -> list[EngineEvent]:
        """A member, from its own join on, with this count at that place."""
        assert self._kept is not None
        kept, self._kept = self._kept, None
        joining = kept[0]
        assert isinstance(joining, Confchg)
        self._members = _one_per_node(joining.members, self.me)
        self._count = count
        self._change = _Change()
        events: list[EngineEvent] = [Joined(NodeId(self.me.nodeid), self.incarnation), self._new_view(direct=False)]
        for callback in kept[1:]:
            events += self.take(callback)
        return events

    def _become_by_ring(self) -> list[EngineEvent]:
        """The ring changed: everybody counts from 0, so nobody needs to be asked. What came before it is nobody's view."""
        assert self._kept is not None
        kept, self._kept = self._kept, None
        members = dict(self._members)
        for callback in kept[1:]:
            if isinstance(callback, Confchg):
                for gone in callback.left:
                    if members.get(gone.nodeid) == gone.pid:
                        del members[gone.nodeid]
                for new in callback.joined:
                    members[new.nodeid] = new.pid
        self._members = members
        self._count = 0
        self._change = _Change()
        return [Joined(NodeId(self.me.nodeid), self.incarnation), self._new_view(direct=False)]


def _one_per_node(members: tuple[Process, ...], me: Process) -> dict[int, int]:
    found: dict[int, int] = {}
    for process in members:
        found[process.nodeid] = process.pid
    found[me.nodeid] = me.pid
    return found


def _of_ring(change: Confchg) -> bool:
    return any(p.reason in (NODEDOWN, NODEUP) for p in (*change.left, *change.joined))


def _changes_group(callback: Callback) -> int:
    return int(isinstance(callback, Confchg) and not _of_ring(callback))
