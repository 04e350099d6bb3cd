"""The kernel's side of a member: have exactly the asked addresses, announce them, silence them when it must be, and
notice what changes.

`hold_exactly` hands a whole truth to one worker thread (keeper.py). Links, carriers and addresses are watched on the loop
(surroundings.py says what follows from them); the fence is one of three (fencing.py).
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from ...advice import Neighbours
from ...core.model import Address, NodeId, NotEligible, OnWire, Vip, VipKey
from ...routing import Route, Rule
from .. import scheduling
from .announce import Announcement, Announcer, Sender
from .claims import Claim, Ears
from .connections import Connections
from .duplicates import Duplicates
from .fence import Guarded
from .fencing import Fencing, Unfenced
from .keeper import Job, Keeper, Outcome
from .listed import Listed, Notify
from .peers import TOUCH_SECONDS, Peers, packed_addresses
from .routing import Routing
from .rtnl import FOR_EVER, RTM_DELADDR, RTM_DELLINK, Link, NetlinkError, Notifications, Placed, Rtnl
from .surroundings import Surroundings, packed
from .witness import Place, Witness, question

PUT_BACK_MAX, PUT_BACK_SECONDS = 10, 10.0
"""What somebody keeps removing is put back at most this often in this time."""

LINUX_MIN = (5, 18)
"""The first that keeps IFA_PROTO: by it addresses are known as ours after a crash. The fence's egress hook is older (5.16)."""

AFTER_A_VIEW_SECONDS = 0.3
"""What can wait does: a take-over comes first, and threads share one interpreter."""
FIRST_SECONDS = 0.005
"""How long the loop stands back for the addresses' thread at most: everything else can wait so long, and two threads that
take turns on one interpreter need several times what one needs alone (docs/decisions/0010-…)."""
LOOK_AGAIN_SECONDS = 0.05
"""How often is looked whether the group has settled, once a carrier has been back for long enough."""

NOBODY = Notify()

Confirmed = Callable[[int, tuple[VipKey, ...], tuple[tuple[VipKey, str], ...]], None]
Eligibility = Callable[[tuple[tuple[VipKey, NotEligible], ...]], None]
Recorded = Callable[[str, dict[str, str]], None]


class KernelRefused(Exception):
    """This kernel cannot do what is needed; the sentence says what."""


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """What a config says that concerns this host's kernel. `interfaces`: this host's names for the config's. `peers`: the
    other nodes' own addresses. `withdraw_after`: claims by another host until a VIP is left to it; None: never. `notify`: who is
    told of a VIP besides its segment. `routing`: what is there while a VIP is. `keep_connections`: VIPs whose TCP connections
    are left as they are when they go."""

    vips: tuple[Vip, ...]
    interfaces: Mapping[str, str] = field(default_factory=dict)
    link_up_delay_ms: int = 0
    peers: frozenset[str] = frozenset()
    withdraw_after: int | None = None
    notify: Notify = NOBODY
    routing: Mapping[VipKey, tuple[Route | Rule, ...]] = field(default_factory=dict)
    keep_connections: frozenset[VipKey] = frozenset()


class Kernel:
    """Addresses, announcements, fence and surroundings of this host; all calls on the loop's thread.

    `make_fencing` is given what renews the lifetimes of held addresses. `lifetime_s`: they live so long without. `calm`
    says whether the group has settled: only then a carrier that came back counts. `inherited`: a former process has left
    these on the interfaces for this one. `on_neighbours` is given what the other members may know of this host's
    neighbours; `on_serving` VIPs that were acquired, when the kernel answers for all of their addresses: for one of IPv6 a
    moment after it was added, even without duplicate address detection."""

    def __init__(
        self,
        config: KernelConfig,
        *,
        on_confirmed: Confirmed,
        on_eligibility: Eligibility,
        on_record: Recorded,
        on_fenced: Callable[[bool], None] = lambda _: None,
        make_fencing: Callable[[Callable[[int], threading.Event]], Fencing] = lambda _: Unfenced(),
        lifetime_s: int = FOR_EVER,
        calm: Callable[[], bool] = lambda: True,
        inherited: tuple[Vip, ...] = (),
        on_witnessed: Callable[[VipKey, NodeId, OnWire], None] = lambda *_: None,
        on_neighbours: Callable[[Neighbours], None] = lambda _: None,
        on_serving: Callable[[frozenset[VipKey]], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._around = Surroundings(config.interfaces, config.link_up_delay_ms)
        self._keeper = Keeper(lifetime_s)
        self.fencing = make_fencing(self._keeper.refresh)
        self._on_confirmed = on_confirmed
        self._on_eligibility = on_eligibility
        self._on_record = on_record
        self._on_fenced = on_fenced
        self._on_serving = on_serving
        self._calm = calm
        self._fenced = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: Notifications | None = None
        self._look: Rtnl | None = None
        self._peers: Peers | None = None
        self._peers_thread = ThreadPoolExecutor(1, "neighbours", scheduling.behind_the_loop)
        self._touching: asyncio.TimerHandle | None = None
        self._announcer = Announcer(Sender(), self._still)
        self.listed = Listed(
            config.notify,
            self._around,
            config.vips,
            self._peers_thread,
            still=self._still,
            share=on_neighbours,
            on_unreadable=lambda why: on_record("neighbours_unreadable", {"reason": why}),
        )
        self._places: tuple[frozenset[Placed], dict[bytes, int]] = (frozenset(), {})
        self._held_ips: tuple[frozenset[Placed], frozenset[bytes]] = (frozenset(), frozenset())
        self._ears = Ears(self._claimed)
        self.witness = Witness(self._ask, on_witnessed)
        self.duplicates = Duplicates(
            lambda: (self._keeper.held_now, self._wanted),
            lambda: (link.mac for link in self._around.links.values()),
            announce=self.announce,
            on_eligibility=self._say_eligibility,
            on_record=on_record,
            withdraw_after=config.withdraw_after,
        )
        self._routing = Routing(
            config.routing,
            self._index,
            self._around.name_of,
            lambda what, why: self._say("routing_failed", {"what": what, "reason": why}),
            lambda what: self._say("routing_put_back", {"what": what}),
        )
        self._connections = Connections(
            self._has,
            lambda number: self._say("connections_destroyed", {"number": str(number)}),
            lambda why: self._say("connections_kept", {"reason": why}),
        )
        self._serial = 0
        self._jobs = 0
        self._wanted: tuple[Vip, ...] = inherited
        self._held: tuple[VipKey, ...] = ()
        self._ips: dict[VipKey, tuple[bytes, ...]] = {}  # of what is held
        self._gone: list[bytes] = []
        self._answering: set[bytes] = set()  # of IPv6
        self._awaited: dict[VipKey, set[bytes]] = {}  # that do not answer yet
        self._following: asyncio.Handle | None = None
        self._said: tuple[tuple[VipKey, NotEligible], ...] | None = None
        self._put_back: deque[float] = deque(maxlen=PUT_BACK_MAX)
        self._putting_back = False
        self._again: asyncio.TimerHandle | None = None
        self._putting_off: asyncio.TimerHandle | None = None
        self._waited_for: Outcome | None = None
        self._answered: Outcome | None = None
        self.times_put_back = 0

    async def start(self) -> None:
        """Open the sockets, fence, remove what a former run left behind, and say once what this host can hold. Raises
        KernelRefused on a kernel that would not keep our tag, FenceRefused on one that cannot fence."""
        if _release() < LINUX_MIN:
            raise KernelRefused(
                f"Linux {os.uname().release} is too old: it does not keep the tag that tells our addresses from others';"
                f" at least {LINUX_MIN[0]}.{LINUX_MIN[1]} is needed"
            )
        self._loop = asyncio.get_running_loop()
        self._watch = Notifications()
        self._look = Rtnl()
        self._peers = Peers(Rtnl(), packed_addresses(self._config.peers))
        self._touch_peers()
        self._around.read(self._look.links(), self._look.addresses())
        guarded = self._guarded()
        await self.fencing.start(self, guarded)
        self._ears.listen(guarded)
        self.listed.start(guarded)
        self._keeper.start(lambda outcome: self._call(self._worked, outcome), self._keeper_failed)
        self._loop.add_reader(self._watch.fileno(), self._on_notice)
        self._routing.start()
        self._connections_wanted()
        self._keeper.put(self._job())
        self.fence_changed()

    def reconfigure(self, config: KernelConfig) -> None:
        """From now on by this config. What is held stays held and fenced until the core says something else."""
        renamed = config.interfaces != self._config.interfaces
        self._config = config
        self._around.reconfigure(config.interfaces, config.link_up_delay_ms)
        self._routing.reconfigure(config.routing)
        self.listed.reconfigure(config.notify, config.vips)
        self.duplicates.withdraw_after = config.withdraw_after
        self._ask_peers(lambda peers: peers.reconfigure(packed_addresses(config.peers)))
        self._connections_wanted()
        self._guard()
        self._say_eligibility()
        self._follow()
        if renamed:
            self._keeper.put(self._job())

    def _connections_wanted(self) -> None:
        if any(v.key not in self._config.keep_connections for v in self._config.vips):
            self._connections.start()

    def _guarded(self) -> tuple[Guarded, ...]:
        """Where VIPs have to be fenced: those of the config, and those that it has no more and that are still here."""
        return self._around.guarded({v.key: v for v in (*self._config.vips, *self._wanted)}.values())

    def _guard(self) -> None:
        guarded = self._guarded()
        self.fencing.guard(guarded)
        self._ears.listen(guarded)
        self.listed.guard(guarded)

    def _keeper_failed(self, wrong: BaseException) -> None:
        """Without the worker nothing is added and nothing let go: the daemon has to end."""
        assert self._loop is not None
        if not self._loop.is_closed():
            context = {"message": "the addresses' thread ended", "exception": wrong}
            self._loop.call_soon_threadsafe(self._loop.call_exception_handler, context)

    def _call(self, what: Callable[[Outcome], None], outcome: Outcome) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, outcome)

    def hold_exactly(self, serial: int, vips: tuple[Vip, ...]) -> None:
        """From now on exactly these; `on_confirmed` answers for the latest serial, within this call if it is soon done."""
        self._serial, self._wanted = serial, vips
        wanted = {v.key for v in vips}
        self._routing.shrink(k for k in self._held if k in wanted)
        self._keeper.put(self._job())
        outcome = self._keeper.wait(FIRST_SECONDS)
        if outcome is not None:
            self._done(outcome)

    def announce(self, vips: tuple[Vip, ...]) -> None:
        """Announce again what is held of these, from the start of the schedule."""
        held = set(self._held)
        again = [a for v in vips if v.key in held for a in self._announcements(v)]
        self._announcer.announce(again)
        self.listed.announced(again)

    def peers_present(self, addresses: Iterable[str]) -> None:
        """The nodes with these addresses are members now."""
        here = packed_addresses(addresses)
        loop = asyncio.get_running_loop()
        loop.call_later(AFTER_A_VIEW_SECONDS, self._ask_peers, lambda peers: peers.present(here))

    def _ask_peers(self, what: Callable[[Peers], None]) -> None:
        """On a thread of their own, one after the other: the kernel's lock may be held by others, and it is only advice."""
        if self._peers is not None:
            asyncio.get_running_loop().run_in_executor(self._peers_thread, self._advised, what, self._peers)

    def _advised(self, what: Callable[[Peers], None], peers: Peers) -> None:
        try:
            what(peers)
        except OSError as wrong:
            self._on_peers_failed(wrong)

    def _on_peers_failed(self, wrong: OSError) -> None:
        self._say("neighbours_unreadable", {"reason": str(wrong)})

    def _touch_peers(self) -> None:
        self._ask_peers(Peers.touch)
        self._touching = asyncio.get_running_loop().call_later(TOUCH_SECONDS, self._touch_peers)

    @property
    def busy(self) -> bool:
        """Whether the addresses' thread is at work on what was asked for last."""
        return self._answered is None or self._answered.serial != self._serial

    def held(self) -> tuple[VipKey, ...]:
        """What the kernel had when it was last read back."""
        return self._held

    async def close(self) -> None:
        """Stop watching and announcing, and hold nothing: what a failure leaves must not answer on. The fence goes last."""
        self.fencing.shut()
        if self._watch is not None and self._loop is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
        for timer in (self._again, self._touching, self._putting_off, self._following):
            if timer is not None:
                timer.cancel()
        if self._look is not None:
            self._look.close()
        self._announcer.close()
        self.listed.close()
        self._ears.close()
        self.duplicates.close()
        self.witness.close()
        self._serial += 1  # nobody waits for the last one
        self._wanted = ()
        self._keeper.put(self._job())
        self._routing.shrink(())
        self._routing.stop()
        await asyncio.to_thread(self._keeper.stop)
        for key in self._ips.keys() - self._config.keep_connections:
            self._gone += self._ips[key]
        self._connections.gone(self._gone)
        await asyncio.to_thread(self._routing.close)
        await asyncio.to_thread(self._connections.close)
        self._peers_thread.shutdown(wait=False, cancel_futures=True)
        await self.fencing.close()

    # -- the fence's side -------------------------------------------------------------------------------------------------

    def fence_changed(self) -> None:
        """Where VIPs are fenced, and whether that is proven, may have changed."""
        proven = self.fencing.proven
        if proven != self._fenced:
            self._fenced = proven
            self._on_fenced(proven)
        self._say_eligibility()

    def fence_opened(self) -> None:
        """Whatever was announced while it was shut was eaten (hazard 29)."""
        self.announce(self._wanted)

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
        self._jobs += 1
        return Job(self._serial, tuple(wanted), tuple(refused), macs, time.monotonic(), self._jobs)

    def _worked(self, outcome: Outcome) -> None:
        """The thread has done a job. What it announced is announced again also if a later job has overtaken this one: that
        one finds the addresses there, and says nothing of them."""
        self._done(outcome)
        if outcome.announced:
            self._announcer.announce(outcome.announced, first=1)
            self.listed.acquired(outcome.announced)
            stale = {a.ip for a in outcome.announced if not self._still(a)}
            if stale:  # the interface got another hardware address or name while the thread worked
                self.announce(tuple(v for v in self._wanted if stale & {packed(a.ip) for a in v.addresses}))

    def _done(self, outcome: Outcome) -> None:
        answered = self._answered
        if outcome.serial != self._serial or outcome is answered or (answered and outcome.number < answered.number):
            return  # overtaken: the later one is under way, or was waited for and handled then
        self._answered = outcome
        if self._putting_back and outcome.refused and self._around.gone:
            self._waited_for = outcome  # the interface was deleted a moment ago: it may come back
            self._wake_when_due()
            return
        self._acquired(frozenset(outcome.held).difference(self._held))
        lost = set(self._held) - set(outcome.held)
        for key in lost:
            self._gone += self._ips.get(key, ()) if key not in self._config.keep_connections else ()
        self._held, held = outcome.held, frozenset(outcome.held)
        self._ips = {v.key: tuple(packed(a.ip) for a in v.addresses) for v in self._wanted if v.key in held}
        if outcome.added or outcome.removed:
            self._on_record(
                "kernel",
                {
                    "serial": str(outcome.serial),
                    "added": str(outcome.added),
                    "removed": str(outcome.removed),
                    "add_ms": f"{outcome.add_ms:.2f}",
                    "announce_ms": f"{outcome.announce_ms:.2f}",
                    "confirm_ms": f"{(time.monotonic() - outcome.asked_at) * 1000:.2f}",
                    "put_back": "yes" if self._putting_back else "no",
                },
            )
        if self._putting_back:
            self.times_put_back += outcome.added
        self._putting_back = False
        if lost - {v.key for v in self._config.vips}:
            self._guard()  # a reload took them away, and now they are gone
        self._on_confirmed(outcome.serial, outcome.held, outcome.refused)
        if self._following is None and self._loop is not None:
            self._following = self._loop.call_soon(self._follow)  # the group hears of it first

    def _has(self, ip: bytes) -> bool:
        """Whether an address is held as of this moment; from any thread."""
        held, ips = self._held_ips
        if held is not self._keeper.held_now:
            held = self._keeper.held_now
            ips = frozenset(a.ip for a in held)
            self._held_ips = held, ips
        return ip in ips

    def _acquired(self, keys: frozenset[VipKey]) -> None:
        """The kernel has these now."""
        self._awaited = {
            v.key: ips
            for v in self._wanted
            if (v.key in keys or v.key in self._awaited)
            and (ips := {packed(a.ip) for a in v.addresses if ":" in a.ip} - self._answering)
        }
        if serving := keys - self._awaited.keys():
            self._on_serving(serving)

    def _answers(self, ips: Collection[bytes]) -> None:
        """The kernel answers for these now."""
        self._answering.update(ips)
        serving = [key for key, awaited in self._awaited.items() if awaited <= self._answering]
        for key in serving:
            del self._awaited[key]
        if serving:
            self._on_serving(frozenset(serving))

    def _announcements(self, vip: Vip) -> list[Announcement]:
        found = []
        for address in vip.addresses:
            link = self._around.locate(address)
            if link is not None:
                found.append(Announcement(packed(address.ip), link.name, link.mac))
        return found

    def _still(self, announcement: Announcement) -> bool:
        """Whether it is held as of this moment, on that interface, and that has this hardware address."""
        held = self._keeper.held_now
        if held is not self._places[0]:
            self._places = held, {a.ip: a.index for a in held}
        link = self._around.links.get(self._places[1].get(announcement.ip, 0))
        return link is not None and (link.name, link.mac) == (announcement.interface, announcement.mac)

    # -- what is heard and asked on the wire ------------------------------------------------------------------------------

    def _claimed(self, claim: Claim) -> None:
        self.duplicates.claimed(claim)
        self.witness.heard(claim)

    def _ask(self, address: Address) -> Place | None:
        link, target = self._around.locate(address), packed(address.ip)
        source = self._around.source_for(target, link) if link is not None else None
        if link is None or source is None or not self._ears.send(link.index, question(link.mac, source, target)):
            return None
        return link.index, target

    def warnings(self) -> list[str]:
        """What an operator should know now."""
        deaf = [f"other hosts' claims on {name} are not seen: {why}" for name, why in sorted(self._ears.deaf.items())]
        return self.duplicates.warnings() + self._routing.warnings() + deaf

    # -- what comes and goes with a VIP ------------------------------------------------------------------------------------

    def _follow(self) -> None:
        self._following = None
        self._routing.hold(self._held)
        gone, self._gone = self._gone, []
        self._connections.gone(gone)

    def _index(self, interface: str) -> int | None:
        name = self._around.name_of(interface)
        return next((link.index for link in self._around.links.values() if link.name == name), None)

    def _say(self, what: str, fields: dict[str, str]) -> None:
        """From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_record, what, fields)

    # -- what changes around us -------------------------------------------------------------------------------------------

    def _on_notice(self) -> None:
        assert self._watch is not None
        assert self._look is not None
        notices, answers = self._watch.read(), list[bytes]()
        lost = changed = False  # `changed`: more than addresses of ours, of which a move has many
        before = self._names()
        if notices is None:
            try:
                self._around.read(self._look.links(), self._look.addresses())
            except NetlinkError as wrong:
                self._on_record("kernel_unreadable", {"reason": str(wrong)})
            lost = changed = True
        for notice in notices or ():
            match notice.what:
                case Link() as link:
                    changed = True
                    if notice.kind == RTM_DELLINK:
                        self._around.removed(link.index)
                    else:
                        self._around.changed(link)
                        if not link.carries:
                            self._ask_peers(lambda peers, index=link.index: peers.forgotten(index))  # type: ignore[misc]
                        lost = lost or (link.carries and self._waited_for is not None)
                case Placed() as placed if not placed.ours:
                    changed = True
                    if notice.kind == RTM_DELADDR:
                        self._around.foreign.discard(placed)
                    else:
                        self._around.foreign.add(placed)
                        lost = lost or self._waited_for is not None
                case Placed() as placed if notice.kind == RTM_DELADDR:
                    self._answering.discard(placed.ip)
                    lost = lost or placed in self._keeper.held_now
                case Placed() as placed if len(placed.ip) == 16:
                    answers.append(placed.ip)
        if answers:
            self._answers(answers)
        if changed:
            self._guard()
            self._say_eligibility()
        if lost:
            self._restore()
        if changed and any(before.get(index, now) != now for index, now in self._names().items()):
            self.announce(self._wanted)
        self._wake_when_due()

    def _names(self) -> dict[int, tuple[str, bytes]]:
        """The interfaces' names and hardware addresses, which announcements name."""
        return {link.index: (link.name, link.mac) for link in self._around.links.values()}

    def _restore(self) -> None:
        """One of ours may have been removed behind our back: have the worker look, and put back what is missing."""
        now = time.monotonic()
        if len(self._put_back) == PUT_BACK_MAX and now - self._put_back[0] < PUT_BACK_SECONDS:
            self._on_record("put_back_waits", {"times": str(PUT_BACK_MAX), "seconds": f"{PUT_BACK_SECONDS:.0f}"})
            if self._putting_off is None:
                assert self._loop is not None
                self._putting_off = self._loop.call_later(PUT_BACK_SECONDS - (now - self._put_back[0]), self._try_again)
            return
        self._put_back.append(now)
        self._putting_back = True
        self._waited_for = None
        self._keeper.put(self._job())

    def _try_again(self) -> None:
        self._putting_off = None
        self._restore()

    def _wake_when_due(self) -> None:
        assert self._loop is not None
        due = self._around.next_due()
        if due is None:
            return
        wait = max(LOOK_AGAIN_SECONDS, due - time.monotonic())
        if self._again is not None:
            if self._again.when() <= self._loop.time() + wait:
                return
            self._again.cancel()
        self._again = self._loop.call_later(wait, self._matured)

    def _matured(self) -> None:
        """A carrier is back for long enough, or an interface is gone for good."""
        self._again = None
        self._around.mature(calm=self._calm())  # membership first, then VIPs
        self._say_eligibility()
        if self._waited_for is not None and not self._around.gone:
            outcome, self._waited_for = replace(self._waited_for, serial=self._serial), None
            self._done(outcome)
        self._wake_when_due()

    def _say_eligibility(self) -> None:
        reasons = tuple(
            (vip.key, why)
            for vip in sorted(self._config.vips, key=lambda v: v.key)
            if (why := self._around.why_not(vip) or self._unfenced(vip) or self.duplicates.why_not(vip)) is not None
        )
        if reasons != self._said:
            self._said = reasons
            self._on_eligibility(reasons)

    def _unfenced(self, vip: Vip) -> NotEligible | None:
        """What is held is kept while the fence is being made for an interface that is new."""
        if self.fencing.pending and vip in self._wanted:
            return None
        for address in vip.addresses:
            link = self._around.locate(address)
            if link is not None and self.fencing.why_not(link.index, packed(address.ip)) is not None:
                return NotEligible.NO_FENCE
        return None


def _release() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
