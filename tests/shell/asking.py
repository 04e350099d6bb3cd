"""Asking hosts in namespaces: who answers an echo, who says that it has an address.

That nobody answers cannot be seen by waiting. So every question is followed by the same question to an address that does
answer (the control); only when the control has been answered, several times, is silence called silence.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import selectors
import socket
import struct
import time

from wackamole.lab.namespaces import opened_in
from wackamole.shell.kernel.surroundings import packed

WITHIN_SECONDS = 30.0
ROUNDS = 3
AGAIN_SECONDS = 0.5
_numbers = itertools.count(0x8000)  # the lower half of the asking address: 10.9.128.0 and up

Answer = tuple[str, str]
"""What was asked ("echo" or "claim") and of which address."""


def checksum(content: bytes) -> bytes:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def arp_request(mac: bytes, sender: bytes, target: bytes) -> bytes:
    """Who has `target`?"""
    header = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return b"\xff" * 6 + mac + b"\x08\x06" + header + mac + sender + b"\0" * 6 + target + b"\0" * 18


def solicitation(mac: bytes, sender: bytes, target: bytes) -> bytes:
    """Who has `target`? (RFC 4861, 4.3)"""
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + target[13:]
    body = struct.pack("!BBHI", 135, 0, 0, 0) + target + b"\x01\x01" + mac
    body = body[:2] + checksum(sender + group + struct.pack("!II", len(body), 58) + body) + body[4:]
    header = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + sender + group
    return b"\x33\x33" + group[12:] + mac + b"\x86\xdd" + header + body


def who_claims(frame: bytes) -> tuple[bytes, int] | None:
    """The address that an ARP reply or an advertisement is about, and the number of the question."""
    if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x02":
        return frame[28:32], int.from_bytes(frame[40:42])
    if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 136:
        return frame[62:78], int.from_bytes(frame[52:54])
    return None


class Asker:
    """Sockets of one who asks. With an `interface` also the neighbours on it are asked."""

    def __init__(self, namespace: str, interface: str = "") -> None:
        self._identity = os.getpid() & 0xFFFF
        self._watch = selectors.DefaultSelector()
        self._opened: list[socket.socket] = []
        self._echo = {
            family: self._open(namespace, family, protocol)
            for family, protocol in ((socket.AF_INET, socket.IPPROTO_ICMP), (socket.AF_INET6, socket.IPPROTO_ICMPV6))
        }
        self._wire: socket.socket | None = None
        if interface:
            self._wire = self._open(namespace, socket.AF_PACKET, socket.htons(3))
            self._wire.bind((interface, 3))
        self._found: set[tuple[Answer, int]] = set()

    def _open(self, namespace: str, family: int, protocol: int) -> socket.socket:
        s = opened_in(namespace, lambda: socket.socket(family, socket.SOCK_RAW, protocol))
        s.setblocking(False)
        self._watch.register(s, selectors.EVENT_READ)
        self._opened.append(s)
        return s

    def close(self) -> None:
        """Close the sockets."""
        self._watch.close()
        for s in self._opened:
            s.close()

    def _ask(self, ip: str, number: int) -> None:
        target = packed(ip)
        six = len(target) == 16
        if self._wire is not None:
            mac = self._wire.getsockname()[4]
            sender = packed("fd09::5:0" if six else "10.9.0.0")[:-2] + struct.pack("!H", number)
            with contextlib.suppress(OSError):
                self._wire.send((solicitation if six else arp_request)(mac, sender, target))
        body = struct.pack("!BBHHH", 128 if six else 8, 0, 0, self._identity, number)
        if not six:
            body = body[:2] + checksum(body) + body[4:]
        with contextlib.suppress(OSError):  # no route to it any more is silence
            self._echo[socket.AF_INET6 if six else socket.AF_INET].sendto(body, (ip, 0))

    def _read(self) -> None:
        for key, _ in self._watch.select(AGAIN_SECONDS):
            s = key.fileobj
            assert isinstance(s, socket.socket)
            with contextlib.suppress(BlockingIOError):
                while True:
                    content, where = s.recvfrom(4096)
                    if s is self._wire:
                        if (claim := who_claims(content)) is not None:
                            self._found.add((("claim", str(ipaddress.ip_address(claim[0]))), claim[1]))
                        continue
                    icmp = content[20:] if s.family == socket.AF_INET else content
                    identity, number = struct.unpack_from("!HH", icmp, 4)
                    if icmp[0] in (0, 129) and identity == self._identity:
                        self._found.add((("echo", where[0].split("%")[0]), number))

    def answers(self, *ips: str, control: tuple[str, ...]) -> set[Answer]:
        """Which questions about `ips` were answered, in several rounds, each to the end of the control's answers."""
        kinds = ("echo", "claim") if self._wire is not None else ("echo",)
        found: set[Answer] = set()
        for _ in range(ROUNDS):
            number = next(_numbers)
            for ip in (*ips, *control):
                self._ask(ip, number)
            missing = {(kind, ip) for kind in kinds for ip in control}
            end = time.monotonic() + WITHIN_SECONDS
            again = time.monotonic() + AGAIN_SECONDS
            while missing:
                self._read()
                missing = {answer for answer in missing if (answer, number) not in self._found}
                now = time.monotonic()
                assert now < end, f"the control is silent: {missing}"
                if now >= again:
                    again = now + AGAIN_SECONDS
                    for ip in control:
                        self._ask(ip, number)
            found |= {answer for answer, seen in self._found if seen == number and answer[1] in ips}
        return found

    def until(self, wanted: set[Answer], *ips: str, control: tuple[str, ...]) -> None:
        """Ask until exactly this is answered."""
        end = time.monotonic() + WITHIN_SECONDS
        while (found := self.answers(*ips, control=control)) != wanted:
            assert time.monotonic() < end, found
