"""What silences this host when its daemon does not: one of three ways, by the config's `fence.mode`.

* `nftables`: the gate and the key (fence.py), installed on every interface that has VIPs, renewed by the loop in
  microseconds, watched, and put back when somebody removes them. Whatever waits for nftables' commit lock runs on
  a thread, one call after the other.
* `lifetime`: addresses live for some seconds only, and are given more while the lease is renewed.
* `off`: nothing. Only the guard process removes what a dead daemon leaves.

`renew` is asked for only after an own beat came back (core). It looks at the clock once more on both sides of the
renewal: a process that was stopped between the decision and the act must not open what others have taken over (hazard 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Protocol

from ..clock import boottime_ms
from .fence import Fence, FenceRefused, Guarded
from .nfnetlink import Changes, NftablesError

LOOK_SECONDS = 1.0
"""How often the kernel is asked whether the fence is there and its lease runs, besides at every change of nftables."""
LOOK_SECONDS_MIN = 0.02
"""Changes of nftables that come faster are looked at together."""

Recorded = Callable[[str, dict[str, str]], None]


class Listener(Protocol):
    """Who is told. All calls on the loop's thread."""

    def fence_changed(self) -> None:
        """Where the fence is proven may have changed: ask `proven` and `why_not`."""

    def fence_opened(self) -> None:
        """VIPs pass again after they did not: announce what is held."""


class Fencing(Protocol):
    """One way of silencing. All calls on the loop's thread."""

    @property
    def proven(self) -> bool:
        """Whether a death of this process silences its VIPs before anybody can hear of it (hazards 5 to 7)."""

    @property
    def pending(self) -> bool:
        """Whether the fence is just being made for other interfaces than before."""

    async def start(self, listener: Listener, guarded: tuple[Guarded, ...]) -> None:
        """Fence these, shut. Raises FenceRefused if this kernel cannot."""

    def guard(self, guarded: tuple[Guarded, ...]) -> None:
        """From now on fence exactly these."""

    def why_not(self, index: int, ip: bytes) -> str | None:
        """Why an address is not fenced on an interface, or None."""

    def renew(self, sent_ms: int) -> None:
        """An own beat came back that was sent then (CLOCK_BOOTTIME): let VIPs pass for one more lease."""

    def shut(self) -> None:
        """Let nothing pass from now on, as far as this way can."""

    async def extend(self, until_ms: int) -> int | None:
        """Let VIPs pass until then (CLOCK_BOOTTIME), without renewals: this process is replaced. Returns the descriptor
        that its successor needs. Raises FenceRefused."""

    def resume(self) -> None:
        """It is not replaced after all: shut, until a beat is back."""

    def describe(self) -> dict[str, object]:
        """Facts for `status`."""

    async def close(self) -> None:
        """The last: nothing of ours is on the interfaces any more."""


class Unfenced:
    """`off`: asked for, and loud."""

    proven = False
    pending = False

    async def start(self, listener: Listener, guarded: tuple[Guarded, ...]) -> None:
        """Nothing to do."""

    def guard(self, guarded: tuple[Guarded, ...]) -> None:
        """Nothing to do."""

    def why_not(self, index: int, ip: bytes) -> str | None:  # noqa: ARG002
        """Nothing is fenced, as was asked for."""
        return None

    def renew(self, sent_ms: int) -> None:
        """Nothing to do."""

    def shut(self) -> None:
        """Nothing to do."""

    async def extend(self, until_ms: int) -> int | None:  # noqa: ARG002
        """Nothing to do."""
        return None

    def resume(self) -> None:
        """Nothing to do."""

    def describe(self) -> dict[str, object]:
        """Facts for `status`."""
        return {"mode": "off", "state": "none", "note": "a frozen daemon's VIPs stay up beside their new owner's"}

    async def close(self) -> None:
        """Nothing to do."""


class ByLifetime:
    """`lifetime`: `refresh` gives what is held `lifetime_s` seconds more."""

    proven = False
    pending = False

    def __init__(self, lifetime_s: int, beat_age_max_ms: int, refresh: Callable[[int], threading.Event]) -> None:
        self._lifetime_s = lifetime_s
        self._beat_age_max_ms = beat_age_max_ms
        self._refresh = refresh
        self._renewed_ms: int | None = None

    async def start(self, listener: Listener, guarded: tuple[Guarded, ...]) -> None:
        """Nothing to do."""

    def guard(self, guarded: tuple[Guarded, ...]) -> None:
        """Nothing to do."""

    def why_not(self, index: int, ip: bytes) -> str | None:  # noqa: ARG002
        """Every address that is added has its lifetime."""
        return None

    def renew(self, sent_ms: int) -> None:
        """At most once a second: the kernel counts whole seconds."""
        now = boottime_ms()
        if now - sent_ms > self._beat_age_max_ms or (self._renewed_ms is not None and now - self._renewed_ms < 1000):
            return
        self._renewed_ms = now
        self._refresh(self._lifetime_s)

    def shut(self) -> None:
        """What is held is removed at the same time; nothing else silences it."""
        self._renewed_ms = None

    async def extend(self, until_ms: int) -> int | None:
        """The lifetimes are made that long, rounded up."""
        self._renewed_ms = boottime_ms()
        done = self._refresh(max(self._lifetime_s, -(-(until_ms - boottime_ms()) // 1000)))
        await asyncio.to_thread(done.wait)
        return None

    def resume(self) -> None:
        """The next renewal sets the usual lifetime."""

    def describe(self) -> dict[str, object]:
        """Facts for `status`."""
        left_s = 0.0
        if self._renewed_ms is not None:
            left_s = max(0.0, self._lifetime_s - (boottime_ms() - self._renewed_ms) / 1000)
        return {
            "mode": "lifetime",
            "state": "open" if left_s else "shut",
            "lease_ms": self._lifetime_s * 1000,
            "left_ms": round(left_s * 1000),
        }

    async def close(self) -> None:
        """Nothing to do."""


class ByNftables:
    """`nftables`: see fence.py. `owner` and `until_ms` are a former process's: its socket, and how long it has left its
    VIPs open. `closes_first`: the start-up's finding that this kernel closes the highest descriptor
    first (guard.py); without it a death is not proven to be dark in time, and others wait for the lease."""

    def __init__(
        self,
        lease_ms: int,
        beat_age_max_ms: int,
        mark: int,
        *,
        closes_first: bool,
        on_record: Recorded,
        owner: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        self._lease_ms = lease_ms
        self._beat_age_max_ms = beat_age_max_ms
        self._mark = mark
        self._closes_first = closes_first
        self._record = on_record
        self._owner, self._until_ms = owner, until_ms
        self._handed_over = False
        self._listener: Listener | None = None
        self._fence: Fence | None = None
        self._changes: Changes | None = None
        self._wanted: tuple[Guarded, ...] = ()
        self._tried: tuple[Guarded, ...] = ()
        self._installed: dict[int, Guarded] = {}
        self._took: frozenset[int] = frozenset()  # where the last renewal was taken
        self._whole = False
        self._busy: asyncio.Task[None] | None = None
        self._again = False
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at = 0.0
        self.repairs = 0
        self.late = 0

    @property
    def proven(self) -> bool:
        """Installed everywhere it has to be, and found there."""
        return self._closes_first and self._whole and all(g == self._installed.get(g.index) for g in self._wanted)

    @property
    def pending(self) -> bool:
        """Whether other interfaces are wanted than were tried last."""
        return self._wanted != self._tried

    async def start(self, listener: Listener, guarded: tuple[Guarded, ...]) -> None:
        """Both tables, shut: what a former run has left on the interfaces stays dark."""
        self._listener = listener
        self._fence = await asyncio.to_thread(
            Fence, self._lease_ms, self._mark, owner=self._owner, until_ms=self._until_ms
        )
        self._changes = Changes()
        self._wanted = guarded
        try:
            await self._install(self._fence.install)
        except NftablesError as wrong:
            raise FenceRefused(f"this kernel cannot fence by nftables: {wrong.strerror}") from None
        loop = asyncio.get_running_loop()
        loop.add_reader(self._changes.fileno(), self._changed)
        self._looked_at = loop.time()
        self._timer = loop.call_later(LOOK_SECONDS, self._look_soon)

    def guard(self, guarded: tuple[Guarded, ...]) -> None:
        """Other interfaces or other VIPs."""
        if guarded != self._wanted:
            self._wanted = guarded
            self._look_soon()

    def why_not(self, index: int, ip: bytes) -> str | None:
        """Why an address is not fenced on an interface, or None."""
        if not self._whole:
            return "the fence is not there"
        found = self._installed.get(index)
        if found is not None and ip in found.ips:
            return None
        assert self._fence is not None
        return self._fence.why_not(index) or "not fenced yet"

    # -- the lease ------------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Whether VIPs pass now, by our own reckoning."""
        fence = self._fence
        return fence is not None and fence.renewed_ms is not None and boottime_ms() - fence.renewed_ms < self._lease_ms

    def renew(self, sent_ms: int) -> None:
        """Let VIPs pass for one more lease, if that beat is young, and still is when it is done."""
        fence = self._fence
        if fence is None or self._handed_over or boottime_ms() - sent_ms > self._beat_age_max_ms:
            return
        was_open = self.open()
        self._took = frozenset(fence.renew(boottime_ms()))
        if boottime_ms() - sent_ms > self._beat_age_max_ms:
            self.shut()
            self.late += 1
            self._record("renewed_late", {"age_ms": str(boottime_ms() - sent_ms)})
            return
        if not self._took >= self._installed.keys():
            self._look_soon()
        if not was_open and self._listener is not None:
            self._listener.fence_opened()

    async def extend(self, until_ms: int) -> int | None:
        """The key's element is given that time at once; no renewal shortens it any more."""
        assert self._fence is not None
        self._handed_over = True
        if self._busy is not None:
            await asyncio.wait({self._busy})
        try:
            await asyncio.to_thread(self._fence.extend, until_ms)
        except NftablesError as wrong:
            self._handed_over = False
            raise FenceRefused(f"the lease cannot be extended: {wrong.strerror}") from None
        return self._fence.fileno()

    def shut(self) -> None:
        """Let nothing pass from now on."""
        if self._fence is not None and not self._fence.shut():
            self._look_soon()

    # -- is it there? -------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        assert self._changes is not None
        self._changes.drain()
        self._look_soon()

    def _look_soon(self) -> None:
        """Look at once, or when the last look is LOOK_SECONDS_MIN ago; one look at a time."""
        if self._busy is not None or self._handed_over:
            self._again = True
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        wait = self._looked_at + LOOK_SECONDS_MIN - loop.time()
        if wait > 0:
            self._timer = loop.call_later(wait, self._look_soon)
            return
        self._timer = None
        self._busy = loop.create_task(self._look())
        self._busy.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._busy = None
        loop = asyncio.get_running_loop()
        self._looked_at = loop.time()
        if task.cancelled():
            return
        wrong = task.exception()
        if wrong is not None:
            loop.call_exception_handler({"message": "the fence cannot be looked at", "exception": wrong})
            return
        again, self._again = self._again, False
        self._timer = loop.call_later(LOOK_SECONDS_MIN if again else LOOK_SECONDS, self._look_soon)

    async def _look(self) -> None:
        """Is everything as it was made, is it what is wanted, and does the kernel say that the lease runs? If not, make it
        anew."""
        assert self._fence is not None
        before = (self.proven, self._whole, self._tried)
        broken = ""
        try:
            if not await asyncio.to_thread(self._fence.intact):
                broken = "removed or changed by somebody"
            elif (
                self._took
                and self.open()
                and not await asyncio.to_thread(self._fence.left_ms, self._took)
                and self.open()
            ):
                broken = "renewals do not arrive"
            if broken or self.pending:
                await self._install(self._fence.install if broken else self._fence.change)
        except NftablesError as wrong:
            self._whole = False
            broken = f"{broken or 'cannot be looked at'}; {wrong.strerror}"
        if broken:
            self.repairs += 1
            state = "put back" if self._whole else "cannot be put back"
            self._record("fence_broken", {"reason": broken, "now": state})
        if broken or before != (self.proven, self._whole, self._tried):
            self._tell()

    async def _install(self, how: Callable[[tuple[Guarded, ...]], None]) -> None:
        assert self._fence is not None
        wanted = self._wanted
        try:
            await asyncio.to_thread(how, wanted)
        finally:
            self._tried = wanted
        self._installed = {g.index: g for g in wanted if self._fence.why_not(g.index) is None}
        self._whole = True
        if self.open() and self._listener is not None:
            self._listener.fence_opened()  # on what is new nothing has passed so far

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener.fence_changed()

    # -- the end ------------------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """It is not replaced after all: shut, until a beat is back."""
        self._handed_over = False
        self.shut()
        self._look_soon()

    def describe(self) -> dict[str, object]:
        """Facts for `status`."""
        fence = self._fence
        left_ms = 0
        if fence is not None and fence.renewed_ms is not None:
            left_ms = max(0, self._lease_ms - (boottime_ms() - fence.renewed_ms))
        return {
            "mode": "nftables",
            "state": "open" if left_ms else "shut",
            "proven": self.proven,
            "lease_ms": self._lease_ms,
            "left_ms": left_ms,
            "interfaces": sorted(g.name for g in self._installed.values()),
            "repairs": self.repairs,
        }

    async def close(self) -> None:
        """Shut, and take both tables away."""
        self.shut()
        if self._timer is not None:
            self._timer.cancel()
        if self._changes is not None:
            asyncio.get_running_loop().remove_reader(self._changes.fileno())
            self._changes.close()
        if self._busy is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._busy
            if self._timer is not None:
                self._timer.cancel()
        if self._fence is not None:
            await asyncio.to_thread(self._fence.close)
            self._fence = None
