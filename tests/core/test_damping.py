"""Who comes and goes settles longer, and not for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wackamole.core.damping import DOUBLINGS_MAX, FORGOTTEN_AFTER, JOINS_MAX, Joins, noted, patience_ms, times
from wackamole.core.model import MEMBERS_MAX, NodeId

A, B = NodeId(1), NodeId(2)
SETTLE_MS = 10_000


def joined(joins: Joins, node: NodeId, now_ms: int, settle_ms: int = SETTLE_MS) -> Joins:
    return noted(joins, [(node, 1 + times(joins, node, settle_ms, now_ms))], settle_ms, now_ms)


def test_the_third_time_and_each_one_after_doubles_it() -> None:
    joins: Joins = ()
    waits = []
    for _ in range(JOINS_MAX + 3):
        joins = joined(joins, A, 1000)
        waits.append(patience_ms(joins, A, SETTLE_MS, 1000) // SETTLE_MS)
    assert waits[:5] == [1, 1, 2, 4, 8]
    assert waits[-3:] == [2**DOUBLINGS_MAX] * 3
    assert patience_ms(joins, B, SETTLE_MS, 1000) == SETTLE_MS


def test_it_is_forgotten() -> None:
    joins: Joins = ()
    for _ in range(5):
        joins = joined(joins, A, 0)
    later_ms = 5 * FORGOTTEN_AFTER * SETTLE_MS
    assert times(joins, A, SETTLE_MS, later_ms - 1) == 1
    assert times(joins, A, SETTLE_MS, later_ms) == 0
    assert joined(joins, B, later_ms) == ((B, 1, later_ms),)


def test_where_nobody_settles_nobody_flaps() -> None:
    joins = joined((), A, 0, settle_ms=0)
    assert joins == ()
    assert patience_ms(((A, 9, 0),), A, 0, 0) == 0


@given(st.lists(st.tuples(st.integers(1, 2000).map(NodeId), st.integers(0, JOINS_MAX)), max_size=50))
def test_what_others_say_counts_if_it_is_more_and_is_bounded(said: list[tuple[NodeId, int]]) -> None:
    joins = noted((), said, SETTLE_MS, 0)
    assert {n: c for n, c, _ in joins} == {n: max(c for m, c in said if m == n) for n, count in said if count}
    assert noted(joins, said, SETTLE_MS, 0) == joins
    many = noted((), [(NodeId(n), 1) for n in range(1, 2 * MEMBERS_MAX)], SETTLE_MS, 0)
    assert len(many) == MEMBERS_MAX
