"""The worker thread that alone adds and removes addresses.

A job is a whole truth and waits in a mailbox in which the latest wins; netlink calls block for as long as the kernel
works, and the loop must not. The worker drops, adds, announces what is new at once, reads back and reports.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ...core.model import VipKey
from .. import scheduling
from .announce import Announcement, Sender
from .rtnl import BATCH_MAX, Placed, Rtnl


@dataclass(frozen=True, slots=True)
class Job:
    """What the kernel shall have: for each VIP its addresses, placed; and why others cannot be placed."""

    serial: int
    wanted: tuple[tuple[VipKey, tuple[Placed, ...]], ...]
    refused: tuple[tuple[VipKey, str], ...]
    macs: tuple[tuple[int, str, bytes], ...]  # index, name, MAC of the interfaces in use
    asked_at: float
    number: int = 0  # of those with the same serial the later is true


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job did."""

    serial: int
    held: tuple[VipKey, ...]
    refused: tuple[tuple[VipKey, str], ...]
    announced: tuple[Announcement, ...]
    added: int
    removed: int
    add_ms: float
    announce_ms: float
    number: int = 0  # the job's
    asked_at: float = 0.0  # the job's


def plan(
    present: AbstractSet[Placed], wanted: AbstractSet[Placed], ours: AbstractSet[Placed]
) -> tuple[list[Placed], list[Placed]]:
    """Return (drop, add); never touch an address that is not ours."""

    def order(a: Placed) -> tuple[int, int, bytes, int]:
        return (a.index, len(a.ip), a.ip, a.prefix)

    return sorted((present - wanted) & ours, key=order), sorted(wanted - present, key=order)


class Keeper:
    """The worker thread: it alone adds and removes addresses."""

    def __init__(self, valid_s: int) -> None:
        self._rtnl: Rtnl | None = None
        self._sender = Sender()
        self._wake = threading.Condition()
        self._job: Job | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.held_now: frozenset[Placed] = frozenset()
        """What is (about to be) held, as of this moment: whoever announces looks here first."""
        self._valid_s = valid_s
        self._refresh: int | None = None
        self._refreshed = threading.Event()
        self._latest: Outcome | None = None
        self._finished = threading.Event()

    def start(self, done: Callable[[Outcome], None], failed: Callable[[BaseException], None]) -> None:
        """Start the thread; `done` is called on it, and `failed` if it ends by an exception."""
        self._rtnl = Rtnl()
        self._thread = threading.Thread(target=self._guarded, args=(done, failed), name="addresses", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """The latest job; one that waits is replaced."""
        with self._wake:
            self._job = job
            self._latest = None
            self._finished.clear()
            self._wake.notify()

    def wait(self, seconds: float) -> Outcome | None:
        """What the latest job did, if it is done within so long. Whoever waits leaves the interpreter to the thread."""
        self._finished.wait(seconds)
        return self._latest

    def refresh(self, valid_s: int) -> threading.Event:
        """Let what is held live for so many seconds from now; the event says that it is done."""
        with self._wake:
            self._refresh = valid_s
            self._refreshed.clear()
            self._wake.notify()
        return self._refreshed

    def stop(self) -> None:
        """Let the thread end; a job under way is finished."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._sender.close()
        if self._rtnl is not None:
            self._rtnl.close()

    def _guarded(self, done: Callable[[Outcome], None], failed: Callable[[BaseException], None]) -> None:
        scheduling.before_others()
        try:
            self._run(done)
        except BaseException as wrong:
            failed(wrong)
        finally:  # nobody shall wait for a thread that has ended
            self._refreshed.set()
            self._finished.set()

    def _run(self, done: Callable[[Outcome], None]) -> None:
        while True:
            with self._wake:
                while self._job is None and not self._stopped and self._refresh is None:
                    self._wake.wait()
                job, self._job = self._job, None
                refresh, self._refresh = self._refresh, None
            if refresh is not None and self._rtnl is not None:
                self._rtnl.refresh(sorted(self.held_now, key=lambda a: (a.index, a.ip)), refresh)
                self._refreshed.set()
            if job is not None:
                outcome = self.apply(job)
                with self._wake:
                    if self._job is None:
                        self._latest = outcome
                        self._finished.set()
                done(outcome)
            elif self._stopped:
                return

    def apply(self, job: Job) -> Outcome:
        """Make it so, and read back."""
        assert self._rtnl is not None
        before = self._rtnl.addresses()
        ours = {a for a in before if a.ours}
        foreign = {a.ip: a for a in before if not a.ours}
        refused = dict(job.refused)
        names = {index: name for index, name, _ in job.macs}
        wanted: dict[Placed, VipKey] = {}
        for key, placed in job.wanted:
            taken = next((foreign[a.ip] for a in placed if a.ip in foreign), None)
            if taken is not None:
                where = names.get(taken.index, f"interface {taken.index}")
                refused[key] = f"{shown(taken)} is already configured on {where} by somebody else"
            else:
                wanted |= dict.fromkeys(placed, key)
        drop, add = plan(ours, wanted.keys(), ours)
        self.held_now = frozenset(wanted)
        if drop:
            self._rtnl.delete(drop)
        macs = {index: (name, mac) for index, name, mac in job.macs}
        missing = Counter(wanted[a] for a in add)
        waiting: dict[VipKey, list[Placed]] = {}
        failed: dict[Placed, int] = {}
        news: list[Announcement] = []
        sending_s = 0.0
        for start in range(0, len(add), BATCH_MAX):  # the first of thousands need not wait for the last
            part = add[start : start + BATCH_MAX]
            failed |= self._rtnl.add(part, self._valid_s)
            began = time.monotonic()
            for address in part:
                key = wanted[address]
                waiting.setdefault(key, []).append(address)
                if address in failed:
                    refused.setdefault(key, f"{shown(address)}: {os.strerror(failed[address])}")
                missing[key] -= 1
                if missing[key] == 0 and key not in refused:
                    whole = [Announcement(a.ip, *macs[a.index]) for a in waiting[key] if a.index in macs]
                    for announcement in whole:
                        self._sender.send(announcement)
                    news += whole
            sending_s += time.monotonic() - began
        announced_at = time.monotonic()
        undo = [a for a, key in wanted.items() if key in refused and a not in failed]
        if undo:
            self.held_now = frozenset(a for a, key in wanted.items() if key not in refused)
            self._rtnl.delete(undo)
        after = {a for a in self._rtnl.addresses() if a.ours}
        held = tuple(
            sorted(key for key, placed in job.wanted if key not in refused and all(a in after for a in placed))
        )
        return Outcome(
            job.serial,
            held,
            tuple(sorted(refused.items())),
            tuple(news),
            len(add) - len(failed),
            len(drop),
            (announced_at - job.asked_at - sending_s) * 1000,
            (announced_at - job.asked_at) * 1000,
            job.number,
            job.asked_at,
        )


def shown(address: Placed) -> str:
    """An address as people write it."""
    family = socket.AF_INET if len(address.ip) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, address.ip)}/{address.prefix}"
