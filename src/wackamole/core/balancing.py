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
from .placement import Kind, Placement, orphans
from .quotas import Goal
from .shares import relieves

LOOKS_MAX = 2000
"""At once no other chain is looked for after so many looks at VIPs that could be part of one: some milliseconds."""

Edges = dict[tuple[NodeId, NodeId], tuple[int, VipKey | None]]
"""From member to member: what it costs at least to send a VIP there, and which one. None: no VIP, but the remainder that the
second one's quota has."""
Elsewhere = Callable[[Kind, NodeId], list[NodeId]]
May = Callable[[VipKey, NodeId, NodeId], bool]
Chain = Sequence[tuple[NodeId, VipKey | None, NodeId]]
"""From, what, to."""


class Stays(Enum):
    """Why balance leaves a VIP with its holder, or does not give it to a member."""

    UNDER_WAY = "it is on its way, or its holder is not in the group"
    OPERATOR = "an operator has it there (until `unhold`)"
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
    """One round, or a part of one, made when it is constructed: `moves`, and what it has against any other. `cut_short`: there may
    be more to move, which was too much at once."""

    def __init__(
        self,
        placement: Placement,
        onto: Iterable[NodeId] | None = None,
        moves_max: int | None = None,
        for_load: int = 0,
    ) -> None:
        self.facts = placement
        self._for_load = for_load
        self._moves_max = moves_max
        self._welcome = frozenset(placement.reports if onto is None else onto)
        self._moved: dict[VipKey, NodeId] = {}
        self._stuck: set[NodeId] = set()
        self._edges_now: dict[tuple[int, Elsewhere, May], Edges] = {}
        self._looks = 0
        self._promised: dict[NodeId, int] = dict.fromkeys(placement.held, 0)
        self._has = _Shelves(placement, [k for k, row in sorted(placement.rows.items()) if self.fixed(row) is None])
        self._aim()
        self._make_room()
        self._bring_home()
        self._keep_apart()
        self._aim()
        while self._more():
            if not (self._one_move() or (self._looks < LOOKS_MAX and self._one_chain()) or self._new_goal()):
                break
        self.cut_short = not self._more() or self._looks >= LOOKS_MAX
        self.moves = [(key, to) for key, to in self._moved.items() if to != placement.rows[key].holder]

    def _aim(self) -> None:
        """At the shares as they are now."""
        self._goal, self._without_load = self.facts.goal(), self.facts.goal_without_load()
        self._over = {n: self._goal.above(n, held) for n, held in self.facts.held.items()}
        self._unstick()

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
        facts, holder = self.facts, self._holder(row)
        if holder in facts.reports and facts.reports[holder].name in facts.prefer.get(row.key, ()):
            return Stays.PREFERENCE
        return None if self._over[holder] > 0 else Stays.SHARE_KEPT

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
        if self._over[to] >= 0:
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
        for key in [key for _, keys in orphans(facts) for key in keys]:
            kind, size = facts.kind(key), facts.size(key)
            node = facts.choose(key, quotas)
            if node is None:
                node = next((n for n in kind.tier_of if facts.room_to_come(n, size)), None)
            for tier in kind.tiers:
                if node is None and self._more():
                    node = self._room_by_a_chain(tier, size, self._same_tier)
            # to be served at all comes before being served where it is best, and apart
            if node is None and self._more():
                node = self._room_by_a_chain(kind.tier_of, size, self._any_tier, self._anyhow)
            if node is not None:
                facts.take(node, key)
                self._edges_now.clear()
                self._over[node] += size  # fill will give it to somebody: nothing else may have the room

    def _room_by_a_chain(
        self, among: Iterable[NodeId], size: int, elsewhere: Elsewhere, may: May | None = None
    ) -> NodeId | None:
        """Let one of these give away what counts for as much, over as many members as it takes. Returns which."""
        if self._looks >= LOOKS_MAX:
            return None
        edges = self._edges(size, elsewhere, may)
        sinks = [n for n in self.facts.held if n in self._welcome and self.facts.room(n, size)]
        return self._send(_cheapest(edges, among, sinks))

    def _send(self, chain: Chain) -> NodeId | None:
        """Make these moves, the last first, as far as this round goes: who is full has to let go before it takes. Returns whose
        VIP the first one is, if it is among them."""
        for source, key, to in reversed(chain):
            if key is None:
                self._over[source] -= 1
                self._over[to] += 1
            elif self._more() and self.facts.room(to, self.facts.size(key)):
                self._move(key, to)
            else:
                return None
        return chain[0][0] if chain else None

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
        self._aim()
        return (self._goal, self._without_load) != before

    def _one_move(self) -> bool:
        """From who has most too much, the VIP that comes closest to half of what divides it from who has most too little."""
        above = [(-over, n) for n, over in self._over.items() if over > 0 and n not in self._stuck]
        below = sorted([(over, n) for n, over in self._over.items() if over < 0 and n in self._welcome])
        while above and below:
            _, source = most = min(above)
            above.remove(most)
            sizes = self._sizes(source)
            for size in sizes:
                found = self._direct(source, size, below)
                if found is None:
                    continue
                shelf, (over, to) = found
                if self.facts.by.follows_load:
                    self._for_load -= self._only_load_asks(size, source, to)
                    self._unstick()  # loads may have changed what refuses
                self._move(shelf.cheapest(to)[1], to)
                if len(sizes) == 1 and not self.facts.by.follows_load:
                    self._in_turn(shelf, source, size, [n for o, n in below if o == over and n != to], above)
                return True
            self._stuck.add(source)  # who is below only ever gets more
        return False

    def _in_turn(
        self, shelf: _Shelf, source: NodeId, size: int, low: Sequence[NodeId], above: Sequence[tuple[int, NodeId]]
    ) -> None:
        """The next moves, while they are of the same VIPs from the same member to those who were as low: what would be found
        anyway, without looking."""
        next_most = min(above, default=(0, source))
        for to in low:
            if not self._more() or shelf.empty() or (-self._over[source], source) >= next_most:
                return
            if self._takes(shelf, source, size, to):
                self._move(shelf.cheapest(to)[1], to)

    def _sizes(self, source: NodeId) -> list[int]:
        """What a member could give, the best first."""
        sizes = self._has.sizes(source)
        if len(sizes) < 2:
            return sizes
        held, goal = self.facts.held, self._goal
        apart = goal.beyond(source, held[source]) - min(goal.beyond(n, held[n]) for n in held)
        return sorted([s for s in sizes if s * goal.whole < apart], key=lambda s: (abs(2 * s * goal.whole - apart), s))

    def _direct(
        self, source: NodeId, size: int, below: Sequence[tuple[int, NodeId]]
    ) -> tuple[_Shelf, tuple[int, NodeId]] | None:
        """VIPs of this size of which one of those below can take one: whoever is lowest."""
        for shelf in self._has.of_size(source, size):
            if not shelf.stuck:
                for low in below:
                    if self._takes(shelf, source, size, low[1]):
                        return shelf, low
                shelf.stuck = True
        return None

    def _takes(self, shelf: _Shelf, source: NodeId, size: int, to: NodeId) -> bool:
        tier_of, calm = shelf.kind.tier_of, shelf.kind.calm
        return (
            tier_of.get(to) == tier_of.get(source, calm) < calm
            and self.facts.room(to, size)
            and self._stays_apart(shelf.any(), source, to)
            and self._closer(self._goal, size, source, to)
            and self._load_refuses(size, source, to) is None
        )

    def _unstick(self) -> None:
        self._edges_now.clear()
        self._stuck.clear()
        self._has.unstick()

    def _one_chain(self) -> bool:
        """From somebody above over members that then have as much as before to somebody below; not for loads, of which only
        the two ends would know."""
        facts = self.facts
        above = [n for n, over in self._over.items() if over > 0]
        below = [n for n, over in self._over.items() if over < 0 and n in self._welcome]
        if not above or not below or facts.by.follows_load:
            return False
        for size in sorted({size for n in above for size in self._has.sizes(n)}):
            edges = self._edges(size, self._same_tier)
            edges = edges | {
                pair: (0, None) for pair in self._remainders() if size == 1 and edges.get(pair, (0,))[0] >= 0
            }
            chain = _cheapest(edges, above, [n for n in below if facts.room(n, size) or size == 1])
            if chain and self._brings_closer(chain, size):
                self._send(chain)
                self._unstick()
                return True
        return False

    def _remainders(self) -> list[tuple[NodeId, NodeId]]:
        """Who could have the remainder that another's quota has: nobody has a right to it."""
        held, goal = self.facts.held, self._goal
        part = {n: goal.exact.get(n, 0) % goal.whole for n in held}
        more = {n: held[n] - self._over[n] - goal.exact.get(n, 0) // goal.whole for n in held if part[n]}
        return [(n, other) for n in more for other in more if more[n] == 0 and more[other] == 1]

    def _brings_closer(self, chain: Chain, size: int) -> bool:
        """Whether all do that give or get something in the end; in between remainders are exchanged."""
        ends: list[tuple[NodeId, NodeId]] = []
        last: VipKey | None = None
        for source, key, to in chain:
            if key is not None:
                ends[-1:] = [(ends[-1][0], to)] if last is not None else [*ends[-1:], (source, to)]
            last = key
        return all(self._closer(self._goal, size, source, to) for source, to in ends)

    def _edges(self, size: int, elsewhere: Elsewhere, may: May | None = None) -> Edges:
        """What may go where, of what counts for so much, and what it costs; `may`: if not only what stays apart."""
        may = may or self._stays_apart
        facts, found = self.facts, self._edges_now.get((size, elsewhere, may))
        if found is not None:
            return found
        self._edges_now[size, elsewhere, may] = found = Edges()
        takers = [n for n in facts.held if n in self._welcome and (facts.room(n, size) or self._over[n] >= 0)]
        for source in facts.held:  # who is full and has less than its share has made room already
            missing = {n for n in takers if n != source}
            for shelf in self._has.of_size(source, size):
                if not missing and not shelf.came:
                    continue  # no other costs less
                for to in [n for n in elsewhere(shelf.kind, source) if n in missing or (shelf.came and n in takers)]:
                    self._looks += 1
                    if may(shelf.any(), source, to):
                        edge = shelf.cheapest(to)
                        if (source, to) not in found or edge[0] < found[source, to][0]:
                            found[source, to] = edge
                        missing.discard(to)
        return found

    def _same_tier(self, kind: Kind, holder: NodeId) -> list[NodeId]:
        """Where a VIP may go that shall not be worse off."""
        tier = kind.tier_of.get(holder, kind.calm)
        return [n for n in kind.tiers[tier] if n != holder and n in self._welcome] if tier < kind.calm else []

    def _anyhow(self, _key: VipKey, _source: NodeId, _to: NodeId) -> bool:
        """Also where it is not apart."""
        return True

    def _any_tier(self, kind: Kind, holder: NodeId) -> list[NodeId]:
        """Where a VIP may go at all, but for members that something speaks against."""
        return [n for tier in kind.tiers[: kind.calm] for n in tier if n != holder and n in self._welcome]

    def _move(self, key: VipKey, to: NodeId) -> None:
        row, size = self.facts.rows[key], self.facts.size(key)
        source = self._holder(row)
        self.facts.move(key, source, to)
        self._over[source] -= size
        self._over[to] += size
        self._moved[key] = to
        if self._edges_now:
            self._edges_now.clear()
        self._has.move(row, source, to)


@dataclass(slots=True)
class _Shelf:
    """VIPs of one member that nothing tells apart: as they were, and those that came in this round, by whom they are from. The next
    to go is the last of a list. `stuck`: nobody takes them directly."""

    kind: Kind
    place: object
    fresh: list[VipKey] = field(default_factory=list)
    came: dict[NodeId, list[VipKey]] = field(default_factory=dict)
    stuck: bool = False

    def empty(self) -> bool:
        """Whether nothing is left."""
        return not self.fresh and not self.came

    def all(self) -> Iterator[VipKey]:
        """All of them."""
        yield from self.fresh
        for keys in self.came.values():
            yield from keys

    def any(self) -> VipKey:
        """One of them, to ask what is the same for all."""
        return self.fresh[-1] if self.fresh else next(iter(self.came.values()))[-1]

    def cheapest(self, to: NodeId) -> tuple[int, VipKey]:
        """Which of them to send there, and what it costs: one for a VIP's first move, nothing for a change of mind, and a
        move is saved if it stays after all."""
        if not self.came:
            return 1, self.fresh[-1]
        return (-1, self.came[to][-1]) if to in self.came else (0, next(iter(self.came.values()))[-1])

    def take(self, key: VipKey, holder: NodeId, node: NodeId) -> None:
        """It goes elsewhere. `holder`: whose it is; `node`: whose shelf this is."""
        keys = self.fresh if holder == node else self.came[holder]
        if keys[-1] == key:
            keys.pop()
        else:
            keys.remove(key)
        if not keys and keys is not self.fresh:
            del self.came[holder]

    def put(self, key: VipKey, holder: NodeId, node: NodeId) -> None:
        """It comes here, or comes back."""
        (self.fresh if holder == node else self.came.setdefault(holder, [])).append(key)


class _Shelves:
    """The VIPs that may move, of each member, by what they count, and by kind and group."""

    def __init__(self, facts: Placement, keys: Iterable[VipKey]) -> None:
        self._facts = facts
        self._of: dict[NodeId, dict[int, dict[object, _Shelf]]] = {n: {} for n in facts.held}
        for key in keys:
            holder = facts.rows[key].holder
            assert holder is not None
            self._shelf(key, holder).fresh.append(key)
        for _, shelf in self._all():
            shelf.fresh.reverse()

    def _shelf(self, key: VipKey, node: NodeId) -> _Shelf:
        facts = self._facts
        kind = facts.kind(key)
        return self._at(node, facts.size(key), (id(kind), facts.apart.get(key) if facts.apart else None), kind)

    def _at(self, node: NodeId, size: int, place: object, kind: Kind) -> _Shelf:
        of_node = self._of[node]
        if size not in of_node:
            of_node[size] = {}
        found = of_node[size].get(place)
        if found is None:
            found = of_node[size][place] = _Shelf(kind, place)
        return found

    def move(self, row: Row, source: NodeId, to: NodeId) -> None:
        """From one member to another."""
        assert row.holder is not None
        shelf = self._shelf(row.key, source)
        shelf.take(row.key, row.holder, source)
        self._at(to, self._facts.size(row.key), shelf.place, shelf.kind).put(row.key, row.holder, to)

    def _all(self) -> Iterator[tuple[NodeId, _Shelf]]:
        for node, sizes in self._of.items():
            for shelves in sizes.values():
                for shelf in shelves.values():
                    yield node, shelf

    def unstick(self) -> None:
        """Something changed: look at all of them again."""
        for _, shelf in self._all():
            shelf.stuck = False

    def sizes(self, node: NodeId) -> list[int]:
        """What a member's VIPs count for."""
        return [s for s, shelves in self._of[node].items() if any(not shelf.empty() for shelf in shelves.values())]

    def of_size(self, node: NodeId, size: int) -> Iterator[_Shelf]:
        """Those that are not empty, in the order of their first VIPs."""
        return (shelf for shelf in self._of[node].get(size, {}).values() if not shelf.empty())

    def astray(self) -> list[VipKey]:
        """Those that are not where they belong."""
        found = [(shelf.kind.tier_of.get(node), shelf) for node, shelf in self._all()]
        return sorted(key for tier, shelf in found if tier != 0 for key in shelf.all())


def _cheapest(edges: Edges, sources: Iterable[NodeId], sinks: Sequence[NodeId]) -> Chain:
    """The cheapest way from one of the sources to one of the sinks (Bellman and Ford's); () if there is none."""
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
    way: list[tuple[NodeId, VipKey | None, NodeId]] = []
    while to is not None and to in came:
        if len(way) > len(came):
            return ()  # it goes round and round
        way.append((came[to], edges[came[to], to][1], to))
        to = came[to]
    return way[::-1]
