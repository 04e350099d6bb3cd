"""Placement's laws, over random clusters: covered, eligible, fair, few moves, and the same whatever the order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.core.electorate import quorate
from wackamole.core.model import Address, NodeId, NotEligible, Partition, Report, Row, Vip, VipKey
from wackamole.core.placement import Placement, balance, fill

HARD = [why for why in NotEligible if why.forbids]


def vip(number: int) -> Vip:
    return Vip(f"v{number:02}", (Address(f"192.0.2.{number + 1}", 32),))


def report(node: int, vips: list[Vip], **changes: object) -> Report:
    plain = Report(NodeId(node), node, f"n{node}", known=tuple(v.key for v in vips), mature=True)
    return replace(plain, **changes)  # type: ignore[arg-type]


@st.composite
def clusters(draw: st.DrawFn, *, weights: bool = True, ineligible: bool = True, holders: bool = True) -> Placement:
    vips = [vip(i) for i in range(draw(st.integers(0, 12)))]
    nodes = range(1, draw(st.integers(1, 5)) + 1)
    reports = []
    for node in nodes:
        barred = [v.key for v in vips if ineligible and draw(st.integers(0, 5)) == 0]
        reports.append(
            report(
                node,
                vips,
                weight=draw(st.integers(1, 5)) if weights else 1,
                draining=ineligible and draw(st.integers(0, 5)) == 0,
                ineligible=tuple((k, draw(st.sampled_from(HARD))) for k in barred),
            )
        )
    facts = Placement([], reports)
    rows = []
    for v in vips:
        able = [n for n in nodes if not facts.forbidden(NodeId(n), v.key)]
        holder = NodeId(draw(st.sampled_from(able))) if holders and able and draw(st.booleans()) else None
        rows.append(Row(v.key, v, holder, holder))
    return Placement(rows, reports)


def filled(facts: Placement) -> Placement:
    given = dict(fill(facts))
    rows = [replace(r, holder=given.get(k, r.holder), target=given.get(k, r.target)) for k, r in facts.rows.items()]
    return Placement(rows, facts.reports.values(), (), facts.prefer)


def moved(facts: Placement, moves: list[tuple[VipKey, NodeId]]) -> Placement:
    to = dict(moves)
    rows = [replace(r, holder=to.get(k, r.holder), target=to.get(k, r.target)) for k, r in facts.rows.items()]
    return Placement(rows, facts.reports.values(), (), facts.prefer)


@given(clusters())
def test_fill_covers_every_vip_that_somebody_may_hold(facts: Placement) -> None:
    after = filled(facts)
    for key, row in after.rows.items():
        able = [n for n in after.reports if not after.forbidden(n, key)]
        assert (row.holder is not None) == bool(able)


@given(clusters())
def test_nobody_is_given_what_it_may_not_hold(facts: Placement) -> None:
    for key, node in fill(facts):
        assert facts.why_not(node, key) is None or not facts.why_not(node, key).forbids  # type: ignore[union-attr]
    after = filled(facts)
    for key, node in balance(Placement(after.rows.values(), after.reports.values())):
        assert after.why_not(node, key) is None


@given(clusters())
def test_fill_moves_nothing_that_is_held(facts: Placement) -> None:
    held = {k for k, r in facts.rows.items() if r.holder is not None}
    assert not held & {k for k, _ in fill(facts)}


@given(clusters(ineligible=False, holders=False))
def test_a_fresh_fill_gives_shares_within_one_of_the_weights(facts: Placement) -> None:
    check_shares(filled(facts))


def check_shares(after: Placement) -> None:
    weight = sum(r.weight for r in after.reports.values())
    for node, r in after.reports.items():
        assert abs(after.held[node] * weight - len(after.rows) * r.weight) < weight


@given(clusters(ineligible=False))
def test_balance_gives_shares_within_one_of_the_weights(facts: Placement) -> None:
    after = filled(facts)
    moves = balance(Placement(after.rows.values(), after.reports.values()))
    check_shares(moved(after, moves))


@given(clusters(ineligible=False))
@settings(max_examples=60)
def test_balance_makes_the_fewest_moves(facts: Placement) -> None:
    after = filled(facts)
    moves = balance(Placement(after.rows.values(), after.reports.values()))
    assert len(moves) == fewest_moves(after)


def fewest_moves(facts: Placement) -> int:
    """Brute force over all ways to hand out whole shares: each member's share is within one of its weight."""
    nodes = sorted(facts.reports)
    weight = sum(r.weight for r in facts.reports.values())
    total = len(facts.rows)
    best = [total]

    def go(i: int, left: int, cost: int) -> None:
        if i == len(nodes):
            if left == 0:
                best[0] = min(best[0], cost)
            return
        share = facts.reports[nodes[i]].weight
        for count in range(left + 1):
            if abs(count * weight - total * share) < weight:
                go(i + 1, left - count, cost + max(0, facts.held[nodes[i]] - count))

    go(0, total, 0)
    return best[0]


@given(clusters())
def test_a_balanced_cluster_stays_as_it_is(facts: Placement) -> None:
    after = filled(facts)
    once = moved(after, balance(Placement(after.rows.values(), after.reports.values())))
    assert balance(Placement(once.rows.values(), once.reports.values())) == []


@given(clusters(), st.randoms())
def test_the_outcome_does_not_depend_on_the_order_of_the_input(facts: Placement, random: object) -> None:
    rows, reports = list(facts.rows.values()), list(facts.reports.values())
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(reports)  # type: ignore[attr-defined]
    assert fill(Placement(rows, reports)) == fill(Placement(facts.rows.values(), facts.reports.values()))
    after = filled(Placement(rows, reports))
    rows = list(after.rows.values())
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert balance(Placement(rows, reports)) == balance(Placement(after.rows.values(), after.reports.values()))


def test_hazard_08_an_address_held_under_another_definition_is_not_given_out() -> None:
    old, new = Vip("web-1", (Address("192.0.2.10", 32),)), Vip("www", (Address("192.0.2.10", 32),))
    reports = [report(1, [old]), report(2, [new])]
    held = Placement([Row(old.key, old, NodeId(1), NodeId(1)), Row(new.key, new)], reports)
    assert fill(held) == []
    leaving = Placement([Row(old.key, old, releasing=((NodeId(1), 3),)), Row(new.key, new)], reports)
    assert fill(leaving) == []
    orphans = Placement([Row(old.key, old), Row(new.key, new)], reports)
    assert len(fill(orphans)) == 1


def test_hazard_27_who_is_drained_still_gets_what_nobody_else_may_hold() -> None:
    v = vip(0)
    facts = Placement([Row(v.key, v)], [report(1, [v], draining=True), report(2, [v], draining=True)])
    assert fill(facts) == [(v.key, 1)]


def test_a_preferred_member_gets_the_vip_and_balance_leaves_it_there() -> None:
    vips = [vip(i) for i in range(4)]
    prefer = {v.key: ("n2",) for v in vips}
    reports = [report(1, vips), report(2, vips)]
    facts = Placement([Row(v.key, v, NodeId(1), NodeId(1)) for v in vips], reports, (), prefer)
    moves = balance(facts)
    assert moves == [(v.key, 2) for v in vips]
    after = moved(Placement(facts.rows.values(), reports, (), prefer), moves)
    assert balance(after) == []


def test_a_majority_counts_every_node_list_that_a_member_has() -> None:
    three = ("a", "b", "c")
    one = Report(NodeId(1), 1, "a", nodes=three, partition=Partition.MAJORITY)
    two = replace(one, node=NodeId(2), name="b")
    assert not quorate([one])
    assert quorate([one, two])
    assert not quorate([one, replace(two, nodes=("a", "b", "c", "d"))])
    assert quorate([replace(one, partition=Partition.COVER)])
