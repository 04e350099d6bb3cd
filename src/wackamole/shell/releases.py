"""Planned releases, held up for as long as `before_release` may take, its budget and no longer; and then a few at a time: the
next when the new holders' kernels have the last, so that a VIP is dark while a few are handed over, and not while all are.

Only a hand-over can wait: the new holder waits for the old one in any case, and the kernel's answer is what the group
believes. What is lost with the group, or forbidden here, goes at once, and so does everything else that changes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from ..core.model import Vip, VipKey

SINGLY_MAX = 8
"""So few go one after the other: to wait for one new holder at a time is shorter than for the slowest of several. With hooks
(BUDGET_MS_MAX) and new holders who never say anything (TURN_SECONDS_MAX each) all are gone before a leave is over (`leave_ms`)."""
AT_ONCE = 25
"""How many of more than that are let go at once, at least: measured, docs/benchmarks.md. With fewer a drain takes longer and
no VIP is dark for less."""
TURNS_MAX = 8
"""More than AT_ONCE × TURNS_MAX go in so many parts: every part costs all members some messages about a table that is large."""
TURN_SECONDS_MAX = 0.25
"""A new holder that does not say that it has what was let go is waited for no longer."""

Ask = Callable[[Mapping[VipKey, Vip], Callable[[VipKey], None]], float]
"""Tell the hooks of these, say when each has been told, and return how long that may take, in seconds."""


@dataclass(slots=True)
class _Staying:
    vip: Vip
    asked: object  # which time it was asked for
    told: bool = False


class Releases:
    """What stands between the core's HoldExactly and the kernel. `hold` is the kernel's; `held` is what it has already;
    `all_tell` says whether all members tell when what was handed over to them has arrived."""

    def __init__(
        self,
        held: tuple[Vip, ...],
        hold: Callable[[int, tuple[Vip, ...]], None],
        ask: Ask,
        all_tell: Callable[[], bool],
    ) -> None:
        self._hold = hold
        self._ask = ask
        self._all_tell = all_tell
        self._serial = 0
        self._vips = held
        self._staying: dict[VipKey, _Staying] = {}
        self._going: set[VipKey] = set()
        self._taken = asyncio.Event()  # nothing is going
        self._at_once = AT_ONCE
        self._again: asyncio.Handle | None = None
        self._late: asyncio.Handle | None = None

    def hold_exactly(self, serial: int, vips: tuple[Vip, ...], planned: Set[VipKey]) -> None:
        """Hold these, and what goes by plan until its hooks have ended, or their budget is over, and its turn has come."""
        had = {v.key: v for v in self._vips} | {k: stay.vip for k, stay in self._staying.items()}
        wanted = {v.key for v in vips}
        leaving = {k: v for k, v in had.items() if k not in wanted and k in planned}
        fresh = {k: v for k, v in leaving.items() if k not in self._staying}
        self._serial, self._vips = serial, vips
        self._staying = {k: stay for k, stay in self._staying.items() if k in leaving}
        self._going -= wanted
        if fresh:
            asked = object()
            self._staying |= {k: _Staying(v, asked) for k, v in fresh.items()}
            few = len(self._staying) <= SINGLY_MAX
            self._at_once = 1 if few else max(AT_ONCE, -(-len(self._staying) // TURNS_MAX))
            budget = self._ask(fresh, lambda key: self._end(key, asked))
            if budget:
                asyncio.get_running_loop().call_later(budget, self._over, tuple(fresh), asked)
        self._go_on()

    def arrived(self, keys: Iterable[VipKey]) -> None:
        """The new holders' kernels have these."""
        before, self._going = self._going, self._going.difference(keys)
        if before and not self._going:
            self.wait_no_longer()

    def wait_no_longer(self) -> None:
        """The new holders have everything, or nobody will say so."""
        self._going.clear()
        self._wait_for(None)
        self._taken.set()
        if self._staying:
            self._go_on()

    async def taken(self) -> None:
        """Wait until the new holders' kernels have what was let go last, but no longer than TURN_SECONDS_MAX."""
        if self._going:
            self._taken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._taken.wait(), TURN_SECONDS_MAX)

    def _end(self, key: VipKey, asked: object) -> None:
        stay = self._staying.get(key)
        if stay is not None and stay.asked is asked and not stay.told:
            stay.told = True
            if self._again is None:
                self._again = asyncio.get_running_loop().call_soon(self._go_on)

    def _over(self, keys: tuple[VipKey, ...], asked: object) -> None:
        for key in keys:
            self._end(key, asked)

    def _go_on(self) -> None:
        self._cancel()
        told = sorted(k for k, stay in self._staying.items() if stay.told)
        while told and not self._going:
            turn, told = told[: self._at_once], told[self._at_once :]
            for key in turn:
                del self._staying[key]
            self._going = set(turn) if self._all_tell() else set()
            self._wait_for(TURN_SECONDS_MAX if self._going else None)
        staying = (stay.vip for stay in self._staying.values())
        self._hold(self._serial, tuple(sorted((*self._vips, *staying), key=lambda v: v.key)))

    def _cancel(self) -> None:
        if self._again is not None:
            self._again.cancel()
        self._again = None

    def _wait_for(self, seconds: float | None) -> None:
        """For the new holders of a turn, and no longer."""
        if self._late is not None:
            self._late.cancel()
        self._late = asyncio.get_running_loop().call_later(seconds, self.wait_no_longer) if seconds else None

    def close(self) -> None:
        """Nothing waits any more, and nothing is asked for."""
        self._staying.clear()
        self._cancel()
        self._wait_for(None)
