"""The records of real daemons prove what they did, and the client's own measurement agrees."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]


def record_of(lab: Lab, node: str) -> Path:
    return lab.home / node / "run/state/audit.jsonl"


def audited(lab: Lab, *more: str) -> tuple[int, dict[str, Any]]:
    files = [str(record_of(lab, n)) for n in lab.layout.nodes]
    command = [sys.executable, "-m", "wackamole", "audit", "--json", *files, *more]
    done = subprocess.run(command, env=lab.environment(), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def holds(code: int, found: dict[str, Any]) -> None:
    """Both promises are proved; where the machine stood still for too long to order two events it says which, and no more."""
    verdicts = {found["exclusive"], found["covered"]}
    assert "refuted" not in verdicts, json.dumps(found)
    assert code == (0 if verdicts == {"proved"} else 2), json.dumps(found)
    if code:
        unsure = [x for x in (*found["overlaps"], *found["uncovered"]) if not x.get("certain")]
        assert unsure or found["doubts"], json.dumps(found)
        print(f"undecided: {json.dumps(unsure)} {found['doubts']}")


def test_a_crash_a_come_back_and_a_drain_are_proved_from_the_records(make_lab: MakeLab) -> None:
    lab = make_lab(settings='[balance]\ninterval = "1s"\nsettle = "2s"\n')
    lab.start_all()
    lab.until_settled()
    crashed = lab.kernel("b")
    lab.crash("b")
    lab.until_settled(("a", "c"))
    lab.start("b")
    lab.until(lambda: lab.settled() and len(lab.kernel("b")) == 2, within_s=60, story="b has its share again")
    lab.ask("a", "drain", {"node": "c"})
    lab.until(lambda: not lab.kernel("c"), within_s=30, story="c is empty")
    lab.ask("a", "resume", {"node": "c"})
    lab.kill_daemon("a")
    lab.until_settled(("b", "c"))
    lab.start("a")
    lab.until_settled()

    holds(*audited(lab))  # of daemons that run on, as they are
    for node in lab.layout.nodes:
        lab.stop(node)
    lab.until(lambda: all(lab._daemon(n) is None for n in lab.layout.nodes), within_s=60, story="all have ended")
    code, found = audited(lab)
    holds(code, found)
    assert found["nodes"] == list(lab.layout.nodes)
    assert found["addresses"] == len(lab.layout.vips)
    assert not [o for o in found["overlaps"] if o["certain"]]
    interrupted = {u["address"] for u in found["uncovered"] if u["certain_seconds"] > 0}
    assert crashed <= interrupted, "a take-over after a crash takes time, and the records show it"
    for clock in found["clocks"]:  # one kernel, so the truth is known
        assert abs(clock["ahead_ms"]) <= clock["within_ms"]
    for node in lab.layout.nodes:
        assert stat.S_IMODE(record_of(lab, node).stat().st_mode) == 0o600


def test_a_partition_is_shown_as_a_split_and_then_a_merge(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.start_all()
    lab.until_settled()
    every = {a for _, a in lab.layout.vips}
    lab.partition(("a",), ("b", "c"))
    lab.until(
        lambda: lab.kernel("a") == every and lab.kernel("b") | lab.kernel("c") == every,
        within_s=60,
        story="both sides serve everything",
    )
    lab.heal()
    lab.until_settled()
    code, found = audited(lab)
    assert (code, found["exclusive"], found["covered"]) == (0, "proved", "proved"), json.dumps(found)
    split = {o["address"] for o in found["overlaps"] if o["certain"] and o["kind"] == "in different components"}
    assert split == every
    assert not [o for o in found["overlaps"] if o["kind"] == "in one component"]
