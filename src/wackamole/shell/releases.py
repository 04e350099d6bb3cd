"""Planned releases, held up for as long as `before_release` may take: its budget, and no longer.

Only a hand-over can wait: the new holder waits for the old one in any case, and the kernel's answer is what the group
believes. What is lost with the group, or forbidden here, goes at once, and so does everything else that changes with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set

from ..core.model import Vip, VipKey

Ask = Callable[[Mapping[VipKey, Vip], Callable[[VipKey], None]], float]
"""Tell the hooks of these, say when each has been told, and return how long that may take, in seconds."""


class Releases:
    """What stands between the core's HoldExactly and the kernel. `hold` is the kernel's; `held` is what it has already."""

    def __init__(self, held: tuple[Vip, ...], hold: Callable[[int, tuple[Vip, ...]], None], ask: Ask) -> None:
        self._hold = hold
        self._ask = ask
        self._serial = 0
        self._vips = held
        self._staying: dict[VipKey, tuple[Vip, object]] = {}  # with the time that it was asked for
        self._again: asyncio.Handle | None = None

    def hold_exactly(self, serial: int, vips: tuple[Vip, ...], planned: Set[VipKey]) -> None:
        """Hold these, and what goes by plan until its hooks have ended or their budget is over."""
        had = {v.key: v for v in self._vips} | {k: v for k, (v, _) in self._staying.items()}
        wanted = {v.key for v in vips}
        leaving = {k: v for k, v in had.items() if k not in wanted and k in planned}
        fresh = {k: v for k, v in leaving.items() if k not in self._staying}
        self._serial, self._vips = serial, vips
        self._staying = {k: stay for k, stay in self._staying.items() if k in leaving}
        if fresh:
            when = object()
            self._staying |= {k: (v, when) for k, v in fresh.items()}
            budget = self._ask(fresh, lambda key: self._end(key, when))
            if budget:
                asyncio.get_running_loop().call_later(budget, self._over, tuple(fresh), when)
        self._go_on()

    def _end(self, key: VipKey, when: object) -> None:
        if key in self._staying and self._staying[key][1] is when:
            del self._staying[key]
            if self._again is None:
                self._again = asyncio.get_running_loop().call_soon(self._go_on)

    def _over(self, keys: tuple[VipKey, ...], when: object) -> None:
        for key in keys:
            self._end(key, when)

    def _go_on(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        staying = (vip for vip, _ in self._staying.values())
        self._hold(self._serial, tuple(sorted((*self._vips, *staying), key=lambda v: v.key)))

    def close(self) -> None:
        """Nothing waits any more, and nothing is asked for."""
        self._staying.clear()
        if self._again is not None:
            self._again.cancel()
            self._again = None
