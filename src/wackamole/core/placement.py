"""Who should hold what: one chain of filters and scorers that explains itself.

    not forbidden, not leaving, weight, room → nothing against it → not avoided → preferred → kept apart
        → furthest below its share → least for its share → node number

`fill` gives out what nobody holds and moves nothing else; `refuge` says where a VIP goes that has to leave its holder;
balancing.py lists the fewest moves that bring every VIP where it belongs and every member to its share. All are pure
functions of *delivered* facts, in integers, with the node id as the last tie-break, so that members who know the same compute
the same (hazard 9). `why` tells people what these very functions find.

What forbids was said by the member concerned in its Report, so it is the same for all whatever their configs say. What the
config alone says (preferences, what to avoid, groups, what a VIP counts for, and so how full a member is) is only read
where all configs are alike, or by the one member that places for all.

Scorers that do not change while VIPs are placed sort the members into *tiers*, best first; VIPs with the same tiers are of
one kind, and there are few kinds. So a choice looks at the members of one tier only, and thousands of VIPs take milliseconds.

A VIP counts as one or as many as it has addresses (`Count`); quotas, capacities and what is held are in what it counts. Counted
by addresses a share can be missed, but by less than the largest VIP: whoever takes is furthest below its quota, and if
somebody ended up further below than that, all others would have stopped at theirs and the sum would not come out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .electorate import quorate
from .model import By, Count, NodeId, NotEligible, Report, Row, Sharer, ShareRule, Shares, VipKey
from .quotas import Bounds, Goal, Quotas, goal
from .shares import RULES, by_weight

NodeNames = Mapping[VipKey, tuple[str, ...]]
BY_WEIGHT = Shares()


@dataclass(frozen=True, slots=True)
class Kind:
    """VIPs that nothing but their size and their group tells apart. `tiers`: who may hold them, best first, those in one
    tier equally well; of the first `calm` of them nothing speaks against any member."""

    tiers: tuple[tuple[NodeId, ...], ...]
    tier_of: Mapping[NodeId, int]
    calm: int

    @property
    def home(self) -> tuple[NodeId, ...]:
        """Where such VIPs belong."""
        return self.tiers[0] if self.tiers else ()


class Placement:
    """The facts of one moment, indexed. Nothing in here is changed but how much each holds, by `take` and `move`. `avoid`,
    `apart` and `hold`: whom a VIP should rather not have, its group, and VIPs that balance leaves alone."""

    def __init__(
        self,
        rows: Iterable[Row],
        reports: Iterable[Report],
        evicted: Iterable[NodeId] = (),
        prefer: NodeNames | None = None,
        count: Count = Count.VIPS,
        shares: Shares = BY_WEIGHT,
        *,
        avoid: NodeNames | None = None,
        apart: Mapping[VipKey, str] | None = None,
        hold: Iterable[VipKey] = (),
    ) -> None:
        self.count = count
        self.rows: dict[VipKey, Row] = {row.key: row for row in rows}
        gone = frozenset(evicted)
        self.reports: dict[NodeId, Report] = {
            r.node: r for r in sorted(reports, key=lambda r: r.node) if r.node not in gone
        }
        self.prefer: NodeNames = prefer or {}
        self.avoid: NodeNames = avoid or {}
        self.apart: Mapping[VipKey, str] = apart or {}
        self.hold = frozenset(hold)
        self.by = shares
        self._known = self._known_to_each()
        self._ineligible = {node: dict(r.ineligible) for node, r in self.reports.items()}
        chosen = Counter(key for r in self.reports.values() for key in r.chosen)
        self._chosen_twice = frozenset(key for key, times in chosen.items() if times > 1)
        self._quorate = quorate(self.reports.values())
        first: dict[str, NodeId] = {}
        for node, report in self.reports.items():
            first.setdefault(report.name, node)
        self._second = frozenset(n for n, r in self.reports.items() if first[r.name] != n)
        self.limits = {n: r.capacity for n, r in self.reports.items() if r.capacity is not None}
        self.held: dict[NodeId, int] = dict.fromkeys(self.reports, 0)
        self._letting_go = dict.fromkeys(self.reports, 0)
        self._together: dict[str, dict[NodeId, int]] = {}
        for row in self.rows.values():
            owner = row.target if row.target is not None else row.holder
            if owner in self.held:
                self.held[owner] += self.size(row.key)
                if self.apart:
                    self._count_in_group(row.key, owner, 1)
            if row.holder != owner and row.holder in self.held:
                self._letting_go[row.holder] += self.size(row.key)
        known = [r.load for r in self.reports.values() if r.load is not None]
        mean = sum(known) // len(known) if known else 0
        self.loads = {n: mean if r.load is None else r.load for n, r in self.reports.items()}
        """Hundredths; of who has announced none, the mean."""
        self._shares: dict[NodeId, int] | None = None
        self._scored: tuple[Quotas, dict[int, _Scores]] = ({}, {})
        self._marks = self._marked()
        self._sorted: tuple[dict[VipKey, Kind], Kind] | None = None
        self._counted: list[tuple[Kind, int]] | None = None

    def _known_to_each(self) -> dict[NodeId, frozenset[VipKey]]:
        """Most members know the same VIPs: one set for all of these."""
        found: dict[NodeId, frozenset[VipKey]] = {}
        known: tuple[VipKey, ...] = ()
        as_set: frozenset[VipKey] = frozenset()
        for node, report in self.reports.items():
            if report.known != known:
                known, as_set = report.known, frozenset(report.known)
            found[node] = as_set
        return found

    def size(self, key: VipKey) -> int:
        """What a VIP of the table counts for."""
        return len(self.rows[key].vip.addresses) if self.count is Count.ADDRESSES else 1

    # -- filters

    def why_not(self, node: NodeId, key: VipKey) -> NotEligible | None:
        """The first reason why `node` may not (`forbids`) or should rather not hold the VIP, or None; but for how full it
        is, which depends on the config."""
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

    def leavers(self) -> dict[VipKey, NotEligible]:
        """What its holder may not, or should rather not keep, and is to keep so far; and why. VIPs with the same marks have
        the same reasons, so each is looked for once."""
        found: dict[VipKey, NotEligible] = {}
        reasons: dict[tuple[int, NodeId], NotEligible | None] = {}
        for key, row in self.rows.items():
            holder = row.holder
            if holder is None or holder != row.target or holder not in self.reports:
                continue
            alike = (self._marks.get(key, 0), holder)
            if alike not in reasons:
                reasons[alike] = self.why_not(holder, key)
            if (why := reasons[alike]) is not None:
                found[key] = why
        return found

    def forbidden(self, node: NodeId, key: VipKey) -> bool:
        """True if there is a hard reason against it."""
        reason = self.why_not(node, key)
        return reason is not None and reason.forbids

    def able(self, key: VipKey) -> list[NodeId]:
        """Members that may take the VIP if they have room: no hard reason against them, not on their way out, weight above zero."""
        return [n for n, r in self.reports.items() if not r.leaving and r.weight > 0 and not self.forbidden(n, key)]

    def room(self, node: NodeId, size: int) -> bool:
        """Whether its capacity, if it has any, leaves so much; what it is still letting go of counts."""
        limit = self.limits.get(node)
        return limit is None or self.held[node] + self._letting_go[node] + size <= limit

    def _full_for(self, size: int) -> frozenset[NodeId]:
        """Who has no room for so much."""
        held, going = self.held, self._letting_go
        return frozenset([n for n, limit in self.limits.items() if held[n] + going[n] + size > limit])

    def room_to_come(self, node: NodeId, size: int) -> bool:
        """The same once it has let go of everything that goes elsewhere."""
        limit = self.limits.get(node)
        return limit is None or self.held[node] + size <= limit

    def overfull(self, node: NodeId) -> bool:
        """Whether it has more than its capacity, as when that was lowered."""
        limit = self.limits.get(node)
        return limit is not None and self.held[node] > limit

    def full(self, node: NodeId, key: VipKey) -> bool:
        """Whether it has no room for a VIP of the table that it does not have."""
        row = self.rows[key]
        return node not in (row.holder, row.target) and not self.room(node, self.size(key))

    def candidates(self, key: VipKey) -> list[NodeId]:
        """Members that may take the VIP now."""
        return [n for n in self.able(key) if not self.full(n, key)]

    # -- the chain

    def kind(self, key: VipKey) -> Kind:
        """What tells this VIP from others."""
        kinds, usual = self._sorted_out()
        return kinds.get(key, usual)

    def _marked(self) -> dict[VipKey, int]:
        """What members say of VIPs: a bit for each that says so, and why."""
        marks: dict[VipKey, int] = {}
        bits: dict[tuple[NodeId, NotEligible | None], int] = {}

        def bit(node: NodeId, why: NotEligible | None) -> int:
            return bits.setdefault((node, why), 1 << len(bits))

        for node, report in self.reports.items():
            last, mark = None, 0
            for key, why in report.ineligible:
                if why is not last:
                    last, mark = why, bit(node, why)
                marks[key] = marks.get(key, 0) | mark
        unknown: dict[int, frozenset[VipKey]] = {}
        for node, known in self._known.items():
            if id(known) not in unknown:
                unknown[id(known)] = frozenset(self.rows.keys() - known)
            for key in unknown[id(known)]:
                marks[key] = marks.get(key, 0) | bit(node, None)
        for key, row in self.rows.items():
            for node, _ in row.releasing:
                marks[key] = marks.get(key, 0) | bit(node, NotEligible.RELEASING)
        for key in self._chosen_twice:
            marks[key] = marks.get(key, 0) | bit(NodeId(0), NotEligible.CHOSEN_TWICE)
        return marks

    def _sorted_out(self) -> tuple[dict[VipKey, Kind], Kind]:
        """The kinds of VIPs that something is said of, and the kind of all others; made when first asked for. The chain is
        run for one VIP of each."""
        if self._sorted is None:
            self._sorted = self._sort_out()
        return self._sorted

    def _sort_out(self) -> tuple[dict[VipKey, Kind], Kind]:
        marks = self._marks
        kinds: dict[tuple[int, tuple[str, ...], tuple[str, ...]], Kind] = {}
        found: dict[VipKey, Kind] = {}
        for key in {**marks, **self.prefer, **self.avoid}:
            if key in self.rows:
                said = marks.get(key, 0), self.prefer.get(key, ()), self.avoid.get(key, ())
                if said not in kinds:
                    kinds[said] = self._kind_of(key)
                found[key] = kinds[said]
        usual = next((key for key in self.rows if key not in found), None) if len(found) < len(self.rows) else None
        return found, self._kind_of(usual) if usual is not None else Kind((), {}, 0)

    def _kind_of(self, key: VipKey) -> Kind:
        tiers: dict[tuple[int, ...], list[NodeId]] = {}
        for node in self.able(key):
            tiers.setdefault(tuple(score(self, node, key, {}) for _, score in BY_WISH), []).append(node)
        ordered = sorted(tiers)
        return Kind(
            tuple(tuple(tiers[scores]) for scores in ordered),
            {node: i for i, scores in enumerate(ordered) for node in tiers[scores]},
            sum(scores[0] == 0 for scores in ordered),
        )

    def choose(
        self, key: VipKey, quotas: Quotas, but: NodeId | None = None, tiers_max: int | None = None
    ) -> NodeId | None:
        """The best candidate (other than `but`; of the first `tiers_max` tiers), or None if there is none. The same as the
        last of `steps` leaves."""
        full = self._full_for(self.size(key)) if self.limits else ()
        for tier in self.kind(key).tiers[:tiers_max]:
            left: Sequence[NodeId] = tier
            if self.limits or but is not None:
                left = [n for n in tier if n != but and n not in full]
            if left:
                return self.best(left, key, quotas)
        return None

    def best(self, among: Sequence[NodeId], key: VipKey, quotas: Quotas) -> NodeId:
        """Of members in one tier the one that the other scorers leave."""
        if key in self.apart:
            counts = self._together.get(self.apart[key], {})
            fewest = min([counts.get(n, 0) for n in among])
            among = [n for n in among if counts.get(n, 0) == fewest]
        return min(among, key=self._scores(key, quotas).__getitem__)

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

    def _scores(self, key: VipKey, quotas: Quotas) -> _Scores:
        if self._scored[0] is not quotas:
            self._scored = (quotas, {})
        scores = self._scored[1]
        size = self.size(key)
        if size not in scores:
            scores[size] = _Scores(self, key, quotas)
        return scores[size]

    # -- what changes while VIPs are placed

    def take(self, node: NodeId, key: VipKey) -> None:
        """Count one more VIP for `node`."""
        self._hold(node, key, 1)

    def move(self, key: VipKey, source: NodeId, to: NodeId) -> None:
        """Count a VIP, and what of the load may be its own, for `to` and no more for `source`."""
        size = self.size(key)
        if self.by.follows_load:
            part = self.loads[source] * size // max(1, size, self.held[source])
            self.loads[source] -= part
            self.loads[to] += part
        self._hold(source, key, -1)
        self._hold(to, key, 1)
        holder = self.rows[key].holder  # a VIP may move more than once, and back, before anything happens
        if source == holder:
            self._letting_go[source] += size
        elif to == holder:
            self._letting_go[to] -= size

    def _hold(self, node: NodeId, key: VipKey, times: int) -> None:
        self.held[node] += times * self.size(key)
        if self.apart:
            self._count_in_group(key, node, times)
        if self._scored[1]:
            for scores in self._scored[1].values():
                scores.pop(node, None)

    def _count_in_group(self, key: VipKey, node: NodeId, times: int) -> None:
        group = self.apart.get(key)
        if group is not None:
            counts = self._together.setdefault(group, {})
            counts[node] = counts.get(node, 0) + times

    def of_group(self, key: VipKey, node: NodeId) -> int:
        """How many VIPs of this one's group a member has."""
        group = self.apart.get(key)
        return self._together.get(group, {}).get(node, 0) if group is not None else 0

    # -- shares

    def shares(self) -> dict[NodeId, int]:
        """Each member's share as the rule says it; by weight, if that cannot tell."""
        if self._shares is None:
            self._shares = self._shares_by(self.by.rule if self.by.by is By.ENTRY_POINT else RULES[self.by.by])
        return self._shares

    def _shares_by(self, rule: ShareRule | None) -> dict[NodeId, int]:
        sharers = tuple(Sharer(r.name, r.weight, r.load, self.held[n]) for n, r in self.reports.items())
        found = rule(sharers) if rule is not None else None
        return dict(zip(self.reports, by_weight(sharers) if found is None else found, strict=True))

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
        """Every VIP counts for those where it belongs; where these have no room, for all that may have it."""
        least, most, at_all = (dict.fromkeys(self.reports, 0) for _ in range(3))
        total = 0
        for kind, amount in self._amounts():
            total += amount if kind.tiers else 0
            for node in kind.home:
                most[node] += amount
            if len(kind.home) == 1:
                least[kind.home[0]] += amount
            for node in kind.tier_of:
                at_all[node] += amount
        for node, limit in self.limits.items():
            for bound in (least, most, at_all):
                bound[node] = min(bound[node], limit)
        if sum(most.values()) < total:
            least, most = most, at_all
            total = min(total, sum(most.values()))
        part = {n: share[n] if most[n] else 0 for n in self.reports}
        if not any(part.values()):  # a rule that gives nobody anything
            by_its_weight = self._shares_by(by_weight)
            part = {n: by_its_weight[n] if most[n] else 0 for n in self.reports}
        return goal(total, part, {n: Bounds(least[n], most[n]) for n in self.reports}, self.held)

    def _amounts(self) -> list[tuple[Kind, int]]:
        """What the VIPs of each kind count for."""
        if self._counted is None:
            amounts: dict[int, tuple[Kind, int]] = {}
            kinds, usual = self._sorted_out()
            for key, kind in kinds.items():
                amounts[id(kind)] = (kind, amounts.get(id(kind), (kind, 0))[1] + self.size(key))
            rest = sum(self.size(key) for key in self.rows if key not in kinds)
            self._counted = [*amounts.values(), (usual, rest)]
        return self._counted

    def overflow(self) -> list[VipKey]:
        """VIPs that members have beyond their capacities: first those that can go elsewhere, then
        those that do not belong there, then the last by name."""
        found: list[VipKey] = []
        for node, limit in self.limits.items():
            if not self.overfull(node):
                continue
            too_much = self.held[node] - limit
            mine = [k for k, row in sorted(self.rows.items()) if row.holder == row.target == node and not row.releasing]
            quotas = self.quotas()
            mine.sort(key=lambda k: (self.choose(k, quotas, but=node) is None, node in self.kind(k).home))
            for key in mine:
                if too_much <= 0:
                    break
                found.append(key)
                too_much -= self.size(key)
        return found


class _Scores(dict[NodeId, tuple[int, int, NodeId]]):
    """What the scorers of shares say of members and VIPs of one size, computed when it is asked for."""

    def __init__(self, facts: Placement, key: VipKey, quotas: Quotas) -> None:
        super().__init__()
        self._of = facts, key, quotas

    def __missing__(self, node: NodeId) -> tuple[int, int, NodeId]:
        facts, key, quotas = self._of
        found = self[node] = _by_share(facts, node, key, quotas)
        return found


@dataclass(frozen=True, slots=True)
class Step:
    """One scorer's word: the score of each member that was left, least is best, and who is left by it."""

    scorer: str
    scores: tuple[tuple[NodeId, int], ...]
    left: tuple[NodeId, ...]


def _objection(facts: Placement, node: NodeId, key: VipKey, _quotas: Quotas) -> int:
    reason = facts.why_not(node, key)
    # who is drained serves, who is sick may not
    return 0 if reason is None else 1 if reason is NotEligible.DRAINING else 2


def _avoided(facts: Placement, node: NodeId, key: VipKey, _quotas: Quotas) -> int:
    return int(facts.reports[node].name in facts.avoid.get(key, ()))


def _wish(facts: Placement, node: NodeId, key: VipKey, _quotas: Quotas) -> int:
    preferred, name = facts.prefer.get(key, ()), facts.reports[node].name
    return preferred.index(name) if name in preferred else len(preferred)


def _together(facts: Placement, node: NodeId, key: VipKey, _quotas: Quotas) -> int:
    return facts.of_group(key, node)


def _by_share(facts: Placement, node: NodeId, key: VipKey, quotas: Quotas) -> tuple[int, int, NodeId]:
    """What the scorers of shares say, in one: this is asked thousands of times."""
    held, share = facts.held[node], facts.shares()[node]
    above = held - quotas.get(node, 0)
    fullness = (held + facts.size(key)) * 72_072_000 // share if share else 1 << 62
    return (above if above < 0 else 0), fullness, node


def _below(facts: Placement, node: NodeId, key: VipKey, quotas: Quotas) -> int:
    return _by_share(facts, node, key, quotas)[0]


def _fullness(facts: Placement, node: NodeId, key: VipKey, quotas: Quotas) -> int:
    return _by_share(facts, node, key, quotas)[1]


def _number(facts: Placement, node: NodeId, key: VipKey, quotas: Quotas) -> int:
    return _by_share(facts, node, key, quotas)[2]


Scorers = tuple[tuple[str, Callable[[Placement, NodeId, VipKey, Quotas], int]], ...]
BY_WISH: Scorers = (("nothing against it", _objection), ("not avoided", _avoided), ("preferred", _wish))
BY_SHARE: Scorers = (("below its share", _below), ("least for its share", _fullness), ("first by number", _number))
SCORERS: Scorers = (*BY_WISH, ("kept apart", _together), *BY_SHARE)
"""In this order; each leaves those with the least score to the next."""


def busy(rows: Iterable[Row]) -> set[str]:
    """Addresses that are held, or being let go of, under any definition (hazard 8)."""
    return {a.ip for row in rows if row.holder is not None or row.releasing for a in row.vip.addresses}


def free(row: Row, busy: set[str]) -> bool:
    """Whether a VIP may be given out: none of its addresses is busy."""
    return not any(a.ip in busy for a in row.vip.addresses)


def shared(rows: Iterable[Row]) -> dict[str, list[VipKey]]:
    """The addresses that more than one row has, and whose."""
    first: dict[str, VipKey] = {}
    found: dict[str, list[VipKey]] = {}
    for row in rows:
        for address in row.vip.addresses:
            if (other := first.setdefault(address.ip, row.key)) is not row.key:
                found.setdefault(address.ip, [other]).append(row.key)
    return found


def orphans(placement: Placement) -> list[tuple[Kind, list[VipKey]]]:
    """What is free and somebody may hold, in the order in which it is given out: who has fewer members to go to first, as
    others can go around it; then what counts most; then what is to be kept apart; then those of a kind."""
    taken = busy(placement.rows.values())
    of_kind: dict[tuple[int, int, bool], tuple[Kind, list[VipKey]]] = {}
    for key in sorted(placement.rows):
        row = placement.rows[key]
        if row.holder is None and (not taken or free(row, taken)):
            kind = placement.kind(key)
            alike = (id(kind), placement.size(key), key in placement.apart)
            if alike not in of_kind:
                of_kind[alike] = (kind, [])
            of_kind[alike][1].append(key)
    waiting = [(kind, keys) for kind, keys in of_kind.values() if kind.tiers]
    return sorted(
        waiting,
        key=lambda of: (len(of[0].home), -placement.size(of[1][0]), of[1][0] not in placement.apart, of[1][0]),
    )


def fill(placement: Placement) -> list[tuple[VipKey, NodeId]]:
    """Give every free orphan with a candidate to one; nothing else moves."""
    waiting = orphans(placement)
    if not waiting:
        return []
    quotas = placement.quotas()
    given: list[tuple[VipKey, NodeId]] = []
    once, twice = set[str](), set[str]()  # addresses, and those that two orphans have
    for ip in [a.ip for _, keys in waiting for key in keys for a in placement.rows[key].vip.addresses]:
        (twice if ip in once else once).add(ip)
    taken: set[str] = set()
    for kind, keys in waiting:
        chosen = _choices(placement, kind, keys, quotas)
        for key in keys:
            if twice and not free(placement.rows[key], taken):
                continue
            node = next(chosen) if key not in placement.apart else placement.choose(key, quotas)
            if node is not None:
                given.append((key, node))
                placement.take(node, key)
                if twice:
                    taken.update(a.ip for a in placement.rows[key].vip.addresses)
    return given


def _choices(placement: Placement, kind: Kind, keys: Sequence[VipKey], quotas: Quotas) -> Iterator[NodeId | None]:
    """What `choose` says of VIPs of one kind and size, one after the other, while members only take: those that are equally
    far below their shares take one each, in their order, before anybody takes a second."""
    key, size = keys[0], placement.size(keys[0])
    for tier in kind.tiers:
        ranked = {node: _by_share(placement, node, key, quotas) for node in tier}
        while ranked:
            best = min(ranked.values())
            turn = sorted([s for s in ranked.values() if s[0] == best[0]]) if best[0] < 0 else [best]
            for _, _, node in turn:
                if placement.room(node, size):
                    yield node
                    ranked[node] = _by_share(placement, node, key, quotas)
                else:
                    del ranked[node]
    while True:
        yield None


def refuge(placement: Placement, key: VipKey, quotas: Quotas) -> NodeId | None:
    """Where a VIP goes that its holder must or should let go: a candidate other than the holder that nothing speaks
    against; if the holder may not keep it, also one that is drained. None: nobody."""
    holder = placement.rows[key].holder
    keeps = holder is not None and not placement.forbidden(holder, key) and not placement.overfull(holder)
    return placement.choose(key, quotas, but=holder, tiers_max=placement.kind(key).calm if keeps else None)
