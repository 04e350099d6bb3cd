"""A group engine in memory: a deterministic model of views, partitions and merges (Network), and the same behind the
asyncio contract (MemoryEngine).

The model keeps for every node the queue of events that its engine has yet to hand over. All members of a component
receive the same messages in the same order. Where the contract leaves something open, the caller chooses:

* when each node's next event is delivered (`pending`, `deliver`);
* whether messages under way at a change of the ring are delivered before it or lost (`lose`). Members that go together
  into the next view deliver the same ones: what one of them has delivered already, all of them get.
* whether the engine can vouch for a change (`hidden`: View.direct is False); and what happens before it in rings that are
  never shown (`divide`);
* who notices nothing of a change because its engine stands still (`deaf`).

View ids are never used twice. A search may ask for `recycled` ids: then a number is taken again when nothing refers to
it any more, so that worlds with equal futures have equal fingerprints and their number stays finite.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from ..core.model import Left, NodeId, View, ViewId
from .contract import DISPATCH_BUDGET, PAYLOAD_BYTES_MAX, Delivered, EngineEvent, Joined, Listener, Lost, NewView


@dataclass(frozen=True, slots=True)
class Sent:
    """A message under way: who sent it, in which of its views, and what."""

    sender: NodeId
    sent_in: ViewId | None
    payload: Hashable


Queued = Joined | NewView | Sent


@dataclass(frozen=True, slots=True)
class Port:
    """One node's side: its incarnation, the view it was last told of, the last one queued for it, and its queue."""

    incarnation: int
    installed: ViewId | None = None
    tip: View | None = None
    queue: tuple[Queued, ...] = ()

    def with_event(self, event: Queued) -> Port:
        """One more event at the end."""
        return replace(self, queue=(*self.queue, event))


class Network:
    """Nodes, the cuts between them, and what is under way."""

    def __init__(self, *, recycled: bool = False) -> None:
        self._recycled = recycled
        self._last_number = 0
        self._ports: dict[NodeId, Port] = {}
        self._groups: tuple[tuple[NodeId, ...], ...] = ()
        self._unseen: tuple[frozenset[NodeId], ...] = ()
        self._joins: dict[NodeId, int] = {}

    def fork(self) -> Network:
        """A copy that can go its own way."""
        other = Network(recycled=self._recycled)
        other._last_number = self._last_number
        other._ports = dict(self._ports)
        other._groups = self._groups
        other._unseen = self._unseen
        other._joins = dict(self._joins)
        return other

    def fingerprint(self) -> Hashable:
        """Equal for networks with equal futures."""
        ports = tuple(sorted(self._ports.items()))
        return (ports, self._groups, tuple(sorted(self._joins.items())), self._last_number)

    def groups(self) -> tuple[tuple[NodeId, ...], ...]:
        """The cuts, as last set."""
        return self._groups

    def tip(self, node: NodeId) -> View | None:
        """The last view that was queued for a node."""
        return self._ports[node].tip if node in self._ports else None

    def last_number(self) -> int:
        """The number of the newest view; every later one has a higher one (not where they are recycled)."""
        return self._last_number

    def nodes(self) -> tuple[NodeId, ...]:
        """Who is a member somewhere."""
        return tuple(sorted(self._ports))

    def together(self, one: NodeId, other: NodeId, view: ViewId) -> bool:
        """Whether both are in this view by their engines, and nothing later is queued for either."""
        tips = [self._ports[n].tip for n in (one, other) if n in self._ports]
        return len(tips) == 2 and all(tip is not None and tip.id == view for tip in tips)

    def calm(self) -> dict[NodeId, View]:
        """Where nothing is under way: number the views anew and forget how they came about. Returns each node's view."""
        numbers: dict[ViewId, int] = {}
        views: dict[NodeId, View] = {}
        for node, port in sorted(self._ports.items()):
            assert not port.queue
            assert port.tip is not None
            number = numbers.setdefault(port.tip.id, len(numbers) + 1)
            view = View(ViewId(port.tip.members[0], number, 0), port.tip.members, (), (), direct=True)
            views[node] = view
            self._ports[node] = replace(port, installed=view.id, tip=view)
        return views

    # -- what the environment does --------------------------------------------------------------------------------------

    def power_on(self, node: NodeId, incarnation: int | None = None) -> None:
        """A process joins its component's group."""
        assert node not in self._ports, f"{node} is a member already"
        self._joins[node] = self._joins.get(node, 0) + 1
        chosen = incarnation if incarnation is not None else node * 1000 + self._joins[node]
        if not any(node in group for group in self._groups):
            first = self._groups[0] if self._groups else ()
            self._groups = (tuple(sorted((*first, node))), *self._groups[1:])
        self._ports[node] = Port(chosen).with_event(Joined(node, chosen))
        self._reform(self._component(node), {}, lose=False, hidden=False)

    def crash(self, node: NodeId, *, lose: bool = False) -> None:
        """The host is gone without a word."""
        self._remove(node, Left.HOST_LOST, lose=lose)

    def kill(self, node: NodeId) -> None:
        """The process is gone; its host's engine says so, in order with all messages."""
        self._remove(node, Left.PROCESS_DIED, lose=False)

    def throw_out(self, node: NodeId) -> None:
        """The engine closed the connection of a process that lives, and says the same of it as of one that died."""
        self._remove(node, Left.DISCONNECTED, lose=False)

    def leave(self, node: NodeId) -> None:
        """The process said goodbye."""
        self._remove(node, Left.LEFT, lose=False)

    def partition(
        self,
        groups: Iterable[Iterable[NodeId]],
        *,
        lose: bool = False,
        hidden: bool = False,
        deaf: Iterable[NodeId] = (),
    ) -> None:
        """Cut (and join) the network into these groups; nodes not named keep to themselves. The `deaf` are told nothing now:
        they learn of everything at the first change in which they are not deaf."""
        named = tuple(tuple(sorted(g)) for g in groups)
        assert len({n for g in named for n in g}) == sum(len(g) for g in named), "a node is in two groups"
        self._groups = named
        self._unseen = ()
        done: set[NodeId] = set(deaf)
        for node in sorted(self._ports):
            if node not in done:
                component = self._component(node)
                done |= set(component)
                self._reform(component, {}, lose=lose, hidden=hidden)

    def divide(self, groups: Iterable[Iterable[NodeId]]) -> None:
        """From now to the next change, messages reach only members of the same group, and no view says so: rings that come
        and go unseen (hazard 2). The next `partition` must be `hidden`."""
        self._unseen = tuple(frozenset(g) for g in groups)

    def heal(self) -> None:
        """Join everything together."""
        self.partition((tuple(sorted({n for g in self._groups for n in g} | set(self._ports))),))

    def multicast(self, node: NodeId, payload: Hashable) -> None:
        """Give a message its place in the order of the sender's component."""
        port = self._ports[node]
        if port.tip is None:
            return
        sent = Sent(node, port.installed, payload)
        reached = next((g for g in self._unseen if node in g), None)
        for member, other in self._ports.items():
            if reached is not None and member not in reached:
                continue
            if other.tip is not None and other.tip.id == port.tip.id:
                self._ports[member] = other.with_event(sent)

    def lose(self) -> None:
        """Messages under way that nobody of a component has delivered are lost, without a change of the ring."""
        for members in {self._component(node) for node in self._ports}:
            self._lose(members)

    # -- what the caller lets happen --------------------------------------------------------------------------------------

    def pending(self, node: NodeId) -> bool:
        """Whether an event waits for this node."""
        return node in self._ports and bool(self._ports[node].queue)

    def deliver(self, node: NodeId) -> EngineEvent:
        """Hand over the node's next event."""
        port = self._ports[node]
        event, rest = port.queue[0], port.queue[1:]
        if isinstance(event, Sent):
            self._ports[node] = replace(port, queue=rest)
            return Delivered(event.sender, event.payload)  # type: ignore[arg-type]
        installed = event.view.id if isinstance(event, NewView) else port.installed
        self._ports[node] = replace(port, queue=rest, installed=installed)
        return event

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _component(self, node: NodeId) -> tuple[NodeId, ...]:
        group = next((g for g in self._groups if node in g), (node,))
        return tuple(n for n in sorted(group) if n in self._ports)

    def _remove(self, node: NodeId, why: Left, *, lose: bool) -> None:
        rest = tuple(n for n in self._component(node) if n != node)
        del self._ports[node]
        if rest:
            self._reform(rest, {node: why}, lose=lose, hidden=False)

    def _reform(self, members: tuple[NodeId, ...], why: dict[NodeId, Left], *, lose: bool, hidden: bool) -> None:
        """Give these members a common view, unless they have it already and saw everything."""
        before = {m: self._ports[m].tip for m in members}
        ids = {tip.id if tip is not None else None for tip in before.values()}
        first = before[members[0]]
        if not hidden and len(ids) == 1 and first is not None and first.members == members:
            return
        if lose:
            self._lose(members)
        view_id = ViewId(members[0], self._free_number(), 0)
        for member in members:
            tip = before[member]
            came: tuple[NodeId, ...] = ()
            left: tuple[tuple[NodeId, Left], ...] = ()
            if tip is not None:
                came = tuple(m for m in members if (other := before[m]) is not None and other.id == tip.id)
                left = tuple((m, why.get(m, Left.HOST_LOST)) for m in tip.members if m not in members)
            joined = tuple(m for m in members if m not in came)
            view = View(view_id, members, joined, left, direct=not hidden)
            self._ports[member] = replace(self._ports[member].with_event(NewView(view)), tip=view)

    def _lose(self, members: tuple[NodeId, ...]) -> None:
        """Drop what is under way and was delivered to none of those that go together."""
        together: dict[ViewId | None, list[NodeId]] = {}
        for member in members:
            tip = self._ports[member].tip
            together.setdefault(tip.id if tip is not None else None, []).append(member)
        for peers in together.values():
            count = min(_trailing(self._ports[p].queue) for p in peers)
            for peer in peers:
                port = self._ports[peer]
                self._ports[peer] = replace(port, queue=port.queue[: len(port.queue) - count])

    def _free_number(self) -> int:
        if not self._recycled:
            self._last_number += 1
            return self._last_number
        used: set[int] = set()
        for port in self._ports.values():
            used |= {v.seq for v in (port.installed, port.tip.id if port.tip is not None else None) if v is not None}
            for event in port.queue:
                if isinstance(event, NewView):
                    used.add(event.view.id.seq)
                elif isinstance(event, Sent) and event.sent_in is not None:
                    used.add(event.sent_in.seq)
        number = 1
        while number in used:
            number += 1
        return number


def _trailing(queue: tuple[Queued, ...]) -> int:
    count = 0
    for event in reversed(queue):
        if not isinstance(event, Sent):
            break
        count += 1
    return count


class MemoryEngine:
    """One member of a shared Network behind the contract of GroupEngine, for programs that run on a loop."""

    def __init__(self, network: Network, node: NodeId, peers: list[MemoryEngine]) -> None:
        self._network = network
        self._node = node
        self._peers = peers
        self._listener: Listener | None = None
        self._frozen = False
        self._scheduled = False
        peers.append(self)

    async def start(self, listener: Listener) -> None:
        """Join the network."""
        self._listener = listener
        self._join()

    def multicast(self, payload: bytes) -> None:
        """Send to the component; nothing is sent while not joined."""
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a payload of {len(payload)} bytes is larger than {PAYLOAD_BYTES_MAX}")
        if self._listener is not None and self._node in self._network.nodes():
            self._network.multicast(self._node, payload)
            self._wake_all()

    async def rejoin(self, reason: str, pause_s: float = 0.0) -> None:
        """Leave at once, and join again after a pause."""
        assert self._listener is not None
        self._network.leave(self._node)
        self._listener(Lost(reason))
        self._wake_all()
        asyncio.get_running_loop().call_later(pause_s, self._join)

    def _join(self) -> None:
        if self._listener is not None:
            self._network.power_on(self._node, secrets.randbits(64))
            self._wake_all()

    async def leave(self) -> None:
        """Say goodbye."""
        self._listener = None
        if self._node in self._network.nodes():
            self._network.leave(self._node)
        self._wake_all()

    def describe(self) -> dict[str, str]:
        """Facts for `status`."""
        return {"type": "memory", "node": str(self._node)}

    def freeze(self) -> None:
        """Hand over nothing more until thawed."""
        self._frozen = True

    def thaw(self) -> None:
        """Go on."""
        self._frozen = False
        self._wake_all()

    def network_changed(self) -> None:
        """Somebody changed the network behind the engines' backs: look for events."""
        self._wake_all()

    def _wake_all(self) -> None:
        for engine in self._peers:
            engine._wake()

    def _wake(self) -> None:
        if not self._scheduled and not self._frozen and self._listener is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        for _ in range(DISPATCH_BUDGET):
            if self._frozen or self._listener is None or not self._network.pending(self._node):
                return
            self._listener(self._network.deliver(self._node))
        self._wake()
