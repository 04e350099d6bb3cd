"""Routes and policy rules of VIPs: there while the VIP is, and never before its addresses.

A job is a whole truth; a thread of its own carries it out, since the kernel's lock may be held by others for long, and
addresses must not wait for it.

Every AGAIN_SECONDS it is made so anew: systemd-networkd for one removes routes and rules of others when it starts, and what
the kernel refused may be possible by now. It would notify of every route; a router may have a million, and they change.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from ...core.model import VipKey
from ...routing import Route, Rule
from .. import scheduling
from .routes import RTM_NEWROUTE, RTM_NEWRULE, Entry, RoutingTables, route_entry, rule_entry, same

AGAIN_SECONDS = 5.0


class Routing:
    """The routes and rules of the VIPs that are held. `index` and `device` find an interface by the config's name for it.
    All calls on the loop's thread but `close`; `failed` is called on the worker's, with what was refused and why, and
    `put_back` with what had gone without us."""

    def __init__(
        self,
        by_vip: Mapping[VipKey, tuple[Route | Rule, ...]],
        index: Callable[[str], int | None],
        device: Callable[[str], str],
        failed: Callable[[str, str], None],
        put_back: Callable[[str], None],
    ) -> None:
        self._by_vip = by_vip
        self._index = index
        self._device = device
        self._failed = failed
        self._put_back = put_back
        self._again: asyncio.TimerHandle | None = None
        self._tables: RoutingTables | None = None
        self._thread = ThreadPoolExecutor(1, "routes", scheduling.behind_the_loop)
        self._wanted: dict[Entry, str] = {}
        self._there: dict[Entry, None] | None = None  # None: it was not looked yet
        self._homeless: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def start(self) -> None:
        """Open the socket."""
        self._tables = RoutingTables()

    def reconfigure(self, by_vip: Mapping[VipKey, tuple[Route | Rule, ...]]) -> None:
        """Other routes and rules, from the next `shrink` or `hold` on."""
        self._by_vip = by_vip

    def shrink(self, held: Iterable[VipKey]) -> None:
        """Only these VIPs stay: what belongs to others goes now."""
        wanted = self._of(held)
        if self._wanted.keys() - wanted.keys():
            self._put({e: text for e, text in wanted.items() if e in self._wanted})

    def hold(self, held: Iterable[VipKey]) -> None:
        """The addresses of exactly these VIPs are there, and announced."""
        self._put(self._of(held))

    def _put(self, wanted: dict[Entry, str]) -> None:
        if self._tables is not None and (wanted or self._wanted or self._there is None):
            self._wanted = wanted
            self._have_it_so()

    def _have_it_so(self) -> None:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._thread, self._work)
        if self._again is not None:
            self._again.cancel()
        self._again = loop.call_later(AGAIN_SECONDS, self._have_it_so) if self._wanted else None

    def _of(self, held: Iterable[VipKey]) -> dict[Entry, str]:
        found: dict[Entry, str] = {}
        homeless: dict[str, str] = {}
        for key in held:
            for item in self._by_vip.get(key, ()):
                if isinstance(item, Rule):
                    found[rule_entry(item, self._device)] = item.text
                    continue
                index = self._index(item.dev) if item.dev is not None else None
                if item.dev is not None and index is None:
                    homeless[item.text] = f"there is no interface {self._device(item.dev)}"
                else:
                    found[route_entry(item, index)] = item.text
        self._homeless = homeless
        return found

    def _work(self) -> None:
        """On the thread: make it so."""
        assert self._tables is not None
        wanted = self._wanted  # the latest
        try:
            if self._there is None:
                left = self._tables.ours()
                self._there = {e: None for e in wanted if any(same(e, found) for found in left)}
                self._tables.take(found for found in left if not any(same(e, found) for e in wanted))
            self._tables.take(e for e in self._there if e not in wanted)
            # a route that is there is refused; a rule without a priority would be there twice
            rules = self._tables.our_rules() if any(e.kind == RTM_NEWRULE for e in wanted) else []
            missing = [
                e
                for e in wanted
                if e.kind == RTM_NEWROUTE or e not in self._there or not any(same(e, found) for found in rules)
            ]
            refused = self._tables.put(missing)
        except OSError as wrong:
            self._say({"the routes of this host": wrong.strerror or str(wrong)})
            return
        back = [wanted[e] for e in missing if e in self._there and e not in refused]
        refused = {e: code for e, code in refused.items() if code != errno.EEXIST or e not in self._there}
        self._there = {e: None for e in wanted if e not in refused}
        self._say({wanted[e]: _why(code) for e, code in refused.items()})
        if back:
            self._put_back(", ".join(back))

    def _say(self, refused: dict[str, str]) -> None:
        refused |= self._homeless
        for text, why in refused.items():
            if self._said.get(text) != why:
                self._failed(text, why)
        self._said = refused

    def warnings(self) -> list[str]:
        """What an operator should know now."""
        return [f"{text} is not in the kernel: {why}" for text, why in self._said.items()]

    def stop(self) -> None:
        """No more of it from now on; `close` follows."""
        if self._again is not None:
            self._again.cancel()

    def close(self) -> None:
        """Remove everything and end; waits for the thread."""
        if self._tables is not None:
            self._wanted = {}
            self._thread.submit(self._work).result()
            self._thread.shutdown()
            self._tables.close()


def _why(code: int) -> str:
    return "somebody else has made such a one" if code == errno.EEXIST else os.strerror(code)
