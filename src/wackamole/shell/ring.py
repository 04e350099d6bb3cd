"""The nodes of the private Corosync's ring, while configs change one node at a time.

A host that some members of a ring hear and others do not breaks it again and again. So a node that is new in this member's
config joins the ring only when every member's config has it, and one that is gone stays in it as long as any member's has
it: all members see that in the same place of the agreed order, and change their rings within milliseconds of each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ..core.model import Phase, Report
from ..core.state import State
from ..engine.corosync.conf import RingNode
from ..engine.corosync.managed import CorosyncRefused, ManagedCorosync

AGAIN_SECONDS = 5.0
"""After a Corosync that did not take it."""


def ring_of(listed: Iterable[RingNode], before: Iterable[RingNode], reports: Iterable[Report]) -> tuple[RingNode, ...]:
    """The ring to have: `listed` by my config, `before` in my ring, and what the members said of their configs."""
    lists = [frozenset(r.nodes) for r in reports]
    by_all, by_any = frozenset.intersection(*lists), frozenset[str]().union(*lists)
    mine, had = {n.name: n for n in listed}, {n.name: n for n in before}
    kept = {name: node for name, node in had.items() if name in mine or name in by_any}
    return tuple((kept | {name: node for name, node in mine.items() if name in kept or name in by_all}).values())


class Ring:
    """Has one member's Corosync follow."""

    def __init__(
        self, corosync: ManagedCorosync, state: Callable[[], State], record: Callable[[str, dict[str, str]], None]
    ) -> None:
        self._corosync = corosync
        self._state = state
        self._record = record
        self._listed = corosync.nodes
        self._following: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None

    def reconfigure(self, listed: tuple[RingNode, ...]) -> None:
        """My config lists these nodes now."""
        self._listed = listed
        self.follow()

    def follow(self) -> None:
        """The table, or my config, has changed."""
        if self._following is None and self._wanted() != self._corosync.nodes:
            self._following = asyncio.get_running_loop().create_task(self._follow())

    def _wanted(self) -> tuple[RingNode, ...]:
        state = self._state()
        if state.phase is not Phase.SETTLED or not any(r.node == state.me for r in state.table.reports):
            return self._corosync.nodes
        return ring_of(self._listed, self._corosync.nodes, state.table.reports)

    async def _follow(self) -> None:
        try:
            while (wanted := self._wanted()) != self._corosync.nodes:
                before = {n.name for n in self._corosync.nodes}
                await self._corosync.reconfigure(wanted)
                names = {n.name for n in wanted}
                self._record("ring", {"added": ",".join(names - before), "removed": ",".join(before - names)})
        except CorosyncRefused as no:
            self._record("ring_refused", {"reason": str(no)})
            self._later = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self.follow)
        finally:
            self._following = None

    def warnings(self) -> list[str]:
        """What an operator should know now."""
        waiting = sorted({n.name for n in self._listed} - {n.name for n in self._corosync.nodes})
        return [f"node {n} joins the ring when every member's config has it: reload the others" for n in waiting]

    def close(self) -> None:
        """Follow no more."""
        for waiting in (self._following, self._later):
            if waiting is not None:
                waiting.cancel()
