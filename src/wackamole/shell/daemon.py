"""The daemon: one asyncio loop that carries events to the core and its effects to the engine, the kernel and the journal.

Nothing is decided here. Every event goes through `Daemon.tell`, which runs `step` and performs what comes back, in
order; an event that arrives while that happens waits its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, assert_never

from .. import __version__, keys, original, wire
from ..advice import Arrived, Neighbours
from ..config import (
    FENCE_SLACK_MS,
    LIFETIME_LATE_MS,
    VIP_EVENTS,
    Config,
    NodeConfig,
    settings_for,
)
from ..core import effects as do
from ..core import events as ev
from ..core.agreed import keep_orders
from ..core.machine import next_deadline_ms, step
from ..core.messages import Beat
from ..core.model import (
    Cause,
    Electorate,
    NodeId,
    NotEligible,
    Phase,
    ShareRule,
    Table,
    ViewId,
    Vip,
    VipKey,
)
from ..core.standing import Register
from ..core.state import State, initial
from ..engine.contract import Delivered, EngineEvent, GroupEngine, Joined, Lost, NewView
from ..engine.corosync.adapter import CorosyncEngine
from ..engine.corosync.cpg import LibraryMissing
from ..engine.corosync.managed import CorosyncRefused, ManagedCorosync
from ..engine.sealed import Seal, SealedEngine
from ..eventlog import NoteError
from . import disk, scheduling, start
from .alarm import Alarm
from .claim import Refused
from .clock import boottime_ms
from .control import ControlServer
from .counts import Counts
from .disk import DiskRefused
from .events import Events
from .expiry import Expiry
from .health import Health
from .holders import Holders
from .hooks import Hooks
from .journal import COMMON_FIELDS, Entry, Journal
from .kernel.fence import FenceRefused
from .kernel.fencing import ByLifetime, ByNftables, Fencing, Unfenced
from .kernel.kernel import Kernel, KernelConfig, KernelRefused
from .kernel.listed import Cache, Notify
from .kernel.rtnl import FOR_EVER
from .kernel.surroundings import packed
from .newcomer import Newcomer
from .operator import RESTART_SECONDS_MAX, Operator
from .original import OriginalServer
from .record import Audit
from .releases import Releases
from .reload import Reload
from .ring import Ring
from .shares import rule_of
from .start import Given, Kept
from .status import name_of, status_of
from .succession import Succession, replace_process

ANSWERED_SECONDS = 0.02
"""A process that is being replaced answers first who asked for it."""
TOLD_SECONDS_MAX = 0.5
"""Who moved is told at the latest so long after the table changed."""
LAST_WORDS_SECONDS = 0.02
"""Who leaves lets the others read its last words first: while VIPs change hands nobody has time for them."""
EVENTS_AT_ONCE = 100
"""Entries of the event log that are handed out before others have their turn."""

DISK_AGAIN_SECONDS = 5.0
"""Between two attempts to write what a majority has to remember."""

EVICTIONS_SECONDS = 300.0
REJOIN_SECONDS_MIN, REJOIN_SECONDS_MAX = 1.0, 60.0
"""Of a member that is evicted more than once in EVICTIONS_SECONDS."""
NOT_UNDERSTOOD_SECONDS = 30.0
"""Between two attempts of a newcomer that cannot read the others: each costs them an exchange."""


class Daemon:
    """One member. Made by `run`; everything below happens on its loop's thread."""

    def __init__(self, config: Config, node: NodeConfig, journal: Journal, kept: Kept) -> None:
        self.config = config
        self.node = node
        self._kept = kept
        self.journal = journal
        settings = settings_for(config, node, self.share_rule(config))
        self._state_dir = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/wackamole"))
        left = kept.succession
        heirloom = tuple(v for v in settings.vips if left is not None and v.key in left.held)
        self.state: State = initial(
            settings,
            disk.read(self._electorates, config.cluster.name),
            heirloom,
            left.until_ms if left is not None else 0,
            self._read_orders(),
        )
        self._restarting = False
        self.leaving = False  # it was asked to, and the core hears of it any moment
        self._disk = asyncio.Lock()
        self._not_remembered = ""  # why the disk does not take what a majority has to remember
        self._started = time.time()
        self.done: asyncio.Event = asyncio.Event()
        self.failure: str | None = None
        self._untold: Table | None = None  # as it was before changes that nobody was told of yet
        self._telling: asyncio.TimerHandle | None = None
        self._queue: deque[ev.Event] = deque()
        self._busy = False
        self.counts = Counts(node.name)
        self._alarm = Alarm(lambda: self.tell(ev.TimePassed()), self.counts.woken)
        self._ineligible: dict[VipKey, NotEligible] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bad_messages = 0
        self._newcomer = Newcomer()
        self._too_large = 0
        self._evictions: list[float] = []
        known = dict(left.checks) if left is not None else None
        self.health = Health(config, node, known, self.tell, journal.put)
        self._notifier = kept.notifier
        self._ready = False
        self.kernel = Kernel(
            kernel_config(config, node),
            on_confirmed=self._kernel_answered,
            on_serving=self._serving,
            on_eligibility=self._eligibility_changed,
            on_record=journal.put,
            on_fenced=lambda fenced: self.tell(ev.FenceChanged(fenced)),
            make_fencing=self._make_fencing,
            lifetime_s=config.fence.lifetime_s if config.fence.mode == "lifetime" else FOR_EVER,
            calm=lambda: self.state.phase is Phase.SETTLED,
            inherited=heirloom,
            on_witnessed=lambda key, holder, result: self.tell(ev.SegmentAsked(key, holder, result)),
            on_neighbours=self._tell_neighbours,
        )
        self.hooks = Hooks(config.hooks, node.name, self.common, journal.put)
        journal.listen(self._tell_hooks)
        journal.listen(self.counts.recorded)
        self._releases = Releases(
            heirloom, self.kernel.hold_exactly, self._before_release, lambda: keep_orders(self.state.table.reports)
        )
        self._ran_ms = boottime_ms()
        self._began = time.monotonic()  # when the event came that is being handled
        self._pause_ms = self.state.settings.lease_ms or self.state.settings.evict_after_ms
        self.audit = Audit(
            self.state.settings,
            cluster=config.cluster.name,
            slack_ms=FENCE_SLACK_MS + (LIFETIME_LATE_MS if config.fence.mode == "lifetime" else 0),
            warn=journal.put,
        )
        self.events = Events(lambda: self.state, lambda: self._busy, self._state_dir, journal, self.tell)
        self.holders = Holders(lambda: self.state, journal, self._ask_segment)
        self.corosync = kept.corosync
        self.engine: GroupEngine = engine_for(config, node, self.corosync, journal, self._bad_message)
        self.ring = Ring(self.corosync, lambda: self.state, journal.put) if self.corosync is not None else None
        self.reload = Reload(self)
        self.operator = Operator(self)
        self.expiry = Expiry(lambda: self.state, self.tell)
        self.control = ControlServer(
            Path(config.control.socket),
            self.operator.handle,
            read_only_for_others=config.control.read_only_for_others,
            listening=kept.control,
        )
        self._original_refused = ""
        self._original = self._original_of(config)

    def _original_of(self, config: Config) -> OriginalServer | None:
        address = config.control.original
        if address is None:
            return None
        return OriginalServer(
            address,
            self.operator.handle,
            lambda status: original.records(self.config, self.node, status),
            self.journal.record,
        )

    def share_rule(self, config: Config) -> ShareRule | None:
        """The function of the entry point, if shares follow one."""
        return rule_of(config.balance.entry_point, self.journal.put) if config.balance.entry_point else None

    def _make_fencing(self, refresh: Callable[[int], threading.Event]) -> Fencing:
        fence, left = self.config.fence, self._kept.succession
        match fence.mode:
            case "nftables":
                return ByNftables(
                    fence.lease_ms,
                    fence.beat_age_max_ms,
                    fence.mark,
                    closes_first=self._kept.closes_first,
                    on_record=self.journal.put,
                    owner=left.owner if left is not None else None,
                    until_ms=left.until_ms if left is not None else None,
                )
            case "lifetime":
                return ByLifetime(fence.lifetime_s, fence.beat_age_max_ms, refresh)
            case _:
                return Unfenced()

    # -- the loop's heart ---------------------------------------------------------------------------------------------

    def tell(self, event: ev.Event) -> None:
        """Hand an event to the core and do what it asks. If this process stood still for longer than its lease, the core
        hears of that before anything that came meanwhile (hazard 3)."""
        if self.done.is_set():
            return  # it is being taken down: nothing that the group says now may put anything up again
        self._queue.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._queue:
                self._began, now = time.monotonic(), boottime_ms()
                gap_ms, self._ran_ms = now - self._ran_ms, now
                if gap_ms > self._pause_ms:
                    self._queue.appendleft(ev.Paused(gap_ms))
                elif gap_ms > self.config.engine.detection_ms:
                    # They may have gone on without me, and the ring has yet to find out: nothing passes until a beat is back.
                    self.kernel.fencing.shut()
                before = self.state
                event = self._queue.popleft()
                self.state, effects = step(before, event, now)
                self.audit.note(event, effects, self.state)  # before the effects: see Recorder.note
                if self.state.view is not before.view:
                    self.holders.on_view(before, self.state)
                    self.events.on_view(self.state.view, self.state.me, now)
                for effect in sorted(effects, key=_told_only):  # others wait for what is done, nobody for what is told
                    self._perform(effect)
                self.counts.stepped(before, self.state, self._began)
                if self.state.table is not before.table:
                    self._table_changed(before.table)
        finally:
            self._busy = False
        self._alarm.set(next_deadline_ms(self.state))
        self.events.arm()

    def _perform(self, effect: do.Effect) -> None:
        match effect:
            case do.Multicast():
                self._multicast(effect.view, effect.message)
            case do.RenewLease():
                self.kernel.fencing.renew(effect.sent_ms)
            case do.ShutFence():
                self.kernel.fencing.shut()
            case do.HoldExactly():
                self._releases.hold_exactly(effect.serial, effect.vips, self._handed_over())
            case do.Announce():
                self.kernel.announce(effect.vips)
            case do.ShowWitness():
                self.holders.show_witness(effect)
            case do.TakeNote():
                self._take_note(effect)
            case do.Remember():
                self._spawn(self._remember(effect.electorates))
            case do.KeepOrders():
                self._spawn(self._keep(effect.orders))
            case do.Hand():
                self._spawn(self._hand_over(effect.until_ms))
            case do.LeaveGroup():
                self._spawn(self._rejoin(effect.reason) if effect.come_back else self._finish())
            case do.Record():
                self._record(effect)
            case _:
                assert_never(effect)

    def _tell_neighbours(self, neighbours: Neighbours) -> None:
        if self.state.phase is Phase.SETTLED and self.state.view is not None and len(self.state.view.members) > 1:
            self._multicast(self.state.view.id, neighbours)

    def _advised(self, message: Neighbours | Arrived) -> None:
        match message:
            case Neighbours():
                self.kernel.listed.heard(message)
            case Arrived():
                self._releases.arrived(message.vips)
            case _:
                assert_never(message)

    def _multicast(self, view: ViewId, message: wire.Message) -> None:
        """Send it. What does not fit into a message counts as lost, and is told: to end would help nobody."""
        try:
            payload = wire.encode(view, message)
        except ValueError as wrong:
            self._too_large += 1
            if self._too_large < 10:
                self.journal.record("message_too_large", reason=str(wrong))
            return
        self.engine.multicast(payload)
        if isinstance(message, Beat):
            self.counts.sent_beat()

    @property
    def _electorates(self) -> Path:
        return self._state_dir / "electorates.json"

    async def _remember(self, electorates: tuple[Electorate, ...]) -> None:
        """The core counts on it, and decides anew, only when it is on the disk: where it cannot be, that is told, and tried
        again."""
        while electorates == self.state.remembering:  # else a later decision waits
            before, self._not_remembered = self._not_remembered, await self._write_down(electorates)
            if not self._not_remembered:
                self.tell(ev.Remembered(electorates))
                return
            if self._not_remembered != before:
                self.journal.record("not_remembered", reason=self._not_remembered)
            await asyncio.sleep(DISK_AGAIN_SECONDS)

    async def _write_down(self, electorates: tuple[Electorate, ...]) -> str:
        """Why it could not be; empty if it could."""
        async with self._disk:
            try:
                await asyncio.to_thread(disk.write, self._electorates, self.config.cluster.name, electorates)
            except OSError as wrong:
                return str(wrong)
            return ""

    def _read_orders(self) -> Register:
        try:
            return disk.read_orders(self._orders, self.config.cluster.name)
        except DiskRefused as no:
            self.journal.record("not_remembered", reason=str(no))
            return ()

    @property
    def _orders(self) -> Path:
        return self._state_dir / "orders.json"

    async def _keep(self, orders: Register) -> None:
        """Where they cannot be written, that is told, and the others still know them."""
        async with self._disk:
            if orders != self.state.table.orders:
                return  # later ones wait
            try:
                await asyncio.to_thread(disk.write_orders, self._orders, self.config.cluster.name, orders)
            except OSError as wrong:
                self.journal.record("not_remembered", reason=str(wrong))

    async def _hand_over(self, until_ms: int) -> None:
        """Become the new process. Whoever asked is answered first."""
        await asyncio.sleep(ANSWERED_SECONDS)
        view, refused = self.state.view, ""
        try:
            owner = await self.kernel.fencing.extend(until_ms)
        except FenceRefused as no:
            refused = str(no)
        if self.state.view is not view or self.state.phase is not Phase.SETTLED or boottime_ms() >= until_ms:
            refused = refused or "the group changed meanwhile"
        if self.leaving:
            refused = refused or "it is to leave"
        if refused:
            self.kernel.fencing.resume()
            self.journal.record("restart_refused", reason=refused)
            self.tell(ev.RestartRequested(0))
            return
        self._restarting = True
        self._tell_of_table()
        guard, before = self._kept.guard, self._kept.succession
        succession = Succession(
            until_ms,
            tuple(self.kernel.held()),
            owner,
            guard.descriptor,
            guard.pid,
            (before.restarts if before is not None else 0) + 1,
            self._kept.closes_first,
            tuple(self.health.known().items()),
        )
        await self.health.close()
        await self.engine.rejoin("replaced by its successor", RESTART_SECONDS_MAX)
        await self._close_controls()
        await self.hooks.close(ANSWERED_SECONDS)
        self.holders.tell_all()
        await asyncio.to_thread(self.audit.hand_over)
        await asyncio.to_thread(self.events.hand_over)
        replace_process(succession, sys.argv[1:], self._notifier.variables)

    def _record(self, effect: do.Record) -> None:
        fields = dict(effect.fields)
        if "until" in fields:
            fields["until"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(fields["until"])))
        if effect.vip is not None:
            fields["vip"] = effect.vip.split("#")[0]
        if effect.node is not None:
            mine = effect.node == self.state.me
            reports = {r.node: r for r in self.state.table.reports}
            fields["node"] = self.state.settings.node if mine else name_of(reports, effect.node) or ""
        self.journal.record_of(self._began, effect.what, fields)

    def _kernel_answered(self, serial: int, held: tuple[VipKey, ...], refused: tuple[tuple[VipKey, str], ...]) -> None:
        self._tell_of_table()
        self.tell(ev.KernelConfirmed(serial, held, refused))

    def _table_changed(self, before: Table) -> None:
        """Tell of it, but not while the addresses' thread takes over: thousands of moves take long to write down, and
        threads share one interpreter."""
        self.events.on_table(self._ran_ms)
        if self._untold is None:
            self._untold = before
        if not self.kernel.busy:
            self._tell_of_table()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TOLD_SECONDS_MAX, self._tell_of_table)

    def _tell_of_table(self) -> None:
        """Tell the history who moved, and wake those who wait for a fact."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        before, self._untold = self._untold, None
        if before is None:
            return
        after = self.state
        self.holders.on_table(before)
        if self.ring is not None:
            self.ring.follow()
        self.operator.table_changed()
        self.expiry.look()
        if after.phase is Phase.SETTLED and not self._ready:
            self._ready = True
            self._notifier.ready()
        held = sum(1 for row in after.table.rows if row.holder == after.me)
        self._notifier.status(f"{after.phase.value}; {held} of {len(after.table.rows)} addresses here")

    # -- hooks ------------------------------------------------------------------------------------------------------------

    def _handed_over(self) -> frozenset[VipKey]:
        """What somebody else waits for, while nothing is wrong with it here."""
        if self.state.phase is not Phase.SETTLED:
            return frozenset()
        planned, me = (Cause.OPERATOR, Cause.BALANCE, Cause.DRAIN), self.state.me
        return frozenset(
            row.key
            for row in self.state.table.rows
            if row.holder == me and row.target not in (None, me) and row.cause in planned
        )

    def _before_release(self, vips: Mapping[VipKey, Vip], done: Callable[[VipKey], None]) -> float:
        return self.hooks.ask(vips, {k: self.holders.about(v.name) for k, v in vips.items()}, done)

    def _serving(self, keys: AbstractSet[VipKey]) -> None:
        """The kernel answers for these, and they are announced: tell whoever handed any of them over."""
        state = self.state
        arrived = tuple(
            r.key for r in state.table.rows if r.key in keys and r.holder == state.me and r.previous is not None
        )
        if arrived and state.view is not None and keep_orders(state.table.reports):
            self._multicast(state.view.id, Arrived(arrived))

    def _tell_hooks(self, entry: Entry) -> None:
        what = str(entry["event"])
        if what in self.hooks.events:
            name = str(entry.get("vip", "")) if what in VIP_EVENTS else ""
            about = self.holders.about(name) if name else {}
            details = {k: v for k, v in entry.items() if k not in COMMON_FIELDS}
            self.hooks.happened(what, name, {**about, "details": details})

    def common(self) -> Mapping[str, object]:
        """What hooks hear of everything."""
        view = self.state.view
        return {
            "cluster": self.config.cluster.name,
            "node": self.state.settings.node,
            "view": str(view.id) if view is not None else "-",
        }

    def _eligibility_changed(self, ineligible: tuple[tuple[VipKey, NotEligible], ...]) -> None:
        """Tell which VIPs this host can no longer hold, and why, or can again: one entry for each reason."""
        new = dict(ineligible)
        worse: dict[str, list[str]] = {}
        for key, why in new.items():
            if self._ineligible.get(key) is not why:
                worse.setdefault(why.value, []).append(key.split("#")[0])
        better = [key.split("#")[0] for key in self._ineligible if key not in new]
        self._ineligible = new
        self.tell(ev.EligibilityChanged(ineligible))
        for reason, vips in worse.items():
            self.journal.record("ineligible", reason=reason, count=len(vips), vips=",".join(vips))
        if better:
            self.journal.record("eligible", count=len(better), vips=",".join(better))

    def _take_note(self, effect: do.TakeNote) -> None:
        try:
            self.events.take(effect)
        except NoteError as wrong:
            self._bad_message(effect.by, wrong)

    def _bad_message(self, sender: NodeId, wrong: Exception) -> None:
        self._bad_messages += 1
        if self._bad_messages & (self._bad_messages - 1) == 0:  # the 1st, 2nd, 4th, 8th …: told, and never a flood
            self.journal.record("bad_message", sender=sender, reason=str(wrong), times=self._bad_messages)
        if self._newcomer.gives_way(sender, wrong):
            self._spawn(self.engine.rejoin(self._newcomer.why, NOT_UNDERSTOOD_SECONDS))

    def _ask_segment(self, vip: Vip, holder: NodeId) -> None:
        if self.config.fence.witness:
            self.kernel.witness.look(vip, holder)

    def _pet_watchdog(self) -> None:
        """Also while there is no group: an engine that is away is no reason to be restarted."""
        if self._notifier.watchdog_seconds is not None:
            self._notifier.watchdog()
            asyncio.get_running_loop().call_later(self._notifier.watchdog_seconds, self._pet_watchdog)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (wrong := task.exception()) is not None:
            self._fail(wrong)

    def _on_bug(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody expected: to go on would be to act on a state that may be wrong."""
        self._fail(context.get("exception") or RuntimeError(str(context.get("message"))))

    def _fail(self, wrong: BaseException) -> None:
        """Let go of everything and end; whoever supervises us starts us anew."""
        self.failure = f"{type(wrong).__name__}: {wrong}"
        self.done.set()
        with contextlib.suppress(OSError):  # a log that cannot be written must not keep it alive
            traceback.print_exception(wrong)

    # -- the engine -----------------------------------------------------------------------------------------------------

    def on_engine(self, event: EngineEvent) -> None:
        """Translate the engine's events; a payload that is no message of ours is counted and dropped. A process that is
        being replaced hears no more: its successor goes on. One that is to leave, and has nothing more, hears only who
        has what was its own."""
        if self._restarting:
            return
        gone = self.state.phase is Phase.GONE
        if gone and not isinstance(event, Delivered):
            self._releases.wait_no_longer()  # in an exchange the others would wait for what this one has to say
            return
        match event:
            case Joined():
                self._newcomer.joined()
                self.tell(ev.EngineJoined(event.me, event.incarnation))
            case NewView():
                self._newcomer.entered(event.view, self.state.me)
                self.counts.viewed(event.view)
                self.events.on_engine_view(event.view)
                self.tell(ev.ViewInstalled(event.view))
                members = set(event.view.members)
                self.kernel.peers_present(a for n in self.config.nodes if n.id in members for a in n.addresses)
            case Delivered():
                try:
                    view, message = wire.decode(event.payload)
                except wire.WireError as wrong:
                    self._bad_message(event.sender, wrong)
                    return
                self._newcomer.read(event.sender)
                if isinstance(message, Neighbours | Arrived):  # advice, which the core never sees
                    if event.sender != self.state.me:
                        self._advised(message)
                    return
                if gone:
                    return
                if isinstance(message, Beat):
                    self.counts.heard_beat(event.sender, self.state.settings.beat_ms)
                self.tell(ev.MessageDelivered(event.sender, view, message))
            case Lost():
                self.tell(ev.EngineLost(event.reason))
            case _:
                assert_never(event)

    async def _rejoin(self, reason: str) -> None:
        """Come back as a newcomer; who is evicted again and again takes longer each time (hazard 17)."""
        self.counts.rejoined()
        now = time.monotonic()
        self._evictions = [at for at in self._evictions if now - at < EVICTIONS_SECONDS]
        pause = 0.0
        if self._evictions:
            pause = min(REJOIN_SECONDS_MAX, REJOIN_SECONDS_MIN * 2 ** (len(self._evictions) - 1))
            self.journal.record("rejoin_waits", seconds=f"{pause:g}", evictions=len(self._evictions) + 1)
        self._evictions.append(now)
        await self.engine.rejoin(reason, pause)

    async def _finish(self) -> None:
        """Leave when the others serve what was mine: the ring changes then, and nothing is delivered meanwhile."""
        await self._releases.taken()
        await self.engine.leave()
        self.done.set()

    # -- life -----------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until asked to leave. Returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_bug)
        loop.set_default_executor(ThreadPoolExecutor(initializer=scheduling.behind_the_loop))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.asked_to_leave)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.reload.on_signal()))
        self._pet_watchdog()
        self.audit.start()
        self.events.start()
        await self.control.start()
        try:
            await self._offer_original()
            await self.kernel.start()
            self._kept.guard.arm()
            await self.hooks.start()
            self.health.start()
            if not self.done.is_set():
                await self.engine.start(self.on_engine)
        except BaseException:
            self.done.set()
            await self.health.close()
            await self.hooks.close()
            await self.kernel.close()
            await self._close_controls()
            raise
        gc.collect()
        gc.enable()
        gc.freeze()  # a full collection of start-up's objects would be a pause in the middle of a take-over
        self.journal.record(
            "started", node=self.state.settings.node, cluster=self.config.cluster.name, version=__version__
        )
        await self.done.wait()
        self._tell_of_table()
        self._notifier.stopping()
        self._alarm.set(None)
        self.expiry.close()
        self._releases.close()
        if self.ring is not None:
            self.ring.close()
        held = self.kernel.held()
        await self.kernel.close()
        for key in held:
            self.journal.record("released", vip=key.split("#")[0], node=self.state.settings.node)
        self._kept.guard.disarm()
        self.holders.tell_all()
        self.audit.close(self.failure or "left")
        self.events.close()
        await self._close_controls()
        await self.health.close()
        await self.hooks.close()
        self.journal.record("stopped", reason=self.failure or "left")
        if self.failure is not None:
            print(f"wackamole: {self.failure}", file=sys.stderr)
        return 1 if self.failure else 0

    async def reconfigure(self, config: Config, node: NodeConfig, hooks: Hooks | None) -> None:
        """Put in place what is not the core's. `hooks`: others, that run already; the old ones end what they have begun."""
        before, self.config, self.node = self.config, config, node
        self.kernel.reconfigure(kernel_config(config, node))
        if hooks is not None:
            self.hooks, old = hooks, self.hooks
            self._spawn(old.close())
        if (health := self.health.after(config, node)) is not None:
            self._spawn(self.health.close())
            self.health = health
            health.start()
        if config.load is None and before.load is not None:
            self.tell(ev.LoadMeasured(None))
        if config.control.read_only_for_others != before.control.read_only_for_others:
            with contextlib.suppress(OSError):  # somebody has removed the socket: nobody can read
                self.control.let_others_read(config.control.read_only_for_others)
        if config.control.original != before.control.original:
            if self._original is not None:
                await self._original.close()
            self._original, self._original_refused = self._original_of(config), ""
            await self._offer_original()

    async def _offer_original(self) -> None:
        """The original's control socket. Without it VIPs are served all the same, as by the original."""
        if self._original is None:
            return
        try:
            await self._original.start()
        except Refused as no:
            self._original_refused = str(no)
            self.journal.record("original_refused", reason=self._original_refused)
            return
        if self._original.address.exposed:
            self.journal.record("original_exposed", warning=self._original.address.warning)

    async def _close_controls(self) -> None:
        await self.control.close()
        if self._original is not None:
            await self._original.close()

    def asked_to_leave(self) -> None:
        """SIGTERM, or the verb: hand everything over, then end."""
        self.leaving = True
        self.journal.record("leave_requested")
        self.events.tell_what_waits()
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self.tell, ev.LeaveRequested())

    # -- what operators are told --------------------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """The answer to `status`."""
        warnings = []
        if self.config.cluster.key_file is None:
            warnings.append("the ring has no key: anybody on its network can join (see `wackamole keygen`)")
        if self.config.fence.mode == "off":
            warnings.append("there is no fence, as the config asks: two hosts may answer for a VIP when one is frozen")
        if not self._kept.guard.alive():
            warnings.append("the guard process is gone: restart the daemon, so that its death leaves nothing behind")
        if self._original_refused:
            warnings.append(f"no original wackatrl can be served: {self._original_refused}")
        elif self._original is not None and self._original.address.exposed:
            warnings.append(self._original.address.warning)
        if self._too_large:
            warnings.append(f"{self._too_large} messages were too large to send: fewer VIPs, or shorter names")
        if self._bad_messages:
            warnings.append(f"{self._bad_messages} messages could not be read")
        if self._not_remembered:
            warnings.append(f"who votes is not remembered, and does not change until it is: {self._not_remembered}")
        if self._newcomer.why:
            warnings.append(f"{self._newcomer.why}: has this node the same key_file and version?")
        if self.ring is not None:
            warnings += self.ring.warnings()
        warnings += self.kernel.warnings() + self.hooks.warnings() + self.health.warnings()
        found = status_of(
            self.state,
            cluster=self.config.cluster.name,
            version=__version__,
            since=self.holders.since,
            kernel=self.kernel.held(),
            duplicates=self.kernel.duplicates.describe(),
            witness=self.holders.witness,
            engine=self.engine.describe(),
            fence=self._fence(),
            warnings=tuple(warnings),
        )
        found["notify"] = self.kernel.listed.describe()
        found["hooks"] = self.hooks.describe()
        found["checks"] = self.health.describe()
        found["counts"] = self.counts.describe({NodeId(n.id): n.name for n in self.config.nodes})
        left = self._kept.succession
        found["process"] = {
            "pid": os.getpid(),
            "started": self._started,
            "restarts": left.restarts if left else 0,
            "scheduling": scheduling.current(),
        }
        return found

    def _fence(self) -> dict[str, object]:
        return {
            **self.kernel.fencing.describe(),
            "takeover": self.config.fence.takeover.value,
            "guard": "alive" if self._kept.guard.alive() else "dead",
            "put_back": self.kernel.times_put_back,
        }


def _told_only(effect: do.Effect) -> bool:
    return isinstance(effect, do.Record)


def kernel_config(config: Config, node: NodeConfig) -> KernelConfig:
    """What of a config concerns this host's kernel."""
    told, fence = config.notify, config.fence
    more = {packed(a.ip): vip.notify for vip in config.vips if vip.notify for a in vip.vip.addresses}
    cache = Cache(told.throttle, told.ping) if told.neighbours else None
    return KernelConfig(
        vips=tuple(sorted((v.vip for v in config.vips), key=lambda v: v.key)),
        interfaces=dict(node.interfaces),
        link_up_delay_ms=fence.link_up_delay_ms,
        peers=frozenset(a for n in config.nodes if n != node for a in n.addresses),
        withdraw_after=fence.withdraw_after if fence.duplicates == "withdraw" else None,
        notify=Notify(told.hosts, more, cache, told.interval_ms / 1000),
        routing={v.vip.key: v.routing for v in config.vips},
        keep_connections=frozenset(v.vip.key for v in config.vips if v.connections == "keep"),
    )


def engine_for(
    config: Config,
    node: NodeConfig,
    managed: ManagedCorosync | None,
    journal: Journal,
    on_refused: Callable[[NodeId, Exception], None],
) -> GroupEngine:
    """The group engine that the config asks for. Where the key is not the engine's own, it seals the payloads."""
    cluster, key_file = config.cluster.name, Path(config.cluster.key_file) if config.cluster.key_file else None
    engine: GroupEngine
    if config.engine.type == "spread":
        from ..engine.spread.adapter import SpreadEngine, group_name

        engine = SpreadEngine(
            group_name(cluster),
            NodeId(node.id),
            config.engine.address,
            on_record=journal.record,
            session=config.engine.session,
            retry_s=config.engine.retry_ms / 1000,
        )
    else:
        engine = CorosyncEngine(f"wackamole/{cluster}", managed, on_record=journal.record)
    if key_file is None or managed is not None:
        return engine
    return SealedEngine(engine, Seal(cluster, keys.read_all(key_file)), on_refused=on_refused)


def run(given: Given, kept: Kept) -> int:
    """`wackamole run`, once what start.py does is done: 0 after a clean leave, 1 for a failure."""
    config, node = given.config, given.node
    journal = Journal(verbose=given.verbose, vips=len(config.vips))
    for note in (*config.notes, *original.notes(config)):
        journal.record("config_note", said=note)

    async def main() -> int:
        return await Daemon(config, node, journal, kept).run()

    code = 1
    try:
        code = asyncio.run(main())
    except FenceRefused as no:
        print(f'wackamole: {no}; `mode = "lifetime"` under [fence] needs no nftables', file=sys.stderr)
    except (Refused, CorosyncRefused, KernelRefused, DiskRefused, keys.KeyRefused, LibraryMissing) as no:
        print(f"wackamole: {no}", file=sys.stderr)
    except PermissionError as no:
        print(
            f"wackamole: the kernel refused ({no.strerror}): the daemon needs CAP_NET_ADMIN and CAP_NET_RAW",
            file=sys.stderr,
        )
    if not kept.guard.armed:  # else something may be left: the guard cleans up when this process is gone
        kept.give_up()
    return code


def main() -> None:
    """`python -m wackamole.shell.daemon`, as a daemon calls its successor: it has a Corosync, so nothing is to be begun
    while this module is loaded."""
    start.main(run)


if __name__ == "__main__":
    main()
