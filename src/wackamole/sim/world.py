"""Several members on one modelled network. Nothing happens by itself: the caller picks every delivery, every kernel
operation and every tick of the clock, so that a scenario can name them and a search can try them all.

Beats are left out (`beats=False`) where orders are searched: they never change the table, and silence is time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace

from ..core import effects as do
from ..core import events as ev
from ..core.machine import next_deadline_ms, step
from ..core.messages import Beat, Message
from ..core.model import Electorate, NodeId, NotEligible, Phase, Settings, ViewId, Vip, VipKey
from ..core.standing import Register
from ..core.state import State, initial
from ..engine.contract import Delivered, Joined, Lost, NewView
from ..engine.memory import Network

Payload = tuple[ViewId, Message]


@dataclass(slots=True)
class Member:
    """One host: its core, its kernel, and the operation that the kernel has not done yet."""

    state: State
    kernel: tuple[VipKey, ...] = ()
    asked: do.HoldExactly | None = None
    writing: tuple[Electorate, ...] | None = None
    """What its disk has not written yet."""
    refusing: tuple[VipKey, ...] = ()
    gone: bool = False
    brought: tuple[VipKey, ...] = ()
    """What its kernel may have had when it entered its view."""
    open_until_ms: int = 0
    """The fence lets its VIPs pass until then (where beats are modelled)."""

    def fork(self) -> Member:
        """A copy that can go its own way."""
        return replace(self)


@dataclass(slots=True)
class World:
    """Members, their network, and the time that they all see."""

    settings: dict[NodeId, Settings]
    network: Network = field(default_factory=lambda: Network(recycled=True))
    members: dict[NodeId, Member] = field(default_factory=dict)
    now_ms: int = 0
    beats: bool = True
    log: list[str] | None = None
    inherited: frozenset[tuple[str, NodeId, NodeId]] = frozenset()
    """Addresses that two members had when they entered their common view: a merge's, to be resolved, never to be added to."""
    definitions: dict[VipKey, Vip] = field(default_factory=dict)
    hung: frozenset[NodeId] = frozenset()
    """Members to whom nothing happens: neither deliveries nor time."""
    unfenced: frozenset[NodeId] = frozenset()
    stuck: frozenset[NodeId] = frozenset()
    """Hosts whose kernels do nothing of what they are asked."""
    hung_since: dict[NodeId, int] = field(default_factory=dict)
    handed: dict[NodeId, tuple[tuple[Vip, ...], int]] = field(default_factory=dict)
    """What a process that is being replaced has left on the interfaces for its successor, and until when."""
    disks: dict[NodeId, tuple[Electorate, ...]] = field(default_factory=dict)
    """What members remember over a restart."""
    orders: dict[NodeId, Register] = field(default_factory=dict)
    """Operators' orders on their disks, which have them at once."""

    def fork(self) -> World:
        """A copy that can go its own way; histories are not copied."""
        return type(self)(
            self.settings,
            self.network.fork(),
            {n: m.fork() for n, m in self.members.items()},
            self.now_ms,
            self.beats,
            None,
            self.inherited,
            self.definitions,
            self.hung,
            self.unfenced,
            self.stuck,
            dict(self.hung_since),
            dict(self.handed),
            dict(self.disks),
            dict(self.orders),
        )

    def fingerprint(self) -> object:
        """Equal for worlds that cannot be told apart by what they will do."""
        return (
            self.network.fingerprint(),
            tuple(
                (n, m.state, m.kernel, m.asked, m.writing, m.refusing, m.gone, m.brought)
                for n, m in sorted(self.members.items())
            ),
            self.inherited,
            tuple(sorted(self.disks.items())),
            tuple(sorted(self.orders.items(), key=lambda kv: kv[0])),
            self.now_ms,
        )

    # -- the environment ------------------------------------------------------------------------------------------------

    def power_on(self, node: NodeId) -> None:
        """Start the daemon of a host; its kernel keeps what a killed one left behind until the start removes it."""
        kept = self.disks.get(node, ()), self.orders.get(node, ())
        self.members[node] = Member(initial(self.settings[node], kept[0], orders=kept[1]))
        if node not in self.unfenced:
            self.tell(node, ev.FenceChanged(True))
        self.network.power_on(node)
        self.say(f"{self.name(node)} starts")

    def succeed(self, node: NodeId) -> None:
        """The successor of a process that was replaced starts."""
        kept, until_ms = self.handed.pop(node)
        state = initial(self.settings[node], self.disks.get(node, ()), kept, until_ms, self.orders.get(node, ()))
        self.members[node] = Member(state, kernel=tuple(v.key for v in kept), open_until_ms=until_ms)
        self.tell(node, ev.FenceChanged(True))
        self.network.power_on(node)
        self.say(f"the successor of {self.name(node)} starts")

    def crash(self, node: NodeId) -> None:
        """The host is gone, with its addresses."""
        self.network.crash(node)
        self._remove(node)
        self.say(f"{self.name(node)} crashes")

    def kill(self, node: NodeId) -> None:
        """The daemon dies; with the fence its kernel falls silent at once, so its addresses do not count."""
        self.network.kill(node)
        self._remove(node)
        self.say(f"{self.name(node)} is killed")

    def _remove(self, node: NodeId) -> None:
        del self.members[node]
        self.inherited = frozenset(x for x in self.inherited if node not in x[1:])

    def partition(self, groups: Iterable[Iterable[NodeId]]) -> None:
        """Cut the network into these groups."""
        self.network.partition(tuple(tuple(sorted(g)) for g in groups))

    # -- actions --------------------------------------------------------------------------------------------------------

    def actions(self) -> list[tuple[str, NodeId]]:
        """What can happen next without the environment: a delivery, a kernel or a disk operation, in a fixed order."""
        found: list[tuple[str, NodeId]] = []
        for node in sorted(self.members):
            if node in self.hung:
                continue
            if self.members[node].asked is not None and node not in self.stuck:
                found.append(("kernel", node))
            if self.members[node].writing is not None:
                found.append(("disk", node))
            if self.network.pending(node):
                found.append(("deliver", node))
        return found

    def act(self, action: tuple[str, NodeId]) -> None:
        """Let one of `actions` happen."""
        what, node = action
        if what == "kernel":
            self.run_kernel(node)
        elif what == "disk":
            self.run_disk(node)
        else:
            self.deliver(node)

    def deliver(self, node: NodeId) -> None:
        """Deliver the next event of the engine to a member."""
        match self.network.deliver(node):
            case Joined(me, incarnation):
                self.tell(node, ev.EngineJoined(me, incarnation))
            case NewView(view):
                self.members[node].brought = self.members[node].state.may_hold
                self.tell(node, ev.ViewInstalled(view))
                self._enter_view(node)
            case Delivered(sender, payload):
                view_id, message = self.unpack(payload)
                self.tell(node, ev.MessageDelivered(sender, view_id, message))
            case Lost(reason):
                self.tell(node, ev.EngineLost(reason))

    def run_kernel(self, node: NodeId) -> None:
        """The kernel does what it was last asked, and confirms."""
        member = self.members[node]
        asked = member.asked
        assert asked is not None
        member.asked = None
        wanted = tuple(sorted(v.key for v in asked.vips))
        refused = tuple((k, "refused") for k in wanted if k in member.refusing)
        member.kernel = tuple(k for k in wanted if k not in member.refusing)
        self._forget_resolved()
        self.tell(node, ev.KernelConfirmed(asked.serial, member.kernel, refused))

    def run_disk(self, node: NodeId) -> None:
        """The disk has what it was last asked to keep, and says so."""
        member = self.members[node]
        assert member.writing is not None
        self.disks[node], member.writing = member.writing, None
        self.tell(node, ev.Remembered(self.disks[node]))

    def _forget_resolved(self) -> None:
        self.inherited = frozenset(
            (ip, a, b) for ip, a, b in self.inherited if self._may_have(a, ip) and self._may_have(b, ip)
        )

    def hang(self, node: NodeId) -> None:
        """A daemon stands still: nothing is delivered to it, its clock does nothing."""
        self.hung |= {node}
        self.hung_since[node] = self.now_ms

    def wake(self, node: NodeId) -> None:
        """It goes on, and looks at its clock before anything that waits in its queue."""
        self.hung -= {node}
        gap_ms = self.now_ms - self.hung_since.pop(node)
        if gap_ms > (self.settings[node].lease_ms or self.settings[node].evict_after_ms):
            self.tell(node, ev.Paused(gap_ms))
        self.tick(node)

    def tick(self, node: NodeId) -> None:
        """A member looks at the clock."""
        self.tell(node, ev.TimePassed())

    def set_ineligible(self, node: NodeId, reasons: Iterable[tuple[VipKey, NotEligible]]) -> None:
        """A host's links or addresses changed."""
        self.tell(node, ev.EligibilityChanged(tuple(sorted(reasons, key=lambda kv: kv[0]))))

    def set_health(self, node: NodeId, failing: Iterable[tuple[VipKey, NotEligible]], chosen: Iterable[VipKey]) -> None:
        """A host's health checks changed."""
        self.tell(node, ev.HealthChanged(tuple(sorted(failing, key=lambda kv: kv[0])), tuple(sorted(chosen))))

    def tell(self, node: NodeId, event: ev.Event) -> None:
        """Run one step of a member's core and carry out its effects, the kernel's excepted."""
        member = self.members[node]
        member.state, effects = self.step(member.state, event)
        for effect in effects:
            match effect:
                case do.Multicast(view, message):
                    if self.beats or not isinstance(message, Beat):
                        self.network.multicast(node, self.pack((view, message)))
                case do.RenewLease():
                    settings = self.settings[node]
                    member.open_until_ms = self.now_ms + settings.lease_ms - settings.beat_age_max_ms
                case do.ShutFence():
                    member.open_until_ms = 0
                case do.HoldExactly():
                    member.asked = effect
                    self.say(f"{self.name(node)} wants {' '.join(v.name for v in effect.vips) or 'nothing'}")
                case do.Hand(until_ms):
                    kept = tuple(v for v in member.state.wanted if v.key in member.kernel)
                    self.handed[node] = (kept, until_ms)
                    self.network.kill(node)
                    self._remove(node)
                    self.say(f"{self.name(node)} is replaced")
                    return
                case do.Remember(electorates):
                    member.writing = electorates
                case do.KeepOrders(orders):
                    self.orders[node] = orders
                case do.Announce(vips):
                    self.say(f"{self.name(node)} announces {' '.join(v.name for v in vips)}")
                case do.ShowWitness(key, by, result):
                    self.say(f"{self.name(node)} shows {key.split('#')[0]} {result.value} by {self.name(by)}")
                case do.LeaveGroup(come_back, reason):
                    self.network.leave(node)
                    self.say(f"{self.name(node)} leaves: {reason}")
                    if come_back:
                        self.network.power_on(node)
                    else:
                        member.gone = True
                case do.Record(what, fields, vip, _):
                    if what in ("conflict", "failed", "evict", "diverged", "settled"):
                        about = f" {vip.split('#')[0]}" if vip else ""
                        told = " ".join(f"{k}={v}" for k, v in fields if k not in ("view", "id", "mine", "theirs"))
                        self.say(f"{self.name(node)} {what}{about} {told}")

    def step(self, state: State, event: ev.Event) -> tuple[State, tuple[do.Effect, ...]]:
        """One step of a core; a search remembers those that it has taken."""
        return step(state, event, self.now_ms)

    def pack(self, payload: Payload) -> Hashable:
        """What the network carries for a message."""
        return payload

    def unpack(self, packed: Hashable) -> Payload:
        """The message that the network carried."""
        assert isinstance(packed, tuple)
        return packed

    def run(self, limit: int = 10_000) -> None:
        """Let everything happen that can, in the fixed order, until nothing is left."""
        for _ in range(limit):
            actions = self.actions()
            if not actions:
                return
            self.act(actions[0])
        raise AssertionError(f"no rest after {limit} actions; {self.replay_hint()}")

    def pass_time(self, ms: int) -> None:
        """Let time go by: every member's deadlines fire when they are due, everything is delivered in between."""
        end = self.now_ms + ms
        self.run()
        while True:
            due = [
                (d, n)
                for n, m in sorted(self.members.items())
                if n not in self.hung and (d := next_deadline_ms(m.state)) is not None
            ]
            at, node = min(due, default=(end + 1, NodeId(0)))
            if at > end:
                break
            self.now_ms = max(self.now_ms, at)
            self.tick(node)
            self.run()
        self.now_ms = end

    # -- looking ----------------------------------------------------------------------------------------------------------

    def name(self, node: NodeId) -> str:
        """The node's name."""
        return self.settings[node].node

    def say(self, line: str) -> None:
        """Write a line of the story, if anybody reads it."""
        if self.log is not None:
            self.log.append(line)

    def replay_hint(self) -> str:
        """Where everybody stands, for a failing assertion."""
        return "; ".join(
            f"{self.name(n)}: {m.state.phase.name} view {m.state.view.id if m.state.view else '-'} has {m.kernel}"
            for n, m in sorted(self.members.items())
        )

    def ips_of(self, node: NodeId) -> dict[str, Vip]:
        """The addresses that a host's kernel has."""
        found: dict[str, Vip] = {}
        for key in self.members[node].kernel:
            vip = self.vip(key)
            for address in vip.addresses:
                found[address.ip] = vip
        return found

    def serves(self, node: NodeId) -> dict[str, Vip]:
        """The addresses that a host answers for on the wire: its kernel has them, and its fence is open. Where beats are
        left out nothing renews, and whether it is open is left out as well."""
        if self.beats and node not in self.unfenced and self.now_ms >= self.members[node].open_until_ms:
            return {}
        return self.ips_of(node)

    def vip(self, key: VipKey) -> Vip:
        """The definition behind a key."""
        if key not in self.definitions:
            self.definitions.update({v.key: v for s in self.settings.values() for v in s.vips})
        return self.definitions[key]

    def _may_have(self, node: NodeId, ip: str) -> bool:
        member = self.members[node]
        return any(a.ip == ip for k in member.state.may_hold for a in self.vip(k).addresses)

    def _enter_view(self, node: NodeId) -> None:
        """Remember which doubles came along into a view: what both had when they entered it. Any other is a violation."""
        mine = self.members[node]
        if mine.state.view is None:
            return  # it gave up at once, and left
        kept = {x for x in self.inherited if node not in x[1:]}
        ours = {a.ip for k in mine.brought for a in self.vip(k).addresses}
        for other, member in self.members.items():
            if other == node or member.state.view is None or member.state.view.id != mine.state.view.id:
                continue
            for ip in ours & {a.ip for k in member.brought for a in self.vip(k).addresses}:
                kept.add((ip, min(node, other), max(node, other)))
        self.inherited = frozenset(kept)

    def with_settings(self, node: NodeId, /, **changes: object) -> None:
        """Change a node's settings before it is started."""
        self.settings = {**self.settings, node: replace(self.settings[node], **changes)}  # type: ignore[arg-type]

    def settled(self) -> bool:
        """Nothing is under way and everybody has a table."""
        return not self.actions() and all(m.state.phase is Phase.SETTLED for m in self.members.values() if not m.gone)

    def states(self) -> dict[NodeId, State]:
        """Every running member's state."""
        return {n: m.state for n, m in self.members.items() if not m.gone}
