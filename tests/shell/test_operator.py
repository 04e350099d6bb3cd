"""The daemon's verbs, asked with anything: a daemon alone in its group, whose messages come straight back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wackamole.config import find_self, parse
from wackamole.core.events import TimePassed
from wackamole.core.model import NodeId, Phase, View, ViewId
from wackamole.core.placement import Stays
from wackamole.engine.contract import Delivered, Joined, Listener, NewView
from wackamole.shell.control import REQUEST_BYTES_MAX, Refused
from wackamole.shell.daemon import Daemon, Kept
from wackamole.shell.journal import Journal
from wackamole.shell.kernel.guard import Guard

T = TypeVar("T")
VIPS = ("v1", "v2", "192.0.2.3")
CONFIG = """\
fence = "off"
[cluster]
name = "web"
mature = "0s"
[[node]]
name = "a"
address = "127.0.0.1"
[[vip]]
name = "v1"
address = "192.0.2.1"
[[vip]]
name = "v2"
address = "192.0.2.2"
[[vip]]
address = "192.0.2.3"
[control]
socket = "{socket}"
"""


class Alone:
    """A group engine with one member."""

    def __init__(self) -> None:
        self._listener: Listener = lambda _: None

    async def start(self, listener: Listener) -> None:
        self._listener = listener
        listener(Joined(NodeId(1), 7))
        listener(NewView(View(ViewId(1, 4, 0), (NodeId(1),), (NodeId(1),), (), False)))

    def multicast(self, payload: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._listener, Delivered(NodeId(1), payload))

    async def rejoin(self, reason: str, pause_s: float = 0.0) -> None:
        raise AssertionError(reason)

    async def leave(self) -> None:
        self._listener = lambda _: None

    def describe(self) -> dict[str, str]:
        return {"type": "alone"}


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    guard = Guard()
    yield Kept(True, guard)
    guard.dismiss()


@pytest.fixture
def talk(tmp_path: Path, kept: Kept) -> Callable[[Callable[[Daemon], Coroutine[Any, Any, T]]], T]:
    """Runs a conversation with a settled daemon; its kernel is never started, so nothing is touched."""

    def run(conversation: Callable[[Daemon], Coroutine[Any, Any, T]]) -> T:
        config = parse(CONFIG.format(socket=tmp_path / "control.sock"))

        async def main() -> T:
            daemon = Daemon(config, find_self(config, "a"), Journal(), kept)
            daemon.engine = Alone()
            await daemon.engine.start(daemon.on_engine)
            try:
                assert await daemon._carried_out(TimePassed(), lambda: settled(daemon))
                return await asyncio.wait_for(conversation(daemon), 60)
            finally:
                if daemon._timer is not None:
                    daemon._timer.cancel()

        return asyncio.run(main())

    return run


def settled(daemon: Daemon) -> bool:
    table = daemon.state.table
    return daemon.state.phase is Phase.SETTLED and len(table.rows) == 3 and all(r.holder == 1 for r in table.rows)


async def asked(daemon: Daemon, request: dict[str, Any]) -> list[dict[str, Any]] | str:
    """What is answered, or the sentence of a refusal. A follower reads the history only."""
    answers: list[dict[str, Any]] = []
    talking = daemon.handle(request["verb"], request)
    try:
        async for said in talking:
            answers.append(said)
            json.dumps(said)
            if request.get("follow") and len(answers) >= len(daemon.journal._history):
                break
    except Refused as no:
        return str(no)
    finally:
        await talking.aclose()  # type: ignore[attr-defined]
    return answers


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from((*VIPS, "a"))),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)
requests = st.fixed_dictionaries(
    {
        "verb": st.one_of(
            st.sampled_from(("status", "events", "why", "move", "drain", "resume", "balance")), st.text(max_size=9)
        )
    },
    optional=dict.fromkeys(("vips", "vip", "node", "force", "follow", "x"), json_values),
).filter(lambda r: r["verb"] != "leave")


@given(asks=st.lists(requests, min_size=1, max_size=20))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_request_gets_an_answer_or_a_sentence(talk: Any, asks: list[dict[str, Any]]) -> None:
    async def conversation(daemon: Daemon) -> None:
        for request in asks:
            answer = await asked(daemon, request)
            assert answer, request
        assert isinstance(await asked(daemon, {"verb": "status"}), list)

    talk(conversation)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"verb": "move", "vips": ["v1"]}, "name the node"),
        ({"verb": "move", "vips": ["v1"], "node": 5}, "name the node"),
        ({"verb": "move", "vips": ["v1"], "node": "z"}, "there is no node 'z'"),
        ({"verb": "move", "vips": "v1", "node": "a"}, "at least one VIP"),
        ({"verb": "move", "vips": [], "node": "a"}, "at least one VIP"),
        ({"verb": "move", "vips": [["v1"]], "node": "a"}, "at least one VIP"),
        ({"verb": "move", "vips": ["v9"], "node": "a"}, "there is no VIP 'v9'"),
        ({"verb": "why"}, "name the VIP"),
        ({"verb": "why", "vip": "v9"}, "there is no VIP 'v9'"),
        ({"verb": "drain", "node": ["a"]}, "named by a text"),
        ({"verb": "drain"}, "--force"),
        ({"verb": "resume", "node": {}}, "named by a text"),
        ({"verb": "dance"}, "no verb"),
    ],
)
def test_what_is_wrong_is_said(talk: Any, request_: dict[str, Any], words: str) -> None:
    async def conversation(daemon: Daemon) -> None:
        answer = await asked(daemon, request_)
        assert isinstance(answer, str)
        assert words in answer

    talk(conversation)


def test_why_tells_the_only_member_from_the_rest(talk: Any) -> None:
    async def conversation(daemon: Daemon) -> None:
        answer = await asked(daemon, {"verb": "why", "vip": "192.0.2.1"})
        assert isinstance(answer, list)
        found = answer[0]["result"]
        assert (found["name"], found["holder"], found["choice"], found["steps"]) == ("v1", "a", "a", [])
        assert found["balance"]["stays"] == Stays.SHARE_KEPT.value
        assert [(m["name"], m["held"], m["quota"], m["load"]) for m in found["members"]] == [("a", 3, 3, None)]

    talk(conversation)


def test_a_vip_that_is_named_twice_is_moved_once(talk: Any) -> None:
    async def conversation(daemon: Daemon) -> None:
        vips = ["v1", "192.0.2.1", "192.0.2.1/32", "v1", "192.0.2.3"]
        answer = await asked(daemon, {"verb": "move", "vips": vips, "node": "a"})
        assert answer == [{"result": {"moved": ["v1", "192.0.2.3"], "to": "a"}}]

    talk(conversation)


def test_a_request_of_the_greatest_size_is_looked_up_not_searched(talk: Any) -> None:
    async def conversation(daemon: Daemon) -> None:
        vips = ["v1"] * (REQUEST_BYTES_MAX // 5)
        assert isinstance(await asked(daemon, {"verb": "move", "vips": vips, "node": "a"}), list)

    talk(conversation)
