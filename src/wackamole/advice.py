"""What members tell each other beside what is agreed. The core never sees it, and no digest and no count of messages has it:
it may be lost, come twice or be false, and nobody holds another VIP for that.
"""

from __future__ import annotations

from dataclasses import dataclass

from .core.model import VipKey

NEIGHBOURS_MAX = 1024
"""Of one message, about 30 kB; Linux keeps as many by default (gc_thresh3)."""
SEGMENTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbours on one network. `vip`: the address of a VIP that belongs there; by it every member finds its own interface."""

    vip: str
    known: tuple[tuple[bytes, bytes], ...]  # IP address (4 or 16 bytes), hardware address (6 bytes)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The neighbours that the sender's kernel knows where VIPs are: whoever acquires one may tell them where it is now."""

    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Arrived:
    """The sender's kernel has these VIPs, which were handed over to it, and has announced them: who has more to hand over may
    go on. Said only where every member keeps orders: those understand it."""

    vips: tuple[VipKey, ...]
