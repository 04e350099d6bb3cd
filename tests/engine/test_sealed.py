"""Seals: what a member with the key said now passes, and nothing else does."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.core.model import NodeId
from wackamole.engine.contract import PAYLOAD_BYTES_MAX, SEAL_BYTES_MAX, Delivered, EngineEvent, Joined, NewView
from wackamole.engine.memory import MemoryEngine, Network
from wackamole.engine.sealed import HEARD_MAX, SEAL_BYTES, NotOurs, Seal, SealedEngine

OLD, NEW, OTHER = b"the old secret of it", b"the new secret of it", b"somebody else's secret"
A, B = NodeId(1), NodeId(2)


def seal(*secrets: bytes, cluster: str = "web") -> Seal:
    return Seal(cluster, secrets or (OLD,))


def test_a_payload_passes_once() -> None:
    one, two = seal(), seal()
    first, second = (one.close(A, 7, n, b"hello %d" % n) for n in (1, 2))
    assert len(first) == len(b"hello 1") + SEAL_BYTES
    assert two.open(A, first) == b"hello 1"
    assert two.open(A, second) == b"hello 2"
    for again in (first, second):
        with pytest.raises(NotOurs, match="said before"):
            two.open(A, again)
    assert two.open(A, one.close(A, 8, 1, b"")) == b""
    with pytest.raises(NotOurs, match="said before"):
        two.open(A, one.close(A, 7, 2, b"an incarnation that is over"))


def test_what_was_lost_in_between_is_no_harm_and_does_not_pass_later() -> None:
    one, two = seal(), seal()
    late, soon = one.close(A, 7, 1, b"late"), one.close(A, 7, 5, b"soon")
    assert two.open(A, soon) == b"soon"
    with pytest.raises(NotOurs, match="said before"):
        two.open(A, late)


@pytest.mark.parametrize("stranger", [seal(OTHER), seal(cluster="db")])
def test_another_key_or_cluster_does_not_pass(stranger: Seal) -> None:
    with pytest.raises(NotOurs, match="not made with a key"):
        seal().open(A, stranger.close(A, 7, 1, b"hello"))


def test_a_seal_is_its_senders() -> None:
    with pytest.raises(NotOurs, match="not made with a key"):
        seal().open(B, seal().close(A, 7, 1, b"hello"))


def test_a_key_is_changed_without_an_outage() -> None:
    """Node by node: both valid and the old one signs, then the new one signs, then the old one is gone."""
    steps = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]
    for before, after in itertools.pairwise(steps):
        for sender, receiver in ((before, after), (after, before)):
            assert seal(*receiver).open(A, seal(*sender).close(A, 7, 1, b"hello")) == b"hello"
    with pytest.raises(NotOurs):
        seal(NEW).open(A, seal(OLD).close(A, 7, 1, b"hello"))
    with pytest.raises(ValueError, match="no secret"):
        Seal("web", ())


@given(st.binary(max_size=100))
def test_rubbish_does_not_pass(raw: bytes) -> None:
    with pytest.raises(NotOurs):
        seal().open(A, raw)


@given(st.integers(0, SEAL_BYTES + 4), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, by: int) -> None:
    raw = bytearray(seal().close(A, 7, 1, b"hello"))
    raw[at] ^= by
    with pytest.raises(NotOurs):
        seal().open(A, bytes(raw))


def test_memory_of_incarnations_is_bounded() -> None:
    one, two = seal(), seal()
    for incarnation in range(HEARD_MAX + 10):
        two.open(A, one.close(A, incarnation, 1, b""))
    assert len(two._heard) == HEARD_MAX


@dataclass
class Member:
    """A sealed engine, and the plain one within."""

    inner: MemoryEngine
    engine: SealedEngine
    events: list[EngineEvent] = field(default_factory=list)
    refused: list[tuple[NodeId, str]] = field(default_factory=list)

    def payloads(self) -> list[bytes]:
        return [e.payload for e in self.events if isinstance(e, Delivered)]


def note(refused: list[tuple[NodeId, str]], sender: NodeId, why: NotOurs) -> None:
    refused.append((sender, str(why)))


async def members(*secrets: bytes) -> list[Member]:
    network, peers = Network(), list[MemoryEngine]()
    found = []
    for node, secret in enumerate(secrets, 1):
        refused: list[tuple[NodeId, str]] = []
        inner = MemoryEngine(network, NodeId(node), peers)
        sealed = SealedEngine(inner, seal(secret), on_refused=partial(note, refused))
        found.append(Member(inner, sealed, refused=refused))
        await sealed.start(found[-1].events.append)
    await turns()
    return found


async def turns() -> None:
    """The memory engine needs a turn of the loop for 64 events."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_members_with_the_key_hear_each_other_and_no_one_else() -> None:
    async def story() -> None:
        one, two, stranger = await members(OLD, OLD, OTHER)
        assert isinstance(one.events[0], Joined)
        assert isinstance(one.events[1], NewView)
        for text in (b"first", b"second"):
            one.engine.multicast(text)
        stranger.engine.multicast(b"let me in")
        await turns()
        assert one.payloads() == two.payloads() == [b"first", b"second"]
        assert stranger.payloads() == [b"let me in"]
        # what anybody can do who hears the network: say it again, as another or as oneself
        network_heard = two.engine.seal.close(A, 1, 1, b"forged")
        stranger.inner.multicast(network_heard)
        await turns()
        assert one.payloads() == [b"first", b"second"]
        assert one.engine.describe()["refused"] == "2"
        assert one.refused == [(3, "its seal is not made with a key of this cluster")] * 2

    asyncio.run(story())


def test_joining_again_starts_the_counter_anew() -> None:
    async def story() -> None:
        one, two = await members(OLD, OLD)
        one.engine.multicast(b"before")
        await turns()
        await one.engine.rejoin("asked to")
        one.engine.multicast(b"into the void")
        await turns()
        one.engine.multicast(b"after")
        await turns()
        assert two.payloads() == [b"before", b"after"]
        assert two.engine.describe()["refused"] == "0"
        await one.engine.leave()

    asyncio.run(story())


def test_the_largest_payload_with_its_seal_fits_into_every_engine() -> None:
    async def story() -> None:
        one, two = await members(OLD, OLD)
        whole = bytes(PAYLOAD_BYTES_MAX - SEAL_BYTES_MAX)
        one.engine.multicast(whole)
        await turns()
        assert two.payloads() == [whole]
        with pytest.raises(ValueError, match="larger than"):
            one.engine.multicast(whole + b"x")

    asyncio.run(story())
