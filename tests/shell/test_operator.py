"""The daemon's verbs, asked with anything: a daemon alone in its group, whose messages come straight back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.config import find_self, parse
from wackamole.core import standing
from wackamole.core.balancing import Stays
from wackamole.core.events import TimePassed
from wackamole.core.model import Electorate, NodeId, NotEligible, Phase, View, ViewId
from wackamole.core.standing import Kind, Order
from wackamole.core.state import changed
from wackamole.engine.contract import Delivered, Joined, Listener, NewView
from wackamole.shell import disk
from wackamole.shell.claim import Refused
from wackamole.shell.control import REQUEST_BYTES_MAX
from wackamole.shell.daemon import Daemon
from wackamole.shell.journal import Journal
from wackamole.shell.kernel.guard import Guard
from wackamole.shell.start import Kept

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
original = "{socket}.it"
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
def talk(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Daemon], Coroutine[Any, Any, T]]], T]:
    """Runs a conversation with a settled daemon; its kernel is never started, so nothing is touched."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))

    def run(conversation: Callable[[Daemon], Coroutine[Any, Any, T]]) -> T:
        config = parse(CONFIG.format(socket=tmp_path / "control.sock"))

        async def main() -> T:
            daemon = Daemon(config, find_self(config, "a"), Journal(), kept)
            daemon.engine = Alone()
            await daemon.engine.start(daemon.on_engine)
            try:
                assert await daemon.operator.carried_out(TimePassed(), lambda: settled(daemon))
                return await asyncio.wait_for(conversation(daemon), 60)
            finally:
                daemon.done.set()
                daemon._alarm.set(None)
                daemon.events.close()

        return asyncio.run(main())

    return run


def settled(daemon: Daemon) -> bool:
    table = daemon.state.table
    return daemon.state.phase is Phase.SETTLED and len(table.rows) == 3 and all(r.holder == 1 for r in table.rows)


async def asked(daemon: Daemon, request: dict[str, Any]) -> list[dict[str, Any]] | str:
    """What is answered, or the sentence of a refusal. A follower reads the history only."""
    answers: list[dict[str, Any]] = []
    talking = daemon.operator.handle(request["verb"], request)
    try:
        while (said := await asyncio.wait_for(anext(talking, None), 1 if request.get("follow") else 30)) is not None:
            answers.append(said)
            json.dumps(said)
            if request.get("follow") and len(answers) >= len(daemon.journal._history):
                break
    except TimeoutError:
        pass  # a follower of the cluster's history, which has little
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
            st.sampled_from(
                (
                    *(
                        "status",
                        "events",
                        "why",
                        "move",
                        "drain",
                        "resume",
                        "balance",
                        "hold",
                        "unhold",
                        "history",
                        "table",
                    ),
                )
            ),
            st.text(max_size=9),
        )
    },
    optional=dict.fromkeys(
        ("vips", "vip", "node", "force", "follow", "cluster", "since", "by", "reason", "for_s", "now", "x"), json_values
    ),
).filter(lambda r: r["verb"] != "leave")


@given(asks=st.lists(requests, min_size=1, max_size=20))
@settings(max_examples=40)
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
        ({"verb": "hold"}, "at least one VIP to hold"),
        ({"verb": "unhold", "vips": ["v9"]}, "there is no VIP 'v9'"),
        ({"verb": "hold", "vips": ["v1"], "reason": "r" * 101}, "at most 100 printable"),
        ({"verb": "hold", "vips": ["v1"], "reason": "a\nb"}, "at most 100 printable"),
        ({"verb": "hold", "vips": ["v1"], "for_s": 0}, "number of seconds"),
        ({"verb": "hold", "vips": ["v1"], "for_s": True}, "number of seconds"),
        ({"verb": "hold", "vips": ["v1"], "for_s": 2**60}, "number of seconds"),
        ({"verb": "history"}, "name the VIP"),
        ({"verb": "history", "vip": "v9"}, "no history of one"),
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


async def by_bytes(daemon: Daemon, *commands: int) -> list[bytes]:
    """What the original's control socket answers to each command."""
    reader, writer = await asyncio.open_unix_connection(f"{daemon.config.control.socket}.it")
    answers = []
    for command in commands:
        writer.write(bytes([command]))
        number = await reader.readexactly(4)
        answers.append(await reader.readexactly(int.from_bytes(number)) if command == 0 else number)
    writer.close()
    return answers


def test_the_originals_protocol_commands_this_daemon(talk: Callable[..., Any]) -> None:
    async def conversation(daemon: Daemon) -> None:
        def drained() -> bool:
            return any(report.draining for report in daemon.state.table.reports)

        await daemon._offer_original()
        listed, failed = await by_bytes(daemon, 0, 1)
        assert len(listed) == 3 * 900
        holder, first = listed[4 + 16 :][:4], listed[4 + 28 + 16 :][:4]
        assert (holder, first) == (b"\x7f\0\0\1", b"\xc0\0\2\1")
        assert failed == bytes(4)
        assert drained()
        assert await by_bytes(daemon, 2) == [bytes(4)]
        assert not drained()
        await daemon._close_controls()
        assert not Path(f"{daemon.config.control.socket}.it").exists()

    talk(conversation)


def test_a_control_socket_that_cannot_be_made_is_a_warning(talk: Callable[..., Any]) -> None:
    async def conversation(daemon: Daemon) -> None:
        path = f"{daemon.config.control.socket}.it"
        Path(path).write_text("a file of somebody")
        await daemon._offer_original()
        found = daemon.status()["warnings"]
        assert f"no original wackatrl can be served: cannot listen on {path}: Address already in use" in found  # type: ignore[operator]
        await daemon._close_controls()
        assert Path(path).read_text() == "a file of somebody"

    talk(conversation)


def test_an_exposed_control_port_is_a_warning(kept: Kept, tmp_path: Path) -> None:
    text = CONFIG.format(socket=tmp_path / "control.sock").replace(f"{tmp_path / 'control.sock'}.it", "0.0.0.0:2413")
    config = parse(text)

    async def main() -> object:
        return Daemon(config, find_self(config, "a"), Journal(), kept).status()["warnings"]

    warnings = asyncio.run(main())
    assert isinstance(warnings, list)
    assert [w for w in warnings if w.startswith("anybody on the network can drain this node by way of 0.0.0.0:2413")]


def test_the_clusters_history_says_what_was_asked_and_by_whom(talk: Any) -> None:
    async def conversation(daemon: Daemon) -> list[dict[str, Any]]:
        assert await asked(daemon, {"verb": "move", "vips": ["v1", "192.0.2.3"], "node": "a", "by": "uid:7"})
        assert isinstance(await asked(daemon, {"verb": "drain", "node": "a", "by": "root"}), str)
        seen: list[dict[str, Any]] = []
        async for said in daemon.operator.handle("events", {"cluster": True, "follow": True}):
            seen.append(said["progress"])
            if seen[-1]["event"] == "command_refused":
                break
        return seen

    seen = talk(conversation)
    assert [e["event"] for e in seen] == ["view", *["moved"] * 3, "command", "pin", "command", "command_refused"]
    assert [e["said_by"] for e in seen] == ["a"] * 8
    assert [e["place"]["index"] for e in seen] == list(range(8))
    assert {k: seen[4][k] for k in ("verb", "vips", "node", "by")} == {
        "verb": "move",
        "vips": "v1,192.0.2.3",
        "node": "a",
        "by": "uid:7",
    }
    assert "--force" in seen[7]["reason"]


@pytest.mark.parametrize("wrong", [{"since": "1h"}, {"since": True}, {"vip": 5}, {"node": ["a"]}], ids=str)
def test_a_filter_that_is_none_is_refused(talk: Any, wrong: dict[str, Any]) -> None:
    async def conversation(daemon: Daemon) -> None:
        assert isinstance(await asked(daemon, {"verb": "events", "cluster": True, **wrong}), str)

    talk(conversation)


def test_a_host_that_cannot_hold_vips_any_more_says_so_once_for_each_reason(talk: Any) -> None:
    async def conversation(daemon: Daemon) -> list[dict[str, Any]]:
        keys = [v.key for v in daemon.state.settings.vips]
        daemon._eligibility_changed(tuple((k, NotEligible.LINK_DOWN) for k in keys[:2]))
        daemon._eligibility_changed(((keys[0], NotEligible.LINK_DOWN), (keys[2], NotEligible.REFUSED)))
        daemon._eligibility_changed(())
        return [e async for e in daemon.journal.follow(follow=False) if str(e["event"]).endswith("eligible")]

    seen = talk(conversation)
    told = [(e["event"], e.get("reason"), e["count"]) for e in seen]
    assert told == [
        ("ineligible", NotEligible.LINK_DOWN.value, "2"),
        ("ineligible", NotEligible.REFUSED.value, "1"),
        ("eligible", None, "1"),
        ("eligible", None, "2"),
    ]


def orders_of(daemon: Daemon) -> list[tuple[str, str, bool]]:
    return [(o.kind.value, o.subject, o.in_force) for o in daemon.state.table.orders]


def test_orders_are_on_the_disk_and_are_read_again(talk: Callable[..., Any], tmp_path: Path) -> None:
    async def give(daemon: Daemon) -> None:
        asking = {"verb": "hold", "vips": ["192.0.2.1"], "reason": "because", "for_s": 3600, "by": "root"}
        assert await asked(daemon, asking) == [{"result": {"vips": ["v1"], "held": True}}]
        assert await asked(daemon, {"verb": "drain", "force": True, "by": "root"})
        (hold,) = [o for o in daemon.status()["orders"] if o["kind"] == "hold"]  # type: ignore[attr-defined]
        assert (hold["subject"], hold["reason"], hold["by"]) == ("v1", "because", "root")
        assert 3500 < hold["until"] - time.time() <= 3600
        await asyncio.gather(*daemon._tasks)

    async def again(daemon: Daemon) -> list[tuple[str, str, bool]]:
        return orders_of(daemon)

    async def told(daemon: Daemon) -> list[str]:
        found = [e async for e in daemon.journal.follow(follow=False) if e["event"] == "not_remembered"]
        assert daemon.state.table.orders == ()
        return [str(e["reason"]) for e in found]

    file = tmp_path / "orders.json"
    talk(give)
    assert file.stat().st_mode & 0o777 == 0o600
    assert talk(again) == [("drain", "a", True), ("hold", "v1", True)]
    file.write_text('{"cluster": "web", "orders": [{"kind": "drain"}]}')
    (reason,) = talk(told)
    assert "orders.json cannot be read" in reason
    file.write_text('{"cluster": "another", "orders": []}')
    assert talk(again) == []


def test_what_a_majority_remembers_is_written_as_soon_as_the_disk_takes_it(
    talk: Callable[..., Any], tmp_path: Path
) -> None:
    keep = (Electorate(1, (("a", 1),)),)
    file = tmp_path / "electorates.json"

    async def conversation(daemon: Daemon) -> None:
        file.mkdir()  # nothing can take its place
        daemon.state = changed(daemon.state, remembering=keep)
        writing = asyncio.create_task(daemon._remember(keep))
        async for entry in daemon.journal.follow(follow=True):
            if entry["event"] == "not_remembered":
                break
        assert not daemon.state.electorates
        assert any("not remembered" in warning for warning in daemon.status()["warnings"])  # type: ignore[attr-defined]
        file.rmdir()
        await writing
        assert not any("not remembered" in warning for warning in daemon.status()["warnings"])  # type: ignore[attr-defined]
        assert daemon.state.electorates == keep

    talk(conversation)
    assert disk.read(file, "web") == keep


def test_an_order_ends_when_the_clock_says_so(talk: Callable[..., Any]) -> None:
    async def conversation(daemon: Daemon) -> None:
        assert isinstance(await asked(daemon, {"verb": "hold", "vips": ["v1"], "for_s": 1}), list)
        assert orders_of(daemon) == [("hold", "v1", True)]
        assert await daemon.operator.carried_out(TimePassed(), lambda: orders_of(daemon) == [("hold", "v1", False)])

    talk(conversation)


def test_who_is_overruled_while_he_waits_is_told(talk: Callable[..., Any]) -> None:
    async def conversation(daemon: Daemon) -> None:
        (pin,) = await daemon.operator._order([Order(Kind.PIN, "v1", True, node="a")])
        waiting = daemon.operator._until(lambda: 0, 1, [pin], again=None, wait=True)
        assert await anext(waiting) == {"progress": {"done": 0, "of": 1}}
        assert isinstance(await asked(daemon, {"verb": "unhold", "vips": ["v1"]}), list)
        with pytest.raises(Refused, match="another operator has ordered otherwise"):
            await anext(waiting)

    talk(conversation)


def test_no_order_in_force_is_pushed_out(talk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "ORDERS_MAX", 2)

    async def conversation(daemon: Daemon) -> None:
        assert isinstance(await asked(daemon, {"verb": "hold", "vips": ["v1", "v2"]}), list)
        answer = await asked(daemon, {"verb": "hold", "vips": ["192.0.2.3"]})
        assert isinstance(answer, str)
        assert "no more orders can be kept" in answer
        assert "the one about v1 would be lost" in answer
        assert isinstance(await asked(daemon, {"verb": "unhold", "vips": ["v1"]}), list)
        answer = await asked(daemon, {"verb": "hold", "vips": ["192.0.2.3"]})
        assert "the one about v2 would be lost" in answer
        assert isinstance(await asked(daemon, {"verb": "unhold", "vips": ["v2"]}), list)
        assert isinstance(await asked(daemon, {"verb": "hold", "vips": ["192.0.2.3"]}), list)
        assert ("hold", "192.0.2.3", True) in orders_of(daemon)

    talk(conversation)


def test_balance_now_takes_pins_back(talk: Callable[..., Any]) -> None:
    async def conversation(daemon: Daemon) -> None:
        assert isinstance(await asked(daemon, {"verb": "move", "vips": ["v1"], "node": "a"}), list)
        assert await asked(daemon, {"verb": "balance", "now": True}) == [{"result": {"asked": "balance", "moved": 0}}]
        assert orders_of(daemon) == [("pin", "v1", False)]

    talk(conversation)
