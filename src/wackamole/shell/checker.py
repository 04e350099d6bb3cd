"""The process that looks whether services are well, and how loaded the host is, so that the daemon never does: it only
reads what this process writes (health.py).

Its first line says what is to be looked at; it writes one JSON object a line, when a check's verdict changes or what it
sees, and ends when its input does: then the daemon is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from .load import Measuring, measure_on
from .probes import PROBES, SAID_CHARACTERS_MAX, Probe, Unwell, said

LINE_BYTES_MAX = 8 << 20
STAGGER_SECONDS = 0.005
"""Between the first looks of two checks, so that not all begin at once."""
SAID_AGAIN_SECONDS = 10.0
"""What a check sees is told at most this often while its verdict is the same."""
LATE_SECONDS = 0.5
"""A look that ends so much later than its time tells of this process, which stood still, and not of what it looked at."""
THREADS_MAX = 32
END_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. `passes`: the last verdict, None if there was none."""

    kind: str
    options: dict[str, Any]
    interval_ms: int
    timeout_ms: int
    rise: int
    fall: int
    passes: bool | None


@dataclass(frozen=True, slots=True)
class Order:
    """What the daemon wants to know. `load`: what a Measuring has."""

    checks: tuple[Check, ...]
    load: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the check with this number in the order; `said`: what was seen last."""

    check: int
    passes: bool
    said: str


@dataclass(frozen=True, slots=True)
class Figure:
    """This host's load in hundredths, None for unknown; with `record` something to be told of measuring instead."""

    load: int | None
    record: str = ""
    fields: Mapping[str, object] | None = None


def read_line(line: bytes) -> Verdict | Figure:
    """What a line says. Raises ValueError, TypeError or KeyError for anything else."""
    found = json.loads(line)
    if "check" not in found:
        return Figure(**found)
    verdict = Verdict(**found)
    if type(verdict.check) is not int or type(verdict.passes) is not bool or type(verdict.said) is not str:
        raise ValueError("a verdict is a number, whether it passes, and a sentence")
    return verdict


class Judge:
    """Turns what is seen, time after time, into a verdict. The first look decides alone: who starts must not wait for `rise`
    of them."""

    def __init__(self, passes: bool | None, rise: int, fall: int) -> None:
        self.passes = passes
        self._rise, self._fall = rise, fall
        self._against = 0

    def saw(self, well: bool) -> bool:
        """Whether the verdict is another one now."""
        if well is self.passes:
            self._against = 0
            return False
        self._against += 1
        if self.passes is not None and self._against < (self._rise if well else self._fall):
            return False
        self.passes, self._against = well, 0
        return True


class Watch:
    """Looks at one thing again and again."""

    def __init__(self, number: int, check: Check) -> None:
        self._number = number
        self._check = check
        self._probe: Probe = PROBES[check.kind](**check.options)
        self._looking: asyncio.Task[str] | None = None

    async def run(self) -> None:
        """Until it is cancelled; then nothing of it runs on."""
        loop = asyncio.get_running_loop()
        judge = Judge(self._check.passes, self._check.rise, self._check.fall)
        seconds, told, told_at = self._check.timeout_ms / 1000, "", 0.0
        due = loop.time() + self._number * STAGGER_SECONDS
        try:
            while True:
                await asyncio.sleep(max(0.0, due - loop.time()))
                began = loop.time()
                well, sentence = await self._look(seconds)
                now = loop.time()
                due = max(due + self._check.interval_ms / 1000, now)
                if not well and now - began > seconds + LATE_SECONDS:
                    continue
                if judge.saw(well) or (sentence != told and now - told_at > SAID_AGAIN_SECONDS):
                    told, told_at = sentence, now
                    tell(Verdict(self._number, bool(judge.passes), sentence))
        finally:
            if self._looking is not None:
                self._looking.cancel()
                await asyncio.wait({self._looking})

    async def _look(self, seconds: float) -> tuple[bool, str]:
        if self._looking is not None and not self._looking.done():
            return False, "the last look has not ended yet"
        self._looking = asyncio.create_task(self._probe.look())
        self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())  # of a late one nobody asks
        done, late = await asyncio.wait({self._looking}, timeout=seconds)
        for task in late:
            task.cancel()
            return False, f"no answer within {seconds:g} s"
        try:
            return True, done.pop().result()[:SAID_CHARACTERS_MAX]
        except Unwell as no:
            return False, str(no)[:SAID_CHARACTERS_MAX]
        except OSError as no:
            return False, said(no)[:SAID_CHARACTERS_MAX]
        except UnicodeError:
            return False, "its host is no name"


def tell(what: Verdict | Figure) -> None:
    """Write a line; a daemon that is gone needs none, and one that stands still is waited for."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(asdict(what)).encode() + b"\n")


async def carry_out(order: Order) -> None:
    """All that is ordered, until it is cancelled."""
    async with asyncio.TaskGroup() as group:
        for number, check in enumerate(order.checks):
            group.create_task(Watch(number, check).run())
        if order.load is not None:
            how = Measuring(**{**order.load, "command": tuple(order.load["command"])})
            group.create_task(
                measure_on(
                    how, lambda load: tell(Figure(load)), lambda what, fields: tell(Figure(None, what, dict(fields)))
                )
            )


async def main() -> None:
    """Until the input ends."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS_MAX))
    reader = asyncio.StreamReader(LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    line = await reader.readline()
    if not line.endswith(b"\n"):
        return
    found = json.loads(line)
    order = Order(tuple(Check(**check) for check in found["checks"]), found["load"])
    work, end = asyncio.create_task(carry_out(order)), asyncio.create_task(reader.read())
    await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
    wrong = work.exception() if work.done() else None  # it never ends by itself
    if wrong is not None:
        traceback.print_exception(wrong)
    work.cancel()
    await asyncio.wait({work}, timeout=END_SECONDS_MAX)
    sys.stderr.flush()
    os._exit(int(wrong is not None))  # a thread that hangs in the kernel would be waited for


if __name__ == "__main__":
    asyncio.run(main())
