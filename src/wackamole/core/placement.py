"""Who should hold what: one explainable chain, used three ways.

    eligible → not drained → preferred → furthest below its share → stable tie-break

`fill` gives out what nobody holds and moves nothing else; `refuge` says where a VIP goes that has to leave its holder;
`balance` lists the fewest moves that bring every member to its share. All are pure functions of *delivered* facts, in
integers, with the node id as the last tie-break, so that members who know the same compute the same (hazard 9).

A member's share is its quota of all VIPs by weight (Hamilton's method: floor, and the rest one by one), so no member is
ever a whole VIP away from its exact proportion. Who gets the remainders is open; it goes to those who already have
more, because that saves moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .electorate import quorate
from .model import NodeId, NotEligible, Report, Row, VipKey

Preferences = Mapping[VipKey, tuple[str, ...]]


class Placement:
    """The facts of one moment, indexed. Nothing in here is changed but the loads, by `take`."""

    def __init__(
        self,
        rows: Iterable[Row],
        reports: Iterable[Report],
        evicted: Iterable[NodeId] = (),
        prefer: Preferences | None = None,
    ) -> None:
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
                self.loads[owner] += 1

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
        relative = (load + 1) * 720_720 // report.weight if report.weight else 1 << 62
        return (int(self.why_not(node, key) is not None), wish, min(below, 0), relative, node)

    def candidates(self, key: VipKey) -> list[NodeId]:
        """Members that may take the VIP: no hard reason against them, not on their way out, capacity above zero."""
        return [n for n, r in self.reports.items() if not r.leaving and r.weight > 0 and not self.forbidden(n, key)]

    def choose(self, key: VipKey, quotas: Mapping[NodeId, int]) -> NodeId | None:
        """The best candidate, or None if there is none."""
        return min(self.candidates(key), key=lambda n: self._rank(n, key, quotas), default=None)

    def take(self, node: NodeId) -> None:
        """Count one more VIP for `node`."""
        self.loads[node] += 1

    def quotas(self) -> dict[NodeId, int]:
        """Each member's fair number of VIPs. Who is drained, leaving or has weight 0 has none, unless all are."""
        sharing = [r for r in self.reports.values() if r.weight > 0 and not r.leaving and not r.draining]
        sharing = sharing or [r for r in self.reports.values() if r.weight > 0 and not r.leaving]
        total = sum(1 for key in self.rows if any(not self.forbidden(r.node, key) for r in sharing))
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
    """Give every free orphan with a candidate to one; nothing else moves. In order of the keys."""
    index = by_ip(placement.rows.values())
    orphans = sorted(k for k, row in placement.rows.items() if row.holder is None and free(row, index))
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
            placement.take(node)
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


def balance(placement: Placement, onto: Iterable[NodeId] | None = None) -> list[tuple[VipKey, NodeId]]:
    """The fewest moves after which every VIP is where it is preferred and every member has its share, as far as
    eligibility allows; `onto`: only to these. In-flight, sticky and orphaned VIPs stay as they are."""
    quotas = placement.quotas()
    welcome = frozenset(placement.reports if onto is None else onto)
    moves: list[tuple[VipKey, NodeId]] = []
    movable = [
        row
        for key, row in sorted(placement.rows.items())
        if row.holder is not None and row.holder == row.target and row.holder in placement.loads
        if not row.sticky and not row.releasing
    ]
    settled: set[VipKey] = set()

    def move(row: Row, to: NodeId) -> None:
        assert row.holder is not None
        moves.append((row.key, to))
        placement.loads[row.holder] -= 1
        placement.loads[to] += 1
        settled.add(row.key)

    for row in movable:
        preferred = placement.prefer.get(row.key, ())
        assert row.holder is not None
        if not preferred:
            continue
        able = {
            placement.reports[n].name: n for n in placement.candidates(row.key) if placement.why_not(n, row.key) is None
        }
        best = next((able[name] for name in preferred if name in able), None)
        if best is None:
            continue
        settled.add(row.key)  # a preference is not for balance to undo
        if best != row.holder and best in welcome:
            move(row, best)

    while True:
        over = sorted(
            (n for n in placement.loads if placement.loads[n] > quotas.get(n, 0)),
            key=lambda n: (quotas.get(n, 0) - placement.loads[n], n),
        )
        found = _one_move(placement, movable, settled, over, quotas, welcome)
        if found is None:
            return moves
        move(*found)


def _one_move(
    placement: Placement,
    movable: Sequence[Row],
    settled: set[VipKey],
    over: Sequence[NodeId],
    quotas: Mapping[NodeId, int],
    welcome: frozenset[NodeId],
) -> tuple[Row, NodeId] | None:
    for source in over:
        for row in movable:
            if row.holder != source or row.key in settled:
                continue
            able = [
                n
                for n in placement.candidates(row.key)
                if n in welcome and placement.loads[n] < quotas.get(n, 0) and placement.why_not(n, row.key) is None
            ]
            if able:
                return row, min(able, key=lambda n: (placement.loads[n] - quotas[n], n))
    return None
