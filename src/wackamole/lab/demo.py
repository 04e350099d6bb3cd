"""`wackamole demo`: three nodes, six VIPs, and what a client sees when things happen to them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..config import parse
from ..render import console
from .lab import Lab, LabRefused, Layout
from .probe import Probe, Seen
from .timeline import COLOURS, svg

PROBE_MS = 5.0
STALL_MS = 300.0
"""What is forgiven to a machine that stalls by itself: the demo judges promises, `script/bench` measures."""
STEP_SECONDS_MAX = 40.0
SETTINGS = '[balance]\ninterval = "1s"\nsettle = "4s"\n'


@dataclass
class Step:
    """One thing that was done to the cluster, and what the client saw of it."""

    what: str
    began: float
    ended: float = 0.0
    mark: float | None = None  # where the picture names it, if not where it began
    promise: str = ""
    limit_ms: float | None = None
    worst_ms: float = 0.0
    interrupted: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()  # addresses that had no reason to fall silent
    kept: bool = True


@dataclass
class Demo:
    """The run of one demo."""

    lab: Lab
    detection_ms: float
    show: Callable[[], None]
    steps: list[Step] = field(default_factory=list)

    def _wait(self, fact: Callable[[], bool], story: str) -> None:
        def looked() -> bool:
            self.show()
            return fact()

        self.lab.until(looked, within_s=STEP_SECONDS_MAX, story=story)

    def _pause(self, seconds: float) -> None:
        """Time to look at, between two steps; nothing is waited for."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.show()
            time.sleep(0.05)

    def _held_by(self, node: str) -> tuple[str, ...]:
        return tuple(sorted(self.lab.kernel(node)))

    def run(self) -> None:
        """Crash, come-back, drain."""
        lab = self.lab
        addresses = [a for _, a in lab.layout.vips]
        self._pause(3)

        victim = next(iter(lab.holders(addresses[0])))
        rest = [n for n in lab.layout.nodes if n != victim]
        on_victim = self._held_by(victim)
        step = Step(f"{victim} crashes", 0.0, promise="only its VIPs fall silent, for about `detection`")
        step.limit_ms = self.detection_ms + 60 + STALL_MS
        step.must_not = tuple(a for a in addresses if a not in on_victim)
        self.steps.append(step)
        step.began = lab.crash(victim)
        self._wait(lambda: lab.settled(rest), f"{' and '.join(rest)} take over from {victim}")
        self._pause(3)
        step.ended = time.monotonic()

        step = Step(f"{victim} comes back", time.monotonic(), promise="nothing falls silent", limit_ms=0.0)
        step.must_not = tuple(addresses)
        self.steps.append(step)
        lab.start(victim)
        self._wait(lab.settled, f"{victim} is a member again")
        step.ended = time.monotonic()

        step = Step("the load is balanced", time.monotonic(), promise="each VIP is handed over at once")
        step.limit_ms = 20 + STALL_MS
        self.steps.append(step)
        self._wait(lambda: bool(lab.kernel(victim)), f"{victim} gets its first VIP again")
        step.mark = time.monotonic()
        share = len(addresses) // len(lab.layout.nodes)
        self._wait(lambda: lab.settled() and len(lab.kernel(victim)) == share, "everybody has a fair share")
        self._pause(2)
        step.ended = time.monotonic()

        leaver = rest[0]
        on_leaver = self._held_by(leaver)
        step = Step(f"{leaver} is drained", time.monotonic(), promise="each VIP is handed over at once")
        step.limit_ms = 20 + STALL_MS
        step.must_not = tuple(a for a in addresses if a not in on_leaver)
        self.steps.append(step)
        lab.ask(rest[1], "drain", {"node": leaver})
        self._wait(lambda: lab.settled() and not lab.kernel(leaver), f"{leaver} is empty")
        self._pause(3)
        step.ended = time.monotonic()

    def judge(self, seen: Seen) -> bool:
        """What the client saw in each step; whether every promise was kept."""
        for step in self.steps:
            step.worst_ms = seen.worst(step.began - 0.02, step.ended) * 1000
            step.interrupted = tuple(sorted(seen.interrupted(step.began - 0.02, step.ended)))
            late = step.limit_ms is not None and step.worst_ms > step.limit_ms
            step.kept = not late and not set(step.interrupted) & set(step.must_not)
        answered = all(not s or s[-1][1] < self.steps[-1].ended - 0.2 for s in seen.silences.values())
        return all(s.kept for s in self.steps) and answered and not any(seen.two_owners.values())


class Screen:
    """What people see meanwhile: a live table on a terminal, a line per event elsewhere."""

    def __init__(self, lab: Lab, *, quiet: bool) -> None:
        self._lab = lab
        self._console = Console(stderr=quiet, highlight=False)
        self._live = (
            None if quiet or not self._console.is_terminal else Live(console=self._console, refresh_per_second=12)
        )
        self._quiet = quiet
        self._next = 0.0
        self._told = ""
        self.probe: Probe | None = None
        self.demo: Demo | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)
            self._live.stop()

    def show(self) -> None:
        """Look again, at most twelve times a second."""
        now = time.monotonic()
        if now < self._next or self._quiet:
            return
        self._next = now + 0.08
        if self._live is not None:
            self._live.update(self._picture())
            return
        line = "  ".join(
            f"{n}: {' '.join(self._names(n)) or '-'}" if self._up(n) else f"{n}: down" for n in self._lab.layout.nodes
        )
        step = self.demo.steps[-1].what if self.demo is not None and self.demo.steps else "all is well"
        text = f"{step:<24} {line}"
        if text != self._told:
            self._told = text
            self._console.print(f"{now - self._began:6.1f} s  {text}", soft_wrap=True)

    def looked(self, fact: Callable[[], bool]) -> bool:
        """Show how it stands, and whether the fact is there."""
        self.show()
        return fact()

    def _up(self, node: str) -> bool:
        return self._lab._daemon(node) is not None

    def _names(self, node: str) -> list[str]:
        have = self._lab.kernel(node)
        return [name for name, a in self._lab.layout.vips if a in have]

    def _picture(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("NODE")
        for name, _ in self._lab.layout.vips:
            table.add_column(name, justify="center")
        for node in self._lab.layout.nodes:
            have = self._lab.kernel(node)
            cells = [Text("■■", COLOURS[i % len(COLOURS)]) if a in have else Text("·", "dim")
                     for i, (_, a) in enumerate(self._lab.layout.vips)]  # fmt: skip
            table.add_row(Text(node, "bold" if self._up(node) else "red strike"), *cells)
        silent = self.probe.silent if self.probe is not None else {}
        table.add_row(
            Text("client", "dim"),
            *[
                Text("…", "dim")
                if a not in silent
                else Text("silent", "red bold")
                if silent[a]
                else Text("ok", "green")
                for _, a in self._lab.layout.vips
            ],
        )
        step = self.demo.steps[-1].what if self.demo is not None and self.demo.steps else "all is well"
        return Group(Text(f"{time.monotonic() - self._began:5.1f} s  {step}", "bold"), table)


def run_demo(*, as_json: bool, picture: Path, detection: str) -> int:
    """The whole demo; 0 if every promise was kept, 1 if one broke."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    layout = Layout.of(f"demo{os.getpid()}", nodes=3, vips=6, detection=detection, settings=SETTINGS)
    detection_ms = parse(layout.config).engine.detection_ms
    if not as_json:
        print(f"wackamole demo: 3 nodes, 6 VIPs, real Corosync; a client probes every VIP each {PROBE_MS:.0f} ms\n")
    try:
        with Lab.create(layout, ephemeral=True) as lab:
            return _play(lab, float(detection_ms), as_json, picture)
    except AssertionError as broken:
        print(f"\na promise broke: {broken}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; everything is taken down", file=sys.stderr)
        return 130


def _play(lab: Lab, detection_ms: float, as_json: bool, picture: Path) -> int:
    with Screen(lab, quiet=as_json) as screen:
        lab.start_all()
        lab.until(lambda: screen.looked(lab.settled), within_s=60, story="the cluster settles")
        with Probe(lab, interval_ms=PROBE_MS) as probe:
            screen.probe = probe
            lab.until(
                lambda: len(probe.silent) == len(lab.layout.vips) and not any(probe.silent.values()),
                within_s=10,
                story="the client reaches every VIP",
            )
            began = time.monotonic()
            demo = Demo(lab, detection_ms, screen.show)
            screen.demo = demo
            demo.run()
            ended = time.monotonic()
            seen = probe.stop()
    kept = demo.judge(seen)
    vips = {a: n for n, a in lab.layout.vips}
    title = f"3 nodes, 6 VIPs, detection {detection_ms:.0f} ms: who answered a client's probes each {PROBE_MS:.0f} ms"
    marks = [(s.mark or s.began, s.what) for s in demo.steps]
    try:
        picture.write_text(svg(title, lab.layout.nodes, vips, seen.owners, seen.silences, marks, (began, ended)))
    except OSError as wrong:
        raise LabRefused(f"the picture {picture} cannot be written: {wrong.strerror}") from None
    two_ms = seen.two_owners_s() * 1000
    if as_json:
        print(json.dumps(_report(demo, seen, two_ms, kept, picture), indent=2))
    else:
        _summary(demo, seen, two_ms, kept, picture, began)
    return 0 if kept else 1


def _report(demo: Demo, seen: Seen, two_ms: float, kept: bool, picture: Path) -> dict[str, Any]:
    return {
        "kept": kept,
        "detection_ms": demo.detection_ms,
        "probe_ms": PROBE_MS,
        "two_owners_ms": two_ms,
        "picture": str(picture),
        "steps": [
            {
                "what": s.what,
                "worst_ms": round(s.worst_ms, 1),
                "limit_ms": s.limit_ms,
                "interrupted": list(s.interrupted),
                "silent_ms": {ip: round(seen.outage(ip, s.began - 0.02, s.ended) * 1000, 1) for ip in s.interrupted},
                "kept": s.kept,
            }
            for s in demo.steps
        ],
    }


def _summary(demo: Demo, seen: Seen, two_ms: float, kept: bool, picture: Path, began: float) -> None:
    out = console()
    names = {a: n for n, a in demo.lab.layout.vips}
    table = Table(
        box=None, padding=(0, 2, 0, 0), header_style="dim", title="\nwhat the client saw", title_justify="left"
    )
    for column in ("AT", "WHAT", "SILENT", "WORST", "PROMISE", ""):
        table.add_column(column)
    for step in demo.steps:
        silent = ", ".join(
            f"{names[ip]} {seen.outage(ip, step.began - 0.02, step.ended) * 1000:.0f} ms" for ip in step.interrupted
        )
        table.add_row(
            f"{step.began - began:.1f} s",
            step.what,
            silent or "none",
            f"{step.worst_ms:.0f} ms",
            step.promise,
            Text("kept", "green") if step.kept else Text("BROKEN", "red bold"),
        )
    out.print(table)
    asked = sum(seen.sent.values())
    out.print(f"two hosts answering for one VIP: {two_ms:.0f} ms   ({asked} questions asked)")
    out.print(f"the picture: {picture}")
    out.print(Text("every promise was kept", "green bold") if kept else Text("a promise broke", "red bold"))
