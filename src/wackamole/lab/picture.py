"""How the charts of measurements begin: a page with a title, notes, and the same in words for who cannot see it (SVG 1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH = 900


def opened(title: str, notes: Sequence[str], described: str, height: int, style: str) -> list[str]:
    """The first lines of a picture of this height; `described`: what it shows, in words."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"',
        'role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(" ".join([*notes, described]))}.</desc>',
        f"<style>{style}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="title" x="20" y="30">{escape(title)}</text>',
        *(f'<text class="note" x="20" y="{50 + 16 * i}">{escape(line)}</text>' for i, line in enumerate(notes)),
    ]
