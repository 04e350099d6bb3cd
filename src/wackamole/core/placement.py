"""Who should hold what: one chain of filters and scorers that explains itself, used three ways.

    not forbidden, not leaving, weight → nothing against it → preferred → furthest below its share → node number

`fill` gives out what nobody holds and moves nothing else; `refuge` says where a VIP goes that has to leave its holder;
`balance` lists the fewest moves that bring every member to its share. All are pure functions of *delivered* facts, in
integers, with the node id as the last tie-break, so that members who know the same compute the same (hazard 9). `why` tells
people what these very functions find.

A member's share is its quota of all VIPs (Hamilton's method: floor, and the rest one by one), by weight, or by another rule
of shares.py, so no member is ever a whole VIP away from its exact proportion. Who gets the remainders is open; it goes to
those who already have more, because that saves moves.

A VIP counts as one or as many as it has addresses (`Count`); quotas and what is held are in what it counts. Counted by
addresses a share can be missed, but by less than the largest VIP: whoever takes is furthest below its quota, and if
somebody ended up further below than that, all others would have stopped at theirs and the sum would not come out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from .electorate import quorate
from .model import By, Count, NodeId, NotEligible, Report, Row, Sharer, ShareRule, Shares, VipKey
from .shares import RULES, by_weight, relieves

Preferences = Mapping[VipKey, tuple[str, ...]]
Quotas = Mapping[NodeId, int]
BY_WEIGHT = Shares()


class Placement:
    """The facts of one moment, indexed. Nothing in here is changed but how much each holds, by `take` and `move`."""

    def __init__(
        self,
        rows: Iterable[Row],
        reports: Iterable[Report],
        evicted: Iterable[NodeId] = (),
        prefer: Preferences | None = None,
        count: Count = Count.VIPS,
        shares: Shares = BY_WEIGHT,
    ) -> None:
        self.count = count
        self.rows: dict[VipKey, Row] = {row.key: row for row in rows}
        gone = frozenset(evicted)
        self.reports: dict[NodeId, Report] = {
            r.node: r for r in sorted(reports, key=lambda r: r.node) if r.node not in gone
        }
        self.prefer: Preferences = prefer or {}
        self.by = shares
        self._known = {node: frozenset(r.known) for node, r in self.reports.items()}
        self._ineligible = {node: dict(r.ineligible) for node, r in self.reports.items()}
        chosen = Counter(key for r in self.reports.values() for key in r.chosen)
        self._chosen_twice = frozenset(key for key, times in chosen.items() if times > 1)
        self._quorate = quorate(self.reports.values())
        first: dict[str, NodeId] = {}
        for node, report in self.reports.items():
            first.setdefault(report.name, node)
        self._second = frozenset(n for n, r in self.reports.items() if first[r.name] != n)
        self.held: dict[NodeId, int] = dict.fromkeys(self.reports, 0)
        for row in self.rows.values():
            owner = row.target if row.target is not None else row.holder
            if owner in self.held:
                self.held[owner] += self.size(row.key)
        known = [r.load for r in self.reports.values() if r.load is not None]
        mean = sum(known) // len(known) if known else 0
        self.loads = {n: mean if r.load is None else r.load for n, r in self.reports.items()}
        """Hundredths; of who has announced none, the mean."""
        self._shares: dict[NodeId, int] | None = None

    def size(self, key: VipKey) -> int:
        """What a VIP of the table counts for."""
        return len(self.rows[key].vip.addresses) if self.count is Count.ADDRESSES else 1

    def why_not(self, node: NodeId, key: VipKey) -> NotEligible | None:
        """The first reason why `node` may not (`forbids`) or should rather not hold the VIP, or None."""
        report = self.reports.get(node)
        if report is None:
            return NotEligible.EVICTED
        if not self._quorate:
            return NotEligible.NO_MAJORITY
        if key not in self._known[node]:
            return NotEligible.UNKNOWN_VIP
        if node in self._second:
            return NotEligible.SAME_NAME
        reason = self._ineligible[node].get(key)
        if reason is not None and reason.forbids:
            return reason
        row = self.rows.get(key)
        if row is not None and any(n == node for n, _ in row.releasing):
            return NotEligible.RELEASING
        if key in self._chosen_twice:
            return NotEligible.CHOSEN_TWICE
        if reason is None and (report.draining or report.leaving):
            return NotEligible.DRAINING
        return reason

    def forbidden(self, node: NodeId, key: VipKey) -> bool:
        """True if there is a hard reason against it."""
        reason = self.why_not(node, key)
        return reason is not None and reason.forbids

    def shares(self) -> dict[NodeId, int]:
        """Each member's share as the rule says it; by weight, if that cannot tell."""
        if self._shares is None:
            self._shares = self._shares_by(self.by.rule if self.by.by is By.ENTRY_POINT else RULES[self.by.by])
        return self._shares

    def _shares_by(self, rule: ShareRule | None) -> dict[NodeId, int]:
        sharers = tuple(Sharer(r.name, r.weight, r.load, self.held[n]) for n, r in self.reports.items())
        found = rule(sharers) if rule is not None else None
        return dict(zip(self.reports, by_weight(sharers) if found is None else found, strict=True))

    def candidates(self, key: VipKey) -> list[NodeId]:
        """Members that may take the VIP: no hard reason against them, not on their way out, capacity above zero."""
        return [n for n, r in self.reports.items() if not r.leaving and r.weight > 0 and not self.forbidden(n, key)]

    def choose(self, key: VipKey, quotas: Quotas) -> NodeId | None:
        """The best candidate, or None if there is none."""
        return self.best(self.candidates(key), key, quotas)

    def best(self, among: Sequence[NodeId], key: VipKey, quotas: Quotas) -> NodeId | None:
        """The one that the scorers leave; None of nobody."""
        left = among
        for step in self.steps(among, key, quotas):
            left = step.left
        return left[0] if left else None

    def steps(self, among: Sequence[NodeId], key: VipKey, quotas: Quotas) -> Iterator[Step]:
        """What each scorer in turn says of those that the one before has left, and whom it leaves."""
        left = tuple(among)
        for name, score in SCORERS:
            if len(left) < 2:
                return
            scores = tuple((n, score(self, n, key, quotas)) for n in left)
            least = min(found for _, found in scores)
            left = tuple(n for n, found in scores if found == least)
            yield Step(name, scores, left)

    def take(self, node: NodeId, key: VipKey) -> None:
        """Count one more VIP for `node`."""
        self.held[node] += self.size(key)

    def move(self, key: VipKey, source: NodeId, to: NodeId) -> None:
        """Count a VIP, and what of the load may be its own, for `to` and no more for `source`."""
        size = self.size(key)
        part = self.loads[source] * size // max(1, size, self.held[source])
        self.loads[source] -= part
        self.loads[to] += part
        self.held[source] -= size
        self.take(to, key)

    def sharing(self) -> list[Report]:
        """Who has a share: not who is drained, leaving or has weight 0, unless all are."""
        able = [r for r in self.reports.values() if r.weight > 0 and not r.leaving]
        return [r for r in able if not r.draining] or able

    def quotas(self) -> Quotas:
        """Each member's fair share of what the VIPs count, in whole numbers."""
        return self.goal().quotas

    def goal(self) -> Goal:
        """What balance is after."""
        return self._goal_by(self.shares())

    def goal_without_load(self) -> Goal:
        """The same, if nobody looked at the loads."""
        return self._goal_by(self._shares_by(by_weight)) if self.by.follows_load else self.goal()

    def _goal_by(self, share: Mapping[NodeId, int]) -> Goal:
        sharing = self.sharing()
        if not any(share[r.node] for r in sharing):  # a rule that gives nobody anything
            share = self._shares_by(by_weight)
        total = sum(self.size(key) for key in self.rows if any(not self.forbidden(r.node, key) for r in sharing))
        part = {r.node: share[r.node] for r in sharing}
        whole = sum(part.values())
        if not whole:
            return Goal({}, {}, 0)
        quotas = {n: total * share // whole for n, share in part.items()}
        rest = total - sum(quotas.values())
        remainder = {n: total * share % whole for n, share in part.items()}
        for node in sorted(
            (n for n in quotas if remainder[n]),
            key=lambda n: (-(self.held[n] > quotas[n]), -remainder[n], n),
        )[:rest]:
            quotas[node] += 1
        return Goal(quotas, part, total)


@dataclass(frozen=True, slots=True)
class Goal:
    """Quotas in whole numbers, and the exact proportions that they come from: each one's part of the `total`."""

    quotas: Quotas
    part: Mapping[NodeId, int]
    total: int

    @property
    def whole(self) -> int:
        """Of which the parts are parts."""
        return sum(self.part.values())

    def above(self, node: NodeId, held: int) -> int:
        """By how much this is more than its quota."""
        return held - self.quotas.get(node, 0)

    def beyond(self, node: NodeId, held: int) -> int:
        """The same of its exact proportion, times the whole."""
        return held * self.whole - self.total * self.part.get(node, 0)


@dataclass(frozen=True, slots=True)
class Step:
    """One scorer's word: the score of each member that was left, least is best, and who is left by it."""

    scorer: str
    scores: tuple[tuple[NodeId, int], ...]
    left: tuple[NodeId, ...]


def _objection(facts: Placement, node: NodeId, key: VipKey, _quotas: Quotas) -> int:
    reason = facts.why_not(node, key)
    return (
        0 if reason is None else 1 if reason is NotEligible.DRAINING else 2
    )  # who is drained serves, who is sick may not


def _wish(facts: Placement, node: NodeId, key: VipKey, _quotas: Quotas) -> int:
    preferred, name = facts.prefer.get(key, ()), facts.reports[node].name
    return preferred.index(name) if name in preferred else len(preferred)


def _below(facts: Placement, node: NodeId, _key: VipKey, quotas: Quotas) -> int:
    return min(facts.held[node] - quotas.get(node, 0), 0)


def _fullness(facts: Placement, node: NodeId, key: VipKey, _quotas: Quotas) -> int:
    share = facts.shares()[node]
    return (facts.held[node] + facts.size(key)) * 72_072_000 // share if share else 1 << 62


def _number(_facts: Placement, node: NodeId, _key: VipKey, _quotas: Quotas) -> int:
    return node


SCORERS: tuple[tuple[str, Callable[[Placement, NodeId, VipKey, Quotas], int]], ...] = (
    ("nothing against it", _objection),
    ("preferred", _wish),
    ("below its share", _below),
    ("least for its share", _fullness),
    ("first by number", _number),
)
"""In this order; each leaves those with the least score to the next."""


def free(row: Row, rows_by_ip: Mapping[str, Sequence[Row]]) -> bool:
    """Whether a VIP may be given out: none of its addresses is held, or being let go of, under any definition (hazard 8)."""
    return all(
        other.holder is None and not other.releasing
        for address in row.vip.addresses
        for other in rows_by_ip[address.ip]
    )


def by_ip(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Index rows by address."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for address in row.vip.addresses:
            found.setdefault(address.ip, []).append(row)
    return found


def fill(placement: Placement) -> list[tuple[VipKey, NodeId]]:
    """Give every free orphan with a candidate to one; nothing else moves. What counts most comes first, then in order of
    the keys."""
    index = by_ip(placement.rows.values())
    orphans = sorted(
        (k for k, row in placement.rows.items() if row.holder is None and free(row, index)),
        key=lambda k: (-placement.size(k), k),
    )
    if not orphans:
        return []
    quotas = placement.quotas()
    given: list[tuple[VipKey, NodeId]] = []
    taken: set[str] = set()
    for key in orphans:
        ips = {a.ip for a in placement.rows[key].vip.addresses}
        if ips & taken:
            continue
        node = placement.choose(key, quotas)
        if node is not None:
            given.append((key, node))
            placement.take(node, key)
            taken |= ips
    return given


def refuge(placement: Placement, key: VipKey, quotas: Quotas) -> NodeId | None:
    """Where a VIP goes that its holder must or should let go: a candidate other than the holder that nothing speaks
    against; if the holder may not keep it, also one that is drained. None: nobody."""
    row = placement.rows[key]
    others = [n for n in placement.candidates(key) if n != row.holder]
    if row.holder is not None and not placement.forbidden(row.holder, key):
        others = [n for n in others if placement.why_not(n, key) is None]
    return placement.best(others, key, quotas)


class Stays(Enum):
    """Why balance leaves a VIP with its holder, or does not give it to a member."""

    UNDER_WAY = "it is on its way, or its holder is not in the group"
    OPERATOR = "an operator put it there (until `balance`)"
    PREFERENCE = "a preference decides where it is"
    SHARE_KEPT = "its holder has no more than its share"
    HOLDER = "it has it"
    FRESH = "it has not been a member for long enough"
    SHARE_FULL = "it has its share"
    NO_CLOSER = "the VIP counts for more than what the two are apart"
    NO_RELIEF = "it would be loaded hardly less than the holder"
    LOADS_FOLLOW = "only the loads ask for it, and they must first follow the last move"


def balance(
    placement: Placement,
    onto: Iterable[NodeId] | None = None,
    moves_max: int | None = None,
    for_load: int = 0,
) -> list[tuple[VipKey, NodeId]]:
    """The fewest moves after which every VIP is where it is preferred and every member has its share, as far as
    eligibility allows; `onto`: only to these, and of at most `moves_max` VIPs (None: all); `for_load`: at most so many moves
    that weights alone would not ask for. In-flight, sticky and orphaned VIPs stay as they are.

    Where VIPs count differently it may not be the fewest: that is the knapsack problem. Every move brings two members closer
    to their exact proportions, so it ends, and wherever a round of few moves stops the next one goes on."""
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
        self._welcome = frozenset(placement.reports if onto is None else onto)
        self._settled: set[VipKey] = set()  # by a preference where it is
        self._moved: dict[VipKey, NodeId] = {}
        movable = [row for _, row in sorted(placement.rows.items()) if self.fixed(row) is None]
        for row in movable:
            self._to_preferred(row, moves_max)
        has: dict[NodeId, dict[int, list[Row]]] = {n: {} for n in placement.held}
        for row in movable:
            if row.key not in self._settled and row.holder is not None:
                has[row.holder].setdefault(placement.size(row.key), []).append(row)
        while len(self._moved) != moves_max:
            if not self._one_move(has) and not self._new_goal():
                break
        self.moves = [(key, to) for key, to in self._moved.items() if to != placement.rows[key].holder]

    def fixed(self, row: Row) -> Stays | None:
        """Why this VIP is none of balance's business."""
        if row.holder is None or row.holder != row.target or row.holder not in self.facts.held or row.releasing:
            return Stays.UNDER_WAY
        return Stays.OPERATOR if row.sticky else None

    def keeps(self, row: Row) -> Stays | None:
        """Why its holder need not give this VIP away, as of now."""
        if row.key in self._settled:
            return Stays.PREFERENCE
        return None if self._above(self._holder(row)) > 0 else Stays.SHARE_KEPT

    def refuses(self, row: Row, to: NodeId) -> Stays | NotEligible | None:
        """Why this VIP does not go there for the sake of shares, as of now."""
        facts, holder, size = self.facts, self._holder(row), self.facts.size(row.key)
        if to == holder:
            return Stays.HOLDER
        if to not in self._welcome:
            return Stays.FRESH
        if self._above(to) >= 0:
            return Stays.SHARE_FULL
        if not self._closer(self._goal, size, holder, to):
            return Stays.NO_CLOSER
        reason = facts.why_not(to, row.key)
        if reason is not None:
            return reason
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

    def _to_preferred(self, row: Row, moves_max: int | None) -> None:
        facts = self.facts
        preferred = facts.prefer.get(row.key, ())
        if not preferred:
            return
        able = {facts.reports[n].name: n for n in facts.candidates(row.key) if facts.why_not(n, row.key) is None}
        best = next((able[name] for name in preferred if name in able), None)
        if best is None:
            return
        self._settled.add(row.key)  # a preference is not for balance to undo
        if best != row.holder and best in self._welcome and len(self._moved) != moves_max:
            self._move(row, best)

    def _new_goal(self) -> bool:
        """Whether the remainders go to others now."""
        before = self._goal, self._without_load
        self._goal, self._without_load = self.facts.goal(), self.facts.goal_without_load()
        return (self._goal, self._without_load) != before

    def _one_move(self, has: Mapping[NodeId, dict[int, list[Row]]]) -> bool:
        """From who has most too much, the VIP that comes closest to half of what divides it from who has most too little."""
        held, goal = self.facts.held, self._goal
        above = {n: self._above(n) for n in held}
        least = min((goal.beyond(n, held[n]) for n in held), default=0)
        for source in sorted((n for n in held if above[n] > 0), key=lambda n: (-above[n], n)):
            apart = goal.beyond(source, held[source]) - least
            sizes = (s for s in has[source] if s * goal.whole < apart)
            for size in sorted(sizes, key=lambda s: (abs(2 * s * goal.whole - apart), s)):
                for row in has[source][size]:
                    able = [n for n in self.facts.candidates(row.key) if self.refuses(row, n) is None]
                    if not able:
                        continue
                    to = min(able, key=lambda n: (above[n], n))
                    if self.facts.by.follows_load and self._only_load_asks(size, source, to):
                        self._for_load -= 1
                    self._move(row, to)
                    has[source][size].remove(row)
                    has[to].setdefault(size, []).append(row)
                    return True
        return False

    def _move(self, row: Row, to: NodeId) -> None:
        self.facts.move(row.key, self._holder(row), to)
        self._moved[row.key] = to
