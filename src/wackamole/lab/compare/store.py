"""Runs as records, one line of JSON each, in a file for each system: what is there is not measured again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One run of one scenario on one system. `void`: which precondition did not hold, or "" ; `refused`: why the system
    does not offer that. `load`: the machine's, over a minute, when it began; `took_s`: how long it took
    with all its preparation, seconds."""

    system: str
    scenario: str
    run: int
    began: str  # UTC
    load: float
    version: str
    machine: str
    void: str = ""
    refused: str = ""
    took_s: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)


Cell = tuple[str, int]  # scenario, run


class Store:
    """The records of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, record: Record) -> None:
        """Append one; it is in the file when this returns. What a kill left of a line goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{record.system}.jsonl"
        with file.open("a+b") as out:
            out.seek(0)
            out.truncate(out.read().rfind(b"\n") + 1)
            out.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")

    def records(self) -> list[Record]:
        """All of them. A last line that a kill cut short is none."""
        return [r for file in sorted(self.folder.glob("*.jsonl")) for r in self._read(file)]

    def copy_to(self, folder: Path) -> None:
        """The same records in another folder, in the place of what it had."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jsonl"):
            old.unlink()
        for file in self.folder.glob("*.jsonl"):
            (folder / file.name).write_bytes(file.read_bytes())

    @staticmethod
    def _read(file: Path) -> Iterator[Record]:
        for number, line in enumerate(file.read_text().splitlines(keepends=True), 1):
            if line.endswith("\n"):
                try:
                    yield Record(**json.loads(line))
                except (ValueError, TypeError):
                    raise ValueError(f"{file}, line {number}: this is no record of a run") from None


def missing(records: Iterable[Record], system: str, scenarios: Sequence[str], run: int) -> list[str]:
    """The scenarios of a system that have no valid record of that run. What it does not offer needs none."""
    there = {r.scenario for r in records if r.system == system and not r.void and (r.run == run or r.refused)}
    return [s for s in scenarios if s not in there]


def order(runs: dict[str, int]) -> list[tuple[int, str]]:
    """Who is measured when: everybody's first run, then everybody's second, and so on, so that what the machine does over
    an hour falls on all alike. `runs`: how many of each system."""
    return [
        (run, name) for run in range(max(runs.values(), default=0)) for name, wanted in runs.items() if run < wanted
    ]
