"""`python -m wackamole.lab.compare`, which is `script/bench --against`: measure, one cluster after the other, and report."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ..bench import machine, note
from ..lab import Lab, LabRefused
from .ctdb import Ctdb
from .keepalived import Keepalived
from .original import Original
from .ours import DETECTION_MS, FAST_MS, SPREAD_MS, Ours
from .pacemaker import Pacemaker
from .report import Titled, charts, document
from .scenario import QUICK, SCENARIOS, NotOffered, Stage, Timing, Void, play
from .store import Record, Store, missing, order
from .system import About, System
from .ucarp import Ucarp

SYSTEMS: tuple[System, ...] = (
    Ours("corosync"),
    Ours("corosync", FAST_MS),
    Keepalived(tuned=True),
    Keepalived(tuned=False),
    Ucarp(),
    Ours("spread", SPREAD_MS),
    Pacemaker(DETECTION_MS),
    Pacemaker(),
    Ctdb(tuned=True),
    Ctdb(tuned=False),
    Original(SPREAD_MS),
    Original(),
)
RUNS, RUNS_SLOW = 5, 2
VOID_MAX = 2
"""How often a scenario that was void is tried again in one call."""
QUICK_SYSTEMS_NOT = ("wackamole-fast", "pacemaker", "ctdb", "original")
"""Left out by --quick: a variant of ours, and the slowest, with their defaults."""
QUICK_SLOW_NOT = ("freeze", "cable", "come-back")
"""What --quick leaves out of slow systems: after these the longest is waited for even shares."""
QUICK_CHAOS = ("wackamole-corosync", "keepalived-100ms")
QUICK_SECONDS = 17.5 * 60
"""After that, --quick begins no other cluster."""


def measure(system: System, run: int, scenarios: list[str], store: Store, timing: Timing) -> None:
    """One cluster: those scenarios of that run, each with its record."""
    about, where = system.about, machine()
    began = time.monotonic()
    layout = system.layout(f"against{os.getpid()}")
    with Lab.create(layout, ephemeral=True) as lab:
        stage = Stage(system, lab, run, timing)
        for scenario in SCENARIOS:
            if scenario not in scenarios and scenario != "cold":
                continue
            started = time.monotonic()
            at, load = datetime.now(UTC).isoformat(timespec="seconds"), round(os.getloadavg()[0], 2)
            record = Record(about.name, scenario, run, at, load, system.version(), where)
            try:
                result = play(stage, scenario)
                record = replace(record, figures=result.figures, detail=result.detail)
                told = ", ".join(f"{k} {v:g}" for k, v in list(result.figures.items())[:4])
            except Void as void:
                record = replace(record, void=str(void))
                told = f"VOID: {void}"
            except NotOffered as no:
                record = replace(record, refused=str(no))
                told = str(no)
            record = replace(record, took_s=round(time.monotonic() - started, 1))
            note(f"{about.name}, run {run + 1}, {scenario}: {told} ({record.took_s:.0f} s)")
            if scenario in scenarios:
                store.add(record)
            if record.void:
                break  # what state it is in nobody knows: the rest has a new cluster
    note(f"{about.name}, run {run + 1}: {time.monotonic() - began:.0f} s")


def main() -> None:
    """`script/bench --against`."""
    parser = argparse.ArgumentParser(
        prog="script/bench --against", description="Measures other systems and ours, side by side, in one lab."
    )
    parser.add_argument("--system", action="append", choices=[s.about.name for s in SYSTEMS], help="only this one")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each (default {RUNS})")
    parser.add_argument("--runs-slow", type=int, default=RUNS_SLOW, help=f"of the slow ones (default {RUNS_SLOW})")
    parser.add_argument("--most", type=int, help="stop after so many clusters; the next call goes on")
    parser.add_argument("--quick", action="store_true", help="one run of each, shorter; within 20 minutes")
    parser.add_argument("--raw", type=Path, default=Path("docs/benchmarks/raw"), help="the records' folder")
    parser.add_argument("--report", action="store_true", help="measure nothing; print what the records say")
    parser.add_argument(
        "--publish", type=Path, metavar="FOLDER", help="write results.md, the charts and the records there"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    store = Store(given.raw)
    if not given.report:
        try:
            _measure_all(given, store)
        except KeyboardInterrupt:
            print("\nstopped; the next call goes on", file=sys.stderr)
            sys.exit(130)
        except LabRefused as no:
            print(f"script/bench: {no}", file=sys.stderr)
            sys.exit(1)
    records = store.records()
    titled = [Titled(s.about.name, s.about.title, s.about.ours, s.about.tuned) for s in SYSTEMS]
    text = document(records, titled)
    print(text)
    if given.publish is not None:
        given.publish.mkdir(parents=True, exist_ok=True)
        (given.publish / "results.md").write_text(text)
        for name, picture in charts(records, titled).items():
            (given.publish / f"{name}.svg").write_text(picture)
        store.copy_to(given.publish / "records")


def _measure_all(given: argparse.Namespace, store: Store) -> None:
    began = time.monotonic()
    chosen = {s.about.name: s for s in SYSTEMS if given.system is None or s.about.name in given.system}
    for name, system in list(chosen.items()):
        why = system.missing()
        if why is None and given.quick and given.system is None and name in QUICK_SYSTEMS_NOT:
            why = "--quick has no time for it (--quick --system names it)"
        if why is not None:
            note(f"{name} is left out: {why}")
            del chosen[name]
    runs = {n: 1 if given.quick else given.runs_slow if s.about.slow else given.runs for n, s in chosen.items()}
    if given.quick and given.scenario is None:
        slow = [n for n, s in chosen.items() if s.about.slow]
        note(f"--quick: one run, shorter holds; random faults only for {' and '.join(QUICK_CHAOS)}")
        note(f"--quick: no {', '.join(QUICK_SLOW_NOT)} of {', '.join(slow) or 'slow systems'}")
    clusters = 0
    for run, name in order(runs):
        for _ in range(1 + VOID_MAX):
            todo = missing(store.records(), name, scenarios(given, chosen[name].about), run)
            if not todo:
                break
            late = given.quick and time.monotonic() - began > QUICK_SECONDS
            if late or (given.most is not None and clusters >= given.most):
                note("there is more to do: call it again")
                return
            measure(chosen[name], run, todo, store, QUICK if given.quick else Timing())
            clusters += 1


def scenarios(given: argparse.Namespace, about: About) -> list[str]:
    """What is measured of a system: what was asked for, or all that --quick has time for."""
    if given.scenario is not None:
        return list(given.scenario)
    left_out = set() if about.name in QUICK_CHAOS else {"chaos"}
    left_out |= set(QUICK_SLOW_NOT) if about.slow else set()
    return [s for s in SCENARIOS if not given.quick or s not in left_out]


if __name__ == "__main__":
    main()
