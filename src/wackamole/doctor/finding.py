"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Result(Enum):
    """How a check ended. A NOTE is worth knowing and is not counted as a problem."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` is a sentence; `remedy` is what to type or to write into a file, "" where there is nothing to do."""

    result: Result
    found: str
    remedy: str = ""


class NotChecked(Exception):
    """This host cannot tell; the sentence says why."""


def ok(found: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Result.OK, found)


def note(found: str, remedy: str = "") -> Finding:
    """Worth knowing."""
    return Finding(Result.NOTE, found, remedy)


def problem(found: str, remedy: str) -> Finding:
    """Something to be mended, and how."""
    return Finding(Result.PROBLEM, found, remedy)


def lines(*remedies: str) -> str:
    """Several remedies, each once, one a line."""
    return "\n".join(dict.fromkeys(r for r in remedies if r))


def few(things: Iterable[str], most: int = 4) -> str:
    """The first of them, and how many more there are."""
    listed = list(things)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
