"""Placement's laws, over random clusters: covered, eligible, fair, few moves, and the same whatever the order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from wackamole.core.balancing import Balance, balance
from wackamole.core.electorate import quorate
from wackamole.core.model import (
    Address,
    By,
    Count,
    NodeId,
    NotEligible,
    Partition,
    Report,
    Row,
    Shares,
    Vip,
    VipKey,
)
from wackamole.core.placement import Placement, fill, refuge
from wackamole.core.shares import BUSY, CALM, FACTOR_MAX, FACTOR_MIN, Load, measured

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
    return Placement(rows, facts.reports.values(), (), facts.prefer, facts.count, facts.by)


def filled(facts: Placement) -> Placement:
    return anew(facts, dict(fill(facts)))


def moved(facts: Placement, moves: Sequence[tuple[VipKey, NodeId]]) -> Placement:
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


def unfairness(facts: Placement) -> int:
    """How far members are from their exact proportions: the sum of the squares, in parts of what VIPs count."""
    goal = facts.goal()
    return sum(goal.beyond(n, held) ** 2 for n, held in facts.held.items())


@given(clusters(counts=(Count.ADDRESSES,), ineligible=False), st.integers(1, 3))
def test_rounds_of_few_moves_bring_members_closer_to_their_shares_until_none_does(
    facts: Placement, moves_max: int
) -> None:
    after = filled(facts)
    unfair = [unfairness(after)]
    while moves := balance(anew(after), None, moves_max):
        assert len({key for key, _ in moves}) == len(moves) <= moves_max
        after = moved(after, moves)
        unfair.append(unfairness(after))
        assert unfair[-1] < unfair[-2]


def a_drained_member_that_keeps_less_than_its_share() -> Placement:
    """Only the drained may have v10, so they have shares; v03 goes home from one of them, which another has v10 of."""
    vips = [vip(i) for i in range(12)]

    def barred(*numbers: int) -> tuple[tuple[VipKey, NotEligible], ...]:
        return tuple((vips[i].key, NotEligible.UNKNOWN_VIP) for i in numbers)

    drained = [report(node, vips, draining=True) for node in (2, 3, 4)]
    reports = [report(1, vips, ineligible=barred(3, 10)), *drained, report(5, vips, ineligible=barred(0, 1, 10))]
    holders = [NodeId(2) if i == 3 else None for i in range(12)]
    return Placement([Row(v.key, v, h, h) for v, h in zip(vips, holders, strict=True)], reports)


@given(clusters(), st.integers(1, 3))
@example(a_drained_member_that_keeps_less_than_its_share(), 1)
def test_rounds_of_few_moves_end_and_are_fairer_than_before(facts: Placement, moves_max: int) -> None:
    """Only the beginning of a chain may be in a round, and that may make it less fair until the next. What comes home counts
    for more: it may take a member that is drained below its share."""

    def wrong(facts: Placement) -> tuple[int, int]:
        strays = sum(row.holder is not None and row.holder not in facts.kind(k).home for k, row in facts.rows.items())
        return strays, unfairness(facts)

    after = filled(facts)
    before, rounds = wrong(after), 0
    while moves := balance(anew(after), None, moves_max):
        after, rounds = moved(after, moves), rounds + 1
        assert rounds <= len(after.reports) * len(after.rows), "it does not come to rest"
    assert wrong(after) < before or not rounds


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


# -- shares that follow the load -----------------------------------------------------------------------------------------

BY_LOAD = Shares(By.LOAD)
QUIET_ROUNDS = 46  # a pause is 45 rounds long


@st.composite
def loaded(draw: st.DrawFn) -> Placement:
    """A cluster whose members announce loads, or none."""
    plain = draw(clusters())
    loads = st.one_of(st.none(), st.integers(0, 400))
    reports = [replace(r, load=draw(loads)) for r in plain.reports.values()]
    return Placement(plain.rows.values(), reports, (), {}, plain.count, BY_LOAD)


@given(loaded(), st.randoms())
def test_with_loads_too_the_outcome_does_not_depend_on_the_order_of_the_input(facts: Placement, random: object) -> None:
    rows, reports = list(facts.rows.values()), list(facts.reports.values())
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(reports)  # type: ignore[attr-defined]
    shuffled = Placement(rows, reports, (), {}, facts.count, BY_LOAD)
    assert fill(shuffled) == fill(anew(facts))
    shuffled = Placement(rows, reports, (), {}, facts.count, BY_LOAD)
    assert balance(shuffled, for_load=3) == balance(anew(facts), for_load=3)


@given(loaded())
def test_with_loads_too_all_is_covered_and_goes_only_where_it_may(facts: Placement) -> None:
    given = dict(fill(facts))
    for key, row in facts.rows.items():
        able = [n for n in facts.reports if not facts.forbidden(n, key)]
        assert (row.holder is not None or key in given) == bool(able)
        assert key not in given or given[key] in able
    for key, node in balance(anew(facts), for_load=9):
        assert facts.why_not(node, key) is None


@given(clusters(ineligible=False, holders=False), st.lists(st.integers(0, 400), min_size=5, max_size=5))
def test_a_fresh_fill_gives_shares_within_one_of_the_weights_and_loads(plain: Placement, loads: list[int]) -> None:
    reports = [replace(r, load=loads[n - 1]) for n, r in plain.reports.items()]
    facts = Placement(plain.rows.values(), reports, (), {}, plain.count, BY_LOAD)
    shares = facts.shares()
    for _, node in fill(facts):
        assert shares[node] > 0
    whole = sum(shares.values())
    total, largest = sum(map(facts.size, facts.rows)), max(map(facts.size, facts.rows), default=1)
    for node, share in shares.items():
        assert abs(facts.held[node] * whole - total * share) < largest * whole


def test_who_has_twice_the_mean_load_gets_half_the_share_and_a_calm_cluster_shares_by_weight() -> None:
    def shares(*loads: int | None) -> list[int]:
        return list(
            Placement([], [report(i, [], load=x) for i, x in enumerate(loads, 1)], shares=BY_LOAD).shares().values()
        )

    assert shares(400, 100, 100) == [50, 200, 200]
    assert shares(200, None, 200) == [100, 100, 100]
    assert shares(BUSY, 0, None) == [100, 100, 100]
    assert shares(100_000, 100, 100) == [FACTOR_MIN + 8, FACTOR_MAX, FACTOR_MAX]


def test_by_count_weights_do_not_count_but_a_witness_holds_nothing() -> None:
    vips = [vip(i) for i in range(4)]
    reports = [report(1, vips, weight=9), report(2, vips, weight=1), report(3, vips, weight=0)]
    facts = Placement([Row(v.key, v) for v in vips], reports, shares=Shares(By.COUNT))
    assert sorted(node for _, node in fill(facts)) == [1, 1, 2, 2]


@given(clusters(), st.integers(0, 5))
def test_a_rule_that_cannot_tell_leaves_it_to_the_weights(facts: Placement, share: int) -> None:
    by_weight = fill(facts)
    for rule in (lambda _: None, lambda sharers: (0,) * len(sharers)):
        rows, reports = facts.rows.values(), facts.reports.values()
        other = Placement(rows, reports, (), {}, facts.count, Shares(By.ENTRY_POINT, rule))
        assert {k for k, _ in fill(other)} == {k for k, _ in by_weight}
    rule_less = Shares(By.ENTRY_POINT, lambda _: None)
    alike = Placement(facts.rows.values(), facts.reports.values(), (), {}, facts.count, rule_less)
    assert fill(alike) == by_weight


class Loop:
    """A cluster in which loads follow the VIPs, each of so many addresses: `own` load of each host, and what one address costs
    it. Announced as a daemon would: smoothed, in steps, and late."""

    def __init__(self, vips: list[int], own: list[int], costs: list[int], weights: list[int]) -> None:
        self.own, self.costs = own, costs
        known = [vip(i, addresses) for i, addresses in enumerate(vips)]
        self.count = Count.ADDRESSES
        self.reports = [report(i, known, weight=w) for i, w in enumerate(weights, 1)]
        self.rows = list(
            filled(Placement([Row(v.key, v) for v in known], self.reports, count=self.count)).rows.values()
        )
        self.loads = [Load() for _ in own]
        self.now_ms = 0
        self.changed_ms = 0

    def true_loads(self, moves: Sequence[tuple[VipKey, NodeId]] = ()) -> dict[NodeId, int]:
        """As it is; or as it would be after these moves."""
        held = moved(Placement(self.rows, self.reports, count=self.count), moves).held
        each = enumerate(zip(self.own, self.costs, strict=True), 1)
        return {NodeId(n): own + cost * held[NodeId(n)] for n, (own, cost) in each}

    def round(self) -> list[tuple[VipKey, NodeId]]:
        """Four seconds later: measure, announce, balance as the representative does."""
        self.now_ms += 4000
        for i, load in enumerate(self.true_loads().values()):
            self.loads[i] = measured(self.loads[i], load, self.now_ms, BY_LOAD)
            self.reports[i] = replace(self.reports[i], load=self.loads[i].announced)
        for_load = 1 if self.now_ms - self.changed_ms >= BY_LOAD.pause_ms else 0
        moves = balance(Placement(self.rows, self.reports, (), {}, self.count, BY_LOAD), for_load=for_load)
        self.rows = list(moved(Placement(self.rows, self.reports), moves).rows.values())
        if moves:
            self.changed_ms = self.now_ms
        return moves


def hosts(least: int, most: int) -> st.SearchStrategy[tuple[list[int], list[int], list[int]]]:
    """Their own loads, what a VIP costs them, their weights; often alike, as that is where naive loops swing."""
    own = st.one_of(st.just(0), st.integers(0, 300))
    costs = st.one_of(st.just(60), st.integers(1, 60))
    return st.integers(least, most).flatmap(
        lambda n: st.tuples(*(st.lists(of, min_size=n, max_size=n) for of in (own, costs, st.integers(1, 3))))
    )


routers = st.one_of(st.integers(1, 12).map(lambda n: [1] * n), st.lists(st.integers(1, 7), min_size=1, max_size=8))
"""How many addresses each VIP has: all one, or what routers have."""


def moves_until_rest(loop: Loop) -> list[tuple[NodeId, NodeId]]:
    """From where to where, until three pauses long nothing has moved. The first of a round, for which loads are announced and
    not yet estimated, is a relief in truth: who takes the VIP had less before than who gave it has after, as far as what
    is announced follows it (5 % of a change is left after a pause, and its steps are the hysteresis)."""
    made: list[tuple[NodeId, NodeId]] = []
    quiet = 0
    while quiet < 3 * QUIET_ROUNDS:
        was, holders = copy(loop), {row.key: row.holder for row in loop.rows}
        moves = loop.round()
        ways = [(NodeId(holders[key] or 0), to) for key, to in moves]
        if ways:
            source, to = ways[0]
            assert was.true_loads()[to] <= max(CALM, 1.1 * was.true_loads(moves[:1])[source]), "no relief"
        made, quiet = made + ways, 0 if moves else quiet + 1
        assert len(made) <= 2 * len(loop.rows), "it swings"
    return made


@given(routers, hosts(2, 4))
@example([2], ([0, 0], [60, 60], [1, 1]))
@example([1] * 3, ([0, 0], [60, 60], [1, 1]))
@example(
    [1] * 19, ([21, 15], [31, 10], [3, 2])
)  # swings, or moves for nothing, if it is not asked whether it is a relief
@example([1] * 24, ([245, 0, 0], [60, 60, 10], [1, 2, 1]))  # if what a VIP costs is left out of that
@example([2, 2, 2, 3, 4, 7], ([0, 0, 0], [60, 60, 60], [1, 2, 3]))  # a round of several moves
@example([1, 1, 2, 2, 4, 4], ([67, 0, 0], [60, 31, 60], [2, 1, 2]))
@example([1] * 22, ([82, 0, 0], [60, 60, 41], [2, 3, 2]))  # if the loads need not follow first
@settings(max_examples=60)
def test_where_loads_follow_the_vips_balance_comes_to_rest(
    vips: list[int], cluster: tuple[list[int], list[int], list[int]]
) -> None:
    moves_until_rest(Loop(vips, *cluster))


@given(st.integers(1, 12).map(lambda n: [1] * n), hosts(2, 2))
@example([3, 3], ([0, 0], [60, 1], [1, 1]))
@example([1] * 12, ([0, 0], [20, 60], [1, 1]))
@example([1] * 24, ([0, 0], [10, 60], [1, 1]))
@settings(max_examples=60)
def test_of_two_hosts_one_relieves_the_other_and_nothing_goes_back(
    vips: list[int], cluster: tuple[list[int], list[int], list[int]]
) -> None:
    assert len(set(moves_until_rest(Loop(vips, *cluster)))) <= 1


@given(st.lists(st.integers(0, 400), min_size=2, max_size=4))
@settings(max_examples=60)
def test_with_constant_loads_balance_comes_to_rest(own: list[int]) -> None:
    loop = Loop([1] * 8, own, [0] * len(own), [1] * len(own))
    moves = sum(len(loop.round()) for _ in range(20 * QUIET_ROUNDS))
    assert moves <= 8
    assert not any(loop.round() for _ in range(QUIET_ROUNDS))


def test_the_busy_one_is_relieved_one_vip_at_a_time_and_never_of_its_last() -> None:
    loop = Loop([1] * 6, [300, 50], [0, 0], [1, 1])
    rounds = [loop.round() for _ in range(20 * QUIET_ROUNDS)]
    assert {len(moves) for moves in rounds} == {0, 1}
    held = Counter(row.holder for row in loop.rows)
    assert held == {1: 1, 2: 5}


def test_what_is_announced_changes_in_steps_and_an_unknown_load_at_once() -> None:
    load = measured(Load(), 100, 0, BY_LOAD)
    assert load.announced == 100
    for second in range(1, 600):
        load = measured(load, 114, 1000 * second, BY_LOAD)
    assert load.announced == 100
    for second in range(600, 1200):
        load = measured(load, 140, 1000 * second, BY_LOAD)
    assert load.announced is not None
    assert 116 <= load.announced <= 140
    assert measured(load, None, 1_200_000, BY_LOAD).announced is None


@given(st.integers(0, 400), st.lists(st.integers(0, 400), max_size=200))
def test_what_is_announced_is_never_further_from_the_smoothed_than_the_hysteresis(
    first: int, figures: list[int]
) -> None:
    load = measured(Load(), first, 0, BY_LOAD)
    for i, figure in enumerate(figures, 1):
        load = measured(load, figure, 10_000 * i, BY_LOAD)
        assert load.smoothed is not None
        assert load.announced is not None
        assert abs(load.smoothed / 1000 - load.announced) <= 0.15 * max(load.announced, CALM) + 0.5


@given(loaded())
def test_the_steps_that_explain_a_choice_are_those_that_make_it(facts: Placement) -> None:
    quotas = facts.quotas()
    for key in facts.rows:
        steps = list(facts.steps(facts.candidates(key), key, quotas))
        chosen = facts.choose(key, quotas)
        if steps:
            assert steps[-1].left == (chosen,)
            assert {n for n, _ in steps[0].scores} == set(facts.candidates(key))
        else:
            assert chosen == next(iter(facts.candidates(key)), None)


@given(loaded())
def test_what_balance_does_not_move_it_has_a_reason_for(facts: Placement) -> None:
    made = Balance(facts, for_load=1)
    for key, row in facts.rows.items():
        if key not in dict(made.moves) and made.fixed(row) is None and made.keeps(row) is None:
            assert all(made.refuses(row, n) is not None for n in facts.reports)


@given(clusters(), st.data())
def test_who_has_to_leave_is_found_for_each_kind_as_for_each_vip(drawn: Placement, data: st.DataObject) -> None:
    """Whatever is said of a VIP makes it one of another kind, so that VIPs of one kind have the same reasons."""
    nodes = list(drawn.reports)
    rows = []
    for row in drawn.rows.values():
        releasing = ((data.draw(st.sampled_from(nodes)), 1),) if data.draw(st.integers(0, 3)) == 0 else ()
        holder = data.draw(st.sampled_from([None, *nodes]))
        rows.append(replace(row, holder=holder, target=holder, releasing=releasing))
    reports = [
        replace(
            r,
            known=tuple(k for k in r.known if data.draw(st.integers(0, 5))),
            chosen=tuple(k for k in r.known if not data.draw(st.integers(0, 3))),
        )
        for r in drawn.reports.values()
    ]
    facts = Placement(rows, reports)
    each = {r.key: facts.why_not(r.holder, r.key) for r in rows if r.holder is not None}
    assert facts.leavers() == {key: why for key, why in each.items() if why is not None}
