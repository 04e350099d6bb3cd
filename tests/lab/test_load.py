"""Shares that follow the load, as users run it: a command on every node says how loaded it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab

SETTINGS = """\
[balance]
by = "load"
interval = "1s"
settle = "2s"
[load]
command = ["/bin/cat", "/run/load"]
interval = "1s"
smoothing = "1s"
"""


def test_a_loaded_node_is_relieved_but_not_of_its_last_vip_and_why_says_so(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(settings=SETTINGS)

    def load(node: str, figure: str) -> None:
        run = lab.home / node / "run"  # which it sees as /run
        run.mkdir(parents=True, exist_ok=True)
        (run / "load.new").write_text(figure)
        (run / "load.new").replace(run / "load")

    for node in "abc":
        load(node, "0.2")
    lab.start_all()
    lab.until_settled()

    def held(node: str) -> int:
        return len(lab.kernel(node))

    def announced(node: str) -> float | None:
        members = (lab.status("b") or {"view": {"members": []}})["view"]["members"]
        found: list[float | None] = [m["load"] for m in members if m["name"] == node]
        return found[0] if found else None

    lab.until(lambda: announced("a") == 0.2, within_s=60, story="b knows a's load")
    assert [held(node) for node in "abc"] == [2, 2, 2]
    load("a", "4")
    lab.until(lambda: held("a") == 1, within_s=120, story="a is relieved of one of its VIPs")
    lab.until_settled()
    last = next(v["name"] for v in (lab.status("b") or {})["vips"] if v["holder"] == "a")
    why = lab.ask("c", "why", {"vip": last})
    assert (why["by"], why["holder"], why["balance"]["moves_to"]) == ("load", "a", None)
    assert {m["name"]: m["held"] for m in why["members"]}["a"] == 1
    load("a", "0.2")
    lab.until(lambda: [held(n) for n in "abc"] == [2, 2, 2], within_s=120, story="when it is calm again all are alike")
    load("b", "rubbish")
    lab.until(lambda: announced("b") is None, within_s=120, story="a load that nobody can read is not known")
    assert [held(node) for node in "abc"] == [2, 2, 2]
