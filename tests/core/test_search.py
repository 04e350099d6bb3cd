"""Every ordering of a small world: 3 nodes, 2 VIPs. And: the search finds the faults that are put into the core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from wackamole.core import settling, views
from wackamole.core.events import OrderRequested
from wackamole.core.model import Phase, View
from wackamole.core.standing import Kind, Order
from wackamole.core.work import Work
from wackamole.sim.search import A, B, C, Violation, search, small_world, wander


@pytest.mark.parametrize(
    ("changes", "meaning"),
    [
        ("rar", "two splits or merges and one more: at rest, at any moment, at rest"),
        ("aa", "two changes of views, each at any moment"),
        ("ma", "an operator's move, and a change of views in the middle of it"),
        ("mm", "two moves at any moment"),
        ("la", "one leaves, and a change of views in the middle of it"),
        ("ml", "a move, and one leaves in the middle of it"),
        ("er", "an eviction at any moment, and a change of views"),
        ("re", "a change of views, and an eviction in the middle of it"),
    ],
)
def test_every_interleaving_is_safe_and_live(changes: str, meaning: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = search(small_world(), changes, seconds_max=240)
    with capsys.disabled():
        print(f"\nsearch: 3 nodes, 2 VIPs, {meaning}: {found}")
    assert found.complete


# -- faults that are put in on purpose: a search that finds nothing proves nothing unless it finds these


def never_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every view is entered as if all its members had come along."""
    on_view = views.on_view
    monkeypatch.setattr(views, "on_view", lambda w, view: on_view(w, replace(view, joined=(), direct=True)))


def exchange_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange is over when anybody's State has come."""
    monkeypatch.setattr(views, "awaited", lambda w, view: ())


def unfinished_counts_as_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero rounds out of a view whose exchange was not completed (hazard 1)."""
    on_view = views.on_view

    def careless(w: Work, view: View) -> None:
        if w.s.phase is Phase.EXCHANGE:
            w.s = replace(w.s, phase=Phase.SETTLED)
        on_view(w, view)

    monkeypatch.setattr(views, "on_view", careless)


def losers_are_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lost a conflict counts as gone before its kernel has confirmed that."""
    monkeypatch.setattr(settling, "must_release", lambda w, row, node: None)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_walks_through_long_histories(seed: int) -> None:
    assert wander(small_world(), "a" * 8, walks=300, seed=seed) > 10_000


@pytest.mark.parametrize("fault", [never_exchange, exchange_ends_early, unfinished_counts_as_settled])
def test_a_fault_is_found(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    start = small_world(vips=4)
    fault(monkeypatch)
    with pytest.raises((Violation, AssertionError)):
        wander(start, "aaaa", walks=3000, seed=1)


def test_a_loser_that_is_not_awaited_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a merge in which c lost, while its kernel has not done it yet; c is drained, so that another gets it next."""
    start = small_world()
    start.partition([[A, B], [C]])
    start.run()
    start.tell(C, OrderRequested((Order(Kind.DRAIN, start.name(C), in_force=True),)))
    start.run()
    assert any(r.node == C and r.draining for r in start.members[C].state.table.reports)
    losers_are_not_awaited(monkeypatch)
    start.partition([[A, B, C]])
    while actions := [a for a in start.actions() if a != ("kernel", C)]:
        start.act(actions[0])
    assert start.members[C].asked is not None
    with pytest.raises((Violation, AssertionError)):
        search(start, "a", seconds_max=60)
