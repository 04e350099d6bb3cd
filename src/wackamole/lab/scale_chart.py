"""Points and the lines through them, both scales logarithmic (SVG 1.1, no library needed for so little). Legible on light and
dark pages; what a line is stands beside it, so nothing depends on colour alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .picture import WIDTH, opened

HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 70, 230, 74, 50
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .note, .tick { font-size: 11px; fill: #59636e }
.page { fill: #ffffff } .grid { stroke: #d1d9e0 } .line { fill: none; stroke-width: 1.5 } .goal { stroke-dasharray: 5 4 }
.s0 { stroke: #1a7f37; fill: #1a7f37 } .s1 { stroke: #0969da; fill: #0969da } .s2 { stroke: #9a6700; fill: #9a6700 }
.s3 { stroke: #6e7781; fill: #6e7781 } text.s0, text.s1, text.s2, text.s3 { stroke: none } .line { fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note, .tick { fill: #9198a1 } .page { fill: #0d1117 } .grid { stroke: #3d444d }
  .s0 { stroke: #3fb950; fill: #3fb950 } .s1 { stroke: #58a6ff; fill: #58a6ff } .s2 { stroke: #d29922; fill: #d29922 }
  .s3 { stroke: #8b949e; fill: #8b949e }
}"""


@dataclass(frozen=True, slots=True)
class Series:
    """What is drawn in one colour: a dot for each value, and a line. `dashed`: a goal, which has no dots."""

    title: str
    dots: tuple[tuple[float, float], ...]
    line: tuple[tuple[float, float], ...]
    dashed: bool = False


def plot(title: str, note: str, across: str, up: str, series: Sequence[Series]) -> str:
    """Draw it. Values must be above 0; `across` and `up` are what the axes count."""
    places = [p for s in series for p in (*s.dots, *s.line)]
    x_low, x_high = _decades([x for x, _ in places])
    y_low, y_high = _decades([y for _, y in places])

    def at(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        down = (y_high - math.log10(y)) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + right, 1), round(TOP + down, 1)

    out = [
        *opened(title, [note], "; ".join(s.title for s in series), HEIGHT, STYLE),
        f'<text class="tick" x="{LEFT - 8}" y="{TOP - 8}" text-anchor="end">{escape(up)}</text>',
        f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 12}" text-anchor="end">{escape(across)}</text>',
    ]
    for power in range(x_low, x_high + 1):
        x, _ = at(10.0**power, 10.0**y_low)
        out.append(f'<line class="grid" x1="{x}" y1="{TOP}" x2="{x}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{10**power:g}</text>')
    for power in range(y_low, y_high + 1):
        _, y = at(10.0**x_low, 10.0**power)
        out.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        out.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>')
    labels = _apart([at(*s.line[-1])[1] for s in series])
    for number, (one, label) in enumerate(zip(series, labels, strict=True)):
        path = " ".join(f"{x},{y}" for x, y in (at(*p) for p in one.line))
        goal = " goal" if one.dashed else ""
        out.append(f'<polyline class="s{number % 4} line{goal}" points="{path}"/>')
        out += [f'<circle class="s{number % 4}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in (at(*p) for p in one.dots)]
        end, _ = at(*one.line[-1])
        out.append(f'<text class="s{number % 4}" x="{end + 10}" y="{label + 4}">{escape(one.title)}</text>')
    return "\n".join([*out, "</svg>", ""])


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _apart(places: Sequence[float]) -> list[float]:
    """Moved down where they would lie upon each other."""
    found = list(places)
    last = float("-inf")
    for number in sorted(range(len(places)), key=lambda n: places[n]):
        last = found[number] = max(places[number], last + 16)
    return found
