"""Hearing who says that it has an address: ARP's sender (RFC 826) and neighbour advertisements' target (RFC 4861, 7.2.6).

One packet socket per interface and family, limited in the kernel to ARP that is no probe (its sender is 0.0.0.0: it claims
nothing), or to neighbour advertisements. It is bound to a
protocol, so it never sees what this host sends itself. Its buffer is small and a turn of the loop reads CLAIMS_PER_TURN
frames at most: in a flood the kernel drops the rest, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .fence import Guarded

ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
CLAIMS_PER_TURN = 64
RECEIVE_BYTES = 64 << 10
"""Some 80 frames; the kernel counts a small one as 768 bytes."""
FRAME_BYTES_MAX = 256
SO_ATTACH_FILTER = 26
ETHERNET_BYTES, IPV6_BYTES = 14, 40
_ARP_ETHERNET_IPV4 = struct.pack("!HHBB", 1, 0x0800, 6, 4)
_ND_LINK_ADDRESS = b"\x02\x01"

_LOAD_WORD, _LOAD_BYTE = 0x20, 0x30  # BPF_LD|W|ABS, BPF_LD|B|ABS (linux/bpf_common.h)
_IF_EQUAL, _RETURN = 0x15, 0x06  # BPF_JMP|JEQ|K, BPF_RET|K


def _program(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


NO_PROBES = _program(
    (_LOAD_WORD, 0, 0, ETHERNET_BYTES + 14),  # ARP's sender
    (_IF_EQUAL, 0, 1, 0),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, FRAME_BYTES_MAX),
)
ADVERTISEMENTS = _program(
    (_LOAD_BYTE, 0, 0, ETHERNET_BYTES + 6),  # IPv6's next header
    (_IF_EQUAL, 0, 3, socket.IPPROTO_ICMPV6),
    (_LOAD_BYTE, 0, 0, ETHERNET_BYTES + IPV6_BYTES),  # ICMPv6's type
    (_IF_EQUAL, 0, 1, 136),
    (_RETURN, 0, 0, FRAME_BYTES_MAX),
    (_RETURN, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Claim:
    """`mac` says on the interface `index` that it has `ip`."""

    index: int
    ip: bytes
    mac: bytes


def claim_in(frame: bytes, index: int) -> Claim | None:
    """The claim in a frame, or None. A probe (ARP with the sender 0.0.0.0) claims nothing."""
    ethertype, body = frame[12:14], frame[ETHERNET_BYTES:]
    if ethertype == b"\x08\x06":
        if len(body) < 28 or body[:6] != _ARP_ETHERNET_IPV4 or body[14:18] == bytes(4):
            return None
        return Claim(index, body[14:18], body[8:14])
    advertised = body[IPV6_BYTES:]
    if ethertype != b"\x86\xdd" or len(advertised) < 24 or advertised[0] != 136:
        return None
    options = advertised[24:]
    mac = options[2:8] if options[:2] == _ND_LINK_ADDRESS and len(options) >= 8 else frame[6:12]
    return Claim(index, advertised[8:24], mac)


class Ears:
    """The packet sockets; `on_claim` is called for every claim, on the loop's thread."""

    def __init__(self, on_claim: Callable[[Claim], None]) -> None:
        self._on_claim = on_claim
        self._sockets: dict[tuple[int, int], socket.socket] = {}
        self.deaf: dict[str, str] = {}
        """Interfaces that cannot be listened to, and why."""

    def listen(self, guarded: Iterable[Guarded]) -> None:
        """From now on listen on exactly these interfaces, for the families of their VIPs."""
        wanted = {
            (g.index, protocol): g.name for g in guarded for protocol in sorted({ethertype_of(ip) for ip in g.ips})
        }
        for key, s in list(self._sockets.items()):
            if s.getsockname()[0] != wanted.get(key):  # not wanted, or deleted and made anew under its old number
                self._forget(key)
        self.deaf = {}
        for key, name in wanted.items():
            if key not in self._sockets:
                try:
                    self._hear(key, name)
                except OSError as wrong:
                    self.deaf[name] = wrong.strerror or str(wrong)  # it is just being removed, or no Ethernet

    def _hear(self, key: tuple[int, int], name: str) -> None:
        index, protocol = key
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # 0: deaf until it is bound
        try:
            s.setblocking(False)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            attach(s, ADVERTISEMENTS if protocol == ETH_P_IPV6 else NO_PROBES)
            s.bind((name, protocol))
        except OSError:
            s.close()
            raise
        self._sockets[key] = s
        asyncio.get_running_loop().add_reader(s.fileno(), self._read, s, index)

    def send(self, index: int, frame: bytes) -> bool:
        """Send a frame of ARP or IPv6 on an interface that is listened to. Returns whether it went."""
        s = self._sockets.get((index, int.from_bytes(frame[12:14])))
        try:
            return s is not None and s.send(frame) > 0
        except OSError:
            return False  # it is down, or its queue is full

    def _read(self, s: socket.socket, index: int) -> None:
        for frame in frames(s):
            claim = claim_in(frame, index)
            if claim is not None:
                self._on_claim(claim)

    def _forget(self, key: tuple[int, int]) -> None:
        s = self._sockets.pop(key)
        asyncio.get_running_loop().remove_reader(s.fileno())
        s.close()

    def close(self) -> None:
        """Hear nothing more."""
        for key in list(self._sockets):
            self._forget(key)


def ethertype_of(ip: bytes) -> int:
    """The ethertype that tells of an address."""
    return ETH_P_ARP if len(ip) == 4 else ETH_P_IPV6


def attach(s: socket.socket, program: bytes) -> None:
    """Let through what this filter lets through: instructions of 8 bytes (linux/filter.h)."""
    code = ctypes.create_string_buffer(program, len(program))
    s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code)))


def frames(s: socket.socket) -> list[bytes]:
    """What waits in a socket, at most CLAIMS_PER_TURN."""
    found: list[bytes] = []
    with contextlib.suppress(OSError):  # nothing more, or the interface is down or gone; links are watched elsewhere
        while len(found) < CLAIMS_PER_TURN:
            found.append(s.recv(FRAME_BYTES_MAX))
    return found
