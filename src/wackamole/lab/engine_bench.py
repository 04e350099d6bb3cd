"""Measuring Corosync alone: what its timers give on this machine (docs/decisions/0002-corosync-timings.md).

`python -m wackamole.lab.engine_bench` (root) prints, for each set of timers: how long a dead host stays a member, how
often the membership changes without a cause (idle, and while a host comes back), and how long a heal takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.corosync.conf import RingNode, Timings, corosync_conf
from .lab import SWITCH, Lab, Layout
from .namespaces import ip, tool

WATCH = "--watch"


# -- in the node's namespace ----------------------------------------------------------------------------------------------


async def _watch() -> None:
    """Join a group and print every view: monotonic time, members."""
    from ..engine.contract import EngineEvent, NewView
    from ..engine.corosync.adapter import CorosyncEngine

    def say_nothing(what: str, **fields: object) -> None:
        del what, fields

    engine = CorosyncEngine("bench", None, on_record=say_nothing)

    def listener(event: EngineEvent) -> None:
        if isinstance(event, NewView):
            members = ",".join(map(str, event.view.members))
            print(f"{time.monotonic():.6f} {members} {int(event.view.direct)}", flush=True)

    await engine.start(listener)
    await asyncio.Event().wait()


# -- outside --------------------------------------------------------------------------------------------------------------


@dataclass
class Host:
    """One Corosync and one watcher."""

    corosync: subprocess.Popen[bytes]
    watcher: subprocess.Popen[bytes]
    output: Path

    def views(self) -> list[tuple[float, frozenset[int]]]:
        """All views so far: when, and who."""
        found = []
        for line in self.output.read_text().splitlines():
            when, members, *_ = line.split()
            found.append((float(when), frozenset(map(int, members.split(",")))))
        return found


@dataclass
class Ring:
    """Corosyncs in a lab's namespaces, with given timers and without daemons."""

    lab: Lab
    timers: Timings
    hosts: dict[str, Host] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start one host's Corosync and its watcher."""
        lab, nodes = self.lab, self.lab.layout.nodes
        ring = tuple(
            RingNode(n, 11 + i, tuple(f"10.{77 + r}.0.{11 + i}" for r in range(lab.layout.rings)))
            for i, n in enumerate(nodes)
        )
        if not (Path("/run/netns") / lab.layout.namespace(name)).exists():
            lab._make_host(name)
        folder = lab.home / name / "run"
        (folder / "state").mkdir(parents=True, exist_ok=True)
        text = corosync_conf(
            "bench", ring, self.timers, key_file=None, log_file="/run/corosync.log", state_dir="/run/state"
        )
        (folder / "corosync.conf").write_text(text)
        env = lab.environment()
        daemon = subprocess.Popen(
            lab._command(name, "corosync", "-f", "-c", "/run/corosync.conf"),
            env=env,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        output = lab.home / name / f"views-{time.monotonic():.0f}"
        with output.open("wb") as file:
            watcher = subprocess.Popen(
                lab._command(name, sys.executable, "-m", "wackamole.lab.engine_bench", WATCH),
                env=env,
                start_new_session=True,
                stdout=file,
            )
        self.hosts[name] = Host(daemon, watcher, output)

    def crash(self, name: str) -> float:
        """The host is gone."""
        when = self.lab.crash(name)
        host = self.hosts.pop(name)
        host.corosync.wait()
        host.watcher.wait()
        return when

    def leave(self, name: str) -> None:
        """Its Corosync is stopped properly."""
        host = self.hosts.pop(name)
        host.watcher.send_signal(signal.SIGTERM)
        host.watcher.wait()
        host.corosync.send_signal(signal.SIGTERM)
        host.corosync.wait()

    def when(self, name: str, members: set[str], since: float, within_s: float = 20.0) -> float:
        """When a host first saw exactly these members, after `since`."""
        wanted = {11 + self.lab.layout.nodes.index(n) for n in members}
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for at, seen in self.hosts[name].views():
                if at >= since and seen == wanted:
                    return at
            time.sleep(0.005)
        raise TimeoutError(f"{name} did not see {sorted(members)}: {self.hosts[name].views()[-3:]}")

    def lost_between(self, name: str, keep: set[str], since: float) -> int:
        """How often a host's view after `since` lacked one of `keep`."""
        wanted = {11 + self.lab.layout.nodes.index(n) for n in keep}
        return sum(1 for at, seen in self.hosts[name].views() if at >= since and not wanted <= seen)


@contextlib.contextmanager
def ring_of(nodes: int, rings: int, timers: Timings, suffix: str = "") -> Iterator[Ring]:
    """A ring with all hosts up."""
    name = f"eb{os.getpid()}{suffix}"
    lab = Lab.create(Layout.of(name, nodes=nodes, vips=1, rings=rings), ephemeral=True)
    ring = Ring(lab, timers)
    try:
        for node in lab.layout.nodes:
            ring.start(node)
        everybody = set(lab.layout.nodes)
        for node in lab.layout.nodes:
            ring.when(node, everybody, 0.0)
        yield ring
    finally:
        lab.down()
        for host in ring.hosts.values():
            host.corosync.wait()
            host.watcher.wait()


def measure(
    timers: Timings, *, nodes: int = 3, rings: int = 1, rounds: int = 5, idle_s: float = 10.0
) -> dict[str, float]:
    """One set of timers. Milliseconds; `spurious`: views that lacked a healthy member."""
    deaths: list[float] = []
    joins: list[float] = []
    heals: list[float] = []
    spurious_join = 0
    with ring_of(nodes, rings, timers) as ring:
        names = ring.lab.layout.nodes
        everybody, victim, rest = set(names), names[-1], set(names[:-1])
        began = time.monotonic()
        time.sleep(idle_s)
        spurious_idle = sum(ring.lost_between(n, everybody, began) for n in names)
        for turn in range(rounds):
            at = ring.crash(victim)
            deaths.append(max(ring.when(n, rest, at) for n in rest) - at)
            time.sleep(0.3)
            began = time.monotonic()
            ring.start(victim)
            joins.append(max(ring.when(n, everybody, began) for n in names) - began)
            time.sleep(1.0)
            spurious_join += sum(ring.lost_between(n, rest, at) for n in rest)
            began = time.monotonic()
            ring.lab.partition([victim])
            for n in rest:
                ring.when(n, rest, began)
            ring.when(victim, {victim}, began)
            time.sleep(1.0 + 0.137 * turn)  # heals fall anywhere between two probes of the ring
            at = ring.lab.heal()
            heals.append(max(ring.when(n, everybody, at) for n in names) - at)
            spurious_join += sum(ring.lost_between(n, rest, began) for n in rest)
        spurious_link = 0
        if rings > 1:
            switch, began = ring.lab.layout.namespace(SWITCH), time.monotonic()
            for state in ("down", "up"):
                ip(f"link set {victim}.0 {state}", namespace=switch)
                time.sleep(3.0)
            spurious_link = sum(ring.lost_between(n, everybody, began) for n in names)
    ms: Callable[[float], float] = lambda s: round(s * 1000, 1)  # noqa: E731
    return {
        "death_median": ms(statistics.median(deaths)),
        "death_max": ms(max(deaths)),
        "join_median": ms(statistics.median(joins)),
        "heal_median": ms(statistics.median(heals)),
        "heal_max": ms(max(heals)),
        "spurious_idle": spurious_idle,
        "spurious_join": spurious_join,
        "spurious_link": spurious_link,
    }


BURN = "while True: pass"
"""What keeps a core busy: what hosts do beside serving addresses."""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing but compute, at the usual priority."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            burner = subprocess.Popen([sys.executable, "-c", BURN], start_new_session=True)
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield


def soak(sets: dict[str, tuple[Timings, int]], *, nodes: int, seconds: float, burners: int) -> Iterator[dict[str, int]]:
    """All sets at once, for so long, beside `burners` processes that do nothing but compute: each minute, how often each
    ring has lost a healthy member so far. Many rings on few cores wait for each other: an upper bound."""
    with contextlib.ExitStack() as stack:
        rings = {
            text: stack.enter_context(ring_of(nodes, links, timers, chr(ord("a") + i)))
            for i, (text, (timers, links)) in enumerate(sets.items())
        }
        stack.enter_context(busy(burners))
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(min(60.0, seconds))
            yield {
                text: max(ring.lost_between(n, set(ring.lab.layout.nodes), began) for n in ring.hosts)
                for text, ring in rings.items()
            }


def main() -> None:
    """Measure the sets named on the command line: token/consensus/join/merge/interval/timeout/pongs/rings."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "sets", nargs="+", help="token/consensus/join/merge/ping_interval/ping_timeout/pong_count/rings"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--soak", type=float, help="seconds: only count spurious changes, all sets at once")
    parser.add_argument("--burners", type=int, default=os.cpu_count(), help="with --soak: processes that only compute")
    given = parser.parse_args()
    sets: dict[str, tuple[Timings, int]] = {}
    for text in given.sets:
        token, consensus, join, merge, interval, timeout, pongs, rings, *retransmits = map(int, text.split("/"))
        sets[text] = Timings(token, consensus, join, merge, interval, timeout, pongs, *retransmits), rings
    if given.soak is not None:
        began = time.monotonic()
        for lost in soak(sets, nodes=given.nodes, seconds=given.soak, burners=given.burners):
            print(f"{time.monotonic() - began:.0f} s:", " ".join(f"{k}={v}" for k, v in lost.items()), flush=True)
        return
    for text, (timers, rings) in sets.items():
        try:
            found = measure(timers, nodes=given.nodes, rings=rings, rounds=given.rounds, idle_s=given.idle)
        except TimeoutError as wrong:
            print(text, f"failed: {wrong}", flush=True)
            continue
        print(text, " ".join(f"{k}={v:g}" for k, v in found.items()), flush=True)


if __name__ == "__main__":
    tool("ip", "-V")
    if sys.argv[1:] == [WATCH]:
        asyncio.run(_watch())
    else:
        main()
