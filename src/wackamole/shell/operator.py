"""What operators ask of one member: the verbs of the control socket.

Whatever changes something is put to the group, and answered when the group has done it; nothing is done here.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ConfigError, find_self, load
from ..core import events as ev
from ..core.agreed import agreement, facts_of, keep_orders
from ..core.balancing import Balance
from ..core.model import NodeId, NotEligible, Phase, Row, VipKey
from ..core.standing import BY_MAX, REASON_MAX, UNTIL_S_MAX, Kind, Order, following, in_force, is_so, obey
from ..eventlog import Wanted
from ..wire import RESTART_MS_MAX, table_text
from .clock import boottime_ms
from .control import Refused
from .why import why_of

if TYPE_CHECKING:
    from .daemon import Daemon

RESTART_SECONDS_MAX = RESTART_MS_MAX / 1000
COMMAND_SECONDS_MAX = 10.0
"""How long a command waits for the group to carry it out before it says that it did not happen."""
ASK_AGAIN_SECONDS = 0.5
COMMANDS = frozenset({"move", "drain", "resume", "balance", "hold", "unhold", "reload", "restart", "leave"})
PROGRESS_SECONDS = 0.2
"""How often it is told how far something is."""
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
            asked = {
                k: _told(request[k])
                for k in ("vips", "node", "force", "within_ms", "for_s", "reason", "now")
                if request.get(k)
            }
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
            case "table":
                self._need_group()
                state, path = self._member.state, str(Path(self._member.config.path).resolve())
                text = await asyncio.to_thread(table_text, state.table)
                yield {"result": {"table": text, "me": state.me, "config": path}}
            case "history":
                yield {"result": await self._history(request)}
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
                async for line in self._balance(request):
                    yield line
            case "hold" | "unhold":
                async for line in self._hold(request, held=verb == "hold"):
                    yield line
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
            for name in _names(row):
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

    async def _history(self, request: dict[str, Any]) -> list[dict[str, object]]:
        """Where a VIP was, by the cluster's event log, oldest first; also of one that is no longer there."""
        name = request.get("vip")
        if not isinstance(name, str) or not name:
            raise Refused("name the VIP")
        called = [row.vip.name for row in self._member.state.table.rows if name in _names(row)]
        found: list[dict[str, object]] = []
        wanted = replace(_wanted({"since": request.get("since")}), vip=called[0] if called else name)
        async for entry in self._member.events.shown(wanted, follow=False):
            if entry["event"] == "moved":
                took = entry.get("took_ms")
                found.append(
                    {
                        "time": entry["time"],
                        "from": entry["source"],
                        "to": entry["to"],
                        "cause": entry["cause"],
                        "view": entry["view"],
                        "took_ms": int(took) if took is not None else None,
                    }
                )
        if not called and not found:
            raise Refused(f"there is no VIP {name!r}, and no history of one")
        return found

    # -- orders -------------------------------------------------------------------------------------------------------------

    def _wish(self, request: dict[str, Any], kind: Kind, subject: str, *, in_force: bool, node: str = "") -> Order:
        """What is asked for, as an order; raises Refused for a reason or a duration that is none."""
        if not in_force:
            return Order(kind, subject, in_force=False, by=_by(request))
        reason, for_s = request.get("reason") or "", request.get("for_s")
        if not isinstance(reason, str) or len(reason) > REASON_MAX or not reason.isprintable():
            raise Refused(f"a reason is a text of at most {REASON_MAX} printable characters")
        if for_s is not None and (
            isinstance(for_s, bool) or not isinstance(for_s, int) or not 0 < for_s < UNTIL_S_MAX // 2
        ):
            raise Refused("it is for a number of seconds, at least one")
        until_s = int(time.time()) + for_s if for_s is not None else 0
        return Order(kind, subject, in_force=True, node=node, by=_by(request), reason=reason, until_s=until_s)

    async def _order(self, wishes: Iterable[Order]) -> list[Order]:
        """Have the group agree on these; returns the orders as they are then. Raises Refused."""
        wanted = list(wishes)
        register = self._member.state.table.orders
        if following(register, wanted):
            self._may_order(wanted)
        kept = [k.about for k in obey(register, following(register, wanted)) if k.in_force]
        lost = [o for o in (*register, *wanted) if o.in_force and o.about not in kept and not _ends(wanted, o)]
        if lost:
            raise Refused(
                f"no more orders can be kept: the one about {lost[0].subject} would be lost; take that one back first"
            )

        def agreed() -> bool:
            known = {o.about: o for o in self._member.state.table.orders}
            return all(is_so(known, wish) for wish in wanted)

        if not await self.carried_out(ev.OrderRequested(tuple(wanted)), agreed):
            raise Refused(f"the group did not answer for {COMMAND_SECONDS_MAX:.0f} s; see `status`")
        known = {o.about: o for o in self._member.state.table.orders}
        return [known[w.about] for w in wanted if w.about in known]

    def _may_order(self, wanted: Iterable[Order]) -> None:
        reports = self._member.state.table.reports
        if not keep_orders(reports):
            old = next(r for r in reports if not r.keeps_orders)
            about = ", ".join(sorted({w.kind.value for w in wanted}))
            raise Refused(
                f"{old.name} runs version {old.version or '?'}, which keeps no orders ({about}): upgrade it first"
                " (`wackamole restart` there keeps its VIPs)"
            )

    async def _until(
        self, done: Callable[[], int], total: int, given: list[Order], *, again: ev.Event | None, wait: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """Tell how many are done until all are, or for COMMAND_SECONDS_MAX if nobody wants to `wait`, or until somebody takes
        the order back. `again`: what is put to the group until then."""
        loop = asyncio.get_running_loop()
        began = again_at = loop.time()
        told_at, told = began - PROGRESS_SECONDS, -1
        while (now_done := done()) < total:
            now = loop.time()
            if now - told_at >= (PROGRESS_SECONDS if now_done != told else COMMAND_SECONDS_MAX / 2):
                told_at, told = now, now_done
                yield {"progress": {"done": now_done, "of": total}}
            if not wait and now - began >= COMMAND_SECONDS_MAX:
                return
            orders = frozenset(self._member.state.table.orders)
            if any(order not in orders for order in given):
                raise Refused(f"another operator has ordered otherwise meanwhile; {now_done} of {total} are over")
            if again is not None and now >= again_at:
                again_at = now + ASK_AGAIN_SECONDS
                self._member.tell(again)
            if done() == now_done:  # else it went on while that was told
                await self._changes(ASK_AGAIN_SECONDS)

    async def _changes(self, seconds: float) -> None:
        """Until the table changes, but no longer than this."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(waiter)
        await asyncio.wait({waiter}, timeout=seconds)

    def _vips_asked(self, request: dict[str, Any], what: str) -> dict[VipKey, None]:
        wanted = request.get("vips")
        if not isinstance(wanted, list) or not wanted or not all(isinstance(name, str) for name in wanted):
            raise Refused(f"name at least one VIP to {what}")
        return self._vips_called(wanted)

    async def _move(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self._need_group()
        target = request.get("node")
        if not isinstance(target, str) or not target:
            raise Refused("name the node to move to")
        to = self._node_called(target)
        keys = self._vips_asked(request, "move")
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

        names = [key.split("#")[0] for key in keys]
        given = await self._order(self._wish(request, Kind.PIN, name, in_force=True, node=target) for name in names)
        async for line in self._until(done, len(keys), given, again=ev.MoveRequested(tuple(keys), to), wait=False):
            yield line
        if done() < len(keys):
            raise Refused(
                f"only {done()} of {len(keys)} VIPs are on {target} after {COMMAND_SECONDS_MAX:.0f} s; see `status`"
            )
        yield {"result": {"moved": names, "to": target}}

    async def _hold(self, request: dict[str, Any], *, held: bool) -> AsyncIterator[dict[str, Any]]:
        """`unhold` takes a pin back as well: nothing keeps the VIP where it is any more."""
        self._need_group()
        names = list(
            dict.fromkeys(key.split("#")[0] for key in self._vips_asked(request, "hold" if held else "let go"))
        )
        kinds = (Kind.HOLD,) if held else (Kind.HOLD, Kind.PIN)
        await self._order(self._wish(request, kind, name, in_force=held) for kind in kinds for name in names)
        yield {"result": {"vips": names, "held": held}}

    async def _balance(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Pins end, and a round is made: by the rounds' limits, or `now`, all of it."""
        self._need_group()
        at_once, by = bool(request.get("now")), _by(request)
        if not agreement(self._member.state.table.reports):
            raise Refused(
                "balance waits: the members have read different configs (`wackamole reload`), or run versions that place"
                " differently (`wackamole restart`)"
            )
        asked = ev.BalanceRequested(at_once, by)
        if not at_once:
            self._member.tell(asked)
            yield {"result": {"asked": "balance"}}
            return

        counted_at, to_be_moved = float("-inf"), 0

        def to_go() -> int:
            nonlocal counted_at, to_be_moved
            state, now = self._member.state, asyncio.get_running_loop().time()
            under_way = sum(1 for row in state.table.rows if row.holder != row.target)
            if not under_way or now - counted_at >= PROGRESS_SECONDS:  # a round is made for it: not at every change
                counted_at, to_be_moved = now, len(Balance(facts_of(state)).moves)
            return under_way + to_be_moved

        def pinned() -> bool:
            return bool(in_force(self._member.state.table.orders, Kind.PIN))

        if pinned():
            self._may_order(in_force(self._member.state.table.orders, Kind.PIN).values())
        if not await self.carried_out(asked, lambda: not pinned()):
            raise Refused(f"the group did not answer for {COMMAND_SECONDS_MAX:.0f} s; see `status`")
        total = to_go()
        async for line in self._until(lambda: max(0, total - to_go()), total, [], again=asked, wait=False):
            yield line
        if to_go():
            raise Refused(f"{to_go()} VIPs are still to be moved after {COMMAND_SECONDS_MAX:.0f} s; see `status`")
        yield {"result": {"asked": "balance", "moved": total}}

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
        """Of any node that the config has, also one that is away: it takes nothing then when it comes."""
        self._need_group()
        state, asked = self._member.state, request.get("node")
        name = asked if isinstance(asked, str) and asked in state.settings.nodes else ""
        if not name:
            node = self._node_called(asked)
            name = next(r.name for r in state.table.reports if r.node == node)
        others = [r for r in state.table.reports if r.name != name and not r.draining]
        if draining and not others and not request.get("force"):
            raise Refused(f"{name} is the last member that is not drained; --force drains it all the same")

        def left() -> int:
            state = self._member.state
            nodes = {r.node for r in state.table.reports if r.name == name}
            there = [row for row in state.table.rows if row.holder in nodes]
            stay = [row.key for row in there if row.target == row.holder]
            facts = facts_of(state) if stay else None  # it is asked for at every change while VIPs are on their way
            return sum(
                1
                for row in there
                if row.target != row.holder
                or (facts is not None and any(facts.why_not(n, row.key) is None for n in facts.candidates(row.key)))
            )

        held = sum(
            1 for row in state.table.rows if row.holder in {r.node for r in state.table.reports if r.name == name}
        )
        given = await self._order([self._wish(request, Kind.DRAIN, name, in_force=draining)])
        if draining:
            async for line in self._until(
                lambda: held - left(), held, given, again=None, wait=bool(request.get("wait"))
            ):
                yield line
            if left():
                raise Refused(
                    f"{name} is drained, and still holds {left()} VIPs that should go after {COMMAND_SECONDS_MAX:.0f} s;"
                    " see `status`"
                )
        yield {
            "result": {
                "node": name,
                "drain": draining,
                "vips_moved": held - left() if draining else 0,
                **({"until": given[0].until_s or None, "reason": given[0].reason} if draining else {}),
            }
        }


def _names(row: Row) -> set[str]:
    """What a VIP may be called."""
    return {row.vip.name, row.key, *(text for a in row.vip.addresses for text in (a.ip, str(a)))}


def _ends(wanted: Iterable[Order], order: Order) -> bool:
    return any(w.about == order.about and not w.in_force for w in wanted)


def _by(request: dict[str, Any]) -> str:
    """Who asks, as the control socket knows it."""
    return str(request.get("by", "unknown"))[:BY_MAX]


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
