"""How far away the other nodes are: ICMP echo (RFC 792, RFC 4443) to their addresses, a second or two of it.

The kernel stamps what it receives, so that this process's own delays are not taken for the network's. The other side's are in
it, as they are in the ring's own latency.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..shell.kernel.announce import checksum
from .finding import NotChecked

ECHOES = 60
INTERVAL_SECONDS = 0.025
WARM_UP = 3
"""The first wait for ARP or neighbour discovery."""
LATE_SECONDS = 1.0
"""How long the last ones are waited for."""
SMALL_BYTES = 64
LARGE = 3
"""Of the echoes so many are as large as the interface allows, and must not be fragmented on the way."""
SO_TIMESTAMPNS = 35
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IPV6_DONTFRAG, PMTUDISC_PROBE = 10, 23, 62, 3
TIMESPEC = struct.Struct("@ll")
REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
HEADER_BYTES = {socket.AF_INET: 20, socket.AF_INET6: 40}
ICMP_BYTES = 8


@dataclass(slots=True)
class Heard:
    """Of one address: round trips in milliseconds without the WARM_UP, how many echoes were sent for them, and whether
    large ones came back (None: they could not be sent)."""

    round_trips_ms: list[float] = field(default_factory=list)
    sent: int = 0
    large: bool | None = None


def echoes(addresses: Iterable[str], mtu: Mapping[str, int]) -> dict[str, Heard]:
    """Ask all at the same time. `mtu`: of the interface to each address, where it is known. Takes about ECHOES times
    INTERVAL_SECONDS, and LATE_SECONDS if somebody does not answer. Raises NotChecked without the right to."""
    found = {a: Heard() for a in addresses}
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(selectors.DefaultSelector())
        sockets = {}
        for family in {_family(a) for a in found}:
            sockets[family] = stack.enter_context(_open(family))
            watch.register(sockets[family], selectors.EVENT_READ)
        asked: dict[tuple[str, int], int] = {}  # address and number: when, in nanoseconds since 1970
        identity = int.from_bytes(os.urandom(2))  # several may ask at once
        started = time.monotonic()
        for number in range(ECHOES + LARGE):
            for address in found:
                size = SMALL_BYTES
                if number >= ECHOES:
                    size = mtu.get(address, 0) - HEADER_BYTES[_family(address)] - ICMP_BYTES
                if size > 0 and _send(sockets[_family(address)], address, identity, number, size, asked):
                    heard = found[address]
                    heard.sent += WARM_UP <= number < ECHOES
                    heard.large = False if number >= ECHOES and heard.large is None else heard.large
            next_at = started + (number + 1) * INTERVAL_SECONDS
            _read(watch, next_at, identity, asked, found)
            time.sleep(max(0.0, next_at - time.monotonic()))
        _read(watch, time.monotonic() + LATE_SECONDS, identity, asked, found)
    return found


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _open(family: socket.AddressFamily) -> socket.socket:
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    try:
        s = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except PermissionError:
        raise NotChecked("ICMP echo needs root (CAP_NET_RAW)") from None
    s.setblocking(False)
    s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    if family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
    return s


def _send(
    s: socket.socket, address: str, identity: int, number: int, size: int, asked: dict[tuple[str, int], int]
) -> bool:
    body = struct.pack("!BBHHH", REQUEST[_family(address)], 0, 0, identity, number) + bytes(size + size % 2)
    if s.family == socket.AF_INET:  # of ICMPv6 the kernel sums up itself
        body = body[:2] + checksum(body) + body[4:]
    asked[address, number] = time.time_ns()
    try:
        s.sendto(body[: ICMP_BYTES + size], (address, 0))
    except OSError:  # no route, or the interface is down: silence
        del asked[address, number]
        return False
    return True


def _read(
    watch: selectors.BaseSelector,
    until: float,
    identity: int,
    asked: dict[tuple[str, int], int],
    found: dict[str, Heard],
) -> None:
    """Take answers until then, or until there is nothing more to come."""
    while asked and (left := until - time.monotonic()) > 0:
        for key, _ in watch.select(left):
            s = key.fileobj
            assert isinstance(s, socket.socket)
            with contextlib.suppress(OSError):
                while True:
                    content, more, _, source = s.recvmsg(1 << 16, 64)
                    icmp = content[(content[0] & 0xF) * 4 :] if s.family == socket.AF_INET else content
                    if len(icmp) < ICMP_BYTES or icmp[0] != REPLY[_family(source[0])]:
                        continue
                    theirs, number = struct.unpack_from("!HH", icmp, 4)
                    sent_ns = asked.pop((source[0].partition("%")[0], number), None) if theirs == identity else None
                    if sent_ns is None:
                        continue
                    heard = found[source[0].partition("%")[0]]
                    if number >= ECHOES:
                        heard.large = True
                    elif number >= WARM_UP:
                        heard.round_trips_ms.append(max(0.0, (_stamp(more) - sent_ns) / 1e6))


def _stamp(more: list[tuple[int, int, bytes]]) -> int:
    """When the kernel received it, in nanoseconds since 1970."""
    for level, kind, content in more:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(content) >= TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack_from(content)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
