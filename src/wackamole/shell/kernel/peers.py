"""Keeping the other nodes' hardware addresses, so that a ring can merge again at once (neighbour(7), rtnetlink(7)).

When a cable is pulled Linux forgets the neighbours of that interface; what the ring sends goes on asking for them, once a
second, and after the third time the sender is told "host unreachable". Corosync's knet then counts the link as down, also
when the cable is in again by then and the ring has just merged: it throws away what comes from there, and the ring breaks
anew, with two owners for whatever the halves take over (measured: four of five pulls of 3 s; docs/decisions/0006-…).
A partition does the same to entries that grow old, after half a minute.

So the addresses that were known while a node was a member are written back, when they were forgotten and as long as it
is away, for KEPT_SECONDS_MAX. What the kernel has learnt meanwhile is never overwritten.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterable

from .rtnl import Neighbour, Rtnl

TOUCH_SECONDS = 5.0
"""An entry that was written counts as reachable for 15 s at least (base_reachable_time / 2)."""
KEPT_SECONDS_MAX = 600.0
"""Then a node that is away is asked for as usual: frames to a dead host's address are flooded by switches."""


class Peers:
    """The neighbour entries of `addresses`, the other nodes' own. `look` lists and writes entries; used from one thread."""

    def __init__(self, look: Rtnl, addresses: Iterable[bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._addresses = frozenset(addresses)
        self._clock = clock
        self._known: dict[tuple[int, bytes], bytes] = {}
        self._away: dict[bytes, float] = {}

    def reconfigure(self, addresses: Iterable[bytes]) -> None:
        """Other nodes."""
        self._addresses = frozenset(addresses)
        self._known = {key: mac for key, mac in self._known.items() if key[1] in self._addresses}
        self._away = {a: since for a, since in self._away.items() if a in self._addresses}

    def present(self, addresses: Iterable[bytes]) -> None:
        """The nodes with these addresses are members; the others are away."""
        here = frozenset(addresses)
        now = self._clock()
        self._away = {a: self._away.get(a, now) for a in self._addresses - here}
        self.touch()

    def forgotten(self, index: int) -> None:
        """An interface lost its carrier, and with it all that was known there."""
        self._write({key: mac for key, mac in self._known.items() if key[0] == index})

    def touch(self) -> None:
        """Learn what the kernel knows; write what it no longer knows of those that are away."""
        now = self._clock()
        found = {(n.index, n.ip): n.mac for n in self._entries() if n.mac}
        self._known |= found
        late = {a for a, since in self._away.items() if now - since <= KEPT_SECONDS_MAX}
        self._write({key: found.get(key, mac) for key, mac in self._known.items() if key[1] in late})

    def _entries(self) -> list[Neighbour]:
        return [n for n in self._look.neighbours() if n.ip in self._addresses]

    def _write(self, entries: dict[tuple[int, bytes], bytes]) -> None:
        refused = self._look.confirm([Neighbour(index, ip, mac) for (index, ip), mac in sorted(entries.items())])
        for neighbour, code in refused.items():
            if code in (errno.ENODEV, errno.ENXIO):
                self._known.pop((neighbour.index, neighbour.ip), None)


def packed_addresses(addresses: Iterable[str]) -> frozenset[bytes]:
    """Addresses as 4 or 16 bytes."""
    return frozenset(socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in addresses)
