"""Members that come and go: the more often one came of late, the longer it has to stay before balance gives it anything.

Who comes, and who comes back once, waits `settle`; each time more doubles that, six times at most, and one time is
forgotten in every FORGOTTEN_AFTER × `settle`. A restart that was announced does not count. It is counted by those who stayed, if they are at least half of the view:
of two halves that meet the smaller one has come back. A member that was away itself is told by the others' States, so a
flapping representative knows how it is with itself. An operator's `balance` forgets it all. Nothing of this is agreed: it only says what the representative proposes.
"""

from __future__ import annotations

from collections.abc import Iterable

from .model import MEMBERS_MAX, NodeId

DOUBLINGS_MAX = 6
FORGOTTEN_AFTER = 60
"""Times `settle`: with 10 s, once in ten minutes is no flapping."""
JOINS_MAX = DOUBLINGS_MAX + 2
"""More are not counted."""

Joins = tuple[tuple[NodeId, int, int], ...]
"""Member, how often it came of late, and when that was noted last (ms); ascending."""


def times(joins: Joins, node: NodeId, settle_ms: int, now_ms: int) -> int:
    """How often a member came of late, as of now."""
    for member, count, at_ms in joins:
        if member == node and settle_ms:
            return max(0, count - (now_ms - at_ms) // (FORGOTTEN_AFTER * settle_ms))
    return 0


def noted(joins: Joins, counts: Iterable[tuple[NodeId, int]], settle_ms: int, now_ms: int) -> Joins:
    """With these counts, where they are greater; without those that are forgotten. Where nobody has to settle, none."""
    if not settle_ms:
        return ()
    kept = {n: (count, at) for n, count, at in joins if times(joins, n, settle_ms, now_ms)}
    for node, count in sorted(counts, key=lambda of: of[1]):  # the greatest word on a member comes last
        if count > times(joins, node, settle_ms, now_ms):
            kept[node] = (min(count, JOINS_MAX), now_ms)
    latest = sorted(kept.items(), key=lambda kv: (-kv[1][1], kv[0]))[:MEMBERS_MAX]
    return tuple(sorted((node, count, at) for node, (count, at) in latest))


def patience_ms(joins: Joins, node: NodeId, settle_ms: int, now_ms: int) -> int:
    """How long a member must have stayed."""
    return settle_ms << min(max(times(joins, node, settle_ms, now_ms) - 2, 0), DOUBLINGS_MAX)
