"""Lines to runs: every line is checked, every problem is said with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from ..records import FORMAT, AnyRecord, Gap, Joined, Start, decoder

LINE_BYTES_MAX = 4 << 20
PROBLEMS_MAX = 20

Clock = tuple[str, str]
"""Node and boot: what one host's CLOCK_BOOTTIME shows is good for one boot."""


class AuditRefused(Exception):
    """These files cannot be audited; one sentence per problem, each with its place."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(eq=False, slots=True)
class Run:
    """One daemon, from its start to its end or to where its records end."""

    start: Start
    records: list[AnyRecord]

    @property
    def clock(self) -> Clock:
        """Its host's clock: good for one boot."""
        return (self.start.node, self.start.boot)

    @property
    def last(self) -> AnyRecord:
        """What it wrote last."""
        return self.records[-1]

    @property
    def me(self) -> int:
        """The engine's last number for it; 0: none."""
        return next((r.id for r in reversed(self.records) if isinstance(r, Joined)), 0)

    @property
    def whole(self) -> bool:
        """Whether its beginning is there."""
        return self.start.part == 1 or isinstance(self.records[1] if len(self.records) > 1 else None, Gap)


def read(files: Iterable[tuple[str, bytes]]) -> tuple[list[Run], list[str]]:
    """The runs in the files (name, content), by node and time, and notes. Raises AuditRefused with every problem."""
    problems: list[str] = []
    notes: list[str] = []
    parts: dict[tuple[str, int], tuple[str, list[AnyRecord]]] = {}
    for name, content in files:
        for begins, part in _parts(name, content, problems, notes):
            start = part[0]
            assert isinstance(start, Start)
            known = parts.setdefault((start.run, start.part), (begins, part))
            if known[1] is not part:
                problems.append(f"{begins}  the same records as at {known[0]}: name each file once")
    clusters = sorted({p[0].cluster for _, p in parts.values() if isinstance(p[0], Start)})
    if len(clusters) > 1:
        problems.append(f"records of different clusters: {', '.join(clusters)}")
    if not parts and not problems:
        problems.append("there are no records")
    if problems:
        more = len(problems) - PROBLEMS_MAX
        raise AuditRefused(problems[:PROBLEMS_MAX] + ([f"and {more} more problems"] if more > 0 else []))
    runs: dict[str, Run] = {}
    for _, part in (parts[key] for key in sorted(parts)):
        start = part[0]
        assert isinstance(start, Start)
        run = runs.get(start.run)
        if run is None:
            runs[start.run] = Run(start, list(part))
            continue
        if start.part != _last_part(run) + 1 and not isinstance(part[1], Gap):
            part = [start, Gap(at=start.at, wall=start.wall, since=run.last.at, lost=0), *part[1:]]
        run.records += part
    return sorted(runs.values(), key=lambda r: (r.start.node, r.start.wall, r.start.at)), notes


def _last_part(run: Run) -> int:
    return next(r.part for r in reversed(run.records) if isinstance(r, Start))


def _parts(name: str, content: bytes, problems: list[str], notes: list[str]) -> Iterator[tuple[str, list[AnyRecord]]]:
    """What stands between one Start and the next, with where it begins. Problems are added to the list."""
    lines = content.split(b"\n")
    torn = lines.pop()  # what a kill left of a line; nothing, if the last one is whole
    if torn:
        notes.append(f"{name}:{len(lines) + 1}  ends in mid-line: its writer was killed, or the copy was cut short")
    found: list[AnyRecord] = []
    begins = f"{name}:1"
    if not lines:
        problems.append(f"{name}  has no records")
    for number, text in enumerate(lines, 1):
        where = f"{name}:{number}"
        if len(problems) > PROBLEMS_MAX:
            return
        if len(text) > LINE_BYTES_MAX:
            problems.append(f"{where}  a line of {len(text)} bytes is no record")
            continue
        try:
            record = decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
            problems.append(f"{where}  not a record: {wrong}")
            continue
        if isinstance(record, Start):
            if record.format != FORMAT:
                problems.append(f"{where}  format {record.format}; this wackamole reads format {FORMAT}")
                return
            if found:
                yield begins, found
            found, begins = [record], where
        elif not found:
            problems.append(f"{where}  the first record of a file must be a start")
            return
        elif record.at < found[-1].at:
            problems.append(f"{where}  the clock runs backwards: {record.at} after {found[-1].at}")
        else:
            found.append(record)
    if found:
        yield begins, found
