"""Proves or refutes the promises P1 and P2 for a period, from the records of a cluster's members. Pure: lines in, report out.

    lines ─► runs ─► segments (where a member stood) ─► pieces (what it served) ─┬─► P1: overlaps of two hosts' pieces
    reading.py   │   standing.py                                                 │   promises.py
                 └─► messages ─► bounds between clocks (clocks.py) ──────────────┴─► P2: time that no piece covers

Two measures are taken of everything. What a host *surely* served: its kernel had been read back, it was not yet asked to
let go, the fence was surely open. What it *may* have served: from the request to have the address to the confirmation that
it is gone, and after a silent end until the last lease has run out. A promise is proved if it holds whatever may have
been, refuted if it is broken by what surely was, and undecided in between.

No two clocks are trusted to agree. A message that one member sent at s by its clock and another was given at d by its own
bounds the one clock by the other; between messages clocks go at most DRIFT_PPM apart (docs/audit.md).
"""

from __future__ import annotations

from .promises import Alignment, Kind, Overlap, Report, Uncovered, Verdict, audit
from .reading import AuditRefused

__all__ = ["Alignment", "AuditRefused", "Kind", "Overlap", "Report", "Uncovered", "Verdict", "audit"]
