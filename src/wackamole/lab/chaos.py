"""`wackamole lab chaos`: faults of every kind, one after another, while an observer asks who answers for each VIP.

The faults follow from the seed alone (`faults`), so a run can be had again; how many of them fit into its time does not.
After each one the cluster has to settle; what was seen is charged to the fault that began last, and judged by what
docs/operations.md allows for its kind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ..client import NotReachable, Refused, converse
from ..config import Config, parse
from ..core.model import Partition, Takeover
from ..render import console, event_line
from .bench import note
from .lab import FROZEN, Lab, Layout, NotInTime
from .namespaces import ToolFailed
from .probe import Probe, Seen

PROBE_MS = 10.0
SETTINGS = '[balance]\ninterval = "1s"\nsettle = "2s"\n[fence]\ntakeover = "{takeover}"\n'
LOOK_SECONDS = 0.2
"""How often everybody is asked whether all is settled: seldom enough to be no load."""
PAUSE_SECONDS = 14.0
ENDED_SECONDS_MAX = 30.0
RESTART_MS = 5000
AVAILABLE_MIN, AVAILABLE_SECONDS, AVAILABLE_PACE_SECONDS = 0.995, 300.0, 8.0
WAKING_MS = 20.0
MERGE_MS = 150.0
"""A heal's; with a detection of more than twice that, half of it: who is patient with the dead is so with the healed."""
AROUND_SECONDS = 2.0
HISTORY_MAX = 20_000
TOLD_LINES_MAX = 80


# -- what is done ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to do to a cluster, and what is left to the run is only when. `other`: another node; `vip`: an address;
    `ring`: a network; a kind uses what it needs."""

    number: int
    kind: str
    node: str
    other: str
    vip: str
    ring: int
    hold_s: float  # from doing it to undoing it
    pause_s: float  # from all being settled again to the next one

    def __str__(self) -> str:
        kind = KINDS[self.kind]
        return kind.what.format(**asdict(self)) + (f" for {self.hold_s:.2f} s" if kind.undo is not None else "")


def _kill_and_flush(lab: Lab, fault: Fault) -> None:
    lab.kill_daemon(fault.node)
    lab.flush_rules(fault.node)


def _remove_address(lab: Lab, fault: Fault) -> None:
    for holder in lab.holders(fault.vip):
        lab.remove_address(holder, fault.vip)


def _move(lab: Lab, fault: Fault) -> None:
    lab.ask(fault.other, "move", {"vips": [fault.vip], "node": fault.node})


def _drain(lab: Lab, fault: Fault) -> None:
    lab.ask(fault.other, "drain", {"node": fault.node})


def _resume(lab: Lab, fault: Fault) -> None:
    lab.ask(fault.other, "resume", {"node": fault.node})


def _restart(lab: Lab, fault: Fault) -> None:
    before = lab.ask(fault.node, "status")["process"]
    lab.ask(fault.node, "restart", {"within_ms": RESTART_MS})
    lab.until(
        lambda: (lab.status(fault.node) or {}).get("process") not in (None, before),
        within_s=ENDED_SECONDS_MAX,
        story=f"{fault.node} runs another process",
    )


def _start_again(lab: Lab, fault: Fault) -> None:
    lab.until(lambda: lab._daemon(fault.node) is None, within_s=ENDED_SECONDS_MAX, story=f"{fault.node} has left")
    lab.start(fault.node)


def _start(lab: Lab, fault: Fault) -> None:
    lab.start(fault.node)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how it reads, how it is done and undone, how long it lasts at most. `away`: its node serves nothing
    meanwhile."""

    what: str
    do: Callable[[Lab, Fault], object]
    undo: Callable[[Lab, Fault], object] | None = None
    hold_s_max: float = 3.0
    away: bool = True
    rings: int = 1


KINDS: dict[str, Kind] = {
    "crash": Kind("{node} crashes", lambda lab, f: lab.crash(f.node), _start),
    "kill": Kind("kill -9 of {node}'s daemon", lambda lab, f: lab.kill_daemon(f.node), _start),
    "kill-flush": Kind("kill -9 of {node}'s daemon and nft flush ruleset", _kill_and_flush, _start),
    **{
        f"freeze-{what}": Kind(
            f"SIGSTOP of {{node}}'s {what if what != 'all' else 'processes'}",
            lambda lab, f, what=what: lab.freeze(f.node, what),  # type: ignore[misc]
            lambda lab, f, what=what: lab.thaw(f.node, what),  # type: ignore[misc]
        )
        for what in FROZEN
    },
    "cut": Kind("{node}'s cables are pulled", lambda lab, f: lab.cut(f.node), lambda lab, f: lab.plug(f.node)),
    "cut-network": Kind(
        "{node}'s cable to network {ring} is pulled",
        lambda lab, f: lab.cut(f.node, f.ring),
        lambda lab, f: lab.plug(f.node, f.ring),
        rings=2,
    ),
    "interface": Kind(
        "{node}'s interface is set down",
        lambda lab, f: lab.interface_down(f.node),
        lambda lab, f: lab.interface_up(f.node),
    ),
    "partition": Kind(
        "{node} is split off", lambda lab, f: lab.partition([f.node]), lambda lab, _: lab.heal(), away=False
    ),
    "kill-corosync": Kind("kill -9 of {node}'s Corosync", lambda lab, f: lab.kill_corosync(f.node)),
    "flush": Kind("nft flush ruleset on {node}", lambda lab, f: lab.flush_rules(f.node), away=False),
    "address": Kind("{vip} is deleted behind its holder's back", _remove_address, away=False),
    "move": Kind("{vip} is moved to {node}", _move, away=False),
    "drain": Kind("{node} is drained", _drain, _resume, away=False),
    "restart": Kind("{node}'s process is replaced", _restart, away=False),
    "leave": Kind("{node} leaves", lambda lab, f: lab.stop(f.node), _start_again),
}


def faults(seed: int, layout: Layout, pause_s_max: float = PAUSE_SECONDS) -> Iterator[Fault]:
    """Faults without end: all kinds in a random order, then all of them in another one, and so on. The same arguments
    give the same ones."""
    dice = random.Random(seed)  # noqa: S311 - it has to be predictable
    number = itertools.count(1)
    while True:
        deck = [name for name, kind in KINDS.items() if kind.rings <= layout.rings]
        dice.shuffle(deck)
        for name in deck:
            node, other = dice.sample(layout.nodes, 2)
            hold_s = 0.0 if KINDS[name].undo is None else round(dice.uniform(0.1, KINDS[name].hold_s_max), 2)
            vip = dice.choice(layout.vips)[1]
            ring = dice.randrange(layout.rings)
            pause_s = round(dice.uniform(0.0, pause_s_max), 2)
            yield Fault(next(number), name, node, other, vip, ring, hold_s, pause_s)


# -- what is allowed ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Allowance:
    """How long two hosts may answer for a VIP because of a fault, milliseconds. `all_ms`: altogether; None: while it
    lasts. `after_ms`: not later than so long after it was undone; None: no other bound than `all_ms`."""

    all_ms: float | None = 0.0
    after_ms: float | None = None

    def covers(self, lasted_ms: float, resolution_ms: float) -> bool:
        """Whether it may last so long: one question more or less is the resolution, but zero is zero."""
        return self.all_ms is None or (lasted_ms > 0 and 0 < self.all_ms >= lasted_ms - resolution_ms)

    def __str__(self) -> str:
        parts = ["while it lasts" if self.all_ms is None else f"{self.all_ms:.0f} ms"]
        if self.after_ms is not None:
            parts.append(f"{self.after_ms:.0f} ms after it")
        return ", ".join(parts)


NEVER = Allowance()


def allowed(kind: str, config: Config, hold_s: float = float("inf")) -> Allowance:
    """What docs/operations.md promises for a kind of fault that lasts so long."""
    split_ok = config.cluster.partition is Partition.COVER
    if kind == "partition" and split_ok:
        return Allowance(None, max(MERGE_MS, config.engine.detection_ms / 2))
    if config.fence.takeover is Takeover.STRICT or not split_ok:
        return NEVER
    overlap_ms = max(0, config.fence.lease_ms + config.fence.beat_age_max_ms - config.engine.detection_ms)
    if kind == "freeze-corosync":
        return Allowance(overlap_ms)
    if kind == "freeze-all":
        # who wakes before it is dark may have been left by the others just then: its own ring has to time out before it
        # hears of that, and it goes on answering for what is left of its lease
        was_dark = hold_s * 1000 >= config.fence.dark_after_ms
        return Allowance(overlap_ms + WAKING_MS, WAKING_MS if was_dark else None)
    return NEVER


# -- what happened ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Done:
    """A fault as it was carried out; seconds (monotonic)."""

    fault: Fault
    began: float
    undone: float = float("inf")
    settled: float | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that is not allowed."""

    at: float
    kind: str
    what: str


@dataclass(slots=True)
class Charged:
    """What a kind of fault has caused. `two_ms`: how long a VIP had two owners, for each fault and VIP that had."""

    times: int = 0
    two_ms: list[float] = field(default_factory=list)
    silent_s: float = 0.0
    silent_worst_s: float = 0.0


NOTHING = "nothing"


def charge(done: Sequence[Done], at: float) -> Done | None:
    """The fault that began last before a moment; None: before the first."""
    return next((d for d in reversed(done) if d.began <= at), None)


def uncoverable(done: Sequence[Done], nodes: int, config: Config, end: float) -> list[tuple[float, float]]:
    """When nobody may serve: with `majority`, while no side is one."""
    if config.cluster.partition is Partition.COVER:
        return []
    spans = []
    for d in done:
        lost = KINDS[d.fault.kind].away or d.fault.kind == "partition"
        if lost and 2 * (nodes - 1) <= nodes:
            spans.append((d.began, d.settled if d.settled is not None else end))
    return spans


def judge_owners(
    done: Sequence[Done], seen: Seen, names: dict[str, str], config: Config
) -> tuple[dict[str, Charged], list[Violation]]:
    """Who had two owners because of which kind of fault, and what of that is not allowed: a violation for each fault."""
    charged: dict[str, Charged] = {NOTHING: Charged()}
    for d in done:
        charged.setdefault(d.fault.kind, Charged()).times += 1
    wrongs: dict[tuple[int, str, Allowance], list[tuple[float, str]]] = {}
    for ip, doubles in seen.two_owners.items():
        for number, group in itertools.groupby(doubles, lambda double: _number(done, double[0])):
            questions = list(group)
            cause = done[number] if number >= 0 else None
            kind = cause.fault.kind if cause is not None else NOTHING
            lasted_ms = len(questions) * seen.interval_s * 1000
            charged[kind].two_ms.append(lasted_ms)
            limit = NEVER if cause is None else allowed(kind, config, cause.fault.hold_s)
            after_ms = [(at - cause.undone) * 1000 for at, _ in questions] if cause is not None else []
            last_ms = max(after_ms, default=0.0)
            late = limit.after_ms is not None and last_ms > limit.after_ms
            if late or not limit.covers(lasted_ms, seen.interval_s * 1000):
                who = " and ".join(sorted({w for _, both in questions for w in both}))
                text = f"{names.get(ip, ip)} {who} for {lasted_ms:.0f} ms" + (
                    f", the last time {last_ms:.0f} ms after it was undone" if last_ms > 0 else ""
                )
                wrongs.setdefault((number, kind, limit), []).append((questions[-1 if late else 0][0], text))
    found = []
    for (_, kind, limit), texts in wrongs.items():
        what = f"two owners (allowed: {limit}): " + "; ".join(text for _, text in texts)
        found.append(Violation(min(at for at, _ in texts), kind, what))
    return charged, found


def _number(done: Sequence[Done], at: float) -> int:
    cause = charge(done, at)
    return -1 if cause is None else cause.fault.number - 1


def judge_silence(
    done: Sequence[Done],
    seen: Seen,
    charged: dict[str, Charged],
    span: tuple[float, float],
    excluded: Iterable[tuple[float, float]],
) -> float:
    """Charge the silences to the kinds of faults; returns the availability: answered VIP-seconds by VIP-seconds, of the
    time that somebody was there to serve."""
    begin, end = span
    out = list(excluded)
    total_s = len(seen.silences) * (end - begin - sum(_overlap(span, x) for x in out))
    silent_s = 0.0
    for silences in seen.silences.values():
        for a, b in silences:
            lasted = _overlap(span, (a, b)) - sum(_overlap((max(a, begin), min(b, end)), x) for x in out)
            if lasted <= 0:
                continue
            cause = charge(done, a + 2 * seen.interval_s)  # the question was under way when it happened
            entry = charged[cause.fault.kind if cause is not None else NOTHING]
            entry.silent_s += lasted
            entry.silent_worst_s = max(entry.silent_worst_s, b - a)
            silent_s += lasted
    return 1 - silent_s / total_s if total_s else 1.0


def is_promised(config: Config, seconds: float, times: int) -> bool:
    """Whether AVAILABLE_MIN is promised for a run: fast take-over, every side serves, and a usual pace of faults over a time
    that has some of every kind."""
    fast = config.fence.takeover is Takeover.FAST and config.cluster.partition is Partition.COVER
    return fast and seconds >= AVAILABLE_SECONDS and times * AVAILABLE_PACE_SECONDS <= seconds


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


# -- the run ----------------------------------------------------------------------------------------------------------------


class History:
    """The events of all daemons, also of those that are killed later: one thread each listens. Bounded."""

    def __init__(self, lab: Lab) -> None:
        self._stop = threading.Event()
        self.events: dict[str, deque[dict[str, Any]]] = {n: deque(maxlen=HISTORY_MAX) for n in lab.layout.nodes}
        for node in lab.layout.nodes:
            path = str(lab.home / node / "run/wackamole/control.sock")
            threading.Thread(target=self._listen, args=(node, path), daemon=True).start()

    def _listen(self, node: str, path: str) -> None:
        kept = self.events[node]
        while not self._stop.is_set():
            try:
                for kind, said in converse(path, "events", {"follow": True}, patient=True):
                    if kind == "progress" and (not kept or said["monotonic"] > kept[-1]["monotonic"]):
                        kept.append(said)
            except (NotReachable, Refused, OSError):
                pass  # it is down, or not up yet
            self._stop.wait(0.1)

    def stop(self) -> None:
        """Listen no more; the threads end with their daemons."""
        self._stop.set()

    def around(self, since: float, until: float) -> list[tuple[float, str, str]]:
        """What was recorded in this time: when (monotonic), which node, the line."""
        found = [
            (float(e["monotonic"]), node, event_line(e))
            for node, kept in self.events.items()
            for e in list(kept)
            if since <= float(e["monotonic"]) <= until
        ]
        return sorted(found)


@dataclass
class Chaos:
    """One run on a lab that is settled."""

    lab: Lab
    config: Config
    done: list[Done] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def run(self, plan: Iterable[Fault], seconds: float) -> tuple[float, float]:
        """Carry out one fault after the other until the time is over; the last one is brought to its end. Returns when it
        began and ended (monotonic)."""
        began = time.monotonic()
        for fault in plan:
            if time.monotonic() - began >= seconds:
                break
            note(f"{time.monotonic() - began:7.1f} s  {fault}")
            if not self._carry_out(fault):
                break
        return began, time.monotonic()

    def _carry_out(self, fault: Fault) -> bool:
        kind = KINDS[fault.kind]
        done = Done(fault, time.monotonic())
        self.done.append(done)
        try:
            kind.do(self.lab, fault)
            if kind.undo is not None:
                _wait_until(done.began + fault.hold_s)
                kind.undo(self.lab, fault)
        except (Refused, NotReachable) as no:
            done.refused = str(no)
        except (ToolFailed, NotInTime) as wrong:
            self._violated(done, f"it could not be carried out: {wrong}")
        done.undone = time.monotonic()
        try:
            self._settle(done)
        except NotInTime as wrong:
            self._violated(done, str(wrong))
            return False
        done.settled = time.monotonic()
        _wait_until(done.settled + fault.pause_s)
        return True

    def _violated(self, done: Done, what: str) -> None:
        self.violations.append(Violation(time.monotonic(), done.fault.kind, what))

    def _settle(self, done: Done) -> None:
        """Wait until all is well. A daemon that ended by itself is started again, as a supervisor would, and told."""
        due = 0.0

        def looked() -> bool:
            nonlocal due
            if time.monotonic() < due:
                return False
            due = time.monotonic() + LOOK_SECONDS
            for node in self.lab.layout.nodes:
                if self.lab._daemon(node) is None:
                    last = self.lab.log(node).splitlines()[-1:] or ["nothing"]
                    self._violated(done, f"the daemon of {node} ended by itself; its last words: {last[0]}")
                    self.lab.start(node)
            return self.lab.settled()

        self.lab.until(looked, within_s=60, story=f"all is settled again after: {done.fault}")


def _wait_until(when: float) -> None:
    while (left := when - time.monotonic()) > 0:
        time.sleep(left)


def run_chaos(
    *,
    seconds: float,
    pause_s_max: float,
    seed: int | None,
    nodes: int,
    vips: int,
    detection: str,
    rings: int,
    takeover: str,
    partition: str,
    keep: Path | None,
    as_json: bool,
) -> int:
    """The whole run; 0 if nothing happened beyond what is allowed, 1 otherwise."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    layout = Layout.of(
        f"chaos{os.getpid()}",
        nodes=nodes,
        vips=vips,
        detection=detection,
        rings=rings,
        settings=SETTINGS.format(takeover=takeover),
        cluster=f'partition = "{partition}"',
    )
    config = parse(layout.config)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    note(
        f"seed {chosen}: {nodes} nodes, {vips} VIPs, detection {detection}, takeover {takeover}, partition {partition}"
    )
    try:
        with Lab.create(layout, ephemeral=True) as lab:
            return _play(lab, config, faults(chosen, layout, pause_s_max), chosen, seconds, keep, as_json)
    except KeyboardInterrupt:
        print("\nstopped; everything is taken down", file=sys.stderr)
        return 130


def _play(
    lab: Lab, config: Config, plan: Iterator[Fault], seed: int, seconds: float, keep: Path | None, as_json: bool
) -> int:
    lab.start_all()
    lab.until_settled()
    history = History(lab)
    chaos = Chaos(lab, config)
    capture = keep / "wire.pcap" if keep is not None else None
    with Probe(lab, interval_ms=PROBE_MS, capture=capture) as probe:
        lab.until(
            lambda: len(probe.silent) == len(lab.layout.vips) and not any(probe.silent.values()),
            within_s=30,
            story="the client reaches every VIP",
        )
        span = chaos.run(plan, seconds)
        seen = probe.stop()
    history.stop()
    report = judge(chaos, seen, span, seed, history)
    if keep is not None:
        _keep(keep, lab, report, history)
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report)
    return 0 if report["kept"] else 1


def judge(chaos: Chaos, seen: Seen, span: tuple[float, float], seed: int, history: History) -> dict[str, Any]:
    """Everything that was found, for programs; times in seconds since the beginning."""
    lab, config, done = chaos.lab, chaos.config, chaos.done
    began, end = span
    names = {a: n for n, a in lab.layout.vips}
    charged, violations = judge_owners(done, seen, names, config)
    excluded = uncoverable(done, len(lab.layout.nodes), config, end)
    availability = judge_silence(done, seen, charged, span, excluded)
    found = [*chaos.violations, *violations]
    if availability < AVAILABLE_MIN and is_promised(config, end - began, len(done)):
        text = f"VIPs answered {availability:.3%} of the time; at least {AVAILABLE_MIN:.1%} is promised"
        found.append(Violation(end, NOTHING, text))
    found.sort(key=lambda v: v.at)
    return {
        "kept": not found,
        "seed": seed,
        "seconds": round(end - began, 1),
        "detection_ms": config.engine.detection_ms,
        "takeover": config.fence.takeover.value,
        "partition": config.cluster.partition.value,
        "nodes": len(lab.layout.nodes),
        "vips": len(lab.layout.vips),
        "probe_ms": PROBE_MS,
        "questions": sum(seen.sent.values()),
        "availability": availability,
        "answers_apart": sum(seen.apart.values()),
        "stalls": [[round(at - began, 2), round(lasted, 3)] for at, lasted in seen.stalls],
        "kinds": {
            kind: {
                "times": c.times,
                "two_owners_s": round(sum(c.two_ms) / 1000, 3),
                "two_owners_worst_ms": round(max(c.two_ms, default=0.0)),
                "allowed": str(allowed(kind, config)),
                "silent_s": round(c.silent_s, 3),
                "silent_worst_ms": round(c.silent_worst_s * 1000),
            }
            for kind, c in charged.items()
        },
        "faults": [
            {
                **asdict(d.fault),
                "began": round(d.began - began, 3),
                "undone": round(d.undone - began, 3),
                "settled": round(d.settled - began, 3) if d.settled is not None else None,
                "refused": d.refused,
            }
            for d in done
        ],
        "violations": [
            {
                "at": round(v.at - began, 3),
                "kind": v.kind,
                "what": v.what,
                "stalled_s": max((s for at, s in seen.stalls if abs(at - v.at) < AROUND_SECONDS), default=0.0),
                "history": _around(v, done, history, began),
            }
            for v in found
        ],
    }


def _around(violation: Violation, done: Sequence[Done], history: History, began: float) -> list[str]:
    """Faults and events around a violation, in the order of time."""
    at = violation.at
    lines = [(d.began, f"*    {d.fault}") for d in done if d.began <= at + AROUND_SECONDS][-3:]
    lines += [(d.undone, "*    undone") for d in done if abs(d.undone - at) <= AROUND_SECONDS]
    told = history.around(at - AROUND_SECONDS, at + AROUND_SECONDS)
    nearest = sorted(told, key=lambda entry: abs(entry[0] - at))[:TOLD_LINES_MAX]
    lines += [(when, f"{n:<4} {text}") for when, n, text in nearest]
    return [f"{when - began:9.3f}  {text}" for when, text in sorted(lines)]


def _keep(folder: Path, lab: Lab, report: dict[str, Any], history: History) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    for node in lab.layout.nodes:
        shutil.copyfile(lab.home / node / "daemon.log", folder / f"{node}.log")
        with contextlib.suppress(FileNotFoundError):  # a crashed host's is gone with it
            shutil.copyfile(lab.home / node / "run/wackamole/corosync/corosync.log", folder / f"{node}.corosync.log")
        lines = [json.dumps(e, ensure_ascii=False) + "\n" for e in list(history.events[node])]
        (folder / f"{node}.events.jsonl").write_text("".join(lines))


def _print(report: dict[str, Any]) -> None:
    out = console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("FAULT", "TIMES", "TWO OWNERS, WORST", "ALLOWED", "SILENT, WORST", "VIP-SECONDS SILENT"):
        table.add_column(column, justify="left" if column in ("FAULT", "ALLOWED") else "right")
    guilty = {v["kind"] for v in report["violations"]}
    for kind, c in sorted(report["kinds"].items()):
        table.add_row(
            Text(kind, "red bold" if kind in guilty else ""),
            str(c["times"]) if c["times"] else "",
            f"{c['two_owners_worst_ms']} ms",
            c["allowed"],
            f"{c['silent_worst_ms']} ms",
            f"{c['silent_s']:.2f}",
        )
    out.print(table)
    uncovered_s = sum(c["silent_s"] for c in report["kinds"].values())
    out.print(
        f"seed {report['seed']}: {len(report['faults'])} faults in {report['seconds']:.0f} s; VIPs answered"
        f" {report['availability']:.3%} of the time ({uncovered_s:.1f} VIP-seconds silent);"
        f" {report['questions']} questions, {report['answers_apart']} answered by two hosts one after the other"
    )
    if report["stalls"]:
        longest = max(lasted for _, lasted in report["stalls"])
        out.print(f"the prober itself was held up {len(report['stalls'])} times, {longest * 1000:.0f} ms at most")
    for v in report["violations"]:
        stalled = f" (the prober was held up for {v['stalled_s'] * 1000:.0f} ms about then)" if v["stalled_s"] else ""
        out.print(Text(f"\n{v['at']:.3f} s, {v['kind']}: {v['what']}{stalled}", "red bold"))
        out.print(Text("\n".join(v["history"])))
    kept = Text("nothing happened beyond what is allowed", "green bold")
    out.print(kept if report["kept"] else Text(f"beyond what is allowed: {len(report['violations'])}", "red bold"))
