"""Hooks: telling other programs what happened here. The daemon only writes lines into a pipe; a process of its own runs the
programs (hook_runner.py), in order for each VIP, and says what became of them. Nobody waits for a hook, but for the `budget`
of `before_release`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

from ..config import HookConfig
from ..core.model import Vip, VipKey
from .child import PATH, module_paths
from .hook_runner import Job, Result

BATCH_MAX = 16
"""Happenings of one turn of the loop: each takes some 30 us to write."""
WAITING_MAX = 20_000
BUFFER_BYTES_MAX = 4 << 20
"""What a runner that is stopped has not read; what comes then is not told to it."""
ROUND_SECONDS = 0.05
"""Changes within this time are one round: they come of one move or view."""
RESTART_SECONDS, RESTART_SECONDS_MAX = 1.0, 60.0
"""A runner that ended is started anew after this; one that ends again and again, each time after twice as long."""
LATE_SECONDS = 60.0
"""A call that has waited for longer is told by `status`."""
LAST_SECONDS = 5.0
"""How long the daemon waits for the last hooks when it ends."""
RESULT_BYTES_MAX = 64 << 10
VARIABLE_CHARACTERS_MAX = 32_000
"""A longer one is left away, as the kernel would refuse the program; the standard input has it all."""

Happening = Mapping[str, object]
Recorded = Callable[[str, Mapping[str, object]], None]


@dataclass(slots=True)
class _Score:
    """What a hook did so far."""

    runs: int = 0
    failed: int = 0
    last_failure: str = ""


@dataclass(slots=True)
class _Round:
    """What waits to be told at once to one hook."""

    hook: int
    event: str
    happenings: list[Happening] = field(default_factory=list)
    vips: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Pending:
    """A job that was not reported yet."""

    hook: int
    event: str
    vips: str
    at: float
    done: Callable[[], None] | None


class Hooks:
    """The hooks of this node. `common` says what is true of everything at this moment: cluster, node, view."""

    def __init__(
        self,
        hooks: Iterable[HookConfig],
        node: str,
        common: Callable[[], Happening],
        record: Recorded,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hooks = [h for h in hooks if not h.nodes or node in h.nodes]
        self._common = common
        self._record = record
        self._clock = clock
        self._on: dict[str, list[tuple[int, frozenset[str]]]] = {}  # hooks and their VIPs, by event
        for number, hook in enumerate(self._hooks):
            for event in hook.on:
                self._on.setdefault(event, []).append((number, frozenset(hook.vips)))
        self.events = frozenset(self._on)
        """Nothing else has to be told."""
        self._waiting: deque[tuple[str, str, Happening]] = deque()
        self._flushing: asyncio.Handle | None = None
        self._rounds: dict[tuple[int, str], _Round] = {}
        self._numbers = count(1)
        self._pending: dict[int, _Pending] = {}
        self._scores = [_Score() for _ in self._hooks]
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._closing = False
        self._held: deque[tuple[int, str, list[Happening]]] = deque()  # while no runner is there
        self._dropped = 0

    async def start(self) -> None:
        """Start the runner, if there is anything to run. Raises OSError if that is not possible."""
        if self._hooks:
            self._process = await self._runner()
            self._keeping = asyncio.get_running_loop().create_task(self._keep(self._process))

    async def _runner(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "wackamole.shell.hook_runner"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment({}, paths=True),
            cwd="/",
            start_new_session=True,  # whatever is sent to the daemon's group is not for the hooks
            limit=RESULT_BYTES_MAX,
        )

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Listen to the runner until it ends; one that ends before it should is started anew."""
        pause = RESTART_SECONDS
        lost = await self._read(process)
        while not self._closing:
            why = "the process that runs the hooks ended"
            self._record("hook_failed", {"hook": "all", "outcome": why, "lost": lost})
            lost = 0
            await asyncio.sleep(pause)
            if self._closing:
                return
            began = self._clock()
            with contextlib.suppress(OSError):  # too many processes, or no memory: the next time, maybe
                self._process = await self._runner()
                self._record("hook", {"hook": "all", "outcome": "another process runs them"})
                held, self._held = self._held, deque()
                for number, event, happenings in held:
                    self._tell(number, event, happenings)
                lost = await self._read(self._process)
            lived = self._clock() - began
            pause = RESTART_SECONDS if lived > RESTART_SECONDS_MAX else min(2 * pause, RESTART_SECONDS_MAX)

    def happened(self, event: str, vip: str, what: Happening) -> None:
        """Something that hooks may be on. `vip` is "" for what concerns none."""
        if event not in self.events or self._closing:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._drop(event, vip)
            return
        self._waiting.append((event, vip, {"event": event, "time": time.time(), **self._common(), **what}))
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Tell the runner, a batch a turn: membership goes first."""
        self._flushing = None
        loop = asyncio.get_running_loop()
        for _ in range(min(BATCH_MAX, len(self._waiting))):
            event, vip, happening = self._waiting.popleft()
            for number, vips in self._on[event]:
                if vip and vips and vip not in vips:
                    continue
                if self._hooks[number].each == "vip":
                    self._tell(number, event, [happening])
                    continue
                for other in [r for r in self._rounds.values() if r.hook == number and r.event != event]:
                    if vip in other.vips:  # what happened to it before is told before
                        self._end_round(other)
                found = self._rounds.get((number, event))
                if found is None:
                    found = self._rounds[number, event] = _Round(number, event)
                    loop.call_later(ROUND_SECONDS, self._end_round, found)
                found.happenings.append(happening)
                if vip:
                    found.vips.add(vip)
        if self._waiting:
            self._flushing = loop.call_soon(self._flush)

    def _end_round(self, found: _Round) -> None:
        if self._rounds.pop((found.hook, found.event), None) is found:
            self._tell(found.hook, found.event, found.happenings)

    def ask(
        self, vips: Mapping[VipKey, Vip], what: Mapping[VipKey, Happening], done: Callable[[VipKey], None]
    ) -> float:
        """`before_release` of these: `done` is called for each when its hooks have ended. Returns the budget in seconds: so
        long they are waited for at most; 0: none of these has such a hook."""
        left: dict[VipKey, int] = {}
        budget_ms = 0
        for number, hook in enumerate(self._hooks):
            mine = [
                k for k, v in vips.items() if "before_release" in hook.on and (not hook.vips or v.name in hook.vips)
            ]
            if not mine:
                continue
            budget_ms = max(budget_ms, hook.budget_ms)
            for part in [mine] if hook.each == "round" else [[k] for k in mine]:
                for key in part:
                    left[key] = left.get(key, 0) + 1
                told: list[Happening] = [
                    {"event": "before_release", "time": time.time(), **self._common(), **what[k]} for k in part
                ]

                def ended(part: list[VipKey] = part) -> None:
                    for key in part:
                        left[key] -= 1
                        if not left[key]:
                            done(key)

                self._tell(number, "before_release", told, ended, hook.budget_ms / 1000)
        for key in vips.keys() - left.keys():
            done(key)
        return budget_ms / 1000

    def _tell(
        self,
        number: int,
        event: str,
        happenings: list[Happening],
        done: Callable[[], None] | None = None,
        within_s: float | None = None,
    ) -> None:
        hook = self._hooks[number]
        names = [str(h["vip"]) for h in happenings if "vip" in h]
        vips = " ".join(names)
        stdin = self._process.stdin if self._process is not None else None
        gone = stdin is None or stdin.is_closing()
        if gone and done is None and not self._closing and len(self._held) < WAITING_MAX:
            self._held.append((number, event, happenings))
            return
        if stdin is None or gone or stdin.transport.get_write_buffer_size() > BUFFER_BYTES_MAX:
            self._drop(event, vips)
            if done is not None:  # nobody waits for what will not be; the others of these are told first
                asyncio.get_running_loop().call_soon(done)
            return
        if hook.each == "vip":
            said = happenings[0]
        else:
            first = happenings[0]
            said = {k: first[k] for k in ("event", "time", *self._common())} | {"happenings": happenings}
        job = Job(
            next(self._numbers),
            hook.command or (sys.executable, "-P", "-m", "wackamole.shell.hook_function", hook.python),
            tuple(f"vip {name}" for name in names) or (f"hook {number}",),
            _environment(_variables(event, happenings), paths=bool(hook.python)),
            json.dumps(said),
            hook.timeout_ms,
            time.monotonic() + within_s if within_s is not None else None,
        )
        self._pending[job.number] = _Pending(number, event, vips, self._clock(), done)
        stdin.write(json.dumps({k: getattr(job, k) for k in Job.__slots__}).encode() + b"\n")

    def _drop(self, event: str, vips: str) -> None:
        self._dropped += 1
        if self._dropped < 10:
            self._record("hook_failed", {"hook": "all", "on": event, "vip": vips[:200], "outcome": "dropped"})

    async def _read(self, process: asyncio.subprocess.Process) -> int:
        """What became of the jobs, until the runner ends. Returns how many are lost with it."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            result = Result(**json.loads(line))
            pending = self._pending.pop(result.number, None)
            if pending is not None:
                self._ended(pending, result)
        await process.wait()
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # what could not be written to it: asked for here, it is nobody's surprise
            await process.stdin.wait_closed()
        lost, self._pending = self._pending, {}
        for pending in lost.values():
            if pending.done is not None:
                pending.done()
        return len(lost)

    def _ended(self, pending: _Pending, result: Result) -> None:
        hook, score = self._hooks[pending.hook], self._scores[pending.hook]
        outcome = f"{result.outcome} {result.code}" if result.outcome in ("exit", "signal") else result.outcome
        fields = {
            "hook": hook.name,
            "on": pending.event,
            "vip": pending.vips[:200],
            "outcome": outcome,
            "ms": result.ms,
        }
        score.runs += 1
        if result.outcome == "ok":
            self._record("hook", fields)
        else:
            score.failed += 1
            score.last_failure = f"{outcome} on {pending.event} {pending.vips[:200]}: {result.said}".strip(": ")
            self._record("hook_failed", {**fields, "said": result.said})
        if pending.done is not None:
            pending.done()

    def describe(self) -> list[dict[str, object]]:
        """For `status`: each hook's name, runs, failures, and the last failure."""
        return [
            {"name": hook.name, "runs": score.runs, "failed": score.failed, "last_failure": score.last_failure}
            for hook, score in zip(self._hooks, self._scores, strict=True)
        ]

    def warnings(self) -> list[str]:
        """What an operator should know now."""
        found = [
            f"the hook {hook.name} has failed {score.failed} of {score.runs} times; last: {score.last_failure}"
            for hook, score in zip(self._hooks, self._scores, strict=True)
            if score.failed
        ]
        waited_s = max((self._clock() - p.at for p in self._pending.values()), default=0.0)
        if waited_s > LATE_SECONDS:
            found.append(f"{len(self._pending)} calls of hooks wait, the first for {waited_s:.0f} s")
        if self._dropped:
            found.append(
                f"{self._dropped} calls of hooks were dropped: too many waited, or nothing was there to make them"
            )
        return found

    async def close(self, seconds: float = LAST_SECONDS) -> None:
        """Tell what is left to tell, and wait so long for what is under way; it goes on without the daemon."""
        while self._waiting:
            self._flush()
        for found in list(self._rounds.values()):
            self._end_round(found)
        self._closing = True
        if self._flushing is not None:
            self._flushing.cancel()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        if self._keeping is not None:
            if self._process is not None and self._process.returncode is not None:
                seconds = 0.0  # it waits to start another one
            _, late = await asyncio.wait({self._keeping}, timeout=seconds)
            for task in late:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def _variables(event: str, happenings: list[Happening]) -> dict[str, str]:
    first = happenings[0]
    vips = [h for h in happenings if "vip" in h]

    def each(key: str) -> str:
        return " ".join(dict.fromkeys(str(h.get(key) or "-") for h in vips))

    addresses = [a for h in vips if isinstance(listed := h["addresses"], list) for a in listed]
    return {
        "EVENT": event,
        **{k.upper(): str(first[k]) for k in ("cluster", "node", "view")},
        "VIP": each("vip"),
        "ADDRESSES": " ".join(f"{a['ip']}/{a['prefix']}" for a in addresses),
        "IPS": " ".join(a["ip"] for a in addresses),
        "CAUSE": "; ".join(dict.fromkeys(str(h["cause"]) for h in vips)),
        "HOLDER": each("holder"),
        "PREVIOUS": each("previous"),
    }


def _environment(variables: Mapping[str, str], *, paths: bool) -> dict[str, str]:
    """All that a program gets of an environment; `paths`: also where this Python looks for modules."""
    found = {"PATH": PATH, "LANG": "C.UTF-8"}
    if paths:
        found |= module_paths()
    return found | {f"WACKAMOLE_{k}": v for k, v in variables.items() if len(v) <= VARIABLE_CHARACTERS_MAX}
