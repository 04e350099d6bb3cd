"""The fence: the kernel lets a VIP's traffic pass only while this daemon lives and is in good standing.

Two nftables tables in the netdev family, with chains on every interface that is guarded:

* the **gate** stays when the process dies. What carries our mark passes, and loses the mark; otherwise IP traffic between
  the VIPs and this host, ARP that gives one of them as its sender, and their neighbour advertisements are dropped.
* the **key** belongs to a socket of the daemon, and the kernel removes it when that closes. It sets the mark while one
  element per interface, with a timeout of `lease` milliseconds, is alive.

The element is renewed by a private frame that the key's egress chain swallows (5 µs, no lock); a second kind of frame
removes it. The kernel's own timeout does the rest: nobody has to run for a host to fall silent. Private frames carry a
secret, since a container with a macvlan on the interface sends through the same hook.

Only what this host itself takes in or sends is gated: `fib` asks whether the VIP is a local address at this moment. So a
host that routes goes on forwarding to VIPs that others hold, although it is dark itself, and every VIP may be guarded
on every interface: Linux answers for an address through all of them (hazard 19). ARP and solicitations come in as ever,
so that a dark host still learns who has an address now.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from ..clock import boottime_ms
from . import nfnetlink as nft
from .nfnetlink import NFPROTO_NETDEV, Message, Nftables, NftablesError

GATE, KEY = "wackamole_gate", "wackamole_key"
PRIORITY_KEY, PRIORITY_GATE = -500, -499  # before any firewall: people give netdev chains higher ones
MARK_DEFAULT = 0x10000000
LEASE = "lease"
INGRESS, EGRESS = 0, 1  # NF_NETDEV_*
RENEW, SHUT = 0x88B5, 0x88B6  # IEEE 802: local experimental ethertypes
SECRET_BYTES = 16
CARRIED_MS_MAX = 30
"""A lease that is carried over into new tables would last as much longer as their installation takes."""
IPV4, ARP, IPV6 = b"\x08\x00", b"\x08\x06", b"\x86\xdd"
ICMPV6, NEIGHBOUR_ADVERTISEMENT = b"\x3a", b"\x88"


class FenceRefused(Exception):
    """This kernel cannot fence, or somebody else does here already; the sentence says which."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """An interface, and the addresses that nobody is to reach through it by this host while the key is shut."""

    index: int
    name: str
    ips: frozenset[bytes]


def private_frame(ethertype: int, secret: bytes) -> bytes:
    """A frame of the least length that never leaves: the key's egress chain takes it."""
    return b"\0" * 12 + struct.pack("!H", ethertype) + secret + b"\0" * (46 - SECRET_BYTES)


def _when(protocol: bytes, *rest: bytes) -> tuple[bytes, ...]:
    """Go on only with this protocol (an ethertype), and then with the rest."""
    return nft.meta(nft.META_PROTOCOL), nft.equals(protocol), *rest


def _field(offset: int, length: int) -> bytes:
    return nft.payload(nft.BASE_NETWORK, offset, length)


def gate(guarded: Guarded, mark: int, first_set: int, *, fib: bool) -> list[Message]:
    """The gate's part for one interface. Names go by the interface's index: its name need not be one that nft(8) can
    read. Without `fib` (a kernel without NFT_FIB_NETDEV) forwarded packets to and from VIPs are dropped as well."""
    family, index = NFPROTO_NETDEV, guarded.index
    v4, v6, come, go = f"v4_{index}", f"v6_{index}", f"in_{index}", f"out_{index}"

    def rule(chain: str, *expressions: bytes) -> Message:
        return nft.rule(family, GATE, chain, *expressions)

    def pass_marked(chain: str) -> Message:
        bit = struct.pack("=I", mark)
        mine = (nft.meta(nft.META_MARK), nft.mask_and_flip(mark, 0), nft.equals(bit))
        clear = (nft.meta(nft.META_MARK), nft.mask_and_flip(0xFFFFFFFF ^ mark, 0), nft.set_mark())
        return rule(chain, *mine, *clear, nft.verdict(nft.ACCEPT))

    def drop_local(chain: str, asked: tuple[int, ...], protocol: bytes, address: bytes, vips: str) -> list[Message]:
        found = _when(protocol, address, nft.lookup(vips))
        if not fib:
            return [rule(chain, *found, nft.verdict(nft.DROP))]
        local = nft.equals(struct.pack("=I", nft.RTN_LOCAL))
        return [rule(chain, *found, nft.fib_type(flags), local, nft.verdict(nft.DROP)) for flags in asked]

    to = (nft.FIB_DADDR, nft.FIB_DADDR | nft.FIB_IIF)  # in a VRF it is local only to who asks with the interface
    of = (nft.FIB_SADDR,)  # older kernels refuse FIB_OIF here: what starts in a VRF of a dark host by itself may go out

    return [
        nft.make_set(family, GATE, v4, first_set, nft.TYPE_IPV4, 4),
        nft.make_set(family, GATE, v6, first_set + 1, nft.TYPE_IPV6, 16),
        *nft.elements(family, GATE, v4, sorted(ip for ip in guarded.ips if len(ip) == 4)),
        *nft.elements(family, GATE, v6, sorted(ip for ip in guarded.ips if len(ip) == 16)),
        nft.chain(family, GATE, come, INGRESS, PRIORITY_GATE, guarded.name),
        nft.chain(family, GATE, go, EGRESS, PRIORITY_GATE, guarded.name),
        pass_marked(come),
        *drop_local(come, to, IPV4, _field(16, 4), v4),  # destination (RFC 791)
        *drop_local(come, to, IPV6, _field(24, 16), v6),  # destination (RFC 8200)
        pass_marked(go),
        rule(go, *_when(ARP, _field(14, 4), nft.lookup(v4), nft.verdict(nft.DROP))),  # sender's address (RFC 826)
        rule(  # an advertisement's target (RFC 4861, 4.4)
            go,
            *_when(IPV6, _field(6, 1), nft.equals(ICMPV6), _field(40, 1), nft.equals(NEIGHBOUR_ADVERTISEMENT)),
            _field(48, 16),
            nft.lookup(v6),
            nft.verdict(nft.DROP),
        ),
        *drop_local(go, of, IPV4, _field(12, 4), v4),  # source
        *drop_local(go, of, IPV6, _field(8, 16), v6),
    ]


def key(guarded: Guarded, mark: int, lease_ms: int, secret: bytes) -> list[Message]:
    """The key's part for one interface."""
    family = NFPROTO_NETDEV
    come, go = f"in_{guarded.index}", f"out_{guarded.index}"
    drop = nft.verdict(nft.DROP)

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

    def swallow(ethertype: int, *then: bytes) -> Message:
        frame = _when(struct.pack("!H", ethertype), _field(0, SECRET_BYTES), nft.equals(secret))
        return nft.rule(family, KEY, go, *frame, *then, drop)

    return [
        nft.chain(family, KEY, come, INGRESS, PRIORITY_KEY, guarded.name),
        nft.chain(family, KEY, go, EGRESS, PRIORITY_KEY, guarded.name),
        allow(come, nft.META_IIF),
        swallow(RENEW, nft.meta(nft.META_OIF), nft.change_element(LEASE, nft.DYNSET_UPDATE, lease_ms)),
        swallow(SHUT, nft.meta(nft.META_OIF), nft.change_element(LEASE, nft.DYNSET_DELETE)),
        swallow(SHUT),  # a removal of what is not there ends its rule before the verdict
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
        self._secret = os.urandom(SECRET_BYTES)
        self._handles: dict[tuple[str, str], int] = {}
        self._owner = Nftables(high=True, descriptor=owner)
        self._persist = nft.OWNER | nft.PERSIST
        self._fib = True
        self.renewed_ms: int | None = None
        """CLOCK_BOOTTIME of the last renewal; None while shut."""
        if owner is not None and until_ms is not None:
            self.renewed_ms = until_ms - lease_ms
            return  # the tables are there, and open until then
        try:
            self.install(())
        except NftablesError as wrong:
            foreign = wrong.errno == errno.EPERM and may_look(self._owner)
            self._owner.close()
            if foreign:
                raise FenceRefused(
                    "somebody else's fence is here: does another wackamole run in this network namespace?"
                ) from None
            if wrong.errno == errno.EPERM:
                raise FenceRefused("the fence needs the right to configure the network (CAP_NET_ADMIN)") from None
            raise FenceRefused(f"this kernel cannot fence by nftables: {wrong.strerror}") from None

    def fileno(self) -> int:
        """The owner's descriptor: above every engine's (hazard 5)."""
        return self._owner.fileno()

    # -- the tables ---------------------------------------------------------------------------------------------------

    def install(self, guarded: tuple[Guarded, ...]) -> None:
        """Make both tables anew for exactly these interfaces, in one batch; a lease that runs goes on. An interface that
        cannot be fenced is left out, and `why_not` says so. Raises NftablesError if nothing can be done."""
        wanted, missing = list(guarded), dict[int, str]()
        replaced = False
        while True:
            began_ms, renewed_ms = boottime_ms(), self.renewed_ms
            left_ms = 0 if renewed_ms is None else renewed_ms + self.lease_ms - began_ms
            batch = [*nft.anew(NFPROTO_NETDEV, GATE, self._persist), *nft.anew(NFPROTO_NETDEV, KEY, nft.OWNER)]
            batch.append(nft.make_set(NFPROTO_NETDEV, KEY, LEASE, 1, nft.TYPE_IFINDEX, 4, timeout_ms=self.lease_ms))
            whose: list[Guarded | None] = [None] * len(batch)
            for n, g in enumerate(wanted):
                batch += gate(g, self._mark, 2 + 2 * n, fib=self._fib)
                batch += key(g, self._mark, self.lease_ms, self._secret)
                if left_ms > 0:
                    batch.append(nft.timed_element(NFPROTO_NETDEV, KEY, LEASE, struct.pack("=I", g.index), left_ms))
                whose += [g] * (len(batch) - len(whose))
            try:
                self._owner.commit(batch)
                break
            except NftablesError as wrong:
                if wrong.at is None:
                    raise
                bad, kind = whose[wrong.at], batch[wrong.at][0]
                if bad is None and wrong.errno == errno.EINVAL and self._persist:
                    self._persist = 0  # Linux < 6.9: without an owner it stays as well, but anybody may flush it
                elif bad is None and wrong.errno == errno.EOPNOTSUPP and not replaced:
                    replaced = True  # a plain table does not become an owned one: away with it first
                    for name in (GATE, KEY):
                        remove_table(self._owner, name)
                elif bad is not None and kind == nft.NEWRULE and wrong.errno == errno.ENOENT and self._fib:
                    self._fib = False
                elif bad is not None:
                    missing[bad.index] = str(wrong.strerror)
                    wanted.remove(bad)
                else:
                    raise
        with self._sending:
            self._guarded = {g.index: g for g in wanted}
            for g in wanted:
                if self._frame_socket(g) is None:  # newer kernels let a chain wait for an interface
                    missing[g.index] = "there is no such interface"
        self._missing = missing
        if not self._carried(began_ms):
            self._send(SHUT)  # what was carried over is not true any more; the next beat opens it again
            self._end_what_is_left()
        self._handles = self._look()

    def _carried(self, began_ms: int) -> bool:
        """Whether the lease that was carried over then is true. Making chains may wait for long; elements alone do not."""
        if self.renewed_ms is not None and boottime_ms() - began_ms > CARRIED_MS_MAX:
            began_ms = boottime_ms()
            left_ms = self.renewed_ms + self.lease_ms - began_ms
            if left_ms > 0:
                self._set_lease(left_ms)
        return self.renewed_ms is not None and boottime_ms() - began_ms <= CARRIED_MS_MAX

    def _set_lease(self, left_ms: int) -> None:
        keys = [struct.pack("=I", index) for index in self._guarded]
        batch = [nft.no_elements(NFPROTO_NETDEV, KEY, LEASE)]
        batch += [nft.timed_element(NFPROTO_NETDEV, KEY, LEASE, k, left_ms) for k in keys]
        self._owner.commit(batch)

    def change(self, guarded: tuple[Guarded, ...]) -> None:
        """Fence exactly these from now on, where the tables are intact: if only addresses come and go the tables stay, and nobody
        notices; else as `install`, and raises what that raises."""
        if not self._change_addresses(guarded):
            self.install(guarded)

    def _change_addresses(self, guarded: tuple[Guarded, ...]) -> bool:
        """Add and remove addresses in the tables that are there. False if that is not enough."""
        before = self._guarded
        if {g.index: g.name for g in guarded} != {g.index: g.name for g in before.values()}:
            return False
        batch: list[Message] = []
        for g in guarded:
            for length, name in ((4, f"v4_{g.index}"), (16, f"v6_{g.index}")):
                now, then = ({ip for ip in x.ips if len(ip) == length} for x in (g, before[g.index]))
                batch += nft.elements(NFPROTO_NETDEV, GATE, name, sorted(now - then))
                batch += nft.elements(NFPROTO_NETDEV, GATE, name, sorted(then - now), remove=True)
        try:
            if batch:
                self._owner.commit(batch)
        except NftablesError:
            return False
        with self._sending:
            self._guarded = {g.index: g for g in guarded}
        return True

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
        """Whether both tables are as we made them. Also ends a lease that outlived `shut`."""
        if self.renewed_ms is None:
            self._end_what_is_left()
        return self._look() == self._handles and len(self._handles) == 4 * len(self._guarded)

    def _end_what_is_left(self) -> None:
        """An interface that is down takes no frame, and may be up again before its lease ends."""
        if self._left():
            self._owner.commit([nft.no_elements(NFPROTO_NETDEV, KEY, LEASE)])

    def why_not(self, index: int) -> str | None:
        """Why an interface is not fenced, or None."""
        return self._missing.get(index, None if index in self._guarded else "not fenced yet")

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
        frame = private_frame(ethertype, self._secret)
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
        self._set_lease(max(1, left_ms))
        if boottime_ms() > until_ms - left_ms + CARRIED_MS_MAX:  # the lock was held by others for so long
            self.extend(until_ms)

    def shut(self) -> bool:
        """Let nothing pass from now on. Takes microseconds and no lock. False where an interface took no frame, because it
        is down: `intact` ends its lease, too, which may wait for the lock."""
        self.renewed_ms = None
        return self._send(SHUT) >= self._guarded.keys()

    def left_ms(self, interfaces: Iterable[int] | None = None) -> int:
        """Milliseconds that the lease has still to run, as the kernel says it, the least of these interfaces (default: of
        all); 0: shut."""
        left = self._left()
        return min((left.get(index, 0) for index in (self._guarded if interfaces is None else interfaces)), default=0)

    def _left(self) -> dict[int, int]:
        """Milliseconds left by interface, of those that have any."""
        found: dict[int, int] = {}
        for body in self._owner.ask(nft.GETSETELEM, NFPROTO_NETDEV, nft.text(1, KEY) + nft.text(2, LEASE), dump=True):
            for listed in nft.listed(nft.attributes(body).get(3, b"")):
                element = nft.attributes(listed)
                index = nft.attributes(element.get(1, b"")).get(1, b"")
                found[int.from_bytes(index, sys.byteorder)] = int.from_bytes(element.get(5, b""))
        return found

    def close(self) -> None:
        """Shut, and remove both tables."""
        self.shut()
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


def may_look(nftables: Nftables) -> bool:
    """Whether we have the right to ask nftables anything (CAP_NET_ADMIN)."""
    try:
        nftables.ask(nft.GETTABLE, NFPROTO_NETDEV, nft.text(1, KEY))
    except NftablesError:
        return False
    return True
