"""Asking a segment who has a VIP: what is asked, when, and what the answers mean."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from wackamole.core.model import Address, NodeId, OnWire, Vip, VipKey
from wackamole.lab.namespaces import ip, opened_in, tool
from wackamole.shell.kernel.claims import Claim
from wackamole.shell.kernel.kernel import Kernel, KernelConfig
from wackamole.shell.kernel.surroundings import packed
from wackamole.shell.kernel.witness import QUESTIONS_PER_SECOND, Place, Witness

from .test_kernel import BOTH, HOST, PEER, V4, V6, WITHIN_SECONDS, network

__all__ = ["network"]

THIRD = f"{PEER}-3"
B, C = NodeId(2), NodeId(3)
ONE, TWO = bytes.fromhex("02bad0000001"), bytes.fromhex("02bad0000002")


@dataclass
class Segment:
    """A segment on which answers come at once, by address: the hardware addresses of the first question, the second, …"""

    answers: dict[str, list[tuple[bytes, ...]]] = field(default_factory=dict)
    asked: list[tuple[str, float]] = field(default_factory=list)
    results: list[tuple[VipKey, NodeId, OnWire]] = field(default_factory=list)
    unreachable: frozenset[str] = frozenset()
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.witness = Witness(self.ask, self.result)

    def ask(self, address: Address) -> Place | None:
        if address.ip in self.unreachable:
            return None
        self.asked.append((address.ip, asyncio.get_running_loop().time()))
        times = sum(1 for text, _ in self.asked if text == address.ip)
        heard = self.answers.get(address.ip, [])
        for mac in heard[min(times, len(heard)) - 1] if heard else ():
            asyncio.get_running_loop().call_soon(self.witness.heard, Claim(1, packed(address.ip), mac))
        return 1, packed(address.ip)

    def result(self, key: VipKey, holder: NodeId, result: OnWire) -> None:
        self.results.append((key, holder, result))
        self.news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while len(self.results) < count:
                self.news.clear()
                await self.news.wait()


def on_a_segment(story: Callable[[Segment], Awaitable[None]]) -> None:
    async def main() -> None:
        segment = Segment()
        await story(segment)
        segment.witness.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answers", "asked", "result"),
    [
        ([(ONE,)], 1, OnWire.VERIFIED),
        ([(ONE, ONE, ONE)], 1, OnWire.VERIFIED),
        ([(ONE, TWO)], 1, OnWire.DUPLICATE),
        ([(), (ONE,)], 2, OnWire.VERIFIED),
        ([(), ()], 2, OnWire.SILENT),
    ],
)
def test_the_hardware_addresses_that_answer_are_counted(
    answers: list[tuple[bytes, ...]], asked: int, result: OnWire
) -> None:
    async def story(s: Segment) -> None:
        s.answers["10.9.1.1"] = answers
        s.witness.look(V4, B)
        await s.until(1)
        assert s.results == [(V4.key, B, result)]
        assert len(s.asked) == asked

    on_a_segment(story)


def test_a_vip_is_as_good_as_its_worst_address() -> None:
    async def story(s: Segment) -> None:
        s.answers = {"10.9.1.2": [(ONE,)]}
        s.witness.look(BOTH, B)
        await s.until(1)
        s.answers = {"10.9.1.2": [(ONE,)], "fd09::1:2": [(ONE, TWO)]}
        s.witness.look(BOTH, B)
        await s.until(2)
        assert [result for _, _, result in s.results] == [OnWire.SILENT, OnWire.DUPLICATE]

    on_a_segment(story)


def test_only_the_newest_holder_is_looked_at() -> None:
    async def story(s: Segment) -> None:
        s.answers = {"10.9.1.1": [(ONE,)], "fd09::1:1": [(ONE,)]}
        s.witness.look(V4, B)
        s.witness.look(V4, C)
        s.witness.look(V6, B)
        await s.until(2)
        assert s.results == [(V4.key, C, OnWire.VERIFIED), (V6.key, B, OnWire.VERIFIED)]

    on_a_segment(story)


def test_without_a_way_to_ask_nothing_is_said() -> None:
    async def story(s: Segment) -> None:
        s.unreachable = frozenset({"10.9.1.1", "fd09::1:2"})
        s.answers = {"10.9.1.2": [(ONE,)], "fd09::1:1": [(ONE,)]}
        for vip in (V4, BOTH, V6):
            s.witness.look(vip, B)
        await s.until(1)
        assert s.results == [(V6.key, B, OnWire.VERIFIED)]

    on_a_segment(story)


def test_many_at_once_queue_for_their_turn() -> None:
    vips = [Vip(f"v{i}", (Address(f"10.9.2.{i}", 32),)) for i in range(1, 41)]

    async def story(s: Segment) -> None:
        s.answers = {v.addresses[0].ip: [(ONE,)] for v in vips}
        for vip in vips:
            s.witness.look(vip, B)
        await s.until(len(vips))
        assert [key for key, _, _ in s.results] == [v.key for v in vips]
        times = [at for _, at in s.asked]
        # a timer never fires before its time, by more than the clock's resolution
        assert all(later - at > 0.99 / QUESTIONS_PER_SECOND for at, later in pairwise(times))

    on_a_segment(story)


# -- real kernels -------------------------------------------------------------------------------------------------------


@pytest.fixture
def segment(network: None) -> Iterator[None]:
    """A third host: all three on a switch, which is HOST's bridge."""
    tool("ip", "netns", "add", THIRD)
    try:
        ip(f"link add port3 type veth peer name eth0 netns {THIRD}",
           "link set eth0 name port2", "link add eth0 type bridge forward_delay 0 mcast_snooping 0", "link set port2 master eth0",
           "link set port3 master eth0", "addr flush dev port2", "addr add 10.9.0.1/16 dev eth0",
           "link set port2 up", "link set port3 up", "link set eth0 up", "addr add fd09::1/64 dev eth0 nodad",
           namespace=HOST)  # fmt: skip
        ip("link set lo up", "addr add 10.9.0.3/16 dev eth0", "addr add fd09::3/64 dev eth0 nodad", "link set eth0 up",
           namespace=THIRD)  # fmt: skip
        yield
    finally:
        tool("ip", "netns", "delete", THIRD)


def witnessed(*vips: Vip) -> dict[VipKey, OnWire]:
    """What HOST hears when it asks for these."""
    found: dict[VipKey, OnWire] = {}

    async def main() -> None:
        news = asyncio.Event()

        def result(key: VipKey, _holder: NodeId, heard: OnWire) -> None:
            found[key] = heard
            news.set()

        kernel = Kernel(
            KernelConfig(vips),
            on_confirmed=lambda *_: None,
            on_eligibility=lambda *_: None,
            on_record=lambda *_: None,
            on_witnessed=result,
        )
        await kernel.start()
        try:
            for vip in vips:
                kernel.witness.look(vip, B)
            async with asyncio.timeout(WITHIN_SECONDS):
                while len(found) < len(vips):
                    news.clear()
                    await news.wait()
        finally:
            await kernel.close()

    opened_in(HOST, lambda: asyncio.run(main()))
    return found


@pytest.mark.lab
def test_one_host_two_hosts_or_none_answer(segment: None) -> None:
    for namespace, own in ((PEER, (V4, V6, BOTH)), (THIRD, (BOTH,))):
        addresses = [a.ip for vip in own for a in vip.addresses]
        ip(*[f"addr add {a} dev eth0{' nodad' * (':' in a)}" for a in addresses], namespace=namespace)
    nobody4, nobody6 = (
        Vip(f"nobody{i}", (Address(a, 32 * i, "eth0"),)) for i, a in ((1, "10.9.1.9"), (4, "fd09::1:9"))
    )
    assert witnessed(V4, V6, BOTH, nobody4, nobody6) == {
        V4.key: OnWire.VERIFIED,
        V6.key: OnWire.VERIFIED,
        BOTH.key: OnWire.DUPLICATE,
        nobody4.key: OnWire.SILENT,
        nobody6.key: OnWire.SILENT,
    }


@pytest.mark.lab
def test_questions_are_asked_as_an_own_address(network: None) -> None:
    def listening() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        s.bind(("eth0", 0x0806))
        s.settimeout(WITHIN_SECONDS)
        return s

    ip("addr add 10.9.1.1/32 dev eth0", namespace=PEER)
    with opened_in(PEER, listening) as s:
        assert witnessed(V4) == {V4.key: OnWire.VERIFIED}
        frame = s.recv(2048)
        while frame[38:42] != packed("10.9.1.1"):  # until somebody asks for it
            frame = s.recv(2048)
        assert frame[28:32] == packed("10.9.0.1")
