"""Replacing this process by another that goes on with its VIPs (`wackamole restart`; hazard 20).

The old process becomes the new one by execve(2): the same process for the supervisor and for the guard, and two
descriptors survive, that of the fence's owner and the guard's pipe. What else the new one has to know is in its
environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn

VARIABLE = "WACKAMOLE_SUCCESSION"


@dataclass(frozen=True, slots=True)
class Succession:
    """What a process leaves to its successor. `until_ms`: CLOCK_BOOTTIME; `held`: keys of VIPs."""

    until_ms: int
    held: tuple[str, ...]
    owner: int | None  # descriptor of the socket that owns the fence
    guard: int
    guard_pid: int
    restarts: int
    closes_first: bool  # what the first process found out about this kernel (guard.py)
    checks: tuple[tuple[str, bool], ...] = ()  # the last verdicts of the health checks, by name


def inherited() -> Succession | None:
    """What was left to this process, if it is a successor. Taken once: children do not see it."""
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    found = json.loads(text)
    checks = tuple((name, passes) for name, passes in found.get("checks", ()))
    return Succession(**{**found, "held": tuple(found["held"]), "checks": checks})


def replace_process(succession: Succession, arguments: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    """Become `python -m wackamole.shell.daemon ARGUMENTS`, as it is installed now; `variables` are added to its environment."""
    for descriptor in (succession.owner, succession.guard):
        if descriptor is not None:
            os.set_inheritable(descriptor, True)
    environment = {**os.environ, **variables, VARIABLE: json.dumps(asdict(succession))}
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", "wackamole.shell.daemon", *arguments]
    os.execve(sys.executable, command, environment)  # noqa: S606 - the same program, no shell
