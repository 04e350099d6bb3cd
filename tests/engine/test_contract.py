"""The engine's contract, on the model in memory, on real Corosync and on real Spread: the same tests and expectations."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.engine.member import said
from wackamole.core.model import NodeId
from wackamole.engine.contract import PAYLOAD_BYTES_MAX
from wackamole.engine.memory import MemoryEngine, Network
from wackamole.lab.lab import Lab, Layout

WITHIN_SECONDS = 60.0
NODES = (11, 12, 13)
Said = dict[str, Any]


class Group(Protocol):
    """Three hosts that can be members of one group."""

    real: bool
    died: str
    """What the others read of a process that died."""

    def start(self, node: int) -> None: ...
    def multicast(self, node: int, *payloads: bytes) -> None: ...
    def rejoin(self, node: int) -> None: ...
    def leave(self, node: int) -> None: ...
    def kill(self, node: int) -> None: ...
    def crash(self, node: int) -> None: ...
    def partition(self, *groups: tuple[int, ...]) -> None: ...
    def events(self, node: int) -> list[Said]: ...
    def turn(self) -> None:
        """Let something happen."""

    def close(self) -> None: ...


class MemoryGroup:
    """The model, behind asyncio."""

    real = False
    died = "PROCESS_DIED"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._network = Network()
        self._peers: list[MemoryEngine] = []
        self._engines: dict[int, MemoryEngine] = {}
        self._events: dict[int, list[Said]] = {n: [] for n in NODES}

    def start(self, node: int) -> None:
        engine = MemoryEngine(self._network, NodeId(node), self._peers)
        self._engines[node] = engine
        self._loop.run_until_complete(engine.start(lambda event: self._events[node].append(said(event))))

    def _in_loop(self, what: Callable[[], None]) -> None:
        async def do() -> None:
            what()

        self._loop.run_until_complete(do())

    def multicast(self, node: int, *payloads: bytes) -> None:
        for payload in payloads:
            self._in_loop(lambda payload=payload: self._engines[node].multicast(payload))  # type: ignore[misc]

    def rejoin(self, node: int) -> None:
        self._loop.run_until_complete(self._engines[node].rejoin("asked to"))

    def leave(self, node: int) -> None:
        self._loop.run_until_complete(self._engines[node].leave())
        self._events[node].append({"done": True})

    def _gone(self, node: int, how: Callable[[NodeId], None]) -> None:
        engine = self._engines.pop(node)
        self._peers.remove(engine)
        engine.freeze()
        how(NodeId(node))
        self._changed()

    def kill(self, node: int) -> None:
        self._gone(node, self._network.kill)

    def crash(self, node: int) -> None:
        self._gone(node, self._network.crash)

    def partition(self, *groups: tuple[int, ...]) -> None:
        self._network.partition([[NodeId(n) for n in g] for g in groups])
        self._changed()

    def _changed(self) -> None:
        for engine in self._peers:
            self._in_loop(engine.network_changed)

    def events(self, node: int) -> list[Said]:
        return self._events[node]

    def turn(self) -> None:
        self._loop.run_until_complete(asyncio.sleep(0))

    def close(self) -> None:
        self._loop.close()


class RealGroup:
    """Namespaces, a real engine in each, and a member process."""

    real = True
    died: str
    engine: str

    def __init__(self) -> None:
        layout = Layout.of(f"c{os.getpid()}", nodes=len(NODES), vips=1, engine=self.engine, detection="1s")
        self.lab = Lab.create(layout, ephemeral=True)
        self._names = dict(zip(NODES, self.lab.layout.nodes, strict=True))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._events: dict[int, list[Said]] = {n: [] for n in NODES}
        self.records: dict[int, list[Said]] = {n: [] for n in NODES}
        self._tails: dict[int, bytes] = {}
        self._watch = selectors.DefaultSelector()

    def start(self, node: int) -> None:
        name = self._names[node]
        addresses = [f"10.77.0.{n}" for n in NODES]
        root = str(Path(__file__).parents[2])
        env = self.lab.environment()
        process = subprocess.Popen(
            self.lab._command(name, sys.executable, "-m", "tests.engine.member", self.engine, str(node), *addresses),
            env={**env, "PYTHONPATH": f"{root}:{env['PYTHONPATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._watch.register(process.stdout, selectors.EVENT_READ, node)
        self._processes[node] = process
        self._tails[node] = b""

    def _tell(self, node: int, command: Said) -> None:
        pipe = self._processes[node].stdin
        assert pipe is not None
        pipe.write(json.dumps(command).encode() + b"\n")
        pipe.flush()

    def multicast(self, node: int, *payloads: bytes) -> None:
        self._tell(node, {"do": "multicast", "payloads": [p.decode("latin-1") for p in payloads]})

    def rejoin(self, node: int) -> None:
        self._tell(node, {"do": "rejoin"})

    def leave(self, node: int) -> None:
        self._tell(node, {"do": "leave"})

    def kill(self, node: int) -> None:
        self._processes[node].kill()

    def crash(self, node: int) -> None:
        self.lab.crash(self._names[node])

    def partition(self, *groups: tuple[int, ...]) -> None:
        if len(groups) == 1:
            self.lab.heal()
        else:
            self.lab.partition(*[[self._names[n] for n in g] for g in groups])

    def events(self, node: int) -> list[Said]:
        return self._events[node]

    def turn(self) -> None:
        for key, _ in self._watch.select(0.5):
            node: int = key.data
            content = os.read(key.fd, 1 << 20)
            if not content:
                self._watch.unregister(key.fileobj)
                continue
            *lines, self._tails[node] = (self._tails[node] + content).split(b"\n")
            for event in map(json.loads, lines):
                (self.records if "record" in event else self._events)[node].append(event)

    def close(self) -> None:
        self._watch.close()
        self.lab.down()
        for process in self._processes.values():
            process.wait()


class CorosyncGroup(RealGroup):
    """A private Corosync for each member, which the member starts."""

    engine = "corosync"
    died = "PROCESS_DIED"

    def kill_engine(self, node: int) -> None:
        pid = self.lab.corosync(self._names[node])
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def engine_pid(self, node: int) -> int | None:
        return self.lab.corosync(self._names[node])

    def exit_code(self, node: int) -> int:
        return self._processes[node].wait()


class SpreadGroup(RealGroup):
    """A Spread daemon on each host, as an init system would start it."""

    engine = "spread"
    died = "DISCONNECTED"

    def __init__(self) -> None:
        if shutil.which("spread") is None:
            pytest.skip("no `spread` on the PATH: its transcripts and the daemon in memory have to do")
        super().__init__()

    def start(self, node: int) -> None:
        self.lab.start_spread(self._names[node])
        super().start(node)

    def kill_engine(self, node: int) -> None:
        pid = self.lab.spread(self._names[node])
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def restart_engine(self, node: int) -> None:
        self.lab.start_spread(self._names[node])


ENGINES: dict[str, Callable[[], Group]] = {"memory": MemoryGroup, "corosync": CorosyncGroup, "spread": SpreadGroup}


@pytest.fixture(params=["memory", *(pytest.param(e, marks=pytest.mark.lab) for e in ("corosync", "spread"))])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    found = ENGINES[request.param]()
    yield found
    found.close()


@pytest.fixture
def spread() -> Iterator[SpreadGroup]:
    found = SpreadGroup()
    yield found
    found.close()


@pytest.fixture
def corosync() -> Iterator[CorosyncGroup]:
    found = CorosyncGroup()
    yield found
    found.close()


def until(group: Group, fact: Callable[[], bool], story: str) -> None:
    end = time.monotonic() + WITHIN_SECONDS
    while not fact():
        assert time.monotonic() < end, f"not within {WITHIN_SECONDS} s: {story}; {last_views(group)}"
        group.turn()


def last_views(group: Group) -> dict[int, object]:
    return {n: [e for e in group.events(n) if "payload" not in e][-3:] for n in NODES}


def views(group: Group, node: int) -> list[Said]:
    return [e for e in group.events(node) if "view" in e]


def members(group: Group, node: int) -> list[int]:
    found = views(group, node)
    return list(found[-1]["members"]) if found else []


def together(group: Group, *nodes: int) -> None:
    """Wait until these are the members of one view."""

    def fact() -> bool:
        if any(members(group, n) != sorted(nodes) for n in nodes):
            return False
        return len({tuple(views(group, n)[-1]["view"]) for n in nodes}) == 1

    until(group, fact, f"{nodes} are together")


def payloads(group: Group, node: int) -> list[tuple[int, str]]:
    return [(e["sender"], e["payload"]) for e in group.events(node) if "payload" in e]


def all_three(group: Group) -> None:
    for node in NODES:
        group.start(node)
    together(group, *NODES)


def test_members_come_together_in_views_with_equal_ids(group: Group) -> None:
    all_three(group)
    for node in NODES:
        first, second = group.events(node)[:2]
        assert first["joined"][0] == node
        assert node in second["members"]
        assert list(second["came"]) == list(second["members"])
    check_view_ids(group)
    incarnations = {group.events(n)[0]["joined"][1] for n in NODES}
    assert len(incarnations) == 3


def check_view_ids(group: Group) -> None:
    """A view's id is never used for two views, at no member twice, and means the same members everywhere."""
    meaning: dict[tuple[int, ...], list[int]] = {}
    for node in NODES:
        ids = [tuple(v["view"]) for v in views(group, node)]
        assert len(set(ids)) == len(ids), (node, ids)
        for view in views(group, node):
            known = meaning.setdefault(tuple(view["view"]), view["members"])
            assert list(known) == list(view["members"])


def test_everybody_gets_the_same_messages_in_the_same_order(group: Group) -> None:
    all_three(group)
    for round_ in range(5):
        for node in NODES:
            group.multicast(node, *[f"{node}/{round_}/{i}".encode() for i in range(20)])
    until(group, lambda: all(len(payloads(group, n)) == 300 for n in NODES), "all is delivered")
    first = payloads(group, NODES[0])
    assert len(set(first)) == 300
    for node in NODES[1:]:
        assert payloads(group, node) == first
    for node in NODES:
        assert [p for s, p in first if s == node] == [f"{node}/{r}/{i}" for r in range(5) for i in range(20)]


def test_the_largest_payload_arrives_whole_and_a_larger_one_is_refused(group: Group) -> None:
    all_three(group)
    whole = bytes(itertools.islice(itertools.cycle(range(251)), PAYLOAD_BYTES_MAX))
    group.multicast(NODES[0], whole)
    until(group, lambda: all(payloads(group, n) for n in NODES), "it is delivered")
    for node in NODES:
        assert payloads(group, node)[0][1].encode("latin-1") == whole
    engine = MemoryEngine(Network(), NodeId(1), [])
    with pytest.raises(ValueError, match="larger than"):
        engine.multicast(b"x" * (PAYLOAD_BYTES_MAX + 1))


def test_a_host_that_dies(group: Group) -> None:
    all_three(group)
    group.crash(NODES[0])
    together(group, *NODES[1:])
    for node in NODES[1:]:
        last = views(group, node)[-1]
        assert last["left"] == [[NODES[0], "HOST_LOST"]]
        assert list(last["came"]) == []
        assert last["direct"]
    check_view_ids(group)


def test_a_process_that_dies(group: Group) -> None:
    all_three(group)
    group.kill(NODES[1])
    together(group, NODES[0], NODES[2])
    for node in (NODES[0], NODES[2]):
        last = views(group, node)[-1]
        assert last["left"] == [[NODES[1], group.died]]
        assert last["direct"]
    group.start(NODES[1])
    together(group, *NODES)
    assert NODES[1] in views(group, NODES[0])[-1]["came"]
    check_view_ids(group)


def test_saying_goodbye(group: Group) -> None:
    all_three(group)
    group.leave(NODES[2])
    until(group, lambda: "done" in group.events(NODES[2])[-1], "it has left")
    together(group, *NODES[:2])
    for node in NODES[:2]:
        reasons = [v["left"] for v in views(group, node) if v["left"]]
        assert reasons[0] == [[NODES[2], "LEFT"]]
    assert group.events(NODES[2])[-1] == {"done": True}


def test_joining_again_is_a_new_incarnation(group: Group) -> None:
    all_three(group)
    group.rejoin(NODES[0])
    until(group, lambda: sum("joined" in e for e in group.events(NODES[0])) == 2, "it is a member again")
    together(group, *NODES)
    mine = group.events(NODES[0])
    assert any("lost" in e for e in mine)
    old, new = (e["joined"][1] for e in mine if "joined" in e)
    assert old != new
    later = [v for v in views(group, NODES[1]) if NODES[0] in v["came"]]
    assert later
    check_view_ids(group)


def test_a_partition_and_a_merge(group: Group) -> None:
    all_three(group)
    group.partition((NODES[0],), NODES[1:])
    together(group, NODES[0])
    together(group, *NODES[1:])
    assert sorted(n for n, _ in views(group, NODES[0])[-1]["left"]) == list(NODES[1:])
    group.multicast(NODES[0], b"alone")
    group.multicast(NODES[1], b"both")
    until(group, lambda: bool(payloads(group, NODES[0]) and payloads(group, NODES[2])), "each side hears itself")
    group.partition(NODES)
    together(group, *NODES)
    assert set(NODES[1:]) <= set(views(group, NODES[0])[-1]["came"])
    assert NODES[0] in views(group, NODES[1])[-1]["came"]
    assert (NODES[0], "alone") not in payloads(group, NODES[1])
    assert (NODES[1], "both") not in payloads(group, NODES[0])
    check_view_ids(group)


def test_who_goes_together_into_a_direct_view_has_delivered_the_same(group: Group) -> None:
    all_three(group)
    for node in NODES:
        group.multicast(node, *[f"{node}:{i}".encode() for i in range(200)])
    group.crash(NODES[0])
    together(group, *NODES[1:])
    group.multicast(NODES[1], b"last")
    until(group, lambda: all((NODES[1], "last") in payloads(group, n) for n in NODES[1:]), "the last one is delivered")
    one, other = (by_view(group, n) for n in NODES[1:])
    common = [v for v in one if v in other]
    assert len(common) >= 2
    for view in common:
        assert one[view] == other[view]


def by_view(group: Group, node: int) -> dict[tuple[int, ...], list[str]]:
    found: dict[tuple[int, ...], list[str]] = {}
    current: list[str] = []
    for event in group.events(node):
        if "view" in event:
            current = found.setdefault(tuple(event["view"]), [])
        elif "payload" in event:
            current.append(event["payload"])
    return found


def test_nothing_is_sent_before_the_first_view_and_nothing_breaks() -> None:
    engine = MemoryEngine(Network(), NodeId(1), [])
    engine.multicast(b"into the void")


@pytest.mark.lab
def test_when_corosync_dies_everything_is_dropped_and_it_is_started_again(corosync: CorosyncGroup) -> None:
    all_three(corosync)
    before = corosync.engine_pid(NODES[0])
    corosync.kill_engine(NODES[0])
    until(corosync, lambda: sum("joined" in e for e in corosync.events(NODES[0])) > 1, "it is a member again")
    together(corosync, *NODES)
    assert any("lost" in e for e in corosync.events(NODES[0]))
    mine = corosync.events(NODES[0])
    incarnations = [e["joined"][1] for e in mine if "joined" in e]
    assert len(set(incarnations)) == len(incarnations) >= 2
    assert corosync.engine_pid(NODES[0]) not in (None, before)
    check_view_ids(corosync)


@pytest.mark.lab
def test_corosync_outlives_its_daemon_and_is_adopted(corosync: CorosyncGroup) -> None:
    all_three(corosync)
    before = corosync.engine_pid(NODES[0])
    corosync.kill(NODES[0])
    together(corosync, *NODES[1:])
    assert corosync.engine_pid(NODES[0]) == before
    corosync.start(NODES[0])
    together(corosync, *NODES)
    assert corosync.engine_pid(NODES[0]) == before
    corosync.leave(NODES[0])
    until(corosync, lambda: "done" in corosync.events(NODES[0])[-1], "it has left")
    assert corosync.engine_pid(NODES[0]) is None


@pytest.mark.lab
def test_a_corosync_that_stands_still_does_not_stop_the_loop(corosync: CorosyncGroup) -> None:
    one, other = NODES[:2]
    for node in (one, other):
        corosync.start(node)
    together(corosync, one, other)
    stopped = {node: corosync.engine_pid(node) for node in (one, other)}
    for node, pid in stopped.items():
        assert pid is not None
        corosync.kill(node)
        os.kill(pid, signal.SIGSTOP)
        corosync.start(node)
    corosync.leave(other)
    until(corosync, lambda: "done" in corosync.events(other)[-1], "who is to leave at once can")
    assert corosync.exit_code(other) == 0
    silent = {"record": "engine_unreachable", "reason": "Corosync runs and does not answer"}
    until(corosync, lambda: silent in corosync.records[one], "the loop says that it is silent")
    os.kill(stopped[one] or 0, signal.SIGCONT)
    until(corosync, lambda: sum("joined" in e for e in corosync.events(one)) > 1, "it answers, and one has joined")
    assert corosync.engine_pid(one) == stopped[one]


@pytest.mark.lab
def test_its_files_are_private(corosync: CorosyncGroup) -> None:
    corosync.start(NODES[0])
    together(corosync, NODES[0])
    folder = corosync.lab.home / "a/run/wackamole/corosync"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("corosync.conf", "authkey", "running.json"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.lab
def test_when_a_spread_daemon_dies_its_member_is_lost_and_comes_back_with_it(spread: SpreadGroup) -> None:
    all_three(spread)
    spread.kill_engine(NODES[0])
    until(spread, lambda: any("lost" in e for e in spread.events(NODES[0])), "its member says so")
    together(spread, *NODES[1:])
    assert views(spread, NODES[1])[-1]["left"] == [[NODES[0], "HOST_LOST"]]
    assert views(spread, NODES[1])[-1]["direct"]
    spread.restart_engine(NODES[0])
    together(spread, *NODES)
    incarnations = [e["joined"][1] for e in spread.events(NODES[0]) if "joined" in e]
    assert len(set(incarnations)) == 2
    check_view_ids(spread)


@pytest.mark.lab
def test_a_spread_daemon_that_is_restarted_before_anybody_noticed(spread: SpreadGroup) -> None:
    all_three(spread)
    before = len(views(spread, NODES[1]))
    spread.kill_engine(NODES[0])
    until(spread, lambda: any("lost" in e for e in spread.events(NODES[0])), "its member says so")
    spread.restart_engine(NODES[0])
    until(spread, lambda: sum("joined" in e for e in spread.events(NODES[0])) > 1, "it is a member again")
    together(spread, *NODES)
    assert NODES[0] in {n for v in views(spread, NODES[1])[before:] for n in v["came"]}
    check_view_ids(spread)
