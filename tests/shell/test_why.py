"""What `why` and `status` say of lists, capacities, groups and spares."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from wackamole.core.balancing import Stays
from wackamole.core.model import NodeId, NotEligible
from wackamole.render import print_why
from wackamole.shell.status import status_of
from wackamole.shell.why import why_of
from wackamole.sim.story import Story


def told(*lines: str) -> Story:
    """A cluster of which these lines are true."""
    story = Story()
    for line in lines:
        story.do(line)
    return story


def why(story: Story, vip: str) -> dict[str, Any]:
    state = story.world.members[NodeId(1)].state
    return why_of(state, story.vips[vip].key, since=None, now_ms=story.world.now_ms)


def status(story: Story) -> dict[str, Any]:
    return status_of(
        story.world.members[NodeId(1)].state,
        cluster="web",
        version="1",
        since={},
        kernel=(),
        duplicates={},
        witness={},
        engine={},
        fence={"mode": "off", "note": ""},
        warnings=(),
    )


def members(found: dict[str, Any], key: str) -> dict[str, Any]:
    return {m["name"]: m[key] for m in found["members"]}


def test_each_scorer_says_its_word() -> None:
    story = told(
        "cluster nodes=a,b,c vips=v,w,x avoid=v:a prefer=w:b apart=v:g;x:g settle=1000",
        "start a b c",
        "run",
        "pass 6000",
    )
    found = why(story, "v")
    assert members(found, "avoided") == {"a": True, "b": False, "c": False}
    scores = {step["scorer"]: step["scores"] for step in found["steps"]}
    assert scores["not avoided"] == {"a": 1, "b": 0, "c": 0}
    assert set(scores["kept apart"]) == {"b", "c"}
    other = why(story, "x")
    assert sum(members(other, "of_group").values()) == 2
    assert other["choice"] != found["holder"]
    assert why(story, "w")["balance"]["stays"] == Stays.PREFERENCE.value


def test_who_may_not_have_it_and_who_is_full_is_said_by_why_and_status() -> None:
    story = told("cluster nodes=a,b,c vips=v,w only=v:b;w:b capacity=b:1", "start a b c", "run", "pass 6000")
    found = why(story, "w")
    assert (found["holder"], found["choice"]) == (None, None)
    assert members(found, "why_not") == {
        "a": NotEligible.NOT_LISTED.value,
        "b": NotEligible.FULL.value,
        "c": NotEligible.NOT_LISTED.value,
    }
    assert members(found, "capacity") == {"a": None, "b": 1, "c": None}
    shown = status(story)
    notes = {vip["name"]: vip["note"] for vip in shown["vips"]}
    assert notes["v"] == ""
    assert f"b: {NotEligible.FULL.value}" in notes["w"]
    assert f"a: {NotEligible.NOT_LISTED.value}" in notes["w"]
    assert all(m["eligible"] and not m["reasons"] for m in shown["view"]["members"]), (
        "a list is no trouble of a member's"
    )
    out = io.StringIO()
    print_why(found, Console(file=out, width=160))
    assert "1 (max 1)" in out.getvalue()


def test_who_flaps_is_said_to_be_fresh() -> None:
    story = told("cluster nodes=a,b vips=v,w settle=2000", "start a b", "run")
    for _ in range(3):
        story.do("crash b")
        story.do("run")
        story.do("start b")
        story.do("run")
        story.do("pass 2500")
    refused = [why(story, vip)["balance"]["refused"] for vip in ("v", "w")]
    assert {"a": Stays.HOLDER.value, "b": Stays.FRESH.value} in refused
