"""What something consists of, as steps one after the other: a panel for each, on a scale of its own (SVG 1.1, no library
needed for so little). Legible on light and dark pages; the numbers stand beside the bars, so nothing depends on colour."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .picture import WIDTH, opened

LEFT, RIGHT, TOP, ROW, BAR, HEAD = 270, 180, 64, 22, 14, 34
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .head { font-weight: 600 } .note, .spread { font-size: 11px; fill: #59636e }
.page { fill: #ffffff } .lane { stroke: #d1d9e0 } .part { fill: #1a7f37 } .spread-line { stroke: #1f2328; stroke-opacity: .55 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note, .spread { fill: #9198a1 } .page { fill: #0d1117 } .lane { stroke: #3d444d }
  .part { fill: #3fb950 } .spread-line { stroke: #ffffff; stroke-opacity: .6 }
}"""


@dataclass(frozen=True, slots=True)
class Panel:
    """Something, and for each of its parts, in order, how long it took in each round (ms; at least one round)."""

    title: str
    parts: Mapping[str, Sequence[float]]


def steps(title: str, note: str, panels: Sequence[Panel]) -> str:
    """Draw them. A bar is as long as the median, and begins where the last one ends; a line goes from the smallest to the
    largest."""
    height = TOP + sum(HEAD + ROW * len(p.parts) for p in panels) + 14
    told = "; ".join(f"{p.title}: " + ", ".join(f"{k} {ms(v)}" for k, v in p.parts.items()) for p in panels)
    out = opened(title, [note], told, height, STYLE)
    y = TOP
    for panel in panels:
        out += _panel(panel, y)
        y += HEAD + ROW * len(panel.parts)
    return "\n".join([*out, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    medians = {part: max(0.0, statistics.median(values)) for part, values in panel.parts.items()}
    whole = sum(medians.values())
    scale = (WIDTH - LEFT - RIGHT) / (whole or 1.0)
    out = [
        f'<text class="head" x="20" y="{top + 22}">{escape(panel.title)}</text>',
        f'<text class="head" x="{WIDTH - RIGHT + 10}" y="{top + 22}">{whole:.1f} ms</text>',
    ]
    at = 0.0
    for row, (part, values) in enumerate(panel.parts.items()):
        y = top + HEAD + row * ROW
        middle = y + BAR / 2
        x, wide = LEFT + at * scale, medians[part] * scale
        low, high = (min(WIDTH - RIGHT, x + max(0.0, v) * scale) for v in (min(values), max(values)))
        out += [
            f'<line class="lane" x1="{LEFT}" y1="{middle}" x2="{WIDTH - RIGHT}" y2="{middle}"/>',
            f'<text x="{LEFT - 10}" y="{middle + 5}" text-anchor="end">{escape(part)}</text>',
            f'<rect class="part" x="{x:.1f}" y="{y}" width="{max(1.5, wide):.1f}" height="{BAR}" rx="2"/>',
            f'<line class="spread-line" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>',
            f'<text class="spread" x="{WIDTH - RIGHT + 10}" y="{middle + 4}">{ms(values)}</text>',
        ]
        at += medians[part]
    return out


def ms(values: Sequence[float]) -> str:
    """The median, and the smallest and largest value."""
    return f"{statistics.median(values):.2f} ms ({min(values):.2f} – {max(values):.2f})"
