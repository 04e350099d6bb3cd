"""What is done to a cluster, and what is measured of it: the same for every system.

A `Stage` is one cluster of one system. It is brought up once, which is a measurement itself, and goes through the scenarios
in a fixed order; before each of them the preconditions are looked at, and if they do not hold the run of that scenario is
void: each VIP is in exactly one kernel, the client reaches all, the system says that nothing is pending, and all that has
been so for QUIET_SECONDS.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..lab import Lab, LabRefused, NotInTime
from ..namespaces import ToolFailed, processes_in
from ..probe import Probe, Seen
from .system import About, NotOffered, System, send

PROBE_MS, MOVE_PROBE_MS, LEAVE_PROBE_MS = 5.0, 1.0, 2.0
QUIET_SECONDS = 3.0
READY_SECONDS_MAX = 150.0
UNEVEN_SECONDS = 40.0
"""A system that has not evened its shares out by then does not do it: they are shown as they are."""
STEADY_SECONDS = 1.5
REACHED_SECONDS_MAX = 15.0
RECOVERED_SECONDS_MAX = 90.0
BEYOND_NOTICE_SECONDS = 3.0
"""What a fault lasts beyond the time in which the system notices it, so that it can also act on it."""
LEFT_SECONDS_MAX = 60.0
STARTED_SECONDS_MAX = 30.0
CHAOS_KINDS = ("crash", "kill", "freeze", "cut", "split", "leave")
CHAOS_EACH_SECONDS = 10.0
CHAOS_HOLD_SECONDS = (1.0, 5.0)
TICKS = os.sysconf("SC_CLK_TCK")


class Void(Exception):
    """A precondition does not hold; the sentence says which."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long what lasts by itself is to last, seconds."""

    idle: float = 20.0
    chaos: float = 60.0
    observed: float = 6.0
    """After a fault, at least: something that comes late (a second announcement, an election that is repeated) is seen."""
    held: float = 8.0
    """A freeze, a cut and a split, at least; for longer if the system needs longer to notice them."""


QUICK = Timing(idle=5.0, chaos=30.0, observed=4.0, held=5.0)


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of a scenario gave. `figures`: numbers by name, the unit last in the name; `detail`: what explains them."""

    figures: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)


def holds_s(timing: Timing, about: About) -> float:
    """How long a fault lasts at least before it is undone or its end is called: longer than the system needs to notice."""
    return max(timing.held, about.notices_s + BEYOND_NOTICE_SECONDS)


# -- what was seen, as numbers ----------------------------------------------------------------------------------------------


def dark_ms(seen: Seen, vip: str, begin: float, end: float) -> float:
    """How long the client had no answer of a VIP, all silences together that touch this time."""
    return sum((b - a) * 1000 for a, b in seen.silences[vip] if b > begin and a < end)


def two_owners_ms(seen: Seen, vip: str, begin: float, end: float) -> float:
    """How long two hosts answered for a VIP: questions that both answered, times the time between two questions."""
    return sum(1 for at, _ in seen.two_owners[vip] if begin <= at < end) * seen.interval_s * 1000


def effect(
    seen: Seen,
    span: tuple[float, float],
    before: dict[str, str],
    after: dict[str, str],
    gone: Sequence[str] = (),
    prefix: str = "",
) -> dict[str, float]:
    """What a fault did in this time. `before`, `after`: who held what; `gone`: nodes that could not go on serving; a VIP of
    another that moved, or was silent for longer than two questions, did so needlessly."""
    begin, end = span
    dark = {vip: dark_ms(seen, vip, begin, end) for vip in seen.silences}
    double = {vip: two_owners_ms(seen, vip, begin, end) for vip in seen.silences}
    touched = [vip for vip in dark if before.get(vip) in gone] if gone else list(dark)
    others = [vip for vip in dark if vip not in touched]
    slack_ms = 2 * seen.interval_s * 1000
    found = {
        "outage_worst_ms": max(dark.values()),
        "outage_median_ms": statistics.median(dark[v] for v in touched) if touched else 0.0,
        "dark_vip_ms": sum(dark.values()),
        "two_owners_worst_ms": max(double.values()),
        "two_owners_vip_ms": sum(double.values()),
        "needless_interruptions": float(sum(1 for v in others if dark[v] > slack_ms)),
        "needless_moves": float(sum(1 for v in others if v in after and after[v] != before.get(v))),
    }
    return {prefix + name: round(value, 3) for name, value in found.items()}


def timeline(seen: Seen, since: float) -> dict[str, Any]:
    """Who answered for each VIP from when on, and when it was silent; milliseconds since a moment. Bounded."""

    def ms(at: float) -> float:
        return round((at - since) * 1000, 1)

    return {
        vip: {
            "owners": [[ms(at), who] for at, who in seen.owners[vip][:40]],
            "silent": [[ms(a), ms(b)] for a, b in seen.silences[vip][:40]],
        }
        for vip in seen.silences
    }


def spread_of(held: Iterable[str], nodes: Sequence[str]) -> int:
    """Fairness: by how many VIPs the largest share of these nodes differs from the smallest."""
    holders = list(held)
    shares = [holders.count(n) for n in nodes]
    return max(shares) - min(shares)


# -- the faults of a random minute --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is done at a moment and undone at another, seconds from the beginning."""

    kind: str
    node: str
    at: float
    until: float


def random_faults(seed: int, nodes: Sequence[str], seconds: float) -> list[Fault]:
    """Faults at fixed times, one after the other: the same for every system, whatever it made of the one before."""
    dice = random.Random(seed)  # noqa: S311 - it has to be predictable
    kinds = list(CHAOS_KINDS)
    found: list[Fault] = []
    at = 1.0
    while at + CHAOS_HOLD_SECONDS[1] < seconds:
        if len(found) % len(kinds) == 0:
            dice.shuffle(kinds)
        hold = round(dice.uniform(*CHAOS_HOLD_SECONDS), 2)
        found.append(Fault(kinds[len(found) % len(kinds)], dice.choice(nodes), round(at, 2), round(at + hold, 2)))
        at += CHAOS_EACH_SECONDS
    return found


# -- the stage ------------------------------------------------------------------------------------------------------------


class Stage:
    """One cluster of one system."""

    def __init__(self, system: System, lab: Lab, run: int, timing: Timing) -> None:
        self.system, self.lab, self.run, self.timing = system, lab, run, timing
        self.nodes = lab.layout.nodes
        self.vips = [address for _, address in lab.layout.vips]

    # -- facts

    def held(self) -> dict[str, str] | None:
        """Which node has which VIP, by its kernel; None if one is not in exactly one kernel."""
        kernels = {n: self.lab.kernel(n) for n in self.nodes}
        found: dict[str, str] = {}
        for vip in self.vips:
            holders = [n for n in self.nodes if vip in kernels[n]]
            if len(holders) != 1:
                return None
            found[vip] = holders[0]
        return found

    def _holders_now(self) -> dict[str, str]:
        """Who has which VIP, of those that somebody has; the first if there are several."""
        kernels = {n: self.lab.kernel(n) for n in self.nodes}
        return {
            vip: next(n for n in self.nodes if vip in kernels[n])
            for vip in self.vips
            if any(vip in k for k in kernels.values())
        }

    def until_ready(self) -> dict[str, str]:
        """Wait until each VIP is in one kernel, shares are even, and nothing is pending; for QUIET_SECONDS. Raises Void."""
        began = time.monotonic()
        since, last = began, None
        while True:
            now = time.monotonic()
            held = self.held()
            if held is None or held != last or not self.system.ready(self.lab):
                since, last = now, held
            elif now - since >= QUIET_SECONDS and (
                spread_of(held.values(), self.nodes) <= 1 or now - since >= UNEVEN_SECONDS
            ):
                return held
            if now - began > READY_SECONDS_MAX:
                raise Void(f"not ready within {READY_SECONDS_MAX:g} s")
            time.sleep(0.05)

    @contextmanager
    def watching(self, probe_ms: float = PROBE_MS, vips: Sequence[str] | None = None) -> Iterator[Watch]:
        """The client and the observer. They may begin while something is waited for; `Watch.until_reached` is what holds
        before anything happens."""
        asked = list(vips) if vips is not None else self.vips
        with Probe(self.lab, interval_ms=probe_ms, vips=asked) as probe:
            yield Watch(probe, len(asked))

    # -- what is done

    def kill(self, node: str) -> float:
        """kill -9 of all processes of the daemon. Returns when."""
        pids = self.system.daemons(self.lab, node)
        if not pids:
            raise Void(f"the daemon of {node} does not run")
        when = time.monotonic()
        send(signal.SIGSTOP, pids)  # all at one instant: a child that sees its parent die would leave in an orderly way
        send(signal.SIGKILL, pids)
        return when

    def start(self, node: str) -> None:
        """Start it, which boots a crashed host."""
        self.system.start(self.lab, node)

    def start_missing(self, leave_alone: Collection[str] = ()) -> None:
        """Start it wherever it does not run, and wait until its processes are there. What is still entering its host has
        no name that anybody knows, and would be started twice. Raises Void."""
        for node in self.nodes:
            if node in leave_alone or self.system.daemons(self.lab, node):
                continue
            self.until_left(node)
            self.start(node)
            due = time.monotonic() + STARTED_SECONDS_MAX
            while not self.system.daemons(self.lab, node):
                if time.monotonic() > due:
                    raise Void(f"the daemon of {node} does not start within {STARTED_SECONDS_MAX:g} s")
                time.sleep(0.02)

    def leave(self, node: str) -> float:
        """Ask it to leave. Returns when."""
        when = time.monotonic()
        self.system.leave(self.lab, node)
        return when

    def until_left(self, node: str, within_s: float = LEFT_SECONDS_MAX) -> None:
        """Wait until it has ended; what does not end is killed."""
        due = time.monotonic() + within_s
        while not self.system.left(self.lab, node):
            if time.monotonic() > due:
                send(signal.SIGKILL, processes_in(self.lab.layout.namespace(node)))
                return
            time.sleep(0.02)

    def victim(self, scenario: str) -> str:
        """Whose turn it is: another node in each run and each scenario."""
        return self.nodes[(self.run + list(SCENARIOS).index(scenario)) % len(self.nodes)]

    def fault(
        self,
        node: str,
        do: Callable[[], float],
        *,
        undo: Callable[[], float] | None = None,
        probe_ms: float = PROBE_MS,
        dead: bool = True,
    ) -> Result:
        """Do something to a node, watch until all VIPs answer steadily; the same again for undoing it. `dead`: the node
        cannot serve meanwhile, so that its VIPs have to move."""
        with self.watching(probe_ms) as watch:
            before = self.until_ready()
            watch.until_reached()
            began = do()
            steady = [watch.until_steady(holds_s(self.timing, self.system.about), RECOVERED_SECONDS_MAX)]
            undone = time.monotonic()
            during = self._holders_now()
            if undo is not None:
                undone = undo()
                steady.append(watch.until_steady(self.timing.observed, RECOVERED_SECONDS_MAX))
            ended = time.monotonic()
            seen = watch.stop()
        served = {vip: _last_owner(seen, vip, undone) for vip in self.vips}
        figures = effect(seen, (began, undone), before, served, [node] if dead else [])
        if dead:
            alive = [n for n in self.nodes if n != node]
            figures["fairness_vips"] = float(spread_of([n for n in served.values() if n in alive], alive))
        if undo is not None:
            figures |= effect(seen, (undone, ended), before, self._holders_now(), prefix="back_")
        figures |= {
            f"{prefix}unrecovered": 1.0 for prefix, good in zip(("", "back_"), steady, strict=False) if not good
        }
        shares = [list(before.values()).count(n) for n in self.nodes]
        detail = {"node": node, "shares": shares, "stalls": len(seen.stalls), "timeline": timeline(seen, began)}
        if undo is not None:
            detail["undone_ms"] = round((undone - began) * 1000)
        detail["kernel"] = {vip: during.get(vip) for vip in self.vips}
        return Result(figures, detail)


class Watch:
    """A probe under way."""

    def __init__(self, probe: Probe, vips: int) -> None:
        self._probe, self._vips = probe, vips

    def until_asking(self) -> None:
        """Wait until the client asks. Raises Void."""
        due = time.monotonic() + REACHED_SECONDS_MAX
        while len(self._probe.silent) < self._vips:
            if time.monotonic() > due:
                raise Void("the client did not begin")
            time.sleep(0.02)

    def answered(self) -> bool:
        """Whether every VIP answers now."""
        return len(self._probe.silent) == self._vips and not any(self._probe.silent.values())

    def until_reached(self) -> None:
        """Wait until the client reaches every VIP, and a little longer. Raises Void."""
        due = time.monotonic() + REACHED_SECONDS_MAX
        while not self.answered():
            if time.monotonic() > due:
                raise Void(f"the client does not reach every VIP within {REACHED_SECONDS_MAX:g} s")
            time.sleep(0.02)
        time.sleep(0.3)

    def until_steady(self, least_s: float, most_s: float) -> bool:
        """Watch for so long at least, then until every VIP has answered for STEADY_SECONDS, or until `most_s`. Returns
        whether they did."""
        began = since = time.monotonic()
        while True:
            now = time.monotonic()
            if not self.answered():
                since = now
            if now - began >= least_s and now - since >= STEADY_SECONDS:
                return True
            if now - began >= most_s:
                return False
            time.sleep(0.02)

    def stop(self) -> Seen:
        """What was seen."""
        return self._probe.stop()


def _last_owner(seen: Seen, vip: str, until: float) -> str:
    return next((who for at, who in reversed(seen.owners[vip]) if at < until), "")


# -- the scenarios ----------------------------------------------------------------------------------------------------------


def cold(stage: Stage) -> Result:
    """All nodes are started at once, with nothing running before."""
    with Probe(stage.lab, interval_ms=PROBE_MS, vips=stage.vips) as probe:
        watch = Watch(probe, len(stage.vips))
        watch.until_asking()
        began = time.monotonic()
        for node in stage.nodes:
            stage.start(node)
        held = stage.until_ready()
        watch.until_steady(0.0, RECOVERED_SECONDS_MAX)
        ended = time.monotonic()
        seen = watch.stop()
    served = [max((b for a, b in seen.silences[vip]), default=began) - began for vip in stage.vips]
    first = [min((b for a, b in seen.silences[vip]), default=began) - began for vip in stage.vips]
    figures = {
        "served_worst_ms": round(max(served) * 1000, 3),
        "served_first_ms": round(min(first) * 1000, 3),
        "two_owners_worst_ms": round(max(two_owners_ms(seen, v, began, ended) for v in stage.vips), 3),
        "two_owners_vip_ms": round(sum(two_owners_ms(seen, v, began, ended) for v in stage.vips), 3),
        "fairness_vips": float(spread_of(held.values(), stage.nodes)),
    }
    return Result(figures, {"timeline": timeline(seen, began)})


def idle(stage: Stage) -> Result:
    """Nothing happens: what it costs."""
    stage.until_ready()
    per_node: list[dict[str, tuple[float, float]]] = []
    before = [cpu_by_program(stage.lab, n) for n in stage.nodes]
    at = time.monotonic()
    time.sleep(stage.timing.idle)
    took = time.monotonic() - at
    for node, used in zip(stage.nodes, before, strict=True):
        now, memory = cpu_by_program(stage.lab, node), memory_by_program(stage.lab, node)
        per_node.append({p: ((now[p] - used.get(p, 0.0)) / took * 100, memory.get(p, 0.0)) for p in now})
    daemon = [set(map(program, stage.system.daemons(stage.lab, n))) for n in stage.nodes]
    cpu = [sum(c for c, _ in found.values()) for found in per_node]
    memory_mb = [sum(m for _, m in found.values()) for found in per_node]
    figures = {
        "cpu_percent": round(statistics.median(cpu), 3),
        "memory_mb": round(statistics.median(memory_mb), 2),
        "cpu_daemon_percent": round(
            statistics.median(sum(f[p][0] for p in names if p in f) for f, names in zip(per_node, daemon, strict=True)),
            3,
        ),
        "memory_daemon_mb": round(
            statistics.median(sum(f[p][1] for p in names if p in f) for f, names in zip(per_node, daemon, strict=True)),
            2,
        ),
    }
    return Result(figures, {"programs": [{p: [round(c, 3), round(m, 2)] for p, (c, m) in f.items()} for f in per_node]})


def move(stage: Stage) -> Result:
    """One VIP is moved by order, while the client asks it 1000 times a second."""
    before = stage.until_ready()
    source = stage.victim("move")
    vip = next((v for v in stage.vips if before[v] == source), stage.vips[0])
    source = before[vip]
    target = stage.nodes[(stage.nodes.index(source) + 1) % len(stage.nodes)]
    with stage.watching(MOVE_PROBE_MS, [vip]) as watch:
        watch.until_reached()
        began = time.monotonic()
        stage.system.move(stage.lab, vip, source, target)
        due = began + RECOVERED_SECONDS_MAX
        while stage.lab.holders(vip) != {target}:
            if time.monotonic() > due:
                raise Void(f"{vip} did not move to {target} within {RECOVERED_SECONDS_MAX:g} s")
            time.sleep(0.02)
        watch.until_steady(3.0, RECOVERED_SECONDS_MAX)
        ended = time.monotonic()
        seen = watch.stop()
    stage.system.unmove(stage.lab, vip, source, target)
    after = stage.held() or {}
    figures = effect(seen, (began, ended), {vip: source}, {vip: target}, [source])
    figures["lost_per_1000_s"] = float(sum(_lost(seen, vip, began, ended)))
    figures["needless_moves"] = float(sum(1 for v in stage.vips if v != vip and v in after and after[v] != before[v]))
    return Result(figures, {"timeline": timeline(seen, began), "from": source, "to": target})


def _lost(seen: Seen, vip: str, begin: float, end: float) -> Iterator[float]:
    for a, b in seen.silences[vip]:
        if b > begin and a < end:
            yield round((b - a) / seen.interval_s)


def leave(stage: Stage) -> Result:
    """A node leaves in an orderly way."""
    node = stage.victim("leave")
    result = stage.fault(node, lambda: stage.leave(node), probe_ms=LEAVE_PROBE_MS)
    stage.until_left(node)
    return result


def come_back(stage: Stage) -> Result:
    """The node that left is started again: who moves back, and does anybody notice."""
    node = stage.victim("leave")
    if stage.system.daemons(stage.lab, node):
        stage.leave(node)
    stage.until_left(node)
    with stage.watching() as watch:
        time.sleep(QUIET_SECONDS)
        before = stage.held()
        if before is None:
            raise Void("a VIP is not in exactly one kernel")
        watch.until_reached()
        began = time.monotonic()
        stage.start(node)
        after = stage.until_ready()
        even_ms = (time.monotonic() - began - QUIET_SECONDS) * 1000
        watch.until_steady(0.0, RECOVERED_SECONDS_MAX)
        ended = time.monotonic()
        seen = watch.stop()
    moved = [v for v in stage.vips if after[v] != before[v]]
    share = len(stage.vips) // len(stage.nodes)
    figures = effect(seen, (began, ended), before, after)
    stayed = [v for v in stage.vips if v not in moved]
    slack_ms = 2 * PROBE_MS
    figures["needless_interruptions"] = float(sum(1 for v in stayed if dark_ms(seen, v, began, ended) > slack_ms))
    figures["needless_moves"] = float(max(0, len(moved) - share))
    figures["fairness_vips"] = float(spread_of(after.values(), stage.nodes))
    figures["even_after_ms"] = round(even_ms)
    return Result(figures, {"node": node, "timeline": timeline(seen, began)})


def crash(stage: Stage) -> Result:
    """A host is gone from one instant to the next."""
    node = stage.victim("crash")
    return stage.fault(node, lambda: stage.lab.crash(node))


def kill(stage: Stage) -> Result:
    """kill -9 of the daemon. Nobody starts it again before the end."""
    node = stage.victim("kill")
    return stage.fault(node, lambda: stage.kill(node))


def freeze(stage: Stage) -> Result:
    """The daemon is stopped (SIGSTOP), and goes on later (SIGCONT)."""
    node = stage.victim("freeze")
    pids: list[int] = []

    def stop() -> float:
        pids.extend(stage.system.daemons(stage.lab, node))
        when = time.monotonic()
        send(signal.SIGSTOP, pids)
        return when

    def go_on() -> float:
        when = time.monotonic()
        send(signal.SIGCONT, pids)
        return when

    return stage.fault(node, stop, undo=go_on)


def cable(stage: Stage) -> Result:
    """A node's cable is pulled, and plugged in again."""
    node = stage.victim("cable")
    return stage.fault(node, lambda: stage.lab.cut(node), undo=lambda: stage.lab.plug(node))


def split(stage: Stage) -> Result:
    """A node and the others do not hear each other, with all carriers up and the client hearing all; then they do."""
    node = stage.victim("split")
    return stage.fault(node, lambda: stage.lab.partition([node]), undo=stage.lab.heal, dead=False)


def chaos(stage: Stage) -> Result:
    """A minute of random faults, the same for every system."""
    faults = random_faults(1000 + stage.run, stage.nodes, stage.timing.chaos)
    todo = sorted([(f.at, 0, f) for f in faults] + [(f.until, 1, f) for f in faults], key=lambda x: x[:2])
    splits: list[tuple[float, float]] = []
    done: list[list[object]] = []
    with stage.watching() as watch:
        stage.until_ready()
        watch.until_reached()
        began = time.monotonic()
        for at, undo, fault in todo:
            _wait_until(began + at)
            done.append([round(time.monotonic() - began, 3), fault.kind, fault.node, "undone" if undo else "done"])
            if undo:
                _undo(stage, fault)
            else:
                _do(stage, fault)
            if fault.kind == "split":
                (
                    splits.append((time.monotonic(), 0.0))
                    if not undo
                    else splits.append((splits.pop()[0], time.monotonic()))
                )
        _wait_until(began + stage.timing.chaos)
        recovered = watch.until_steady(0.0, RECOVERED_SECONDS_MAX)
        ended = time.monotonic()
        seen = watch.stop()
    dark = [dark_ms(seen, v, began, ended) / 1000 for v in stage.vips]
    together = [[t for t, _ in seen.two_owners[v] if not any(a <= t < b for a, b in splits)] for v in stage.vips]
    two = [len(t) * seen.interval_s * 1000 for t in together]
    figures = {
        "dark_vip_seconds": round(sum(dark), 3),
        "dark_worst_vip_seconds": round(max(dark), 3),
        "two_owners_vip_ms": round(sum(two), 3),
        "two_owners_worst_ms": round(max(two), 3),
        "recovered": float(recovered),
    }
    return Result(figures, {"faults": done, "timeline": timeline(seen, began), "stalls": len(seen.stalls)})


def _do(stage: Stage, fault: Fault) -> None:
    try:
        match fault.kind:
            case "crash":
                stage.lab.crash(fault.node)
            case "kill":
                stage.kill(fault.node)
            case "freeze":
                send(signal.SIGSTOP, stage.system.daemons(stage.lab, fault.node))
            case "cut":
                stage.lab.cut(fault.node)
            case "split":
                stage.lab.partition([fault.node])
            case _:
                stage.leave(fault.node)
    except (Void, LabRefused):
        pass  # it does not run there: a daemon that is down cannot be killed; the time without it counts all the same


def _undo(stage: Stage, fault: Fault) -> None:
    match fault.kind:
        case "freeze":
            send(signal.SIGCONT, stage.system.daemons(stage.lab, fault.node))
        case "cut":
            stage.lab.plug(fault.node)
        case "split":
            stage.lab.heal()
        case "leave":
            stage.until_left(fault.node, within_s=CHAOS_EACH_SECONDS / 2)
            stage.start(fault.node)
        case _:
            stage.start(fault.node)


def _wait_until(when: float) -> None:
    while (left := when - time.monotonic()) > 0:
        time.sleep(left)


SCENARIOS: dict[str, Callable[[Stage], Result]] = {
    "cold": cold,
    "idle": idle,
    "crash": crash,
    "kill": kill,
    "freeze": freeze,
    "cable": cable,
    "leave": leave,
    "come-back": come_back,
    "split": split,
    "move": move,
    "chaos": chaos,
}
"""In the order in which a cluster goes through them."""


# -- what it costs ------------------------------------------------------------------------------------------------------------


def program(pid: int) -> str:
    """A process's program: its name, and of a Python process the module it runs."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"
    return words[words.index(b"-m") + 1].decode() if b"-m" in words[:4] else name


def cpu_by_program(lab: Lab, node: str) -> dict[str, float]:
    """CPU seconds so far of a node's processes and of their children that ended, by program (proc(5), fields 14 to 17)."""
    found: dict[str, float] = {}
    for pid in processes_in(lab.layout.namespace(node)):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[program(pid)] = found.get(program(pid), 0.0) + sum(map(int, fields[11:15])) / TICKS
    return found


def memory_by_program(lab: Lab, node: str) -> dict[str, float]:
    """Proportional memory (PSS, MB) of a node's processes, by program: what is shared is divided by who shares it."""
    found: dict[str, float] = {}
    for pid in processes_in(lab.layout.namespace(node)):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kb = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
        found[program(pid)] = found.get(program(pid), 0.0) + kb / 1024
    return found


def play(stage: Stage, scenario: str) -> Result:
    """Run one scenario; before it, what the one before has left undone is done. Raises Void, NotOffered."""
    try:
        if scenario != "cold":
            stage.start_missing([stage.victim("leave")] if scenario == "come-back" else ())
        return SCENARIOS[scenario](stage)
    except (NotInTime, LabRefused, ToolFailed) as wrong:
        raise Void(str(wrong).splitlines()[0]) from None


__all__ = ["SCENARIOS", "Fault", "NotOffered", "Result", "Stage", "Timing", "Void", "play", "random_faults"]
