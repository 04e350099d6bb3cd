"""Simulated clusters under faults keep the laws; and faults that are put into the core are found."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wackamole import eventlog
from wackamole.core import agreed, machine, orders, settling, views, voice, work
from wackamole.core.events import Paused
from wackamole.core.model import NodeId, Row
from wackamole.core.work import Work
from wackamole.shell import telling
from wackamole.sim.__main__ import main, outcome
from wackamole.sim.plan import VERBS, Fault, Plan, PlanWrong, draw, read, shrink

SEEDS_MIN = 40
SECONDS = float(os.environ.get("WACKAMOLE_SIM_SECONDS", "60"))
"""Every run does the first SEEDS_MIN seeds, and goes on with others until this time is over."""


def test_no_seed_breaks_a_law(capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    began, seed = time.monotonic(), 0
    while seed < SEEDS_MIN or time.monotonic() - began < SECONDS:
        simulation, violation = outcome(draw(seed))
        assert violation is None, f"python -m wackamole.sim --seeds {seed}-{seed}\n{violation}"
        counts += simulation.counts
        seed += 1
    with capsys.disabled():
        told = ", ".join(f"{counts[what]} {what}" for what in ("steps", "views", "record evict", "VIPs acquired"))
        print(f"\nsimulator: {seed} seeds, {told}, {time.monotonic() - began:.0f} s")
    assert [verb for verb in VERBS if not counts[f"fault {verb}"]] == []
    needed = (
        "hidden ring changes",
        "ring changes with losses",
        "pauses told",
        "record conflict",
        "record evict",
        "record failed",
        "record lapsed",
        "record settled",
        "record suspect",
        "events taken",
    )
    assert [what for what in needed if not counts[what]] == []


# -- the plan -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_is_its_text_and_a_run_is_its_plan(seed: int) -> None:
    plan = draw(seed)
    assert read(plan.text()) == plan
    (one, _), (other, _) = outcome(plan), outcome(read(plan.text()))
    assert one.counts == other.counts
    assert one.story == other.story


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "plan: "),
        ("cluster seed=1 nodes=3", "plan: "),
        ("cluster seed=1 nodes=3 vips=2\nsoon crash a\n", "plan:2"),
        ("cluster seed=1 nodes=3 vips=2\n5\n", "plan:2"),
        ("cluster seed=1 nodes=3 vips=2\n5 explode a\n", "plan:2"),
        ("cluster seed=1 nodes=3 vips=2\n5 crash z\n", "plan:2"),
        ("cluster seed=1 nodes=3 vips=2\n5 crash\n", "plan:2"),
        ("cluster seed=1 nodes=129 vips=2\n", "plan:1"),
        ("cluster seed=1 nodes=3 vips=2 colour=red\n", "plan:1"),
    ],
)
def test_a_text_that_is_no_plan_is_refused_with_its_place(text: str, place: str) -> None:
    with pytest.raises(PlanWrong) as wrong:
        read(text)
    assert str(wrong.value).startswith(place)


def test_shrinking_leaves_what_is_needed() -> None:
    plan = replace(draw(1), faults=tuple(Fault(i, "crash" if i % 7 else "kill", ("a",)) for i in range(40)))
    kept = shrink(plan, lambda p: sum(f.verb == "kill" for f in p.faults) >= 3)
    assert [f.verb for f in kept.faults] == ["kill"] * 3


# -- faults that are put in on purpose: a simulator that finds nothing proves nothing unless it finds these -----------------


def any_beat_renews(patch: pytest.MonkeyPatch) -> None:
    """An own beat of any age renews the lease (hazard 3)."""
    renews = agreed.renews
    for module in (machine, orders):
        patch.setattr(module, "renews", lambda s, beat, now_ms: renews(s, replace(beat, sent_ms=now_ms), now_ms))


def nobody_waits_for_a_lease(patch: pytest.MonkeyPatch) -> None:
    """The lost are taken over from at once, whatever the policy."""
    patch.setattr(work.Work, "expect_lapse", lambda self, node, incarnation, wait_ms: None)


def a_pause_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """Who wakes goes on as if nothing had been, and judges others by what it has not read yet."""
    handle = machine.handle
    patch.setattr(machine, "handle", lambda w, event: None if isinstance(event, Paused) else handle(w, event))


def patience_is_short(patch: pytest.MonkeyPatch) -> None:
    """The silent are evicted before their lease has run out."""
    watch = voice.watch_for_silence

    def hasty(w: Work) -> None:
        settings, reports, known = w.s.settings, w.reports, w.s.settled_table
        w.s = replace(w.s, settings=replace(settings, evict_after_ms=5 * settings.beat_ms), settled_table=None)
        w.reports = {n: replace(r, lease_ms=0) for n, r in reports.items()}
        watch(w)
        w.s, w.reports = replace(w.s, settings=settings, settled_table=known), reports

    patch.setattr(voice, "watch_for_silence", hasty)


def a_dirty_kernel_renews(patch: pytest.MonkeyPatch) -> None:
    """The fence is opened although the kernel still has what the table gives to others."""
    renews = agreed.renews
    for module in (machine, orders):
        patch.setattr(module, "renews", lambda s, beat, now_ms: renews(replace(s, may_hold=()), beat, now_ms))


def losers_are_not_awaited(patch: pytest.MonkeyPatch) -> None:
    """Who lost a conflict, or is evicted without a fence, counts as gone."""
    patch.setattr(settling, "must_release", lambda w, row, node: None)


def an_exchange_ends_early(patch: pytest.MonkeyPatch) -> None:
    """The exchange is over when anybody's State has come."""
    patch.setattr(views, "awaited", lambda w, view: ())


def balance_forgets_somebody(patch: pytest.MonkeyPatch) -> None:
    """Nothing is ever balanced: safe, and unfair for ever."""
    patch.setattr(voice, "balance", lambda w: None)


def the_first_member_never_fills(patch: pytest.MonkeyPatch) -> None:
    """A VIP that falls to the first member stays dark."""
    give = settling.give

    def careful(w: Work, row: Row, to: NodeId) -> None:
        if to != 1:
            give(w, row, to)

    patch.setattr(settling, "give", careful)


def nobody_is_told_again(patch: pytest.MonkeyPatch) -> None:
    """What was said in other views stays where it was said."""
    patch.setattr(telling, "missing", lambda recent, view, me, has: [])


def two_sides_say_the_same_of_different_histories(patch: pytest.MonkeyPatch) -> None:
    """Members compare how much they have of a view, and not what."""
    patch.setattr(eventlog, "_digest", lambda entries: len(tuple(entries)))


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (any_beat_renews, ()),
        (nobody_waits_for_a_lease, ()),
        (a_pause_is_not_noticed, ("hang-long", "jump")),
        (patience_is_short, ("hang",)),
        (a_dirty_kernel_renews, ("jump",)),
        (losers_are_not_awaited, ("split", "slow")),
        (an_exchange_ends_early, ()),
        (balance_forgets_somebody, ()),
        (the_first_member_never_fills, ()),
        (nobody_is_told_again, ()),
        (two_sides_say_the_same_of_different_histories, ("divide", "kill")),
    ],
)
def test_a_fault_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert any(outcome(draw(seed, kinds))[1] is not None for seed in range(200))


def test_a_failure_says_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody_waits_for_a_lease(monkeypatch)
    assert main(["--seed", "0", "--seconds", "600", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    (file,) = tmp_path.iterdir()
    assert f"--replay {file}" in said
    plan = read(file.read_text())
    assert f"--seeds {plan.seed}-{plan.seed}" in said
    assert 0 < len(plan.faults) < len(draw(plan.seed).faults)
    assert main(["--replay", str(file)]) == 1
    monkeypatch.undo()
    assert main(["--replay", str(file)]) == 0


def test_seeds_that_are_given_are_done_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3-4"]) == 0
    assert "no law was broken: 2 seeds" in capsys.readouterr().out


def test_a_plan_of_nothing_keeps_the_laws() -> None:
    simulation, violation = outcome(Plan(seed=1, nodes=3, vips=5, until=1000))
    assert violation is None
    assert simulation.counts["VIPs acquired"] == 5
