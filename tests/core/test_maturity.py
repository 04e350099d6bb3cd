"""When a member that sees nobody takes what is free."""

from __future__ import annotations

from collections import deque

import pytest

from wackamole.core import effects as do
from wackamole.core import events as ev
from wackamole.core.machine import step
from wackamole.core.model import Address, NodeId, Settings, Takeover, View, ViewId, Vip
from wackamole.core.state import initial
from wackamole.core.views import MERGE_MS

ME = NodeId(1)
VIP = Vip("x", (Address("192.0.2.1", 32),))
LEASE_MS = 1000


class Alone:
    """A member whose group has nobody else, and whose kernel does what it is told."""

    def __init__(self, settings: Settings) -> None:
        self.state = initial(settings)

    def tell(self, event: ev.Event, now_ms: int) -> None:
        queue: deque[ev.Event] = deque([event])
        while queue:
            self.state, effects = step(self.state, queue.popleft(), now_ms)
            for effect in effects:
                match effect:
                    case do.Multicast():
                        queue.append(ev.MessageDelivered(ME, effect.view, effect.message))
                    case do.HoldExactly():
                        queue.append(ev.KernelConfirmed(effect.serial, tuple(v.key for v in effect.vips), ()))
                    case _:
                        pass


@pytest.mark.parametrize("mature_ms", [0, 5000])
@pytest.mark.parametrize(
    ("takeover", "waits_ms"),
    [(Takeover.STRICT, LEASE_MS + LEASE_MS // 100 + MERGE_MS), (Takeover.FAST, 0)],
    ids=["strict", "fast"],
)
def test_who_was_away_waits_for_a_lease_from_its_joining_on(takeover: Takeover, waits_ms: int, mature_ms: int) -> None:
    """A member of the group may have been lost a moment before it joined, however long ago it began (hazard 14; the
    simulator's seed 81007: two served, while one's engine stood still)."""
    member = Alone(Settings("a", ("a", "b"), (VIP,), "", mature_ms=mature_ms, lease_ms=LEASE_MS, takeover=takeover))
    member.tell(ev.FenceChanged(fenced=True), 0)
    member.tell(ev.EngineJoined(ME, 1), 0)
    member.tell(ev.EngineLost("it died"), 0)
    joined_ms = 6 * LEASE_MS
    member.tell(ev.EngineJoined(ME, 2), joined_ms)
    member.tell(ev.ViewInstalled(View(ViewId(1, 4, 0), (ME,), (ME,), (), direct=False)), joined_ms)
    now_ms = joined_ms
    while VIP.key not in member.state.may_hold:
        assert now_ms <= joined_ms + 2 * LEASE_MS
        now_ms += 10
        member.tell(ev.TimePassed(), now_ms)
    beat_ms = member.state.settings.beat_ms
    assert waits_ms <= now_ms - joined_ms <= waits_ms + beat_ms
