"""The kernel's side of a member: have exactly the asked addresses, announce them, and notice what changes.

`hold_exactly` hands a whole truth to one worker thread through a mailbox in which the latest wins; netlink calls block
for as long as the kernel works, and the loop must not. The worker drops, adds, announces what is new at once, reads
back and reports on the loop. Links, carriers and addresses are watched on the loop.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ...core.model import Address, NotEligible, Vip, VipKey
from .announce import Announcement, Announcer, Sender
from .rtnl import IFF_LOOPBACK, RTM_DELADDR, RTM_DELLINK, Link, NetlinkError, Notifications, Placed, Rtnl

PUT_BACK_MAX, PUT_BACK_SECONDS = 10, 10.0
"""A VIP that somebody keeps removing is put back at most this often in this time; then it is refused."""

LINUX_MIN = (5, 18)
"""The first that keeps IFA_PROTO."""

Confirmed = Callable[[int, tuple[VipKey, ...], tuple[tuple[VipKey, str], ...]], None]
Eligibility = Callable[[tuple[tuple[VipKey, NotEligible], ...]], None]
Recorded = Callable[[str, dict[str, str]], None]


class KernelRefused(Exception):
    """This kernel cannot do what is needed; the sentence says what."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the kernel shall have: for each VIP its addresses, placed; and why others cannot be placed."""

    serial: int
    wanted: tuple[tuple[VipKey, tuple[Placed, ...]], ...]
    refused: tuple[tuple[VipKey, str], ...]
    macs: tuple[tuple[int, str, bytes], ...]  # index, name, MAC of the interfaces in use
    asked_at: float


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


def plan(
    present: AbstractSet[Placed], wanted: AbstractSet[Placed], ours: AbstractSet[Placed]
) -> tuple[list[Placed], list[Placed]]:
    """Return (drop, add); never touch an address that is not ours."""

    def order(a: Placed) -> tuple[int, int, bytes, int]:
        return (a.index, len(a.ip), a.ip, a.prefix)

    return sorted((present - wanted) & ours, key=order), sorted(wanted - present, key=order)


def packed(ip: str) -> bytes:
    """An address as 4 or 16 bytes."""
    return ipaddress.ip_address(ip).packed


class Surroundings:
    """The interfaces of this host and the addresses on them that are not ours."""

    def __init__(self, interfaces: Mapping[str, str]) -> None:
        self._interfaces = dict(interfaces)
        self.links: dict[int, Link] = {}
        self.foreign: set[Placed] = set()

    def read(self, links: Iterable[Link], addresses: Iterable[Placed]) -> None:
        """Forget everything and look anew."""
        self.links = {link.index: link for link in links}
        self.foreign = {a for a in addresses if not a.ours}

    def locate(self, address: Address) -> Link | None:
        """The interface for an address: by its name (mapped, if the node maps it), or the one whose subnet holds it."""
        if address.interface:
            name = self._interfaces.get(address.interface, address.interface)
            return next((link for link in self.links.values() if link.name == name), None)
        ip = packed(address.ip)
        best: tuple[int, Link] | None = None
        for a in self.foreign:
            link = self.links.get(a.index)
            if link is None or link.flags & IFF_LOOPBACK or len(a.ip) != len(ip) or a.ip == ip:
                continue
            shift = len(ip) * 8 - a.prefix
            if int.from_bytes(a.ip) >> shift == int.from_bytes(ip) >> shift and (best is None or a.prefix > best[0]):
                best = (a.prefix, link)
        return best[1] if best is not None else None

    def why_not(self, vip: Vip) -> NotEligible | None:
        """Why this host cannot hold a VIP now, or None."""
        foreign = {a.ip for a in self.foreign}
        for address in vip.addresses:
            if packed(address.ip) in foreign:
                return NotEligible.FOREIGN_ADDRESS
            link = self.locate(address)
            if link is None:
                return NotEligible.NO_INTERFACE
            if not link.carries:
                return NotEligible.LINK_DOWN
        return None


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
        self._refresh = False

    def start(self, done: Callable[[Outcome], None]) -> None:
        """Start the thread; `done` is called on it."""
        self._rtnl = Rtnl()
        self._thread = threading.Thread(target=self._run, args=(done,), name="addresses", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """The latest job; one that waits is replaced."""
        with self._wake:
            self._job = job
            self._wake.notify()

    def refresh(self) -> None:
        """Let what is held live for one more lifetime."""
        with self._wake:
            self._refresh = True
            self._wake.notify()

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

    def _run(self, done: Callable[[Outcome], None]) -> None:
        while True:
            with self._wake:
                while self._job is None and not self._stopped and not self._refresh:
                    self._wake.wait()
                job, self._job = self._job, None
                refresh, self._refresh = self._refresh, False
            if refresh and self._rtnl is not None:
                self._rtnl.refresh(sorted(self.held_now, key=lambda a: (a.index, a.ip)), self._valid_s)
            if job is not None:
                done(self.apply(job))
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
                refused[key] = f"{_text(taken)} is already configured on {where} by somebody else"
            else:
                wanted |= dict.fromkeys(placed, key)
        drop, add = plan(ours, wanted.keys(), ours)
        self.held_now = frozenset(wanted)
        if drop:
            self._rtnl.delete(drop)
        failed = self._rtnl.add(add, self._valid_s) if add else {}
        for address, code in failed.items():
            refused.setdefault(wanted[address], f"{_text(address)}: {os.strerror(code)}")
        undo = [a for a, key in wanted.items() if key in refused and a not in failed]
        if undo:
            self.held_now = frozenset(a for a, key in wanted.items() if key not in refused)
            self._rtnl.delete(undo)
        added_at = time.monotonic()
        macs = {index: (name, mac) for index, name, mac in job.macs}
        news = [Announcement(a.ip, *macs[a.index]) for a in add if wanted[a] not in refused and a.index in macs]
        for announcement in news:
            self._sender.send(announcement)
        announced_at = time.monotonic()
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
            (added_at - job.asked_at) * 1000,
            (announced_at - job.asked_at) * 1000,
        )


class Kernel:
    """Addresses, announcements and surroundings of this host; all calls on the loop's thread."""

    def __init__(
        self,
        *,
        vips: tuple[Vip, ...],
        interfaces: Mapping[str, str],
        on_confirmed: Confirmed,
        on_eligibility: Eligibility,
        on_record: Recorded,
    ) -> None:
        self._vips = vips
        self._around = Surroundings(interfaces)
        self._keeper = Keeper(0xFFFFFFFF)
        self._on_confirmed = on_confirmed
        self._on_eligibility = on_eligibility
        self._on_record = on_record
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: Notifications | None = None
        self._look: Rtnl | None = None
        self._announcer = Announcer(Sender(), self._still)
        self._serial = 0
        self._wanted: tuple[Vip, ...] = ()
        self._held: tuple[VipKey, ...] = ()
        self._said: tuple[tuple[VipKey, NotEligible], ...] | None = None
        self._put_back: deque[float] = deque(maxlen=PUT_BACK_MAX)
        self._putting_back = False
        self._last: Outcome | None = None

    async def start(self) -> None:
        """Open the sockets, remove what a former run left behind, and say once what this host can hold. Raises
        KernelRefused on a kernel that would not keep our tag."""
        if _release() < LINUX_MIN:
            raise KernelRefused(
                f"Linux {os.uname().release} is too old: it does not keep the tag that tells our addresses from others';"
                f" at least {LINUX_MIN[0]}.{LINUX_MIN[1]} is needed"
            )
        self._loop = asyncio.get_running_loop()
        self._watch = Notifications()
        self._look = Rtnl()
        links = self._look.links()
        self._around.read(links, self._look.addresses())
        self._keeper.start(lambda outcome: self._call(self._done, outcome))
        self._loop.add_reader(self._watch.fileno(), self._on_notice)
        self._keeper.put(self._job())
        self._say_eligibility()

    def _call(self, what: Callable[[Outcome], None], outcome: Outcome) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, outcome)

    def hold_exactly(self, serial: int, vips: tuple[Vip, ...]) -> None:
        """From now on exactly these; `on_confirmed` answers for the latest serial."""
        self._serial, self._wanted = serial, vips
        self._keeper.put(self._job())

    def announce(self, vips: tuple[Vip, ...]) -> None:
        """Announce again what is held of these, from the start of the schedule."""
        held = set(self._held)
        self._announcer.announce(a for v in vips if v.key in held for a in self._announcements(v))

    def held(self) -> tuple[VipKey, ...]:
        """What the kernel had when it was last read back."""
        return self._held

    def timings(self) -> dict[str, float]:
        """The last job: milliseconds from the request to the last address added and announced, and how many."""
        last = self._last
        if last is None:
            return {}
        return {"added": last.added, "removed": last.removed, "add_ms": last.add_ms, "announce_ms": last.announce_ms}

    async def close(self) -> None:
        """Stop watching and announcing, and hold nothing: what a failure leaves must not answer on."""
        if self._watch is not None and self._loop is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
        if self._look is not None:
            self._look.close()
        self._announcer.close()
        self._serial += 1  # nobody waits for the last one
        self._wanted = ()
        self._keeper.put(self._job())
        await asyncio.to_thread(self._keeper.stop)

    # -- the worker's side ------------------------------------------------------------------------------------------------

    def _job(self) -> Job:
        wanted: list[tuple[VipKey, tuple[Placed, ...]]] = []
        refused: list[tuple[VipKey, str]] = []
        used: set[int] = set()
        for vip in self._wanted:
            placed: list[Placed] = []
            for address in vip.addresses:
                link = self._around.locate(address)
                if link is None:
                    refused.append((vip.key, f"{address}: {NotEligible.NO_INTERFACE.value}"))
                    break
                placed.append(Placed(packed(address.ip), address.prefix, link.index))
                used.add(link.index)
            else:
                wanted.append((vip.key, tuple(placed)))
        macs = tuple((i, self._around.links[i].name, self._around.links[i].mac) for i in sorted(used))
        return Job(self._serial, tuple(wanted), tuple(refused), macs, time.monotonic())

    def _done(self, outcome: Outcome) -> None:
        if outcome.serial != self._serial:
            return  # overtaken; the later one is under way
        self._last = outcome
        self._held = outcome.held
        if outcome.announced:
            self._announcer.announce(outcome.announced, first=1)
        if outcome.added or outcome.removed:
            self._on_record(
                "kernel",
                {
                    "serial": str(outcome.serial),
                    "added": str(outcome.added),
                    "removed": str(outcome.removed),
                    "add_ms": f"{outcome.add_ms:.2f}",
                    "announce_ms": f"{outcome.announce_ms:.2f}",
                    "put_back": "yes" if self._putting_back else "no",
                },
            )
        self._putting_back = False
        self._on_confirmed(outcome.serial, outcome.held, outcome.refused)

    def _announcements(self, vip: Vip) -> list[Announcement]:
        found = []
        for address in vip.addresses:
            link = self._around.locate(address)
            if link is not None:
                found.append(Announcement(packed(address.ip), link.name, link.mac))
        return found

    def _still(self, announcement: Announcement) -> bool:
        return any(a.ip == announcement.ip for a in self._keeper.held_now)

    # -- what changes around us -------------------------------------------------------------------------------------------

    def _on_notice(self) -> None:
        assert self._watch is not None
        assert self._look is not None
        notices = self._watch.read()
        lost = False
        if notices is None:
            try:
                self._around.read(self._look.links(), self._look.addresses())
            except NetlinkError as wrong:
                self._on_record("kernel_unreadable", {"reason": str(wrong)})
            lost = True
        for notice in notices or ():
            match notice.what:
                case Link() as link:
                    if notice.kind == RTM_DELLINK:
                        self._around.links.pop(link.index, None)
                        self._around.foreign = {a for a in self._around.foreign if a.index != link.index}
                    else:
                        self._around.links[link.index] = link
                case Placed() as placed if not placed.ours:
                    if notice.kind == RTM_DELADDR:
                        self._around.foreign.discard(placed)
                    else:
                        self._around.foreign.add(placed)
                case Placed() as placed:
                    lost = lost or (notice.kind == RTM_DELADDR and placed in self._keeper.held_now)
        self._say_eligibility()
        if lost:
            self._restore()

    def _restore(self) -> None:
        """One of ours may have been removed behind our back: have the worker look, and put back what is missing."""
        now = time.monotonic()
        if len(self._put_back) == PUT_BACK_MAX and now - self._put_back[0] < PUT_BACK_SECONDS:
            self._on_record("put_back_given_up", {"times": str(PUT_BACK_MAX), "seconds": f"{PUT_BACK_SECONDS:.0f}"})
            return
        self._put_back.append(now)
        self._putting_back = True
        self._keeper.put(self._job())

    def _say_eligibility(self) -> None:
        reasons = tuple(
            (vip.key, why)
            for vip in sorted(self._vips, key=lambda v: v.key)
            if (why := self._around.why_not(vip)) is not None
        )
        if reasons != self._said:
            self._said = reasons
            self._on_eligibility(reasons)


def _text(address: Placed) -> str:
    family = socket.AF_INET if len(address.ip) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, address.ip)}/{address.prefix}"


def _release() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
