"""Telling a list where a VIP is now: single hosts, whole networks, and the neighbours that any member knows.

The whole segment has been told already (announce.py). This is for those that listen to no broadcast, or did not get it, and
asks each by itself. A host whose hardware address is known gets two frames of its own, which Linux takes also within the
second in which a fresh entry is locked: IPv4 an ARP request of the VIP for the host's address, which makes an entry where
there is none, and a reply with target MAC = sender MAC; IPv6 a neighbour solicitation of the VIP for the host, likewise,
and an advertisement with override. Any other is asked for by broadcast, or at its solicited-node group: as a question of
the VIP's that teaches as well. With `ping` an echo request follows, IPv4 or IPv6, where the hardware address is known: the
answer makes the host use its entry, and the switches see where the VIP is.

Each entry of a list has its own rate, shared by all VIPs, and its own queue; at most FRAMES_PER_TURN go out in one turn of
the loop. What is urgent has other sockets and other timers and never waits here. Before each frame is looked whether the VIP
is still held (hazard 18).
"""

from __future__ import annotations

import asyncio
import heapq
import random
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count, islice

from ...advice import Neighbours
from ...config import HostsConfig
from ...core.model import Vip
from .announce import Announcement, Sender, checksum, forwards, gratuitous_arp, icmpv6, neighbour_advertisement
from .fence import Guarded
from .neighbourhood import Host, Neighbourhood, is_host, own_neighbours, within
from .rtnl import Rtnl
from .surroundings import Network, Surroundings, network_of, packed
from .witness import question

FRAMES_PER_TURN = STARTS_PER_TURN = 16
BURST_SECONDS = 1 / 16
"""A queue that stood still sends at once what it may send in this time, and never more."""
START_SECONDS = 0.01
"""The announcement's second repetition goes first."""
KEPT_INTERVALS = 5
"""What another member said of its neighbours counts for so many intervals."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The neighbours that are known, as an entry of the list."""

    throttle: int
    ping: bool


NOBODY = Cache(1, False)
Entry = HostsConfig | Cache
Course = tuple[Entry, Iterator[bytes]]
"""An entry, and the addresses of its hosts."""


@dataclass(frozen=True, slots=True)
class Notify:
    """Whom to tell: of every VIP `hosts` and the `cache` (None: nobody's), of some addresses others too. The caches are read,
    and with a `cache` shared, every `interval_s`."""

    hosts: tuple[HostsConfig, ...] = ()
    more: Mapping[bytes, tuple[HostsConfig, ...]] = field(default_factory=dict)
    cache: Cache | None = None
    interval_s: float = 60.0

    @property
    def anybody(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self.hosts or self.more or self.cache)


# -- frames -------------------------------------------------------------------------------------------------------------


def echo_request(mac: bytes, source: bytes, to_mac: bytes, to: bytes) -> bytes:
    """A ping without content."""
    if len(to) == 16:
        return icmpv6(mac, source, to_mac, to, struct.pack("!BBHHH", 128, 0, 0, 0, 0) + bytes(24))
    body = b"\x08\0" + checksum(b"\x08\0" + bytes(6)) + bytes(4)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0) + source + to
    header = header[:10] + checksum(header) + header[12:]
    return to_mac + mac + b"\x08\0" + header + body + bytes(18)


def frames_for(
    mac: bytes, ip: bytes, to: bytes, to_mac: bytes | None, *, ping: bool, router: bool = False
) -> tuple[bytes, ...]:
    """What tells the host `to` that `ip` is at `mac`; IPv6: and whether it is a router."""
    if to_mac is None:
        return (question(mac, ip, to),)
    if len(ip) == 4:
        told = (to_mac + question(mac, ip, to)[6:], to_mac + gratuitous_arp(mac, ip, reply=2)[6:])
    else:
        told = (
            icmpv6(mac, ip, to_mac, to, struct.pack("!BBHI", 135, 0, 0, 0) + to + b"\1\1" + mac),
            neighbour_advertisement(mac, ip, router=router, to=to, to_mac=to_mac),
        )
    return (*told, echo_request(mac, ip, to_mac, to)) if ping else told


# -- whom ---------------------------------------------------------------------------------------------------------------


def hosts_of(entry: HostsConfig, on_link: Iterable[Network]) -> Iterator[bytes]:
    """The hosts of an entry that are in one of these networks, one by one; all of them if there is no network. IPv4's network
    and broadcast addresses are nobody's."""
    first, size = entry.network.network_address.packed, entry.network.max_prefixlen // 8
    whole = network_of(first, entry.network.prefixlen)
    links = sorted(n for n in on_link if n[0] == size) or [whole]
    begun: list[Network] = []
    for link in links:
        part = max(link, whole, key=lambda n: n[1])
        if _holds(link, part) and _holds(whole, part) and not any(_holds(b, part) for b in begun):
            begun.append(part)
    for _, prefix, bits in begun:
        low, width = bits << (size * 8 - prefix), 1 << (size * 8 - prefix)
        for number in range(low, low + width):
            ip = number.to_bytes(size)
            if size == 16 or entry.network.prefixlen == 32 or not any(_nobodys(ip, link) for link in links):
                yield ip


def _holds(outer: Network, inner: Network) -> bool:
    return outer[0] == inner[0] and outer[1] <= inner[1] and inner[2] >> (inner[1] - outer[1]) == outer[2]


def _nobodys(ip: bytes, network: Network) -> bool:
    size, prefix, bits = network
    rest = size * 8 - prefix
    return rest > 1 and int.from_bytes(ip) in (bits << rest, (bits + 1 << rest) - 1)


# -- when ---------------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Round:
    """One VIP's address on its way through the list: it stands at one host of one entry."""

    vip: Announcement
    courses: Iterator[Course]
    entry: Entry = NOBODY
    host: bytes = b""
    hosts: Iterator[bytes] = field(default_factory=lambda: iter(()))
    again: bool = False  # when it is through, once more

    def advance(self) -> bool:
        """Go to the next host; returns whether there is one."""
        while (host := next(self.hosts, None)) is None:
            course = next(self.courses, None)
            if course is None:
                return False
            self.entry, self.hosts = course
        self.host = host
        return True


class _Queue:
    """Who waits for one entry's turn. A token is a frame; a host that needs several may leave a debt."""

    def __init__(self, throttle: int, now: float) -> None:
        self._throttle = throttle
        self._tokens = self._most = max(1.0, throttle * BURST_SECONDS)
        self._at = now
        self.waiting: deque[_Round] = deque()
        self.due = False  # in the heap

    def spend(self, frames: int, now: float) -> None:
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._throttle) - frames
        self._at = now

    @property
    def ready_at(self) -> float:
        return self._at + max(0.0, 1 - self._tokens) / self._throttle


class Rounds:
    """Goes through the list for each VIP, all in turn. `courses`: the entries of the list for an address; `frames`: what tells
    one host; `send` returns why it could not, or None; then the same host has its turn again. Times are seconds of one
    monotonic clock. There is one round for an address at most."""

    def __init__(
        self,
        courses: Callable[[Announcement], Iterator[Course]],
        frames: Callable[[Announcement, bytes, bool], Iterable[bytes]],
        send: Callable[[str, bytes], str | None],
        still: Callable[[Announcement], bool],
    ) -> None:
        self._courses, self._frames, self._send, self._still = courses, frames, send, still
        self._rounds: dict[Announcement, _Round] = {}
        self._queues: dict[Entry, _Queue] = {}
        self._due: list[tuple[float, int, _Queue]] = []  # a heap of the queues in which somebody waits
        self._numbers = count()
        self.sent = 0
        self.failed = 0

    def start(self, vip: Announcement, now: float) -> None:
        """Tell the list of it, from the beginning: it was acquired."""
        self._begin(vip, now)

    def start_later(self, vip: Announcement, now: float) -> None:
        """Tell the list of it; if that is being done, once more afterwards."""
        known = self._rounds.get(vip)
        if known is not None:
            known.again = True
        else:
            self._begin(vip, now)

    def _begin(self, vip: Announcement, now: float) -> None:
        begun = _Round(vip, self._courses(vip))
        if begun.advance():
            self._rounds[vip] = begun
            self._wait(begun, now)
        else:
            self._rounds.pop(vip, None)

    def _wait(self, r: _Round, now: float) -> None:
        queue = self._queues.get(r.entry)
        if queue is None:
            queue = self._queues[r.entry] = _Queue(r.entry.throttle, now)
        if len(queue.waiting) > 2 * len(self._rounds):  # most were started over
            queue.waiting = deque(x for x in queue.waiting if self._rounds.get(x.vip) is x)
        queue.waiting.append(r)
        self._push(queue)

    def _push(self, queue: _Queue) -> None:
        if not queue.due:
            queue.due = True
            heapq.heappush(self._due, (queue.ready_at, next(self._numbers), queue))

    def next_due(self) -> float | None:
        """When `turn` has something to do next; None: nobody is being told."""
        return self._due[0][0] if self._due else None

    def turn(self, now: float) -> None:
        """Tell those whose time has come, as far as one turn of the loop allows."""
        budget = FRAMES_PER_TURN
        while budget > 0 and self._due and self._due[0][0] <= now:
            queue = heapq.heappop(self._due)[2]
            queue.due = False
            if not queue.waiting:
                continue
            r = queue.waiting.popleft()
            sent = 0
            if self._rounds.get(r.vip) is not r:
                pass  # it was started over
            elif not self._still(r.vip):
                del self._rounds[r.vip]
            else:
                sent, told = self._tell(r)
                queue.spend(max(1, sent), now)
                if not told or r.advance():
                    self._wait(r, now)
                elif r.again:
                    self._begin(r.vip, now)
                else:
                    del self._rounds[r.vip]
            if queue.waiting:
                self._push(queue)
            budget -= max(1, sent)

    def _tell(self, r: _Round) -> tuple[int, bool]:
        """Tell one host. Returns the frames that went out, and whether they were all."""
        sent = 0
        for frame in self._frames(r.vip, r.host, r.entry.ping):
            if sent and not self._still(r.vip):
                return sent, False
            if self._send(r.vip.interface, frame) is not None:
                self.failed += 1
                return sent, False
            sent += 1
            self.sent += 1
        return sent, True

    def __len__(self) -> int:
        return len(self._rounds)


# -- on the loop --------------------------------------------------------------------------------------------------------


class Listed:
    """Rounds and caches, on the loop; the kernel's table is read on `thread`. `around` and what is `guarded` say which hosts are
    behind which interface. `share` is given what the other members are to be told."""

    def __init__(
        self,
        notify: Notify,
        around: Surroundings,
        vips: Iterable[Vip],
        thread: ThreadPoolExecutor,
        *,
        still: Callable[[Announcement], bool],
        share: Callable[[Neighbours], None],
        on_unreadable: Callable[[str], None],
    ) -> None:
        self._notify = notify
        self._around = around
        self._thread = thread
        self._share = share
        self._on_unreadable = on_unreadable
        self._prefixes = {packed(a.ip): a.prefix for v in vips for a in v.addresses}
        self.known = Neighbourhood(KEPT_INTERVALS * notify.interval_s)
        self._sender = Sender()
        self._rounds = Rounds(self._courses, self._frames, self._sender.put, still)
        self._guarded: tuple[Guarded, ...] = ()
        self._heard = 0
        self._rtnl: Rtnl | None = None
        self._starting: dict[Announcement, Callable[[Announcement, float], None]] = {}
        self._begin: asyncio.TimerHandle | None = None
        self._turn: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None

    def start(self, guarded: tuple[Guarded, ...]) -> None:
        """Begin to read the caches, if there is anybody to tell."""
        self._guarded = guarded
        if self._notify.anybody and self._rtnl is None:
            self._rtnl = Rtnl()
            self._read()

    def reconfigure(self, notify: Notify, vips: Iterable[Vip]) -> None:
        """Another list. Who is being told now is told to the end by the old one."""
        if notify.interval_s != self._notify.interval_s:
            self.known = Neighbourhood(KEPT_INTERVALS * notify.interval_s)
        self._notify = notify
        self._prefixes = {packed(a.ip): a.prefix for v in vips for a in v.addresses}
        self.start(self._guarded)

    def guard(self, guarded: tuple[Guarded, ...]) -> None:
        """VIPs belong on these interfaces now."""
        self._guarded = guarded

    # -- whom to tell

    def acquired(self, vips: Iterable[Announcement]) -> None:
        """Tell the list of these: they are new here."""
        self._later({**self._starting, **dict.fromkeys(vips, self._rounds.start)})

    def announced(self, vips: Iterable[Announcement]) -> None:
        """Tell the list of these again; who is being told now is told to the end first."""
        self._later({**dict.fromkeys(vips, self._rounds.start_later), **self._starting})

    def _later(self, starting: dict[Announcement, Callable[[Announcement, float], None]]) -> None:
        if self._notify.anybody:
            self._starting = starting
            self._begin_after(START_SECONDS)

    def _begin_after(self, seconds: float) -> None:
        if self._starting and self._begin is None:
            self._begin = asyncio.get_running_loop().call_later(seconds, self._begin_some)

    def _begin_some(self) -> None:
        self._begin = None
        now = asyncio.get_running_loop().time()
        for vip in list(islice(self._starting, STARTS_PER_TURN)):
            self._starting.pop(vip)(vip, now)
        self._begin_after(0)
        self._arm()

    def _arm(self) -> None:
        due = self._rounds.next_due()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if due is not None:
            self._turn = asyncio.get_running_loop().call_at(due, self._go_on)

    def _go_on(self) -> None:
        self._turn = None
        self._rounds.turn(asyncio.get_running_loop().time())
        self._arm()

    def _courses(self, vip: Announcement) -> Iterator[Course]:
        """Single hosts first, then who is known, then networks, small ones first."""
        listed = dict.fromkeys((*self._notify.hosts, *self._notify.more.get(vip.ip, ())))
        index = next((g.index for g in self._guarded if g.name == vip.interface), None)
        links = self._around.networks_on(index) if index is not None else frozenset()
        prefix = self._prefixes.get(vip.ip, len(vip.ip) * 8)
        if prefix < len(vip.ip) * 8:
            links |= {network_of(vip.ip, prefix)}
        cache: list[Entry] = [self._notify.cache] if self._notify.cache is not None else []
        mine: list[Entry] = [h for h in listed if self._is_for(h, vip)]
        for entry in sorted(mine + cache, key=lambda e: 2 if isinstance(e, Cache) else e.network.num_addresses):
            if isinstance(entry, Cache):
                hosts = iter(self.known.on(vip.interface, len(vip.ip)))
            else:
                hosts = hosts_of(entry, links)
            yield entry, (ip for ip in hosts if not self._is_own(ip))

    def _is_for(self, hosts: HostsConfig, vip: Announcement) -> bool:
        here = not hosts.interface or self._around.name_of(hosts.interface) == vip.interface
        return here and hosts.network.max_prefixlen == len(vip.ip) * 8

    def _is_own(self, ip: bytes) -> bool:
        return ip in self._prefixes or any(a.ip == ip for a in self._around.foreign)

    def _frames(self, vip: Announcement, host: bytes, ping: bool) -> tuple[bytes, ...]:
        to_mac = self.known.mac_of(vip.interface, host)
        router = to_mac is not None and len(vip.ip) == 16 and forwards(vip.interface)
        return frames_for(vip.mac, vip.ip, host, to_mac, ping=ping, router=router)

    # -- who is known

    def _read(self) -> None:
        """Read the kernel's table on the thread, and again after the interval; not all members at once."""
        loop = asyncio.get_running_loop()
        apart = random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        self._look = loop.call_later(self._notify.interval_s * apart, self._read)
        assert self._rtnl is not None
        places = {g.index: (g.name, self._around.networks_on(g.index)) for g in self._guarded}
        found = loop.run_in_executor(self._thread, _read, self._rtnl, places, frozenset(self._prefixes))
        found.add_done_callback(self._has_read)

    def _has_read(self, found: asyncio.Future[dict[Host, bytes]]) -> None:
        if found.cancelled():
            return
        wrong = found.exception()
        if isinstance(wrong, OSError):
            self._on_unreadable(str(wrong))
            return
        self.known.read(found.result())
        if self._notify.cache is not None:
            names = {g.name: str(ip_address(min(g.ips))) for g in self._guarded if g.ips}
            self._share(self.known.message(names))

    def heard(self, said: Neighbours) -> None:
        """What another member knows; of that, what is in a subnet where its VIPs are here too."""
        if self._notify.cache is None:
            return
        self._heard += 1
        for segment in said.segments:
            vip = packed(segment.vip)
            for guarded in self._guarded:
                if vip in guarded.ips:
                    links = self._around.networks_on(guarded.index)
                    known = [(ip, mac) for ip, mac in segment.known if is_host(mac) and within(ip, links)]
                    self.known.heard(guarded.name, known)

    def describe(self) -> dict[str, int]:
        """For `status`: VIPs' addresses that the list is being told of, frames so far, how many neighbours are known, and how
        often other members have told theirs."""
        return {
            "under_way": len(self._rounds) + len(self._starting),
            "sent": self._rounds.sent,
            "failed": self._rounds.failed,
            "neighbours": len(self.known),
            "heard": self._heard,
        }

    def close(self) -> None:
        """Tell nobody anything more."""
        for timer in (self._begin, self._turn, self._look):
            if timer is not None:
                timer.cancel()
        self._starting.clear()
        self._sender.close()


def _read(
    rtnl: Rtnl, places: Mapping[int, tuple[str, frozenset[Network]]], vips: frozenset[bytes]
) -> dict[Host, bytes]:
    return own_neighbours(rtnl.neighbours(), places, vips)
