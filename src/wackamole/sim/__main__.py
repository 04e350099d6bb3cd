"""`python -m wackamole.sim`: simulate seed after seed, and say how to see a failure again."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from ..core.model import NODES_MAX
from .plan import KINDS, Plan, PlanWrong, draw, read, shrink
from .simulator import Simulation, Violation

PROGRESS_SECONDS = 10.0


def outcome(plan: Plan) -> tuple[Simulation, Violation | None]:
    """Run a plan."""
    simulation = Simulation(plan)
    try:
        simulation.run()
    except Violation as wrong:
        return simulation, wrong
    return simulation, None


def fails(plan: Plan) -> bool:
    """Whether a plan breaks a law."""
    return outcome(plan)[1] is not None


def tell_failure(plan: Plan, only: tuple[str, ...], file: Path, *, shrinking: bool) -> None:
    """Print what went wrong and how to see it again; write the plan."""
    if shrinking:
        plan = shrink(plan, fails)
    simulation, wrong = outcome(plan)
    file.write_text(plan.text())
    print(plan.text())
    print("\n".join(simulation.story))
    print(f"\nVIOLATION  {wrong}")
    kinds = f" --kinds {','.join(only)}" if only else ""
    kinds += f" --members {plan.nodes}" if plan.nodes != draw(plan.seed, only).nodes else ""
    print(f"the seed:     python -m wackamole.sim --seeds {plan.seed}-{plan.seed}{kinds}")
    print(f"what is left: python -m wackamole.sim --replay {file}")


def table(counts: Counter[str]) -> str:
    """Counters, a line each."""
    return "\n".join(f"{n:>12,}  {what}" for what, n in sorted(counts.items()))


def seeds_of(text: str) -> Sequence[int]:
    """`A-B`, both included, or one number."""
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor A-B") from None
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} has no seeds")
    return found


def kinds_of(text: str) -> tuple[str, ...]:
    """Kinds of faults with commas between."""
    kinds = tuple(text.split(","))
    unknown = [k for k in kinds if k not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no kind {', '.join(map(repr, unknown))}")
    return kinds


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if no law was broken, 1 if one was, 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m wackamole.sim", description="Simulates clusters with faults and checks the laws."
    )
    parser.add_argument("--seconds", type=float, help="stop after this time (default 60, or when --seeds are done)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed; the next ones follow")
    parser.add_argument("--seeds", type=seeds_of, metavar="A-B", help="exactly these")
    parser.add_argument(
        "--kinds", type=kinds_of, default=(), metavar="K,…", help=f"only these kinds of faults, of {', '.join(KINDS)}"
    )
    parser.add_argument(
        "--members", type=int, choices=range(2, NODES_MAX + 1), metavar="N", help="with so many nodes (default: 2 to 7)"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the plan in FILE once")
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="FOLDER", help="where the plan of a failure goes"
    )
    parser.add_argument("--no-shrink", dest="shrinking", action="store_false", help="leave a failing plan as it is")
    given = parser.parse_args(arguments)
    if given.replay is not None:
        try:
            plan = read(given.replay.read_text(), str(given.replay))
        except (OSError, PlanWrong) as wrong:
            print(f"wackamole.sim: {wrong}", file=sys.stderr)
            return 2
        simulation, violation = outcome(plan)
        print("\n".join(simulation.story))
        print(f"\nVIOLATION  {violation}" if violation else f"\n{table(simulation.counts)}\nno law was broken")
        return 1 if violation else 0
    seeds: Iterable[int] = given.seeds or count(given.seed)
    seconds = given.seconds if given.seconds is not None else (None if given.seeds else 60.0)
    plans = (draw(seed, given.kinds, given.members) for seed in seeds)
    return soak(plans, seconds, given.output, only=given.kinds, shrinking=given.shrinking)


def soak(plans: Iterable[Plan], seconds: float | None, folder: Path, *, only: tuple[str, ...], shrinking: bool) -> int:
    """Plan after plan until one fails or time is up."""
    began = told = time.monotonic()
    counts: Counter[str] = Counter()
    for plan in plans:
        seed = plan.seed
        simulation, violation = outcome(plan)
        counts += simulation.counts
        counts["seeds"] += 1
        counts["virtual seconds"] += simulation.now_ms // 1000
        if violation is not None:
            print(f"seed {seed}: {violation}", flush=True)
            tell_failure(simulation.plan, only, folder / f"plan-{seed}.txt", shrinking=shrinking)
            return 1
        now = time.monotonic()
        if now - told >= PROGRESS_SECONDS:
            told = now
            print(f"seed {seed}: {counts['seeds']} seeds, {counts['steps']:,} steps, {now - began:.0f} s", flush=True)
        if seconds is not None and now - began >= seconds:
            break
    print(table(counts))
    print(f"no law was broken: {counts['seeds']} seeds in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
