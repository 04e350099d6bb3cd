"""Every ordering of a small cluster: breadth first over all worlds that a start and a number of changes can reach.

    python -m wackamole.sim.search rrrr em rra     searches these (see `choices`), and says how far it came

From every world each pending delivery and each pending kernel operation is tried, and, while changes are left, each
way to cut or join the network and each death of a process. Worlds that cannot be told apart are visited once. In every
world the safety laws are checked; where nothing is left to happen, liveness as well (time is then let go by first,
because lost messages are said again only when they are overdue).

Two reductions, both of which keep every reachable violation: equal worlds are merged (equal but for the numbers that no
future can tell: ids of views that nothing refers to are used again, and counters are reset where nothing is under way,
see `calm`); and steps that were taken once are remembered. Members are not interchangeable, since ties are broken by
their order, so there is no symmetry between them to use.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

from ..core.agreed import digest_of
from ..core.effects import Effect
from ..core.events import Event, LeaveRequested, MessageDelivered, MoveRequested
from ..core.invariants import (
    every_address_is_held_once,
    no_address_is_held_twice,
    settled_members_agree,
    what_is_kept_is_so,
)
from ..core.messages import Evict, Message
from ..core.model import Address, Cause, NodeId, Phase, Settings, ViewId, Vip
from ..core.state import State
from .world import Payload, World

MATURE_MS = 5000

A, B, C = NodeId(1), NodeId(2), NodeId(3)

SHAPES: tuple[tuple[tuple[NodeId, ...], ...], ...] = (
    ((A, B, C),),
    ((A, B), (C,)),
    ((A, C), (B,)),
    ((B, C), (A,)),
    ((A,), (B,), (C,)),
)
"""All ways to cut three nodes into components."""


class Memory:
    """Steps that were taken and messages that were sent, by number, so that each is computed and hashed once."""

    def __init__(self) -> None:
        self.states: dict[State, State] = {}
        self.steps: dict[tuple[int, int, object], tuple[State, tuple[Effect, ...]]] = {}
        self.numbers: dict[Payload, int] = {}
        self.payloads: list[Payload] = []
        self._kept: set[int] = set()
        self._number_of: dict[tuple[int, object], int] = {}

    def state(self, state: State) -> State:
        """The one object that stands for all equal states."""
        if id(state) in self._kept:
            return state
        kept = self.states.setdefault(state, state)
        self._kept.add(id(kept))
        return kept

    def number(self, payload: Payload) -> int:
        """The number of a message."""
        number = self.numbers.setdefault(payload, len(self.payloads))
        if number == len(self.payloads):
            self.payloads.append(payload)
            self._number_of[id(payload[1]), payload[0]] = number
        return number

    def number_of(self, view: ViewId, message: Message) -> int:
        """The number of a message that was unpacked from one: no need to hash it again."""
        return self._number_of[id(message), view]


@dataclass(slots=True)
class RememberingWorld(World):
    """A world whose steps are remembered; all forks share the memory."""

    memory: Memory = field(default_factory=Memory)
    judged: frozenset[NodeId] = frozenset()
    """Members whose leases have run out, because somebody has found them silent and they have not read that yet."""
    dark: frozenset[NodeId] = frozenset()
    """Those, and members that have read it, until a beat could renew their leases."""

    def fork(self) -> RememberingWorld:
        """A copy that can go its own way."""
        other = super(RememberingWorld, self).fork()
        assert isinstance(other, RememberingWorld)
        other.memory = self.memory
        other.judged = self.judged
        other.dark = self.dark
        return other

    def evict(self, node: NodeId, by: NodeId) -> None:
        """`by` finds `node` silent. Silence is time, which is not searched: it may have been so for long enough at any
        moment, and then the lease of `node` has run out. That it hangs is no more than that its events are late."""
        state = self.members[by].state
        assert state.view is not None
        heard = next(n for m, n, _ in state.heard if m == node)
        incarnation = next((r.incarnation for r in state.table.reports if r.node == node), 0)
        self.judged |= {node}
        self.dark |= {node}
        self.network.multicast(by, self.pack((state.view.id, Evict(node, incarnation, heard))))

    def tell(self, node: NodeId, event: Event) -> None:
        """As World's; and see whether its lease may be renewed now."""
        World.tell(self, node, event)
        if node not in self.dark:
            return
        if isinstance(event, MessageDelivered) and isinstance(event.message, Evict) and event.message.node == node:
            self.judged -= {node}
        state = self.members[node].state
        mine = {r.key for r in state.table.rows if r.holder == node}
        spoken = any(r.node == node for r in state.table.reports)
        if node not in self.judged and state.view is not None and spoken and mine.issuperset(state.may_hold):
            self.dark -= {node}

    def serves(self, node: NodeId) -> dict[str, Vip]:
        """As World's, unless its lease has run out."""
        return {} if node in self.dark else World.serves(self, node)

    def step(self, state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
        """Look the step up, or take it."""
        memory = self.memory
        state = memory.state(state)
        what: object = event
        if isinstance(event, MessageDelivered):
            what = (event.sender, memory.number_of(event.view, event.message))
        place = (id(state), self.now_ms, what)
        known = memory.steps.get(place)
        if known is None:
            after, effects = World.step(self, state, event)
            known = memory.steps[place] = (memory.state(after), effects)
        return known

    def pack(self, payload: Payload) -> int:
        """A message's number stands for it on the network."""
        return self.memory.number(payload)

    def unpack(self, packed: Hashable) -> Payload:
        """The message with this number."""
        assert isinstance(packed, int)
        return self.memory.payloads[packed]

    def fingerprint(self) -> object:
        """As World's, with the identity of remembered states in place of the states."""
        return (
            self.network.fingerprint(),
            tuple(
                (n, id(self.memory.state(m.state)), m.kernel, m.asked, m.writing, m.gone, m.brought)
                for n, m in sorted(self.members.items())
            ),
            self.inherited,
            self.judged,
            self.dark,
            tuple(sorted(self.disks.items())),
            self.now_ms,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """How far a search came."""

    states: int
    transitions: int
    rests: int
    seconds: float
    complete: bool

    def __str__(self) -> str:
        word = "complete" if self.complete else "stopped at its bound"
        return (
            f"{self.states} states, {self.transitions} transitions, {self.rests} states of rest,"
            f" {self.seconds:.1f} s, {word}"
        )


class Violation(AssertionError):
    """A law was broken; the message ends with the shortest story that leads there."""


def small_world(nodes: int = 3, vips: int = 2) -> World:
    """A settled cluster: everybody started, matured, and holding."""
    members = [NodeId(i + 1) for i in range(nodes)]
    names = tuple(f"n{i}" for i in members)
    addresses = tuple(Vip(f"v{i}", (Address(f"192.0.2.{i + 1}", 32),)) for i in range(vips))
    settings = {
        n: Settings(
            node=f"n{n}",
            nodes=names,
            vips=addresses,
            config_digest="one",
            mature_ms=MATURE_MS,
            balance_interval_ms=10**9,
            settle_ms=0,  # or worlds would differ by how often somebody came
        )
        for n in members
    }
    world = RememberingWorld(settings, beats=False)
    for n in members:
        world.power_on(n)
    world.run()
    every_address_is_held_once(world)
    return world


Choice = tuple[str, object]


def choices(world: World, changes: str) -> Iterator[tuple[Choice, str]]:
    """What may happen next, and how many changes of the environment are left then. `changes` has a letter for each: the
    network is cut or joined at `a`ny moment, or only at `r`est; at any moment one `e`victs another, an operator `m`oves the
    first VIP, or one `l`eaves."""
    actions = world.actions()
    for action in actions:
        yield ("act", action), changes
    kind, rest = changes[:1], changes[1:]
    if kind == "a" or (kind == "r" and not actions):
        for shape in SHAPES:
            if shape != world.network.groups():
                yield ("shape", shape), rest
    elif kind == "e":
        for pair in evictable(world):
            yield ("evict", pair), rest
    elif kind == "m":
        for asked, member in sorted(world.members.items()):
            for to in member.state.view.members if member.state.view is not None else ():
                row = member.state.table.rows[0] if member.state.phase is Phase.SETTLED else None
                if row is not None and to != row.target:
                    yield ("move", (asked, (row.key,), to)), rest
    elif kind == "l":
        for node in sorted(world.states()):
            yield ("leave", node), rest


def evictable(world: World) -> Iterator[tuple[NodeId, NodeId]]:
    """Whom somebody could find silent, and who: both are in the view that both are about to be in, and stay there."""
    for by, member in sorted(world.states().items()):
        view = member.view
        if view is None or member.phase not in (Phase.SETTLED, Phase.EXCHANGE):
            continue
        evicted = {n for n, _ in member.table.evicted}
        for node in view.members:
            if node != by and node not in evicted and world.network.together(by, node, view.id):
                yield node, by


def happen(world: World, choice: Choice) -> None:
    """Let a choice happen."""
    what, about = choice
    if what == "act":
        world.act(about)  # type: ignore[arg-type]
    elif what == "shape":
        world.partition(about)  # type: ignore[arg-type]
    elif what == "evict":
        world.evict(*about)  # type: ignore[attr-defined,misc]
    elif what == "move":
        world.tell(about[0], MoveRequested(*about[1:]))  # type: ignore[index]
    elif what == "leave":
        world.tell(about, LeaveRequested())  # type: ignore[arg-type]
    else:
        raise AssertionError(what)


def calm(world: World) -> None:
    """Reset the counters that only tell messages under way apart, in a world where none is: its future is the same."""
    assert not world.actions()
    views = world.network.calm()
    for node, member in world.members.items():
        if node not in views:
            continue  # it has left
        state = member.state
        member.brought = ()
        table = replace(
            state.table,
            rows=tuple(replace(row, generation=0, previous=None, cause=Cause.NONE) for row in state.table.rows),
        )
        member.state = replace(
            state,
            view=views[node],
            table=table,
            serial=0,
            exchange_since_ms=0,
            applied=0,
            exchange_round=min(state.exchange_round, 1),
            recent=tuple((0, digest_of(table)) for _ in state.recent[-1:]),
            heard=tuple((m, 1, 0) for m, _, _ in state.heard),
        )


def search(start: World, changes: str, *, seconds_max: float) -> Found:
    """Visit everything; raise Violation with the shortest way there. Stops, incomplete, after `seconds_max`."""
    began = time.monotonic()
    seen: dict[object, tuple[object, Choice] | None] = {}
    first = (start.fingerprint(), changes)
    seen[first] = None
    queue: deque[tuple[World, str, object]] = deque([(start, changes, first)])
    transitions = rests = 0
    while queue:
        if transitions % 256 == 0 and time.monotonic() - began > seconds_max:
            return Found(len(seen), transitions, rests, time.monotonic() - began, complete=False)
        world, left, place = queue.popleft()
        if not world.actions():
            rests += 1
            check_rest(world, seen, place)
        for choice, left_then in choices(world, left):
            transitions += 1
            next_world = world.fork()
            try:
                happen(next_world, choice)
                no_address_is_held_twice(next_world)
                what_is_kept_is_so(next_world)
                settled_members_agree(next_world)
            except AssertionError as wrong:
                raise Violation(f"{wrong}\n{story(seen, place)}\n{choice}") from wrong
            if not next_world.actions() and not any(m.state.said for m in next_world.members.values()):
                calm(next_world)
            there = (next_world.fingerprint(), left_then)
            if there not in seen:
                seen[there] = (place, choice)
                queue.append((next_world, left_then, there))
    return Found(len(seen), transitions, rests, time.monotonic() - began, complete=True)


def wander(start: World, changes: str, *, walks: int, seed: int) -> int:
    """Random walks, for worlds too large to search: each makes all its changes at some moment and ends at rest. Returns
    the number of steps; raises Violation."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    steps = 0
    for _ in range(walks):
        world, left = start.fork(), changes
        taken: list[str] = []
        while options := list(choices(world, left)):
            acting = [o for o in options if o[0][0] == "act"]
            changing = [o for o in options if o[0][0] != "act"]
            choice, left = dice.choice(changing if changing and (not acting or dice.random() < 0.15) else acting)
            taken.append(str(choice))
            steps += 1
            try:
                happen(world, choice)
                no_address_is_held_twice(world)
                what_is_kept_is_so(world)
                settled_members_agree(world)
            except AssertionError as wrong:
                raise Violation("\n".join((str(wrong), *taken))) from wrong
        check_rest(world, {0: None}, 0)
    return steps


def check_rest(world: World, seen: dict[object, tuple[object, Choice] | None], place: object) -> None:
    """Where nothing is left to happen, every address must be served, at the latest after what was lost is said again."""
    rest = world.fork()
    try:
        for wait_ms in (400, 400, 400, 400, MATURE_MS, 400):  # what was lost is said again, and who is new matures
            rest.now_ms += wait_ms
            for node in sorted(rest.members):
                rest.tick(node)
            rest.run()
        every_address_is_held_once(rest)
    except AssertionError as wrong:
        raise Violation(f"{wrong}\n{story(seen, place)}") from wrong


def story(seen: dict[object, tuple[object, Choice] | None], place: object) -> str:
    """The choices that led to a place, a line each."""
    lines: list[str] = []
    while (step := seen[place]) is not None:
        place, choice = step
        lines.append(str(choice))
    return "\n".join(reversed(lines))


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(f"{wanted}: {search(small_world(), wanted, seconds_max=600)}", flush=True)
