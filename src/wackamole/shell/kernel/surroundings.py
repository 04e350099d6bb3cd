"""The interfaces of this host, the addresses on them that are not ours, and what follows from both for the VIPs."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from ...core.model import ADDRESSES_MAX, Address, NotEligible, Vip
from .fence import Guarded
from .rtnl import IFF_LOOPBACK, IFF_UP, Link, Placed

Network = tuple[int, int, int]
"""Bytes of an address, prefix length, and the leading bits as a number."""

LINK_LOCAL = (16, 10, 0xFE80 >> 6)
GONE_SECONDS_MAX = 0.5
"""An interface that was deleted or set down may come back within this before its VIPs are given to others. A carrier that
is lost is not waited for."""


@lru_cache(maxsize=2 * ADDRESSES_MAX)  # all of them are asked for in turn: one too few would find none
def packed(ip: str) -> bytes:
    """An address as 4 or 16 bytes."""
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)


def network_of(ip: bytes, prefix: int) -> Network:
    """The network of an address."""
    return len(ip), prefix, int.from_bytes(ip) >> (len(ip) * 8 - prefix)


class Surroundings:
    """What this host looks like now. `link_up_delay_ms`: a carrier that came back counts only when it has been there for
    so long (`fresh` until then), so that the group can merge before this host takes anything (a cable plugged in again)."""

    def __init__(
        self, interfaces: Mapping[str, str], link_up_delay_ms: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interfaces = dict(interfaces)
        self._delay_s = link_up_delay_ms / 1000
        self._clock = clock
        self.links: dict[int, Link] = {}
        self.foreign: set[Placed] = set()
        self.fresh: dict[int, float] = {}
        """Interfaces whose carrier came back, and when it will count."""
        self.gone: dict[str, float] = {}
        """Interfaces that were deleted, and until when they are waited for."""

    def reconfigure(self, interfaces: Mapping[str, str], link_up_delay_ms: int) -> None:
        """Other names, and another delay for carriers that come back from now on."""
        self._interfaces = dict(interfaces)
        self._delay_s = link_up_delay_ms / 1000

    def read(self, links: Iterable[Link], addresses: Iterable[Placed]) -> None:
        """Forget everything and look anew; a carrier that was not there before is fresh."""
        before, first = self.links, not self.links
        self.links = {}
        for link in links:
            if first:
                self.links[link.index] = link
            else:
                self._put(link, before.get(link.index))
        for link in before.values():
            if link.index not in self.links:
                self._lost(link)
        self.foreign = {a for a in addresses if not a.ours}

    def changed(self, link: Link) -> None:
        """An interface is new or changed."""
        self._put(link, self.links.get(link.index))

    def removed(self, index: int) -> None:
        """An interface was deleted, with its addresses."""
        link = self.links.pop(index, None)
        if link is not None:
            self._lost(link)
        self.foreign = {a for a in self.foreign if a.index != index}

    def _put(self, link: Link, was: Link | None) -> None:
        self.links[link.index] = link
        if not link.carries:
            self.fresh.pop(link.index, None)
            if was is not None and was.carries and not link.flags & IFF_UP:
                self._lost(was)  # set down, or about to be deleted: it may be back in a moment
            return
        back = self.gone.pop(link.name, 0.0) > self._clock()
        if self._delay_s and not back and (was is None or not was.carries):
            self.fresh[link.index] = self._clock() + self._delay_s

    def _lost(self, link: Link) -> None:
        self.fresh.pop(link.index, None)
        if link.carries:
            self.gone[link.name] = self._clock() + GONE_SECONDS_MAX

    def mature(self, *, calm: bool) -> None:
        """Let carriers count that have been back for long enough, if the group is `calm`; give up what was waited for too
        long."""
        now = self._clock()
        if calm:
            self.fresh = {i: at for i, at in self.fresh.items() if at > now}
        self.gone = {name: at for name, at in self.gone.items() if at > now}

    def next_due(self) -> float | None:
        """When `mature` has something to do next (monotonic seconds)."""
        return min([*self.fresh.values(), *self.gone.values()], default=None)

    def waits_for(self, address: Address) -> bool:
        """Whether the interface of an address was deleted a moment ago, and may come back."""
        if address.interface:
            return self.name_of(address.interface) in self.gone
        return bool(self.gone) and self.locate(address) is None

    def locate(self, address: Address) -> Link | None:
        """The interface for an address: by its name (mapped, if the node maps it), or the one whose subnet holds it; of
        several the narrowest subnet's, then the first by number, so that a daemon that is started again finds the same."""
        if address.interface:
            name = self.name_of(address.interface)
            return next((link for link in self.links.values() if link.name == name), None)
        ip = packed(address.ip)
        best: tuple[tuple[int, int], Link] | None = None
        for a in self.foreign:
            link = self.links.get(a.index)
            if link is None or link.flags & IFF_LOOPBACK or len(a.ip) != len(ip) or a.ip == ip:
                continue
            rank = (a.prefix, -a.index)
            if network_of(ip, a.prefix) == network_of(a.ip, a.prefix) and (best is None or rank > best[0]):
                best = rank, link
        return best[1] if best is not None else None

    def name_of(self, interface: str) -> str:
        """This host's name for an interface of the config."""
        return self._interfaces.get(interface, interface)

    def networks_on(self, index: int) -> frozenset[Network]:
        """The subnets of the host's own addresses on an interface."""
        own = (a for a in self.foreign if a.index == index and a.prefix < len(a.ip) * 8)
        return frozenset(network_of(a.ip, a.prefix) for a in own)

    def source_for(self, target: bytes, link: Link) -> bytes | None:
        """An own address on an interface to ask for another as: IPv4 best of its subnet, IPv6 best link-local."""
        own = sorted(
            (a for a in self.foreign if a.index == link.index and len(a.ip) == len(target)), key=lambda a: a.ip
        )

        def suits(a: Placed) -> bool:
            if len(target) == 16:
                return network_of(a.ip, 10) == LINK_LOCAL
            return network_of(a.ip, a.prefix) == network_of(target, a.prefix)

        return max(own, key=suits).ip if own else None

    def why_not(self, vip: Vip) -> NotEligible | None:
        """Why this host cannot hold a VIP now, or None."""
        foreign = {a.ip for a in self.foreign}
        for address in vip.addresses:
            if packed(address.ip) in foreign:
                return NotEligible.FOREIGN_ADDRESS
            link = self.locate(address)
            if link is None:
                if self.waits_for(address):
                    continue
                return NotEligible.NO_INTERFACE
            if not link.carries and link.name not in self.gone:
                return NotEligible.LINK_DOWN
            if link.index in self.fresh:
                return NotEligible.LINK_FRESH
        return None

    # -- what has to be fenced --------------------------------------------------------------------------------------------

    def guarded(self, vips: Iterable[Vip]) -> tuple[Guarded, ...]:
        """The interfaces where VIPs have to be fenced, with those VIPs, by index: the one that a VIP belongs on, and every
        other one in the same segment, since Linux answers for any of its addresses on any interface (hazard 19)."""
        found: dict[int, set[bytes]] = {}
        networks = self._networks()
        for vip in vips:
            for address in vip.addresses:
                link = self.locate(address)
                if link is None:
                    continue
                for index in self._segment(link.index, networks):
                    found.setdefault(index, set()).add(packed(address.ip))
        return tuple(Guarded(i, self.links[i].name, frozenset(ips)) for i, ips in sorted(found.items()))

    def segment(self, index: int) -> set[int]:
        """The interfaces with a subnet of the same segment as this one, and itself."""
        return self._segment(index, self._networks())

    def _networks(self) -> dict[int, set[Network]]:
        found: dict[int, set[Network]] = {}
        for a in self.foreign:
            link = self.links.get(a.index)
            wide = a.prefix < len(a.ip) * 8 and network_of(a.ip, min(a.prefix, 10)) != LINK_LOCAL
            if link is not None and not link.flags & IFF_LOOPBACK and wide:
                found.setdefault(a.index, set()).add(network_of(a.ip, a.prefix))
        return found

    @staticmethod
    def _segment(index: int, networks: Mapping[int, set[Network]]) -> set[int]:
        mine = networks.get(index, set())
        return {index} | {other for other, theirs in networks.items() if mine & theirs}
