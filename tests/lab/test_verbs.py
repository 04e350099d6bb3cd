"""Everything an operator orders, with real daemons: it stays so, over restarts too, and is shown on every node."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wackamole.client import Refused, converse
from wackamole.lab.lab import Lab
from wackamole.lab.probe import Probe

pytestmark = pytest.mark.lab

EAGER = '[balance]\ninterval = "1s"\nsettle = "2s"\n'


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Three nodes and six VIPs, settled."""
    found = make_lab(settings=EAGER)
    found.start_all()
    found.until_settled()
    return found


def orders(lab: Lab, node: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (lab.status(node) or {"orders": []})["orders"]
    return found


def everywhere(lab: Lab, *wanted: tuple[str, str]) -> bool:
    """Whether every node shows exactly these orders: kind and subject."""
    return all(sorted((o["kind"], o["subject"]) for o in orders(lab, n)) == sorted(wanted) for n in lab.layout.nodes)


def held(lab: Lab, node: str) -> int:
    return len(lab.kernel(node))


def wackamole(lab: Lab, node: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("wackamole"))
    env = {**lab.environment(), "WACKAMOLE_SOCKET": "/run/wackamole/control.sock"}
    command = lab._command(node, program, *words)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_a_drain_is_kept_over_restarts_and_shown_everywhere(lab: Lab) -> None:
    done = wackamole(lab, "a", "drain", "c", "--wait", "--reason", "new disk", "--for", "2h")
    assert done.returncode == 0, done.stderr
    assert "c is drained: 2 VIPs moved" in done.stdout
    assert "c is rid of 0 of 2 VIPs" in done.stderr
    assert held(lab, "c") == 0
    for node in lab.layout.nodes:
        (order,) = orders(lab, node)
        assert (order["kind"], order["subject"], order["by"], order["reason"]) == ("drain", "c", "root", "new disk")
        assert 7000 < order["until"] - time.time() <= 7200
        text = wackamole(lab, node, "status").stdout
        assert "new disk" in text
        assert "drained" in text
    (file,) = (lab.home / "c").rglob("orders.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    lab.kill_daemon("c")
    lab.start("c")
    lab.until_settled()
    assert everywhere(lab, ("drain", "c"))
    assert held(lab, "c") == 0

    for node in lab.layout.nodes:
        lab.stop(node)
        lab.until(lambda node=node: lab._daemon(node) is None, within_s=60, story=f"{node} has left")  # type: ignore[misc]
    lab.start_all()
    lab.until_settled()
    assert everywhere(lab, ("drain", "c"))
    assert held(lab, "c") == 0
    assert wackamole(lab, "b", "resume", "c").returncode == 0
    assert everywhere(lab)
    lab.until(lambda: held(lab, "c") == 2, within_s=60, story="c has its share again")


def test_a_node_that_is_away_is_drained_and_takes_nothing_when_it_comes(lab: Lab) -> None:
    lab.crash("b")
    lab.until_settled(["a", "c"])
    assert lab.ask("a", "drain", {"node": "b"})["vips_moved"] == 0
    lab.start("b")
    lab.until_settled()
    assert held(lab, "b") == 0
    with pytest.raises(Refused, match=r"there is no node 'z'"):
        lab.ask("a", "drain", {"node": "z"})
    lab.ask("a", "drain", {"node": "a"})
    with pytest.raises(Refused, match="--force"):
        lab.ask("b", "drain", {"node": "c"})


def test_an_order_for_a_while_ends_by_itself(lab: Lab) -> None:
    lab.ask("b", "drain", {"node": "c", "for_s": 3})
    lab.until(lambda: everywhere(lab), within_s=60, story="its time is over")
    lab.until(lambda: held(lab, "c") == 2, within_s=60, story="c has its share again")
    with pytest.raises(Refused, match="number of seconds"):
        lab.ask("b", "drain", {"node": "c", "for_s": "2h"})


def test_a_move_pins_and_balance_now_takes_that_back(lab: Lab) -> None:
    names = [name for name, _ in lab.layout.vips]
    done = wackamole(lab, "b", "move", *names, "a", "--reason", "benchmark")
    assert done.returncode == 0, done.stderr
    assert held(lab, "a") == 6
    assert everywhere(lab, *(("pin", name) for name in names))
    lab.crash("a")
    lab.until_settled(["b", "c"])
    lab.start("a")
    lab.until_settled()
    lab.until(lambda: held(lab, "a") == 6, within_s=60, story="what is pinned to a comes home")
    why = lab.ask("c", "why", {"vip": names[0]})
    assert [(o["kind"], o["node"], o["reason"]) for o in why["orders"]] == [("pin", "a", "benchmark")]
    assert lab.ask("c", "unhold", {"vips": names[:1]}) == {"vips": names[:1], "held": False}
    assert everywhere(lab, *(("pin", name) for name in names[1:]))
    done = wackamole(lab, "c", "balance", "--now")
    assert done.returncode == 0, done.stderr
    assert [held(lab, n) for n in "abc"] == [2, 2, 2]
    assert everywhere(lab)


def test_what_is_held_balance_leaves_alone(lab: Lab) -> None:
    names = [v["name"] for v in (lab.status("a") or {})["vips"] if v["holder"] == "c"]
    lab.ask("a", "drain", {"node": "c"})
    everything = [name for name, _ in lab.layout.vips]
    assert lab.ask("b", "hold", {"vips": everything})["held"] is True
    assert lab.ask("b", "hold", {"vips": everything})["held"] is True
    assert len(orders(lab, "c")) == 7
    lab.ask("a", "resume", {"node": "c"})
    assert lab.ask("a", "balance", {"now": True}) == {"asked": "balance", "moved": 0}
    assert held(lab, "c") == 0
    lab.ask("c", "unhold", {"vips": everything})
    lab.until(lambda: held(lab, "c") == 2, within_s=60, story="c has its share again")
    assert len(names) == 2


def test_history_and_plan_of_a_crash(lab: Lab) -> None:
    name, address = lab.layout.vips[0]
    (source,) = lab.holders(address)
    to, other = [n for n in lab.layout.nodes if n != source]

    def known() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = lab.ask(other, "history", {"vip": address})
        return found

    lab.until(lambda: len(known()) == 1, within_s=60, story="the history has the beginning")
    lab.ask("b", "move", {"vips": [name], "node": to})
    lab.until(lambda: len(known()) == 2, within_s=60, story="the history has the move")
    foreseen = json.loads(wackamole(lab, other, "plan", "--down", to, "--json").stdout)["moves"]
    lab.crash(to)
    lab.until_settled([source, other])
    shown = {v["name"]: v["holder"] for v in (lab.status(other) or {})["vips"]}
    assert {c["vip"]: c["to"] for c in foreseen} == {c["vip"]: shown[c["vip"]] for c in foreseen}
    assert {c["source"] for c in foreseen} == {to}
    lab.until(lambda: len(known()) >= 3, within_s=60, story="the history has the crash")
    first, moved, lost = known()
    assert (first["from"], first["to"]) == ("nobody", source)
    assert (moved["from"], moved["to"], moved["cause"]) == (source, to, "an operator moved it")
    assert (lost["from"], lost["cause"]) == (to, "its host was lost")
    assert moved["took_ms"] >= 0
    assert lost["took_ms"] >= 700  # of a detection of a second
    assert json.loads(wackamole(lab, other, "history", name, "--json").stdout) == known()
    assert "its host was lost" in wackamole(lab, other, "history", name).stdout
    with pytest.raises(Refused, match="no history"):
        lab.ask(other, "history", {"vip": "nothing"})


def test_a_hundred_vips_are_drained_and_it_is_told_how_far_it_is(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(vips=99)
    lab.start_all()
    lab.until_settled()
    path = str(lab.home / "a/run/wackamole/control.sock")
    with Probe(lab, interval_ms=50) as probe:
        lab.until(lambda: len(probe.silent) == 99 and not any(probe.silent.values()), within_s=60, story="all answer")
        said = list(converse(path, "drain", {"node": "b", "wait": True}))
        lab.until(lambda: not any(probe.silent.values()), within_s=60, story="all answer again")
    assert said[-1] == ("result", {"node": "b", "drain": True, "vips_moved": 33, "until": None, "reason": ""})
    progress = [line for kind, line in said if kind == "progress"]
    assert progress[0]["of"] == 33
    assert [p["done"] for p in progress] == sorted(p["done"] for p in progress)
    assert held(lab, "b") == 0
