"""Exactly one, whatever freezes, dies or splits: real daemons, real Corosync, real nftables, an observer on the wire. How fast
it all goes is the benchmark's business (`script/bench --only fence`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wackamole.client import Refused
from wackamole.lab.lab import Lab
from wackamole.lab.namespaces import ip, tool
from wackamole.lab.probe import Probe, Seen
from wackamole.shell.kernel.nfnetlink import HIGH_DESCRIPTOR

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]
STALL_SECONDS = 0.4
"""The machine itself may stand still for half of this; without being served on, a restart takes more."""
EAGER = '[balance]\ninterval = "1s"\nsettle = "2s"\n'
STRICT = EAGER + '[fence]\ntakeover = "strict"\n'


def up(make_lab: MakeLab, **options: object) -> Lab:
    options.setdefault("settings", EAGER)
    lab = make_lab(**options)
    lab.start_all()
    lab.until_settled()
    return lab


def watched(lab: Lab, trouble: Callable[[], object]) -> Seen:
    """What client and observer saw, from a time when all is well to a time when all is well again."""
    with Probe(lab, interval_ms=10) as probe:
        lab.until(
            lambda: len(probe.silent) == len(lab.layout.vips) and not any(probe.silent.values()),
            within_s=20,
            story="the client reaches every VIP",
        )
        trouble()
        lab.until(lambda: not any(probe.silent.values()), within_s=30, story="every VIP answers again")
        return probe.stop()


def events(lab: Lab, node: str, what: str) -> list[dict[str, object]]:
    return [e for e in lab.records(node) if e["event"] == what]


def tables(lab: Lab, node: str) -> set[str]:
    listed = tool("ip", "netns", "exec", lab.layout.namespace(node), "nft", "list", "tables")
    return {line.split()[-1] for line in listed.splitlines()}


def taken_over(lab: Lab) -> None:
    lab.until_settled(("a", "c"))


def test_hazard_05_the_owner_of_the_fence_closes_before_the_engine(make_lab: MakeLab) -> None:
    lab = up(make_lab, nodes=1, vips=1)
    status = lab.ask("a", "status")
    assert status["fence"]["proven"] is True
    pid = lab.daemon("a")
    high = [n for n in map(int, (entry.name for entry in Path(f"/proc/{pid}/fd").iterdir())) if n >= HIGH_DESCRIPTOR]
    assert len(high) == 1, "one descriptor stands above all others: the owner's"


def test_a_killed_daemon_leaves_no_second_owner_and_no_address(make_lab: MakeLab) -> None:
    lab = up(make_lab)

    def trouble() -> None:
        lab.kill_daemon("b")
        taken_over(lab)

    seen = watched(lab, trouble)
    assert not any(seen.two_owners.values())
    lab.until(lambda: not lab.kernel("b"), within_s=5, story="the guard has removed what was left")
    assert tables(lab, "b") == {"wackamole_gate"}, "the gate stays, the key is gone"


def test_a_firewalls_reload_after_a_kill_opens_nothing(make_lab: MakeLab) -> None:
    lab = up(make_lab)

    def trouble() -> None:
        lab.kill_daemon("b")
        taken_over(lab)
        lab.until(lambda: not lab.kernel("b"), within_s=5, story="the guard has removed what was left")
        lab.flush_rules("b")
        lab.start("b")
        lab.until_settled()

    assert not any(watched(lab, trouble).two_owners.values())


@pytest.mark.parametrize("settings", [EAGER, STRICT], ids=["fast", "strict"])
def test_a_frozen_daemon_is_dark_evicted_and_comes_back_as_a_newcomer(make_lab: MakeLab, settings: str) -> None:
    lab = up(make_lab, settings=settings)

    def trouble() -> None:
        lab.freeze("b", "daemon")
        lab.until(
            lambda: all(lab.holders(a) & {"a", "c"} for _, a in lab.layout.vips),
            within_s=30,
            story="the others have everything",
        )
        lab.thaw("b", "daemon")
        lab.until(lambda: bool(events(lab, "b", "paused")), within_s=20, story="b notices that it stood still")
        lab.until_settled()

    seen = watched(lab, trouble)
    assert not any(seen.two_owners.values())
    assert events(lab, "a", "evict")


@pytest.mark.parametrize("what", ["corosync", "all"])
def test_a_frozen_engine_or_host_is_waited_for_when_that_is_asked_for(make_lab: MakeLab, what: str) -> None:
    lab = up(make_lab, settings=STRICT)

    def trouble() -> None:
        lab.freeze("b", what)
        lab.until(
            lambda: all(lab.holders(a) & {"a", "c"} for _, a in lab.layout.vips),
            within_s=30,
            story="the others have everything",
        )
        lab.thaw("b", what)
        lab.until_settled()

    assert not any(watched(lab, trouble).two_owners.values())


def test_a_killed_corosync_darkens_its_node_before_anybody_takes_over(make_lab: MakeLab) -> None:
    lab = up(make_lab)

    def trouble() -> None:
        lab.kill_corosync("b")
        lab.until(lambda: bool(events(lab, "a", "moved")), within_s=30, story="the others take over")
        lab.until_settled()

    assert not any(watched(lab, trouble).two_owners.values())


def test_a_cable_is_pulled_and_plugged_in_again(make_lab: MakeLab) -> None:
    lab = up(make_lab)

    def trouble() -> None:
        lab.cut("b")
        taken_over(lab)
        lab.until(lambda: not lab.kernel("b"), within_s=20, story="b has let go")
        lab.plug("b")
        lab.until_settled()
        lab.until(lambda: bool(lab.kernel("b")), within_s=60, story="b has its share again")

    assert not any(watched(lab, trouble).two_owners.values())


def test_a_carrier_that_came_back_does_not_count_at_once(make_lab: MakeLab) -> None:
    lab = up(make_lab, settings=EAGER + '[fence]\nlink_up_delay = "60s"\n')
    lab.cut("b")
    taken_over(lab)
    lab.plug("b")
    lab.until(
        lambda: [m["name"] for m in lab.ask("a", "status")["view"]["members"]] == ["a", "b", "c"],
        within_s=30,
        story="b is a member again",
    )

    def reasons() -> list[str]:
        return next(list(m["reasons"]) for m in lab.ask("a", "status")["view"]["members"] if m["name"] == "b")

    lab.until(
        lambda: reasons() == ["the interface's carrier came back only now"],
        within_s=20,
        story="everybody knows that b's carrier is fresh",
    )
    assert not lab.kernel("b")


def test_with_a_second_network_the_vips_of_a_dead_interface_move_and_nobody_leaves(make_lab: MakeLab) -> None:
    lab = up(make_lab, rings=2)
    view = lab.ask("a", "status")["view"]["id"]

    def trouble() -> None:
        ip("link set b.0 down", namespace=lab.layout.namespace("switch"))
        lab.until(lambda: not lab.kernel("b"), within_s=20, story="b has let go")
        lab.until(
            lambda: all(lab.holders(a) & {"a", "c"} for _, a in lab.layout.vips), within_s=20, story="others have them"
        )

    seen = watched(lab, trouble)
    assert not any(seen.two_owners.values())
    assert lab.ask("a", "status")["view"]["id"] == view


def test_under_majority_a_split_never_has_two_owners(make_lab: MakeLab) -> None:
    lab = up(make_lab, cluster='partition = "majority"')

    def trouble() -> None:
        lab.partition(["b"], ["a", "c"])
        taken_over(lab)
        lab.until(lambda: not lab.kernel("b"), within_s=20, story="b has let go")
        lab.heal()
        lab.until_settled()

    assert not any(watched(lab, trouble).two_owners.values())


def test_a_firewalls_reload_on_a_healthy_owner_interrupts_nothing(make_lab: MakeLab) -> None:
    lab = up(make_lab)
    before = lab.kernel("b")

    def trouble() -> None:
        for _ in range(3):
            lab.flush_rules("b")
        rules = "table inet site {\nchain input {\ntype filter hook input priority 0\ncounter\n}\n}\n"
        tool("ip", "netns", "exec", lab.layout.namespace("b"), "nft", "-f", "-", text=rules)
        lab.until(
            lambda: tables(lab, "b") == {"wackamole_gate", "wackamole_key", "site"}, within_s=10, story="all are there"
        )

    seen = watched(lab, trouble)
    assert not any(seen.two_owners.values())
    assert lab.kernel("b") == before
    assert lab.ask("b", "status")["fence"]["proven"] is True


def test_a_planned_restart_interrupts_nothing_and_moves_nothing(make_lab: MakeLab) -> None:
    lab = up(make_lab)
    before = {n: lab.kernel(n) for n in lab.layout.nodes}

    def trouble() -> None:
        command = lab._command("b", sys.executable, "-m", "wackamole", "restart", "--within", "30s")
        done = subprocess.run(command, env=lab.environment(), capture_output=True, text=True, check=True)
        assert "2 VIPs served on" in done.stdout
        lab.until_settled()

    seen = watched(lab, trouble)
    assert not any(seen.two_owners.values())
    assert not seen.interrupted(0, longer_than_s=STALL_SECONDS)
    assert {n: lab.kernel(n) for n in lab.layout.nodes} == before
    assert lab.ask("b", "status")["process"]["restarts"] == 1
    assert not events(lab, "a", "evict")


def test_a_restart_that_could_not_end_well_is_refused(make_lab: MakeLab) -> None:
    lab = up(make_lab, nodes=1)
    with pytest.raises(Refused, match="from 1 to 60 seconds"):
        lab.ask("a", "restart", {"within_ms": 100})
    (lab.home / "a/run/wackamole.toml").write_text('[cluster]\nname = "x y"\n')
    with pytest.raises(Refused, match=r"the new process could not start: .*cluster\.name"):
        lab.ask("a", "restart", {"within_ms": 5000})
    assert lab.ask("a", "status")["process"]["restarts"] == 0


def test_a_second_daemon_on_a_host_is_refused_and_takes_nothing_from_the_first(make_lab: MakeLab) -> None:
    lab = up(make_lab, nodes=1)
    before = lab.kernel("a")
    command = [sys.executable, "-m", "wackamole.shell.daemon", "--config", "/run/wackamole.toml", "--node", "a"]
    second = subprocess.run(
        lab._command("a", *command), env=lab.environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert second.returncode == 1
    assert "another daemon listens" in second.stderr
    assert lab.kernel("a") == before
    assert tables(lab, "a") == {"wackamole_gate", "wackamole_key"}


def test_an_interface_that_is_gone_and_back_keeps_its_vips(make_lab: MakeLab) -> None:
    lab = up(make_lab, rings=2)
    before = lab.kernel("b")
    assert before
    here = lab.layout.namespace("b")
    mac = lab.macs()["b"]
    ip(
        "link del eth0",
        f"link add eth0 address {mac} type veth peer name b.0 netns {lab.layout.namespace('switch')}",
        "addr add 10.77.0.12/16 dev eth0",
        "addr add fd77::12/64 dev eth0 nodad",
        "link set eth0 up",
        namespace=here,
    )
    ip("link set b.0 master br0 up", namespace=lab.layout.namespace("switch"))
    lab.until(lambda: lab.kernel("b") == before, within_s=20, story="they are put back")
    lab.until_settled()
    assert lab.kernel("b") == before


def test_without_nftables_the_lifetime_of_addresses_is_the_fence(make_lab: MakeLab) -> None:
    lab = up(make_lab, settings=EAGER + '[fence]\nmode = "lifetime"\n')
    assert tables(lab, "b") == set()
    listed = tool("ip", "-n", lab.layout.namespace("b"), "addr", "show", "dev", "eth0")
    assert "valid_lft 3sec" in listed or "valid_lft 2sec" in listed

    def trouble() -> None:
        lab.freeze("b", "daemon")
        lab.until(
            lambda: all(lab.holders(a) & {"a", "c"} for _, a in lab.layout.vips),
            within_s=60,
            story="the others have everything",
        )
        assert not lab.kernel("b"), "the kernel has removed what nobody renewed"
        lab.thaw("b", "daemon")
        lab.until_settled()

    assert not any(watched(lab, trouble).two_owners.values())


def test_without_any_fence_that_is_loud(make_lab: MakeLab) -> None:
    lab = up(make_lab, settings='fence = "off"\n' + EAGER)
    status = lab.ask("a", "status")
    assert status["fence"]["mode"] == "off"
    assert any("no fence" in w for w in status["warnings"])
    lab.kill_daemon("b")
    taken_over(lab)
    assert not lab.kernel("b"), "the guard removes what a dead daemon left, and the others wait for that"


def test_the_guard_ends_with_its_daemon_and_alone_it_is_missed(make_lab: MakeLab) -> None:
    lab = up(make_lab, nodes=1)
    pid = lab.daemon("a")
    children = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    guards = [p for p in children if "wackamole-guard" in Path(f"/proc/{p}/comm").read_text()]
    assert len(guards) == 1
    os.kill(guards[0], signal.SIGKILL)
    lab.until(lambda: any("guard" in w for w in lab.ask("a", "status")["warnings"]), within_s=10, story="that is told")
