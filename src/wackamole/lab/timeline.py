"""The picture of a fail-over: nodes as lanes, VIPs as bars, silences marked (SVG 1.1, no library needed for so little)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, LEFT, RIGHT, TOP = 1000, 92, 20, 64
BAR, GAP, LANE_GAP = 9, 2, 16
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7")
RED = "#d62728"

Span = tuple[float, float]


def held(owners: Sequence[tuple[float, str]], silent: Sequence[Span], end: float) -> list[tuple[str, float, float]]:
    """Who answered for an address, from when to when: from one owner to the next, without the silences."""
    found: list[tuple[str, float, float]] = []
    for index, (start, node) in enumerate(owners):
        stop = owners[index + 1][0] if index + 1 < len(owners) else end
        for began, over in silent:
            if start < over and began < stop:
                if began > start:
                    found.append((node, start, began))
                start = max(start, min(over, stop))
        if stop > start:
            found.append((node, start, stop))
    return found


def svg(
    title: str,
    nodes: Sequence[str],
    vips: Mapping[str, str],
    owners: Mapping[str, Sequence[tuple[float, str]]],
    silent: Mapping[str, Sequence[Span]],
    marks: Sequence[tuple[float, str]],
    span: Span,
) -> str:
    """Draw it. `vips`: address → name; `marks`: what was done, when; times in seconds of one clock."""
    begin, end = span
    lane = len(vips) * (BAR + GAP) + LANE_GAP
    height = TOP + lane * (len(nodes) + 1) + 44
    scale = (WIDTH - LEFT - RIGHT) / (end - begin)
    colours = {ip: COLOURS[i % len(COLOURS)] for i, ip in enumerate(vips)}

    def x(at: float) -> float:
        return round(LEFT + (min(max(at, begin), end) - begin) * scale, 2)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        "<style>text { font: 12px system-ui, sans-serif; fill: #222 }</style>",
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" style="font-size: 15px; font-weight: 600">{escape(title)}</text>',
    ]
    for row, lane_name in enumerate((*nodes, "silent")):
        y = TOP + row * lane
        out.append(
            f'<rect x="{LEFT}" y="{y - 4}" width="{WIDTH - LEFT - RIGHT}" height="{lane - LANE_GAP + 6}" fill="#f5f5f5"/>'
        )
        colour = RED if lane_name == "silent" else "#222"
        out.append(
            f'<text x="{LEFT - 12}" y="{y + (lane - LANE_GAP) / 2 + 4}" text-anchor="end"'
            f' style="font-weight: 600; fill: {colour}">{escape(lane_name)}</text>'
        )
    for sub, (ip, name) in enumerate(vips.items()):
        offset = sub * (BAR + GAP)
        for node, start, stop in held(owners.get(ip, ()), silent.get(ip, ()), end):
            if node in nodes and stop > begin:
                y = TOP + nodes.index(node) * lane + offset
                wide = max(0.6, x(stop) - x(start))
                out.append(
                    f'<rect x="{x(start)}" y="{y}" width="{wide:.2f}" height="{BAR}" fill="{colours[ip]}">'
                    f"<title>{escape(f'{name} ({ip}) on {node}')}</title></rect>"
                )
        for start, stop in silent.get(ip, ()):
            if stop > begin and start < end:
                y = TOP + len(nodes) * lane + offset
                wide = max(1.5, x(stop) - x(start))
                label = f"{(stop - start) * 1000:.0f} ms"
                out.append(
                    f'<rect x="{x(start)}" y="{y}" width="{wide:.2f}" height="{BAR}" fill="{RED}">'
                    f"<title>{escape(f'{name} ({ip}) silent for {label}')}</title></rect>"
                    f'<text x="{x(stop) + 3}" y="{y + BAR - 1}" style="font-size: 9px; fill: {RED}">{escape(name)} {label}</text>'
                )
    bottom = TOP + lane * (len(nodes) + 1) - LANE_GAP + 4
    for index, (at, text) in enumerate(marks):
        out.append(
            f'<line x1="{x(at)}" y1="{TOP - 10}" x2="{x(at)}" y2="{bottom}" stroke="#555" stroke-dasharray="3 3"/>'
            f'<text x="{x(at) + 3}" y="{TOP - 12 - 12 * (index % 2)}" style="font-size: 11px">{escape(text)}</text>'
        )
    step = max(1, round((end - begin) / 12))
    for second in range(0, int(end - begin) + 1, step):
        at = x(begin + second)
        out.append(
            f'<text x="{at}" y="{bottom + 16}" text-anchor="middle" style="font-size: 10px; fill: #666">{second} s</text>'
        )
    names = "  ".join(
        f'<tspan style="fill: {colours[ip]}">■</tspan> {escape(name)} {escape(ip)} ' for ip, name in vips.items()
    )
    out.append(f'<text x="{LEFT}" y="{bottom + 34}" style="font-size: 10px">{names}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
