"""The Spread engine as a whole, against a daemon of one test: connecting, being thrown out, coming back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.engine.spread_daemon import SpreadDaemon, membership_bytes, self_leave_bytes
from tests.engine.spread_transcripts import conversations, meant
from wackamole.core.model import Left, NodeId, View
from wackamole.engine.contract import (
    DISPATCH_BUDGET,
    PAYLOAD_BYTES_MAX,
    Delivered,
    EngineEvent,
    Joined,
    Lost,
    NewView,
)
from wackamole.engine.spread.adapter import (
    INBOX_BYTES_MAX,
    OUTBOX_BYTES_MAX,
    RETRY_FACTOR,
    RETRY_SECONDS_MIN,
    SpreadEngine,
    group_name,
)
from wackamole.engine.spread.address import SpreadAddress, spread_address
from wackamole.engine.spread.codec import AGREED, GROUP_NAME_MAX, Membership, SelfLeave, is_name, message_bytes

WITHIN_SECONDS = 30.0


@dataclass
class Member:
    """An engine and what it told."""

    engine: SpreadEngine
    events: list[EngineEvent] = field(default_factory=list)
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, event: EngineEvent) -> None:
        self.events.append(event)
        self.told.set()

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not fact():
                self.told.clear()
                await self.told.wait()

    def views(self) -> list[View]:
        return [e.view for e in self.events if isinstance(e, NewView)]

    def members(self) -> list[int]:
        found = self.views()
        return list(found[-1].members) if found else []

    def payloads(self) -> list[tuple[int, bytes]]:
        return [(e.sender, e.payload) for e in self.events if isinstance(e, Delivered)]

    def count(self, kind: type) -> int:
        return sum(isinstance(e, kind) for e in self.events)


def member_of(daemon: SpreadDaemon, node: int, *, retry_s: float = 0.05) -> Member:
    found: list[Member] = []

    def record(what: str, **fields: object) -> None:
        found[0].records.append((what, fields))
        found[0].told.set()

    engine = SpreadEngine("g", NodeId(node), SpreadAddress(str(daemon.path)), on_record=record, retry_s=retry_s)
    found.append(Member(engine))
    return found[0]


async def joined(daemon: SpreadDaemon, *nodes: int) -> list[Member]:
    members = [member_of(daemon, n) for n in nodes]
    for member in members:
        await member.engine.start(member.hear)
    for member in members:
        await member.until(lambda member=member: member.members() == list(nodes))  # type: ignore[misc]
    return members


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[SpreadDaemon]:
    daemon = SpreadDaemon(folder / "4803")
    await daemon.start()
    yield daemon
    await daemon.stop()


def run(folder: Path, story: Callable[[SpreadDaemon], Awaitable[None]]) -> None:
    """A story with a daemon; whatever goes wrong in the background fails it."""

    async def whole() -> None:
        wrongs: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrongs.append(context))
        async with running(folder) as daemon:
            await story(daemon)
        assert not wrongs

    asyncio.run(whole())


def test_the_daemon_of_these_tests_writes_what_a_real_one_writes() -> None:
    compared = 0
    for talk in conversations():
        for piece in talk.came:
            match meant(piece.meaning):
                case Membership() as change:
                    order = "<" if piece.meaning["byte_order"] == "little" else ">"
                    assert membership_bytes(change, order) == piece.raw
                    compared += 1
                case SelfLeave(group) if piece.meaning["byte_order"] == "little":
                    assert self_leave_bytes(group) == piece.raw
                    compared += 1
    assert compared > 100


def test_members_come_talk_and_go(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        one, two = await joined(daemon, 1, 2)
        assert isinstance(one.events[0], Joined)
        assert one.events[0].me == 1
        assert one.views()[-1].id == two.views()[-1].id
        for i in range(DISPATCH_BUDGET * 3):
            one.engine.multicast(b"%d" % i)
        two.engine.multicast(b"last")
        for member in (one, two):
            await member.until(lambda member=member: len(member.payloads()) == DISPATCH_BUDGET * 3 + 1)  # type: ignore[misc]
        assert one.payloads() == two.payloads()
        assert [p for s, p in one.payloads() if s == 1] == [b"%d" % i for i in range(DISPATCH_BUDGET * 3)]
        await two.engine.leave()
        before = list(two.events)
        await one.until(lambda: one.members() == [1])
        assert one.views()[-1].left == ((NodeId(2), Left.LEFT),)
        assert two.events == before
        await one.engine.leave()
        assert not daemon.sessions

    run(tmp_path, story)


def test_the_largest_payload(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        one, two = await joined(daemon, 1, 2)
        whole = bytes(range(250)) * (PAYLOAD_BYTES_MAX // 250)
        one.engine.multicast(whole)
        await two.until(lambda: two.payloads() == [(1, whole)])
        with pytest.raises(ValueError, match="larger than"):
            one.engine.multicast(whole + b"x")

    run(tmp_path, story)


def test_joining_again(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        one, two = await joined(daemon, 1, 2)
        await one.engine.rejoin("asked to")
        assert one.events[-1] == Lost("asked to")
        one.engine.multicast(b"into the void")
        await one.until(lambda: one.count(Joined) == 2 and one.members() == [1, 2])
        first, second = (e.incarnation for e in one.events if isinstance(e, Joined))
        assert first != second
        await two.until(lambda: len(two.views()) >= 3 and two.members() == [1, 2])
        assert two.views()[-2].left == ((NodeId(1), Left.LEFT),)
        assert two.views()[-1].joined == (NodeId(1),)
        assert (1, b"into the void") not in two.payloads()

    run(tmp_path, story)


def test_a_daemon_that_dies_and_one_that_is_not_there_yet(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        (one,) = await joined(daemon, 1)
        await daemon.stop()
        await one.until(lambda: bool(one.count(Lost)) and bool(one.records))
        assert one.records[0][0] == "engine_unreachable"
        assert one.engine.describe()["state"] == "connecting"
        await daemon.start()
        await one.until(lambda: one.count(Joined) == 2 and one.members() == [1])
        assert one.engine.describe()["reconnects"] == "1"

    run(tmp_path, story)


def test_it_gives_up_on_nothing_and_tells_each_reason_once(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        daemon.answers = [b"\xfa", b"\xfd", b"\xfd", b"", b"\5NULL \2", b"\x02"]
        one = member_of(daemon, 1)
        await one.engine.start(one.hear)
        await one.until(lambda: one.members() == [1])
        assert not daemon.answers
        reasons = [str(fields["reason"]) for _, fields in one.records]
        assert len(reasons) == 5
        for part, reason in zip(("in use", "too many", "hung up", "no Spread daemon", "hung up"), reasons, strict=True):
            assert part in reason
        daemon.version = (3, 17, 4)
        await one.engine.rejoin("asked to")
        await one.until(lambda: "too old" in str(one.records[-1][1]["reason"]))
        await one.engine.leave()

    run(tmp_path, story)


def test_what_is_not_the_protocol_ends_the_connection(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        (one,) = await joined(daemon, 1)
        daemon.send(one.engine.describe()["session"], b"\x80" + bytes(47))
        await one.until(lambda: one.count(Joined) == 2)
        (lost,) = [e for e in one.events if isinstance(e, Lost)]
        assert "without a byte order" in lost.reason

    run(tmp_path, story)


def test_a_message_that_is_cut_by_the_end_of_the_connection_is_no_message(tmp_path: Path) -> None:
    """What being dropped as a slow reader looks like."""

    async def story(daemon: SpreadDaemon) -> None:
        (one,) = await joined(daemon, 1)
        name = one.engine.describe()["session"]
        daemon.send(name, message_bytes(AGREED, name, ("g",), bytes(100))[:-1])
        daemon.sessions[name].writer.close()
        await one.until(lambda: one.count(Lost) == 1)
        assert one.payloads() == []
        await one.until(lambda: one.count(Joined) == 2)

    run(tmp_path, story)


def test_a_daemon_that_hangs_up_again_and_again_is_tried_ever_more_slowly(tmp_path: Path) -> None:
    """Each time costs the other members an exchange."""

    async def story(daemon: SpreadDaemon) -> None:
        one = member_of(daemon, 1, retry_s=0.3)
        await one.engine.start(one.hear)
        loop = asyncio.get_running_loop()
        times = []
        for count in range(1, 9):
            await one.until(lambda count=count: one.count(NewView) == count)  # type: ignore[misc]
            times.append(loop.time())
            daemon.sessions[one.engine.describe()["session"]].writer.transport.abort()
            await one.until(lambda count=count: one.count(Lost) == count)  # type: ignore[misc]
        pauses = [after - before for before, after in pairwise(times)]
        grown = [RETRY_SECONDS_MIN * RETRY_FACTOR**n for n in range(len(pauses))]
        assert all(pause >= least for pause, least in zip(pauses, grown, strict=True))

    run(tmp_path, story)


def test_more_than_the_inbox_holds_is_read_bit_by_bit(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        one, two = await joined(daemon, 1, 2)
        part = bytes(100_000)
        for _ in range(3 * INBOX_BYTES_MAX // len(part)):
            one.engine.multicast(part)
        one.engine.multicast(b"end")
        await two.until(lambda: two.payloads()[-1:] == [(1, b"end")])
        assert len(two.payloads()) == 3 * INBOX_BYTES_MAX // len(part) + 1

    run(tmp_path, story)


def test_a_daemon_that_reads_nothing_is_lost_before_memory_is(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        (one,) = await joined(daemon, 1)
        daemon.sessions[one.engine.describe()["session"]].writer.transport.pause_reading()  # type: ignore[attr-defined]
        # all in one turn of the loop: nothing can be read meanwhile
        for _ in range(2 + (OUTBOX_BYTES_MAX << 1) // PAYLOAD_BYTES_MAX):
            one.engine.multicast(bytes(PAYLOAD_BYTES_MAX))
        await one.until(lambda: one.count(Lost) == 1)
        assert any(isinstance(e, Lost) and "took none" in e.reason for e in one.events)

    run(tmp_path, story)


def test_a_second_process_of_a_node_waits_outside(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        (one,) = await joined(daemon, 1)
        second = member_of(daemon, 1)
        await second.engine.start(second.hear)
        await second.until(lambda: second.count(Lost) == 2)
        assert second.count(Joined) == 0
        assert one.count(Lost) == 0
        await one.engine.leave()
        await second.until(lambda: second.members() == [1])

    run(tmp_path, story)


def test_leaving_while_it_still_tries_to_connect(tmp_path: Path) -> None:
    async def story(daemon: SpreadDaemon) -> None:
        await daemon.stop()
        one = member_of(daemon, 1)
        await one.engine.start(one.hear)
        await one.until(lambda: bool(one.records))
        await one.engine.leave()
        await daemon.start()
        assert one.events == []

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4803@localhost", SpreadAddress("", "localhost", 4803)),
        ("4803@::1", SpreadAddress("", "::1", 4803)),
        ("4803", SpreadAddress("/tmp/4803")),
        ("/run/spread/4803", SpreadAddress("/run/spread/4803")),
    ],
)
def test_addresses(text: str, found: SpreadAddress) -> None:
    assert spread_address(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "0@localhost", "65536", "4803@", "4803@a b", "4803@a..b", "4803@" + "a" * 64, "/" + "x" * 107],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is "):
        spread_address(text)


def test_every_cluster_has_a_group_of_its_own() -> None:
    names = ["web", "w" * 21, "w" * 22, "w" * 63, "v" * 63, "a.b:c_d-e"]
    groups = [group_name(n) for n in names]
    assert groups[0] == "wackamole/web"
    assert len(set(groups)) == len(names)
    assert all(is_name(g, GROUP_NAME_MAX) for g in groups)
