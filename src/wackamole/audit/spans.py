"""Times as sorted, disjoint intervals [since, until), in microseconds."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]
_BEFORE_ALL, _AFTER_ALL = -(2**63), 2**63


def union(spans: Iterable[Span]) -> list[Span]:
    """All of them as sorted, disjoint intervals."""
    found: list[Span] = []
    for a, b in sorted(spans):
        if a >= b:
            continue
        if found and a <= found[-1][1]:
            found[-1] = (found[-1][0], max(b, found[-1][1]))
        else:
            found.append((a, b))
    return found


def common_part(one: list[Span], other: list[Span]) -> list[Span]:
    """What is in both."""
    found = []
    i = j = 0
    while i < len(one) and j < len(other):
        a, b = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if a < b:
            found.append((a, b))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return found


def without(one: list[Span], other: list[Span]) -> list[Span]:
    """What is in the first only."""
    edges = [_BEFORE_ALL, *(t for span in other for t in span), _AFTER_ALL]
    return common_part(one, list(zip(edges[::2], edges[1::2], strict=True)))


def length(spans: Iterable[Span]) -> int:
    """How long they are together."""
    return sum(b - a for a, b in spans)
