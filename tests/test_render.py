"""What people see of `status`."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from wackamole.core.model import Phase
from wackamole.render import event_line, print_status
from wackamole.shell.status import status_of
from wackamole.sim.search import A, B, C, small_world
from wackamole.sim.world import World


@pytest.fixture
def world() -> World:
    found = small_world()
    found.run()
    return found


def status(
    world: World, node: Any = A, kernel: tuple[str, ...] | None = None, witness: dict[Any, Any] | None = None
) -> dict[str, Any]:
    member = world.members[node]
    return status_of(
        member.state,
        cluster="web",
        version="1",
        since={k: time.time() - 75 for k in member.kernel},
        duplicates={},
        witness={} if witness is None else witness,
        kernel=member.kernel if kernel is None else kernel,  # type: ignore[arg-type]
        engine={"type": "memory", "state": "joined"},
        fence={"mode": "off", "note": "why"},
        warnings=("look here",),
    )


def shown(found: dict[str, Any]) -> str:
    out = io.StringIO()
    print_status(found, Console(file=out, width=160))
    return out.getvalue()


def test_status_has_what_the_contract_names(world: World) -> None:
    found = status(world)
    assert set(found) >= {"cluster", "node", "view", "phase", "vips", "fence", "engine", "version"}
    assert set(found["view"]) >= {"id", "members"}
    for member in found["view"]["members"]:
        assert set(member) >= {"name", "weight", "eligible", "reasons", "drain"}
    for vip in found["vips"]:
        assert set(vip) >= {"name", "addresses", "holder", "target", "since", "cause", "here"}
    assert found["phase"] == Phase.SETTLED.value


def test_every_member_says_the_same_of_the_cluster(world: World) -> None:
    def agreed(node: Any) -> list[tuple[str, str]]:
        return [(v["name"], v["holder"]) for v in status(world, node)["vips"]]

    assert agreed(A) == agreed(B) == agreed(C)


def test_people_see_who_holds_what_and_who_is_absent(world: World) -> None:
    world.crash(C)
    world.run()
    text = shown(status(world))
    names = [world.name(n) for n in (A, B)]
    for name in names:
        assert name in text
    assert "absent" in text
    assert "1m 15s" in text
    assert "warning: look here" in text
    assert "fence: off (why)" in text


def test_what_the_kernel_lacks_is_shown(world: World) -> None:
    holder = next(n for n in (A, B, C) if world.members[n].kernel)
    assert "missing" not in shown(status(world, holder))
    assert "missing" in shown(status(world, holder, kernel=()))


def test_a_line_of_the_history() -> None:
    text = event_line({"number": 1, "time": 1.5, "monotonic": 2.0, "event": "moved", "vip": "v", "to": "b"})
    assert text.endswith(".500 moved vip=v to=b")
    place = {"epoch": 1, "view": "1.8.0", "index": 0}
    told = {"said_by": "b", "run": "0", "number": 1, "place": place, "time": 1.5, "event": "moved", "vip": "v"}
    assert event_line(told).endswith(".500 b moved vip=v")


def test_what_another_member_heard_on_the_wire_is_shown_when_it_is_not_as_it_should_be(world: World) -> None:
    key = next(k for m in world.members.values() for k in m.kernel)
    good = {"by": "c", "result": "verified", "at": 1.0}
    found = status(world, witness={key: good})
    assert [v["witness"] for v in found["vips"]].count(good) == 1
    assert "on the wire" not in shown(found)
    assert "(silent on the wire, c says)" in shown(status(world, witness={key: {**good, "result": "silent"}}))
