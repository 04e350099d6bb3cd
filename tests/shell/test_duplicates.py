"""Other hosts' claims on VIPs: heard in real network namespaces, counted, and answered."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from wackamole.core.model import Address, NotEligible, Vip
from wackamole.lab.namespaces import ip, opened_in
from wackamole.shell.kernel.announce import SCHEDULE_MS, frames, gratuitous_arp, neighbour_advertisement
from wackamole.shell.kernel.claims import CLAIMS_PER_TURN, Claim, Ears, claim_in
from wackamole.shell.kernel.duplicates import (
    AWAY_SECONDS_MAX,
    AWAY_SECONDS_MIN,
    CLAIMANTS_MAX,
    CLAIMS_SECONDS,
    Duplicates,
)
from wackamole.shell.kernel.fence import Guarded
from wackamole.shell.kernel.rtnl import Placed
from wackamole.shell.kernel.surroundings import packed

from .test_kernel import HOST, MAC, PEER, V4, V6, WITHIN_SECONDS, Host, heard, network, on_the_host

__all__ = ["network"]

STRANGER = bytes.fromhex("02bad0000001")
FOUR, SIX = packed("10.9.1.1"), packed("fd09::1:1")
OTHER = Vip("other", (Address("10.9.1.5", 32, "eth0"),))


def probe(mac: bytes, ip: bytes) -> bytes:
    """Who wants to know whether an address is free asks as 0.0.0.0 (RFC 5227, 2.1.1)."""
    header = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return b"\xff" * 6 + mac + b"\x08\x06" + header + mac + bytes(4) + bytes(6) + ip + bytes(18)


# -- what a frame claims ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "ip"),
    [
        (gratuitous_arp(STRANGER, FOUR, reply=1), FOUR),
        (gratuitous_arp(STRANGER, FOUR, reply=2), FOUR),
        (neighbour_advertisement(STRANGER, SIX), SIX),
        (neighbour_advertisement(STRANGER, SIX)[:-8], SIX),  # a solicited one may leave the link-layer address out
    ],
)
def test_every_form_of_a_claim_is_read(frame: bytes, ip: bytes) -> None:
    assert claim_in(frame, 7) == Claim(7, ip, STRANGER)


def test_what_is_no_claim_is_none() -> None:
    arp, advertised = gratuitous_arp(STRANGER, FOUR, reply=1), neighbour_advertisement(STRANGER, SIX)
    assert claim_in(probe(STRANGER, FOUR), 1) is None
    for cut in range(14 + 28):
        assert claim_in(arp[:cut], 1) is None
    for cut in range(14 + 40 + 24):
        assert claim_in(advertised[:cut], 1) is None
    solicitation = advertised[:54] + b"\x87" + advertised[55:]
    assert claim_in(solicitation, 1) is None
    token_ring = arp[:14] + b"\0\x06" + arp[16:]
    assert claim_in(token_ring, 1) is None


# -- what is done about claims ------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A watch of V4 and V6, both held on interface 1, and everything that it did. `now`: its clock."""

    withdraw_after: int | None = None
    now: float = 1000.0
    wanted: tuple[Vip, ...] = (V4, V6)
    held: frozenset[Placed] = frozenset({Placed(FOUR, 32, 1), Placed(SIX, 128, 1)})
    announced: list[Vip] = field(default_factory=list)
    records: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    eligibility: list[dict[str, NotEligible | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watch = Duplicates(
            lambda: (self.held, self.wanted),
            lambda: (MAC,),
            announce=self.announced.extend,
            on_eligibility=lambda: self.eligibility.append({v.name: self.watch.why_not(v) for v in (V4, V6)}),
            on_record=lambda what, fields: self.records.append((what, fields)),
            withdraw_after=self.withdraw_after,
            clock=lambda: self.now,
        )

    def claim(self, mac: bytes = STRANGER, ip: bytes = FOUR, index: int = 1) -> None:
        self.watch.claimed(Claim(index, ip, mac))


def on_a_loop(story: Callable[[], None]) -> None:
    async def main() -> None:
        story()

    asyncio.run(main())


def test_claims_are_counted_by_hardware_address_and_answered_once_a_second() -> None:
    w = Watched()
    for _ in range(5):
        w.claim()
    w.claim(ip=SIX)
    assert [v.name for v in w.announced] == ["v4", "v6"]
    assert w.records[0] == ("duplicate", {"vip": "v4", "mac": "02:ba:d0:00:00:01", "count": "1"})
    w.now += 1.0
    w.claim(mac=bytes.fromhex("02bad0000002"))
    assert [v.name for v in w.announced] == ["v4", "v6", "v4"]
    assert w.records[-1] == ("duplicate", {"vip": "v4", "mac": "02:ba:d0:00:00:02", "count": "1"})
    told = w.watch.describe()
    assert [(c["mac"], c["count"]) for c in told[V4.key]] == [("02:ba:d0:00:00:02", 1), ("02:ba:d0:00:00:01", 5)]
    assert [(c["mac"], c["count"]) for c in told[V6.key]] == [("02:ba:d0:00:00:01", 1)]
    assert len(w.watch.warnings()) == 3


def test_only_what_is_held_here_and_stays_here_can_be_claimed() -> None:
    w = Watched()
    w.claim(mac=MAC)  # our own, come back to us
    w.claim(ip=packed("10.9.1.99"))
    w.claim(index=2)
    w.wanted = (V6,)  # it is on its way out: the interface has it still
    w.claim()
    w.wanted, w.held = (V4, V6), frozenset()  # it is on its way in
    w.claim()
    assert (w.watch.describe(), w.announced, w.records) == ({}, [], [])
    w.held = frozenset({Placed(FOUR, 32, 1)})
    w.claim()
    assert list(w.watch.describe()) == [V4.key]


def test_who_keeps_claiming_wins_for_a_minute_then_for_longer() -> None:
    def story() -> None:
        w = Watched(withdraw_after=3)
        waits = []
        for _ in range(6):
            for _ in range(3):
                assert w.watch.why_not(V4) is None
                for _ in range(10):  # one announcement is several frames
                    w.claim()
                w.now += 1.0
            assert w.watch.why_not(V4) is NotEligible.DUPLICATE
            assert w.eligibility[-1] == {"v4": NotEligible.DUPLICATE, "v6": None}
            waits.append(float(w.records[-1][1]["seconds"]))
            w.now += waits[-1] - 1.5
            assert w.watch.why_not(V4) is NotEligible.DUPLICATE
            w.now += 0.5
        assert waits == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
        assert (waits[0], waits[-1]) == (AWAY_SECONDS_MIN, AWAY_SECONDS_MAX)
        assert len(w.announced) == 2 * 6  # two of three: the third was given in to
        w.now += AWAY_SECONDS_MAX
        for _ in range(3):
            w.claim()
            w.now += 1.0
        assert w.records[-1] == ("duplicate_withdrawn", {"vip": "v4", "seconds": "60"})
        w.watch.close()

    on_a_loop(story)


def test_claims_that_are_far_apart_do_not_add_up() -> None:
    w = Watched(withdraw_after=3)
    for _ in range(20):
        w.claim()
        w.now += CLAIMS_SECONDS / 2 + 0.1
    assert w.watch.why_not(V4) is None
    assert len(w.announced) == 20


def test_a_flood_from_ever_new_addresses_is_bounded() -> None:
    w = Watched()
    for number in range(10_000):
        w.claim(mac=b"\x02\xba" + number.to_bytes(4))
    told = w.watch.describe()[V4.key]
    assert len(told) == CLAIMANTS_MAX
    assert told[0]["mac"] == f"02:ba:{(9_999).to_bytes(4).hex(':')}"
    assert len(w.records) == len(w.announced) == 1


# -- on a wire ----------------------------------------------------------------------------------------------------------


def opened_on(namespace: str, protocol: int = 0) -> socket.socket:
    """A packet socket on a host's eth0."""

    def opened() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        s.bind(("eth0", protocol))
        return s

    return opened_in(namespace, opened)


def told(host: Host, vip: Vip) -> dict[object, object]:
    """Who claimed a VIP, and how often."""
    return {c["mac"]: c["count"] for c in host.kernel.duplicates.describe().get(vip.key, [])}


async def until(fact: Callable[[], bool]) -> None:
    """Let the loop go on until there is a fact."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while not fact():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)


@pytest.mark.lab
@pytest.mark.parametrize(
    ("vip", "frame"),
    [
        (V4, gratuitous_arp(STRANGER, FOUR, reply=1)),
        (V4, gratuitous_arp(STRANGER, FOUR, reply=2)),
        (V6, neighbour_advertisement(STRANGER, SIX)),
    ],
    ids=["request", "reply", "advertisement"],
)
def test_a_second_host_that_claims_a_vip_is_told_by_its_hardware_address(network: None, vip: Vip, frame: bytes) -> None:
    with opened_on(PEER) as stranger:

        async def story(host: Host) -> None:
            await host.hold(1, V4, V6)
            stranger.send(frame)
            await host.until(lambda: any(what == "duplicate" for what, _ in host.records))
            records = [fields for what, fields in host.records if what == "duplicate"]
            assert records == [{"vip": vip.name, "mac": STRANGER.hex(":"), "count": "1"}]
            stranger.send(frame)
            await until(lambda: told(host, vip) == {STRANGER.hex(":"): 2})
            assert host.eligibility == [{}]

        on_the_host(story, V4, V6)


@pytest.mark.lab
def test_a_claim_is_answered_on_the_segment_by_announcing_again(network: None) -> None:
    ours = set(frames(MAC, FOUR))
    once, read_once = heard(len(SCHEDULE_MS) * len(ours), lambda frame: frame in ours)
    again, read_again = heard((len(SCHEDULE_MS) + 1) * len(ours), lambda frame: frame in ours)
    with once, again, opened_on(PEER) as stranger:

        async def story(host: Host) -> None:
            await host.hold(1, V4)
            await asyncio.to_thread(read_once)  # everything that it says by itself
            stranger.send(gratuitous_arp(STRANGER, FOUR, reply=1))
            await asyncio.to_thread(read_again)

        on_the_host(story, V4)


@pytest.mark.lab
def test_own_announcements_own_frames_and_probes_are_no_claims(network: None) -> None:
    ip("link add eth7 address 02:00:00:00:00:07 type veth peer name eth8", namespace=HOST)
    with opened_on(PEER) as stranger:

        async def story(host: Host) -> None:
            await host.hold(1, V4)
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with s:
                s.bind(("10.9.1.1", 0))
                s.sendto(b"x", ("10.9.0.77", 9))  # the kernel asks for a host that is not there, as the VIP
            for mac in (MAC, bytes.fromhex("020000000007")):  # what a switch sends back, and another interface of ours
                stranger.send(gratuitous_arp(mac, FOUR, reply=1))
            stranger.send(probe(STRANGER, FOUR))
            stranger.send(gratuitous_arp(STRANGER, packed("10.9.1.5"), reply=1))  # a VIP, but not held here
            stranger.send(gratuitous_arp(STRANGER, FOUR, reply=2))  # one that is a claim, after all that was none
            await until(lambda: told(host, V4) != {})
            assert host.kernel.duplicates.describe().keys() == {V4.key}
            assert told(host, V4) == {STRANGER.hex(":"): 1}

        on_the_host(story, V4, OTHER)


@pytest.mark.lab
def test_a_vip_that_is_claimed_again_and_again_is_withdrawn(network: None) -> None:
    with opened_on(PEER) as stranger:

        async def story(host: Host) -> None:
            await host.hold(1, V4, V6)
            claims = 0
            while host.eligibility[-1] == {}:
                claims += 1
                stranger.send(gratuitous_arp(STRANGER, FOUR, reply=1))
                await until(lambda: told(host, V4) == {STRANGER.hex(":"): claims})  # noqa: B023
            assert host.eligibility[-1] == {V4.key: NotEligible.DUPLICATE}
            assert claims > 1
            assert host.records[-1] == ("duplicate_withdrawn", {"vip": "v4", "seconds": "60"})

        on_the_host(story, V4, V6, withdraw_after=2)


@pytest.mark.lab
def test_an_interface_that_is_made_anew_is_listened_to(network: None) -> None:
    async def story(host: Host) -> None:
        await host.hold(1, V4)
        ip("link del eth0", namespace=HOST)
        await host.until(lambda: host.eligibility[-1] == {V4.key: NotEligible.NO_INTERFACE})
        ip(f"link add eth0 address {MAC.hex(':')} type veth peer name eth0 netns {PEER}", namespace=HOST)
        ip("link set eth0 up", namespace=PEER)
        ip("link set eth0 up", namespace=HOST)
        await host.until(lambda: host.eligibility[-1] == {})
        await host.hold(2, V4)
        with opened_on(PEER) as stranger:
            stranger.send(gratuitous_arp(STRANGER, FOUR, reply=1))
            await until(lambda: told(host, V4) != {})

    on_the_host(story, V4)


@pytest.mark.lab
def test_in_a_flood_a_turn_of_the_loop_reads_a_few_and_the_kernel_drops_the_rest(network: None) -> None:
    claims: list[Claim] = []
    floods = [gratuitous_arp(b"\x02\xba" + n.to_bytes(4), FOUR, reply=1) for n in range(10_000)]

    async def main() -> None:
        ears = Ears(claims.append)
        ears.listen((Guarded(socket.if_nametoindex("eth0"), "eth0", frozenset({FOUR, SIX})),))
        assert ears.deaf == {}
        with opened_on(PEER) as stranger:
            for frame in floods:
                stranger.send(frame)  # all before this loop turns once
        before, turns = 0, 0
        while len(claims) > before or turns < 2:
            before, turns = len(claims), turns + 1
            await asyncio.sleep(0)
            assert len(claims) - before <= CLAIMS_PER_TURN
        ears.close()
        assert turns > 2
        assert 0 < len(claims) < len(floods) / 10
        assert claims[0].mac == floods[0][6:12]

    opened_in(HOST, lambda: asyncio.run(main()))
