"""The process that runs the hooks' programs, so that the daemon never does: its threads would stand still meanwhile.

Reads jobs and writes what became of them, one JSON object a line. It ends when its input does and every job has ended.
Jobs that share a lane (a VIP, mostly) run one after the other, as they came; a program that hangs delays its own lanes until
its time is over, and everybody only when there are AT_ONCE_MAX of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass

QUEUED_MAX = 10_000
"""Jobs that were not done yet; what comes when there are so many is not done."""
AT_ONCE_MAX = 16
SAID_CHARACTERS_MAX = 200
"""Of the first line that a program writes to its standard error."""
LAST_WORDS_SECONDS = 0.2
"""How long its standard error is read on after its end: what it left running may hold it open, and loses it then."""
LINE_BYTES_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a program. `start_by` (CLOCK_MONOTONIC, seconds): later it is of no use; None: never too late."""

    number: int
    command: tuple[str, ...]
    lanes: tuple[str, ...]
    environment: dict[str, str]
    text: str
    timeout_ms: int
    start_by: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job. `outcome`: "ok", "exit", "signal", "timeout", "not started", "too late" or "dropped"; `code` is
    the exit code or the signal's number."""

    number: int
    outcome: str
    code: int = 0
    ms: int = 0
    said: str = ""


class Runner:
    """Keeps the order."""

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Task[None]] = {}  # of each lane
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)

    def put(self, job: Job) -> None:
        """Have it done after everything that is in one of its lanes."""
        if len(self._tasks) >= QUEUED_MAX:
            report(Result(job.number, "dropped", said=f"{QUEUED_MAX} others wait"))
            return
        before = {self._last[lane] for lane in job.lanes if lane in self._last}
        task = asyncio.get_running_loop().create_task(self._carry_out(job, before))
        self._tasks.add(task)
        self._last |= dict.fromkeys(job.lanes, task)
        task.add_done_callback(lambda done: self._forget(done, job.lanes))

    def _forget(self, task: asyncio.Task[None], lanes: tuple[str, ...]) -> None:
        self._tasks.discard(task)
        for lane in lanes:
            if self._last.get(lane) is task:
                del self._last[lane]
        if not task.cancelled() and (wrong := task.exception()) is not None:
            raise wrong

    async def _carry_out(self, job: Job, before: set[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        async with self._at_once:
            report(await run(job))

    async def finish(self) -> None:
        """Wait for everything."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def run(job: Job) -> Result:
    """Run a program in a process group of its own, which is killed when its time is over."""
    began = time.monotonic()
    if job.start_by is not None and began > job.start_by:
        return Result(job.number, "too late")
    told = os.memfd_create("told")  # no pipe: a program need not read it
    reading, stderr = os.pipe()
    loop, said = asyncio.get_running_loop(), _Said()
    transport, _ = await loop.connect_read_pipe(lambda: said, os.fdopen(reading, "rb", 0))
    try:
        os.write(told, job.text.encode() + b"\n")
        os.lseek(told, 0, os.SEEK_SET)
        # no pipe of asyncio's: the end of a program would be awaited until all that it left running has ended as well
        process = await asyncio.create_subprocess_exec(
            *job.command,
            stdin=told,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            env=job.environment,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as wrong:
        transport.close()
        return Result(job.number, "not started", said=_one_line(str(wrong)))
    finally:
        os.close(told)
        os.close(stderr)
    timed_out = False
    try:
        await asyncio.wait_for(process.wait(), job.timeout_ms / 1000)
    except TimeoutError:
        timed_out = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(said.ended.wait(), LAST_WORDS_SECONDS)
    transport.close()
    code = process.returncode or 0
    outcome = "timeout" if timed_out else "ok" if code == 0 else "exit" if code > 0 else "signal"
    ms = round((time.monotonic() - began) * 1000)
    return Result(job.number, outcome, abs(code), ms, _one_line(said.heard.decode(errors="replace")))


class _Said(asyncio.Protocol):
    """What a program writes to its standard error: read for as long as it runs, and kept as far as anybody is told."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.heard += data[: max(0, 4 * SAID_CHARACTERS_MAX - len(self.heard))]

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended.set()


def _one_line(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return "".join(c if c.isprintable() else "?" for c in first[:SAID_CHARACTERS_MAX])


def report(result: Result) -> None:
    """Tell the daemon; one that is gone needs no telling."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(asdict(result)).encode() + b"\n")


async def main() -> None:
    """Until the input ends, and all that it asked for."""
    reader = asyncio.StreamReader(LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    runner = Runner()
    while line := await reader.readline():
        if line.endswith(b"\n"):  # else the daemon died in the middle of it
            runner.put(Job(**json.loads(line)))
    await runner.finish()


if __name__ == "__main__":
    asyncio.run(main())
