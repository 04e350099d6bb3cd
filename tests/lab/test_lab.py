"""The whole thing, as users run it: real daemons, real Corosync, real kernels, a client. Facts are waited for; how fast
they come is the benchmark's business."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wackamole.client import NotReachable, Refused
from wackamole.config import ConfigError, load, parse
from wackamole.keys import write_new
from wackamole.lab.lab import LABS, Lab, Layout
from wackamole.lab.namespaces import NETNS, SHM, ip
from wackamole.lab.probe import Probe
from wackamole.shell.releases import TURN_SECONDS_MAX

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]
STALL_SECONDS = 0.4
"""The machine itself may stand still for half of this; a take-over takes the detection time, a second."""
EAGER = '[balance]\ninterval = "1s"\nsettle = "2s"\n'


@pytest.fixture
def three(make_lab: MakeLab) -> Lab:
    """Three nodes and six VIPs, settled."""
    lab = make_lab()
    lab.start_all()
    lab.until_settled()
    return lab


def shares(lab: Lab) -> dict[str, frozenset[str]]:
    return {node: lab.kernel(node) for node in lab.layout.nodes}


def events(lab: Lab, node: str, what: str) -> list[dict[str, Any]]:
    return [e for e in lab.records(node) if e["event"] == what]


def test_a_cold_start_shares_everything_out(three: Lab) -> None:
    found = shares(three)
    assert sorted(len(held) for held in found.values()) == [2, 2, 2]
    assert frozenset().union(*found.values()) == {a for _, a in three.layout.vips}


def test_no_thread_of_a_daemon_waits_behind_what_the_host_computes(three: Lab) -> None:
    """Else the loop, which runs before it, waits with it: they share one interpreter."""
    node = three.layout.nodes[0]
    if (three.status(node) or {})["process"]["scheduling"] != "rr":
        pytest.skip("this host does not grant real-time scheduling (RLIMIT_RTPRIO, or a container)")
    loop = three.daemon(node)
    threads = [int(task.name) for task in Path(f"/proc/{loop}/task").iterdir()]
    assert len(threads) > 2
    assert {os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK for tid in threads} == {os.SCHED_RR}
    priorities = {tid: os.sched_getparam(tid).sched_priority for tid in threads}
    assert max(priorities.values()) == priorities[loop] > min(priorities.values())


def test_a_cold_cluster_waits_for_its_members_before_it_gives_anything_out(make_lab: MakeLab) -> None:
    lab = make_lab(cluster='mature = "3s"')
    first, *rest = lab.layout.nodes
    lab.start(first)
    lab.until(lambda: (lab.status(first) or {}).get("phase") == "settled", within_s=60, story="the first is settled")
    status = lab.status(first)
    assert status is not None
    immature = [m for m in status["view"]["members"] if not m["mature"]]
    assert not immature or all(v["holder"] is None for v in status["vips"])
    lab.until(
        lambda: all(lab.holders(a) == {first} for _, a in lab.layout.vips), within_s=60, story="alone, it takes all"
    )
    for node in rest:
        lab.start(node)
    lab.until_settled()


def test_a_host_crashes_and_only_its_vips_are_interrupted(three: Lab) -> None:
    before = shares(three)
    with Probe(three, interval_ms=10) as probe:
        answered(three, probe)
        began = three.crash("b")
        three.until_settled(("a", "c"))
        seen = probe.stop()
    for node in ("a", "c"):
        assert before[node] <= three.kernel(node)
    assert seen.interrupted(began - 0.1, longer_than_s=STALL_SECONDS) <= before["b"]
    assert not any(seen.two_owners.values())
    causes = {
        v["cause"] for v in three.ask("a", "status")["vips"] if v["addresses"][0].partition("/")[0] in before["b"]
    }
    assert causes == {"its host was lost"}


def answered(lab: Lab, probe: Probe) -> None:
    """Wait until the client reaches everything."""
    lab.until(
        lambda: len(probe.silent) == len(lab.layout.vips) and not any(probe.silent.values()),
        within_s=20,
        story="the client reaches every VIP",
    )


def test_a_come_back_interrupts_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(settings=EAGER)
    lab.start_all()
    lab.until_settled()
    lab.crash("b")
    lab.until_settled(("a", "c"))
    before = shares(lab)
    with Probe(lab, interval_ms=10) as probe:
        answered(lab, probe)
        lab.start("b")
        lab.until(lambda: lab.settled() and len(lab.kernel("b")) == 2, within_s=60, story="b has its share again")
        seen = probe.stop()
    moved = lab.kernel("b")
    assert len(moved) == 2
    assert not any(seen.two_owners.values())
    for node in ("a", "c"):
        assert lab.kernel(node) == before[node] - moved


def test_a_daemon_that_leaves_hands_everything_over_first(three: Lab) -> None:
    before = shares(three)
    with Probe(three, interval_ms=10) as probe:
        answered(three, probe)
        began = three.stop("c")
        three.until_settled(("a", "b"))
        three.until(lambda: three._daemon("c") is None, within_s=30, story="its daemon has ended")
        seen = probe.stop()
    assert three.kernel("c") == frozenset()
    assert three.corosync("c") is None
    assert seen.interrupted(0, longer_than_s=STALL_SECONDS) <= before["c"]
    assert not any(seen.two_owners.values())
    log = three.log("c")
    assert "stopped reason=left" in log
    for node in ("a", "b"):  # the ring changes when they have what they were handed, however busy they are
        later = [e for what in ("view", "kernel") for e in events(three, node, what) if e["monotonic"] > began]
        view = next(e["monotonic"] for e in later if e["event"] == "view")
        taken = next(e["monotonic"] for e in later if e["event"] == "kernel" and e["added"] != "0")
        assert taken < view or view - began >= TURN_SECONDS_MAX


def test_the_last_one_leaves_too(make_lab: MakeLab) -> None:
    lab = make_lab(nodes=1)
    lab.start_all()
    lab.until_settled()
    lab.stop("a")
    lab.until(lambda: lab._daemon("a") is None, within_s=60, story="it has ended")
    assert lab.kernel("a") == frozenset()


def test_a_killed_daemons_vips_go_to_the_others_and_its_next_run_cleans_up(three: Lab) -> None:
    corosync = three.corosync("b")
    three.kill_daemon("b")
    three.until(
        lambda: all(three.holders(a) & {"a", "c"} for _, a in three.layout.vips),
        within_s=30,
        story="the others serve everything",
    )
    assert three.corosync("b") == corosync
    three.start("b")
    three.until_settled()
    assert three.corosync("b") == corosync
    status = three.status("b")
    assert status is not None
    assert status["engine"]["adopted"] == "yes"


def test_a_cable_is_pulled(three: Lab) -> None:
    before = shares(three)
    three.cut("a")
    three.until_settled(("b", "c"))
    three.until(lambda: not three.kernel("a"), within_s=30, story="a holds nothing without a carrier")
    status = three.status("a")
    assert status is not None
    mine = next(m for m in status["view"]["members"] if m["name"] == "a")
    assert mine["reasons"]
    assert not mine["eligible"]
    three.plug("a")
    three.until_settled()
    for node in ("b", "c"):
        assert before[node] <= three.kernel(node)


def test_each_side_of_a_partition_serves_everything_and_a_merge_leaves_one_owner(three: Lab) -> None:
    addresses = [a for _, a in three.layout.vips]
    three.partition(["a"], ["b", "c"])
    three.until_settled(("a",))
    three.until_settled(("b", "c"))
    assert three.kernel("a") == set(addresses)
    three.heal()
    three.until_settled()
    with Probe(three, interval_ms=10) as probe:
        answered(three, probe)
        seen = probe.stop()
    assert not any(seen.two_owners.values())
    assert {e["winner"] for n in three.layout.nodes for e in events(three, n, "conflict")}


def test_with_a_majority_policy_the_smaller_side_is_dark(make_lab: MakeLab) -> None:
    lab = make_lab(cluster='partition = "majority"')
    lab.start_all()
    lab.until_settled()
    lab.partition(["a"], ["b", "c"])
    lab.until_settled(("b", "c"))
    lab.until(lambda: not lab.kernel("a"), within_s=30, story="a drops everything")
    lab.heal()
    lab.until_settled()


def test_corosync_dies_and_its_node_comes_back_by_itself(three: Lab) -> None:
    before = three.corosync("a")
    three.kill_corosync("a")
    three.until(lambda: three.corosync("a") not in (None, before), within_s=60, story="it is started again")
    three.until_settled()
    assert events(three, "a", "engine_lost")
    assert events(three, "b", "moved")
    left = {path.name.removeprefix("qb-").removeprefix("corosync-").split("-")[0] for path in shared_memory(three, "a")}
    assert left == {str(three.corosync("a"))}  # 10 MB of the dead one


def shared_memory(lab: Lab, node: str) -> list[Path]:
    """What Corosyncs have in a node's /dev/shm."""
    return list((SHM / lab.layout.namespace(node)).glob("qb-*"))


def test_an_address_removed_behind_our_back_is_put_back(three: Lab) -> None:
    address = next(a for a in sorted(three.kernel("b")) if ":" not in a)
    ip(f"addr del {address}/32 dev eth0", namespace=three.layout.namespace("b"))
    three.until(lambda: address in three.kernel("b"), within_s=30, story="it is put back")
    three.until_settled()
    assert any(e["put_back"] == "yes" for e in events(three, "b", "kernel"))


def test_an_address_that_somebody_configured_by_hand_is_left_to_others(three: Lab) -> None:
    address = next(a for a in sorted(three.kernel("b")) if ":" not in a)
    three.stop("b")
    three.until_settled(("a", "c"))
    ip(f"addr add {address}/32 dev eth0", namespace=three.layout.namespace("b"))
    three.until(lambda: three._daemon("b") is None, within_s=30, story="b has ended")
    three.start("b")
    three.until(lambda: three.status("b") is not None, within_s=30, story="b answers")

    def told() -> bool:
        status = three.status("a")
        assert status is not None
        mine = [m for m in status["view"]["members"] if m["name"] == "b"]
        return bool(mine and mine[0]["reasons"])

    three.until(told, within_s=60, story="everybody knows that b cannot hold it")
    status = three.status("a")
    assert status is not None
    name = next(n for n, a in three.layout.vips if a == address)
    holder = next(v["holder"] for v in status["vips"] if v["name"] == name)
    assert holder in ("a", "c")


def test_two_hundred_vips(make_lab: MakeLab) -> None:
    lab = make_lab(vips=200)
    lab.start_all()
    lab.until_settled(within_s=90)
    assert sorted(len(held) for held in shares(lab).values()) == [66, 67, 67]
    lab.crash("a")
    lab.until_settled(("b", "c"), within_s=90)
    assert sorted(len(lab.kernel(n)) for n in ("b", "c")) == [100, 100]


def test_two_rings_a_cut_of_one_changes_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(rings=2)
    lab.start_all()
    lab.until_settled()
    view = lab.ask("a", "status")["view"]["id"]
    ip("link set b.1 down", namespace=lab.layout.namespace("switch"))
    lab.crash("c")
    lab.until_settled(("a", "b"))
    seen = [e["id"] for e in events(lab, "a", "view")]
    assert len(seen[seen.index(view) :]) == 2


def test_an_operator_moves_drains_and_resumes(make_lab: MakeLab) -> None:
    lab = make_lab(settings=EAGER)
    lab.start_all()
    lab.until_settled()
    name, address = lab.layout.vips[0]
    (source,) = lab.holders(address)
    to = next(n for n in lab.layout.nodes if n != source)
    assert lab.ask("c", "move", {"vips": [name], "node": to})["moved"] == [name]
    lab.until(lambda: lab.holders(address) == {to}, within_s=30, story=f"{to} has it")
    lab.until_settled()
    done = lab.ask(source, "drain", {"node": to})
    assert done["vips_moved"] >= 1
    assert lab.kernel(to) == frozenset()
    with pytest.raises(Refused, match="drained"):
        lab.ask("a", "move", {"vips": [name], "node": to})
    lab.ask(source, "resume", {"node": to})
    lab.until(lambda: lab.settled() and len(lab.kernel(to)) == 2, within_s=60, story=f"{to} has its share again")
    wrongs: list[dict[str, object]] = [{"vips": ["nothing"], "node": "a"}, {"vips": [name], "node": "z"}, {"vips": []}]
    for wrong in wrongs:
        with pytest.raises(Refused):
            lab.ask("a", "move", wrong)


def test_a_rolling_change_of_the_config_keeps_every_address_up(three: Lab) -> None:
    """Hazards 8 and 9: for a while the nodes have different files; a VIP is renamed and one is added."""
    old = three.layout.config
    new = (
        old.replace('name = "v1"', 'name = "www"') + '[[vip]]\nname = "v9"\naddress = "10.77.9.9"\ninterface = "eth0"\n'
    )
    for node in three.layout.nodes:
        three.stop(node)
        three.until(lambda node=node: three._daemon(node) is None, within_s=30, story=f"{node} has ended")  # type: ignore[misc]
        rest = [n for n in three.layout.nodes if n != node]
        three.until(
            lambda rest=rest: all(len(three.holders(a) & set(rest)) == 1 for _, a in three.layout.vips),  # type: ignore[misc]
            within_s=30,
            story="every address is served by one",
        )
        three.start(node, new)
        three.until(
            lambda node=node: (three.status(node) or {}).get("phase") == "settled",  # type: ignore[misc]
            within_s=60,
            story=f"{node} is back",
        )
    three.until_settled()
    status = three.ask("a", "status")
    assert {v["name"] for v in status["vips"]} >= {"www", "v9"}
    assert "v1" not in {v["name"] for v in status["vips"]}


def test_another_corosync_on_the_host_is_noticed_and_both_remedies_named(make_lab: MakeLab) -> None:
    lab = make_lab(nodes=1)
    lab.start_all()
    lab.until_settled()
    lab.kill_daemon("a")
    (lab.home / "a/run/wackamole/corosync/running.json").unlink()  # now it is anybody's
    lab.start("a")
    lab.until(lambda: lab._daemon("a") is None, within_s=30, story="the daemon refuses to start")
    assert lab._children["a"].wait() == 1
    said = lab.log("a")
    assert "another Corosync runs on this host" in said
    assert "systemctl disable --now corosync" in said
    assert "managed = false" in said


def test_it_joins_the_hosts_own_corosync(make_lab: MakeLab) -> None:
    lab = make_lab(nodes=2)
    lab.start_all()
    lab.until_settled()
    for node in lab.layout.nodes:
        lab.kill_daemon(node)
        (lab.home / node / "run/wackamole/corosync/running.json").rename(lab.home / node / "its-own.json")
    pids = [json.loads((lab.home / n / "its-own.json").read_text())["pid"] for n in lab.layout.nodes]
    for node in lab.layout.nodes:
        lab.start(node, lab.layout.config.replace("[engine]\n", "[engine]\nmanaged = false\n"))
    lab.until_settled()
    lab.stop("a")
    lab.until(lambda: lab._daemon("a") is None, within_s=30, story="a has ended")
    os.kill(pids[0], 0)  # it is not ours to stop


def test_the_command_line_against_a_running_cluster(three: Lab) -> None:
    def wackamole(*arguments: str) -> str:
        command = three._command("a", sys.executable, "-m", "wackamole", *arguments)
        done = subprocess.run(command, env=three.environment(), capture_output=True, text=True, check=True)
        return done.stdout

    text = wackamole("status")
    for name, address in three.layout.vips:
        assert name in text
        assert address in text
    assert json.loads(wackamole("status", "--json"))["phase"] == "settled"
    assert "view" in wackamole("events")
    assert "drained" in wackamole("drain", "b")
    assert "may hold VIPs again" in wackamole("resume", "b")
    assert "leaves" in wackamole("leave")
    three.until_settled(("b", "c"))


def test_a_lab_leaves_nothing_behind_not_even_when_it_is_killed() -> None:
    name = f"k{os.getpid()}"
    code = (
        "import sys; from wackamole.lab.lab import Lab, Layout\n"
        f"lab = Lab.create(Layout.of({name!r}, nodes=2, detection='1s'), ephemeral=True); lab.start_all()\n"
        "lab.until_settled(); print('up', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], env=Lab.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    lab = Lab.open(name)
    pids = [lab.daemon(n) for n in lab.layout.nodes] + [lab.corosync(n) for n in lab.layout.nodes]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert list(NETNS.glob(f"wl-{name}-*"))
    with Lab.create(Layout.of(f"{name}-b", nodes=1, vips=1), ephemeral=True):
        assert not list(NETNS.glob(f"wl-{name}-[a-z]*")) or all(
            p.name.startswith(f"wl-{name}-b-") for p in NETNS.glob(f"wl-{name}-*")
        )
        assert not (LABS / name).exists()
        end = time.monotonic() + 10
        while any(pid is not None and _runs(pid) for pid in pids):
            assert time.monotonic() < end
    assert not list(NETNS.glob(f"wl-{name}*"))


def _runs(pid: int) -> bool:
    from wackamole.engine.corosync.managed import start_time

    return start_time(pid) is not None


def test_the_demo_keeps_its_promises(tmp_path: Any) -> None:
    picture = tmp_path / "demo.svg"
    done = subprocess.run(
        [sys.executable, "-m", "wackamole", "demo", "--json", "--detection", "1s", "--picture", str(picture)],
        env=Lab.environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kept"]
    assert found["two_owners_ms"] == 0
    assert [s["what"].split()[-1] for s in found["steps"]] == ["crashes", "back", "balanced", "drained"]
    assert picture.read_text().startswith("<svg")


def test_a_bug_ends_the_daemon_and_leaves_no_address(make_lab: MakeLab) -> None:
    """Whatever was not expected ends it: nothing goes on on a state that may be wrong, and systemd starts it anew."""
    lab = make_lab(settings=EAGER)
    lab.start_all()
    lab.until_settled()
    broken = (
        "import wackamole.shell.daemon as d\n"
        "plain = d.step\n"
        "def step(state, event, now):\n"
        "    if isinstance(event, d.ev.BalanceRequested): raise AssertionError('a bug')\n"
        "    return plain(state, event, now)\n"
        "d.step = step\n"
        "d.main()\n"
    )
    lab.stop("b")
    lab.until_settled(("a", "c"))
    lab.until(lambda: lab._daemon("b") is None, within_s=30, story="b has ended")
    config = lab.home / "b/run/wackamole.toml"
    config.write_text(lab.layout.config)
    with (lab.home / "daemon-with-a-bug.log").open("wb") as log:
        daemon = subprocess.Popen(
            lab._command("b", sys.executable, "-c", broken, "--config", "/run/wackamole.toml", "--node", "b"),
            env=lab.environment(),
            stdout=log,
            stderr=log,
        )
        lab.until(
            lambda: bool(lab.kernel("b")) and lab.settled(), within_s=60, story="b is a member and holds something"
        )
        with pytest.raises(NotReachable, match="without an answer"):
            lab.ask("b", "balance")
        assert daemon.wait(30) == 1
    assert lab.kernel("b") == frozenset()
    assert "a bug" in (lab.home / "daemon-with-a-bug.log").read_text()
    lab.until_settled(("a", "c"))


def test_the_readmes_example_works_as_it_stands(make_lab: MakeLab, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    found = re.search(r"```toml\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    key = tmp_path / "web.key"
    write_new(key)
    file = tmp_path / "wackamole.toml"
    file.write_text(found[1].replace("/etc/wackamole/web.key", str(key)))
    lab = make_lab(config=file)
    lab.start_all()
    lab.until_settled()
    assert {a for _, a in lab.layout.vips} == {"10.0.0.101", "10.0.0.102", "10.0.0.103"}
    with Probe(lab, interval_ms=50) as probe:
        answered(lab, probe)
        probe.stop()


def test_a_lab_of_a_file_has_all_that_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "wackamole.toml"
    file.write_text("""
fence = "off"
balance = { interval = "7s", by = "count" }
[cluster]
name = "web"
[control]
socket = "/nowhere/control.sock"
[engine]
detection = "400ms"
[notify]
hosts = ["192.0.2.1", { address = "192.0.2.0/24", interface = "public", throttle = 5 }]
[[node]]
name = "a"
address = "192.0.2.11"
interfaces = { public = "eno1" }
votes = 2
[[node]]
name = "b"
address = "192.0.2.12"
[[vip]]
address = "192.0.2.20"
[[vip]]
name = "gw"
addresses = [{ address = "192.0.2.21", interface = "public" }, { address = "2001:db8::1", interface = "eth7" }]
routes = ["default via 192.0.2.1 dev public table 100"]
rules = ["iif eth7 lookup 100", "from 192.0.2.21 lookup 100"]
prefer = ["b"]
[[hook]]
on = ["acquired"]
command = ["/bin/true", "a \\"word\\""]
""")
    given, made = load(file), parse(Layout.of("x", config=file).config)
    for part in ("cluster", "fence", "balance", "notify", "hooks"):
        assert getattr(made, part) == getattr(given, part), part
    assert (made.engine.detection_ms, made.control.socket) == (400, "/run/wackamole/control.sock")
    assert [(n.name, n.votes, n.addresses) for n in made.nodes] == [
        ("a", 2, ("10.77.0.11",)),
        ("b", 1, ("10.77.0.12",)),
    ]
    assert [(v.vip.name, v.prefer, v.routing) for v in made.vips] == [
        (v.vip.name, v.prefer, v.routing) for v in given.vips
    ]
    assert {dict(n.interfaces).get(a.interface, a.interface) for n in made.nodes for v in made.vips for a in v.vip.addresses} == {"eth0"}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"), [({"detection": "5"}, "duration"), ({"config": Path("/nowhere")}, "cannot")]
)
def test_a_lab_that_cannot_be_is_refused_before_anything_is_made(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Layout.of("x", **options)
