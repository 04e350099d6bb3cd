"""How loaded this host is: the load average for each CPU, or the number that a command prints. In the checker's process."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..core.shares import LOAD_MAX
from . import child

OUTPUT_BYTES_MAX = 64


class NotMeasured(Exception):
    """There is no figure this time; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """What of `[load]` concerns measuring; `command` empty: the load average."""

    command: tuple[str, ...]
    interval_ms: int
    timeout_ms: int
    keep_ms: int


async def measure_on(
    how: Measuring,
    on_load: Callable[[int | None], None],
    on_record: Callable[[str, Mapping[str, object]], None],
) -> None:
    """Measure every `interval`, until it is cancelled. A figure that cannot be had any more counts for `keep`, then it is
    told as unknown."""
    loop = asyncio.get_running_loop()
    known_at, trouble = -math.inf, ""
    while True:
        began = loop.time()
        try:
            load = await measure(how)
        except NotMeasured as no:
            if str(no) != trouble:  # once for each kind of trouble
                trouble = str(no)
                on_record("load_failed", {"reason": trouble})
            if loop.time() - known_at > how.keep_ms / 1000:
                on_load(None)
        else:
            if trouble:
                trouble = ""
                on_record("load_known", {"load": load / 100})
            known_at = loop.time()
            on_load(load)
        await asyncio.sleep(max(0.0, began + how.interval_ms / 1000 - loop.time()))


async def measure(how: Measuring) -> int:
    """This host's load now, in hundredths. Raises NotMeasured."""
    if not how.command:
        return round(100 * os.getloadavg()[0] / (os.cpu_count() or 1))
    program = how.command[0]
    try:
        async with asyncio.timeout(how.timeout_ms / 1000):
            code, printed = await child.run(how.command, {}, errors=asyncio.subprocess.DEVNULL)
    except child.NotStarted as no:
        raise NotMeasured(str(no)) from None
    except TimeoutError:
        raise NotMeasured(f"{program} took longer than {how.timeout_ms / 1000:g} s") from None
    if code:
        raise NotMeasured(f"{program} ended with {code}")
    if len(printed) > OUTPUT_BYTES_MAX:
        raise NotMeasured(f"{program} printed more than {OUTPUT_BYTES_MAX} bytes")
    text = printed.decode(errors="replace").strip()
    try:
        figure = float(text)
    except ValueError:
        figure = math.nan
    if not 0 <= figure <= LOAD_MAX / 100:
        raise NotMeasured(f"{program} printed {text[:20]!r}, no number from 0 to {LOAD_MAX // 100}")
    return round(100 * figure)
