"""A cluster under virtual time: cores on a modelled engine, kernel and fence, with the faults of a plan.

What is modelled, and how it differs from `World`, where the caller picks every step:

* **Hosts outlive their daemons.** The kernel's addresses stay when a daemon is killed: behind a fence that is shut at
  that moment (`nftables`), or served until the guard removes them (`lifetime`, `off`).
* **The lease.** RenewLease opens the fence for the kernel's part of what the member announces; a daemon, an engine or a
  host that stands still serves until that is over. A frozen host serves nothing, and goes on where it was when it wakes.
* **Rings.** A cut, a death or a pause of a host stalls the ring: nothing is delivered in any order until the engine has
  noticed, up to one and a half detection times later. What was said meanwhile comes in the next view, or is lost.
* **Time.** Every host's clock has its own offset and drift; deliveries, timers and kernel operations take time, and a
  kernel does first the removals, then the additions, then answers.
* **The event log.** Daemons tell each other what they recorded, in notes; a host that crashed may have lost its file.

The laws are checked after every event: `no_address_is_served_twice` says when two hosts may serve one address. When
the plan's faults are over everything is repaired, and what should be so within two minutes of virtual time is awaited.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import combinations
from typing import cast

from ..config import FENCE_SLACK_MS, LIFETIME_LATE_MS, parse, settings_for
from ..core import effects as do
from ..core import events as ev
from ..core.agreed import agreement, digest_of, facts_of
from ..core.balancing import balance
from ..core.invariants import every_address_is_held_once
from ..core.machine import next_deadline_ms, step
from ..core.messages import Drain, Ordered, Unstick
from ..core.model import NodeId, NotEligible, Phase, Report, Row, Settings, ViewId, Vip, VipKey
from ..core.standing import Kind, Order, Register, ended, join
from ..core.state import State, initial
from ..core.voice import gone
from ..engine.contract import DISPATCH_BUDGET, Delivered, Joined, Lost, NewView
from ..engine.memory import Network
from ..eventlog import RECENT_MAX, EventLog
from ..shell.telling import Telling
from .plan import Fault, Plan
from .world import Payload

DRIFT_PPM_MAX = 4000
"""The clocks of two hosts differ by less than the hundredth that the core allows for."""
KERNEL_LATE_MS = 10
"""A kernel's timer fires up to a tick late."""
GUARD_MS_MAX = 200
"""A guard removes a dead daemon's addresses within this (measured: 3 to 35 ms; the core counts on 500)."""
REPAIR_MS_MAX = 120_000
"""How long the cluster may take to be right again, on top of what its members wait for by their own rules."""
EVICTIONS_MS = 300_000
REJOIN_MS_MIN, REJOIN_MS_MAX = 1000, 60_000
STORY_LINES = 60

Pair = tuple[NodeId, NodeId]


NOTED = frozenset({"acquired", "released", "conflict", "evict", "failed", "lapsed", "suspect", "leaving"})
"""Of these the event log is told, by whoever records it: more than in a real one, where some are said by one member alone."""


class Violation(AssertionError):
    """A law was broken."""


class Engine(Enum):
    """How a host's group engine is."""

    ALIVE = "alive"
    STALLED = "stalled"
    LOST = "lost"


@dataclass(slots=True, eq=False)
class Daemon:
    """One run of the daemon."""

    state: State
    telling: Telling
    joined_ms: int
    connected: bool = False
    leaving: bool = False
    hung_ms: int | None = None
    asked: do.HoldExactly | None = None
    working: do.HoldExactly | None = None
    delivering: bool = False
    timer: int | None = None
    rejoins: list[int] = field(default_factory=list)
    waiting: list[Callable[[], object]] = field(default_factory=list)
    """What would have happened while it, or its host, stood still."""


@dataclass(slots=True, eq=False)
class Host:
    """A machine: its clock, its engine, its kernel, and perhaps a daemon."""

    node: NodeId
    name: str
    offset_ms: int
    drift_ppm: int
    up: bool = False
    frozen_ms: int | None = None
    engine: Engine = Engine.ALIVE
    daemon: Daemon | None = None
    kernel: frozenset[VipKey] = frozenset()
    open_until_ms: int = 0
    refusing: frozenset[VipKey] = frozenset()
    down: tuple[str, ...] = ()
    sick: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What its health checks say, and of which VIPs: as in a plan."""
    unfenced: bool = False
    slow_ms: int = 0
    orders: Register = ()
    """On its disk."""
    changes: dict[str, str] = field(default_factory=dict)
    log: EventLog = field(default_factory=EventLog)

    def clock_ms(self, now_ms: int) -> int:
        """What its clock shows."""
        return self.offset_ms + now_ms + now_ms * self.drift_ppm // 1_000_000

    def when_ms(self, clock_ms: int) -> int:
        """When its clock will show this."""
        at = (clock_ms - self.offset_ms) * 1_000_000 // (1_000_000 + self.drift_ppm)
        while self.clock_ms(at) < clock_ms:
            at += 1
        return at


def _may_note(state: State) -> bool:
    """As shell/events.py: while nothing of importance goes on, by who has met the others."""
    return state.phase is Phase.SETTLED and any(r.node == state.me and r.mature for r in state.table.reports)


def _health(host: Host, vips: Iterable[Vip]) -> ev.HealthChanged:
    how = {"keep": NotEligible.CHECK_FAILING, "withdraw": NotEligible.CHECK_FORBIDS}
    failing = {v.key: why for word, why in how.items() for v in vips if v.name in host.sick.get(word, ())}
    chosen = sorted(v.key for v in vips if v.name in host.sick.get("chosen", ()))
    return ev.HealthChanged(tuple(sorted(failing.items(), key=lambda kv: kv[0])), tuple(chosen))


class Simulation:
    """One plan's run. `run` raises Violation."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dice = random.Random(f"run {plan.seed}")  # noqa: S311 - not for secrets
        self.now_ms = 0
        self.network = Network()
        self.counts: Counter[str] = Counter()
        self.story: deque[str] = deque(maxlen=STORY_LINES)
        self.definitions: dict[VipKey, Vip] = {}
        self.hosts: dict[NodeId, Host] = {
            NodeId(i + 1): Host(
                NodeId(i + 1), name, self.dice.randrange(10**9), self.dice.randint(-DRIFT_PPM_MAX, DRIFT_PPM_MAX)
            )
            for i, name in enumerate(plan.names())
        }
        self._by_name = {h.name: h for h in self.hosts.values()}
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._order = 0
        # the engines' network
        self._cuts: tuple[frozenset[NodeId], ...] = (frozenset(self.hosts),)
        self._ring: dict[NodeId, tuple[frozenset[NodeId], int]] = {}
        self._stalled: set[NodeId] = set()
        self._held: list[tuple[NodeId, bool, Callable[[], object]]] = []
        self._reform = 0
        self._lose = False
        self._divided: dict[ViewId, dict[NodeId, int]] = {}
        self._dividing = False
        # for the laws
        self._looked = True
        self._apart: dict[Pair, tuple[int, int]] = {}
        self._cut_apart: set[Pair] = set()
        self._brought: set[tuple[str, NodeId, NodeId]] = set()
        self._places: dict[tuple[object, ...], tuple[str, str]] = {}
        self._given: set[Order] = set()
        self._known: Register = ()
        self._nodes = sorted(self.hosts)
        self._runs = 0

    # -- time -----------------------------------------------------------------------------------------------------------

    def after(self, ms: int, what: Callable[[], object]) -> None:
        """Let something happen later."""
        self._order += 1
        heapq.heappush(self._heap, (self.now_ms + ms, self._order, what))

    def after_for(self, host: Host, daemon: Daemon, ms: int, what: Callable[[], object]) -> None:
        """Let a daemon do something later: not at all if it is dead then, and when it wakes if it stands still."""

        def due() -> None:
            if host.daemon is not daemon:
                return
            if daemon.hung_ms is not None or host.frozen_ms is not None:
                daemon.waiting.append(what)
            else:
                what()

        self.after(ms, due)

    def run_until(self, end_ms: int) -> None:
        """Let everything happen that is due until then; the laws are checked after each event."""
        while self._heap and self._heap[0][0] <= end_ms:
            self.now_ms, _, what = heapq.heappop(self._heap)
            what()
            self.counts["events"] += 1
            if not self._looked:
                self._looked = True
                self.no_address_is_served_twice()
        self.now_ms = end_ms

    def run(self) -> Counter[str]:
        """The whole plan: faults, repair, and what must be so in the end. Returns what happened, counted."""
        try:
            for host in self.hosts.values():
                self.after(self.dice.randrange(1000), partial(self.do_start, host.name))
            for fault in self.plan.faults:
                self.after(fault.at_ms, partial(self.happen, fault))
            self.run_until(self.plan.until)
            self.repair()
            self.be_right_in_the_end()
        except Violation:
            raise
        except Exception as wrong:
            raise Violation(f"at {self.now_ms} ms: {type(wrong).__name__}: {wrong}; {self.replay_hint()}") from wrong
        return self.counts

    def happen(self, fault: Fault) -> None:
        """One line of the plan."""
        self.say(f"-- {fault}")
        if getattr(self, f"do_{fault.verb.replace('-', '_')}")(*fault.words) is not False:
            self.counts[f"fault {fault.verb}"] += 1

    def say(self, line: str) -> None:
        """A line of the story, for whoever reads a failure."""
        self.story.append(f"{self.now_ms:>6} {line}")

    # -- the verbs: False if it could not happen -----------------------------------------------------------------------------

    def do_start(self, name: str) -> bool:
        """Switch the host on, if it is off, and start a daemon, if none runs."""
        host = self._by_name[name]
        buried = host.node not in self.network.nodes() or host.up
        if not buried or host.frozen_ms is not None or (host.daemon is not None and host.daemon.leaving):
            self.after(100, partial(self.do_start, name))
            return False
        if host.daemon is not None:
            return False
        if not host.up:
            host.up, host.engine = True, Engine.ALIVE
            self._topology()
        settings = self.settings(host)
        host.kernel = frozenset()
        self._runs += 1
        telling = Telling(name, f"{self._runs:016x}", host.log)
        host.daemon = daemon = Daemon(initial(settings, orders=host.orders), telling, self.now_ms)
        if self.plan.fence == "nftables":
            host.open_until_ms = 0
        self._tell_eligibility(host)
        self.after_for(host, daemon, self.dice.randint(5, 150), lambda: self._join(host, daemon))
        return True

    def do_kill(self, name: str) -> bool:
        """SIGKILL."""
        host = self._by_name[name]
        if host.daemon is None or host.frozen_ms is not None:
            return False
        connected = host.daemon.connected
        host.daemon = None
        if self.plan.fence == "nftables":
            host.open_until_ms = 0
        self.after(self.dice.randint(2, GUARD_MS_MAX), lambda: self._guard(host))
        if connected:
            self._process(host, lambda: self.network.kill(host.node))
        return True

    def _guard(self, host: Host) -> None:
        if host.daemon is None and host.up:
            host.kernel = frozenset()
            self._changed()

    def do_crash(self, name: str) -> bool:
        """The power fails."""
        host = self._by_name[name]
        if not host.up:
            return False
        host.up, host.daemon, host.frozen_ms, host.engine = False, None, None, Engine.LOST
        host.kernel, host.open_until_ms = frozenset(), 0
        if self._runs % 2:
            host.log = EventLog()  # it will be installed anew
        self._held = [x for x in self._held if x[0] != host.node]
        self._apart = {p: n for p, n in self._apart.items() if host.node not in p}
        self._cut_apart &= set(self._apart)
        self._changed()
        self._topology()
        return True

    def do_hang(self, name: str) -> bool:
        """SIGSTOP."""
        host = self._by_name[name]
        if host.daemon is None or host.daemon.hung_ms is not None or host.frozen_ms is not None:
            return False
        host.daemon.hung_ms = self.now_ms
        return True

    def do_wake(self, name: str) -> bool:
        """SIGCONT: the daemon's clock speaks first."""
        host = self._by_name[name]
        daemon = host.daemon
        if daemon is None or daemon.hung_ms is None or host.frozen_ms is not None:
            return False
        since_ms, daemon.hung_ms = daemon.hung_ms, None
        self._go_on(host, daemon, since_ms)
        return True

    def do_freeze(self, name: str) -> bool:
        """The whole host stands still; its clock goes on."""
        host = self._by_name[name]
        if not host.up or host.frozen_ms is not None:
            return False
        host.frozen_ms = self.now_ms
        self._topology()
        return True

    def do_thaw(self, name: str) -> bool:
        """It goes on."""
        host = self._by_name[name]
        if host.frozen_ms is None:
            return False
        since_ms, host.frozen_ms = host.frozen_ms, None
        self._changed()
        daemon = host.daemon
        if daemon is not None and daemon.hung_ms is None:
            self._go_on(host, daemon, since_ms)
        self._topology()
        return True

    def _go_on(self, host: Host, daemon: Daemon, since_ms: int) -> None:
        self._changed()
        gap_ms = host.clock_ms(self.now_ms) - host.clock_ms(since_ms)
        if gap_ms > self._pause_ms(daemon):
            self.counts["pauses told"] += 1
            self.tell(host, ev.Paused(gap_ms))
        waiting, daemon.waiting = daemon.waiting, []
        for what in waiting:
            self.after_for(host, daemon, self.dice.randint(0, 3), what)

    def _pause_ms(self, daemon: Daemon) -> int:
        settings = daemon.state.settings
        return settings.lease_ms or settings.evict_after_ms

    def do_stall_engine(self, name: str) -> bool:
        """The engine's process stands still."""
        host = self._by_name[name]
        if not host.up or host.engine is not Engine.ALIVE:
            return False
        host.engine = Engine.STALLED
        self._topology()
        return True

    def do_go_engine(self, name: str) -> bool:
        """It goes on."""
        host = self._by_name[name]
        if host.engine is not Engine.STALLED:
            return False
        host.engine = Engine.ALIVE
        self._topology()
        self._pump()
        return True

    def do_lose_engine(self, name: str) -> bool:
        """The engine's process dies."""
        host = self._by_name[name]
        if not host.up or host.engine is Engine.LOST:
            return False
        host.engine = Engine.LOST
        self._held = [x for x in self._held if x[0] != host.node]
        if host.daemon is not None:
            daemon = host.daemon
            daemon.connected = False
            self.after_for(host, daemon, self.dice.randint(0, 3), lambda: self.tell(host, ev.EngineLost("it died")))
        self._topology()
        return True

    def do_find_engine(self, name: str) -> bool:
        """The engine runs again."""
        host = self._by_name[name]
        if host.engine is not Engine.LOST or not host.up:
            return False
        if host.node in self.network.nodes():
            self.after(50, partial(self.do_find_engine, name))
            return False
        host.engine = Engine.ALIVE
        self._topology()
        if host.daemon is not None:
            daemon = host.daemon
            self.after_for(host, daemon, self.dice.randint(5, 100), lambda: self._join(host, daemon))
        return True

    def do_split(self, *words: str) -> bool:
        """Cut the network into groups; `lose`: and what is under way may be lost."""
        groups = [frozenset(self._by_name[n].node for n in w.split(",") if n) for w in words if w != "lose"]
        self._lose |= "lose" in words
        self._cuts = tuple(groups)
        self._topology()
        return len(groups) > 1

    def do_heal(self, *words: str) -> bool:
        """Join everything."""
        was = self._cuts
        self._lose |= "lose" in words
        self._cuts = (frozenset(self.hosts),)
        self._topology()
        return was != self._cuts

    def do_divide(self, ms: str, *words: str) -> bool:
        """For a while messages reach only a part of the ring, and no view will tell (hazard 2)."""
        if self._dividing or self._forming() or len(words) < 2:
            return False
        groups = [frozenset(self._by_name[n].node for n in w.split(",")) for w in words]
        self.network.divide(groups)
        self._dividing = True
        for number, group in enumerate(groups, 1):
            for node in group:
                tip = self.network.tip(node)
                if tip is not None:
                    self._divided.setdefault(tip.id, {})[node] = number
        self.after(int(ms), self._divide_ends)
        return True

    def _divide_ends(self) -> None:
        if self._dividing and self._forming():
            self.after(20, self._divide_ends)
        elif self._dividing:
            self._form_rings()

    def do_slow(self, name: str, ms: str) -> bool:
        """A daemon whose queue is served late."""
        host = self._by_name[name]
        host.slow_ms = int(ms)
        return host.up and host.slow_ms > 0

    def do_refuse(self, name: str, *vips: str) -> bool:
        """The host's kernel refuses these."""
        host = self._by_name[name]
        host.refusing = frozenset(k for k in self.definitions if k.split("#")[0] in vips)
        return host.up and bool(vips)

    def do_down(self, name: str, *vips: str) -> bool:
        """The interfaces of these have no carrier."""
        host = self._by_name[name]
        host.down = vips
        self._tell_eligibility(host)
        return host.up and bool(vips)

    def do_sick(self, name: str, how: str, *vips: str) -> bool:
        """Its health checks have something against these; or choose it for them, as they may only one."""
        host = self._by_name[name]
        host.sick[how] = vips
        self._tell_eligibility(host)
        return host.up and bool(vips)

    def do_unfence(self, name: str) -> bool:
        """The fence is not proven for a while."""
        return self._fence(self._by_name[name], unfenced=True)

    def do_fence(self, name: str) -> bool:
        """It is again."""
        return self._fence(self._by_name[name], unfenced=False)

    def _fence(self, host: Host, *, unfenced: bool) -> bool:
        if self.plan.fence != "nftables":
            return False
        host.unfenced = unfenced
        self._tell_eligibility(host)
        return host.up

    def _tell_eligibility(self, host: Host) -> None:
        daemon = host.daemon
        if daemon is None:
            return

        def now() -> None:
            vips = daemon.state.settings.vips
            reasons = {v.key: NotEligible.LINK_DOWN for v in vips if v.name in host.down}
            if host.unfenced:
                reasons = {v.key: NotEligible.NO_FENCE for v in vips}
            self.tell(host, ev.FenceChanged(self.plan.fence == "nftables" and not host.unfenced))
            if host.daemon is daemon:  # a fence that is proven may have let it leave
                self.tell(host, ev.EligibilityChanged(tuple(sorted(reasons.items(), key=lambda kv: kv[0]))))
            if host.daemon is daemon:
                self.tell(host, _health(host, vips))

        self.after_for(host, daemon, 0, now)

    def do_config(self, name: str, change: str) -> bool:
        """The next daemon of this host reads another config."""
        key, _, value = change.partition("=")
        host = self._by_name[name]
        whose = name if key in ("weight", "capacity") else "" if key == "only" else value
        host.changes = {**host.changes, f"{key}.{whose}": value}
        return True

    def do_move(self, asked: str, to: str, *vips: str) -> bool:
        """An operator asks at one node for VIPs to go to another."""
        host = self._by_name[asked]
        keys = tuple(
            r.key
            for r in (host.daemon.state.table.rows if host.daemon is not None else ())
            if r.vip.name in vips and r.holder is not None
        )
        return (
            bool(keys)
            and self._wish(asked, *(Order(Kind.PIN, vip, in_force=True, node=to) for vip in vips))
            and self._command(host, ev.MoveRequested(keys, self._by_name[to].node))
        )

    def do_drain(self, asked: str, node: str) -> bool:
        """An operator drains a node."""
        return self._wish(asked, Order(Kind.DRAIN, node, in_force=True))

    def do_resume(self, asked: str, node: str) -> bool:
        """An operator takes a node back."""
        return self._wish(asked, Order(Kind.DRAIN, node, in_force=False))

    def do_balance(self, name: str, how: str = "") -> bool:
        """An operator asks for balance."""
        return self._command(self._by_name[name], ev.BalanceRequested(at_once=how == "now"))

    def do_hold(self, asked: str, *vips: str) -> bool:
        """An operator has balance leave VIPs alone."""
        return self._wish(asked, *(Order(Kind.HOLD, vip, in_force=True, reason=asked) for vip in vips))

    def do_unhold(self, asked: str, *vips: str) -> bool:
        """An operator no longer wants that, nor a pin."""
        wishes = [Order(kind, vip, in_force=False) for kind in (Kind.HOLD, Kind.PIN) for vip in vips]
        return self._wish(asked, *wishes)

    def _wish(self, asked: str, *wishes: Order) -> bool:
        return self._command(self._by_name[asked], ev.OrderRequested(wishes))

    def do_leave(self, name: str) -> bool:
        """SIGTERM."""
        host = self._by_name[name]
        if host.daemon is None or host.daemon.leaving:
            return False
        host.daemon.leaving = True
        return self._command(host, ev.LeaveRequested())

    def _command(self, host: Host, event: ev.Event) -> bool:
        if host.daemon is None:
            return False
        self.after_for(host, host.daemon, 0, lambda: self.tell(host, event))
        return True

    def do_jump(self, name: str, ms: str) -> bool:
        """The host's clock is far ahead all of a sudden, as after a sleep."""
        host = self._by_name[name]
        daemon = host.daemon
        if daemon is None or daemon.hung_ms is not None or host.frozen_ms is not None:
            return False
        host.offset_ms += int(ms)
        if int(ms) > self._pause_ms(daemon):
            self.tell(host, ev.Paused(int(ms)))
        self._arm(host, daemon)
        return True

    # -- the engines' network -------------------------------------------------------------------------------------------

    def _alive(self, node: NodeId) -> bool:
        host = self.hosts[node]
        return host.up and host.frozen_ms is None and host.engine is Engine.ALIVE

    def _reach(self, node: NodeId) -> frozenset[NodeId]:
        """The engines that this one can make a ring with."""
        group = next((g for g in self._cuts if node in g), frozenset({node}))
        return frozenset(n for n in group if self._alive(n))

    def _topology(self) -> None:
        """Something changed: rings that are not as they could be stall, and new ones form after a while."""
        self._note_apart()
        alive = [n for n in self._nodes if self._alive(n)]
        self._stalled = {n for n in self._nodes if n not in alive}
        wrong = [n for n in alive if not self._ring_is_whole(n)]
        self._stalled |= set(wrong)
        for node in self.network.nodes():
            lost = not self.hosts[node].up or self.hosts[node].engine is Engine.LOST
            if lost and not any(node in self._ring[n][0] for n in alive if n in self._ring):
                self._bury(node)
        self._reform += 1
        if wrong:
            shrinks = any(n in self._ring and self._ring[n][0] - self._reach(n) for n in wrong)
            wait_ms = self.plan.detection * self.dice.randint(50, 150) // 100 if shrinks else self.dice.randint(10, 100)
            number = self._reform
            self.after(wait_ms, lambda: self._form_rings() if number == self._reform else None)
        self._flush()

    def _ring_is_whole(self, node: NodeId) -> bool:
        """Whether this engine is in one ring with exactly those that it could be in a ring with."""
        reach = self._reach(node)
        ring = self._ring.get(node)
        return ring is not None and ring[0] == reach and all(self._ring.get(n) == ring for n in reach)

    def _forming(self) -> bool:
        """Whether the engines are about to change a ring."""
        return any(self._alive(n) for n in self._stalled)

    def _form_rings(self) -> None:
        """The engines have noticed: new rings, new views."""
        lose, hidden = self._lose and self.dice.random() < 0.7, self._dividing
        self._lose = self._dividing = False
        deaf = [n for n in self._nodes if not self._alive(n)]
        groups = sorted({tuple(sorted(self._reach(n))) for n in self._nodes if self._alive(n)})
        self.network.partition([*groups, *((n,) for n in deaf)], lose=lose, hidden=hidden, deaf=deaf)
        self.counts["ring changes"] += 1
        self.counts["hidden ring changes"] += hidden
        self.counts["ring changes with losses"] += lose
        for group in groups:
            ring = frozenset(group)
            for node in group:
                if not self._ring_is_whole(node):
                    self._ring[node] = (ring, self.counts["ring changes"])
        for node in self._nodes:
            if not self.hosts[node].up or self.hosts[node].engine is Engine.LOST:
                self._bury(node)
        for node in deaf:  # it is in no ring any more, also when all are deaf and none forms without it
            self._ring.pop(node, None)
        self._stalled = set(deaf)
        self._flush()
        self._pump()

    def _bury(self, node: NodeId) -> None:
        self._ring.pop(node, None)
        if node in self.network.nodes():
            self.network.crash(node)

    def _hold(self, host: Host, what: Callable[[], object], *, process: bool) -> None:
        """Now, or when the ring works again; what concerns processes also waits for the end of an unseen ring."""
        if host.node in self._stalled or (process and self._dividing) or any(n == host.node for n, _, _ in self._held):
            self._held.append((host.node, process, what))
        else:
            what()
            self._pump()

    def _process(self, host: Host, what: Callable[[], object]) -> None:
        def now() -> None:
            if host.node in self.network.nodes():
                what()

        self._hold(host, now, process=True)

    def _flush(self) -> None:
        held, self._held = self._held, []
        blocked: set[NodeId] = set()
        for node, process, what in held:
            if node in self._stalled or node in blocked or (process and self._dividing):
                blocked.add(node)
                self._held.append((node, process, what))
            else:
                what()
        self._pump()

    def _join(self, host: Host, daemon: Daemon) -> None:
        def now() -> None:
            if host.daemon is daemon and not daemon.connected and host.engine is Engine.ALIVE:
                self.network.power_on(host.node, self.dice.getrandbits(64))
                daemon.connected = True

        if not daemon.connected and host.engine is not Engine.LOST:
            self._hold(host, now, process=True)

    def _send(self, host: Host, payload: Payload) -> None:
        daemon = host.daemon
        assert daemon is not None
        if not daemon.connected:
            return
        stalled = host.node in self._stalled

        def now() -> None:
            if host.node not in self.network.nodes() or (stalled and self.dice.random() < 0.3):
                return
            self.network.multicast(host.node, payload)

        self._hold(host, now, process=False)

    def _pump(self) -> None:
        """Whoever has something in its queue will get it."""
        for node in self.network.nodes():
            host = self.hosts[node]
            daemon = host.daemon
            if daemon is None or daemon.delivering or not daemon.connected or not self.network.pending(node):
                continue
            daemon.delivering = True
            self.after_for(host, daemon, self._latency(host), partial(self._deliver, host, daemon))

    def _latency(self, host: Host) -> int:
        if host.slow_ms:
            return self.dice.randint(0, host.slow_ms)
        return self.dice.randint(5, 40) if self.dice.random() < 0.02 else self.dice.randint(0, 2)

    def _deliver(self, host: Host, daemon: Daemon) -> None:
        daemon.delivering = False
        for _ in range(self.dice.choice((1, 1, 2, DISPATCH_BUDGET))):
            if not (
                daemon.connected
                and host.daemon is daemon
                and host.engine is Engine.ALIVE
                and self.network.pending(host.node)
            ):
                return
            match self.network.deliver(host.node):
                case Joined(me, incarnation):
                    daemon.joined_ms = self.now_ms
                    self.tell(host, ev.EngineJoined(me, incarnation))
                case NewView(view):
                    self.counts["views"] += 1
                    self.tell(host, ev.ViewInstalled(view))
                    self._note_together(host)
                case Delivered(sender, payload):
                    said_in, message = cast(Payload, payload)
                    self.tell(host, ev.MessageDelivered(sender, said_in, message))
                case Lost(reason):
                    self.tell(host, ev.EngineLost(reason))
        self._pump()

    # -- the daemon -----------------------------------------------------------------------------------------------------

    def tell(self, host: Host, event: ev.Event) -> None:
        """One step of a core, and its effects."""
        daemon = host.daemon
        assert daemon is not None
        before = daemon.state
        clock_ms = host.clock_ms(self.now_ms)
        daemon.state, effects = step(before, event, clock_ms)
        self.counts["steps"] += 1
        if daemon.state.gone != gone(daemon.state):
            raise Violation(f"{host.name} keeps {daemon.state.gone}, not {gone(daemon.state)}; {self.replay_hint()}")
        if daemon.state.view is not before.view:
            daemon.telling.on_view(daemon.state.view, daemon.state.me, clock_ms)
        if daemon.state.table is not before.table:
            daemon.telling.disturbed(clock_ms)
        for effect in effects:
            self._perform(host, daemon, effect)
        if daemon.state.table.orders is not before.table.orders:
            self._orders_only_grow(host, before, daemon.state, event)
        if daemon.state.table is not before.table or daemon.state.applied != before.applied:
            self._settled_members_agree(host, daemon.state)
        if host.daemon is daemon:
            self._arm(host, daemon)

    def _perform(self, host: Host, daemon: Daemon, effect: do.Effect) -> None:
        match effect:
            case do.Multicast(view, message):
                self._send(host, (view, message))
            case do.RenewLease(sent_ms):
                self._renew(host, daemon, sent_ms)
            case do.ShutFence():
                if self.plan.fence == "nftables":
                    host.open_until_ms = 0
            case do.HoldExactly():
                daemon.asked = effect
                self.say(f"{host.name} wants {' '.join(v.name for v in effect.vips) or 'nothing'}")
                if daemon.working is None:
                    self._work(host, daemon)
            case do.KeepOrders(orders):
                self.after_for(host, daemon, self.dice.randint(0, 20), partial(self._keep, host, orders))
            case do.Announce():
                self.counts["announced again"] += 1
            case do.TakeNote(_, by, body):
                self.counts["events taken"] += len(daemon.telling.on_note(by, body))
            case do.LeaveGroup(come_back, reason):
                self.say(f"{host.name} leaves: {reason}")
                self._leave(host, daemon, come_back=come_back)
            case do.Record(what, fields, vip, _):
                self.counts[f"record {what}"] += 1
                if what in NOTED:
                    clock_ms = host.clock_ms(self.now_ms)
                    daemon.telling.happened(what, dict(fields), clock_ms, clock_ms)
                told = " ".join(f"{k}={v}" for k, v in fields)
                self.say(f"{host.name} {what} {vip.split('#')[0] if vip else ''} {told}")

    def _keep(self, host: Host, orders: Register) -> None:
        host.orders = join(host.orders, orders)

    def _leave(self, host: Host, daemon: Daemon, *, come_back: bool) -> None:
        if daemon.connected:
            self._process(host, lambda: self.network.leave(host.node))
        daemon.connected = False
        if not come_back:
            host.daemon = None
            self._changed()
            return
        self.counts["rejoins"] += 1
        daemon.rejoins = [at for at in daemon.rejoins if self.now_ms - at < EVICTIONS_MS]
        pause_ms = min(REJOIN_MS_MAX, REJOIN_MS_MIN * 2 ** (len(daemon.rejoins) - 1)) if daemon.rejoins else 0
        daemon.rejoins.append(self.now_ms)
        self.after_for(host, daemon, 0, lambda: self.tell(host, ev.EngineLost("left to come back")))
        self.after_for(host, daemon, pause_ms + self.dice.randint(1, 20), lambda: self._join(host, daemon))

    def _arm(self, host: Host, daemon: Daemon) -> None:
        note_ms = daemon.telling.due_ms() if _may_note(daemon.state) else None
        due_ms = min((ms for ms in (next_deadline_ms(daemon.state), note_ms) if ms is not None), default=None)
        at_ms = None if due_ms is None else max(self.now_ms, host.when_ms(due_ms))
        if at_ms == daemon.timer:
            return
        daemon.timer = at_ms
        if at_ms is None:
            return

        def fire() -> None:
            if daemon.timer == at_ms:
                daemon.timer = None
                body = daemon.telling.note(host.clock_ms(self.now_ms)) if _may_note(daemon.state) else None
                self.tell(host, ev.TimePassed() if body is None else ev.NoteRequested(body))

        late_ms = self.dice.randint(1, 30) if self.dice.random() < 0.05 else 0
        self.after_for(host, daemon, at_ms - self.now_ms + late_ms, fire)

    # -- the kernel -----------------------------------------------------------------------------------------------------

    def _renew(self, host: Host, daemon: Daemon, sent_ms: int) -> None:
        settings = daemon.state.settings
        age_ms = host.clock_ms(self.now_ms) - sent_ms
        assert 0 <= age_ms <= settings.beat_age_max_ms, f"{host.name} renews by a beat that is {age_ms} ms old"
        self.counts["renewals"] += 1
        if self.plan.fence == "off":
            return
        lease_ms = settings.lease_ms - settings.beat_age_max_ms - FENCE_SLACK_MS
        late_ms = KERNEL_LATE_MS
        if self.plan.fence == "lifetime":
            lease_ms, late_ms = lease_ms - LIFETIME_LATE_MS, LIFETIME_LATE_MS // 2
        if host.open_until_ms <= self.now_ms:
            self._changed()
        host.open_until_ms = self.now_ms + lease_ms + self.dice.randint(0, late_ms)

    def _work(self, host: Host, daemon: Daemon) -> None:
        """The kernel's worker does what was asked for last: removals, then additions, then it says what is there."""
        job = daemon.working = daemon.asked
        daemon.asked = None
        if job is None:
            return
        wanted = frozenset(v.key for v in job.vips)
        self.definitions.update({v.key: v for v in job.vips})
        taken = wanted - host.refusing

        def took_ms() -> int:
            return self.dice.randint(50, 400) if self.dice.random() < 0.02 else self.dice.randint(0, 5)

        def drop() -> None:
            host.kernel &= taken
            self._changed()
            self.after_for(host, daemon, took_ms(), add)

        def add() -> None:
            self.counts["VIPs acquired"] += len(taken - host.kernel)
            host.kernel = taken
            self._changed()
            self.after_for(host, daemon, took_ms(), confirm)

        def confirm() -> None:
            refused = tuple((k, "refused") for k in sorted(wanted - taken))
            self._work(host, daemon)
            self._changed()
            self.tell(host, ev.KernelConfirmed(job.serial, tuple(sorted(taken)), refused))

        self.after_for(host, daemon, took_ms(), drop)

    # -- configs ----------------------------------------------------------------------------------------------------------

    def settings(self, host: Host) -> Settings:
        """What the next daemon of a host reads in its config."""
        plan, changes = self.plan, host.changes
        weights = plan.weights.split(",") if plan.weights else ["1"] * plan.nodes
        renamed = {v for k, v in changes.items() if k.startswith("rename.")}
        added = max((int(v) for k, v in changes.items() if k.startswith("add.")), default=0)
        lines = [
            f'[cluster]\nname = "s"\npartition = "{plan.partition}"\nmature = "{plan.mature}ms"',
            f'[engine]\ndetection = "{plan.detection}ms"',
            f'[fence]\nmode = "{plan.fence}"\ntakeover = "{plan.takeover}"',
            f'[balance]\ninterval = "{plan.interval}ms"\nsettle = "{plan.settle}ms"\ncount = "{plan.count}"',
        ]
        for i, name in enumerate(plan.names()):
            weight = changes.get(f"weight.{name}", weights[i])
            lines.append(f'[[node]]\nname = "{name}"\nid = {i + 1}\naddress = "10.0.0.{i + 1}"\nweight = {weight}')
            capacity = changes.get(f"capacity.{name}", str(plan.capacity) if plan.capacity and i % 2 else None)
            lines += [f"capacity = {capacity}"] if capacity else []
        only = int(changes.get("only.", plan.only))
        for i in range(1, plan.vips + added + 1):
            name = f"w{i}" if f"v{i}" in renamed else f"v{i}"
            addresses = [f"192.0.{2 + j}.{i}/32" for j in range(1 + (i - 1) % plan.addresses)]
            lines.append(f'[[vip]]\nname = "{name}"\naddresses = {json.dumps(addresses)}')
            lines += self._wishes(i, only)
        config = parse("\n".join(lines))
        found = settings_for(config, config.nodes[host.node - 1])
        self.definitions.update({v.key: v for v in found.vips})
        return found

    def _wishes(self, number: int, only: int) -> list[str]:
        """What the config says of one VIP."""
        plan, names = self.plan, self.plan.names()

        def some(which: int, count: int) -> str:
            return json.dumps([names[(which + i) % len(names)] for i in range(min(count, len(names)))])

        if only and number % only == 0:
            return [f"{'pin' if number % 2 else 'nodes'} = {some(number // only, 1 + number % 3 % 2)}"]
        found = [f"prefer = {some(number // plan.prefer, 2)}"] if plan.prefer and number % plan.prefer == 0 else []
        if plan.avoid and number % plan.avoid == 1 % plan.avoid and not found:
            found.append(f"avoid = {some(number // plan.avoid, 1)}")
        return [*found, f'apart = "g{number // plan.apart}"'] if plan.apart else found

    # -- the laws ---------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """What hosts answer for may have changed: look before anything else happens."""
        self._looked = False

    def _open(self, host: Host) -> bool:
        return host.up and host.frozen_ms is None and (self.plan.fence == "off" or self.now_ms < host.open_until_ms)

    def serves(self, node: NodeId) -> dict[str, Vip]:
        """What a host answers for on the wire."""
        host = self.hosts[node]
        if not self._open(host):
            return {}
        return {a.ip: self.definitions[k] for k in host.kernel for a in self.definitions[k].addresses}

    def _may_serve(self, host: Host) -> frozenset[str]:
        """What a host's kernel has, or will have by what it was asked already."""
        keys = set(host.kernel)
        if host.daemon is not None:
            for job in (host.daemon.working, host.daemon.asked):
                keys |= {v.key for v in job.vips} if job is not None else set()
        return frozenset(a.ip for k in keys for a in self.definitions[k].addresses)

    def _note_apart(self) -> None:
        """Two hosts whose engines cannot talk are apart, from now on until both are told of a common view that is newer.
        Kept: the number of the newest view when they were cut first, and last."""
        for one, other in combinations(self._nodes, 2):
            if not (self.hosts[one].up and self.hosts[other].up):
                continue
            number, pair = self.network.last_number(), (one, other)
            if not (self._alive(one) and self._alive(other) and other in self._reach(one)):
                self._apart[pair] = (self._apart.get(pair, (number, number))[0], number)
                if not any(one in group and other in group for group in self._cuts):
                    self._cut_apart.add(pair)
            elif self._apart.get(pair) == (number, number) and self._ring.get(one) == self._ring.get(other):
                del self._apart[pair]  # a short pause: the ring never broke
                self._cut_apart.discard(pair)

    def _note_together(self, host: Host) -> None:
        """What two hosts bring along into a common view, each in good faith, both may serve until one has let go."""
        mine = host.daemon.state.view if host.daemon is not None else None
        for node, other in self.hosts.items():
            view = other.daemon.state.view if other.daemon is not None else None
            if node == host.node or mine is None or view is None or view.id != mine.id:
                continue
            pair = (min(node, host.node), max(node, host.node))
            first, last = self._apart.get(pair, (mine.id.seq, mine.id.seq))
            if mine.id.seq > first:
                if mine.id.seq > last:
                    del self._apart[pair]
                    self._cut_apart.discard(pair)
                else:
                    self._apart[pair] = (last, last)  # again since
                if self.plan.partition != "majority":
                    self._brought |= {(ip, *pair) for ip in self._may_serve(host) & self._may_serve(other)}
                self._changed()

    def no_address_is_served_twice(self) -> None:
        """P1. Two hosts never serve one address, but for
        - what both brought into a common view, until one of them has let go (never under `majority`);
        - without a fence, what one has that stood still when the others came, until it has let go: nobody knows of it;
        - hosts that are apart, and in different views, if the network has cut them from each other, so that both sides
          cover; under takeover = fast also if a host or an engine stood still. Never under `majority`."""
        self._brought = {
            (ip, a, b)
            for ip, a, b in self._brought
            if ip in self._may_serve(self.hosts[a]) and ip in self._may_serve(self.hosts[b])
        }
        owners: dict[str, list[NodeId]] = {}
        for node in self._nodes:
            for ip in self.serves(node):
                owners.setdefault(ip, []).append(node)
        for ip, nodes in owners.items():
            for pair in combinations(nodes, 2):
                if self._nobody_knows(pair):
                    self._brought.add((ip, *pair))
                if (ip, *pair) not in self._brought and not self._excused(pair):
                    raise Violation(f"{ip} is served by {pair} at {self.now_ms} ms; {self.replay_hint()}")

    def _nobody_knows(self, pair: Pair) -> bool:
        if self.plan.fence != "off":
            return False
        for one, other in (pair, pair[::-1]):
            still, view = self.hosts[one].daemon, self._view_of(other)
            if still is not None and still.hung_ms is not None and view is not None:
                others = [h.daemon for h in self.hosts.values() if h.node != one and self._view_of(h.node) == view]
                if all(d is not None and d.joined_ms >= still.hung_ms for d in others):
                    return True
        return False

    def _view_of(self, node: NodeId) -> ViewId | None:
        daemon = self.hosts[node].daemon
        return daemon.state.view.id if daemon is not None and daemon.state.view is not None else None

    def _excused(self, pair: Pair) -> bool:
        if pair not in self._apart or self.plan.partition == "majority":
            return False
        if self._view_of(pair[0]) is not None and self._view_of(pair[0]) == self._view_of(pair[1]):
            return False
        return self.plan.takeover == "fast" or pair in self._cut_apart

    def _settled_members_agree(self, host: Host, state: State) -> None:
        """Who is settled and has applied as many messages of a view has the table that anybody there ever had."""
        if state.view is None or state.phase is not Phase.SETTLED:
            return
        unseen = self._divided.get(state.view.id, {}).get(host.node, 0)
        place = (state.view.id, unseen, state.exchange_round, state.applied)
        mine = (digest_of(state.table), host.name)
        other = self._places.setdefault(place, mine)
        if other[0] != mine[0]:
            raise Violation(f"tables of {host.name} and {other[1]} differ at {place}; {self.replay_hint()}")

    def _orders_only_grow(self, host: Host, before: State, after: State, event: ev.Event) -> None:
        """No order is lost, none that is older is taken up again, and none is there that nobody has given."""
        was, now = before.table.orders, after.table.orders
        if join(was, now) != now:
            raise Violation(f"{host.name} has lost an order: {was} became {now}; {self.replay_hint()}")
        new = set(now) - set(was)
        if isinstance(event, ev.MessageDelivered) and isinstance(event.message, Ordered | Unstick | Drain):
            self._given |= new
            self.counts["orders given"] += len(new)
        elif not new <= self._given:
            raise Violation(
                f"{host.name} knows orders that nobody has given: {new - self._given}; {self.replay_hint()}"
            )
        else:
            self.counts["orders learnt in a merge"] += len(new)

    # -- the end ----------------------------------------------------------------------------------------------------------

    def repair(self) -> None:
        """No more faults: everything works, everybody runs."""
        self.say("-- repaired")
        together: dict[str, str] = {}
        for host in self.hosts.values():
            together |= host.changes
        for host in self.hosts.values():
            host.refusing = frozenset()
            self.do_slow(host.name, "0")
            self.do_thaw(host.name)
            self.do_wake(host.name)
            self.do_go_engine(host.name)
            self.do_find_engine(host.name)
            self.do_fence(host.name)
            self.do_down(host.name)
            host.sick.clear()
            self._tell_eligibility(host)
            if self.plan.together and host.changes != together:
                host.changes = dict(together)
                self.do_kill(host.name)
            self.do_start(host.name)
        self.do_heal()
        for host in self.hosts.values():
            self._known = join(self._known, host.orders)
            if host.daemon is not None:
                self._known = join(self._known, host.daemon.state.table.orders)

    def be_right_in_the_end(self) -> None:
        """Every VIP is held once, by shares that are fair, and stays where it is then."""
        deadline_ms = self.now_ms + REPAIR_MS_MAX
        rest_ms = 2 * self.plan.interval + self.plan.settle + 1000
        acquired, since_ms = -1, self.now_ms
        while (why := self._not_right()) is not None or self.now_ms - since_ms < rest_ms:
            if why is not None or self.counts["VIPs acquired"] != acquired:
                acquired, since_ms = self.counts["VIPs acquired"], self.now_ms
            states = {n: s for n, s in self.states().items() if s.refusals}
            waits = [r.until_ms - self.hosts[n].clock_ms(self.now_ms) for n, s in states.items() for r in s.refusals]
            if self.now_ms > deadline_ms + max([0, *waits]):
                raise Violation(
                    f"not right {REPAIR_MS_MAX} ms after the last fault: {why or 'VIPs move'}; {self.replay_hint()}"
                )
            self.run_until(self.now_ms + 250)
            for host in self.hosts.values():
                self._nudge(host)

    def _nudge(self, host: Host) -> None:
        """An operator who takes nodes back, and lets balance have its way."""
        daemon = host.daemon
        if daemon is None:
            self.do_start(host.name)
        elif orders := [o for o in daemon.state.table.orders if o.in_force]:
            self._command(host, ev.OrderRequested(tuple(ended(o, "") for o in orders)))
        elif any(count > 2 for _, count, _ in daemon.state.joins):
            self.do_balance(host.name)

    def _not_right(self) -> str | None:
        states = self.states()
        if len(states) < len(self.hosts):
            return "somebody does not run"
        if len({s.view.id for s in states.values() if s.view is not None}) != 1:
            return "not one view"
        try:
            every_address_is_held_once(self)
        except AssertionError as wrong:
            return str(wrong).partition(";")[0]
        table = states[self._nodes[0]].table
        for node, state in states.items():
            if join(state.table.orders, self._known) != state.table.orders or state.table.orders != table.orders:
                return f"{self.hosts[node].name} does not know the orders that the others know"
        barred = any(why is not NotEligible.NOT_LISTED for r in table.reports for _, why in r.ineligible)
        if barred or any(r.chosen or r.draining for r in table.reports) or any(r.sticky for r in table.rows):
            return "somebody is not eligible, drained, or holds by an operator's word"
        return (self._unbalanced(states[self._nodes[0]]) if agreement(table.reports) else None) or self._untold()

    def _unbalanced(self, state: State) -> str | None:
        facts, table = facts_of(state), state.table
        if facts.limits or facts.prefer or facts.avoid or facts.apart or any(r.ineligible for r in table.reports):
            over = [n for n in facts.held if facts.overfull(n)]
            return "somebody has more than its capacity" if over else "balance is not done" if balance(facts) else None
        return self._unfair(table.rows, table.reports)

    def _untold(self) -> str | None:
        """The event log: as far back as all have it and were told it, all have the same, and what a living member said is
        in it."""
        histories = {}
        for name, daemon in ((h.name, h.daemon) for h in self.hosts.values() if h.daemon is not None):
            if daemon.telling.due_ms() is not None:
                return f"{name} has something to tell"
            histories[name] = [entry.event.id for entry in daemon.telling.log.shown()]
        least = min(RECENT_MAX, *map(len, histories.values()))
        one, *others = ((name, ids[len(ids) - least :]) for name, ids in histories.items())
        for name, ids in others:
            if ids != one[1]:
                return f"the histories of {one[0]} and {name} differ"
        for name, daemon in ((h.name, h.daemon) for h in self.hosts.values() if h.daemon is not None):
            told = {number for _, run, number in histories[name] if run == daemon.telling.run}
            if told != set(range(1, daemon.telling.number + 1)):
                return f"something that {name} said is lost"
        return None

    def _unfair(self, rows: Iterable[Row], reports: Iterable[Report]) -> str | None:
        sizes = [(r.holder, len(r.vip.addresses) if self.plan.count == "addresses" else 1) for r in rows]
        loads: Counter[NodeId | None] = Counter()
        for holder, size in sizes:
            loads[holder] += size
        largest = max((size for _, size in sizes), default=1)
        weights = {r.node: r.weight for r in reports}
        total, whole = sum(loads.values()), sum(weights.values())
        for node, weight in weights.items():
            if abs(loads[node] * whole - total * weight) >= largest * whole:
                return f"{self.hosts[node].name} holds {loads[node]} of {total} with a weight of {weight} of {whole}"
        return None

    @property
    def inherited(self) -> frozenset[tuple[str, NodeId, NodeId]]:
        """What two members brought into their common view."""
        return frozenset(self._brought)

    def states(self) -> dict[NodeId, State]:
        """Every running member's state."""
        return {n: h.daemon.state for n, h in self.hosts.items() if h.daemon is not None}

    def replay_hint(self) -> str:
        """Where everybody stands."""
        told = []
        for host in self.hosts.values():
            state = host.daemon.state if host.daemon is not None else None
            view = state.view if state is not None else None
            members = ",".join(self.hosts[m].name for m in view.members) if view else ""
            kernel = " ".join(sorted(k.split("#")[0] for k in host.kernel))
            told.append(
                f"{host.name}: {state.phase.name if state else 'no daemon'} {view.id if view else '-'} [{members}]"
                f" has {kernel or 'nothing'}, fence {'open' if self._open(host) else 'shut'}"
            )
        return "; ".join(told)
