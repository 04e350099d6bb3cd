"""Measuring a whole cluster: what a client sees, and what it costs (docs/benchmarks.md; `script/bench`).

Every figure is a median over rounds, with its smallest and largest value; nothing is left out. Clocks are the
monotonic clock of this machine, which all of a lab's hosts share.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..client import Refused
from ..config import PROFILES, parse
from ..shell.kernel.announce import ETH_BROADCAST, SCHEDULE_MS
from ..shell.kernel.claims import ETH_P_ARP
from ..shell.kernel.listed import BURST_SECONDS
from ..shell.kernel.surroundings import packed
from ..shell.kernel.witness import QUESTIONS_PER_SECOND
from . import fence_bench, placement_bench, scale_bench, trace_bench
from .engine_bench import busy
from .lab import CLIENT, Lab, LabRefused, Layout
from .namespaces import opened_in
from .probe import Probe, Seen

PROBE_MS = 10.0
SETTINGS = '[balance]\ninterval = "1s"\nsettle = "2s"\n'
HANDED_OVER_MS = 6.0
"""Of a planned hand-over, for the worst VIP; so many probes of 1000 a second may be lost."""
ROUNDS_A_CLUSTER = 5
"""Of a trace: a node that goes away and comes back more often waits longer and longer for its share."""
ALONE = ("detection", "scale", "stability")
"""What is only measured when it is asked for: each takes as long as much of the rest."""
IDLE_SECONDS = 20.0
SPURIOUS_SECONDS = 5.0
STABLE_SECONDS = 600.0
"""A round of `stability`: six are an hour."""
WITHIN_SECONDS = 60.0
SO_TIMESTAMPNS = 35
ASKED, ASKED_EACH_SECONDS = 1500, 0.01
CHECKS = 200
CHECKS_RUNNING = "".join(
    f'[[check]]\nname = "c{i}"\ninterval = "1s"\n'
    + ('kind = "http"\nurl = "http://127.0.0.1:8080/"\n' if i % 2 else 'kind = "tcp"\naddress = "127.0.0.1:8080"\n')
    for i in range(CHECKS)
)
COMING = (
    "".join(f'[[vip]]\nname = "more-{i}"\naddress = "10.77.9.{i}"\ninterface = "eth0"\n' for i in range(1, 11))
    + '[[check]]\nname = "there"\nkind = "file"\npath = "/run/wackamole.toml"\ninterval = "500ms"\n'
)
"""Ten VIPs, and a check of all."""
SERVE = """\
import asyncio
async def answer(reader, writer):
    try:
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    except (OSError, asyncio.IncompleteReadError):
        pass
    writer.close()
async def main():
    await (await asyncio.start_server(answer, "127.0.0.1", 8080)).serve_forever()
asyncio.run(main())
"""


@dataclass
class Figure:
    """One thing that is measured: its values, and what it may be at most (None: only told)."""

    what: str
    unit: str
    limit: float | None
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None if there is none. What must never happen is judged by its worst value."""
        if self.limit is None:
            return None
        return (max(self.values) if self.limit == 0 else self.median) <= self.limit

    def row(self) -> str:
        """A row of the table."""
        verdict = {True: "met", False: "**missed**", None: ""}[self.met]
        limit = "" if self.limit is None else f"{self.limit:g} {self.unit}"
        spread = f"{_short(min(self.values))} – {_short(max(self.values))}"
        return (
            f"| {self.what} | {limit} | {_short(self.median)} {self.unit} | {spread} | {len(self.values)} | {verdict} |"
        )


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


class Bench:
    """All measurements of one run."""

    def __init__(self, detection: str, rounds: int) -> None:
        self.detection = detection
        self.detection_ms = parse(Layout.of("x", detection=detection).config).engine.detection_ms
        self.rounds = rounds
        self.figures: list[Figure] = []
        self.sizes: list[scale_bench.Size] = []
        self.fence_rows: list[fence_bench.Row] = []
        self.traces: list[trace_bench.Trace] = []
        self.two_owners = Figure("two hosts answering for one VIP, in all of the above", "ms", 0)

    def figure(self, what: str, unit: str, limit: float | None) -> Figure:
        """A new figure."""
        made = Figure(what, unit, limit)
        self.figures.append(made)
        return made

    @contextmanager
    def cluster(self, vips: int, *, settings: str = "", cluster: str = "", rings: int = 1) -> Iterator[Lab]:
        """A settled lab of three nodes."""
        layout = Layout.of(
            f"bench{os.getpid()}",
            vips=vips,
            detection=self.detection,
            settings=SETTINGS + settings,
            cluster=cluster,
            rings=rings,
        )
        with Lab.create(layout, ephemeral=True) as lab:
            lab.start_all()
            lab.until_settled(within_s=WITHIN_SECONDS)
            yield lab

    # -- what a client sees

    def client_sees(self) -> None:
        """Crash, come-back and leave, each node in turn."""
        crash = self.figure("host crash: outage of the worst VIP", "ms", self.detection_ms + 60)
        taken = self.figure("membership event to last VIP configured, announced and read back: 10 VIPs", "ms", 10)
        back = self.figure("come-back: VIPs interrupted that did not move", "VIPs", 0)
        balance = self.figure("come-back: outage of the worst VIP that moved", "ms", None)
        leave = self.figure("graceful leave: outage of the worst VIP", "ms", 20)
        cut = self.figure("cable pulled: outage of the worst VIP", "ms", None)
        with self.cluster(10) as lab:
            for number in range(self.rounds):
                node, rest = self._crash(lab, number, crash, taken)
                self._come_back(lab, node, back, balance)
                with watching(lab) as seen:
                    lab.stop(node)
                    lab.until(lambda node=node: lab._daemon(node) is None, within_s=30, story=f"{node} has left")  # type: ignore[misc]
                    lab.until_settled(rest)
                leave.values.append(seen[0].worst(0) * 1000)
                self._owners(seen[0])
                self._come_back(lab, node, back, balance)
                with watching(lab) as seen:
                    lab.cut(node)
                    lab.until_settled(rest)
                cut.values.append(seen[0].worst(0) * 1000)
                self._owners(seen[0])
                lab.plug(node)  # two hosts answer until the merge: the fence's business, not measured here
                lab.until(lambda: evenly(lab), within_s=WITHIN_SECONDS, story="the load is balanced")
                note(
                    f"round {number + 1} of {self.rounds}: crash {crash.values[-1]:.0f} ms, leave {leave.values[-1]:.1f} ms"
                )

    def _crash(
        self, lab: Lab, number: int, crash: Figure, taken: Figure, *, interval_ms: float = PROBE_MS
    ) -> tuple[str, list[str]]:
        """One node crashes, each in its turn. Returns it and the others."""
        node = lab.layout.nodes[number % len(lab.layout.nodes)]
        rest = [n for n in lab.layout.nodes if n != node]
        with watching(lab, interval_ms=interval_ms) as seen:
            began = lab.crash(node)
            lab.until_settled(rest)
        crash.values.append(seen[0].worst(0) * 1000)
        taken.values.append(take_over_ms(lab, rest, began))
        self._owners(seen[0])
        return node, rest

    def _come_back(self, lab: Lab, node: str, back: Figure, balance: Figure) -> None:
        before = {a: lab.holders(a) for _, a in lab.layout.vips}
        with watching(lab) as seen:
            lab.start(node)
            lab.until(lambda: evenly(lab), within_s=WITHIN_SECONDS, story="the load is balanced again")
        stayed = {a for a, held in before.items() if lab.holders(a) == held}
        back.values.append(len(seen[0].interrupted(0) & stayed))
        balance.values.append(seen[0].worst(0) * 1000)
        self._owners(seen[0])

    def _owners(self, seen: Seen) -> None:
        self.two_owners.values.append(seen.two_owners_s() * 1000)

    def large(self) -> None:
        """The same take-over with 200 VIPs."""
        taken = self.figure("membership event to last VIP configured, announced and read back: 200 VIPs", "ms", 60)
        crash = self.figure("host crash with 200 VIPs: outage of the worst VIP", "ms", None)
        with self.cluster(200) as lab:
            for number in range(self.rounds):
                # 4000 probes a second; more would measure the prober
                node, _ = self._crash(lab, number, crash, taken, interval_ms=50)
                lab.start(node)
                lab.until(lambda: evenly(lab), within_s=WITHIN_SECONDS, story="the load is balanced again")
                note(f"200 VIPs, round {number + 1}: {taken.values[-1]:.1f} ms after the membership event")

    def scale(self) -> None:
        """Many VIPs, many nodes: what comes after the membership event, and what it costs to wait."""
        for nodes, vips, goal_ms in scale_bench.SIZES:
            self.sizes.append(size := scale_bench.Size(nodes, vips, goal_ms))
            self._scale_to(size)

    def _scale_to(self, size: scale_bench.Size) -> None:
        last = self.figure(f"{size.name}: membership event to the last VIP announced", "ms", size.goal_ms)
        kernel = self.figure(f"{size.name}: of it, the kernel's list, for each survivor", "ms", None)
        outage = self.figure(f"{size.name}: crash to the last VIP announced", "ms", None)
        median = self.figure(f"{size.name}: crash to the median VIP announced", "ms", None)
        idle = self.figure(f"{size.name}: idle daemon without the engine, CPU of one core", "%", None)
        last.values, kernel.values, outage.values = size.last_ms, size.kernel_ms, size.outage_ms
        median.values, idle.values = size.outage_median_ms, size.idle
        name = f"bench{os.getpid()}"
        detection = self.detection if size.nodes <= scale_bench.NODES else scale_bench.DETECTION_OF_MANY
        layout = Layout.of(name, nodes=size.nodes, vips=size.vips, vips6=0, detection=detection, settings=SETTINGS)
        with Lab.create(layout, ephemeral=True) as lab:
            capture = scale_bench.Capture(lab)
            scale_bench.start(lab)
            lab.until(lambda: _even_kernels(lab), within_s=WITHIN_SECONDS, story="everybody has its share")
            if size.vips <= scale_bench.IDLE_VIPS_MAX:
                time.sleep(size.vips / size.nodes / QUESTIONS_PER_SECOND + 4)
                size.idle += idle_percent(lab)
            for number in range(self.rounds):
                scale_bench.kernel_alone(lab, size)
                node = layout.nodes[number % size.nodes]
                scale_bench.take_over(lab, capture, node, size)
                note(
                    f"{size.name}, round {number + 1}: {size.last_ms[-1]:.1f} ms, kernel alone {size.kernel_ms[-1]:.1f} ms"
                )
                if number + 1 < self.rounds:
                    lab.crash(node)
                    lab.start(node)
                    lab.until(
                        lambda: _even_kernels(lab), within_s=WITHIN_SECONDS, story="everybody has its share again"
                    )
                    lab.until_settled(within_s=WITHIN_SECONDS)
            capture.close()

    def detections(self) -> None:
        """What each profile's detection costs, while the machine rests and while all its cores compute."""
        cores = os.cpu_count() or 1
        for burners, load in ((0, "the machine at rest"), (cores, f"{cores} cores busy")):
            for detection_ms in sorted({*PROFILES.values(), 300} - {PROFILES["wan"]}):
                crash = self.figure(f"detection {detection_ms} ms, {load}: outage of the worst VIP", "ms", None)
                taken = self.figure("the same: membership event to last VIP configured and read back", "ms", None)
                lost = self.figure("the same: members lost that were well", "times", None)
                self.detection = f"{detection_ms}ms"
                with self.cluster(10) as lab, busy(burners):
                    for number in range(self.rounds):
                        began = time.monotonic()
                        time.sleep(SPURIOUS_SECONDS)
                        lost.values.append(float(sum(losses(lab, n, began) for n in lab.layout.nodes)))
                        node, _ = self._crash(lab, number, crash, taken)
                        lab.start(node)
                        lab.until(lambda: evenly(lab), within_s=WITHIN_SECONDS, story="the load is balanced again")
                    note(f"{detection_ms} ms, {load}: {crash.median:.0f} ms, {sum(lost.values):.0f} lost")

    def stability(self) -> None:
        """Nothing happens, and all cores compute: is a member that is well lost, and what does a client see?"""
        lost = self.figure(f"members lost that were well, in {STABLE_SECONDS:g} s with all cores busy", "times", 0)
        dark = self.figure("the same: outage of the worst VIP", "ms", None)
        late = self.figure("the same: the loop that woke up latest since its start", "ms", None)
        with self.cluster(10) as lab, busy(os.cpu_count() or 1):
            lab.until(lambda: evenly(lab), within_s=WITHIN_SECONDS, story="the load is balanced")
            for number in range(self.rounds):
                began = time.monotonic()
                with watching(lab) as seen:
                    time.sleep(STABLE_SECONDS)
                lost.values.append(float(max(losses(lab, n, began) for n in lab.layout.nodes)))
                dark.values.append(seen[0].worst(began) * 1000)
                late.values.append(max(1000 * lab.ask(n, "status")["counts"]["lag"]["max"] for n in lab.layout.nodes))
                self._owners(seen[0])
                note(f"round {number + 1} of {self.rounds}: {lost.values[-1]:g} lost, {dark.values[-1]:.0f} ms dark")

    def told(self) -> None:
        """VIPs are moved while their new holder tells a /22, and what is urgent is looked at from another host."""
        ordered = self.figure("VIP moved while a /22 is told at 128/s: from the order to the announcement", "ms", 5)
        late = self.figure("the same: its repetitions, after 8 ms to 1.1 s, are late by", "ms", 5)
        alone = self.figure("VIP moved, no list: from the order to the announcement", "ms", None)
        alone_late = self.figure("the same: its repetitions are late by", "ms", None)
        rate = self.figure("frames to that /22 in a holder's busiest second", "frames", 128 * (1 + BURST_SECONDS) + 1)
        listed = '[notify]\nhosts = [{ address = "10.77.0.0/22", throttle = 128 }]\nneighbours = true\n'
        for settings, first, repeated in (("", alone, alone_late), (listed, ordered, late)):
            with self.cluster(6, settings=settings) as lab:
                for number in range(self.rounds):
                    for to in lab.layout.nodes:
                        told = self._moved(lab, lab.layout.vips[0], to, first, repeated)
                        if settings:
                            rate.values += told
                        note(
                            f"round {number + 1}: {first.values[-1]:.1f} ms after the order, {repeated.values[-1]:.1f} late"
                        )

    @staticmethod
    def _moved(lab: Lab, vip: tuple[str, str], to: str, first: Figure, late: Figure) -> list[float]:
        """Another VIP is acquired, so that the list is being told, then this one. Returns frames of the busiest second."""
        name, address = vip
        if lab.holders(address) == {to}:
            lab.ask(to, "move", {"vips": [name], "node": next(n for n in lab.layout.nodes if n != to)})
        other = next(n for n, a in lab.layout.vips if a != address and to not in lab.holders(a))
        lab.ask(to, "move", {"vips": [other], "node": to})
        with Wiretap(lab) as tap:
            began = time.monotonic()
            lab.ask(to, "move", {"vips": [name], "node": to})
            announced = tap.announcements(packed(address), lab.macs()[to], len(SCHEDULE_MS) - 1)
        told = lab.ask(to, "status")["notify"]
        assert told["under_way"] == 0 if not told["sent"] else told["under_way"] >= 2, told
        kernel = next(e for e in lab.records(to, began) if e["event"] == "kernel" and e["added"] != "0")
        first.values.append(float(kernel["announce_ms"]))
        late.values.append(
            max((at - announced[0]) * 1000 - ms for at, ms in zip(announced[1:], SCHEDULE_MS[1:], strict=False))
        )
        return [float(tap.busiest_second(lab.macs()[to]))] if told["sent"] else []

    def trace(self) -> None:
        """A crash, a planned move and a leave, each node in turn, taken apart; and how long the worst VIP was dark."""
        crash, move, leave = (
            trace_bench.Trace(title) for title in ("Host crash", "Planned move of a VIP", "Graceful leave")
        )
        self.traces += [crash, move, leave]
        for trace, goal_ms in ((crash, None), (move, HANDED_OVER_MS), (leave, HANDED_OVER_MS)):
            self.figure(f"{trace.title}: outage of the worst VIP", "ms", goal_ms).values = trace.outage_ms
            self.figure(
                f"{trace.title}: probes lost, {1000 / trace_bench.PROBE_MS:g} a second", "probes", goal_ms
            ).values = trace.lost
        rounds = range(self.rounds)
        for some in (rounds[i : i + ROUNDS_A_CLUSTER] for i in rounds[::ROUNDS_A_CLUSTER]):
            with self.cluster(10) as lab, trace_bench.Capture(lab) as capture:
                nodes = lab.layout.nodes
                for number in some:
                    node, to = nodes[number % len(nodes)], nodes[(number + 1) % len(nodes)]
                    self._owners(self._traced_move(lab, capture, move, node, to))
                    self._owners(self._traced_leave(lab, capture, leave, node))
                    self._start_again(lab, node)
                    self._owners(trace_bench.crash(lab, capture, crash, node, watching))
                    self._start_again(lab, node)
                    note(
                        f"round {number + 1} of {self.rounds}: crash {crash.outage_ms[-1]:.0f} ms,"
                        f" move {move.outage_ms[-1]:.1f} ms, leave {leave.outage_ms[-1]:.1f} ms"
                    )

    def _start_again(self, lab: Lab, node: str) -> None:
        lab.start(node)
        lab.until(lambda: evenly(lab), within_s=WITHIN_SECONDS, story="the load is balanced")

    @staticmethod
    def _traced_leave(lab: Lab, capture: trace_bench.Capture, leave: trace_bench.Trace, node: str) -> Seen:
        vips = trace_bench.vips_of(lab, node)
        seen = trace_bench.hand_over(lab, capture, leave, node, vips, lambda: lab.stop(node), watching)
        lab.until(lambda: lab._daemon(node) is None, within_s=30, story=f"{node} has left")
        return seen

    @staticmethod
    def _traced_move(lab: Lab, capture: trace_bench.Capture, move: trace_bench.Trace, node: str, to: str) -> Seen:
        name, address = next((n, a) for n, a in lab.layout.vips if lab.holders(a) == {node} and ":" not in a)

        def order() -> float:
            began = time.monotonic()
            lab.ask(to, "move", {"vips": [name], "node": to})
            return began

        seen = trace_bench.hand_over(lab, capture, move, node, [address], order, watching)
        lab.ask(to, "move", {"vips": [name], "node": node})
        lab.ask(to, "unhold", {"vips": [name]})
        lab.until(lambda: evenly(lab), within_s=WITHIN_SECONDS, story="the VIP is back")
        return seen

    def drained(self) -> None:
        """A node with a hundred VIPs is drained, and taken back. Each round probes another ten of them: the prober runs
        before the daemons, and to ask all would take a core of theirs."""
        dark = self.figure("drain of 100 VIPs: outage of the worst VIP", "ms", 20)
        took = self.figure("drain of 100 VIPs: from the order to the last VIP's new holder", "ms", None)
        with self.cluster(100, settings="moves_per_round = 0\n") as lab:  # under [balance]
            names: list[object] = [name for name, _ in lab.layout.vips]
            for number in range(self.rounds):
                node = lab.layout.nodes[number % len(lab.layout.nodes)]
                lab.ask(node, "move", {"vips": names, "node": node})
                lab.ask(node, "unhold", {"vips": names})
                lab.until_settled()
                sample = [address for _, address in lab.layout.vips[number % 10 :: 10]]
                with watching(lab, vips=sample) as seen:
                    began = time.monotonic()
                    done = lab.ask(node, "drain", {"node": node, "wait": True})
                    took.values.append((time.monotonic() - began) * 1000)
                assert done["vips_moved"] == 100, done
                dark.values.append(seen[0].worst(0) * 1000)
                self._owners(seen[0])
                lab.ask(node, "resume", {"node": node})
                note(f"drain, round {number + 1}: {dark.values[-1]:.1f} ms dark, {took.values[-1]:.0f} ms in all")

    # -- what the fence keeps

    def fence(self) -> None:
        """Everything that freezes, dies or splits, under each policy."""
        for policy, settings, cluster, rings in (
            ("", "", "", 1),
            ("two networks", "", "", 2),
            ("strict", '[fence]\ntakeover = "strict"\n', "", 1),
            ("majority", "", 'partition = "majority"', 1),
        ):
            with self.cluster(10, settings=settings, cluster=cluster, rings=rings) as lab:
                if rings > 1:
                    rows = fence_bench.plan_of_two_networks()
                else:
                    rows = fence_bench.plan(fence_bench.config_of(lab), policy)
                fence_bench.measure(lab, rows, self.rounds, watching=watching, even=evenly)
                self.fence_rows += [row for row, _ in rows]
                note(fence_bench.table([row for row, _ in rows]))

    # -- what it costs

    def starts(self) -> None:
        """Three nodes at once, then one whose cluster is there; the first round loads what an installation has compiled."""
        cold = self.figure("cold start of 3 nodes, from the first process to the last VIP served: 10 VIPs", "s", 1.5)
        joined = self.figure("start of a daemon and its Corosync, from the process to the group joined", "s", 0.8)
        for number in range(self.rounds + 1):
            layout = Layout.of(f"bench{os.getpid()}", nodes=3, vips=10, detection=self.detection)
            with Lab.create(layout, ephemeral=True) as lab:
                began = time.monotonic()
                lab.start_all()
                lab.until_settled(within_s=WITHIN_SECONDS)
                served = max(
                    e["monotonic"]
                    for node in layout.nodes
                    for e in lab.records(node, began)
                    if e["event"] == "kernel" and e["added"] != "0"
                )
                node = layout.nodes[number % 3]
                lab.stop(node)
                lab.until(lambda node=node: lab._daemon(node) is None, within_s=30, story=f"{node} has left")  # type: ignore[misc]
                again = time.monotonic()
                lab.start(node)
                lab.until_settled(within_s=WITHIN_SECONDS)
                there = next(e["monotonic"] for e in lab.records(node, again) if e["event"] == "joined")
            if number:
                cold.values.append(served - began)
                joined.values.append(there - again)
            note(f"round {number}: served after {served - began:.2f} s, one joined after {there - again:.2f} s")

    def costs(self) -> None:
        """Status, CPU and memory."""
        status = self.figure("`wackamole status`, from typing to the end", "s", 0.2)
        cpu = self.figure("idle daemon without the engine: CPU of one core", "%", 0.7)
        memory = self.figure("idle daemon with its guard: proportional memory", "MB", 35)
        program = str(Path(sys.executable).with_name("wackamole"))
        with self.cluster(10) as lab:
            env = {**lab.environment(), "WACKAMOLE_SOCKET": str(lab.home / "a/run/wackamole/control.sock")}
            pids = [lab.daemon(n) for n in lab.layout.nodes]
            cpu.values += idle_percent(lab)
            memory.values += [sum(map(proportional_mb, (pid, *helpers_of(pid)))) for pid in pids]
            subprocess.run([program, "status"], env=env, check=True, stdout=subprocess.DEVNULL)
            for _ in range(max(self.rounds, 5)):
                began = time.monotonic()
                subprocess.run([program, "status"], env=env, check=True, stdout=subprocess.DEVNULL)
                status.values.append(time.monotonic() - began)

    def checks(self) -> None:
        """What 200 checks on every node do to the daemons' loops: how long the smallest question takes that the loop answers."""
        alone = self.figure("the smallest question to a daemon, no checks: 99 of 100 are answered within", "ms", None)
        beside = self.figure(
            "the same, 200 checks running, half of them HTTP: upper bound of the loop's lag, p99", "ms", 20
        )
        worst = self.figure("the same: the slowest answer of each round", "ms", None)
        cpu = self.figure(
            "daemon with 200 checks, once a second each, asked 30 times a second: CPU of one core", "%", None
        )
        checker = self.figure("the process that runs them: CPU of one core", "%", None)
        for settings in ("", CHECKS_RUNNING):
            with self.cluster(10, settings=settings) as lab:
                pids = [lab.daemon(n) for n in lab.layout.nodes]
                if settings:
                    for node in lab.layout.nodes:
                        lab.begin(node, sys.executable, "-c", SERVE)
                    lab.until(
                        lambda: all(_passing(lab, n) == CHECKS for n in lab.layout.nodes),
                        within_s=WITHIN_SECONDS,
                        story="all checks pass",
                    )
                began, before = time.monotonic(), [cpu_s(p) for p in pids]
                children = [checker_of(p) for p in pids] if settings else []
                before_children = [cpu_s(p) for p in children]
                for _ in range(self.rounds):
                    times = sorted(_answer_ms(lab, n) for _ in range(ASKED // 3) for n in lab.layout.nodes)
                    (beside if settings else alone).values.append(times[len(times) * 99 // 100])
                    if settings:
                        worst.values.append(times[-1])
                        assert all(_passing(lab, n) == CHECKS for n in lab.layout.nodes)
                took = time.monotonic() - began
                if settings:
                    cpu.values += [(cpu_s(p) - used) / took * 100 for p, used in zip(pids, before, strict=True)]
                    checker.values += [
                        (cpu_s(p) - used) / took * 100 for p, used in zip(children, before_children, strict=True)
                    ]
                note(
                    f"{'200 checks' if settings else 'no checks'}: {(beside if settings else alone).values[-1]:.1f} ms"
                )

    def reload(self) -> None:
        """Ten VIPs, a check and a node come and go by reloads, one node after the other, and nobody else notices."""
        lost = self.figure(
            "VIPs, a check and a node added and removed live: probes lost on the untouched VIPs", "probes", 0
        )
        sent = self.figure("the same: probes of the untouched VIPs", "probes", None)
        took = self.figure("`reload` of one node, from the question to the answer", "ms", None)
        still = '[balance]\ninterval = "1h"\n'  # what a node that comes is given is another matter
        layout = Layout.of(f"bench{os.getpid()}", nodes=4, vips=10, detection=self.detection, settings=still)
        *nodes, last = layout.nodes
        small = re.sub(rf'\[\[node\]\]\nname = "{last}"\n.*\n', "", layout.config)
        with Lab.create(layout, ephemeral=True) as lab:

            def reload(text: str) -> None:
                for node in nodes:
                    lab.config(node).write_text(text)
                    began = time.monotonic()
                    lab.ask(node, "reload")
                    took.values.append((time.monotonic() - began) * 1000)

            def served(vips: int, members: list[str]) -> bool:
                found = [lab.status(n) for n in members]
                return all(
                    s is not None
                    and len(s["view"]["members"]) == len(members)
                    and sum(v["holder"] is not None for v in s["vips"]) == vips == len(s["vips"])
                    for s in found
                )

            for node in nodes:
                lab.start(node, config=small)
            lab.until_settled(nodes, within_s=WITHIN_SECONDS)
            for number in range(self.rounds):
                with watching(lab, interval_ms=5) as seen:
                    reload(layout.config + COMING)
                    lab.until(lambda: served(20, nodes), within_s=WITHIN_SECONDS, story="the new VIPs are served")
                    lab.start(last, config=layout.config + COMING)
                    lab.until(lambda: served(20, [*nodes, last]), within_s=WITHIN_SECONDS, story="the node has come")
                    lab.ask(last, "leave")
                    lab.until(lambda: served(20, nodes), within_s=WITHIN_SECONDS, story="it has left")
                    reload(small)
                    lab.until(lambda: served(10, nodes), within_s=WITHIN_SECONDS, story="the VIPs are gone")
                lost.values.append(
                    sum(round((b - a) / seen[0].interval_s) for s in seen[0].silences.values() for a, b in s)
                )
                sent.values.append(sum(seen[0].sent.values()))
                self._owners(seen[0])
                note(f"round {number + 1}: {lost.values[-1]:.0f} of {sent.values[-1]:.0f} probes lost")

    def placement(self) -> None:
        """What placement alone takes: no lab is needed."""
        for what, limit, call in placement_bench.measurements():
            figure = self.figure(what, "ms", limit)
            for _ in range(max(self.rounds, 5)):
                figure.values.append(placement_bench.milliseconds(call))
            note(f"{what}: {figure.median:.1f} ms")

    # -- the report

    def table(self) -> str:
        """Everything, as Markdown."""
        figures = [*self.figures, *([self.two_owners] if self.two_owners.values else [])]
        head = ["| | at most | median | smallest – largest | n | |", "|---|---|---|---|---|---|"]
        parts = ["\n".join([*head, *(f.row() for f in figures if f.values)])] if any(f.values for f in figures) else []
        if self.fence_rows:
            parts.append(fence_bench.table(self.fence_rows))
        if self.traces:
            parts.append(trace_bench.table(self.traces))
        return "\n\n".join(parts)

    def as_data(self) -> dict[str, Any]:
        """Everything, for programs."""
        figures = [*self.figures, self.two_owners]
        return {
            "machine": machine(),
            "detection_ms": self.detection_ms,
            "figures": [
                {"what": f.what, "unit": f.unit, "limit": f.limit, "values": f.values, "met": f.met}
                for f in figures
                if f.values
            ],
            "fence": [asdict(row) for row in self.fence_rows],
            "traces": [asdict(trace) for trace in self.traces],
            "sizes": [asdict(size) for size in self.sizes],
        }


class Wiretap:
    """ARP frames as the client sees them, with the kernel's time of each."""

    def __init__(self, lab: Lab) -> None:
        self._socket = opened_in(lab.layout.namespace(CLIENT), self._opened)
        self._frames: list[tuple[float, bytes]] = []

    @staticmethod
    def _opened() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        s.bind(("eth0", ETH_P_ARP))
        s.settimeout(WITHIN_SECONDS)
        return s

    def __enter__(self) -> Wiretap:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def announcements(self, ip: bytes, mac: str, count: int) -> list[float]:
        """When an address was announced by this host for the first times (seconds)."""
        found: list[float] = []
        while len(found) < count:
            frame, ancillary, _, _ = self._socket.recvmsg(256, 64)
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            self._frames.append((seconds + nanoseconds / 1e9, frame))
            request = frame[20:22] == b"\0\1" and frame[6:12].hex(":") == mac
            if request and frame[:6] == ETH_BROADCAST and frame[28:32] == frame[38:42] == ip:
                found.append(self._frames[-1][0])
        return found

    def busiest_second(self, mac: str) -> int:
        """Questions that this host has asked of others in one second, at most."""
        asked = [at for at, f in self._frames if f[6:12].hex(":") == mac and f[28:32] != f[38:42] and f[:1] == b"\xff"]
        return max((sum(at <= later < at + 1 for later in asked) for at in asked), default=0)


@contextmanager
def watching(
    lab: Lab, *, interval_ms: float = PROBE_MS, vips: Sequence[str] | None = None, rounds_a_question: int = 1
) -> Iterator[list[Seen]]:
    """Probe all VIPs (or these addresses) while something happens; the list has what was seen afterwards."""
    probed = len(lab.layout.vips) if vips is None else len(vips)
    found: list[Seen] = []
    with Probe(lab, interval_ms=interval_ms, vips=vips, rounds_a_question=rounds_a_question) as probe:
        lab.until(
            lambda: len(probe.silent) == probed and not any(probe.silent.values()),
            within_s=WITHIN_SECONDS,
            story="the client reaches every VIP",
        )
        yield found
        lab.until(lambda: not any(probe.silent.values()), within_s=WITHIN_SECONDS, story="every VIP answers again")
        found.append(probe.stop())


def take_over_ms(lab: Lab, nodes: list[str], since: float) -> float:
    """From the first view after `since` to the last address read back, the worst of these nodes. An upper bound: the
    record is written after the announcement and the reading back."""
    worst = 0.0
    for node in nodes:
        found = lab.records(node, since)
        view = next(e["monotonic"] for e in found if e["event"] == "view")
        added = [e["monotonic"] for e in found if e["event"] == "kernel" and e["added"] != "0"]
        if added:
            worst = max(worst, (added[0] - view) * 1000)
    assert worst > 0, "nobody took anything over"
    return worst


def losses(lab: Lab, node: str, since: float) -> int:
    """How many views after `since` lacked somebody, as a node records them."""
    return sum(1 for e in lab.records(node, since) if e["event"] == "view" and e["left"] != "-")


def evenly(lab: Lab) -> bool:
    """Whether all are settled, and shares differ by one at most."""
    counts = [len(lab.kernel(n)) for n in lab.layout.nodes]
    return max(counts) - min(counts) <= 1 and lab.settled()


def _even_kernels(lab: Lab) -> bool:
    """The same by the kernels alone: it costs the daemons nothing, and they are what is measured."""
    counts = [len(lab.kernel(n)) for n in lab.layout.nodes]
    return max(counts) - min(counts) <= 1 and sum(counts) == len(lab.layout.vips)


def idle_percent(lab: Lab) -> list[float]:
    """The CPU that each node's daemon takes, in percent of a core."""
    pids = [lab.daemon(n) for n in lab.layout.nodes]
    before, at = [cpu_s(p) for p in pids], time.monotonic()
    time.sleep(IDLE_SECONDS)
    took = time.monotonic() - at
    return [(cpu_s(pid) - used) / took * 100 for pid, used in zip(pids, before, strict=True)]


def _passing(lab: Lab, node: str) -> int:
    return sum(1 for check in (lab.status(node) or {"checks": []})["checks"] if check["state"] == "passing")


def _answer_ms(lab: Lab, node: str) -> float:
    """How long a question takes that the daemon only refuses."""
    time.sleep(ASKED_EACH_SECONDS)
    began = time.monotonic()
    with contextlib.suppress(Refused):
        lab.ask(node, "nothing")
    return (time.monotonic() - began) * 1000


def checker_of(daemon: int) -> int:
    """The process that runs a daemon's checks."""
    for stat in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command, parent = stat.read_bytes(), stat.with_name("stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == daemon and b"wackamole.shell.checker" in command:
            return int(stat.parent.name)
    raise LookupError(f"daemon {daemon} has no checker")


def cpu_s(pid: int) -> float:
    """The CPU time of a process so far (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_mb(pid: int) -> float:
    """The memory of a process, what it shares counted in parts."""
    line = next(x for x in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if x.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def helpers_of(daemon: int) -> list[int]:
    """The processes of ours that a daemon has started; its Corosync is none."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        if int(rest.split()[1]) == daemon and name != "corosync":
            found.append(int(stat.parent.name))
    return found


def machine() -> str:
    """Where this was measured."""
    model = next(
        (x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "?"
    )
    corosync = subprocess.run(["corosync", "-v"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    return (
        f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, Python {platform.python_version()}, {corosync}"
    )


def note(text: str) -> None:
    """How far it is, on stderr."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """`script/bench`."""
    parser = argparse.ArgumentParser(prog="script/bench", description="Measures what docs/benchmarks.md shows.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--detection", default="200ms")
    only = (
        "client",
        "large",
        "trace",
        "scale",
        "drain",
        "fence",
        "notify",
        "placement",
        "costs",
        "starts",
        "checks",
        "reload",
        "detection",
        "stability",
    )
    parser.add_argument("--only", choices=only, action="append")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="write the charts there")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.charts is not None:
        given.charts.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.detection, given.rounds)
    parts = {
        "client": bench.client_sees,
        "large": bench.large,
        "trace": bench.trace,
        "scale": bench.scale,
        "drain": bench.drained,
        "fence": bench.fence,
        "notify": bench.told,
        "placement": bench.placement,
        "costs": bench.costs,
        "starts": bench.starts,
        "checks": bench.checks,
        "reload": bench.reload,
        "detection": bench.detections,
        "stability": bench.stability,
    }
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled
    try:
        with tempfile.TemporaryDirectory() as compiled:
            os.environ["PYTHONPYCACHEPREFIX"] = compiled
            for name in given.only or tuple(p for p in parts if p not in ALONE):
                parts[name]()
    except LabRefused as no:
        print(f"script/bench: {no}", file=sys.stderr)
        sys.exit(1)
    if given.charts is not None:
        drawn = trace_bench.charts(bench.traces, machine()) | scale_bench.charts(bench.sizes, machine())
        for name, chart in drawn.items():
            (given.charts / name).write_text(chart)
    if given.json:
        print(json.dumps(bench.as_data(), indent=2))
    else:
        print(
            f"{machine()}; detection {bench.detection_ms} ms; 3 nodes; a client probes every VIP each {PROBE_MS:g} ms\n"
        )
        print(bench.table())
    missed = any(f.met is False for f in (*bench.figures, bench.two_owners) if f.values)
    sys.exit(missed or not all(map(fence_bench.kept, bench.fence_rows)))


if __name__ == "__main__":
    main()
