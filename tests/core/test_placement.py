"""Placement's laws, over random clusters: covered, eligible, fair, few moves, and the same whatever the order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.core.electorate import quorate
from wackamole.core.model import Address, Count, NodeId, NotEligible, Partition, Report, Row, Vip, VipKey
from wackamole.core.placement import Placement, balance, fill, refuge

HARD = [why for why in NotEligible if why.forbids]


def vip(number: int, addresses: int = 1) -> Vip:
    return Vip(f"v{number:02}", tuple(Address(f"192.0.{2 + i}.{number + 1}", 32) for i in range(addresses)))


def report(node: int, vips: list[Vip], **changes: object) -> Report:
    plain = Report(NodeId(node), node, f"n{node}", known=tuple(v.key for v in vips), mature=True)
    return replace(plain, **changes)  # type: ignore[arg-type]


@st.composite
def clusters(
    draw: st.DrawFn,
    *,
    weights: bool = True,
    ineligible: bool = True,
    holders: bool = True,
    counts: tuple[Count, ...] = tuple(Count),
) -> Placement:
    vips = [vip(i, draw(st.integers(1, 7))) for i in range(draw(st.integers(0, 12)))]
    count = draw(st.sampled_from(counts))
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
    return Placement(rows, reports, count=count)


def anew(facts: Placement, to: dict[VipKey, NodeId] | None = None) -> Placement:
    """The same facts, with these holders."""
    new = to or {}
    rows = [replace(r, holder=new.get(k, r.holder), target=new.get(k, r.target)) for k, r in facts.rows.items()]
    return Placement(rows, facts.reports.values(), (), facts.prefer, facts.count)


def filled(facts: Placement) -> Placement:
    return anew(facts, dict(fill(facts)))


def moved(facts: Placement, moves: list[tuple[VipKey, NodeId]]) -> Placement:
    return anew(facts, dict(moves))


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
    for key, node in balance(anew(after)):
        assert after.why_not(node, key) is None


@given(clusters())
def test_fill_moves_nothing_that_is_held(facts: Placement) -> None:
    held = {k for k, r in facts.rows.items() if r.holder is not None}
    assert not held & {k for k, _ in fill(facts)}


@given(clusters(ineligible=False, holders=False))
def test_a_fresh_fill_gives_shares_within_one_of_the_weights(facts: Placement) -> None:
    check_shares(filled(facts))


def check_shares(after: Placement) -> None:
    """Within one VIP of the weights; of the largest, where they count by their addresses."""
    weight = sum(r.weight for r in after.reports.values())
    total, largest = sum(map(after.size, after.rows)), max(map(after.size, after.rows), default=1)
    for node, r in after.reports.items():
        held = sum(after.size(k) for k, row in after.rows.items() if row.holder == node)
        assert abs(held * weight - total * r.weight) < largest * weight


@given(clusters(ineligible=False))
def test_balance_gives_shares_within_one_of_the_weights(facts: Placement) -> None:
    after = filled(facts)
    check_shares(moved(after, balance(anew(after))))


@given(clusters(ineligible=False, counts=(Count.VIPS,)))
@settings(max_examples=60)
def test_balance_makes_the_fewest_moves(facts: Placement) -> None:
    after = filled(facts)
    assert len(balance(anew(after))) == fewest_moves(after)


def above_their_shares(facts: Placement) -> dict[NodeId, int]:
    """How far members are from their exact proportions, in what VIPs count times the weight of all."""
    weights = {r.node: r.weight for r in facts.sharing()}
    weight, total = sum(weights.values()), sum(facts.quotas().values())
    return {n: load * weight - total * weights.get(n, 0) for n, load in facts.loads.items()}


@given(clusters(counts=(Count.ADDRESSES,)), st.integers(1, 3))
def test_rounds_of_few_moves_bring_members_closer_to_their_shares_until_none_does(
    facts: Placement, moves_max: int
) -> None:
    after = filled(facts)
    unfair = [sum(x * x for x in above_their_shares(after).values())]
    while moves := balance(anew(after), None, moves_max):
        assert len({key for key, _ in moves}) == len(moves) <= moves_max
        after = moved(after, moves)
        unfair.append(sum(x * x for x in above_their_shares(after).values()))
        assert unfair[-1] < unfair[-2]


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
                go(i + 1, left - count, cost + max(0, facts.loads[nodes[i]] - count))

    go(0, total, 0)
    return best[0]


@given(clusters())
def test_a_balanced_cluster_stays_as_it_is(facts: Placement) -> None:
    after = filled(facts)
    once = moved(after, balance(anew(after)))
    assert balance(anew(once)) == []


@given(clusters(), st.randoms())
def test_the_outcome_does_not_depend_on_the_order_of_the_input(facts: Placement, random: object) -> None:
    rows, reports = list(facts.rows.values()), list(facts.reports.values())
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(reports)  # type: ignore[attr-defined]
    assert fill(Placement(rows, reports, count=facts.count)) == fill(anew(facts))
    after = filled(Placement(rows, reports, count=facts.count))
    rows = list(after.rows.values())
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert balance(Placement(rows, reports, count=facts.count)) == balance(anew(after))


def test_a_virtual_router_counts_as_one_or_as_its_addresses() -> None:
    vips = [vip(0, 4), *(vip(i) for i in range(1, 5))]
    rows, reports = [Row(v.key, v) for v in vips], [report(1, vips), report(2, vips)]
    gateway, *web = [v.key for v in vips]
    assert dict(fill(Placement(rows, reports, count=Count.ADDRESSES))) == {gateway: 1, **dict.fromkeys(web, 2)}
    by_vips = Counter(dict(fill(Placement(rows, reports, count=Count.VIPS))).values())
    assert sorted(by_vips.values()) == [2, 3]
    held = [Row(v.key, v, NodeId(1), NodeId(1)) for v in vips]
    by_addresses = Placement(held, reports, count=Count.ADDRESSES)
    assert balance(by_addresses) == [(gateway, 2)], "one move is enough, and four would be too many"
    assert refuge(Placement(held, [*reports, report(3, vips)], count=Count.ADDRESSES), gateway, {}) == 2


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
