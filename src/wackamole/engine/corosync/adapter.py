"""Corosync CPG behind the contract of a group engine.

The connection's descriptor is read by the loop, at most DISPATCH_BUDGET callbacks a turn. When Corosync is gone
everything is dropped (Lost), and the connection is tried again with a growing pause; a private Corosync is started
again by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections import deque

from ..connecting import Connecting
from ..contract import DISPATCH_BUDGET, PAYLOAD_BYTES_MAX, Joined, Listener, Lost, Recorder
from .cmap import read_numbers
from .conf import timings
from .cpg import Connection, CpgError, Process, library
from .managed import CorosyncRefused, ManagedCorosync
from .membership import Membership, payload_frames

RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 0.02, 2.0
OUTBOX_MAX = 4096
"""Frames that wait for Corosync to take them; beyond that it is as good as dead."""
OUTBOX_RETRY_SECONDS = 0.005
FORMED_FACTOR = 1.25
"""By so many times the detection the others have a ring without a Corosync that died."""
HEARD_SECONDS = 0.4
"""A Corosync that starts is heard no sooner: knet takes a link for up at the second answer, and asks every 0.2 s."""
ANSWER_SECONDS_MAX = 2.0
"""Before it is told that Corosync does not answer; it is waited for all the same."""
HELLO_AGAIN_SECONDS = 0.5
WELCOME_SECONDS_MAX = 5.0
"""A newcomer whom nobody welcomes starts over: the members that CPG names may be dead (hazard 13)."""

TIMERS = ("token", "consensus", "join", "merge")


_Answer = tuple[Connection, dict[str, int]]
"""Who has asked to join, and what Corosync's timers are."""


def _join(group: str) -> _Answer:
    timers = read_numbers(tuple(f"runtime.config.totem.{t}" for t in TIMERS))
    connection = Connection(group)
    try:
        connection.join()  # last: from now on the others wait for what this member has to say
    except CpgError:
        connection.close()
        raise
    return connection, timers


def _ask(group: str, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[_Answer]) -> None:
    """A thread's whole life."""
    found: _Answer | Exception
    try:
        found = _join(group)
    except Exception as wrong:  # whatever it is, the loop's thread has to hear of it
        found = wrong

    def hand_over() -> None:
        if isinstance(found, Exception):
            if not answer.done():
                answer.set_exception(found)
        elif answer.done():
            found[0].close()  # nobody waits for it any longer
        else:
            answer.set_result(found)

    with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
        loop.call_soon_threadsafe(hand_over)


class CorosyncEngine:
    """A member of one CPG group. `managed`: the private Corosync to run, or None to join the host's own."""

    def __init__(self, group: str, managed: ManagedCorosync | None, *, on_record: Recorder) -> None:
        self._group = group
        self._managed = managed
        self._record = on_record
        self._listener: Listener | None = None
        self._connection: Connection | None = None
        self._membership: Membership | None = None
        self._connecting = Connecting()
        self._outbox: deque[bytes] = deque()
        self._outbox_timer: asyncio.TimerHandle | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._hello_since = 0.0
        self._more = False
        self._joined = False
        self._timers: dict[str, int] = {}
        self._reconnects = 0
        self._serial = 0

    # -- the contract -----------------------------------------------------------------------------------------------------

    async def start(self, listener: Listener) -> None:
        """Begin to connect, and go on trying. Raises CorosyncRefused or LibraryMissing if this host cannot run it at all."""
        library()
        self._listener = listener
        if self._managed is not None:
            await self._managed.ensure()
        self._connect_again()

    def multicast(self, payload: bytes) -> None:
        """Queue a payload; dropped while not a member."""
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a payload of {len(payload)} bytes is larger than {PAYLOAD_BYTES_MAX}")
        if self._joined:
            self._serial += 1
            for frame in payload_frames(payload, self._serial):
                self._send(frame)

    async def rejoin(self, reason: str, pause_s: float = 0.0) -> None:
        """Leave at once, and join again after a pause with a new incarnation."""
        self._goodbye()
        self._lost(reason, pause_s)

    async def leave(self) -> None:
        """Say goodbye; a private Corosync is stopped."""
        self._listener = None
        self._connecting.cancel()
        self._goodbye()
        self._drop()
        if self._managed is not None:
            await self._managed.stop()

    def describe(self) -> dict[str, str]:
        """Facts for `status`."""
        facts = {"type": "corosync", "managed": "yes" if self._managed else "no"}
        facts["state"] = "joined" if self._joined else "connecting"
        if self._managed is not None:
            facts["adopted"] = "yes" if self._managed.adopted else "no"
        if self._membership is not None and self._membership.ring is not None:
            facts["ring"] = f"{self._membership.ring[0]:x}.{self._membership.ring[1]}"
        facts |= {key: f"{value} ms" for key, value in self._timers.items()}
        facts["reconnects"] = str(self._reconnects)
        return facts

    # -- connecting ---------------------------------------------------------------------------------------------------------

    def _connect_again(self, pause_s: float = 0.0) -> None:
        if not self._connecting.under_way and self._listener is not None:
            self._connecting.begin(self._connect(pause_s))

    async def _connect(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        pause = RETRY_SECONDS_MIN
        last = ""
        while self._connection is None:
            try:
                await self._open()
            except CpgError as wrong:
                if str(wrong) != last:
                    last = str(wrong)
                    self._record("engine_unreachable", reason=last)
            else:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, RETRY_SECONDS_MAX)
            if self._managed is not None and self._managed.running() is None:
                self._record("engine_died", reason=self._managed.last_words())
                # Heard while the others form their ring without it, it would break that, after so long a silence that the
                # halves count each other as dead.
                given_up_s = FORMED_FACTOR * self._managed.detection_ms / 1000
                await asyncio.sleep(max(0.0, given_up_s - HEARD_SECONDS))
                try:
                    await self._managed.ensure()
                except CorosyncRefused as wrong:
                    self._record("engine_refused", reason=str(wrong))
        self._connecting.over()

    async def _open(self) -> None:
        """Join. Raises CpgError. Not on the loop's thread: libcpg waits as long as a Corosync that stands still does not
        answer, and an operator has to be answered meanwhile."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()
        threading.Thread(target=_ask, args=(self._group, loop, answer), name="joining", daemon=True).start()
        try:
            if not (await asyncio.wait({answer}, timeout=ANSWER_SECONDS_MAX))[0]:
                self._record("engine_unreachable", reason="Corosync runs and does not answer")
            connection, timers = await answer
        except asyncio.CancelledError:
            if not answer.cancel() and not answer.cancelled() and answer.exception() is None:
                answer.result()[0].close()  # it came in the same moment: nobody else would
            raise
        self._connection = connection
        self._membership = Membership(
            Process(connection.nodeid, os.getpid()),
            secrets.randbits(64),
            founders_count=lambda: 1 + secrets.randbits(30),
            send=self._send,
        )
        self._hello_since = asyncio.get_running_loop().time()
        asyncio.get_running_loop().add_reader(connection.fd, self._readable)
        self._hello_timer = asyncio.get_running_loop().call_later(HELLO_AGAIN_SECONDS, self._hello_again)
        self._compare_timers(timers)

    def _compare_timers(self, found: dict[str, int]) -> None:
        """What Corosync really runs with; a difference to what was asked for is told."""
        self._timers = {key.rpartition(".")[2]: value for key, value in found.items()}
        if self._managed is None:
            return
        asked = timings(self._managed.detection_ms)
        for name in TIMERS:
            if name in self._timers and self._timers[name] != getattr(asked, name):
                self._record("engine_timing_differs", timer=name, asked=getattr(asked, name), runs=self._timers[name])

    def _hello_again(self) -> None:
        self._hello_timer = None
        if self._membership is None or self._joined:
            return
        now = asyncio.get_running_loop().time()
        if now - self._hello_since > WELCOME_SECONDS_MAX:
            self._goodbye()
            self._lost("nobody in the group welcomed this member")
            return
        if self._membership.waits_for_welcome:
            self._membership.hello()
        self._hello_timer = asyncio.get_running_loop().call_later(HELLO_AGAIN_SECONDS, self._hello_again)

    # -- the connection's life --------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        """The descriptor is readable; what is left of the last turn comes first, by itself."""
        if not self._more:
            self._dispatch()

    def _go_on(self) -> None:
        self._more = False
        self._dispatch()

    def _dispatch(self) -> None:
        for _ in range(DISPATCH_BUDGET):
            connection, membership = self._connection, self._membership
            if connection is None or membership is None:
                return
            try:
                callback = connection.dispatch_one()
            except CpgError as wrong:
                self._lost(str(wrong))
                return
            if callback is None:
                return
            for event in membership.take(callback):
                if isinstance(event, Joined):
                    self._joined = True
                if self._listener is not None:
                    self._listener(event)
                if self._membership is not membership:
                    return
        self._more = True
        asyncio.get_running_loop().call_soon(self._go_on)

    def _send(self, frame: bytes) -> None:
        if len(self._outbox) >= OUTBOX_MAX:
            self._lost_soon(f"Corosync took none of the last {OUTBOX_MAX} messages")
            return
        self._outbox.append(frame)
        if self._outbox_timer is None:
            self._flush()

    def _flush(self) -> None:
        self._outbox_timer = None
        connection = self._connection
        while self._outbox and connection is not None:
            try:
                taken = not connection.congested() and connection.multicast(self._outbox[0])
            except CpgError as wrong:
                self._lost_soon(str(wrong))
                return
            if not taken:
                self._outbox_timer = asyncio.get_running_loop().call_later(OUTBOX_RETRY_SECONDS, self._flush)
                return
            self._outbox.popleft()

    def _goodbye(self) -> None:
        if self._connection is not None:
            try:
                self._connection.leave()
            except CpgError as wrong:
                self._record("engine_leave_failed", reason=str(wrong))

    def _drop(self) -> None:
        for timer in (self._outbox_timer, self._hello_timer):
            if timer is not None:
                timer.cancel()
        self._outbox_timer = self._hello_timer = None
        self._outbox.clear()
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection.fd)
            self._connection.close()
        self._connection = self._membership = None
        self._joined = False

    def _lost_soon(self, reason: str) -> None:
        """Found out while the listener speaks: it must hear of it before the connection closes, so not in its own call."""
        asyncio.get_running_loop().call_soon(self._lost, reason)

    def _lost(self, reason: str, pause_s: float = 0.0) -> None:
        """Everything of this membership is void; tell once, then try again."""
        if self._connection is None:
            return
        self._joined = False
        if self._listener is not None:
            self._listener(Lost(reason))  # first: what closes the connection is a death to the others (hazard 6)
        self._drop()
        self._reconnects += 1
        self._connect_again(pause_s)
