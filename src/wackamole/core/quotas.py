"""Fair shares in whole numbers: what each member should hold of everything, within what it may hold.

A share is the exact proportion by weight, but no less than what only this member may have and no more than what it may
have at all or has room for; what others cannot take is shared by the rest, in proportion again. Rounded down; what
remains goes one by one to those who already have more, because that saves moves (Hamilton's method).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .model import NodeId

Quotas = Mapping[NodeId, int]


@dataclass(frozen=True, slots=True)
class Goal:
    """Quotas in whole numbers, and the exact proportions that they come from, as parts of `whole`."""

    quotas: Quotas
    exact: Mapping[NodeId, int]
    whole: int

    def above(self, node: NodeId, held: int) -> int:
        """By how much this is more than its quota."""
        return held - self.quotas.get(node, 0)

    def beyond(self, node: NodeId, held: int) -> int:
        """The same of its exact proportion, times the whole."""
        return held * self.whole - self.exact.get(node, 0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a member holds at `least` and at `most`."""

    least: int
    most: int


def goal(total: int, share: Mapping[NodeId, int], bounds: Mapping[NodeId, Bounds], held: Mapping[NodeId, int]) -> Goal:
    """Divide `total` by `share` within `bounds` (equal keys, ascending). `held`: who has more than its quota rounded down
    comes first when the remainders are given out."""
    fixed: dict[NodeId, int] = {}
    while True:
        free = [n for n in share if n not in fixed]
        whole, rest = sum(share[n] for n in free), total - sum(fixed.values())
        if not whole:
            fixed |= {n: bounds[n].least for n in free}
            break
        low = {n: bounds[n].least for n in free if rest * share[n] < bounds[n].least * whole}
        high = {n: bounds[n].most for n in free if rest * share[n] > bounds[n].most * whole}
        if not low and not high:
            break
        lacking = sum(least * whole - rest * share[n] for n, least in low.items())
        too_much = sum(rest * share[n] - most * whole for n, most in high.items())
        if lacking >= too_much:  # what is the more severe is certain; the other may not be so any longer then
            fixed |= low
        if too_much >= lacking:
            fixed |= high
    whole = whole or 1
    exact = {n: fixed[n] * whole if n in fixed else rest * share[n] for n in share}
    quotas = {n: part // whole for n, part in exact.items()}
    remainder = {n: part % whole for n, part in exact.items()}
    for node in sorted((n for n in quotas if remainder[n]), key=lambda n: (-(held[n] > quotas[n]), -remainder[n], n))[
        : sum(remainder.values()) // whole
    ]:
        quotas[node] += 1
    return Goal(quotas, exact, whole)
