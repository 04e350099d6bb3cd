"""Faults that are put into the core on purpose. A test that cannot fail proves nothing: each of these has to be found by a
story, by the exhaustive search or by random walks, in this order.

    python -m wackamole.sim.mutants [--stories DIR] [--list] [WORDS …]     WORDS: only those whose name has one of them

prints who found which, and after how long; exit code 1 if one survives. Survivors show a story that is missing.

A mutant is a function of the core in which a text, which has to be there exactly once, is replaced. What is exchanged is the
function's code, so everybody who imported it gets the fault, and gets rid of it again.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from ..core import agreed, balancing, damping, electorate, holding, machine, orders, placement, settling, views, voice
from ..core.model import NotEligible
from ..core.work import Work
from .search import search, small_world, wander
from .story import play

SEARCH_SECONDS_MAX = 30
WALKS = 300


@dataclass(frozen=True, slots=True)
class Mutant:
    """In `function`, `new` in place of `old`."""

    name: str
    function: Callable[..., Any]
    old: str
    new: str

    @contextmanager
    def put_in(self) -> Iterator[None]:
        """The fault is there until the end of the block. LookupError if the text is not there exactly once."""
        function = self.function
        assert isinstance(function, FunctionType)
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.old) != 1:
            raise LookupError(f"{self.name}: {self.old!r} is {source.count(self.old)} times in {function.__qualname__}")
        tree = ast.parse(source.replace(self.old, self.new))
        assert isinstance(tree.body[0], ast.FunctionDef)
        tree.body[0].decorator_list.clear()
        scratch = dict(function.__globals__)
        exec(compile(tree, f"<{self.name}>", "exec"), scratch)  # noqa: S102 - our own source with our own change
        right = function.__code__
        function.__code__ = scratch[function.__name__].__code__
        try:
            yield
        finally:
            function.__code__ = right


def of_property(owner: type, name: str) -> Callable[..., Any]:
    """The function behind a property."""
    found = vars(owner)[name]
    assert isinstance(found, property)
    assert found.fget is not None
    return found.fget


MUTANTS = (
    # what is acquired, and when
    Mutant(
        "says Released before its kernel has let go",
        voice.gone,
        "and r.target != me and r.key not in may",
        "and r.target != me",
    ),
    Mutant(
        "a loser says Released before its kernel has let go",
        voice.gone,
        "if node == me and r.key not in may",
        "if node == me",
    ),
    Mutant("acquires on an intention", holding.wish, "if row.holder == me", "if True"),
    Mutant("serves on when it is to release", holding.wish, "and row.target == me", ""),
    Mutant("lets go of everything in an exchange", holding.wish, "if k.vip.key in held", "if False"),
    Mutant("a loser is not waited for", settling.must_release, "if not any(", "if False and not any("),
    Mutant("a loser is not told of", views.open_exchange, "releasing=tuple(", "releasing=() and tuple("),
    Mutant("old generations of Released count", orders.on_released, " and row.generation == generation", ""),
    Mutant("old generations of moves count", orders.on_moves, " or row.generation != m.generation", ""),
    Mutant("old generations of Failed count", orders.on_failed, " or row.generation != message.generation", ""),
    Mutant("messages of other views count", orders.on_message, "event.view != view.id", "False"),
    Mutant(
        "one address under two names is given out twice",
        placement.free,
        "not any(",
        "True or any(",
    ),
    Mutant(
        "one address under two names is no conflict",
        views.claim,
        "if shared:",
        "if False:",
    ),
    Mutant("the winner does not announce", orders.on_released, "if row.holder == w.s.me:", "if False:"),
    Mutant("the larger component loses", views.standing, "-report.component", "0"),
    # entering a view
    Mutant("no exchange with those who joined", views.on_view, " and not view.joined", ""),
    Mutant("no exchange after what the engine cannot vouch for", views.on_view, " and view.direct", ""),
    Mutant(
        "zero rounds out of an exchange that was not over",
        views.on_view,
        "    before = w.s.view\n",
        "    before = w.s.view\n    w.s = changed(w.s, phase=Phase.SETTLED)\n",
    ),
    Mutant("the exchange is over when anybody has spoken", views.awaited, "m not in w.reports", "not w.reports"),
    Mutant("the evicted are waited for", views.awaited, "m not in w.evicted and ", ""),
    Mutant("a target that may not have it is kept", settling.is_void, "facts.forbidden(to, row.key) or", "False and"),
    Mutant(
        "maturity is counted anew in each view",
        views.on_view,
        "        view=view,\n",
        "        view=view,\n        started_ms=w.now_ms,\n",
    ),
    Mutant(
        "nobody matures by meeting the mature",
        views.complete_if_all,
        "electorate.grown(w.reports.values()) or ",
        "",
    ),
    Mutant(
        "a newcomer makes a majority at once",
        electorate.grown,
        "_may_serve(mature, present)",
        "_may_serve(present, present)",
    ),
    Mutant(
        "what is decided is decided again before it is agreed",
        machine.remember,
        "mine is None or mine.electorates != s.remembering",
        "False",
    ),
    Mutant("what was lost is not said again", Work.say, "self.now_ms - x.at_ms < overdue_ms", "True"),
    # silence and leases
    Mutant("Evict counts whatever was heard", orders.on_evict, "heard[message.node] != message.heard", "False"),
    Mutant("a late State does not save from Evict", orders.on_evict, " or report is not None", ""),
    Mutant("judges while its own beats are missing", voice.watch_for_silence, "> 3 * w.s.settings.beat_ms", "< 0"),
    Mutant("the evicted serves on", settling.evict, 'w.fall_back("evicted for silence")', "pass"),
    Mutant("the evicted is obeyed", orders.on_message, "if sender in w.evicted:", "if False:"),
    Mutant("the evicted may be the first", Work.first, " if m not in self.evicted", ""),
    Mutant("an eviction without a lease frees", settling.evict, "if not silenced:", "if False:"),
    Mutant(
        "an eviction without a lease frees, in an exchange",
        settling.evict,
        "if report is None:",
        "if False:",
    ),
    Mutant("what the evicted may serve is not told", views.open_exchange, "blocked=tuple(", "blocked=() and tuple("),
    Mutant("old beats renew the lease", agreed.renews, "if not 0 <= now_ms - beat.sent_ms", "if now_ms < beat.sent_ms"),
    Mutant(
        "renews before it has spoken in an exchange",
        agreed.renews,
        "and any(r.node == state.me for r in state.table.reports)",
        "",
    ),
    Mutant(
        "what was taken over in the dark is not announced", agreed.renew, "for v in state.wanted if", "for v in () if"
    ),
    Mutant("who paused goes on", machine.on_paused, "w.fall_back(", "str("),
    Mutant("who wakes takes over from all others", views.suspect, "return len(standing_before) > 1", "return False"),
    Mutant("no lease is waited for after a loss", views.lose, "why in _PERHAPS_LIVES and strict", "False"),
    Mutant("a death without a proven fence frees at once", views.lose, "and not report.fenced", "and False"),
    Mutant(
        "the guard of an evicted member is not waited for",
        views.lose,
        "if serves and why in _PERHAPS_DIED",
        "if False",
    ),
    Mutant(
        "a newcomer is not told of leases",
        views.open_exchange,
        "        lapsing=tuple(",
        "        lapsing=() and tuple(",
    ),
    Mutant(
        "renews while its kernel has others' VIPs", agreed.renews, "not mine.issuperset", "False and mine.issuperset"
    ),
    Mutant("goes before its kernel has let go", voice.leave_if_empty, "w.s.fenced or not w.s.may_hold", "True"),
    Mutant("takes what it knows it may not have", holding.wish, "if why.forbids", "if False"),
    Mutant("a clock that jumped has waited for leases", machine.on_paused, "w.now_ms + waits[n]", "0 * waits[n]"),
    # a process that is replaced
    Mutant("two are replaced at once", orders.on_restart, "any(r.restart_ms for r in w.reports.values())", "False"),
    Mutant("nothing is kept for a successor", views.lose, "if report.restart_ms and", "if False and"),
    Mutant(
        "a successor claims what was kept too long ago", views.open_exchange, "if w.now_ms < w.s.inherited_until_ms", ""
    ),
    Mutant("a successor begins with nothing", holding.wish, "w.now_ms < w.s.inherited_until_ms", "False"),
    # placement, and what people ask for
    Mutant(
        "all place alone although configs differ",
        settling.settle,
        "alike = agreement(w.reports.values())",
        "alike = True",
    ),
    Mutant("a ring that broke in haste counts as a death", views.lose, "and hasty", "and False"),
    Mutant("a refusal is forgotten", holding.on_kernel, "w.now_ms + wait_ms", "w.now_ms"),
    Mutant("a refusal goes to nobody", orders.on_failed, "if row.previous is not None and", "if False and"),
    Mutant("balance undoes an operator's move", balancing.Balance.fixed, "if row.sticky", "if False"),
    Mutant("who comes alone does not wait for a guard", views.is_mature, "0 if w.s.fenced else GUARD_MS", "0"),
    Mutant("capacities are for others", placement.Placement.room, "limit is None or", "True or"),
    Mutant("capacities are not for operators", orders.on_moves, "if alike and facts.full(m.to, m.key):", "if False:"),
    Mutant("what is beyond a capacity stays", placement.Placement.overflow, "if not self.overfull(node):", "if True:"),
    Mutant("a VIP is for everybody", views.own_report, "for key in settings.not_mine:", "for key in ():"),
    Mutant("a pin that not all know darkens", settling.evacuate, "reason is NotEligible.NOT_LISTED", "False"),
    Mutant("what is avoided is not", placement._avoided, "int(", "0 * int("),
    Mutant("nothing is kept apart", placement.Placement.best, "if key in self.apart:", "if False:"),
    Mutant(
        "what is together stays together", balancing.Balance._keep_apart, "again = bool(facts.apart)", "again = False"
    ),
    Mutant("no room is made", balancing.Balance._make_room, "if not facts.limits:", "if True:"),
    Mutant("who flaps is welcome", damping.times, "if member == node and settle_ms:", "if False:"),
    Mutant("balance does not forgive", orders.on_unstick, ", joins=())", ")"),
    Mutant("a VIP moves by the loads of the past", voice.moves_for_load, ">= shares.pause_ms", ">= 0"),
    Mutant("loads are not told", views.own_report, "load=w.s.load.announced", "load=None"),
    Mutant(
        "a drain forbids",
        of_property(NotEligible, "forbids"),
        "self not in (NotEligible.DRAINING, NotEligible.CHECK_FAILING)",
        "True",
    ),
    Mutant("what checks say is not told", views.own_report, "**dict(w.s.failing), ", ""),
    Mutant("a check that fails hides a refusal", orders.on_failed, "not reasons[message.key].forbids", "False"),
    Mutant("who is sick is as good as who is drained", placement._objection, "else 2", "else 1"),
    Mutant(
        "two that are chosen are served by one",
        placement.Placement.why_not,
        "if key in self._chosen_twice:",
        "if False:",
    ),
    Mutant("who is chosen is not told", views.own_report, "chosen=w.s.chosen", "chosen=()"),
    Mutant("the sick stay where configs differ", voice.place_for_all, "not why.forbids", "why.name == 'DRAINING'"),
    Mutant("a drain is nothing", placement.Placement.why_not, "report.draining or report.leaving", "report.leaving"),
    Mutant("who is leaving is a target", placement.Placement.able, "not r.leaving and ", ""),
    Mutant("a move in the middle of a conflict counts", orders.on_moves, "if row.releasing:", "if False:"),
    Mutant("one name twice is two members", placement.Placement.why_not, "if node in self._second:", "if False:"),
    Mutant(
        "a VIP counts as one whatever is asked for", placement.Placement.size, "self.count is Count.ADDRESSES", "False"
    ),
    Mutant("a witness is given VIPs", placement.Placement.able, "r.weight > 0 and ", ""),
    Mutant("digests are not compared", orders.on_beat, "mine is None or mine == beat.digest", "True"),
    Mutant("digests force exchanges without end", orders.on_beat, "since < FORCED_INTERVAL_MS", "False"),
    Mutant(
        "claims what its table says, not its kernel",
        views.open_exchange,
        "r.holder == me and r.key in may",
        "r.holder == me",
    ),
    # the electorate
    Mutant(
        "no majority is needed",
        electorate.quorate,
        "return _may_serve(present, present)",
        "return True",
    ),
    Mutant("half is a majority", electorate.has_majority, "> sum(", ">= sum("),
    Mutant("each config's list counts by itself", electorate.counting, "if not known:", "if True:"),
    Mutant("a new electorate counts at once", electorate.counting, "if all(has_majority(kept_by, e)", "if all(True"),
    Mutant("zero rounds while the electorate changes", electorate.changing, "return any(", "return False and any("),
    Mutant(
        "says what is not on its disk yet",
        machine.remember,
        "w.s = changed(s, remembering=keep)",
        "w.s = changed(s, remembering=keep, electorates=keep)",
    ),
)


@dataclass(frozen=True, slots=True)
class Found:
    """By whom, in how many seconds; by None if it survived."""

    mutant: Mutant
    by: str | None
    seconds: float


def stories_in(folder: Path) -> list[Path]:
    """The stories of a folder, the short ones first."""
    return sorted(folder.glob("*.txt"), key=lambda path: (path.stat().st_size, path.name))


def hunt(mutant: Mutant, stories: Sequence[Path]) -> Found:
    """Look for a mutant until somebody finds it."""
    began = time.monotonic()
    with mutant.put_in():
        by = next((name for name, trial in trials(stories) if fails(trial)), None)
    return Found(mutant, by, time.monotonic() - began)


def trials(stories: Sequence[Path]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that may find a fault, what costs least first."""
    for path in stories:
        yield path.stem, partial(same, path)
    for changes in ("rr", "a"):
        yield f"search {changes}", partial(searched, changes)
    for seed in (1, 2):
        yield f"walks {seed}", partial(walked, seed)


def searched(changes: str) -> None:
    """The search finds nothing (within its time)."""
    search(small_world(), changes, seconds_max=SEARCH_SECONDS_MAX)


def walked(seed: int) -> None:
    """Random walks find nothing."""
    wander(small_world(vips=4), "a" * 8, walks=WALKS, seed=seed)


def same(path: Path) -> None:
    """A story ends as it is written."""
    text = path.read_text()
    assert play(text) == text


def fails(trial: Callable[[], object]) -> bool:
    """Whether a trial breaks a law, ends otherwise, or crashes: a crash of the core is a find as well."""
    try:
        trial()
    except Exception:  # noqa: BLE001, RUF100 - whatever it is, it was noticed
        return True
    return False


def main(arguments: Sequence[str]) -> int:
    """Try all, or those that are named; print the table."""
    words = list(arguments)
    folder = Path("tests/scenarios")
    if "--stories" in words:
        at = words.index("--stories")
        folder = Path(words[at + 1])
        del words[at : at + 2]
    listing = "--list" in words
    words = [w for w in words if w != "--list"]
    stories = stories_in(folder)
    if not stories:
        print(
            f"{folder}: no stories there; start this in the repository, or name their folder with --stories",
            file=sys.stderr,
        )
        return 2
    chosen = [m for m in MUTANTS if not words or any(w in m.name for w in words)]
    if listing:
        print("\n".join(m.name for m in chosen))
        return 0
    survived = 0
    for mutant in chosen:
        found = hunt(mutant, stories)
        survived += found.by is None
        print(f"{mutant.name:<60} {found.by or 'SURVIVED':<60} {found.seconds:6.1f} s", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} found")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
