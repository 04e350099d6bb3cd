"""From a Spread daemon's messages to views: a state machine without sockets.

* A member is a process whose private name says which node it is (`private_name`); others in the group are strangers, and
  what they do there is nobody's view. One process per node: the one that was there first.
* A view's id is the group id; its second number carries a digest of the members' names as well, because a group that was
  empty starts again with the same id.
* A membership by network whose third number is not 1 is an intermediate one: it reports a join or leave that was ordered
  before the network changed, still lists who is lost, and a transitional signal follows at once (groups.c of Spread 4.4 and
  5.0: `G_handle_join`, `_leave`, `_kill` while the group is changed). It gives no view (hazard 32).
* From a transitional signal to the view that follows, messages may not have reached everybody, so they must not renew a
  lease; all who go on together get the same ones, and drop them alike.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string

from ...core.model import Left, NodeId, View, ViewId
from ..chunks import Joiner
from ..contract import Delivered, EngineEvent, Joined, Lost, NewView
from .codec import AGREED, PRIVATE_NAME_MAX, Cause, Membership, Message, Regular, Rejected, SelfLeave, Transition

_LETTERS = string.ascii_lowercase + string.digits
_DIGEST_BITS = 20
"""Together with the 32 bits of a number they stay below what MessagePack and wire.py carry."""

_REASONS = {Cause.LEAVE: Left.LEFT, Cause.DISCONNECT: Left.DISCONNECTED}


def private_name(session: str, node: NodeId) -> str:
    """A new name for a connection of a node: it tells the node's number, and no ghost of an earlier one has it."""
    start = f"{session}{node:x}-"
    return start + "".join(secrets.choice(_LETTERS) for _ in range(PRIVATE_NAME_MAX - len(start)))


class GroupMembership:
    """One process's sight of its group. `take` a message, get engine events; Lost among them ends this membership."""

    def __init__(self, group: str, session: str, me: str, incarnation: int) -> None:
        self.me = me
        self.incarnation = incarnation
        self.malformed = 0
        """Messages that are none of ours."""
        self._group = group
        self._member = re.compile(rf"#{session}([0-9a-f]{{1,4}})-[a-z0-9]+#")
        mine = self._node(me)
        assert mine is not None
        self._mine = mine
        self._joiner = Joiner()
        self._listed: tuple[str, ...] = ()
        self._processes: dict[NodeId, str] = {}  # of the view
        self._gone: dict[NodeId, Left] = {}  # since the view
        self._view: View | None = None
        self._between = False  # a transitional signal, or an intermediate membership, was the last of its kind

    @property
    def strangers(self) -> int:
        """Processes in the group that are no members."""
        return sum(self._node(name) is None for name in self._listed)

    def take(self, message: Message) -> list[EngineEvent]:
        """One message of the daemon, in its order."""
        match message:
            case Regular():
                return self._on_regular(message)
            case Membership():
                return self._on_membership(message)
            case Transition():
                if message.group == self._group:
                    self._between = True
                    self._joiner.clear()
                return []
            case SelfLeave():
                return [Lost("this process was taken out of its group")] if message.group == self._group else []
            case Rejected():
                return [Lost("the Spread daemon's access policy forbids this group")]

    def _node(self, name: str) -> NodeId | None:
        found = self._member.match(name)
        return NodeId(int(found[1], 16)) or None if found else None

    def _on_regular(self, message: Regular) -> list[EngineEvent]:
        if self._view is None or self._between or self._group not in message.groups:
            return []
        node = self._node(message.sender)
        if node is None or self._processes.get(node) != message.sender or message.service != AGREED:
            self.malformed += 1
            return []
        try:
            payload = self._joiner.take(message.sender, message.body)
        except ValueError:
            self.malformed += 1
            return []
        return [] if payload is None else [Delivered(node, payload)]

    def _on_membership(self, change: Membership) -> list[EngineEvent]:
        if change.group != self._group or self.me not in change.members:
            return []
        intermediate = change.cause is Cause.NETWORK and change.group_id[2] != 1
        of_strangers = change.cause is not Cause.NETWORK and all(self._node(n) is None for n in change.sets[0])
        for node, process in self._processes.items():
            if process in self._listed and process not in change.members:
                self._gone[node] = Left.DISCONNECTED if intermediate else _REASONS.get(change.cause, Left.HOST_LOST)
        self._listed = change.members
        self._between = intermediate
        if of_strangers and self._view is not None:
            return []
        self._joiner.clear()
        if intermediate:
            return []
        processes = self._one_per_node(change)
        if processes[self._mine] != self.me:
            return [Lost(f"another process is node {self._mine}: {processes[self._mine]}")]
        return self._new_view(change, processes)

    def _one_per_node(self, change: Membership) -> dict[NodeId, str]:
        """Who counts, if two say that they are the same node: who did before, or else who is listed first. In a first
        membership everybody else was there before this process; in a merge nobody was there first."""
        found: dict[NodeId, str] = {}
        merge = change.cause is Cause.NETWORK and len(change.sets) > 1
        for name in change.members:
            node = self._node(name)
            if node is None:
                continue
            if self._view is None and node == self._mine:
                before = found.get(node) in (None, self.me)
            else:
                before = not merge and self._processes.get(node) == name
            if node not in found or before:
                found[node] = name
        return found

    def _new_view(self, change: Membership, processes: dict[NodeId, str]) -> list[EngineEvent]:
        members = tuple(sorted(processes))
        together = frozenset(change.sets[change.mine] if change.cause is Cause.NETWORK else change.members)
        before, self._processes = self._processes, processes
        joined = tuple(n for n in members if before.get(n) != processes[n] or processes[n] not in together)
        left = tuple((n, self._gone.get(n, Left.HOST_LOST)) for n in sorted(before) if n not in processes)
        self._gone = {}
        first = self._view is None
        direct = not first and (change.cause is not Cause.NETWORK or len(change.sets) == 1)
        self._view = View(_view_id(change), members, joined, left, direct)
        return [*([Joined(self._mine, self.incarnation)] if first else []), NewView(self._view)]


def _view_id(change: Membership) -> ViewId:
    """Equal for all who get this membership. A group whose last member left begins anew, within one membership of the
    daemons, with the numbers that it had; the names of its members are others then."""
    names = "".join(change.members).encode("latin-1")
    digest = int.from_bytes(hashlib.blake2b(names, digest_size=8).digest()) >> (64 - _DIGEST_BITS)
    lead, ring, count = (number & 0xFFFFFFFF for number in change.group_id)
    return ViewId(lead, ring << _DIGEST_BITS | digest, count)
