"""Many VIPs, many nodes: what a take-over takes beyond the membership event, and what it costs to wait (docs/benchmarks.md).

Above a thousand addresses a client's own neighbour table is too small to judge by. So what counts is seen from another
host's interface: the moment at which each address was first announced by its new holder. What is the kernel's own (it looks
through an interface's whole list of addresses for each that it adds) is measured apart, on an interface that nobody uses.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..shell.kernel.claims import ETH_P_ARP
from ..shell.kernel.rtnl import Placed, Rtnl
from .lab import CLIENT, OBSERVER, Lab
from .namespaces import opened_in
from .scale_chart import Series, plot
from .tap import JEQ, JEQ_X, LD, LDH, RET, TAX, Tap

BUFFER_BYTES, SNAP_BYTES = 256 << 20, 42
REPEATED_SECONDS = 4.0
"""Announcements are repeated for so long."""
WITHIN_SECONDS = 60.0
_NOBODY: dict[str, dict[str, list[str]]] = {"view": {"members": []}}
GRATUITOUS = (  # classic BPF: ARP requests whose sender's and target's address are one
    (LDH, 0, 0, 20),
    (JEQ, 0, 4, 1),
    (LD, 0, 0, 28),
    (TAX, 0, 0, 0),
    (LD, 0, 0, 38),
    (JEQ_X, 1, 0, 0),
    (RET, 0, 0, 0),
    (RET, 0, 0, SNAP_BYTES),
)


@dataclass
class Size:
    """A cluster, and what was measured there. `goal_ms`: until the last VIP is announced, after the membership event."""

    nodes: int
    vips: int
    goal_ms: float | None
    last_ms: list[float] = field(default_factory=list)
    outage_ms: list[float] = field(default_factory=list)
    outage_median_ms: list[float] = field(default_factory=list)
    kernel_ms: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)  # CPU of a core, %

    @property
    def name(self) -> str:
        """As rows of the table begin."""
        return f"{self.vips} VIPs on {self.nodes} nodes"


SIZES: tuple[tuple[int, int, float | None], ...] = (
    (3, 10, 5.0),
    (3, 200, 25.0),
    (3, 1000, 100.0),
    (3, 4000, None),
    (3, 10_000, 1000.0),
    (16, 160, None),
)
"""Nodes, VIPs and the goal, ms."""
NODES = 3
"""What is plotted against VIPs."""
DETECTION_OF_MANY = "2s"
"""Of more nodes: so many real-time processes on two cores hold each other up for longer than a detection that suits three."""
IDLE_VIPS_MAX = 1000
"""With more the members are still looking for minutes whether each VIP is answered for, 20 a second."""


class Capture(Tap):
    """Announcements as the client's interface sees them."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(
            lab.layout.namespace(CLIENT),
            ETH_P_ARP,
            GRATUITOUS,
            snap_bytes=SNAP_BYTES,
            buffer_bytes=BUFFER_BYTES,
            interface="eth0",
        )

    def first(self) -> dict[tuple[str, str], float]:
        """Of what came since it was asked last: when each address was first announced by each hardware address."""
        found: dict[tuple[str, str], float] = {}
        for frame, at, _ in self.frames():
            found.setdefault((socket.inet_ntoa(frame[28:32]), frame[6:12].hex(":")), at)
        return found


def start(lab: Lab) -> None:
    """All nodes; of many one after the other. Sixteen rings that meet at once, all in real time, starve two cores."""
    if len(lab.layout.nodes) <= NODES:
        lab.start_all()
        return
    for number, node in enumerate(lab.layout.nodes, 1):
        lab.start(node)
        lab.until(
            lambda node=node, number=number: len((lab.status(node) or _NOBODY)["view"]["members"]) == number,  # type: ignore[misc]
            within_s=WITHIN_SECONDS,
            story=f"{node} joins",
        )


def all_held(lab: Lab, nodes: Sequence[str]) -> bool:
    """Whether these kernels have every VIP between them."""
    return sum(len(lab.kernel(n)) for n in nodes) == len(lab.layout.vips)


def take_over(lab: Lab, capture: Capture, node: str, size: Size) -> None:
    """A node crashes; measured is what its VIPs' new holders announce. AssertionError if one of them is not announced."""
    rest = [n for n in lab.layout.nodes if n != node]
    macs = lab.macs()
    lost = lab.kernel(node)
    capture.first()
    began = lab.power_off(node)
    lab.until(lambda: all_held(lab, rest), within_s=WITHIN_SECONDS, story="the others have everything")
    time.sleep(REPEATED_SECONDS)
    announced = {key: at for key, at in capture.first().items() if key[0] in lost and at > began}
    views = {macs[n]: _view_after(lab, n, began) for n in rest}
    first: dict[str, float] = {}
    for (address, _), at in announced.items():
        first[address] = min(at, first.get(address, at))
    assert first.keys() == lost, f"{len(lost - first.keys())} VIPs were not announced"
    size.last_ms.append(max(at - views[mac] for (_, mac), at in announced.items()) * 1000)
    outages = [(at - began) * 1000 for at in first.values()]
    size.outage_ms.append(max(outages))
    size.outage_median_ms.append(statistics.median(outages))


def _view_after(lab: Lab, node: str, since: float) -> float:
    return float(next(e["monotonic"] for e in lab.records(node, since) if e["event"] == "view"))


def kernel_alone(lab: Lab, size: Size) -> None:
    """What one survivor's share takes the kernel alone, after what it has already."""
    has, takes = size.vips // size.nodes, -(-size.vips // size.nodes // (size.nodes - 1))
    rtnl = opened_in(lab.layout.namespace(OBSERVER), Rtnl)
    try:
        index = next(link.index for link in rtnl.links() if link.name == "lo")
        placed = [Placed(bytes((10, 99, i >> 8, i & 255)), 32, index) for i in range(has + takes)]
        rtnl.add(placed[:has])
        began = time.monotonic()
        refused = rtnl.add(placed[has:])
        size.kernel_ms.append((time.monotonic() - began) * 1000)
        assert not refused, refused
        rtnl.delete(placed)
    finally:
        rtnl.close()


@dataclass(frozen=True, slots=True)
class Fit:
    """A straight line through points, by least squares."""

    slope: float
    start: float

    def at(self, x: float) -> float:
        """Its height there."""
        return self.start + self.slope * x


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """Raises StatisticsError for fewer than two places."""
    slope, start = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    return Fit(slope, start)


def ours(size: Size) -> float:
    """What is not the kernel's list, ms: all survivors of a lab share one machine's kernel, which adds one at a time."""
    return max(0.0, statistics.median(size.last_ms) - statistics.median(size.kernel_ms) * (size.nodes - 1))


def charts(sizes: Sequence[Size], machine: str) -> dict[str, str]:
    """File names and what is in them: outage and CPU against VIPs, on three nodes."""
    found: dict[str, str] = {}
    few = sorted((s for s in sizes if s.nodes == NODES and s.last_ms), key=lambda s: s.vips)
    if len(few) > 1:
        found["scale-outage.svg"] = _outage_chart(few, machine)
    idle = [s for s in few if s.idle]
    if len(idle) > 1:
        line = fit([(s.vips, v) for s in idle for v in s.idle])
        dots = tuple((float(s.vips), v) for s in idle for v in s.idle)
        title = f"{line.start:.1f} % + {line.slope * 1000:.2f} % per 1000 VIPs"
        drawn = Series(title, dots, tuple((float(s.vips), max(line.at(s.vips), 0.01)) for s in idle))
        found["scale-idle.svg"] = plot("CPU of an idle daemon", machine, "VIPs in all", "% of a core", [drawn])
    return found


def _outage_chart(few: Sequence[Size], machine: str) -> str:
    own = [(float(s.vips), ours(s)) for s in few]
    line = fit(own)
    goals = tuple((float(s.vips), s.goal_ms) for s in few if s.goal_ms is not None)
    lasts = tuple((float(s.vips), v) for s in few for v in s.last_ms)
    series = [
        Series("the last VIP announced", lasts, tuple((float(s.vips), statistics.median(s.last_ms)) for s in few)),
        Series(
            f"ours: {line.start:.0f} ms + {line.slope * 1000:.0f} ms per 1000",
            tuple((x, max(y, 0.1)) for x, y in own),
            tuple((x, max(line.at(x), 0.1)) for x, _ in own),
        ),
        Series(
            "the kernel's list, one survivor",
            tuple((float(s.vips), v) for s in few for v in s.kernel_ms),
            tuple((float(s.vips), statistics.median(s.kernel_ms)) for s in few),
        ),
        Series("goal", (), goals, dashed=True),
    ]
    title = "From the membership event until an address is announced, three nodes"
    return plot(title, machine, "VIPs in all", "ms", series)
