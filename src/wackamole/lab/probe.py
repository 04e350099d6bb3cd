"""A client that asks every VIP all the time, and an observer who sees which host answers.

The client pings (ICMP, ICMPv6) through its kernel's own neighbour cache, as any client would: a stale entry counts as
silence. The observer stands beside it with a MAC of its own and asks who has each address (ARP probes from 0.0.0.0, which
leave nothing in anybody's cache; neighbour solicitations): two answers to one question are two owners. Each ARP
question carries its number as the asker's hardware address, so that no answer is taken for another's.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from .lab import CLIENT, OBSERVER, Lab
from .namespaces import opened_in

LATE_SECONDS = 0.05
"""An answer later than this counts as silence until it came."""
SO_TIMESTAMPNS = 35
ETH_P_ALL = 3
_ECHO = struct.Struct("!BBHHHIH")  # type, code, checksum, id, sequence; round, index
_PAD = b"\0" * 18


def silences(probes: Sequence[tuple[float, float | None]], late_s: float = LATE_SECONDS) -> list[tuple[float, float]]:
    """When an address was silent: from the sending of the first probe that was not answered in time to the first answer
    after it (or the end). `probes`: (sent, answered or None), in order of sending; seconds."""
    found: list[tuple[float, float]] = []
    began: float | None = None
    for sent, answered in probes:
        good = answered is not None and answered - sent <= late_s
        if good and began is not None:
            assert answered is not None
            found.append((began, answered))
            began = None
        elif not good and began is None:
            began = sent
    if began is not None:
        found.append((began, probes[-1][0]))
    return found


# -- the process ----------------------------------------------------------------------------------------------------------


@dataclass
class _Vip:
    ip: str
    packed: bytes
    sent: list[float] = field(default_factory=list)
    answered: list[float | None] = field(default_factory=list)
    owners: list[tuple[float, str]] = field(default_factory=list)
    answers: dict[int, dict[str, float]] = field(default_factory=dict)  # question → who answered, when
    quiet: bool = True


class Prober:
    """Asks and notes; runs until its standard input ends."""

    def __init__(self, client: str, observer: str, vips: Iterable[str], interval_s: float) -> None:
        self.vips = [_Vip(ip, socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)) for ip in vips]
        self._by_ip = {v.packed: v for v in self.vips}
        self.interval_s = interval_s
        self._id = os.getpid() & 0xFFFF
        self._offset = time.time() - time.monotonic()
        self._echo4 = opened_in(client, lambda: self._icmp(socket.AF_INET, socket.IPPROTO_ICMP))
        self._echo6 = opened_in(client, lambda: self._icmp(socket.AF_INET6, socket.IPPROTO_ICMPV6))
        self._wire = opened_in(observer, self._packet)
        self._mac: bytes = self._wire.getsockname()[4]
        self._ip6 = socket.inet_pton(socket.AF_INET6, "fd77::201")
        self._round = 0
        self._asked: list[float] = []

    @staticmethod
    def _icmp(family: int, protocol: int) -> socket.socket:
        s = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.setblocking(False)
        if family == socket.AF_INET6:
            s.setsockopt(protocol, 1, struct.pack("=8I", *[0xFFFFFFFF] * 4, 0xFFFFFFFD, *[0xFFFFFFFF] * 3))  # 129 only
        return s

    @staticmethod
    def _packet() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(ETH_P_ALL))
        s.bind(("eth0", ETH_P_ALL))
        index = socket.if_nametoindex("eth0")
        s.setsockopt(263, 1, struct.pack("=iHH8s", index, 1, 0, b""))  # PACKET_ADD_MEMBERSHIP, promiscuous
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.setblocking(False)
        return s

    def run(self, stop: IO[bytes], out: IO[str]) -> None:
        """Ask until `stop` ends; then print the report."""
        watch = selectors.DefaultSelector()
        watch.register(stop, selectors.EVENT_READ, None)
        for s, take in ((self._echo4, self._take4), (self._echo6, self._take6), (self._wire, self._take_frame)):
            watch.register(s, selectors.EVENT_READ, take)
        due = time.monotonic()
        end: float | None = None
        while end is None or time.monotonic() < end:
            now = time.monotonic()
            if now >= due:
                if end is None:
                    self._ask(now)
                    self._tell(out, now)
                due = max(due + self.interval_s, now)
            for key, _ in watch.select(max(0.0, due - time.monotonic())):
                if key.data is None:
                    if not os.read(stop.fileno(), 1):
                        watch.unregister(stop)
                        end = time.monotonic() + 0.2  # what is still on its way
                else:
                    key.data()
        json.dump(self.report(), out)
        out.write("\n")
        out.flush()

    def _ask(self, now: float) -> None:
        number = self._round
        self._round += 1
        self._asked.append(now)
        for index, vip in enumerate(self.vips):
            vip.answered.append(None)
            vip.sent.append(time.monotonic())
            six = len(vip.packed) == 16
            head = _ECHO.pack(128 if six else 8, 0, 0, self._id, number & 0xFFFF, number, index)
            if not six:
                head = head[:2] + _checksum(head) + head[4:]
            with contextlib.suppress(OSError):  # no neighbour: silence, which is what is measured
                (self._echo6 if six else self._echo4).sendto(head, (vip.ip, 0))
            with contextlib.suppress(OSError):
                self._wire.send(self._solicitation(vip.packed) if six else self._question(vip.packed, number))

    def _question(self, ip: bytes, number: int) -> bytes:
        asker = b"\x02\x77" + struct.pack("!I", number)
        head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        return b"\xff" * 6 + self._mac + b"\x08\x06" + head + asker + b"\0" * 4 + b"\0" * 6 + ip + _PAD

    def _solicitation(self, ip: bytes) -> bytes:
        group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + ip[13:]
        body = struct.pack("!BBHI", 135, 0, 0, 0) + ip + b"\x01\x01" + self._mac
        pseudo = self._ip6 + group + struct.pack("!II", len(body), 58)
        body = body[:2] + _checksum(pseudo + body) + body[4:]
        head = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + self._ip6 + group
        return b"\x33\x33" + group[12:] + self._mac + b"\x86\xdd" + head + body

    def _received(self, s: socket.socket) -> Iterable[tuple[bytes, float]]:
        for _ in range(512):
            try:
                packet, ancillary, _, _ = s.recvmsg(256, 64)
            except BlockingIOError:
                return
            at = time.monotonic()
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanos = struct.unpack("=qq", content)
                    at = seconds + nanos / 1e9 - self._offset
            yield packet, at

    def _take4(self) -> None:
        for packet, at in self._received(self._echo4):
            self._answer(packet[(packet[0] & 15) * 4 :], 0, at)

    def _take6(self) -> None:
        for packet, at in self._received(self._echo6):
            self._answer(packet, 129, at)

    def _answer(self, packet: bytes, kind: int, at: float) -> None:
        if len(packet) < _ECHO.size:
            return
        found, _, _, sender, _, number, index = _ECHO.unpack_from(packet)
        if found != kind or sender != self._id or index >= len(self.vips):
            return
        vip = self.vips[index]
        if number < len(vip.answered) and vip.answered[number] is None:
            vip.answered[number] = at

    def _take_frame(self) -> None:
        for _ in range(512):
            try:
                frame = self._wire.recv(256)
            except BlockingIOError:
                return
            kind = frame[12:14]
            if kind == b"\x08\x06" and frame[20:22] == b"\0\2" and frame[32:34] == b"\x02\x77":
                vip = self._by_ip.get(frame[28:32])
                if vip is not None:
                    self._owner(vip, int.from_bytes(frame[34:38]), frame[22:28])
            elif kind == b"\x86\xdd" and frame[54:55] == b"\x88" and len(frame) >= 78 and frame[58] & 0x40:
                vip = self._by_ip.get(frame[62:78])
                if vip is not None and frame[:6] == self._mac:
                    number = bisect.bisect_right(self._asked, time.monotonic()) - 1
                    self._owner(vip, number, frame[6:12])

    def _owner(self, vip: _Vip, number: int, mac: bytes) -> None:
        now, text = time.monotonic(), mac.hex(":")
        if number >= len(self._asked):
            return
        vip.answers.setdefault(number, {}).setdefault(text, now)
        if not vip.owners or vip.owners[-1][1] != text:
            vip.owners.append((self._asked[number], text))
        for old in [n for n in vip.answers if n < number - 1000]:
            if len(vip.answers[old]) < 2:
                del vip.answers[old]

    def _tell(self, out: IO[str], now: float) -> None:
        """One line for each address that fell silent or answers again: for who watches live."""
        for vip in self.vips:
            late = max(1, round(LATE_SECONDS / self.interval_s))
            recent = vip.answered[-late - 1 : -1]
            quiet = bool(recent) and all(a is None for a in recent)
            if quiet != vip.quiet and len(vip.answered) > late:
                vip.quiet = quiet
                print(json.dumps({"t": now, "vip": vip.ip, "silent": quiet}), file=out, flush=True)

    def report(self) -> dict[str, Any]:
        """Everything noted."""
        vips = {}
        for vip in self.vips:
            probes = list(zip(vip.sent, vip.answered, strict=True))
            two = [(self._asked[n], sorted(who)) for n, who in sorted(vip.answers.items()) if len(who) > 1]
            vips[vip.ip] = {
                "sent": len(probes),
                "lost": sum(1 for _, a in probes if a is None),
                "silences": silences(probes),
                "owners": vip.owners,
                "two_owners": two,
            }
        return {"interval_s": self.interval_s, "vips": vips}


def _checksum(content: bytes) -> bytes:
    content += b"\0" * (len(content) % 2)
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return struct.pack("!H", ~total & 0xFFFF)


# -- its owner ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client and the observer saw; seconds (monotonic), nodes by name."""

    interval_s: float
    silences: dict[str, list[tuple[float, float]]]
    owners: dict[str, list[tuple[float, str]]]
    two_owners: dict[str, list[tuple[float, tuple[str, ...]]]]
    sent: dict[str, int]

    def worst(self, since: float, until: float = float("inf")) -> float:
        """The longest silence of any address that began in this time, seconds."""
        return max((b - a for s in self.silences.values() for a, b in s if since <= a < until), default=0.0)

    def outage(self, ip: str, since: float, until: float = float("inf")) -> float:
        """The longest silence of one address that began in this time, seconds."""
        return max((b - a for a, b in self.silences[ip] if since <= a < until), default=0.0)

    def interrupted(self, since: float, until: float = float("inf")) -> set[str]:
        """The addresses that were silent in this time."""
        return {ip for ip, s in self.silences.items() if any(since <= a < until for a, _ in s)}

    def two_owners_s(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The longest time that any address had two owners, seconds: questions with two answers, times the interval."""
        counts = [sum(1 for at, _ in found if since <= at < until) for found in self.two_owners.values()]
        return max(counts, default=0) * self.interval_s


class Probe:
    """The probing process of a lab. Ends with its owner."""

    def __init__(self, lab: Lab, *, interval_ms: float = 5.0, vips: Sequence[str] | None = None) -> None:
        self._names = {mac: node for node, mac in lab.macs().items()}
        layout = lab.layout
        addresses = list(vips) if vips is not None else [a for _, a in layout.vips]
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "wackamole.lab.probe",
                "--client", layout.namespace(CLIENT),
                "--observer", layout.namespace(OBSERVER),
                "--interval-ms", str(interval_ms),
                *addresses,
            ],
            env=lab.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.silent: dict[str, bool] = {}
        self._last = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"t"'):
                said = json.loads(line)
                self.silent[said["vip"]] = said["silent"]
            else:
                self._last = line

    def stop(self) -> Seen:
        """End it, and read what it saw."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join()
        self._process.wait()
        found = json.loads(self._last)
        vips = found["vips"]
        name = self._names.get
        return Seen(
            found["interval_s"],
            {ip: [(a, b) for a, b in v["silences"]] for ip, v in vips.items()},
            {ip: [(t, name(m, m)) for t, m in v["owners"]] for ip, v in vips.items()},
            {ip: [(t, tuple(name(m, m) for m in who)) for t, who in v["two_owners"]] for ip, v in vips.items()},
            {ip: v["sent"] for ip, v in vips.items()},
        )

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """The probing process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", required=True)
    parser.add_argument("--observer", required=True)
    parser.add_argument("--interval-ms", type=float, default=5.0)
    parser.add_argument("vips", nargs="+")
    given = parser.parse_args()
    prober = Prober(given.client, given.observer, given.vips, given.interval_ms / 1000)
    prober.run(sys.stdin.buffer, sys.stdout)


if __name__ == "__main__":
    main()
