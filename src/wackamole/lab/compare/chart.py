"""Bars on a logarithmic scale: a row for each system, its median as the bar, a dot for every run (SVG 1.1, no library
needed for so little). Legible on light and dark pages; the numbers stand in the picture, so nothing depends on colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 900, 210, 150, 74, 34, 18
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .note, .tick { font-size: 11px; fill: #59636e }
.page { fill: #ffffff } .grid { stroke: #d1d9e0 } .ours { fill: #1a7f37 } .peer { fill: #6e7781 } .run { fill: #1f2328; fill-opacity: .55 }
.mine { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note, .tick { fill: #9198a1 } .page { fill: #0d1117 } .grid { stroke: #3d444d }
  .ours { fill: #3fb950 } .peer { fill: #8b949e } .run { fill: #ffffff; fill-opacity: .6 }
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A system's values, one for each run."""

    title: str
    ours: bool
    values: tuple[float, ...]
    median: float


def bars(title: str, note: str, unit: str, rows: Sequence[Bar]) -> str:
    """Draw it; the smallest on top. A value of nothing is drawn at the left edge."""
    found = sorted(rows, key=lambda b: b.median)
    height = TOP + ROW * len(found) + 34
    positive = [v for b in found for v in b.values if v > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive) * 1.05))
    high = max(high, low + 1)

    def x(value: float) -> float:
        place = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return round(LEFT + max(0.0, place) * (WIDTH - LEFT - RIGHT), 1)

    told = "; ".join(f"{b.title} {number(b.median)} {unit}" for b in found)
    out = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            ' role="img" aria-labelledby="title desc">'
        ),
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(f"{note} Medians: {told}.")}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="title" x="20" y="30">{escape(title)}</text>',
        f'<text class="note" x="20" y="50">{escape(note)}</text>',
    ]
    bottom = TOP + ROW * len(found)
    for power in range(low, high + 1):
        at = x(10.0**power)
        out.append(f'<line class="grid" x1="{at}" y1="{TOP - 8}" x2="{at}" y2="{bottom}"/>')
        out.append(
            f'<text class="tick" x="{at}" y="{bottom + 18}" text-anchor="middle">{number(10.0**power)} {unit}</text>'
        )
    for index, bar in enumerate(found):
        y = TOP + index * ROW
        middle = y + BAR / 2
        mine = ' class="mine"' if bar.ours else ""
        out += [
            f'<text{mine} x="{LEFT - 10}" y="{middle + 5}" text-anchor="end">{escape(bar.title)}</text>',
            (
                f'<rect class="{"ours" if bar.ours else "peer"}" x="{LEFT}" y="{y}" width="{max(2.0, x(bar.median) - LEFT):.1f}"'
                f' height="{BAR}" rx="2"/>'
            ),
            *(f'<circle class="run" cx="{x(v)}" cy="{middle}" r="2.5"/>' for v in bar.values),
            f'<text{mine} x="{max(x(v) for v in bar.values) + 9}" y="{middle + 5}">{number(bar.median)} {unit}</text>',
        ]
    return "\n".join([*out, "</svg>", ""])


def number(value: float) -> str:
    """As in a text: 12 345, 123, 12.3, 1.23."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
