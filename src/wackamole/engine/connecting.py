"""What both engines that are clients of a daemon do about the one attempt to connect that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Connecting:
    """At most one attempt at a time."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether there is one."""
        return self._task is not None

    def begin(self, attempt: Coroutine[None, None, None]) -> None:
        """Let it run. An exception that nobody expected is the loop's business: it must not vanish with the task."""
        self._task = asyncio.get_running_loop().create_task(attempt)
        self._task.add_done_callback(_report)

    def over(self) -> None:
        """The attempt itself says that it has come to its end: from now on there may be another."""
        self._task = None

    def cancel(self) -> None:
        """End it, if there is one."""
        if self._task is not None:
            self._task.cancel()
            self._task = None


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (wrong := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "connecting failed", "exception": wrong, "task": task})
