"""Hooks in a whole cluster: what they hear, and that one which never ends delays no VIP."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wackamole.config import NODE_EVENTS, VIP_EVENTS
from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]


def hook(on: tuple[str, ...], *command: str, more: str = "") -> str:
    return f"[[hook]]\non = {json.dumps(on)}\ncommand = {json.dumps(command)}\n{more}\n"


def told(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def test_every_change_of_every_vip_is_told_where_it_happens_with_its_cause(make_lab: MakeLab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read())"
    lab = make_lab(settings=hook(("acquired", "released", "before_release"), sys.executable, "-c", program))
    lab.start_all()
    lab.until_settled()
    lab.until(lambda: len(told(out)) == 6, within_s=60, story="each VIP was acquired once")
    assert {(h["event"], h["cause"]) for h in told(out)} == {("acquired", "nobody held it")}
    held = {h["vip"]: h["node"] for h in told(out)}
    assert held == {v["name"]: v["holder"] for v in lab.ask("a", "status")["vips"]}
    vip, before = "v1", held["v1"]
    after = next(n for n in lab.layout.nodes if n != before)
    lab.ask("a", "move", {"vips": [vip], "node": after})
    lab.until(lambda: len(told(out)) == 9, within_s=60, story="a move is told: before, released, acquired")
    found = {h["event"]: h for h in told(out)[6:]}
    assert {e: (h["node"], h["vip"], h["cause"]) for e, h in found.items()} == {
        "before_release": (before, vip, "an operator moved it"),
        "released": (before, vip, "an operator moved it"),
        "acquired": (after, vip, "an operator moved it"),
    }
    assert (found["acquired"]["holder"], found["acquired"]["previous"]) == (after, before)
    assert found["before_release"]["time"] < found["released"]["time"]
    lab.crash(after)
    rest = tuple(n for n in lab.layout.nodes if n != after)
    lab.until_settled(rest)
    lab.until(lambda: len(told(out)) == 12, within_s=60, story="the survivors acquired three")
    assert {(h["event"], h["cause"]) for h in told(out)[9:]} == {("acquired", "its host was lost")}
    lab.stop(rest[0])
    lab.until_settled(rest[1:])
    lab.until(lambda: len(told(out)) == 21, within_s=60, story="what left was told, and what came")
    assert Counter(h["event"] for h in told(out)[12:]) == {"before_release": 3, "released": 3, "acquired": 3}
    assert lab.ask(rest[1], "status")["hooks"][0]["failed"] == 0


def test_hooks_that_never_end_delay_no_vip(make_lab: MakeLab) -> None:
    """Every event of every kind, and none is killed before the test is over. What waits has no bound but the budget."""
    hangs = hook((*VIP_EVENTS, *NODE_EVENTS), "/bin/sleep", "infinity", more='timeout = "1h"\nbudget = "50ms"')
    lab = make_lab(settings=hangs)
    lab.start_all()
    lab.until_settled()
    holder = lab.ask("a", "status")["vips"][0]["holder"]
    to = next(n for n in lab.layout.nodes if n != holder)
    assert lab.ask("a", "move", {"vips": ["v1"], "node": to}) == {"moved": ["v1"], "to": to}
    lab.until_settled()
    assert lab.holders(lab.layout.vips[0][1]) == {to}
    lab.crash(to)
    rest = tuple(n for n in lab.layout.nodes if n != to)
    lab.until_settled(rest)
    lab.ask(rest[0], "drain", {"node": rest[1]})
    lab.until(lambda: not lab.kernel(rest[1]), within_s=60, story="the drained one has none")
    assert lab.kernel(rest[0]) == {a for _, a in lab.layout.vips}
    assert lab.ask(rest[0], "status")["hooks"][0]["runs"] == 0  # none has ended
