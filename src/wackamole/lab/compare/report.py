"""From records to tables: medians with their spread, and ratios between what was measured in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .chart import Bar, bars
from .store import Record


@dataclass(frozen=True, slots=True)
class Column:
    """A figure in a table: what it is, of which scenario, in which unit. Smaller is better everywhere."""

    what: str
    scenario: str
    figure: str
    unit: str


@dataclass(frozen=True, slots=True)
class Section:
    """A table of one scenario: a row for each system, its columns, and ours divided by it in the first of them."""

    title: str
    columns: tuple[Column, ...]


def fault(title: str, scenario: str, prefix: str = "", *, shares: bool = False) -> Section:
    """What is told of a fault, or, with the prefix `back_`, of its end."""
    columns = (
        Column("worst VIP dark", scenario, f"{prefix}outage_worst_ms", "ms"),
        Column("median VIP dark", scenario, f"{prefix}outage_median_ms", "ms"),
        Column("two owners, worst VIP", scenario, f"{prefix}two_owners_worst_ms", "ms"),
        Column("moved without need", scenario, f"{prefix}needless_moves", "VIPs"),
        Column("dark without need", scenario, f"{prefix}needless_interruptions", "VIPs"),
        Column("shares differ by", scenario, f"{prefix}fairness_vips", "VIPs"),
    )
    return Section(title, columns if shares else columns[:-1])


SECTIONS = (
    fault("Host crash", "crash", shares=True),
    fault("Daemon killed (kill -9)", "kill", shares=True),
    fault("Daemon frozen (SIGSTOP)", "freeze", shares=True),
    fault("… and going on (SIGCONT)", "freeze", "back_"),
    fault("Cable pulled", "cable", shares=True),
    fault("… and plugged in", "cable", "back_"),
    fault("Graceful leave", "leave", shares=True),
    fault("Come-back", "come-back", shares=True),
    fault("After a split has healed", "split", "back_"),
    Section(
        "Planned move",
        (
            Column("dark", "move", "outage_worst_ms", "ms"),
            Column("lost of 1000 pings a second", "move", "lost_per_1000_s", ""),
            Column("two owners", "move", "two_owners_worst_ms", "ms"),
            Column("moved without need", "move", "needless_moves", "VIPs"),
        ),
    ),
    Section(
        "Cold start",
        (
            Column("all VIPs served after", "cold", "served_worst_ms", "ms"),
            Column("first VIP served after", "cold", "served_first_ms", "ms"),
            Column("two owners, worst VIP", "cold", "two_owners_worst_ms", "ms"),
            Column("shares differ by", "cold", "fairness_vips", "VIPs"),
        ),
    ),
    Section(
        "Random faults",
        (
            Column("dark, all VIPs", "chaos", "dark_vip_seconds", "s"),
            Column("dark, worst VIP", "chaos", "dark_worst_vip_seconds", "s"),
            Column("two owners, all VIPs", "chaos", "two_owners_vip_ms", "ms"),
            Column("two owners, worst VIP", "chaos", "two_owners_worst_ms", "ms"),
        ),
    ),
    Section(
        "At rest, one host",
        (
            Column("CPU, everything", "idle", "cpu_percent", "%"),
            Column("CPU, the daemon", "idle", "cpu_daemon_percent", "%"),
            Column("memory, everything", "idle", "memory_mb", "MB"),
            Column("memory, the daemon", "idle", "memory_daemon_mb", "MB"),
        ),
    ),
)
OVERVIEW = tuple(
    Column(what, scenario, figure, unit)
    for what, scenario, figure, unit in (
        ("crash", "crash", "outage_worst_ms", "ms"),
        ("kill -9", "kill", "outage_worst_ms", "ms"),
        ("frozen", "freeze", "outage_worst_ms", "ms"),
        ("cable", "cable", "outage_worst_ms", "ms"),
        ("leave", "leave", "outage_worst_ms", "ms"),
        ("come-back", "come-back", "outage_worst_ms", "ms"),
        ("healed split", "split", "back_outage_worst_ms", "ms"),
        ("move", "move", "outage_worst_ms", "ms"),
        ("cold start", "cold", "served_worst_ms", "ms"),
    )
)
CRASH = OVERVIEW[0]
UNFORCED = ("crash", "kill", "freeze", "leave", "come-back")
"""Where two owners are the system's own doing: both could hear each other, or one was dead."""
DOUBLE = tuple(Column("two owners", scenario, "two_owners_worst_ms", "ms") for scenario in UNFORCED)


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of one figure."""

    name: str  # of its file
    title: str
    note: str
    column: Column


CLIENT = "Client, each 5 ms, through its own neighbour cache; 3 hosts, 10 addresses."
AGAINST = Chart(
    "against",
    "A host crashes: how long its worst address is dark",
    f"{CLIENT}\nOrange: how long at most two hosts answered for one address, at a crash, kill -9, freeze, leave or come-back,"
    " as long as it was watched.",
    CRASH,
)
CHARTS = (
    Chart("leave", "A host leaves in an orderly way: how long its worst address is dark", CLIENT, OVERVIEW[4]),
    Chart(
        "frozen",
        "The daemon freezes for some seconds: how long two hosts answer for one address",
        "Two hosts answering one ARP question, each 5 ms. Nothing is best.",
        DOUBLE[2],
    ),
    Chart("split", "After a split has healed: how long the worst address is dark", CLIENT, OVERVIEW[6]),
    Chart(
        "faults",
        "Random faults: address-seconds dark",
        f"{CLIENT} The same faults for all.",
        Column("dark", "chaos", "dark_vip_seconds", "s"),
    ),
)


@dataclass(frozen=True, slots=True)
class Titled:
    """A system as the tables show it."""

    name: str
    title: str
    ours: bool
    tuned: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of some values: median, smallest, largest, and how many."""

    median: float
    least: float
    most: float
    n: int

    @staticmethod
    def of(values: Sequence[float]) -> Summary:
        """Of at least one."""
        return Summary(statistics.median(values), min(values), max(values), len(values))


def values(records: Iterable[Record], system: str, column: Column) -> dict[int, float]:
    """A figure of a system, by run: the latest valid record of each."""
    return {
        r.run: r.figures[column.figure]
        for r in records
        if r.system == system and r.scenario == column.scenario and not r.void and column.figure in r.figures
    }


def ratio(records: Sequence[Record], ours: str, peer: str, column: Column) -> Summary | None:
    """Ours to the peer's, run by run; None if they have no run in common, or the peer's is nothing."""
    mine, theirs = values(records, ours, column), values(records, peer, column)
    found = [mine[run] / theirs[run] for run in sorted(mine.keys() & theirs.keys()) if theirs[run] > 0]
    return Summary.of(found) if found else None


def short(value: float) -> str:
    """A number as short as it can be told."""
    if value >= 10_000:
        return f"{value / 1000:.0f} k"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(records: Sequence[Record], system: str, column: Column) -> str:
    """Median and spread (smallest–largest); or why there is none."""
    found = list(values(records, system, column).values())
    if found:
        summary, sign = Summary.of(found), "≥ " if _cut_off(records, system, column) else ""
        if summary.least == summary.most:
            return f"{sign}{short(summary.median)}"
        return f"{sign}{short(summary.median)} ({short(summary.least)}–{short(summary.most)})"
    mine = [r for r in records if r.system == system and r.scenario == column.scenario]
    return "–" if any(r.refused for r in mine) else "void" if any(r.void for r in mine) else ""


def _cut_off(records: Iterable[Record], system: str, column: Column) -> bool:
    """Whether a VIP was still dark when the watching ended, in any run that has this figure."""
    if not column.figure.endswith(("outage_worst_ms", "outage_median_ms")):
        return False
    prefix = "back_" if column.figure.startswith("back_") else ""
    return bool(values(records, system, replace(column, figure=f"{prefix}unrecovered")))


def table(
    records: Sequence[Record], titles: Mapping[str, str], columns: Sequence[Column], ours: str | None = None
) -> str:
    """Markdown: a row for each system that has something to tell; `ours`: with ours divided by it, in the first column."""
    told = [f"{c.what}, {c.unit}" if c.unit else c.what for c in columns]
    told += ["ours ÷ this"] if ours is not None else []
    lines = ["| | " + " | ".join(told) + " |", "|---|" + "---:|" * len(told)]
    for name, title in titles.items():
        row = [cell(records, name, column) for column in columns]
        if any(row):
            if ours is not None:
                found = ratio(records, ours, name, columns[0]) if name != ours else None
                row.append(f"{found.median:.2f}{_spread(found, '.2f')}" if found else "")
            lines.append(f"| {title} | " + " | ".join(row) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _spread(summary: Summary, form: str) -> str:
    return f" ({summary.least:{form}}–{summary.most:{form}})" if summary.n > 1 else ""


def counted(records: Sequence[Record], titles: Mapping[str, str]) -> str:
    """Markdown: how many scenarios each system has gone through, how many were void, and how long a run of all takes."""
    lines = [
        "| | scenarios played | void | one run of all, s | load of the machine |",
        "|---|---:|---:|---:|---|",
    ]
    for name, title in titles.items():
        mine = [r for r in records if r.system == name]
        loads = Summary.of([r.load for r in mine])
        good = [r for r in mine if not r.void]
        took = sum(
            statistics.median(r.took_s for r in good if r.scenario == scenario)
            for scenario in {r.scenario for r in good}
        )
        lines.append(
            f"| {title} | {sum(1 for r in good if not r.refused)} | {len(mine) - len(good)} | {took:.0f} |"
            f" {loads.median:.1f} ({loads.least:.1f}–{loads.most:.1f}) |"
        )
    return "\n".join(lines)


def voids(records: Sequence[Record], titles: Mapping[str, str]) -> str:
    """Markdown: each void run and why."""
    return "\n".join(
        f"- {titles[r.system]}, {r.scenario}, run {r.run + 1}: {r.void}"
        for r in records
        if r.void and r.system in titles
    )


def document(records: Sequence[Record], systems: Sequence[Titled]) -> str:
    """All tables, as Markdown."""
    there = {r.system for r in records}
    titles = {s.name: s.title for s in systems if s.name in there}
    ours = next((s.name for s in systems if s.ours and s.name in there), None)
    parts = [
        ("How long the worst VIP is dark, ms", table(records, titles, tuple(replace(c, unit="") for c in OVERVIEW)))
    ]
    parts += [(section.title, table(records, titles, section.columns, ours)) for section in SECTIONS]
    configured = {s.name: f" ({s.tuned})" for s in systems if s.tuned}
    versions = [f"- {t}: {latest(records, n).version}{configured.get(n, '')}" for n, t in titles.items()]
    parts += [("Versions and configurations", "\n".join(versions))]
    parts += [("Runs", counted(records, titles)), ("Void", voids(records, titles))]
    machines = sorted({r.machine for r in records})
    head = (
        "# Results\n\nWritten by `script/bench --against`; how it is measured: [README.md](README.md). Medians, with the"
        " smallest and the largest where there are several runs; smaller is better everywhere. “–”: not offered; “void”:"
        " a precondition did not hold; “≥”: a VIP was still dark when the watching ended; empty: not measured."
    )
    if ours is not None:
        head += f" “Ours ÷ this” is {titles[ours]} divided by the system of that row, in the first column, run by run."
    return "\n\n".join([head, *machines, *(f"## {h}\n\n{body}" for h, body in parts if body)]) + "\n"


def latest(records: Sequence[Record], system: str) -> Record:
    """The newest record of a system that has any."""
    return max((r for r in records if r.system == system), key=lambda r: r.began)


def longest_double(records: Sequence[Record], system: str) -> float | None:
    """The longest that two hosts served one VIP in any of UNFORCED, median of runs; None if none was seen and not
    all of them were measured."""
    found = [list(values(records, system, column).values()) for column in DOUBLE]
    longest = max((statistics.median(each) for each in found if each), default=0.0)
    return longest if longest > 0 or all(found) else None


def charts(records: Sequence[Record], systems: Sequence[Titled]) -> dict[str, str]:
    """The pictures, by the name of their file: those for which there are values."""
    found = {}
    for chart in (AGAINST, *CHARTS):
        rows = []
        for system in systems:
            got = tuple(values(records, system.name, chart.column).values())
            if got:
                double = longest_double(records, system.name) if chart is AGAINST else None
                rows.append(
                    Bar(
                        system.title,
                        system.ours,
                        got,
                        statistics.median(got),
                        double,
                        _cut_off(records, system.name, chart.column),
                    )
                )
        if rows:
            found[chart.name] = bars(chart.title, chart.note, chart.column.unit, rows)
    return found
