"""A client that asks every VIP all the time, and an observer who sees which host answers.

The client pings (ICMP, ICMPv6) through its kernel's own neighbour cache, as any client would: a stale entry counts as
silence. The observer stands beside it with a MAC of its own and asks who has each address (ARP probes from 0.0.0.0, which
leave nothing in anybody's cache; neighbour solicitations): two answers to one question are two owners. Each question
carries its number as the asker's hardware address, so that no answer is taken for another's; and a host that answers
later than another by more than TOGETHER_SECONDS may have got the address since, so that proves nothing and is only counted.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
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
from pathlib import Path
from typing import IO, Any

from .lab import CLIENT, OBSERVER, Lab
from .namespaces import opened_in

LATE_SECONDS = 0.05
"""An answer later than this counts as silence until it came."""
TOGETHER_SECONDS = 0.001
"""No hand-over is faster: it takes a release, an ordered message and an acquisition."""
STALL_SECONDS = 0.05
"""A prober that asks later than this was held up itself, or its machine was: worth telling with what it saw."""
PRIORITY = 20
"""Of real time, 1 to 99: above the daemons' own (shell/scheduling.py), below Corosync's."""
ASKERS6 = 16
"""Solicitations come from so many addresses in turn: the answer goes to the asker's hardware address as the answering
host's neighbour cache has it, so none may be asked from again before it has answered."""
ASKER = b"\x02\x77"
PCAP_BYTES_MAX = 32 << 20
"""When a capture is this large it becomes `….1` in the place of the one before, and a new one begins."""
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
    answers: dict[int, dict[str, float]] = field(default_factory=dict)  # question → who answered, when; the latest 1000
    two: dict[int, set[str]] = field(default_factory=dict)  # question → who answered it together
    apart: int = 0
    quiet: bool = True


class Capture:
    """A classic pcap file of Ethernet frames, with nanoseconds; bounded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._file = self._path.open("wb")
        self._bytes = self._file.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 256, 1))

    def write(self, frame: bytes, at: float) -> None:
        """Append one; `at`: seconds since the epoch."""
        if self._bytes > PCAP_BYTES_MAX:
            self._file.close()
            self._path.replace(f"{self._path}.1")
            self._begin()
        seconds = int(at)
        head = struct.pack("=IIII", seconds, int((at - seconds) * 1e9), len(frame), len(frame))
        self._bytes += self._file.write(head + frame)

    def close(self) -> None:
        """Write the rest out."""
        self._file.close()


class Prober:
    """Asks and notes; runs until its standard input ends."""

    def __init__(
        self, client: str, observer: str, vips: Iterable[str], interval_s: float, capture: Capture | None = None
    ) -> None:
        self.vips = [_Vip(ip, socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)) for ip in vips]
        self._by_ip = {v.packed: v for v in self.vips}
        self.interval_s = interval_s
        self._id = os.getpid() & 0xFFFF
        self._offset = time.time() - time.monotonic()
        self._echo4 = opened_in(client, lambda: self._icmp(socket.AF_INET, socket.IPPROTO_ICMP))
        self._echo6 = opened_in(client, lambda: self._icmp(socket.AF_INET6, socket.IPPROTO_ICMPV6))
        self._wire = opened_in(observer, self._packet)
        self._mac: bytes = self._wire.getsockname()[4]
        self._capture = capture
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
        s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.setblocking(False)
        return s

    def run(self, stop: IO[bytes], out: IO[str]) -> None:
        """Ask until `stop` ends; then print the report."""
        watch = selectors.DefaultSelector()
        watch.register(stop, selectors.EVENT_READ, None)
        for s, take in ((self._echo4, self._take4), (self._echo6, self._take6), (self._wire, self._take_frame)):
            watch.register(s, selectors.EVENT_READ, take)
        for vip in self.vips:  # who watches knows that it asks from now on
            print(json.dumps({"t": time.monotonic(), "vip": vip.ip, "silent": True}), file=out, flush=True)
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
        if self._capture is not None:
            self._capture.close()
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
                self._wire.send(self._solicitation(vip.packed, number) if six else self._question(vip.packed, number))

    def _question(self, ip: bytes, number: int) -> bytes:
        asker = ASKER + struct.pack("!I", number)
        head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        return b"\xff" * 6 + self._mac + b"\x08\x06" + head + asker + b"\0" * 4 + b"\0" * 6 + ip + _PAD

    def _solicitation(self, ip: bytes, number: int) -> bytes:
        source = socket.inet_pton(socket.AF_INET6, f"fd77::77:{1 + number % ASKERS6:x}")
        group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + ip[13:]
        body = struct.pack("!BBHI", 135, 0, 0, 0) + ip + b"\x01\x01" + ASKER + struct.pack("!I", number)
        pseudo = source + group + struct.pack("!II", len(body), 58)
        body = body[:2] + _checksum(pseudo + body) + body[4:]
        head = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + source + group
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
        for frame, at in self._received(self._wire):
            arp = frame[12:14] == b"\x08\x06"
            advertised = frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88" and len(frame) >= 78
            if self._capture is not None and (arp or advertised):
                self._capture.write(frame, at + self._offset)
            if arp and frame[20:22] == b"\0\2" and frame[32:34] == ASKER:
                self._owner(frame[28:32], frame[34:38], frame[22:28], at)
            elif advertised and frame[58] & 0x40 and frame[:2] == ASKER:
                self._owner(frame[62:78], frame[2:6], frame[6:12], at)

    def _owner(self, ip: bytes, question: bytes, mac: bytes, at: float) -> None:
        vip, number, text = self._by_ip.get(ip), int.from_bytes(question), mac.hex(":")
        if vip is None or number >= len(self._asked):
            return
        answers = vip.answers.setdefault(number, {})
        if text not in answers:
            answers[text] = at
            together = {who for who, when in answers.items() if abs(at - when) <= TOGETHER_SECONDS}
            if len(together) > 1:
                vip.two.setdefault(number, set()).update(together)
            elif len(answers) > 1:
                vip.apart += 1
        if not vip.owners or vip.owners[-1][1] != text:
            vip.owners.append((self._asked[number], text))
        while len(vip.answers) > 1000:
            del vip.answers[next(iter(vip.answers))]

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
            vips[vip.ip] = {
                "sent": len(probes),
                "lost": sum(1 for _, a in probes if a is None),
                "silences": silences(probes),
                "owners": vip.owners,
                "two_owners": [(self._asked[n], sorted(who)) for n, who in sorted(vip.two.items())],
                "apart": vip.apart,
            }
        asked = itertools.pairwise(self._asked)
        stalls = [(a, b - a) for a, b in asked if b - a > self.interval_s + STALL_SECONDS]
        return {"interval_s": self.interval_s, "vips": vips, "stalls": stalls}


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
    apart: dict[str, int] = field(default_factory=dict)
    """Questions that two hosts answered one after the other: a hand-over in between explains it."""
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """When the prober itself was held up, and for how long."""

    def worst(self, since: float, until: float = float("inf")) -> float:
        """The longest silence of any address that began in this time, seconds."""
        return max((b - a for s in self.silences.values() for a, b in s if since <= a < until), default=0.0)

    def outage(self, ip: str, since: float, until: float = float("inf")) -> float:
        """The longest silence of one address that began in this time, seconds."""
        return max((b - a for a, b in self.silences[ip] if since <= a < until), default=0.0)

    def interrupted(self, since: float, until: float = float("inf"), *, longer_than_s: float = 0.0) -> set[str]:
        """The addresses that were silent in this time, for longer than so many seconds."""
        return {
            ip for ip, s in self.silences.items() if any(since <= a < until and b - a > longer_than_s for a, b in s)
        }

    def two_owners_s(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The longest time that any address had two owners, seconds: questions with two answers, times the interval."""
        counts = [sum(1 for at, _ in found if since <= at < until) for found in self.two_owners.values()]
        return max(counts, default=0) * self.interval_s


class Probe:
    """The probing process of a lab. Ends with its owner."""

    def __init__(
        self, lab: Lab, *, interval_ms: float = 5.0, vips: Sequence[str] | None = None, capture: Path | None = None
    ) -> None:
        self._names = {mac: node for node, mac in lab.macs().items()}
        layout = lab.layout
        addresses = list(vips) if vips is not None else [a for _, a in layout.vips]
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "wackamole.lab.probe",
                "--client", layout.namespace(CLIENT),
                "--observer", layout.namespace(OBSERVER),
                "--interval-ms", str(interval_ms),
                *(["--capture", str(capture)] if capture is not None else []),
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
            {ip: v["apart"] for ip, v in vips.items()},
            [(at, lasted) for at, lasted in found["stalls"]],
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
    parser.add_argument("--capture", type=Path)
    parser.add_argument("vips", nargs="+")
    given = parser.parse_args()
    with contextlib.suppress(OSError):  # a client is a machine of its own: the nodes' load must not keep it from asking
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    capture = Capture(given.capture) if given.capture is not None else None
    prober = Prober(given.client, given.observer, given.vips, given.interval_ms / 1000, capture)
    prober.run(sys.stdin.buffer, sys.stdout)


if __name__ == "__main__":
    main()
