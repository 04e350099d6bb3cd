"""Who should hold what: one explainable chain, used three ways.

    eligible → not drained → preferred → furthest below its share → stable tie-break

`fill` gives out what nobody holds and moves nothing else; `refuge` says where a VIP goes that has to leave its holder;
`balance` lists the fewest moves that bring every member to its share. All are pure functions of *delivered* facts, in
integers, with the node id as the last tie-break, so that members who know the same compute the same (hazard 9).

A member's share is its quota of all VIPs by weight (Hamilton's method: floor, and the rest one by one), so no member is
ever a whole VIP away from its exact proportion. Who gets the remainders is open; it goes to those who already have
more, because that saves moves.

A VIP counts as one or as many as it has addresses (`Count`); quotas and loads are in what it counts. Counted by
addresses a share can be missed, but by less than the largest VIP: whoever takes is furthest below its quota, and if
somebody ended up further below than that, all others would have stopped at theirs and the sum would not come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .electorate import quorate
from .model import Count, NodeId, NotEligible, Report, Row, VipKey

Preferences = Mapping[VipKey, tuple[str, ...]]


class Placement:
    """The facts of one moment, indexed. Nothing in here is changed but the loads, by `take` and `move`."""

    def __init__(
        self,
        rows: Iterable[Row],
        reports: Iterable[Report],
        evicted: Iterable[NodeId] = (),
        prefer: Preferences | None = None,
        count: Count = Count.VIPS,
    ) -> None:
        self.count = count
        self.rows: dict[VipKey, Row] = {row.key: row for row in rows}
        gone = frozenset(evicted)
        self.reports: dict[NodeId, Report] = {
            r.node: r for r in sorted(reports, key=lambda r: r.node) if r.node not in gone
        }
        self.prefer: Preferences = prefer or {}
        self._known = {node: frozenset(r.known) for node, r in self.reports.items()}
        self._ineligible = {node: dict(r.ineligible) for node, r in self.reports.items()}
        self._quorate = quorate(self.reports.values())
        first: dict[str, NodeId] = {}
        for node, report in self.reports.items():
            first.setdefault(report.name, node)
        self._second = frozenset(n for n, r in self.reports.items() if first[r.name] != n)
        self.loads: dict[NodeId, int] = dict.fromkeys(self.reports, 0)
        for row in self.rows.values():
            owner = row.target if row.target is not None else row.holder
            if owner in self.loads:
                self.loads[owner] += self.size(row.key)

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
        if report.draining or report.leaving:
            return NotEligible.DRAINING
        return reason

    def forbidden(self, node: NodeId, key: VipKey) -> bool:
        """True if there is a hard reason against it."""
        reason = self.why_not(node, key)
        return reason is not None and reason.forbids

    def _rank(self, node: NodeId, key: VipKey, quotas: Mapping[NodeId, int]) -> tuple[int, int, int, int, int]:
        report = self.reports[node]
        preferred = self.prefer.get(key, ())
        wish = preferred.index(report.name) if report.name in preferred else len(preferred)
        load = self.loads[node]
        below = load - quotas.get(node, 0)
        relative = (load + self.size(key)) * 720_720 // report.weight if report.weight else 1 << 62
        return (int(self.why_not(node, key) is not None), wish, min(below, 0), relative, node)

    def candidates(self, key: VipKey) -> list[NodeId]:
        """Members that may take the VIP: no hard reason against them, not on their way out, capacity above zero."""
        return [n for n, r in self.reports.items() if not r.leaving and r.weight > 0 and not self.forbidden(n, key)]

    def choose(self, key: VipKey, quotas: Mapping[NodeId, int]) -> NodeId | None:
        """The best candidate, or None if there is none."""
        return min(self.candidates(key), key=lambda n: self._rank(n, key, quotas), default=None)

    def take(self, node: NodeId, key: VipKey) -> None:
        """Count one more VIP for `node`."""
        self.loads[node] += self.size(key)

    def move(self, key: VipKey, source: NodeId, to: NodeId) -> None:
        """Count a VIP for `to` and no more for `source`."""
        self.loads[source] -= self.size(key)
        self.take(to, key)

    def sharing(self) -> list[Report]:
        """Who has a share: not who is drained, leaving or has weight 0, unless all are."""
        able = [r for r in self.reports.values() if r.weight > 0 and not r.leaving]
        return [r for r in able if not r.draining] or able

    def quotas(self) -> dict[NodeId, int]:
        """Each member's fair share of what the VIPs count, in whole numbers."""
        sharing = self.sharing()
        total = sum(self.size(key) for key in self.rows if any(not self.forbidden(r.node, key) for r in sharing))
        weight = sum(r.weight for r in sharing)
        if not weight:
            return {}
        floors = {r.node: total * r.weight // weight for r in sharing}
        rest = total - sum(floors.values())
        remainder = {r.node: total * r.weight % weight for r in sharing}
        for node in sorted(
            (n for n in floors if remainder[n]),
            key=lambda n: (-(self.loads[n] > floors[n]), -remainder[n], n),
        )[:rest]:
            floors[node] += 1
        return floors


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


def refuge(placement: Placement, key: VipKey, quotas: Mapping[NodeId, int]) -> NodeId | None:
    """Where a VIP goes that its holder must or should let go: a candidate other than the holder that nothing speaks
    against; if the holder may not keep it, also one that is drained. None: nobody."""
    row = placement.rows[key]
    others = [n for n in placement.candidates(key) if n != row.holder]
    if row.holder is not None and not placement.forbidden(row.holder, key):
        others = [n for n in others if placement.why_not(n, key) is None]
    return min(others, key=lambda n: placement._rank(n, key, quotas), default=None)


def balance(
    placement: Placement, onto: Iterable[NodeId] | None = None, moves_max: int | None = None
) -> list[tuple[VipKey, NodeId]]:
    """The fewest moves after which every VIP is where it is preferred and every member has its share, as far as
    eligibility allows; `onto`: only to these, and of at most so many VIPs (None: all). In-flight, sticky and orphaned VIPs
    stay as they are.

    Where VIPs count differently it may not be the fewest: that is the knapsack problem. Every move brings two members closer
    to their exact proportions, so it ends, and wherever a round of few moves stops the next one goes on."""
    quotas = placement.quotas()
    welcome = frozenset(placement.reports if onto is None else onto)
    movable = {
        key: row.holder
        for key, row in sorted(placement.rows.items())
        if row.holder is not None and row.holder == row.target and row.holder in placement.loads
        if not row.sticky and not row.releasing
    }
    moves: dict[VipKey, NodeId] = {}
    for key, holder in list(movable.items()):
        preferred = placement.prefer.get(key, ())
        if not preferred:
            continue
        able = {placement.reports[n].name: n for n in placement.candidates(key) if placement.why_not(n, key) is None}
        best = next((able[name] for name in preferred if name in able), None)
        if best is None:
            continue
        del movable[key]  # a preference is not for balance to undo
        if best != holder and best in welcome and len(moves) != moves_max:
            moves[key] = best
            placement.move(key, holder, best)
    has: dict[NodeId, dict[int, list[VipKey]]] = {n: {} for n in placement.loads}
    for key, holder in movable.items():
        has[holder].setdefault(placement.size(key), []).append(key)
    while len(moves) != moves_max:
        found = _one_move(placement, has, quotas, welcome)
        if found is None:
            before, quotas = quotas, placement.quotas()
            if quotas == before:
                break
            continue  # the remainders go to others now
        key, source, to = found
        placement.move(key, source, to)
        has[source][placement.size(key)].remove(key)
        has[to].setdefault(placement.size(key), []).append(key)
        moves[key] = to
    return [(key, to) for key, to in moves.items() if to != placement.rows[key].holder]


def _one_move(
    placement: Placement,
    has: Mapping[NodeId, Mapping[int, Sequence[VipKey]]],
    quotas: Mapping[NodeId, int],
    welcome: frozenset[NodeId],
) -> tuple[VipKey, NodeId, NodeId] | None:
    """From who has most too much, the VIP that comes closest to half of what divides it from who has most too little."""
    above = {n: load - quotas.get(n, 0) for n, load in placement.loads.items()}
    weights = {r.node: r.weight for r in placement.sharing()}
    weight, total = sum(weights.values()), sum(quotas.values())
    exact = {n: load * weight - total * weights.get(n, 0) for n, load in placement.loads.items()}
    least = min(exact.values(), default=0)
    for source in sorted((n for n in above if above[n] > 0), key=lambda n: (-above[n], n)):
        apart = exact[source] - least
        sizes = (s for s in has[source] if s * weight < apart)
        for size in sorted(sizes, key=lambda s: (abs(2 * s * weight - apart), s)):
            for key in has[source][size]:
                able = [
                    n
                    for n in placement.candidates(key)
                    if n in welcome and above[n] < 0 and size * weight < exact[source] - exact[n]
                    if placement.why_not(n, key) is None
                ]
                if able:
                    return key, source, min(able, key=lambda n: (above[n], n))
    return None
