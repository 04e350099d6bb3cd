"""The fence: the kernel lets a VIP's traffic pass only while this daemon lives and is in good standing.

Two nftables tables in the netdev family, with chains on every interface that has VIPs:

* the **gate** stays when the process dies. What carries our mark passes, and loses the mark; otherwise IP traffic to and
  from the VIPs of that interface, ARP that gives one of them as its sender, and their neighbour advertisements are dropped.
* the **key** belongs to a socket of the daemon, and the kernel removes it when that closes. It sets the mark while one
  element per interface, with a timeout of `lease` milliseconds, is alive.

The element is renewed by a private frame that the key's egress chain swallows (5 µs, no lock); a second kind of frame
removes it. The kernel's own timeout does the rest: nobody has to run for a host to fall silent.

Only what this host sends is gated, and what is addressed to its VIPs of that interface; ARP and solicitations come in
as ever, so that a dark host still learns who has an address now. Forwarded traffic to other hosts' VIPs is not touched:
it is neither addressed to us when it comes in on another interface, nor has it a VIP as its sender when it leaves here.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from . import nfnetlink as nft
from .nfnetlink import NFPROTO_NETDEV, Message, Nftables, NftablesError

GATE, KEY = "wackamole_gate", "wackamole_key"
PRIORITY_KEY, PRIORITY_GATE = (
    -500,
    -499,
)  # before any firewall: the lowest that netdev chains are given by people is higher
MARK_DEFAULT = 0x10000000
LEASE = "lease"
INGRESS, EGRESS = 0, 1  # NF_NETDEV_*
RENEW, SHUT = 0x88B5, 0x88B6  # IEEE 802: local experimental ethertypes
CARRIED_MS_MAX = 30
"""A lease that is carried over into new tables would last as much longer as their installation takes."""
IPV4, ARP, IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"


class FenceRefused(Exception):
    """This kernel cannot fence, or somebody else does here already; the sentence says which."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """An interface and its VIPs."""

    index: int
    name: str
    ips: frozenset[bytes]


def private_frame(ethertype: int) -> bytes:
    """A frame of the least length that never leaves: the key's egress chain takes it."""
    return b"\0" * 12 + struct.pack("!H", ethertype) + b"\0" * 46


def gate(guarded: Guarded, mark: int, first_set: int) -> list[Message]:
    """The gate's part for one interface."""
    v4, v6 = f"v4_{guarded.name}", f"v6_{guarded.name}"
    come, go = f"in_{guarded.name}", f"out_{guarded.name}"
    family = NFPROTO_NETDEV
    bit = struct.pack("=I", mark)
    marked = (
        nft.meta(nft.META_MARK),
        nft.mask_and_flip(mark, 0),
        nft.equals(bit),
        nft.meta(nft.META_MARK),
        nft.mask_and_flip(0xFFFFFFFF ^ mark, 0),
        nft.set_mark(),
        nft.verdict(nft.ACCEPT),
    )

    def drop(chain: str, protocol: bytes, offset: int, length: int, members: str) -> Message:
        return nft.rule(
            family,
            GATE,
            chain,
            nft.meta(nft.META_PROTOCOL),
            nft.equals(protocol),
            nft.payload(nft.BASE_NETWORK, offset, length),
            nft.lookup(members),
            nft.verdict(nft.DROP),
        )

    return [
        nft.make_set(family, GATE, v4, first_set, nft.TYPE_IPV4, 4),
        nft.make_set(family, GATE, v6, first_set + 1, nft.TYPE_IPV6, 16),
        *nft.elements(family, GATE, v4, sorted(ip for ip in guarded.ips if len(ip) == 4)),
        *nft.elements(family, GATE, v6, sorted(ip for ip in guarded.ips if len(ip) == 16)),
        nft.chain(family, GATE, come, INGRESS, PRIORITY_GATE, guarded.name),
        nft.chain(family, GATE, go, EGRESS, PRIORITY_GATE, guarded.name),
        nft.rule(family, GATE, come, *marked),
        drop(come, IPV4, 16, 4, v4),  # destination (RFC 791)
        drop(come, IPV6, 24, 16, v6),  # destination (RFC 8200)
        nft.rule(family, GATE, go, *marked),
        drop(go, ARP, 14, 4, v4),  # sender protocol address (RFC 826)
        drop(go, IPV4, 12, 4, v4),  # source
        drop(go, IPV6, 8, 16, v6),  # source; a neighbour advertisement of a VIP has the VIP as its source
    ]


def key(guarded: Guarded, mark: int, lease_ms: int) -> list[Message]:
    """The key's part for one interface."""
    family = NFPROTO_NETDEV
    come, go = f"in_{guarded.name}", f"out_{guarded.name}"

    def allow(chain: str, interface: int) -> Message:
        return nft.rule(
            family,
            KEY,
            chain,
            nft.meta(interface),
            nft.lookup(LEASE),
            nft.meta(nft.META_MARK),
            nft.mask_and_flip(0xFFFFFFFF ^ mark, mark),
            nft.set_mark(),
        )

    def swallow(ethertype: int, operation: int) -> Message:
        return nft.rule(
            family,
            KEY,
            go,
            nft.meta(nft.META_PROTOCOL),
            nft.equals(struct.pack("!H", ethertype)),
            nft.meta(nft.META_OIF),
            nft.change_element(LEASE, operation, lease_ms if operation == nft.DYNSET_UPDATE else 0),
            nft.verdict(nft.DROP),
        )

    def drop_rest(ethertype: int) -> Message:  # a removal of what is not there ends its rule before the verdict
        return nft.rule(
            family,
            KEY,
            go,
            nft.meta(nft.META_PROTOCOL),
            nft.equals(struct.pack("!H", ethertype)),
            nft.verdict(nft.DROP),
        )

    return [
        nft.chain(family, KEY, come, INGRESS, PRIORITY_KEY, guarded.name),
        nft.chain(family, KEY, go, EGRESS, PRIORITY_KEY, guarded.name),
        allow(come, nft.META_IIF),
        swallow(RENEW, nft.DYNSET_UPDATE),
        swallow(SHUT, nft.DYNSET_DELETE),
        drop_rest(SHUT),
        allow(go, nft.META_OIF),
    ]


class Fence:
    """The two tables and the sockets that renew the key. `lease_ms`: how long the kernel lets VIPs pass after a renewal.
    Raises FenceRefused when it is made, if this kernel cannot."""

    def __init__(
        self, lease_ms: int, mark: int = MARK_DEFAULT, *, owner: int | None = None, until_ms: int | None = None
    ) -> None:
        self.lease_ms = lease_ms
        self._mark = mark
        self._guarded: dict[int, Guarded] = {}
        self._frames: dict[int, socket.socket] = {}
        self._sending = threading.Lock()  # renewed on the loop's thread, installed on another
        self._missing: dict[int, str] = {}
        self._handles: dict[tuple[str, str], int] = {}
        self._owner = Nftables(high=True, descriptor=owner)
        self._persist = nft.OWNER | nft.PERSIST
        self.renewed_ms: int | None = None
        """CLOCK_BOOTTIME of the last renewal; None while shut."""
        if owner is not None and until_ms is not None:
            self.renewed_ms = until_ms - lease_ms
            return  # the tables are there, and open until then
        try:
            self.install(())
        except NftablesError as wrong:
            self._owner.close()
            if wrong.errno == errno.EPERM:
                raise FenceRefused(
                    "somebody else's fence is here: does another wackamole run in this network namespace?"
                ) from None
            raise FenceRefused(f"this kernel cannot fence by nftables: {wrong.strerror}") from None

    def fileno(self) -> int:
        """The owner's descriptor: above every engine's (hazard 5)."""
        return self._owner.fileno()

    # -- the tables ---------------------------------------------------------------------------------------------------

    def install(self, guarded: tuple[Guarded, ...]) -> None:
        """Make both tables anew for exactly these interfaces, in one batch; a lease that runs goes on. An interface that
        cannot be fenced is left out, and `why_not` says so. Raises NftablesError if nothing can be done."""
        self._missing = {}
        wanted = list(guarded)
        while True:
            began_ms = boottime_ms()
            try:
                self._install(wanted)
                break
            except NftablesError as wrong:
                if not wanted or wrong.errno == errno.EPERM:
                    raise
                bad = self._first_refused(wanted)
                if bad is None:
                    raise
                self._missing[bad.index] = wrong.strerror or "refused"
                wanted.remove(bad)
        self._guarded = {g.index: g for g in wanted}
        if self.renewed_ms is None or boottime_ms() - began_ms > CARRIED_MS_MAX:
            self._send(SHUT)  # what was carried over is not true any more; the next beat opens it again
        self._handles = self._look()

    def _first_refused(self, wanted: list[Guarded]) -> Guarded | None:
        for g in wanted:
            try:
                self._install([g])
            except NftablesError:
                return g
        return None

    def _install(self, guarded: list[Guarded]) -> None:
        renewed_ms = self.renewed_ms
        left_ms = 0 if renewed_ms is None else renewed_ms + self.lease_ms - boottime_ms()
        batch = [*nft.anew(NFPROTO_NETDEV, GATE, self._persist), *nft.anew(NFPROTO_NETDEV, KEY, nft.OWNER)]
        batch.append(nft.make_set(NFPROTO_NETDEV, KEY, LEASE, 1, nft.TYPE_IFINDEX, 4, timeout_ms=self.lease_ms))
        for n, g in enumerate(guarded):
            batch += gate(g, self._mark, 2 + 2 * n)
            batch += key(g, self._mark, self.lease_ms)
            if left_ms > 0:
                batch.append(nft.timed_element(NFPROTO_NETDEV, KEY, LEASE, struct.pack("=I", g.index), left_ms))
        try:
            self._owner.commit(batch)
        except NftablesError as wrong:
            if wrong.errno == errno.EOPNOTSUPP:  # a plain table does not become an owned one: away with it first
                for name in (GATE, KEY):
                    remove_table(self._owner, name)
            elif wrong.errno == errno.EINVAL and self._persist & nft.PERSIST:
                self._persist = 0  # Linux < 6.9: without an owner it stays as well, but anybody may flush it
            else:
                raise
            batch[:6] = [*nft.anew(NFPROTO_NETDEV, GATE, self._persist), *nft.anew(NFPROTO_NETDEV, KEY, nft.OWNER)]
            self._owner.commit(batch)

    def _look(self) -> dict[tuple[str, str], int]:
        """The chains of our tables, with their handles."""
        found: dict[tuple[str, str], int] = {}
        for body in self._owner.ask(nft.GETCHAIN, NFPROTO_NETDEV, b"", dump=True):
            seen = nft.attributes(body)
            where = seen.get(1, b"").rstrip(b"\0").decode(errors="replace")
            if where in (GATE, KEY):
                found[where, seen.get(3, b"").rstrip(b"\0").decode(errors="replace")] = int.from_bytes(seen.get(2, b""))
        return found

    def intact(self) -> bool:
        """Whether both tables are as we made them."""
        return self._look() == self._handles and len(self._handles) == 4 * len(self._guarded)

    def why_not(self, index: int) -> str | None:
        """Why an interface is not fenced, or None."""
        if index in self._guarded:
            return None
        return self._missing.get(index, "not fenced yet")

    # -- the lease ------------------------------------------------------------------------------------------------------

    def _frame_socket(self, g: Guarded) -> socket.socket | None:
        found = self._frames.get(g.index)
        if found is None:
            try:
                found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
                found.bind((g.name, 0))
                found.setblocking(False)
            except OSError:
                return None
            self._frames[g.index] = found
        return found

    def _send(self, ethertype: int) -> set[int]:
        """Send a private frame everywhere; returns the interfaces whose chain took it."""
        took: set[int] = set()
        frame = private_frame(ethertype)
        with self._sending:
            guarded = self._guarded
            for index in self._frames.keys() - guarded.keys():
                self._frames.pop(index).close()
            for index, g in guarded.items():
                s = self._frame_socket(g)
                if s is None:
                    continue
                try:
                    s.send(frame)
                except OSError as wrong:
                    if wrong.errno == errno.ENOBUFS:
                        took.add(index)
                    elif wrong.errno == errno.ENXIO:  # the interface is gone: a new one has a new socket
                        self._frames.pop(index).close()
        return took

    def renew(self, now_ms: int) -> set[int]:
        """Let the VIPs pass for `lease_ms` from now. Returns the interfaces where the fence took it: on another one it is
        gone, or the interface is down."""
        took = self._send(RENEW)
        self.renewed_ms = now_ms
        return took

    def extend(self, until_ms: int) -> None:
        """Let the VIPs pass until then, with nobody to renew. Waits for nftables' lock; raises NftablesError."""
        left_ms = until_ms - boottime_ms()
        keys = [struct.pack("=I", index) for index in self._guarded]
        batch = [nft.no_elements(NFPROTO_NETDEV, KEY, LEASE)]
        batch += [nft.timed_element(NFPROTO_NETDEV, KEY, LEASE, k, max(1, left_ms)) for k in keys]
        self._owner.commit(batch)
        if boottime_ms() > until_ms - left_ms + CARRIED_MS_MAX:  # the lock was held by others for so long
            self.extend(until_ms)

    def shut(self) -> None:
        """Let nothing pass from now on. Takes microseconds and no lock."""
        self.renewed_ms = None
        self._send(SHUT)

    def left_ms(self, interfaces: Iterable[int] | None = None) -> int:
        """Milliseconds that the lease has still to run, as the kernel says it, the least of these interfaces (default: of
        all); 0: shut."""
        least: int | None = None
        for index in self._guarded if interfaces is None else interfaces:
            keyed = nft.nested(1, nft.nested(1, nft.attribute(1, struct.pack("=I", index))))
            body = nft.text(1, KEY) + nft.text(2, LEASE) + nft.nested(3, keyed)
            try:
                answers = self._owner.ask(nft.GETSETELEM, NFPROTO_NETDEV, body)
            except NftablesError:
                return 0
            left = 0
            for answer in answers:
                listed = nft.attributes(nft.attributes(answer).get(3, b"")).get(1, b"")
                left = int.from_bytes(nft.attributes(listed).get(5, b""))
            least = left if least is None else min(least, left)
        return least or 0

    def close(self, *, keep_gate: bool = False) -> None:
        """Shut, and remove both tables; with `keep_gate` what is still on the interfaces stays dark."""
        self.shut()
        if not keep_gate:
            remove_table(self._owner, GATE)
        self._guarded = {}
        self._send(SHUT)  # closes the sockets
        self._owner.close()


def remove_table(nftables: Nftables, name: str) -> bool:
    """Remove one of our tables. Returns whether there was one. Raises NftablesError where it has another owner."""
    try:
        nftables.commit([nft.no_table(NFPROTO_NETDEV, name)])
    except NftablesError as wrong:
        if wrong.errno != errno.ENOENT:
            raise
        return False
    return True


def boottime_ms() -> int:
    """CLOCK_BOOTTIME in milliseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
