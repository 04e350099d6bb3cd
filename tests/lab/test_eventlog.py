"""The cluster's event log, with real daemons: one history, whichever node is asked."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from wackamole.client import Refused, converse
from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]


def socket(lab: Lab, node: str) -> str:
    return str(lab.home / node / "run/wackamole/control.sock")


def history(lab: Lab, node: str, **wanted: object) -> list[dict[str, Any]]:
    asked = {"cluster": True, **wanted}
    return [said for kind, said in converse(socket(lab, node), "events", asked) if kind == "progress"]


def ids(entries: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(e["said_by"], e["run"], e["number"]) for e in entries]


def agree(lab: Lab, *nodes: str) -> bool:
    """Whether all have one history; what was said a moment ago may still be on its way."""
    histories = [ids(history(lab, n)) for n in nodes or lab.layout.nodes]
    return bool(histories[0]) and all(h == histories[0] for h in histories)


def has(lab: Lab, node: str, what: str, **fields: str) -> bool:
    return any(e["event"] == what and fields.items() <= e.items() for e in history(lab, node))


def accepted(lab: Lab, node: str, verb: str) -> bool:
    """Whether a node takes a command; not while the ring of a machine that stalls is formed anew."""
    try:
        lab.ask(node, verb)
    except Refused:
        return False
    return True


@pytest.fixture
def three(make_lab: MakeLab) -> Lab:
    lab = make_lab()
    lab.start_all()
    lab.until_settled()
    return lab


def test_every_node_has_the_same_history_and_keeps_it(three: Lab) -> None:
    lab = three
    lab.until(lambda: has(lab, "a", "view", members="a,b,c"), within_s=30, story="the view is told")
    name, address = lab.layout.vips[0]
    (source,) = lab.holders(address)
    to = next(n for n in lab.layout.nodes if n != source)
    lab.ask("c", "move", {"vips": [name], "node": to})
    lab.until(
        lambda: all(has(lab, n, "moved", vip=name, to=to, source=source) for n in lab.layout.nodes),
        within_s=30,
        story="the move is told everywhere",
    )
    lab.until(lambda: agree(lab), within_s=30, story="all have one history")
    seen = history(lab, "a")
    (command,) = [e for e in seen if e["event"] == "command"]
    assert (command["said_by"], command["verb"], command["vips"], command["by"]) == ("c", "move", name, "root")
    moves = [e for e in seen if e["event"] == "moved" and e["vip"] == name and e["source"] == source]
    assert [m["said_by"] for m in moves] == [to], "it is told once, by the new holder"
    assert {e["said_by"] for e in seen if e["event"] == "started"} == set(lab.layout.nodes)
    assert all(e in seen for e in history(lab, "a", vip=name))
    file = lab.home / "a/run/state/events.jsonl"
    lab.until(lambda: len(file.read_bytes().splitlines()) >= len(seen), within_s=30, story="it is on the disk")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_command_shows_and_filters_it(three: Lab) -> None:
    lab = three

    def shown(*arguments: str) -> str:
        command = [sys.executable, "-m", "wackamole", "events", "--socket", socket(lab, "b"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout

    lab.until(lambda: agree(lab) and has(lab, "b", "view", members="a,b,c"), within_s=30, story="it is told")
    assert "a view id=" in shown("--since", "1h")
    assert shown("--since", "0s") == ""
    name = lab.layout.vips[0][0]
    found = [json.loads(text) for text in shown("--vip", name, "--json").splitlines()]
    assert found
    assert all(e["vip"] == name for e in found)
    assert "settled view=" in shown("--local")


def test_a_node_that_comes_late_shows_the_recent_part(three: Lab) -> None:
    lab = three
    lab.until(lambda: agree(lab) and has(lab, "a", "view", members="a,b,c"), within_s=30, story="it is told")
    lab.crash("c")
    lab.until_settled(("a", "b"))
    lab.until(lambda: has(lab, "a", "view", members="a,b"), within_s=30, story="the loss is told")
    lost = next(e for e in history(lab, "b") if e["event"] == "view" and e["members"] == "a,b" and "left" in e)
    assert lost["left"].startswith("c:")
    for file in (lab.home / "c/run/state").glob("events.jsonl*"):
        file.unlink()  # as a host that was installed anew
    before = ids(history(lab, "a"))
    lab.start("c")
    lab.until_settled()
    lab.until(lambda: agree(lab), within_s=30, story="c has what it missed")
    assert ids(history(lab, "c"))[: len(before)] == before


def test_after_a_partition_nothing_is_lost_and_nothing_is_there_twice(three: Lab) -> None:
    lab = three
    lab.until(lambda: agree(lab) and has(lab, "a", "view", members="a,b,c"), within_s=30, story="it is told")
    lab.partition(["a"], ["b", "c"])
    lab.until_settled(("a",))
    lab.until_settled(("b", "c"))
    for node in ("a", "b"):
        lab.until(lambda node=node: accepted(lab, node, "balance"), within_s=30, story=f"{node} is asked")  # type: ignore[misc]
        lab.until(lambda node=node: has(lab, node, "command", verb="balance"), within_s=30, story=f"{node} tells")  # type: ignore[misc]
    assert not has(lab, "c", "command", said_by="a")
    sides = {*ids(history(lab, "a")), *ids(history(lab, "b"))}
    lab.heal()
    lab.until_settled()
    lab.until(lambda: agree(lab) and has(lab, "a", "command", said_by="b"), within_s=30, story="one history again")
    together = ids(history(lab, "c"))
    assert sides <= set(together)
    assert len(set(together)) == len(together)


def test_a_restart_goes_on_with_the_history(three: Lab) -> None:
    lab = three
    lab.until(lambda: agree(lab) and has(lab, "a", "view", members="a,b,c"), within_s=30, story="it is told")
    before = ids(history(lab, "b"))
    pid = (lab.status("b") or {})["process"]
    lab.ask("b", "restart", {"within_ms": 5000})
    lab.until(lambda: ((lab.status("b") or {}).get("process") or pid) != pid, within_s=30, story="b is a new process")
    lab.until_settled()
    lab.until(lambda: agree(lab) and has(lab, "b", "command", verb="restart"), within_s=30, story="all know who asked")
    assert ids(history(lab, "b"))[: len(before)] == before
