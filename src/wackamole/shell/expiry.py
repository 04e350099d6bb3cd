"""Orders that are only for a while: when a wall clock says that their time is over, the representative takes them back by
an ordinary message. So they end for all at the same place of the order, whatever other clocks say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..core.agreed import representative
from ..core.events import OrderRequested
from ..core.model import Phase
from ..core.standing import ended
from ..core.state import State

LOOK_SECONDS_MAX = 60.0
"""A wall clock may be set: it is looked at this often while an order waits for it."""
AGAIN_SECONDS = 1.0
"""A message may be lost."""
BY = "expiry"


class Expiry:
    """One member's part. `state` gives the state of now; `request` hands an event to the core."""

    def __init__(self, state: Callable[[], State], request: Callable[[OrderRequested], None]) -> None:
        self._state = state
        self._request = request
        self._timer: asyncio.TimerHandle | None = None
        self._due_s: int | None = None

    def look(self) -> None:
        """The table changed: be there when the next order is over."""
        state = self._state()
        dues = [o.until_s for o in state.table.orders if o.in_force and o.until_s]
        due_s = min(dues) if dues and state.phase is Phase.SETTLED and representative(state) == state.me else None
        if due_s != self._due_s:
            self.close()
            self._due_s = due_s
            self._arm(0.0)

    def close(self) -> None:
        """Look no more."""
        self._due_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, least: float) -> None:
        if self._due_s is not None:
            wait = min(max(self._due_s - time.time(), least), LOOK_SECONDS_MAX)
            self._timer = asyncio.get_running_loop().call_later(wait, self._due)

    def _due(self) -> None:
        self._arm(AGAIN_SECONDS)
        now = time.time()
        over = tuple(ended(o, BY) for o in self._state().table.orders if o.in_force and 0 < o.until_s <= now)
        if over:
            self._request(OrderRequested(over))
