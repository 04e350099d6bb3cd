"""What the daemon counts of itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from wackamole.core.model import Address, Cause, Left, NodeId, Phase, Row, Settings, Table, View, ViewId, Vip
from wackamole.core.state import initial
from wackamole.shell.alarm import Alarm
from wackamole.shell.clock import boottime_ms
from wackamole.shell.counts import LAG_SECONDS, TAKEOVER_SECONDS, Counts
from wackamole.shell.journal import WARNINGS, Journal

A, B, C = NodeId(1), NodeId(2), NodeId(3)
NAMES = {A: "a", B: "b", C: "c"}
VIP = Vip("web", (Address("192.0.2.10", 32),))
SETTLED = replace(initial(Settings("a", ("a", "b", "c"), (VIP,), "digest")), phase=Phase.SETTLED, me=A)


class Clock:
    """A clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Counts, Clock, Callable[[], dict[str, Any]]]:
    clock = Clock()
    counts = Counts("a", clock)
    return counts, clock, lambda: counts.describe(NAMES)


def view(*members: NodeId, joined: tuple[NodeId, ...] = (), left: tuple[tuple[NodeId, Left], ...] = ()) -> View:
    return View(ViewId(1, 1, 0), members, joined, left, direct=False)


def table(holder: NodeId | None, target: NodeId | None, cause: Cause) -> Table:
    return Table((Row(VIP.key, VIP, holder, target, cause=cause),))


def taken_over(said: dict[str, Any], after: str) -> dict[float, int]:
    found = said["takeovers"][after]
    return {bound: n for bound, n in zip([*found["bounds"], float("inf")], found["counts"], strict=True) if n}


def test_a_late_wake_up_is_counted_by_how_late_it_was() -> None:
    counts, _, said = make()
    for late in (-0.0001, 0.0004, 0.02, 0.0201, 7.0):
        counts.woken(late)
    lag = said()["lag"]
    found = dict(zip([*lag["bounds"], "longer"], lag["counts"], strict=True))
    assert {b: n for b, n in found.items() if n} == {LAG_SECONDS[0]: 2, 0.02: 1, 0.05: 1, "longer": 1}
    assert (lag["max"], lag["sum"]) == (7.0, 7.0405)


def test_a_loop_that_was_held_up_wakes_up_late() -> None:
    late: list[float] = []

    async def main() -> None:
        rang = asyncio.Event()
        alarm = Alarm(rang.set, late.append)
        alarm.set(boottime_ms() + 1)
        threading.Event().wait(0.2)  # nobody sets it: the loop stands still
        await rang.wait()

    asyncio.run(main())
    assert len(late) == 1
    assert late[0] > 0.1


def test_beats_that_did_not_come_in_time_are_missed() -> None:
    counts, clock, said = make()
    counts.viewed(view(A, B, joined=(A, B)))
    for pause in (0.0, 0.1, 0.19, 0.35):  # the last comes when the third after it is due
        clock.now += pause
        counts.heard_beat(B, 100)
    counts.sent_beat()
    assert (said()["beats_sent"], said()["beats_received"]) == (1, {"a": 0, "b": 4, "c": 0})
    assert said()["beats_missed"] == {"a": 0, "b": 2, "c": 0}


def test_who_was_away_missed_no_beats() -> None:
    counts, clock, said = make()
    counts.heard_beat(B, 100)
    counts.viewed(view(A, left=((B, Left.HOST_LOST),)))
    clock.now += 60
    counts.viewed(view(A, B, joined=(B,)))
    counts.heard_beat(B, 100)
    assert (said()["views"], said()["beats_missed"]["b"]) == (2, 0)


def test_a_takeover_counts_from_the_loss_of_the_holder() -> None:
    """Also if it was decided later: here strict members wait for the lease of the lost one."""
    counts, clock, said = make()
    held_by_c = replace(SETTLED, table=table(C, C, Cause.FILL))
    counts.stepped(SETTLED, held_by_c, clock.now)
    counts.viewed(view(A, B, left=((C, Left.HOST_LOST),)))
    clock.now += 0.9
    mine = replace(held_by_c, table=table(A, A, Cause.HOST_LOST))
    counts.stepped(held_by_c, mine, clock.now)
    assert taken_over(said(), "loss") == {}
    clock.now += 0.004
    counts.stepped(mine, replace(mine, confirmed=(VIP.key,)), clock.now)
    assert taken_over(said(), "loss") == {1.0: 1}
    assert abs(said()["takeovers"]["loss"]["sum"] - 0.904) < 1e-6
    assert taken_over(said(), "decision") == {}


def test_a_move_counts_from_the_decision() -> None:
    counts, clock, said = make()
    counts.viewed(view(A, B, left=((C, Left.HOST_LOST),)))
    clock.now += 3600
    moving = replace(SETTLED, table=table(B, A, Cause.OPERATOR))
    counts.stepped(SETTLED, moving, clock.now)
    clock.now += 0.03  # the other one lets go
    mine = replace(SETTLED, table=table(A, A, Cause.OPERATOR))
    counts.stepped(moving, mine, clock.now)
    clock.now += 0.001
    confirmed = replace(mine, confirmed=(VIP.key,))
    counts.stepped(mine, confirmed, clock.now)
    assert taken_over(said(), "decision") == {0.05: 1}
    again = replace(confirmed, table=table(A, A, Cause.CLAIM))  # after an exchange it is held all along
    counts.stepped(confirmed, again, clock.now)
    counts.stepped(again, replace(again, confirmed=(*mine.confirmed, VIP.key)), clock.now)
    assert (taken_over(said(), "decision"), taken_over(said(), "loss")) == ({0.05: 1}, {})


def test_what_went_elsewhere_after_all_is_no_takeover() -> None:
    counts, clock, said = make()
    first = replace(SETTLED, table=table(B, A, Cause.BALANCE))
    counts.stepped(SETTLED, first, clock.now)
    second = replace(SETTLED, table=table(B, B, Cause.FAILED))
    counts.stepped(first, second, clock.now)
    third = replace(SETTLED, table=table(B, A, Cause.DRAIN))
    clock.now += 50
    counts.stepped(second, third, clock.now)
    clock.now += 0.0015
    counts.stepped(third, replace(third, confirmed=(VIP.key,)), clock.now)
    assert taken_over(said(), "decision") == {0.002: 1}


def test_the_journal_is_counted() -> None:
    counts, _, said = make()
    journal = Journal()
    journal.listen(counts.recorded)
    for to, cause in (("a", Cause.BALANCE), ("b", Cause.BALANCE), ("a", Cause.EVICTED)):
        journal.record("moved", vip="web", source="c", to=to, cause=cause.value, view="-")
    journal.record("evict", node="3", by="b", name="c")
    journal.record("paused", gap_ms=1200)
    journal.record("settled", view="-")
    counts.rejoined()
    found = said()
    assert {cause: n for cause, n in found["moves"].items() if n} == {"balance": 1, "evicted": 1}
    assert set(found["moves"]) == {cause.name.lower() for cause in Cause}
    assert found["evictions"] == {"a": 0, "b": 0, "c": 1}
    assert {what: n for what, n in found["warnings"].items() if n} == {"evict": 1, "paused": 1}
    assert (frozenset(found["warnings"]), found["rejoins"]) == (WARNINGS, 1)


def test_an_eviction_is_a_loss() -> None:
    """The daemon tells of what the step recorded before it tells of the step."""
    counts, clock, said = make()
    journal = Journal()
    journal.listen(counts.recorded)
    journal.record("evict", node="3", by="b", name="c")
    mine = replace(SETTLED, table=table(A, A, Cause.EVICTED))
    counts.stepped(SETTLED, mine, clock.now)
    clock.now += 0.5
    counts.stepped(mine, replace(mine, confirmed=(VIP.key,)), clock.now)
    assert taken_over(said(), "loss") == {0.5: 1}


def test_nothing_grows_with_what_others_send() -> None:
    counts, clock, said = make()
    empty = len(str(said()))
    for sender in range(1, 200):
        counts.heard_beat(NodeId(sender % 3 + 1), 100)
        clock.now += 0.1
        counts.recorded({"event": "evict", "name": f"stranger-{sender}"})
    assert len(str(said())) < empty + 200
    assert len(said()["takeovers"]["loss"]["counts"]) == len(TAKEOVER_SECONDS) + 1
