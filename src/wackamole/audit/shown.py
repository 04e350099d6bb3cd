"""What people and programs see of an audit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..render import console
from .promises import Kind, Overlap, Report, Uncovered, Verdict

LINES_MAX = 20
ADDRESSES_SHOWN = 6
TOGETHER_US = 200_000
"""What happened to several addresses within this is shown as one line."""

_Timed = TypeVar("_Timed", Overlap, Uncovered)


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain data: times in seconds since the epoch, durations in seconds or milliseconds as they are named."""

    def overlap(o: Overlap) -> dict[str, Any]:
        return {
            "address": o.address,
            "nodes": list(o.nodes),
            "views": list(o.views),
            "kind": o.kind.value,
            "certain": o.certain,
            "since": o.since / 1e6,
            "until": o.until / 1e6,
            "seconds": (o.until - o.since) / 1e6,
        }

    return {
        "cluster": report.cluster,
        "nodes": list(report.nodes),
        "records": report.records,
        "addresses": report.addresses,
        "since": report.since / 1e6,
        "until": report.until / 1e6,
        "exclusive": report.exclusive.value,
        "covered": report.covered.value,
        "overlaps": [overlap(o) for o in report.overlaps],
        "uncovered": [
            {
                "address": u.address,
                "nodes": list(u.nodes),
                "view": u.view,
                "since": u.since / 1e6,
                "until": u.until / 1e6,
                "seconds": (u.until - u.since) / 1e6,
                "certain_seconds": u.certain_us / 1e6,
            }
            for u in report.uncovered
        ],
        "uncovered_seconds_max": report.uncovered_us_max / 1e6,
        "clocks": [
            {
                "node": a.node,
                "ahead_ms": a.ahead_us / 1e3,
                "within_ms": None if a.within_us is None else a.within_us / 1e3,
            }
            for a in report.alignments
        ],
        "doubts": list(report.doubts),
        "notes": list(report.notes),
    }


_COLOUR = {Verdict.PROVED: "green", Verdict.REFUTED: "red", Verdict.UNDECIDED: "yellow"}


def print_audit(report: Report, to: Console | None = None) -> None:
    """The whole answer of `audit`: the two verdicts, then what they rest on."""
    out = to or console()
    seconds = (report.until - report.since) / 1e6
    out.print(
        f"cluster {report.cluster}   nodes {' '.join(report.nodes)}   {report.addresses} addresses   {report.records} records"
    )
    out.print(f"from {_clock(report.since)} for {seconds:.3f} s, by the clock of {report.nodes[0]}")
    for a in report.alignments:
        exact = (
            "never heard: its wall clock is taken as it is" if a.within_us is None else f"± {a.within_us / 1e3:.1f} ms"
        )
        out.print(f"the clock of {a.node} is {a.ahead_us / 1e3:+.1f} ms ahead, {exact}")
    longest = max((u.until - u.since for u in report.uncovered), default=0) / 1e6
    for promise, verdict in (
        ("P1: in one component no address was served by two hosts", report.exclusive),
        (f"P2: no address was uncovered for more than {report.uncovered_us_max / 1e6:g} s", report.covered),
    ):
        out.print(Text.assemble(f"{promise}: ", (verdict.value, f"bold {_COLOUR[verdict]}")))
    out.print(f"longest without a host: {longest:.3f} s")
    for doubt in report.doubts:
        out.print(Text(f"undecided: {doubt}", "yellow"))
    for note in report.notes:
        out.print(Text(f"note: {note}", "dim"))
    for kind in Kind:
        for certain, words in (
            (True, "served by two hosts"),
            (False, "perhaps served by two hosts, within uncertainty"),
        ):
            some = [o for o in report.overlaps if o.kind is kind and o.certain is certain]
            table = _table("NODES", "VIEWS", "FROM", "SECONDS", "ADDRESSES")
            for group in _together(some):
                o = max(group, key=lambda o: o.until - o.since)
                table.add_row(" ".join(o.nodes), " ".join(o.views), *_when(group), _addresses(group))
            _show(out, f"{words}, {kind.value}", len(some), table)
    table = _table("SEEN BY", "VIEW", "FROM", "SECONDS", "OF THAT SURELY", "ADDRESSES")
    for bare in _together(report.uncovered):
        surely = f"{max(u.certain_us for u in bare) / 1e6:.3f}"
        table.add_row(" ".join(bare[0].nodes), bare[0].view, *_when(bare), surely, _addresses(bare))
    _show(out, "served by nobody in the component", len(report.uncovered), table)


def _together(some: Sequence[_Timed]) -> list[list[_Timed]]:
    """What happened to several addresses at the same nodes at about the same time; the LINES_MAX longest, longest first."""
    groups: list[list[_Timed]] = []
    last: dict[tuple[str, ...], list[_Timed]] = {}
    for one in sorted(some, key=lambda x: x.since):
        group = last.get(one.nodes)
        if group is None or one.since - group[0].since > TOGETHER_US or one.address in [x.address for x in group]:
            group = last[one.nodes] = []
            groups.append(group)
        group.append(one)
    return sorted(groups, key=lambda g: min(x.since - x.until for x in g))[:LINES_MAX]


def _when(group: Sequence[_Timed]) -> tuple[str, str]:
    return _clock(min(x.since for x in group)), f"{max(x.until - x.since for x in group) / 1e6:.3f}"


def _addresses(group: Sequence[_Timed]) -> str:
    names = sorted(x.address for x in group)
    return " ".join(names[:ADDRESSES_SHOWN]) + (
        f" and {len(names) - ADDRESSES_SHOWN} more" if len(names) > ADDRESSES_SHOWN else ""
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in ("SECONDS", "OF THAT SURELY") else "left")
    return table


def _show(out: Console, words: str, count: int, table: Table) -> None:
    if count:
        shown = f" (the {LINES_MAX} longest; --json has all)" if table.row_count == LINES_MAX else ""
        out.print(Text(f"{count} times {words}{shown}:", "bold"))
        out.print(table)


def _clock(us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(us // 1_000_000)) + f".{us // 1000 % 1000:03}"
