"""How much of the work each member should have, and what of a host's load the others are told.

A rule of shares gets the members as they were delivered and returns one whole number for each. The three that come with
the program are here; an entry point of the operator's own has the same shape.

**Loads come to rest.** Where loads follow the VIPs, balancing by loads is a feedback loop, and a naive one swings for ever.
Suppose that a host's load is e + n/c: something of its own, and n, what its VIPs count for, on a machine of size c. A VIP
that counts for a goes from s to t only if load(t) · (1+h)² < load(s) · (n(s)-a)/n(s), h being the hysteresis. As e ≥ 0, the
right side is at most what s has left afterwards; so every such move lowers the sum over all hosts of e·n + (n² - Σa²)/2c.
That sum cannot fall for ever. The factor (1+h)² is for loads that are announced up to h beside the truth, and the pause
after each move lets them follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import By, Sharer, ShareRule, Shares

LOAD_MAX = 1_000_000
"""Hundredths; more is announced as this."""
CALM, BUSY = 25, 50
"""Hundredths. Nobody below BUSY is relieved: its load counts as BUSY, and so calm clusters share by weight. Who is CALM may
always take one more that counts for no more than all it has; since a VIP of its own kind at most doubles its load, it is not
relieved of it again at once."""
FACTOR_MIN, FACTOR_MAX = 25, 400
"""Percent by which a load changes a share."""


def by_count(sharers: tuple[Sharer, ...]) -> tuple[int, ...]:
    """The same for all that may hold anything."""
    return tuple(100 * min(s.weight, 1) for s in sharers)


def by_weight(sharers: tuple[Sharer, ...]) -> tuple[int, ...]:
    """As the config says."""
    return tuple(100 * s.weight for s in sharers)


def by_load(sharers: tuple[Sharer, ...]) -> tuple[int, ...]:
    """Weights, divided by each member's load beside the mean: twice the mean is half the share. Unknown is the mean."""
    known = [max(s.load, BUSY) for s in sharers if s.load is not None]
    mean = sum(known) // len(known) if known else BUSY
    return tuple(
        s.weight * max(FACTOR_MIN, min(FACTOR_MAX, 100 * mean // max(mean if s.load is None else s.load, BUSY)))
        for s in sharers
    )


RULES: dict[By, ShareRule] = {By.COUNT: by_count, By.WEIGHT: by_weight, By.LOAD: by_load}


def relieves(target: tuple[int, int], source: tuple[int, int], size: int, hysteresis: int) -> bool:
    """Whether it is a relief if a VIP that counts for `size` goes from one member to another; each is its load and what it
    holds. Never of all that it holds."""
    (load, has), (source_load, held) = target, source
    if load <= CALM and size <= max(1, has) and size < held:
        return True
    return load * held * (100 + hysteresis) ** 2 < source_load * (held - size) * 100**2


@dataclass(frozen=True, slots=True)
class Load:
    """This host's load: smoothed (thousandths of a hundredth), what the others are told (hundredths), and when it was measured."""

    smoothed: int | None = None
    announced: int | None = None
    at_ms: int = 0


def measured(load: Load, figure: int | None, now_ms: int, shares: Shares) -> Load:
    """A new measurement, in hundredths. What is announced changes only by more than the hysteresis, of CALM at least."""
    if figure is None:
        return Load(at_ms=now_ms)
    exact = 1000 * max(0, min(figure, LOAD_MAX))
    if load.smoothed is not None:
        passed_ms = max(0, now_ms - load.at_ms)
        exact = load.smoothed + (exact - load.smoothed) * passed_ms // max(1, passed_ms + shares.smoothing_ms)
    rounded, told = (exact + 500) // 1000, load.announced
    if told is None or abs(rounded - told) * 100 > shares.hysteresis * max(told, CALM):
        told = rounded
    return Load(exact, told, now_ms)
