"""Telling neighbours where an address is: gratuitous ARP (RFC 5227, RFC 826) and unsolicited neighbour advertisements
(RFC 4861, 7.2.6).

Two ARP forms are sent, because Linux ignores an update of an entry younger than a second (locktime) unless it is a
request with sender = target, or a reply whose target hardware address equals the sender's. The schedule repeats: 8 ms
because a fresh IPv6 address joins its solicited-node group a moment later; 1.1 s and 3 s because the old owner's last
frame may have come after ours, within the second in which entries are locked.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SCHEDULE_MS = (0, 8, 100, 300, 1100, 3000)
FRAMES_PER_TURN = 100
ETH_BROADCAST = b"\xff" * 6
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
ALL_NODES_MAC = b"\x33\x33\0\0\0\1"
ND_OVERRIDE, ND_ROUTER = 0x20000000, 0x80000000
FORWARDING = "/proc/sys/net/ipv6/conf/{}/forwarding"


def gratuitous_arp(mac: bytes, ip: bytes, *, reply: int) -> bytes:
    """An ARP frame with sender = target = `ip`; `reply` 1: request form, 2: reply form with target MAC = sender MAC."""
    target = mac if reply == 2 else b"\0" * 6
    header = struct.pack("!HHBBH", 1, 0x0800, 6, 4, reply)
    return ETH_BROADCAST + mac + b"\x08\x06" + header + mac + ip + target + ip + b"\0" * 18


def neighbour_advertisement(
    mac: bytes, ip: bytes, *, router: bool = False, to: bytes = ALL_NODES, to_mac: bytes = ALL_NODES_MAC
) -> bytes:
    """An unsolicited neighbour advertisement, with override and the target's link-layer address. Who is a router has to
    say so: a host that reads otherwise drops the default routes through it that it learnt (RFC 4861, 7.2.5)."""
    body = struct.pack("!BBHI", 136, 0, 0, ND_OVERRIDE | (ND_ROUTER if router else 0)) + ip + b"\x02\x01" + mac
    return icmpv6(mac, ip, to_mac, to, body)


def checksum(content: bytes) -> bytes:
    """RFC 1071, of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def icmpv6(mac: bytes, source: bytes, to_mac: bytes, to: bytes, body: bytes) -> bytes:
    """A frame of neighbour discovery; `body` is 32 bytes, its checksum still 0."""
    header = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + source + to
    summed = checksum(source + to + struct.pack("!II", len(body), 58) + body)
    return to_mac + mac + b"\x86\xdd" + header + body[:2] + summed + body[4:]


def frames(mac: bytes, ip: bytes, *, router: bool = False) -> tuple[bytes, ...]:
    """All frames that announce one address once."""
    if len(ip) == 4:
        return gratuitous_arp(mac, ip, reply=1), gratuitous_arp(mac, ip, reply=2)
    return (neighbour_advertisement(mac, ip, router=router),)


def forwards(interface: str) -> bool:
    """Whether this host is an IPv6 router on an interface, as its kernel says in its own advertisements."""
    try:
        return Path(FORWARDING.format(interface)).read_text().strip() != "0"
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Announcement:
    """An address on an interface whose MAC is `mac`."""

    ip: bytes
    interface: str
    mac: bytes


class Sender:
    """Packet sockets, one per interface, opened when first needed. Used from one thread."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}

    def send(self, announcement: Announcement) -> str | None:
        """Send its frames once. Returns why it could not, or None."""
        router = len(announcement.ip) == 16 and forwards(announcement.interface)
        return self.put(announcement.interface, *frames(announcement.mac, announcement.ip, router=router))

    def put(self, interface: str, *frames: bytes) -> str | None:
        """Send frames on an interface. Returns why it could not, or None."""
        try:
            s = self._sockets.get(interface)
            if s is not None and s.getsockname()[0] != interface:  # another interface has that name now
                self._sockets.pop(interface).close()
                s = None
            if s is None:
                s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
                s.bind((interface, 0))
                s.setblocking(False)
                self._sockets[interface] = s
            for frame in frames:
                s.send(frame)
        except OSError as wrong:
            if wrong.errno in (errno.ENOBUFS, errno.EAGAIN):
                return f"{interface}: {wrong.strerror}"  # a shut fence ate it, or the queue is full: the socket is good
            broken = self._sockets.pop(interface, None)
            if broken is not None:
                broken.close()  # the kernel takes some 10 ms for it
            return f"{interface}: {wrong.strerror}"
        return None

    def close(self) -> None:
        """Close all sockets."""
        for s in self._sockets.values():
            s.close()
        self._sockets.clear()


class Announcer:
    """Repeats announcements on the loop. Before each frame it looks again whether the address is still held (hazard 18)."""

    def __init__(self, sender: Sender, still: Callable[[Announcement], bool]) -> None:
        self._sender = sender
        self._still = still
        self._due: dict[Announcement, int] = {}  # the next index of SCHEDULE_MS
        self._timers: set[asyncio.TimerHandle] = set()
        self.sent = 0
        self.failed = 0

    def announce(self, announcements: Iterable[Announcement], *, first: int = 0) -> None:
        """Start (or start over) at index `first` of the schedule; 1: the first was sent already."""
        fresh = tuple(announcements)
        for a in fresh:
            self._due[a] = first
        base = SCHEDULE_MS[first]
        for index in range(first, len(SCHEDULE_MS)):
            delay_ms = SCHEDULE_MS[index] - (base if first == 0 else 0)
            self._later(delay_ms / 1000, fresh, index)

    def _later(self, seconds: float, batch: tuple[Announcement, ...], index: int) -> None:
        handle: asyncio.TimerHandle

        def fire() -> None:
            self._timers.discard(handle)
            self._send(batch, index)

        handle = asyncio.get_running_loop().call_later(seconds, fire)
        self._timers.add(handle)

    def _send(self, batch: tuple[Announcement, ...], index: int) -> None:
        now, rest, began = batch[:FRAMES_PER_TURN], batch[FRAMES_PER_TURN:], time.monotonic()
        for a in now:
            if self._due.get(a, len(SCHEDULE_MS)) > index or not self._still(a):
                continue  # released, or started over and already further
            if self._sender.send(a) is None:
                self.sent += 1
            else:
                self.failed += 1
            self._due[a] = index + 1
            if index + 1 == len(SCHEDULE_MS):
                self._due.pop(a, None)
        if rest:
            self._later(time.monotonic() - began, rest, index)  # half of the time is for everything else

    def close(self) -> None:
        """Cancel everything."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._due.clear()
        self._sender.close()
