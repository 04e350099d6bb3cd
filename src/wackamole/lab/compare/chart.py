"""Bars on a logarithmic scale: a row for each system, its median as the bar, a dot for every run (SVG 1.1, no library
needed for so little). Legible on light and dark pages; the numbers stand in the picture, so nothing depends on colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..picture import WIDTH, opened

LEFT, RIGHT, TOP, ROW, BAR, DOUBLE = 210, 190, 74, 34, 18, 7
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .note, .tick { font-size: 11px; fill: #59636e }
.page { fill: #ffffff } .grid { stroke: #d1d9e0 } .ours { fill: #1a7f37 } .peer { fill: #6e7781 } .run { fill: #1f2328; fill-opacity: .55 }
.mine { font-weight: 600 } .double { fill: #bc4c00 } .told { font-size: 11px; fill: #bc4c00 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note, .tick { fill: #9198a1 } .page { fill: #0d1117 } .grid { stroke: #3d444d }
  .double, .told { fill: #f0883e } .ours { fill: #3fb950 } .peer { fill: #8b949e } .run { fill: #ffffff; fill-opacity: .6 }
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A system's values, one for each run."""

    title: str
    ours: bool
    values: tuple[float, ...]
    median: float
    double: float | None = None
    """How long there were two owners, drawn below it; None: not told."""
    cut_off: bool = False
    """Whether it had not ended when the watching did."""

    def told(self, unit: str) -> str:
        """Its median, in words."""
        return f"{'≥ ' if self.cut_off else ''}{number(self.median)} {unit}"


def bars(title: str, note: str, unit: str, rows: Sequence[Bar]) -> str:
    """Draw it; the smallest on top. A value of nothing is drawn at the left edge. `note` may have several lines."""
    found = sorted(rows, key=lambda b: b.median)
    row = ROW + (DOUBLE + 5 if any(b.double is not None for b in found) else 0)
    notes = note.split("\n")
    top = TOP + 16 * (len(notes) - 1)
    height = top + row * len(found) + 34
    positive = [v for b in found for v in (*b.values, b.double or 0.0) if v > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive) * 1.05))
    high = max(high, low + 1)

    def x(value: float) -> float:
        place = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return round(LEFT + max(0.0, place) * (WIDTH - LEFT - RIGHT), 1)

    told = "; ".join(
        f"{b.title} {b.told(unit)}" + ("" if b.double is None else f" (two owners {number(b.double)} {unit})")
        for b in found
    )
    out = opened(title, notes, f"Medians: {told}", height, STYLE)
    bottom = top + row * len(found)
    for power in range(low, high + 1):
        at = x(10.0**power)
        out.append(f'<line class="grid" x1="{at}" y1="{top - 8}" x2="{at}" y2="{bottom}"/>')
        out.append(
            f'<text class="tick" x="{at}" y="{bottom + 18}" text-anchor="middle">{number(10.0**power)} {unit}</text>'
        )
    for index, bar in enumerate(found):
        y = top + index * row
        middle = y + BAR / 2
        mine = ' class="mine"' if bar.ours else ""
        out += [
            f'<text{mine} x="{LEFT - 10}" y="{middle + 5}" text-anchor="end">{escape(bar.title)}</text>',
            (
                f'<rect class="{"ours" if bar.ours else "peer"}" x="{LEFT}" y="{y}" width="{max(2.0, x(bar.median) - LEFT):.1f}"'
                f' height="{BAR}" rx="2"/>'
            ),
            *(f'<circle class="run" cx="{x(v)}" cy="{middle}" r="2.5"/>' for v in bar.values),
            f'<text{mine} x="{max(x(v) for v in bar.values) + 9}" y="{middle + 5}">{bar.told(unit)}</text>',
        ]
        if bar.double is not None:
            below, end = y + BAR + 2, x(bar.double) if bar.double > 0 else LEFT
            said = f"two owners {number(bar.double)} {unit}" if bar.double > 0 else "never two owners"
            out += [
                f'<rect class="double" x="{LEFT}" y="{below}" width="{end - LEFT:.1f}" height="{DOUBLE}" rx="2"/>',
                f'<text class="{"told" if bar.double > 0 else "tick"}" x="{end + 9}" y="{below + 9}">{said}</text>',
            ]
    return "\n".join([*out, "</svg>", ""])


def number(value: float) -> str:
    """As in a text: 12 345, 123, 12.3, 1.23."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
