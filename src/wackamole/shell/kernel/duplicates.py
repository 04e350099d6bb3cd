"""Other hosts that claim a VIP which is held here: counted, told, and answered.

A claim counts when the VIP is on the interface at that moment and not on its way out, and when the hardware address is none
of this host's. Members of our own cluster that claim it after a split are no exception: neighbours cannot tell them apart.

The answer is to announce the VIP again, at most once a second and without ever giving up (RFC 5227, 2.4, c). With
`withdraw_after`, who keeps claiming wins in the end: this host is not eligible for the VIP for a while, and the core hands
it to somebody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ...core.model import NotEligible, Vip, VipKey
from .claims import Claim
from .rtnl import Placed
from .surroundings import packed

CLAIMANTS_MAX = 256
"""Pairs of a VIP and a hardware address that are remembered; the one that was silent for longest is forgotten."""
ANSWER_SECONDS = 1.0
"""A VIP is answered for and told of at most once in this time."""
CLAIMS_SECONDS = 10.0
"""Claims within this time count towards `withdraw_after`, those of one ANSWER_SECONDS as one: a single announcement is
several frames, and two members that meet after a split would otherwise both withdraw."""
AWAY_SECONDS_MIN, AWAY_SECONDS_MAX = 60.0, 600.0
"""How long a VIP is withdrawn for; doubled while it happens again within AWAY_SECONDS_MAX after it came back."""
RECENT_SECONDS = 300.0
"""A claimant that was heard within this time is worth a warning."""


@dataclass(slots=True)
class Claimant:
    """One hardware address that claimed one VIP; times are of the wall clock, seconds."""

    count: int
    first: float
    last: float


@dataclass(slots=True)
class _Contest:
    """What goes on about one VIP; times are of the monotonic clock."""

    answered: float = float("-inf")
    claims: deque[float] = field(default_factory=deque)
    away_until: float = float("-inf")
    away_s: float = 0.0


Held = Callable[[], tuple[frozenset[Placed], tuple[Vip, ...]]]


class Duplicates:
    """Who else claims what is held here; all calls on the loop's thread.

    `held` tells what is on the interfaces, and which VIPs shall stay there; `macs` this host's hardware addresses.
    `withdraw_after` None: never."""

    def __init__(
        self,
        held: Held,
        macs: Callable[[], Iterable[bytes]],
        *,
        announce: Callable[[tuple[Vip, ...]], None],
        on_eligibility: Callable[[], None],
        on_record: Callable[[str, dict[str, str]], None],
        withdraw_after: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._held = held
        self._macs = macs
        self._announce = announce
        self._on_eligibility = on_eligibility
        self._on_record = on_record
        self.withdraw_after = withdraw_after
        self._clock = clock
        self._served: tuple[frozenset[Placed], tuple[Vip, ...], dict[tuple[int, bytes], Vip]] = (frozenset(), (), {})
        self._claimants: dict[tuple[VipKey, bytes], Claimant] = {}  # who was heard last comes last
        self._contests: dict[VipKey, _Contest] = {}  # of VIPs, so there are not more than of these
        self._timers: set[asyncio.TimerHandle] = set()

    def claimed(self, claim: Claim) -> None:
        """Somebody says that it has an address."""
        vip = self._serving().get((claim.index, claim.ip))
        if vip is None or claim.mac in self._macs():
            return
        wall = time.time()
        who = self._claimants.pop((vip.key, claim.mac), None) or Claimant(0, wall, wall)
        who.count, who.last = who.count + 1, wall
        self._claimants[vip.key, claim.mac] = who
        if len(self._claimants) > CLAIMANTS_MAX:
            del self._claimants[next(iter(self._claimants))]
        now = self._clock()
        contest = self._contests.setdefault(vip.key, _Contest())
        if now - contest.answered < ANSWER_SECONDS:
            return
        contest.answered = now
        self._on_record("duplicate", {"vip": vip.name, "mac": claim.mac.hex(":"), "count": str(who.count)})
        if not self._lost(contest, now):
            self._announce((vip,))
        elif contest.away_until <= now:
            self._withdraw(vip, contest, now)

    def _lost(self, contest: _Contest, now: float) -> bool:
        """Count a claim towards `withdraw_after`."""
        if self.withdraw_after is None:
            return False
        contest.claims.append(now)
        while now - contest.claims[0] > CLAIMS_SECONDS:
            contest.claims.popleft()
        return len(contest.claims) >= self.withdraw_after

    def _withdraw(self, vip: Vip, contest: _Contest, now: float) -> None:
        again = now - contest.away_until < AWAY_SECONDS_MAX
        contest.away_s = min(2 * contest.away_s, AWAY_SECONDS_MAX) if again else AWAY_SECONDS_MIN
        contest.away_until = now + contest.away_s
        contest.claims.clear()
        self._on_record("duplicate_withdrawn", {"vip": vip.name, "seconds": f"{contest.away_s:.0f}"})
        handle: asyncio.TimerHandle

        def back() -> None:
            self._timers.discard(handle)
            self._on_eligibility()

        handle = asyncio.get_running_loop().call_later(contest.away_s, back)
        self._timers.add(handle)
        self._on_eligibility()

    def why_not(self, vip: Vip) -> NotEligible | None:
        """Why this host must not hold a VIP now, or None."""
        contest = self._contests.get(vip.key)
        return NotEligible.DUPLICATE if contest is not None and contest.away_until > self._clock() else None

    def _serving(self) -> Mapping[tuple[int, bytes], Vip]:
        """What is held by interface and address. Asked for every claim and seldom changed: kept until it does."""
        placed, wanted = self._held()
        if placed is not self._served[0] or wanted is not self._served[1]:
            by_ip = {packed(a.ip): vip for vip in wanted for a in vip.addresses}
            self._served = placed, wanted, {(a.index, a.ip): by_ip[a.ip] for a in placed if a.ip in by_ip}
        return self._served[2]

    def describe(self) -> dict[VipKey, list[dict[str, object]]]:
        """For `status`: who claimed what while it was held here, the last first."""
        found: dict[VipKey, list[dict[str, object]]] = {}
        for (key, mac), who in reversed(self._claimants.items()):
            told = {"mac": mac.hex(":"), "count": who.count, "first": who.first, "last": who.last}
            found.setdefault(key, []).append(told)
        return found

    def warnings(self) -> list[str]:
        """What an operator should know now."""
        now = time.time()
        return [
            f"another host ({mac.hex(':')}) claims {key.split('#')[0]}, {who.count} times so far"
            for (key, mac), who in self._claimants.items()
            if now - who.last < RECENT_SECONDS
        ]

    def close(self) -> None:
        """Nothing more comes back."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
