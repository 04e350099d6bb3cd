"""Another config for a running cluster, one node at a time: what did not change is not touched, and what is wrong changes
nothing."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from wackamole.client import Refused
from wackamole.lab.lab import Lab
from wackamole.lab.probe import Probe

from .test_lab import events
from .test_verbs import wackamole

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]
STILL = '[balance]\ninterval = "1h"\n'
MORE = "".join(f'[[vip]]\nname = "more-{i}"\naddress = "10.77.9.{i}"\ninterface = "eth0"\n' for i in range(1, 11))
STALL_SECONDS = 0.4
CHECK = (
    '[[check]]\nname = "there"\nkind = "file"\npath = "/run/wackamole.toml"\nvips = ["more-1"]\ninterval = "500ms"\n'
)
HOOK = '[[hook]]\nname = "told"\non = ["acquired"]\ncommand = ["/bin/true"]\n'


def without_node(text: str, name: str) -> str:
    return re.sub(rf'\[\[node\]\]\nname = "{name}"\n.*\n', "", text)


def reload_all(lab: Lab, text: str, *nodes: str) -> list[list[str]]:
    """The same file to each, one after the other; what each said."""
    said = []
    for node in nodes:
        lab.config(node).write_text(text)
        said.append(lab.ask(node, "reload")["changes"])
    return said


def rows(lab: Lab, node: str) -> dict[str, dict[str, Any]]:
    return {v["name"]: v for v in lab.ask(node, "status")["vips"]}


def checks(lab: Lab, node: str) -> dict[str, str]:
    """What its checks saw last."""
    return {c["name"]: c["said"] for c in lab.ask(node, "status")["checks"]}


def settled(lab: Lab) -> tuple[object, ...]:
    status = lab.ask("a", "status")
    return status["view"], status["warnings"], [(v["key"], v["holder"], v["generation"]) for v in status["vips"]]


def members(lab: Lab, node: str) -> list[str]:
    return sorted(m["name"] for m in lab.ask(node, "status")["view"]["members"])


def test_vips_a_node_a_check_and_a_hook_come_and_go_and_nothing_else_is_touched(make_lab: MakeLab) -> None:
    lab = make_lab(nodes=4, settings=STILL)
    whole = lab.layout.config
    small = without_node(whole, "d")
    three = ("a", "b", "c")
    for node in three:
        lab.start(node, config=small)
    lab.until_settled(three)
    held = {n: v["holder"] for n, v in rows(lab, "a").items()}
    corosyncs = [lab.corosync(n) for n in three]
    view = lab.ask("a", "status")["view"]["id"]
    with Probe(lab) as probe:
        lab.until(
            lambda: len(probe.silent) == len(held) and not any(probe.silent.values()),
            within_s=60,
            story="the client reaches every VIP",
        )
        said = reload_all(lab, f"{whole}{MORE}{CHECK}{HOOK}", *three)
        assert said[0] == said[1] == said[2]
        assert [line.split(":")[0] for line in said[0]] == [
            "+ node d",
            *(f"+ vip more-{i}" for i in range(1, 11)),
            "+ check there",
            "+ hook told",
        ]
        lab.until(
            lambda: all(checks(lab, n) == {"there": "it is there"} for n in three),
            within_s=60,
            story="the check has looked",
        )
        lab.until(
            lambda: all(rows(lab, n).get(f"more-{i}", {}).get("holder") for n in three for i in range(1, 11)),
            within_s=60,
            story="the new ones are served",
        )
        assert lab.ask("a", "status")["view"]["id"] == view
        lab.start("d", config=f"{whole}{MORE}{CHECK}{HOOK}")
        lab.until_settled(lab.layout.nodes)
        assert members(lab, "a") == ["a", "b", "c", "d"]
        lab.ask("d", "leave")
        lab.until(lambda: members(lab, "a") == ["a", "b", "c"], within_s=60, story="it has left")
        said = reload_all(lab, small, *three)
        assert [line.split(":")[0] for line in said[0]] == [
            "- node d",
            *(f"- vip more-{i}" for i in range(1, 11)),
            "- check there",
            "- hook told",
        ]
        lab.until(lambda: rows(lab, "a").keys() == held.keys(), within_s=60, story="they are gone everywhere")
        seen = probe.stop()
    assert {n: v["holder"] for n, v in rows(lab, "a").items()} == held
    assert not any(checks(lab, n) for n in three)
    assert not seen.interrupted(0, longer_than_s=STALL_SECONDS)
    assert not any(seen.two_owners.values())
    for node in three:
        assert not [e for e in events(lab, node, "moved") if e["vip"] in held and e["source"] != "nobody"]
    assert [lab.corosync(n) for n in three] == corosyncs


def test_a_file_that_cannot_be_used_changes_nothing_and_every_problem_is_named(make_lab: MakeLab) -> None:
    lab = make_lab(nodes=1)
    lab.start_all()
    lab.until_settled()
    file, whole = lab.config("a"), lab.layout.config
    before = settled(lab)

    def refused(text: str) -> str:
        file.write_text(text)
        with pytest.raises(Refused) as no:
            lab.ask("a", "reload")
        return str(no.value)

    wrong = refused(whole + '[[vip]]\naddress = "10.77.9.300"\n[[hook]]\non = ["sometimes"]\ncommand = []\n')
    lines = wrong.splitlines()
    assert len(lines) >= 3, lines
    assert all(re.match(r"\S+wackamole.toml:\d+  ", line) for line in lines), lines
    assert "needs `systemctl restart wackamole`" in refused(whole.replace('detection = "1s"', 'detection = "2s"'))
    assert "there is no node 'a'" in refused(whole.replace('name = "a"', 'name = "z"'))
    assert refused("").startswith("/run/wackamole.toml")
    assert refused(whole[:-3])
    assert settled(lab) == before
    assert events(lab, "a", "reload_refused")
    file.write_text(whole)
    assert lab.ask("a", "reload")["changes"] == []


def test_what_a_reload_would_change_is_shown_and_sighup_does_it(make_lab: MakeLab) -> None:
    lab = make_lab(nodes=2, vips=2)
    lab.start_all()
    lab.until_settled()
    changed = lab.layout.config.replace('name = "b"\n', 'name = "b"\nweight = 3\n')
    lab.config("a").write_text(changed)
    assert lab.ask("a", "reload", {"dry": True})["changes"] == ["~ node b weight: 1 → 3"]
    assert not events(lab, "a", "reloaded")
    os.kill(lab.daemon("a"), signal.SIGHUP)
    lab.until(lambda: bool(events(lab, "a", "reloaded")), within_s=60, story="it has read its file again")
    lab.until(
        lambda: any("differs" in w for w in lab.ask("a", "status")["warnings"]),
        within_s=60,
        story="the group knows of it",
    )
    reload_all(lab, changed, "b")
    lab.until(
        lambda: not any("differs" in w for w in lab.ask("a", "status")["warnings"]),
        within_s=60,
        story="they agree again",
    )
    weights = {m["name"]: m["weight"] for m in lab.ask("a", "status")["view"]["members"]}
    assert weights == {"a": 1, "b": 3}


def test_a_new_node_joins_only_when_every_member_has_it_in_its_config(make_lab: MakeLab) -> None:
    lab = make_lab(
        nodes=4, settings=STILL, cluster='partition = "majority"'
    )  # so that it takes nothing while it is alone
    whole = lab.layout.config
    small = without_node(whole, "d")
    three = ("a", "b", "c")
    for node in three:
        lab.start(node, config=small)
    lab.until_settled(three)
    view = lab.ask("a", "status")["view"]["id"]
    reload_all(lab, whole, "a")
    assert any("node d joins" in w for w in lab.ask("a", "status")["warnings"])
    lab.start("d")  # too early
    lab.until(
        lambda: (status := lab.status("d")) is not None and status["phase"] == "settled",
        within_s=60,
        story="it is settled",
    )
    assert members(lab, "d") == ["d"]
    reload_all(lab, whole, "b")
    assert lab.ask("a", "status")["view"]["id"] == view
    reload_all(lab, whole, "c")
    lab.until(lambda: members(lab, "d") == ["a", "b", "c", "d"], within_s=60, story="all hear it")
    assert not any("node d joins" in w for w in lab.ask("a", "status")["warnings"])


def test_a_plan_and_a_reload_show_the_same_and_it_happens(make_lab: MakeLab) -> None:
    lab = make_lab(settings='[balance]\ninterval = "100ms"\nsettle = "1s"\n')
    lab.start_all()
    lab.until_settled()
    gone, address = lab.layout.vips[0]
    stays, _ = lab.layout.vips[1]
    lab.ask("a", "hold", {"vips": [gone, stays]})
    table = f'[[vip]]\nname = "{gone}"\naddress = "{address}"\ninterface = "eth0"\n'
    assert table in lab.layout.config
    text = lab.layout.config.replace(table, "").replace('name = "c"\n', 'name = "c"\nweight = 2\n')
    new = lab.config("a").with_name("new.toml")
    new.write_text(text)
    planned = json.loads(wackamole(lab, "a", "plan", "--config", f"/run/{new.name}", "--json").stdout)
    assert [line.split(":")[0] for line in planned["changes"]] == ["~ node c weight", f"- vip {gone}"]
    assert planned["moves"]
    lab.config("a").write_text(text)
    shown = json.loads(wackamole(lab, "a", "reload", "--dry-run", "--json").stdout)
    assert (shown["changes"], shown["moves"]) == (planned["changes"], planned["moves"])
    assert gone in rows(lab, "b")

    lines = wackamole(lab, "a", "reload").stdout.splitlines()
    assert lines[: len(planned["changes"])] == planned["changes"]
    assert lines[-1] == f"{len(planned['moves'])} of {planned['vips']} VIPs would move"
    with pytest.raises(Refused, match="different configs"):
        lab.ask("b", "balance", {"now": True})
    reload_all(lab, text, "b", "c")
    foreseen = {move["vip"]: move["to"] for move in planned["moves"]}

    def happened() -> bool:
        now = rows(lab, "c")
        return gone not in now and all(now[vip]["holder"] == to for vip, to in foreseen.items() if to is not None)

    lab.until(happened, within_s=60, story="all is as it was foreseen")
    lab.until(
        lambda: all(
            [(o["kind"], o["subject"]) for o in lab.ask(n, "status")["orders"]] == [("hold", stays)] for n in "abc"
        ),
        within_s=60,
        story="the order about the VIP that is gone is over",
    )
