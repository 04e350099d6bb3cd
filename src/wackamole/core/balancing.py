"""One round of balancing: the moves that bring every VIP where it belongs, keep groups apart, and give members their shares.

In this order, each without undoing what the one before has done:

1. *room*: where a full member keeps an orphan from being served, a chain of moves makes room for it;
2. *home*: a VIP goes to the best tier of its kind that has room (preferences, what it avoids), if need be by such a chain;
3. *apart*: within its tier a VIP goes where fewer of its group are;
4. *shares*: within their tiers VIPs go from who has more than its quota to who has less.

**Fewest moves.** A move from above to below brings the sum of what is above down by one, and nothing does so with less; that
settles most of it. Where no such VIP can go directly there may be a chain: one from a to b, and another from b to c. Chains
are shortest paths between members, in which a VIP that was moved already costs nothing to send elsewhere and saves a move if it
stays after all; so the moves stay the fewest that reach these quotas (successive shortest paths of a flow of least cost). What
that does not cover, by design: which of two sets of moves that fix wishes also spares moves for shares is not searched; keeping
groups apart is a greedy descent; and where VIPs count differently it is the knapsack problem. Every move of 4 brings two
members closer to their exact proportions, so it ends, and where one round stops the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from .model import By, NodeId, NotEligible, Row, VipKey
from .placement import Kind, Placement, busy, orphans
from .quotas import Goal
from .shares import relieves

CHAINS_MAX = 64
"""In one round: each looks at everything that is held."""

Edges = dict[tuple[NodeId, NodeId], tuple[int, VipKey]]
"""From member to member: what it costs at least to send a VIP there, and which one."""


class Stays(Enum):
    """Why balance leaves a VIP with its holder, or does not give it to a member."""

    UNDER_WAY = "it is on its way, or its holder is not in the group"
    OPERATOR = "an operator put it there (until `balance`)"
    HELD = "an operator holds it where it is (until `unhold`)"
    PREFERENCE = "a preference decides where it is"
    SHARE_KEPT = "its holder has no more than its share"
    HOLDER = "it has it"
    FRESH = "it has not been a member for long enough"
    SHARE_FULL = "it has its share"
    FULL = "its capacity is used up"
    WORSE = "the VIP is better where it is: it is preferred there, or avoids the other"
    TOGETHER = "it has more of the VIPs that are to be kept apart"
    NO_CLOSER = "the VIP counts for more than what the two are apart"
    NO_RELIEF = "it would be loaded hardly less than the holder"
    LOADS_FOLLOW = "only the loads ask for it, and they must first follow the last move"


def balance(
    placement: Placement,
    onto: Iterable[NodeId] | None = None,
    moves_max: int | None = None,
    for_load: int = 0,
) -> list[tuple[VipKey, NodeId]]:
    """The moves of a round; `onto`: only to these members, and of at most `moves_max` VIPs (None: all); `for_load`: at most so
    many moves that weights alone would not ask for. VIPs that are in flight, orphaned, on hold, or were put somewhere by an
    operator stay as they are."""
    return Balance(placement, onto, moves_max, for_load).moves


class Balance:
    """One round, made when it is constructed: `moves`, and what it has against any other."""

    def __init__(
        self,
        placement: Placement,
        onto: Iterable[NodeId] | None = None,
        moves_max: int | None = None,
        for_load: int = 0,
    ) -> None:
        self.facts = placement
        self._goal, self._without_load = placement.goal(), placement.goal_without_load()
        self._for_load = for_load
        self._moves_max = moves_max
        self._welcome = frozenset(placement.reports if onto is None else onto)
        self._moved: dict[VipKey, NodeId] = {}
        self._stuck: set[NodeId] = set()
        self._promised: dict[NodeId, int] = dict.fromkeys(placement.held, 0)
        self._has = _Shelves(placement, [k for k, row in sorted(placement.rows.items()) if self.fixed(row) is None])
        self._make_room()
        self._bring_home()
        self._keep_apart()
        chains = 0
        while self._more():
            if self._one_move():
                continue
            if chains < CHAINS_MAX and self._one_chain():
                chains += 1
            elif not self._new_goal():
                break
        self.moves = [(key, to) for key, to in self._moved.items() if to != placement.rows[key].holder]

    def _more(self) -> bool:
        return self._moves_max is None or len(self._moved) < self._moves_max

    # -- what it has against a move

    def fixed(self, row: Row) -> Stays | None:
        """Why this VIP is none of balance's business."""
        if row.holder is None or row.holder != row.target or row.holder not in self.facts.held or row.releasing:
            return Stays.UNDER_WAY
        if row.key in self.facts.hold:
            return Stays.HELD
        return Stays.OPERATOR if row.sticky else None

    def keeps(self, row: Row) -> Stays | None:
        """Why its holder need not give this VIP away, as of now."""
        kind, holder = self.facts.kind(row.key), self._holder(row)
        if kind.tier_of.get(holder) == 0 and len(kind.home) == 1:
            return Stays.PREFERENCE
        return None if self._above(holder) > 0 else Stays.SHARE_KEPT

    def refuses(self, row: Row, to: NodeId) -> Stays | NotEligible | None:
        """Why this VIP does not go there for the sake of shares, as of now."""
        facts, holder, size = self.facts, self._holder(row), self.facts.size(row.key)
        if to == holder:
            return Stays.HOLDER
        if to not in self._welcome:
            return Stays.FRESH
        reason = facts.why_not(to, row.key)
        if reason is not None:
            return reason
        if not facts.room(to, size):
            return Stays.FULL
        if self._above(to) >= 0:
            return Stays.SHARE_FULL
        tier_of = facts.kind(row.key).tier_of
        if tier_of.get(to) != tier_of.get(holder):
            return Stays.WORSE
        if not self._stays_apart(row.key, holder, to):
            return Stays.TOGETHER
        if not self._closer(self._goal, size, holder, to):
            return Stays.NO_CLOSER
        return self._load_refuses(size, holder, to)

    def _load_refuses(self, size: int, holder: NodeId, to: NodeId) -> Stays | None:
        facts = self.facts
        if not facts.by.follows_load:
            return None
        if facts.by.by is By.LOAD and not relieves(
            (facts.loads[to], facts.held[to]), (facts.loads[holder], facts.held[holder]), size, facts.by.hysteresis
        ):
            return Stays.NO_RELIEF
        return Stays.LOADS_FOLLOW if self._for_load <= 0 and self._only_load_asks(size, holder, to) else None

    def _holder(self, row: Row) -> NodeId:
        """Who has it after the moves so far."""
        assert row.holder is not None
        return self._moved.get(row.key, row.holder)

    def _above(self, node: NodeId) -> int:
        return self._goal.above(node, self.facts.held[node])

    def _closer(self, goal: Goal, size: int, source: NodeId, to: NodeId) -> bool:
        """Whether both come closer to their exact proportions, taken together."""
        held = self.facts.held
        return size * goal.whole < goal.beyond(source, held[source]) - goal.beyond(to, held[to])

    def _only_load_asks(self, size: int, source: NodeId, to: NodeId) -> bool:
        held, plain = self.facts.held, self._without_load
        return (
            plain.above(source, held[source]) <= 0
            or plain.above(to, held[to]) >= 0
            or not self._closer(plain, size, source, to)
        )

    def _stays_apart(self, key: VipKey, source: NodeId, to: NodeId) -> bool:
        """Whether no more of its group are together than before."""
        return key not in self.facts.apart or self.facts.of_group(key, to) < self.facts.of_group(key, source)

    # -- room and home

    def _make_room(self) -> None:
        """For orphans that are not served because everybody who may hold them is full."""
        facts = self.facts
        if not facts.limits:
            return
        quotas = self._goal.quotas
        for key in orphans(facts, busy(facts.rows.values())):
            node = facts.choose(key, quotas)
            among, size = list(facts.kind(key).tier_of), facts.size(key)
            if node is None:
                node = next((n for n in among if facts.room_to_come(n, size)), None)
            if node is None and self._more():
                node = self._room_by_a_chain(among, size, self._same_tier)
                if node is None:  # to be served somewhere comes before being served where it is liked best
                    node = self._room_by_a_chain(among, size, self._any_tier)
            if node is not None:
                facts.take(node, key)  # fill will give it to somebody: nothing else may have the room

    def _room_by_a_chain(
        self, among: Iterable[NodeId], size: int, elsewhere: Callable[[Kind, NodeId], list[NodeId]]
    ) -> NodeId | None:
        """Let one of these give away what counts for as much, over as many members as it takes. Returns which."""
        sinks = [n for n in self.facts.held if n in self._welcome and self.facts.room(n, size)]
        return self._send(_cheapest(self._edges(size, elsewhere), among, sinks))

    def _send(self, chain: Sequence[tuple[VipKey, NodeId]]) -> NodeId | None:
        """Make these moves, the last first, as far as this round goes: who is full has to let go before it takes. Returns whose
        VIP the first one is, if it is among them."""
        source = None
        for key, to in reversed(chain):
            if not self._more() or not self.facts.room(to, self.facts.size(key)):
                return None
            source = self._holder(self.facts.rows[key])
            self._move(key, to)
        return source

    def _bring_home(self) -> None:
        facts, quotas = self.facts, self._goal.quotas
        for key in self._has.astray():
            if not self._more():
                return
            row = facts.rows[key]
            kind, size = facts.kind(key), facts.size(key)
            better = kind.tiers[: min(kind.tier_of.get(self._holder(row), kind.calm), kind.calm)]
            for tier in better:
                able = [n for n in tier if facts.room(n, size)]
                if able:
                    welcome = [n for n in able if n in self._welcome]
                    if welcome:
                        self._move(key, facts.best(welcome, key, quotas))
                    break
                welcome = [n for n in tier if n in self._welcome]
                node = next((n for n in welcome if facts.room_to_come(n, size + self._promised[n])), None)
                if node is None:
                    node = self._room_by_a_chain(welcome, size, self._same_tier)
                if node is not None:
                    self._promised[node] += size  # it goes there in a later round
                    break

    # -- apart

    def _keep_apart(self) -> None:
        """Each move brings two members' numbers of one group closer, so it ends."""
        facts, quotas = self.facts, self._goal.quotas
        again = bool(facts.apart)
        while again:
            again = False
            for key in sorted(facts.apart):
                row = facts.rows.get(key)
                if row is None or self.fixed(row) is not None or not self._more():
                    continue
                holder = self._holder(row)
                fewer = facts.of_group(key, holder) - 1
                able = [
                    n
                    for n in (self._same_tier(facts.kind(key), holder) if fewer else ())
                    if facts.of_group(key, n) < fewer and facts.room(n, facts.size(key))
                ]
                if able:
                    self._move(key, facts.best(able, key, quotas))
                    again = True

    # -- shares

    def _new_goal(self) -> bool:
        """Whether the remainders go to others now."""
        before = self._goal, self._without_load
        self._goal, self._without_load = self.facts.goal(), self.facts.goal_without_load()
        self._stuck.clear()
        return (self._goal, self._without_load) != before

    def _one_move(self) -> bool:
        """From who has most too much, the VIP that comes closest to half of what divides it from who has most too little."""
        held, goal = self.facts.held, self._goal
        above = {n: self._above(n) for n in held}
        below = sorted((n for n in held if above[n] < 0 and n in self._welcome), key=lambda n: (above[n], n))
        if not below:
            return False
        least = min(goal.beyond(n, held[n]) for n in held)
        for source in sorted((n for n in held if above[n] > 0), key=lambda n: (-above[n], n)):
            if source in self._stuck:
                continue
            apart = goal.beyond(source, held[source]) - least
            sizes = (s for s in self._has.sizes(source) if s * goal.whole < apart)
            for size in sorted(sizes, key=lambda s: (abs(2 * s * goal.whole - apart), s)):  # noqa: B023
                found = self._direct(source, size, below)
                if found is None:
                    continue
                if self.facts.by.follows_load:
                    self._for_load -= self._only_load_asks(size, source, found[1])
                    self._stuck.clear()
                self._move(*found)
                return True
            self._stuck.add(source)  # who is below only ever gets more
        return False

    def _direct(self, source: NodeId, size: int, below: Sequence[NodeId]) -> tuple[VipKey, NodeId] | None:
        """A VIP of this size that one of those below can take: whoever is lowest."""
        facts = self.facts
        for shelf in self._has.of_size(source, size):
            tier = shelf.kind.tier_of.get(source, shelf.kind.calm)
            if tier >= shelf.kind.calm:
                continue
            for to in below:
                if (
                    shelf.kind.tier_of.get(to) == tier
                    and facts.room(to, size)
                    and self._stays_apart(shelf.first(), source, to)
                    and self._closer(self._goal, size, source, to)
                    and self._load_refuses(size, source, to) is None
                ):
                    return shelf.cheapest(facts, to)[1], to
        return None

    def _one_chain(self) -> bool:
        """From somebody above over members that then have as much as before to somebody below; not for loads, of which only
        the two ends would know."""
        facts = self.facts
        above = [n for n in facts.held if self._above(n) > 0]
        below = [n for n in facts.held if self._above(n) < 0 and n in self._welcome]
        if not above or not below or facts.by.follows_load:
            return False
        for size in sorted({size for n in above for size in self._has.sizes(n)}):
            chain = _cheapest(self._edges(size, self._same_tier), above, [n for n in below if facts.room(n, size)])
            if not chain:
                continue
            if self._closer(self._goal, size, self._holder(facts.rows[chain[0][0]]), chain[-1][1]):
                self._send(chain)
                self._stuck.clear()
                return True
        return False

    def _edges(self, size: int, elsewhere: Callable[[Kind, NodeId], list[NodeId]]) -> Edges:
        found: Edges = {}
        for source in self.facts.held:
            for shelf in self._has.of_size(source, size):
                for to in elsewhere(shelf.kind, source):
                    if not self.facts.room(to, size) and self._above(to) < 0:
                        continue  # it has made room already
                    if self._stays_apart(shelf.first(), source, to):
                        edge = shelf.cheapest(self.facts, to)
                        found[source, to] = min(found.get((source, to), edge), edge)
        return found

    def _same_tier(self, kind: Kind, holder: NodeId) -> list[NodeId]:
        """Where a VIP may go that shall not be worse off."""
        tier = kind.tier_of.get(holder, kind.calm)
        return [n for n in kind.tiers[tier] if n != holder and n in self._welcome] if tier < kind.calm else []

    def _any_tier(self, kind: Kind, holder: NodeId) -> list[NodeId]:
        """Where a VIP may go at all, but for members that something speaks against."""
        return [n for tier in kind.tiers[: kind.calm] for n in tier if n != holder and n in self._welcome]

    def _move(self, key: VipKey, to: NodeId) -> None:
        source = self._holder(self.facts.rows[key])
        self.facts.move(key, source, to)
        self._moved[key] = to
        self._has.move(key, source, to)


@dataclass(slots=True)
class _Shelf:
    """VIPs of one member that nothing tells apart: as they were, and those that were moved in this round."""

    kind: Kind
    fresh: dict[VipKey, None] = field(default_factory=dict)
    moved: dict[VipKey, None] = field(default_factory=dict)

    def first(self) -> VipKey:
        """Any of them."""
        return next(iter(self.fresh or self.moved))

    def cheapest(self, facts: Placement, to: NodeId) -> tuple[int, VipKey]:
        """Which of them to send there, and what it costs: one for a VIP's first move, nothing for a change of mind, and a
        move is saved if it stays after all."""
        if not self.moved:
            return 1, next(iter(self.fresh))
        back = next((key for key in self.moved if facts.rows[key].holder == to), None)
        return (-1, back) if back is not None else (0, next(iter(self.moved)))


class _Shelves:
    """The VIPs that may move, of each member, by what they count, and by kind and group."""

    def __init__(self, facts: Placement, keys: Iterable[VipKey]) -> None:
        self._facts = facts
        self._of: dict[NodeId, dict[int, dict[object, _Shelf]]] = {n: {} for n in facts.held}
        for key in keys:
            holder = facts.rows[key].holder
            assert holder is not None
            self._shelf(key, holder).fresh[key] = None

    def _shelf(self, key: VipKey, node: NodeId) -> _Shelf:
        kind, group, size = self._facts.kind(key), self._facts.apart.get(key), self._facts.size(key)
        shelves = self._of[node].setdefault(size, {})
        place = (id(kind), group)
        if place not in shelves:
            shelves[place] = _Shelf(kind)
        return shelves[place]

    def move(self, key: VipKey, source: NodeId, to: NodeId) -> None:
        """From one member to another."""
        shelf = self._shelf(key, source)
        shelf.fresh.pop(key, None)
        shelf.moved.pop(key, None)
        self._shelf(key, to).moved[key] = None

    def sizes(self, node: NodeId) -> list[int]:
        """What a member's VIPs count for."""
        return [size for size, shelves in self._of[node].items() if any(s.fresh or s.moved for s in shelves.values())]

    def of_size(self, node: NodeId, size: int) -> Iterator[_Shelf]:
        """Those that are not empty, in the order of their first VIPs."""
        return (shelf for shelf in self._of[node].get(size, {}).values() if shelf.fresh or shelf.moved)

    def astray(self) -> list[VipKey]:
        """Those that are not where they belong."""
        return sorted(
            key
            for node, sizes in self._of.items()
            for shelves in sizes.values()
            for shelf in shelves.values()
            if shelf.kind.tier_of.get(node) != 0
            for key in (*shelf.fresh, *shelf.moved)
        )


def _cheapest(edges: Edges, sources: Iterable[NodeId], sinks: Sequence[NodeId]) -> list[tuple[VipKey, NodeId]]:
    """The cheapest way from one of the sources to one of the sinks (Bellman and Ford's); [] if there is none. Each step:
    which VIP, and where to."""
    cost: dict[NodeId, int] = dict.fromkeys(sources, 0)
    came: dict[NodeId, NodeId] = {}
    for _ in {node for edge in edges for node in edge}:
        shorter = False
        for (a, b), (more, _) in edges.items():
            if a in cost and cost[a] + more < cost.get(b, 1 << 30):
                cost[b], came[b], shorter = cost[a] + more, a, True
        if not shorter:
            break
    to = min((n for n in sinks if n in came), key=lambda n: (cost[n], n), default=None)
    way: list[tuple[VipKey, NodeId]] = []
    while to is not None and to in came:
        if len(way) > len(came):
            return []  # it goes round and round
        way.append((edges[came[to], to][1], to))
        to = came[to]
    return way[::-1]
