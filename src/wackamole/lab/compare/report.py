"""From records to tables: medians with their spread, and ratios between what was measured in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .chart import Bar, bars
from .store import Record


@dataclass(frozen=True, slots=True)
class Column:
    """A figure in a table: what it is, of which scenario, in which unit. Smaller is better everywhere."""

    what: str
    scenario: str
    figure: str
    unit: str


COLUMNS = (
    Column("host crash", "crash", "outage_worst_ms", "ms"),
    Column("daemon kill -9", "kill", "outage_worst_ms", "ms"),
    Column("daemon frozen", "freeze", "outage_worst_ms", "ms"),
    Column("cable pulled", "cable", "outage_worst_ms", "ms"),
    Column("graceful leave", "leave", "outage_worst_ms", "ms"),
    Column("come-back", "come-back", "outage_worst_ms", "ms"),
    Column("after a split", "split", "back_outage_worst_ms", "ms"),
    Column("planned move", "move", "outage_worst_ms", "ms"),
    Column("cold start", "cold", "served_worst_ms", "ms"),
    Column("60 s of faults", "chaos", "dark_vip_seconds", "VIP-s"),
)
MEDIAN_VIP = (
    Column("host crash", "crash", "outage_median_ms", "ms"),
    Column("daemon kill -9", "kill", "outage_median_ms", "ms"),
    Column("daemon frozen", "freeze", "outage_median_ms", "ms"),
    Column("cable pulled", "cable", "outage_median_ms", "ms"),
    Column("graceful leave", "leave", "outage_median_ms", "ms"),
)
TWO_OWNERS = (
    Column("host crash", "crash", "two_owners_worst_ms", "ms"),
    Column("daemon kill -9", "kill", "two_owners_worst_ms", "ms"),
    Column("daemon frozen", "freeze", "two_owners_worst_ms", "ms"),
    Column("… and going on", "freeze", "back_two_owners_worst_ms", "ms"),
    Column("graceful leave", "leave", "two_owners_worst_ms", "ms"),
    Column("come-back", "come-back", "two_owners_worst_ms", "ms"),
    Column("cable plugged in", "cable", "back_two_owners_worst_ms", "ms"),
    Column("after a split", "split", "back_two_owners_worst_ms", "ms"),
    Column("planned move", "move", "two_owners_worst_ms", "ms"),
    Column("cold start", "cold", "two_owners_worst_ms", "ms"),
    Column("60 s of faults", "chaos", "two_owners_worst_ms", "ms"),
)
COSTS = (
    Column("CPU, everything on a host", "idle", "cpu_percent", "%"),
    Column("CPU, the daemon", "idle", "cpu_daemon_percent", "%"),
    Column("memory, everything on a host", "idle", "memory_mb", "MB"),
    Column("memory, the daemon", "idle", "memory_daemon_mb", "MB"),
)
NEEDLESS = (
    Column("moves at a crash", "crash", "needless_moves", ""),
    Column("interruptions at a crash", "crash", "needless_interruptions", ""),
    Column("moves at a come-back", "come-back", "needless_moves", ""),
    Column("interruptions at a come-back", "come-back", "needless_interruptions", ""),
    Column("shares differ at rest", "cold", "fairness_vips", ""),
    Column("… after a crash", "crash", "fairness_vips", ""),
    Column("… after a come-back", "come-back", "fairness_vips", ""),
)
Table = Sequence[Column]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of one figure."""

    name: str  # of its file
    title: str
    note: str
    column: Column


CLIENT = "Client, each 5 ms, through its own neighbour cache; 3 hosts, 10 addresses."
CHARTS = (
    Chart("crash", "A host crashes: how long its worst address is dark", f"{CLIENT} Shorter is better.", COLUMNS[0]),
    Chart("leave", "A host leaves in an orderly way: how long its worst address is dark", f"{CLIENT}", COLUMNS[4]),
    Chart(
        "frozen",
        "The daemon freezes for 10 s: how long two hosts answer for one address",
        "Two hosts answering one ARP question, each 5 ms. Nothing is best.",
        TWO_OWNERS[2],
    ),
    Chart("split", "After a split has healed: how long the worst address is dark", CLIENT, COLUMNS[6]),
    Chart(
        "faults", "A minute of random faults: address-seconds dark", f"{CLIENT} The same faults for all.", COLUMNS[9]
    ),
)


@dataclass(frozen=True, slots=True)
class Titled:
    """A system as the tables show it."""

    name: str
    title: str
    ours: bool


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
    """Median and spread; or why there is none."""
    found = list(values(records, system, column).values())
    if found:
        summary = Summary.of(found)
        if summary.least == summary.most:
            return short(summary.median)
        return f"{short(summary.median)} <sub>{short(summary.least)}–{short(summary.most)}</sub>"
    mine = [r for r in records if r.system == system and r.scenario == column.scenario]
    return "–" if any(r.refused for r in mine) else "void" if any(r.void for r in mine) else ""


def table(records: Sequence[Record], titles: Mapping[str, str], columns: Table) -> str:
    """Markdown: a row for each figure, a column for each system."""
    names = list(titles)
    lines = ["| | " + " | ".join(titles.values()) + " |", "|---|" + "---:|" * len(names)]
    for column in columns:
        row = [cell(records, name, column) for name in names]
        if any(row):
            unit = f", {column.unit}" if column.unit else ""
            lines.append(f"| {column.what}{unit} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def ratios(records: Sequence[Record], titles: Mapping[str, str], ours: str, columns: Table = COLUMNS) -> str:
    """Markdown: ours divided by each peer's."""
    peers = [name for name in titles if name != ours]
    lines = ["| | " + " | ".join(titles[p] for p in peers) + " |", "|---|" + "---:|" * len(peers)]
    for column in columns:
        found = [ratio(records, ours, p, column) for p in peers]
        if any(found):
            told = [f"{s.median:.2f} <sub>{s.least:.2f}–{s.most:.2f}</sub>" if s else "" for s in found]
            lines.append(f"| {column.what} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def counted(records: Sequence[Record], titles: Mapping[str, str]) -> str:
    """Markdown: how many runs each system has, how many were void and why."""
    lines = ["| | runs of scenarios | void | load of the machine |", "|---|---:|---:|---|"]
    for name, title in titles.items():
        mine = [r for r in records if r.system == name]
        if mine:
            loads = Summary.of([r.load for r in mine])
            void = [r for r in mine if r.void]
            lines.append(
                f"| {title} | {sum(1 for r in mine if not r.void and not r.refused)} | {len(void)} |"
                f" {loads.median:.1f} <sub>{loads.least:.1f}–{loads.most:.1f}</sub> |"
            )
    return "\n".join(lines)


def document(records: Sequence[Record], systems: Sequence[Titled]) -> str:
    """All tables, as Markdown."""
    there = {r.system for r in records}
    titles = {s.name: s.title for s in systems if s.name in there}
    ours = next((s.name for s in systems if s.ours and s.name in there), None)
    parts = [
        ("Outage of the worst VIP", table(records, titles, COLUMNS)),
        ("Outage of the median VIP among those concerned", table(records, titles, MEDIAN_VIP)),
        ("Two hosts answering for one VIP, worst VIP", table(records, titles, TWO_OWNERS)),
        ("Moved or interrupted without need; fairness, in VIPs", table(records, titles, NEEDLESS)),
        ("At rest, one host", table(records, titles, COSTS)),
        ("Runs", counted(records, titles)),
        ("Versions", "\n".join(f"- {titles[n]}: {latest(records, n).version}" for n in titles)),
    ]
    if ours is not None and len(titles) > 1:
        parts.insert(1, (f"{titles[ours]} divided by each peer, run by run", ratios(records, titles, ours)))
    machines = sorted({r.machine for r in records})
    head = "# Results\n\nWritten by `script/bench --against`; how it is measured: [README.md](README.md).\n\n"
    return head + "\n".join(machines) + "\n\n" + "\n\n".join(f"## {h}\n\n{body}" for h, body in parts) + "\n"


def latest(records: Sequence[Record], system: str) -> Record:
    """The newest record of a system that has any."""
    return max((r for r in records if r.system == system), key=lambda r: r.began)


def charts(records: Sequence[Record], systems: Sequence[Titled]) -> dict[str, str]:
    """The pictures, by the name of their file: those for which there are values."""
    found = {}
    for chart in CHARTS:
        rows = []
        for system in systems:
            got = tuple(values(records, system.name, chart.column).values())
            if got:
                rows.append(Bar(system.title, system.ours, got, statistics.median(got)))
        if rows:
            found[chart.name] = bars(chart.title, chart.note, chart.column.unit, rows)
    return found
