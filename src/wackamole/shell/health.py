"""The daemon's side of health checks and of measuring: it reads what the checker's process (checker.py) says, and makes of
it what speaks against which VIP on this host. Nothing here looks at anything itself.

A checker that dies is started anew and told the last verdicts, which hold meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from ..config import CheckConfig, Config, NodeConfig
from ..core import events as ev
from ..core.model import NotEligible, VipKey
from .checker import Check, Figure, Order, Verdict, read_line
from .child import PATH, module_paths
from .load import Measuring

LINES_PER_TURN = 64
LINE_BYTES_MAX = 4096
RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 1.0, 30.0
"""Of a checker that ends again and again; after RESTART_SECONDS_MAX without an end it begins with the former."""
SILENT_SECONDS_MAX = 10.0
"""A check that has said nothing for so long after its time counts as failing: else a checker that cannot be started would
keep this host out of everything."""
END_SECONDS_MAX = 2.0

Known = Mapping[str, bool]
"""Verdicts by the checks' names."""


class _NonsenseError(Exception):
    """The checker is not what it should be; the sentence says how."""


@dataclass(slots=True)
class _Standing:
    """What is known of a check. `since`: wall clock, seconds."""

    check: CheckConfig
    passes: bool | None
    since: float
    said: str = ""


class Health:
    """The checks of this node, and its load. `known`: what a predecessor knew; None if there was none. A check that it did
    not know counts as passing until it has spoken: a daemon that is replaced drops nothing, nor does one that is given a
    new check."""

    def __init__(
        self,
        config: Config,
        node: NodeConfig,
        known: Known | None,
        tell: Callable[[ev.HealthChanged | ev.LoadMeasured], None],
        record: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        self._cluster, self._node = config.cluster.name, node
        self._keys = {v.vip.name: v.vip.key for v in config.vips}
        self._tell = tell
        self._record = record
        now = time.time()
        self._standings = [
            _Standing(c, None if known is None else known.get(c.name, None if c.only_one else True), now)
            for c in _checks_of(config, node)
        ]
        self._load = config.load
        self._follows = False  # on one that may have said something
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._silent: asyncio.TimerHandle | None = None
        self._telling: asyncio.Handle | None = None
        self._closing = False

    def after(self, config: Config, node: NodeConfig) -> Health | None:
        """What takes over from this one with another config, with the verdicts of the checks that it has too, except that who
        is the only one is asked anew if that is asked of something else. None if nothing has changed that concerns them."""
        standings = {s.check.name: s for s in self._standings}
        keys = {v.vip.name: v.vip.key for v in config.vips}
        checks, about = _checks_of(config, node), {name for s in self._standings for name in s.check.vips}
        if (
            (checks, config.load) == ([s.check for s in self._standings], self._load)
            and node.interfaces == self._node.interfaces
            and all(keys.get(name) == self._keys[name] for name in about)
        ):
            return None
        health = Health(config, node, {}, self._tell, self._record)
        health._follows = True
        for standing in health._standings:
            old = standings.get(standing.check.name)
            if old is not None and (not standing.check.only_one or _looks_at(old.check) == _looks_at(standing.check)):
                standing.passes, standing.since, standing.said = old.passes, old.since, old.said
        return health

    def start(self) -> None:
        """Say what is known, and have the checker started, if there is anything to do for it."""
        if self._standings or self._follows:
            self._tell_now()
        if self._standings:
            longest_ms = max(s.check.timeout_ms for s in self._standings)
            loop = asyncio.get_running_loop()
            self._silent = loop.call_later(longest_ms / 1000 + SILENT_SECONDS_MAX, self._give_up_waiting)
        if self._standings or self._load is not None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep())
            self._keeping.add_done_callback(_surprise)

    def known(self) -> Known:
        """For a successor."""
        return {s.check.name: s.passes for s in self._standings if s.passes is not None}

    # -- the process ----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Have a checker, for as long as this is not closed."""
        loop = asyncio.get_running_loop()
        pause = RESTART_SECONDS_MIN
        while True:
            began, reason = loop.time(), "it ended"
            try:
                self._process = await self._started()
                await self._read(self._process)
            except OSError as no:
                reason = f"it cannot be started: {no.strerror}"
            except _NonsenseError as wrong:
                reason = str(wrong)
            await self._end()
            if self._closing:
                return
            self._record("checker_failed", {"reason": reason})
            pause = RESTART_SECONDS_MIN if loop.time() - began > RESTART_SECONDS_MAX else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, RESTART_SECONDS_MAX)

    async def _started(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "wackamole.shell.checker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": PATH, "LANG": "C.UTF-8", **module_paths()},
            cwd="/",
            start_new_session=True,  # whatever is sent to the daemon's group is not for it
            limit=LINE_BYTES_MAX,
        )
        load = self._load
        order = Order(
            tuple(
                Check(
                    s.check.kind,
                    self._options(s.check),
                    s.check.interval_ms,
                    s.check.timeout_ms,
                    s.check.rise,
                    s.check.fall,
                    s.passes,
                )
                for s in self._standings
            ),
            asdict(Measuring(load.command, load.interval_ms, load.timeout_ms, load.keep_ms)) if load else None,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        return process

    def _options(self, check: CheckConfig) -> dict[str, object]:
        """What it looks at here: interfaces by this node's names, and for a program who asks."""
        options = dict(check.options)
        if "interface" in options:
            options["interface"] = dict(self._node.interfaces).get(str(options["interface"]), options["interface"])
        if check.kind == "exec":
            who = {"CHECK": check.name, "NODE": self._node.name, "CLUSTER": self._cluster}
            options["environment"] = {f"WACKAMOLE_{k}": v for k, v in who.items()}
        return options

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        lines = 0
        while said := await self._next(process.stdout):
            self._heard(said)
            lines += 1
            if lines % LINES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _next(self, lines: asyncio.StreamReader) -> Verdict | Figure | None:
        try:
            line = await lines.readline()
            said = read_line(line) if line else None
        except (ValueError, TypeError, KeyError, AttributeError) as wrong:
            raise _NonsenseError(f"it said what cannot be read: {wrong}") from None
        if isinstance(said, Verdict) and not 0 <= said.check < len(self._standings):
            raise _NonsenseError(f"it said something of check {said.check}")
        return said

    async def _end(self) -> None:
        """No checker is left; its children have ended with it."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS_MAX)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        assert process.stdout is not None
        await process.stdout.read()  # what nobody wants to know any more, or its pipe would stay open
        with contextlib.suppress(OSError):  # what could not be written to it: asked for here, it is nobody's surprise
            await process.stdin.wait_closed()

    async def close(self) -> None:
        """End the checker. What is known stays."""
        self._closing = True
        for timer in (self._silent, self._telling):
            if timer is not None:
                timer.cancel()
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        await self._end()

    # -- what it says ---------------------------------------------------------------------------------------------------

    def _heard(self, said: Verdict | Figure) -> None:
        if self._closing:
            return
        if isinstance(said, Verdict):
            self._judge(self._standings[said.check], said.passes, said.said)
        elif said.record:
            self._record(said.record, said.fields or {})
        else:
            self._tell(ev.LoadMeasured(said.load))

    def _give_up_waiting(self) -> None:
        for standing in self._standings:
            if standing.passes is None:
                self._judge(standing, False, f"nothing was heard of it for {SILENT_SECONDS_MAX:g} s after its time")

    def _judge(self, standing: _Standing, passes: bool, said: str) -> None:
        standing.said = said
        if passes is standing.passes:
            return
        first = standing.passes is None
        standing.passes, standing.since = passes, time.time()
        if not passes or not first:
            what = "check_passed" if passes else "check_failed"
            self._record(what, {"check": standing.check.name, "said": said, "vips": _listed(standing.check.vips)})
        if self._telling is None:  # those that come together are told together
            self._telling = asyncio.get_running_loop().call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self._telling = None
        failing: dict[VipKey, NotEligible] = {}
        chosen: list[VipKey] = []
        for standing in self._standings:
            reason = _reason(standing)
            for key in (self._keys[name] for name in standing.check.vips):
                if reason is not None and _weight(reason) > _weight(failing.get(key)):
                    failing[key] = reason
                elif reason is None and standing.check.only_one:
                    chosen.append(key)
        self._tell(ev.HealthChanged(tuple(sorted(failing.items(), key=lambda kv: kv[0])), tuple(sorted(chosen))))

    def describe(self) -> list[dict[str, object]]:
        """For `status`."""
        words = {True: "passing", False: "failing", None: "unknown"}
        return [
            {
                "name": s.check.name,
                "kind": s.check.kind,
                "state": words[s.passes],
                "since": s.since,
                "said": s.said,
                "vips": list(s.check.vips),
                "unhealthy": "withdraw" if s.check.withdraw else "keep",
                "only_one": s.check.only_one,
            }
            for s in self._standings
        ]

    def warnings(self) -> list[str]:
        """What an operator should know now."""
        if self._keeping is None or self._process is not None:
            return []
        return ["the process that runs the health checks has ended, and is started anew; their last verdicts hold"]


def _surprise(task: asyncio.Task[None]) -> None:
    """What nobody expected is the loop's to know."""
    if not task.cancelled() and (wrong := task.exception()) is not None:
        raise wrong


def _checks_of(config: Config, node: NodeConfig) -> list[CheckConfig]:
    return [c for c in config.checks if not c.nodes or node.name in c.nodes]


def _looks_at(check: CheckConfig) -> tuple[object, ...]:
    return check.kind, check.options, check.only_one


def _reason(standing: _Standing) -> NotEligible | None:
    if standing.passes:
        return None
    if standing.passes is None:
        return NotEligible.CHECK_SILENT
    return NotEligible.CHECK_FORBIDS if standing.check.withdraw else NotEligible.CHECK_FAILING


def _weight(reason: NotEligible | None) -> int:
    """Of several checks about one VIP the worst counts."""
    order = (None, NotEligible.CHECK_FAILING, NotEligible.CHECK_SILENT, NotEligible.CHECK_FORBIDS)
    return order.index(reason)


def _listed(names: tuple[str, ...]) -> str:
    text = ",".join(names[:20])
    return f"{text},…" if len(names) > 20 else text
