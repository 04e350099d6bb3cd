"""Where the time goes: a take-over, a planned move and a leave, taken apart into what they consist of (docs/benchmarks.md).

The parts are told apart by what stands in the nodes' own records and by what went over the switch: the ring's packets, and
announcements. All of it is on the one monotonic clock that the hosts of a lab share.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..client import NotReachable, converse
from ..engine.corosync.conf import PORT
from .lab import SWITCH, Lab
from .probe import Seen
from .tap import JEQ, JEQ_X, LD, LDB, LDH, RET, TAX, Tap
from .trace_chart import Panel, ms, steps

ETH_P_ALL, PACKET_OUTGOING = 3, 4
BUFFER_BYTES, SNAP_BYTES = 64 << 20, 128
FILTER = (  # classic BPF: what announces an address, and the ring's first link
    (LDH, 0, 0, 12),
    (JEQ, 0, 5, 0x0806),
    (LD, 0, 0, 28),
    (TAX, 0, 0, 0),
    (LD, 0, 0, 38),
    (JEQ_X, 12, 0, 0),
    (RET, 0, 0, 0),
    (JEQ, 0, 4, 0x0800),
    (LDB, 0, 0, 23),
    (JEQ, 0, 7, 17),
    (LDH, 0, 0, 36),
    (JEQ, 6, 5, PORT),
    (JEQ, 0, 4, 0x86DD),
    (LDB, 0, 0, 54),
    (JEQ, 0, 2, 136),
    (LDH, 0, 0, 0),
    (JEQ, 1, 0, 0x3333),
    (RET, 0, 0, 0),
    (RET, 0, 0, SNAP_BYTES),
)
TOTEM = b"\x70\xc0"
"""How what Corosync sends begins, in knet's packet, on a machine with the low byte first; its version and its kind follow."""
KINDS = ("token", "message", "merge", "join", "commit", "token is held no longer")
UDP_AT, KNET_BYTES_MAX = 42, 24
WITHIN_SECONDS = 60.0
PROBE_MS, ROUNDS_A_QUESTION = 1.0, 10

Watching = Callable[..., contextlib.AbstractContextManager[list[Seen]]]


@dataclass(frozen=True, slots=True)
class Frame:
    """Something on the switch. `kind`: one of KINDS, or `announcement`, of `ip`."""

    at: float
    mac: str
    kind: str
    ip: str = ""


class Capture(Tap):
    """The switch's frames."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(
            lab.layout.namespace(SWITCH), ETH_P_ALL, FILTER, snap_bytes=SNAP_BYTES, buffer_bytes=BUFFER_BYTES
        )

    def take(self) -> list[Frame]:
        """What came since the last time, oldest first."""
        found = [
            read(content, at)
            for content, at, where in self.frames()
            # else the same frame again, as the bridge sends it on
            if where[2] != PACKET_OUTGOING and not where[0].startswith("br")
        ]
        return [frame for frame in found if frame is not None]

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(content: bytes, at: float) -> Frame | None:
    """What a frame is; None if it is nothing that is traced (knet's own questions, for instance)."""
    mac, kind = content[6:12].hex(":"), content[12:14]
    if kind == b"\x08\x06":
        return Frame(at, mac, "announcement", socket.inet_ntop(socket.AF_INET, content[28:32]))
    if kind == b"\x86\xdd":
        return Frame(at, mac, "announcement", socket.inet_ntop(socket.AF_INET6, content[62:78]))
    place = content.find(TOTEM, UDP_AT, UDP_AT + KNET_BYTES_MAX)
    number = content[place + 3] if 0 <= place < len(content) - 3 else len(KINDS)
    return Frame(at, mac, KINDS[number]) if number < len(KINDS) else None


class Records:
    """What a node records from now on, also if it ends meanwhile."""

    def __init__(self, lab: Lab, node: str) -> None:
        self._path = str(lab.home / node / "run/wackamole/control.sock")
        self.entries: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with contextlib.suppress(NotReachable):
            for kind, entry in converse(self._path, "events", {"follow": True}, patient=True):
                if kind == "progress":
                    self.entries.append(entry)


@dataclass
class Trace:
    """What something consists of: for each part its name and how long it took in each round (ms), in order."""

    title: str
    parts: dict[str, list[float]] = field(default_factory=dict)
    outage_ms: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)

    def add(self, moments: Sequence[tuple[str, float]]) -> None:
        """One round: when each part was over; the first is when it began."""
        for (_, began), (what, ended) in itertools.pairwise(moments):
            self.parts.setdefault(what, []).append((ended - began) * 1000)


def crash(lab: Lab, capture: Capture, trace: Trace, node: str, watching: Watching) -> Seen:
    """A host crashes: from the last token that it passed on to the first answer for the VIP that was dark for longest."""
    rest = [n for n in lab.layout.nodes if n != node]
    capture.take()  # a ring that rests is passed on only now and then: so before the host's last token
    with watching(lab, interval_ms=PROBE_MS, vips=vips_of(lab, node), rounds_a_question=ROUNDS_A_QUESTION) as seen:
        began = lab.crash(node)
        lab.until_settled(rest)
    frames = capture.take()
    worst = _worst(seen[0], began, trace)
    macs = lab.macs()
    last = max(f.at for f in frames if f.kind == "token" and f.mac == macs[node])
    announced, by = _announced(frames, macs, worst.ip, last, but=node)
    found = lab.records(by, last)
    view = next(e["monotonic"] for e in found if e["event"] == "view")
    acquired = Acquired.of(found, view)
    trace.add(
        [
            ("", last),
            ("detection: the token does not come", min(f.at for f in frames if f.kind == "join" and f.at > last)),
            ("membership: the survivors agree", view),
            ("decision", acquired.asked),
            ("kernel: addresses added", acquired.done),
            ("announcement", announced),
            ("neighbours learn", worst.answered),
        ]
    )
    return seen[0]


def hand_over(
    lab: Lab,
    capture: Capture,
    trace: Trace,
    node: str,
    vips: Sequence[str],
    act: Callable[[], float],
    watching: Watching,
) -> Seen:
    """`act` has a node hand VIPs (addresses) over, and returns when: from then to the first answer for the one that was dark
    for longest."""
    own = Records(lab, node)
    macs = lab.macs()
    with watching(lab, interval_ms=PROBE_MS, vips=vips, rounds_a_question=ROUNDS_A_QUESTION) as seen:
        capture.take()
        began = act()
        lab.until(
            lambda: all(lab.holders(ip) - {node} for ip in vips), within_s=WITHIN_SECONDS, story=f"{node} hands over"
        )
    frames = capture.take()
    worst = _worst(seen[0], began, trace)
    announced, by = _announced(frames, macs, worst.ip, began, but=node)
    released = _released(own, lab, worst.ip, began)
    acquired = Acquired.of(lab.records(by, began), released["monotonic"])
    asked = released["monotonic"] - float(released["confirm_ms"]) / 1000
    confirmed = released["monotonic"]
    said = min(f.at for f in frames if f.kind == "message" and f.mac == macs[node] and f.at > confirmed)
    trace.add(
        [
            ("", began),
            ("order: the group agrees", asked),
            ("release: the kernel deletes", asked + float(released["add_ms"]) / 1000),
            ("confirmation: read back", confirmed),
            ("word of it on the wire", said),
            ("the new holder decides", acquired.asked),
            ("kernel: addresses added", acquired.done),
            ("announcement", announced),
            ("neighbours learn", worst.answered),
        ]
    )
    return seen[0]


@dataclass(frozen=True, slots=True)
class Acquired:
    """When a node's addresses' thread was asked for more, and had added it."""

    asked: float
    done: float

    @staticmethod
    def of(found: Iterable[Mapping[str, Any]], since: float) -> Acquired:
        """The first time since then."""
        entry = next(e for e in found if e["event"] == "kernel" and e["monotonic"] > since and e["added"] != "0")
        asked = entry["monotonic"] - float(entry["confirm_ms"]) / 1000
        return Acquired(asked, asked + float(entry["add_ms"]) / 1000)


@dataclass(frozen=True, slots=True)
class _Worst:
    ip: str
    answered: float


def _worst(seen: Seen, since: float, trace: Trace) -> _Worst:
    """The address that was dark for longest, and when it answered again."""
    lasted, answered, ip = max((b - a, b, ip) for ip, s in seen.silences.items() for a, b in s if a >= since - 0.001)
    trace.outage_ms.append(lasted * 1000)
    trace.lost.append(float(seen.lost[ip]))
    return _Worst(ip, answered)


def _announced(
    frames: Iterable[Frame], macs: Mapping[str, str], ip: str, since: float, *, but: str
) -> tuple[float, str]:
    """When an address was first announced since then, and by whom; who had it may still repeat its own announcement."""
    nodes = {mac: node for node, mac in macs.items() if node != but}
    first = next(f for f in frames if f.kind == "announcement" and f.ip == ip and f.at > since and f.mac in nodes)
    return first.at, nodes[first.mac]


def _released(own: Records, lab: Lab, ip: str, since: float) -> Mapping[str, Any]:
    """What a node's kernel answered when it let go of an address, a while before or after which it lets go of others."""
    name = next(n for n, a in lab.layout.vips if a == ip)

    def told() -> list[float]:
        found = [e for e in own.entries if e["event"] == "released" and e["vip"] == name]
        return [e["monotonic"] for e in found if e["monotonic"] > since]

    lab.until(lambda: bool(told()), within_s=WITHIN_SECONDS, story=f"{name} was released")
    answers = [e for e in own.entries if e["event"] == "kernel" and e["removed"] != "0"]
    return max((e for e in answers if since < e["monotonic"] <= told()[0]), key=lambda e: e["monotonic"])


def vips_of(lab: Lab, node: str) -> list[str]:
    """The addresses that a node's kernel alone has."""
    return sorted(a for _, a in lab.layout.vips if lab.holders(a) == {node})


def table(traces: Sequence[Trace]) -> str:
    """As Markdown."""
    rows = [f"| {t.title}: {part} | {ms(values)} | {len(values)} |" for t in traces for part, values in t.parts.items()]
    return "\n".join(["| | median (smallest – largest) | n |", "|---|---|---|", *rows])


def charts(traces: Sequence[Trace], machine: str) -> dict[str, str]:
    """The picture, by the name of its file; none without traces."""
    panels = [Panel(t.title, t.parts) for t in traces if t.parts]
    if not panels:
        return {}
    return {
        "takeover.svg": steps("Where the time goes", f"Medians of the VIP that was dark for longest. {machine}", panels)
    }
