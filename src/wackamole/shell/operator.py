"""What operators ask of one member: the verbs of the control socket.

Whatever changes something is put to the group, and answered when the group has done it; nothing is done here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ConfigError, find_self, load
from ..core import events as ev
from ..core.agreed import facts_of
from ..core.model import NodeId, NotEligible, Phase, Row, VipKey
from ..eventlog import Wanted
from ..wire import RESTART_MS_MAX
from .clock import boottime_ms
from .control import Refused
from .why import why_of

if TYPE_CHECKING:
    from .daemon import Daemon

RESTART_SECONDS_MAX = RESTART_MS_MAX / 1000
COMMAND_SECONDS_MAX = 10.0
"""How long a command waits for the group to carry it out before it says that it did not happen."""
ASK_AGAIN_SECONDS = 0.5
COMMANDS = frozenset({"move", "drain", "resume", "balance", "reload", "restart", "leave"})
ASKED_TEXT_MAX = 200


class Operator:
    """Answers for one member; everything happens on its loop's thread."""

    def __init__(self, member: Daemon) -> None:
        self._member = member
        self._changed: list[asyncio.Future[None]] = []

    def table_changed(self) -> None:
        """Wake those who wait for a fact."""
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)
        self._changed.clear()

    async def handle(self, verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Answer one request of the control socket; raises Refused with a sentence for the operator."""
        if verb in COMMANDS:
            asked = {k: _told(request[k]) for k in ("vips", "node", "force", "within_ms") if request.get(k)}
            by = str(request.get("by", "unknown"))
            self._member.journal.record("command", verb=verb, **asked, by=by)
            try:
                async for said in self._carry_out(verb, request):
                    yield said
            except Refused as no:
                self._member.journal.record("command_refused", verb=verb, by=by, reason=str(no))
                raise
        else:
            async for said in self._carry_out(verb, request):
                yield said

    async def _carry_out(self, verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        match verb:
            case "status":
                yield {"result": self._member.status()}
            case "events" if request.get("cluster"):
                async for record in self._member.events.shown(_wanted(request), follow=bool(request.get("follow"))):
                    yield {"progress": record}
                yield {"result": []}
            case "events":
                async for record in self._member.journal.follow(follow=bool(request.get("follow"))):
                    yield {"progress": record}
                yield {"result": []}
            case "why":
                self._need_group()
                yield {"result": self._why(request)}
            case "move":
                async for line in self._move(request):
                    yield line
            case "drain" | "resume":
                async for line in self._drain(request, draining=verb == "drain"):
                    yield line
            case "balance":
                self._need_group()
                self._member.tell(ev.BalanceRequested())
                yield {"result": {"asked": "balance"}}
            case "reload":
                dry = bool(request.get("dry"))
                changes = [str(c) for c in await self._member.reload.reload(dry=dry)]
                yield {"result": {"node": self._member.node.name, "dry": dry, "changes": changes}}
            case "restart":
                async for line in self._restart(request):
                    yield line
            case "leave":
                self._member.asked_to_leave()
                yield {"result": {"leaving": self._member.state.settings.node}}
            case _:
                raise Refused(f"there is no verb {verb!r}")

    def _need_group(self) -> None:
        if self._member.state.phase is not Phase.SETTLED:
            raise Refused(
                f"this node cannot do that now: it is {self._member.state.phase.value}; ask again in a moment"
            )

    def _node_called(self, name: object) -> NodeId:
        if name is not None and not isinstance(name, str):
            raise Refused(f"a node is named by a text, not {name!r}")
        wanted = name or self._member.state.settings.node
        for report in self._member.state.table.reports:
            if report.name == wanted:
                return report.node
        present = ", ".join(sorted(r.name for r in self._member.state.table.reports)) or "none"
        if wanted in self._member.state.settings.nodes:
            raise Refused(f"node {wanted} is not in the group now (members: {present})")
        raise Refused(f"there is no node {wanted!r} (members: {present})")

    async def carried_out(self, request: ev.Event, fact: Callable[[], bool]) -> bool:
        """Put a request to the group until the fact is there; it is put again, as a message may be lost (hazard 21)."""
        loop = asyncio.get_running_loop()
        deadline, again = loop.time() + COMMAND_SECONDS_MAX, loop.time()
        while not fact():
            now = loop.time()
            if now >= deadline:
                return False
            if now >= again:
                again = now + ASK_AGAIN_SECONDS
                self._member.tell(request)
            else:
                waiter: asyncio.Future[None] = loop.create_future()
                self._changed.append(waiter)
                await asyncio.wait({waiter}, timeout=min(deadline, again) - now)
        return True

    def _vips_called(self, names: list[str]) -> dict[VipKey, None]:
        """By name, key or address, in this order, each once; of two with the same name those that are held."""
        called: dict[str, list[Row]] = {}
        for row in self._member.state.table.rows:
            for name in {row.vip.name, row.key, *(t for a in row.vip.addresses for t in (a.ip, str(a)))}:
                called.setdefault(name, []).append(row)
        keys: dict[VipKey, None] = {}
        for name in names:
            found = called.get(name)
            if not found:
                raise Refused(f"there is no VIP {name!r}")
            keys |= dict.fromkeys([row.key for row in found if row.holder is not None] or [found[0].key])
        return keys

    def _why(self, request: dict[str, Any]) -> dict[str, object]:
        name = request.get("vip")
        if not isinstance(name, str) or not name:
            raise Refused("name the VIP")
        key = next(iter(self._vips_called([name])))
        return why_of(self._member.state, key, since=self._member.holders.since.get(key), now_ms=boottime_ms())

    async def _move(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self._need_group()
        target = request.get("node")
        if not isinstance(target, str) or not target:
            raise Refused("name the node to move to")
        to = self._node_called(target)
        wanted = request.get("vips")
        if not isinstance(wanted, list) or not wanted or not all(isinstance(name, str) for name in wanted):
            raise Refused("name at least one VIP to move")
        keys = self._vips_called(wanted)
        facts = facts_of(self._member.state)
        rows = {row.key: row for row in self._member.state.table.rows}
        for key in keys:
            why = facts.why_not(to, key)
            better = why is not None and any(facts.why_not(n, key) is None for n in facts.candidates(key))
            if why is not None and (why.forbids or better):  # it would not stay there
                raise Refused(f"{target} cannot take {key.split('#')[0]}: {why.value}")
            if facts.full(to, key):
                raise Refused(f"{target} cannot take {key.split('#')[0]}: {NotEligible.FULL.value}")
            holder = rows[key].holder
            if holder is None:
                raise Refused(f"{key.split('#')[0]} is held by nobody now; it goes to whoever may hold it")
            if to != holder and holder in facts.held and rows[key].target == holder:
                facts.move(key, holder, to)  # for what comes after it there is less room

        def done() -> int:
            return sum(1 for row in self._member.state.table.rows if row.key in keys and row.holder == to == row.target)

        if not await self.carried_out(ev.MoveRequested(tuple(keys), to), lambda: done() == len(keys)):
            raise Refused(
                f"only {done()} of {len(keys)} VIPs are on {target} after {COMMAND_SECONDS_MAX:.0f} s; see `status`"
            )
        yield {"result": {"moved": [k.split("#")[0] for k in keys], "to": target}}

    async def _restart(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self._need_group()
        within = request.get("within_ms")
        if not isinstance(within, int) or not 1000 <= within <= RESTART_SECONDS_MAX * 1000:
            raise Refused(f"a restart takes from 1 to {RESTART_SECONDS_MAX:.0f} seconds")
        try:
            new = load(Path(self._member.config.path))
            find_self(new, self._member.state.settings.node)
        except ConfigError as wrong:
            raise Refused(f"the new process could not start: {'; '.join(wrong.problems)}") from None
        if (new.fence.mode, new.fence.mark) != (self._member.config.fence.mode, self._member.config.fence.mark):
            raise Refused("the file has another fence `mode` or `mark`: that needs `systemctl restart wackamole`")
        if not os.access(sys.executable, os.X_OK):
            raise Refused(f"the new process could not start: {sys.executable} cannot be executed")
        for report in self._member.state.table.reports:
            if report.restart_ms:
                raise Refused(f"{report.name} is being restarted; one at a time")

        def announced() -> bool:
            return any(r.node == self._member.state.me and r.restart_ms for r in self._member.state.table.reports)

        self._member.events.tell_what_waits()  # this process says nothing afterwards
        if not await self.carried_out(ev.RestartRequested(within), announced):
            raise Refused(f"the group did not answer for {COMMAND_SECONDS_MAX:.0f} s; see `status`")
        yield {
            "result": {
                "node": self._member.state.settings.node,
                "within_ms": within,
                "held": len(self._member.kernel.held()),
            }
        }

    async def _drain(self, request: dict[str, Any], *, draining: bool) -> AsyncIterator[dict[str, Any]]:
        self._need_group()
        node = self._node_called(request.get("node"))
        name = next(r.name for r in self._member.state.table.reports if r.node == node)
        others = [r for r in self._member.state.table.reports if r.node != node and not r.draining]
        if draining and not others and not request.get("force"):
            raise Refused(f"{name} is the last member that is not drained; --force drains it all the same")

        def is_so() -> bool:
            return any(r.node == node and r.draining is draining for r in self._member.state.table.reports)

        def left() -> int:
            facts = facts_of(self._member.state)
            return sum(
                1
                for row in self._member.state.table.rows
                if row.holder == node
                and (row.target != node or any(facts.why_not(n, row.key) is None for n in facts.candidates(row.key)))
            )

        held = sum(1 for row in self._member.state.table.rows if row.holder == node)
        asked = ev.DrainRequested(node, draining)
        if not await self.carried_out(asked, lambda: is_so() and (not draining or left() == 0)):
            if not is_so():
                raise Refused(f"the group did not answer for {COMMAND_SECONDS_MAX:.0f} s; see `status`")
            raise Refused(
                f"{name} still holds {left()} VIPs that should go after {COMMAND_SECONDS_MAX:.0f} s; see `status`"
            )
        yield {"result": {"node": name, "drain": draining, "vips_moved": held if draining else 0}}


def _wanted(request: dict[str, Any]) -> Wanted:
    """The filter that a request asks for; raises Refused."""
    since, vip, node = (request.get(k) for k in ("since", "vip", "node"))
    if since is not None and (isinstance(since, bool) or not isinstance(since, int | float)):
        raise Refused("`since` is a time in seconds since 1970")
    for name, given in (("vip", vip), ("node", node)):
        if given is not None and not isinstance(given, str):
            raise Refused(f"`{name}` is a name")
    return Wanted(since, vip, node)


def _told(value: object) -> str:
    """What an operator gave, as the event log has it."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:ASKED_TEXT_MAX]
