"""How loaded this host is: the load average for each CPU, or the number that a command prints.

A command runs as a process of its own, without a shell, in a session of its own, with a clean environment, and for a
bounded time; it is never waited for by anything but this.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
from collections.abc import Callable, Mapping

from ..config import LoadConfig
from ..core.shares import LOAD_MAX

OUTPUT_BYTES_MAX = 64
STOP_SECONDS_MAX = 1.0
"""A command that was killed may hang in the kernel; nothing waits longer for it."""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class NotMeasured(Exception):
    """There is no figure this time; the sentence says why."""


class Meter:
    """Measures every `interval`. A figure that cannot be had any more counts for `keep`, then it is told as unknown."""

    def __init__(
        self,
        config: LoadConfig,
        on_load: Callable[[int | None], None],
        on_record: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        self._config = config
        self._on_load = on_load
        self._on_record = on_record
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until `stop`."""
        self._running = asyncio.create_task(self._measure_on())
        with contextlib.suppress(asyncio.CancelledError):
            await self._running

    async def stop(self) -> None:
        """End, and the command with it."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running}, timeout=STOP_SECONDS_MAX)

    async def _measure_on(self) -> None:
        loop = asyncio.get_running_loop()
        known_at, trouble = -math.inf, ""
        while True:
            began = loop.time()
            try:
                load = await measure(self._config)
            except NotMeasured as no:
                if str(no) != trouble:  # once for each kind of trouble
                    trouble = str(no)
                    self._on_record("load_failed", {"reason": trouble})
                if loop.time() - known_at > self._config.keep_ms / 1000:
                    self._on_load(None)
            else:
                if trouble:
                    trouble = ""
                    self._on_record("load_known", {"load": load / 100})
                known_at = loop.time()
                self._on_load(load)
            await asyncio.sleep(max(0.0, began + self._config.interval_ms / 1000 - loop.time()))


async def measure(config: LoadConfig) -> int:
    """This host's load now, in hundredths. Raises NotMeasured."""
    if not config.command:
        return round(100 * os.getloadavg()[0] / (os.cpu_count() or 1))
    printed = await _printed(config.command, config.timeout_ms / 1000)
    try:
        figure = float(printed)
    except ValueError:
        figure = math.nan
    if not 0 <= figure <= LOAD_MAX / 100:
        raise NotMeasured(f"{config.command[0]} printed {printed[:20]!r}, no number from 0 to {LOAD_MAX // 100}")
    return round(100 * figure)


async def _printed(command: tuple[str, ...], seconds_max: float) -> str:
    """What a command prints, if it ends well and in time."""
    # A pipe of our own: asyncio waits for the end of its pipes too, and whoever escaped from the session may keep one open.
    reading, writing = os.pipe()
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(OUTPUT_BYTES_MAX)
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=asyncio.subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as no:
        pipe.close()
        raise NotMeasured(f"{command[0]} cannot be run: {no.strerror}") from None
    finally:
        os.close(writing)
    try:
        async with asyncio.timeout(seconds_max):
            printed = b""
            while more := await reader.read(OUTPUT_BYTES_MAX + 1 - len(printed)):
                printed += more
                if len(printed) > OUTPUT_BYTES_MAX:
                    raise NotMeasured(f"{command[0]} printed more than {OUTPUT_BYTES_MAX} bytes")
            code = await process.wait()
    except TimeoutError:
        raise NotMeasured(f"{command[0]} took longer than {seconds_max:g} s") from None
    finally:
        pipe.close()
        with contextlib.suppress(ProcessLookupError):  # also what it has started
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code:
        raise NotMeasured(f"{command[0]} ended with {code}")
    return printed.decode(errors="replace").strip()
