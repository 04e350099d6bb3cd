"""Who is known on the networks of the VIPs: this host's ARP and ND caches, and those of the other members.

Only what stands in a subnet of such an interface counts, and no VIP. What others say is advice and bounded: NEIGHBOURS_KEPT_MAX
in all, the oldest forgotten first; this host's own kernel knows better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice

from ...advice import NEIGHBOURS_MAX, SEGMENTS_MAX, Neighbours, Segment
from .rtnl import Neighbour
from .surroundings import Network, network_of

NEIGHBOURS_KEPT_MAX = 8192
"""Of each: of this host's own, and of the others'."""

Host = tuple[str, bytes]
"""The name of an interface, and an address behind it."""


def within(ip: bytes, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of them."""
    return any(size == len(ip) and network_of(ip, prefix) == (size, prefix, bits) for size, prefix, bits in networks)


def own_neighbours(
    found: Iterable[Neighbour], places: Mapping[int, tuple[str, frozenset[Network]]], vips: AbstractSet[bytes]
) -> dict[Host, bytes]:
    """What counts of a kernel's table, at most NEIGHBOURS_KEPT_MAX. `places`: name and subnets of interfaces, by number."""
    counting = (
        ((places[n.index][0], n.ip), n.mac)
        for n in found
        if n.index in places and is_host(n.mac) and n.ip not in vips and within(n.ip, places[n.index][1])
    )
    return dict(islice(counting, NEIGHBOURS_KEPT_MAX))


def is_host(mac: bytes) -> bool:
    """Whether it is one Ethernet host's address: six bytes, no group, not zero."""
    return len(mac) == 6 and not mac[0] & 1 and any(mac)


class Neighbourhood:
    """What is known. `kept_s`: what another member said counts for so long."""

    def __init__(self, kept_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept_s = kept_s
        self._clock = clock
        self._own: dict[Host, bytes] = {}
        self._said: dict[Host, tuple[bytes, float]] = {}
        self._listed: dict[tuple[str, int], tuple[bytes, ...]] = {}
        self._next = 0

    def read(self, own: dict[Host, bytes]) -> None:
        """This host's own cache, whole."""
        self._own = own
        self._listed.clear()

    def heard(self, interface: str, known: Iterable[tuple[bytes, bytes]]) -> None:
        """A member knows these behind the network of this interface."""
        now = self._clock()
        for ip, mac in known:
            self._said.pop((interface, ip), None)  # the newest last
            self._said[interface, ip] = mac, now
        for host in list(islice(self._said, max(0, len(self._said) - NEIGHBOURS_KEPT_MAX))):
            del self._said[host]
        self._listed.clear()

    def mac_of(self, interface: str, ip: bytes) -> bytes | None:
        """The hardware address of a host; this host's own kernel is asked first."""
        own = self._own.get((interface, ip))
        if own is not None:
            return own
        mac, at = self._said.get((interface, ip), (None, 0.0))
        return mac if mac is not None and self._clock() - at <= self._kept_s else None

    def on(self, interface: str, size: int) -> tuple[bytes, ...]:
        """Every known address of `size` bytes behind an interface; one list for all who go through it."""
        if (interface, size) not in self._listed:
            self._forget_old()
            known = dict.fromkeys((*self._own, *self._said))
            self._listed[interface, size] = tuple(ip for name, ip in known if name == interface and len(ip) == size)
        return self._listed[interface, size]

    def _forget_old(self) -> None:
        oldest = self._clock() - self._kept_s
        self._said = {host: (mac, at) for host, (mac, at) in self._said.items() if at >= oldest}

    def message(self, names: Mapping[str, str]) -> Neighbours:
        """What this host tells the others; of more than fit, the next ones each time. `names`: the VIP by which each
        interface's network is known to all."""
        own = [(name, ip, mac) for (name, ip), mac in sorted(self._own.items()) if name in names]
        start = self._next if self._next < len(own) else 0
        part = own[start : start + NEIGHBOURS_MAX]
        self._next = start + len(part)
        behind: dict[str, list[tuple[bytes, bytes]]] = {}
        for name, ip, mac in part:
            behind.setdefault(name, []).append((ip, mac))
        return Neighbours(tuple(_segments(behind, names)))

    def __len__(self) -> int:
        return len(dict.fromkeys((*self._own, *self._said)))


def _segments(behind: Mapping[str, list[tuple[bytes, bytes]]], names: Mapping[str, str]) -> Iterator[Segment]:
    for name, known in islice(behind.items(), SEGMENTS_MAX):
        yield Segment(names[name], tuple(known))
