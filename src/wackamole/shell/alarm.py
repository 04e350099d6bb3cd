"""One thing that is due at one time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .clock import boottime_ms


class Alarm:
    """Calls `ring` on the loop when it is due (CLOCK_BOOTTIME), and before that `late` with the seconds since then."""

    def __init__(self, ring: Callable[[], None], late: Callable[[float], None] | None = None) -> None:
        self._ring = ring
        self._late = late
        self._handle: asyncio.TimerHandle | None = None
        self._due_ms: int | None = None

    def set(self, due_ms: int | None) -> None:
        """Ring then, and at no other time any more; None: not at all."""
        if due_ms == self._due_ms:
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._due_ms = due_ms
        if due_ms is not None:
            wait = max(0, due_ms - boottime_ms()) / 1000
            self._handle = asyncio.get_running_loop().call_later(wait, self._rings)

    def _rings(self) -> None:
        if self._late is not None and self._handle is not None:
            self._late(asyncio.get_running_loop().time() - self._handle.when())
        self._handle = self._due_ms = None
        self._ring()
