"""Telling a list of hosts: whom, what, how fast, and when no longer."""

from __future__ import annotations

import asyncio
import ipaddress
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.advice import NEIGHBOURS_MAX, Neighbours, Segment
from wackamole.config import RANGE_MAX, HostsConfig
from wackamole.core.model import Address, Vip
from wackamole.lab.namespaces import ip, opened_in, tool
from wackamole.shell.kernel.announce import Announcement, Sender, checksum
from wackamole.shell.kernel.listed import (
    FRAMES_PER_TURN,
    Cache,
    Course,
    Entry,
    Listed,
    Notify,
    Rounds,
    echo_request,
    frames_for,
    hosts_of,
)
from wackamole.shell.kernel.neighbourhood import NEIGHBOURS_KEPT_MAX, Neighbourhood, own_neighbours
from wackamole.shell.kernel.rtnl import Link, Neighbour, Placed
from wackamole.shell.kernel.surroundings import Surroundings, network_of, packed

from .test_kernel import BOTH, HOST, MAC, PEER, V4, V6, WITHIN_SECONDS, Host, heard, network, on_the_host

__all__ = ["network"]

THERE, ELSEWHERE = bytes.fromhex("02bad0000001"), bytes.fromhex("02bad0000002")


def hosts(text: str, throttle: int = 128, *, ping: bool = False, interface: str = "") -> HostsConfig:
    return HostsConfig(ipaddress.ip_network(text), interface, throttle, ping)


def vip(last: int) -> Announcement:
    return Announcement(packed(f"10.9.1.{last}"), "eth0", MAC)


# -- whom ---------------------------------------------------------------------------------------------------------------


def told(entry: str, *links: str) -> list[str]:
    networks = [network_of(n.network_address.packed, n.prefixlen) for n in map(ipaddress.ip_network, links)]
    return [str(ipaddress.ip_address(found)) for found in hosts_of(hosts(entry), networks)]


@pytest.mark.parametrize(
    ("entry", "links", "found"),
    [
        ("10.0.0.1", ["10.0.0.0/24"], ["10.0.0.1"]),
        ("10.0.0.1", [], ["10.0.0.1"]),
        ("10.0.1.1", ["10.0.0.0/24"], []),
        ("10.0.0.0/30", ["10.0.0.0/24"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("10.0.0.252/30", ["10.0.0.0/24"], ["10.0.0.252", "10.0.0.253", "10.0.0.254"]),
        ("10.0.0.0/30", [], ["10.0.0.1", "10.0.0.2"]),
        ("10.0.0.0/24", ["10.0.0.4/30"], ["10.0.0.5", "10.0.0.6"]),
        ("10.0.0.0/16", ["10.0.0.4/30", "10.0.0.4/31"], ["10.0.0.5", "10.0.0.6"]),
        ("10.0.0.0/16", ["10.0.0.4/30", "10.1.0.0/24", "10.0.7.8/31"], ["10.0.0.5", "10.0.0.6", "10.0.7.8", "10.0.7.9"]),
        ("10.0.0.0/24", ["fd00::/64"], None),
        ("fd00::/126", ["fd00::/64"], ["fd00::", "fd00::1", "fd00::2", "fd00::3"]),
        ("fd00::1", ["fe80::/64"], []),
        ("fe80::1", ["fd00::/64", "fe80::/64"], ["fe80::1"]),
    ],
)  # fmt: skip
def test_an_entry_is_its_hosts_that_are_on_the_network(entry: str, links: list[str], found: list[str] | None) -> None:
    # of an interface without a subnet of the family nothing is known: everything may be there
    assert told(entry, *links) == (found if found is not None else told(entry))


networks4 = st.builds(
    lambda number, prefix: ipaddress.ip_network((number, prefix), strict=False),
    st.integers(0, 1023),
    st.integers(22, 32),
)


@given(networks4, st.lists(networks4, max_size=4))
def test_nobody_is_told_twice_or_outside_of_both(
    entry: ipaddress.IPv4Network, links: list[ipaddress.IPv4Network]
) -> None:
    found = told(str(entry), *map(str, links))
    assert len(set(found)) == len(found)
    for text in found:
        address = ipaddress.ip_address(text)
        assert address in entry
        assert not links or any(address in link for link in links)


# -- when ---------------------------------------------------------------------------------------------------------------


@dataclass
class Wire:
    """Rounds with a clock of the test's own: each host gets one frame, which is its address."""

    lists: dict[Announcement, list[Entry]] = field(default_factory=dict)
    lost: set[Announcement] = field(default_factory=set)
    broken: bool = False
    now: float = 0.0
    sent: list[tuple[float, int, str]] = field(default_factory=list)  # when, the VIP's last byte, the host
    looks: int = 0

    def __post_init__(self) -> None:
        self.rounds = Rounds(self.courses, lambda v, host, _: [bytes((v.ip[3],)) + host], self.send, self.still)

    def courses(self, vip: Announcement) -> Iterator[Course]:
        for entry in self.lists[vip]:
            assert isinstance(entry, HostsConfig)
            yield entry, hosts_of(entry, ())

    def send(self, interface: str, frame: bytes) -> str | None:
        assert interface == "eth0"
        if self.broken:
            return "broken"
        self.sent.append((self.now, frame[0], str(ipaddress.ip_address(frame[1:]))))
        return None

    def still(self, vip: Announcement) -> bool:
        self.looks += 1
        return vip not in self.lost

    def run(self, until: float = 1e9, *, frames: int = 10**9) -> None:
        """Turn whenever it is due."""
        while (due := self.rounds.next_due()) is not None and due <= until and len(self.sent) < frames:
            self.now = max(self.now, due)
            self.rounds.turn(self.now)

    def heard(self, vip: Announcement) -> list[str]:
        return [host for _, last, host in self.sent if last == vip.ip[3]]


def test_a_network_is_told_at_its_rate_and_each_host_once() -> None:
    w = Wire({vip(1): [hosts("10.0.0.0/22", 128)]})
    w.rounds.start(vip(1), 0.0)
    w.run()
    assert w.heard(vip(1)) == told("10.0.0.0/22")
    assert len(w.sent) == 1022
    for at, _, _ in w.sent:  # never more than the rate and one burst, whatever the interval
        assert sum(at <= t <= at + 1 for t, _, _ in w.sent) <= 128 + 128 / 16 + 1
    assert 1022 / 128 - 1 < w.now < 1022 / 128 + 1
    assert len(w.rounds) == 0


def test_all_vips_share_the_rate_of_an_entry_and_take_turns() -> None:
    mine = [vip(n) for n in range(1, 11)]
    w = Wire({v: [hosts("10.0.0.0/24", 100)] for v in mine})
    for v in mine:
        w.rounds.start(v, 0.0)
    w.run(until=5.0)
    assert 480 <= len(w.sent) <= 520
    assert {len(w.heard(v)) for v in mine} <= {len(w.sent) // 10, len(w.sent) // 10 + 1}


def test_a_network_under_way_does_not_delay_another_entry() -> None:
    large, router = hosts("10.0.0.0/16", 1), hosts("10.9.0.1", 1)
    w = Wire({vip(1): [large], vip(2): [router, large]})
    w.rounds.start(vip(1), 0.0)
    w.run(until=100.0)
    w.now = 100.0
    w.rounds.start(vip(2), w.now)
    w.rounds.turn(w.now)
    assert w.heard(vip(2)) == ["10.9.0.1"]


def test_one_turn_is_bounded() -> None:
    mine = [vip(n) for n in range(1, 101)]
    w = Wire({v: [hosts(f"10.0.{v.ip[3]}.1", 10_000)] for v in mine})
    for v in mine:
        w.rounds.start(v, 0.0)
    w.now = 1.0
    for turn in range(1, 4):
        w.rounds.turn(w.now)
        assert len(w.sent) == turn * FRAMES_PER_TURN
    w.lost = set(mine)
    w.looks = 0
    w.rounds.turn(w.now)
    assert w.looks == FRAMES_PER_TURN


def test_hazard_18_nothing_more_is_sent_once_the_vip_is_lost() -> None:
    w = Wire({vip(1): [hosts("10.0.0.0/22")], vip(2): [hosts("10.0.0.0/22")]})
    for v in w.lists:
        w.rounds.start(v, 0.0)
    w.run(frames=100)
    assert 45 < len(w.heard(vip(1))) < 55
    w.lost = {vip(1)}
    before = w.heard(vip(1))
    w.run()
    assert w.heard(vip(1)) == before
    assert w.heard(vip(2)) == told("10.0.0.0/22")
    assert len(w.rounds) == 0


def test_between_two_frames_for_one_host_is_looked_again() -> None:
    w = Wire({vip(1): [hosts("10.0.0.1")]})
    answers = iter([True, False, False])
    sent: list[bytes] = []
    rounds = Rounds(w.courses, lambda *_: [b"1", b"2"], lambda _, frame: sent.append(frame), lambda _: next(answers))
    rounds.start(vip(1), 0.0)
    rounds.turn(0.0)
    assert sent == [b"1"]
    assert len(rounds) == 0


def test_what_cannot_be_sent_is_tried_again_at_the_same_rate() -> None:
    w = Wire({vip(1): [hosts("10.0.0.0/28", 10)]}, broken=True)
    w.rounds.start(vip(1), 0.0)
    w.run(until=10.0)
    assert w.sent == []
    assert 95 <= w.rounds.failed <= 105
    w.broken = False
    w.run()
    assert w.heard(vip(1)) == told("10.0.0.0/28")


def test_acquired_anew_it_starts_over_and_announced_again_it_goes_on() -> None:
    whole = told("10.0.0.0/24")
    w = Wire({vip(1): [hosts("10.0.0.0/24")]})
    w.rounds.start(vip(1), 0.0)
    w.run(frames=100)
    w.rounds.start_later(vip(1), w.now)
    w.rounds.start_later(vip(1), w.now)
    w.run(frames=300)
    w.rounds.start(vip(1), w.now)
    w.run()
    assert w.heard(vip(1)) == whole + whole[: 300 - len(whole)] + whole
    assert len(w.rounds) == 0


def test_acquired_anew_it_waits_behind_nobody() -> None:
    slow, router = hosts("10.0.0.0/16", 1), hosts("10.9.0.1")
    mine = [vip(n) for n in range(1, 51)]
    w = Wire({v: [router, slow] for v in mine})
    for v in mine:
        w.rounds.start(v, 0.0)
    w.run(until=10.0)
    assert w.heard(vip(50))[:1] == ["10.9.0.1"]
    w.sent.clear()
    w.rounds.start(vip(50), w.now)
    w.rounds.turn(w.now)
    assert w.heard(vip(50)) == ["10.9.0.1"]


def test_large_networks_cost_no_memory() -> None:
    largest = [hosts(f"10.{n}.0.0/16", 10_000) for n in range(8)]
    mine = [Announcement(n.to_bytes(4), "eth0", MAC) for n in range(1, 1001)]
    assert largest[0].network.num_addresses == RANGE_MAX
    w = Wire({v: list(largest) for v in mine})
    tracemalloc.start()
    try:
        for _ in range(20):
            for v in mine:
                w.rounds.start(v, 0.0)
            w.rounds.turn(w.now)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


# -- who is known -------------------------------------------------------------------------------------------------------


def test_the_own_kernel_knows_better_and_what_others_said_grows_old() -> None:
    now = 0.0
    known = Neighbourhood(60.0, lambda: now)
    one, two = packed("10.9.0.2"), packed("fd09::2")
    known.heard("eth0", [(one, THERE), (two, THERE)])
    known.read({("eth0", one): ELSEWHERE})
    assert known.mac_of("eth0", one) == ELSEWHERE
    assert known.mac_of("eth0", two) == THERE
    assert known.mac_of("eth1", two) is None
    assert (known.on("eth0", 4), known.on("eth0", 16), known.on("eth1", 4)) == ((one,), (two,), ())
    now = 61.0
    assert known.mac_of("eth0", two) is None
    known.read({})
    assert known.on("eth0", 16) == ()


def test_what_others_say_is_bounded_and_the_newest_is_kept() -> None:
    known = Neighbourhood(60.0, lambda: 0.0)
    for n in range(0, 3 * NEIGHBOURS_KEPT_MAX, NEIGHBOURS_MAX):
        known.heard("eth0", [((n + i).to_bytes(4), THERE) for i in range(NEIGHBOURS_MAX)])
    assert len(known) == len(known.on("eth0", 4)) == NEIGHBOURS_KEPT_MAX
    assert known.mac_of("eth0", (3 * NEIGHBOURS_KEPT_MAX - 1).to_bytes(4)) == THERE


def test_of_a_large_cache_the_others_hear_one_part_after_the_other() -> None:
    known = Neighbourhood(60.0)
    own = {("eth0", n.to_bytes(4)): THERE for n in range(2 * NEIGHBOURS_MAX + 10)}
    known.read({**own, ("eth9", bytes(4)): THERE})
    parts = [known.message({"eth0": "10.9.1.1"}).segments for _ in range(4)]
    assert [len(part[0].known) for part in parts] == [NEIGHBOURS_MAX, NEIGHBOURS_MAX, 10, NEIGHBOURS_MAX]
    assert {ip for part in parts for ip, _ in part[0].known} == {ip for _, ip in own}
    assert {part[0].vip for part in parts} == {"10.9.1.1"}


def test_only_hosts_of_the_vips_networks_count() -> None:
    here = packed("10.9.0.2")
    found = [
        Neighbour(1, here, THERE),
        Neighbour(1, packed("10.9.0.3"), b""),  # not known
        Neighbour(1, packed("10.9.0.4"), bytes.fromhex("01005e000001")),  # a group
        Neighbour(1, packed("10.8.0.2"), THERE),  # another network
        Neighbour(1, packed("10.9.1.1"), THERE),  # a VIP
        Neighbour(2, here, THERE),  # another interface
    ]
    places = {1: ("eth0", frozenset({network_of(here, 16)}))}
    assert own_neighbours(found, places, {packed("10.9.1.1")}) == {("eth0", here): THERE}


def test_the_list_of_a_vip_is_what_concerns_it_small_first() -> None:
    around = Surroundings({"public": "eth0"})
    links = [Link(n, f"eth{n - 1}", 0x10043, MAC) for n in (1, 2)]
    own = [
        Placed(packed(a), p, n, ours=False)
        for a, p, n in (("10.9.0.1", 16, 1), ("fd09::1", 64, 1), ("10.8.0.1", 16, 2))
    ]
    around.read(links, own)
    notify = Notify(
        (
            hosts("10.9.7.0/30"),
            hosts("10.8.0.7"),  # on the other interface's network
            hosts("10.9.0.1"),  # this host
            hosts("10.9.1.2"),  # a VIP
            hosts("10.9.0.5", interface="public"),
            hosts("10.9.0.6", interface="eth1"),
            hosts("fd09::7"),
        ),
        {packed("10.9.1.1"): (hosts("10.9.0.9"), hosts("10.9.7.0/30"))},
        Cache(128, False),
    )
    listed = Listed(
        notify,
        around,
        (V4, BOTH),
        ThreadPoolExecutor(1),
        still=lambda _: True,
        share=lambda _: None,
        on_unreadable=lambda _: None,
    )
    listed.guard(around.guarded((V4, BOTH)))
    listed.heard(Neighbours((Segment("10.9.1.1", ((packed("10.9.0.77"), THERE), (packed("fd09::77"), THERE))),)))

    def told_of(address: str) -> list[str]:
        courses = listed._courses(Announcement(packed(address), "eth0", MAC))
        return [str(ipaddress.ip_address(host)) for _, found in courses for host in found]

    network = [f"10.9.7.{n}" for n in range(4)]
    assert told_of("10.9.1.1") == ["10.9.0.5", "10.9.0.9", "10.9.0.77", *network]
    assert told_of("10.9.1.2") == ["10.9.0.5", "10.9.0.77", *network]
    assert told_of("fd09::1:2") == ["fd09::7", "fd09::77"]


# -- real kernels -------------------------------------------------------------------------------------------------------


def mac_in(namespace: str, interface: str = "eth0") -> bytes:
    found = tool("ip", "-n", namespace, "-o", "link", "show", interface).split("link/ether ")[1]
    return bytes.fromhex(found.split()[0].replace(":", ""))


def entry_of(address: str) -> str:
    return tool("ip", "-n", PEER, "neigh", "show", address, "dev", "eth0")


def until_known(address: str, tell: Callable[[], object] = lambda: None) -> None:
    """Until PEER has HOST's hardware address for it."""
    end = time.monotonic() + WITHIN_SECONDS
    tell()
    while MAC.hex(":") not in entry_of(address):
        assert time.monotonic() < end, entry_of(address)
        tell()


TARGETS = [("10.9.1.1", "10.9.0.2"), ("fd09::1:1", "fd09::2")]


@pytest.mark.lab
@pytest.mark.parametrize("nud", ["reachable", "stale", "incomplete"])
@pytest.mark.parametrize("form", [0, 1], ids=["question", "answer"])
@pytest.mark.parametrize(("address", "peer"), TARGETS)
def test_each_frame_of_its_own_corrects_an_entry_that_is_wrong_and_young(
    network: None, address: str, peer: str, form: int, nud: str
) -> None:
    """Linux ignores most updates of an entry that is younger than a second (arp locktime)."""
    frames = frames_for(MAC, packed(address), packed(peer), mac_in(PEER), ping=False)
    assert len(frames) == 2
    sender = opened_in(HOST, opened_sender)
    listener, read = heard(1, lambda frame: frame in frames)
    with listener:
        lladdr = "" if nud == "incomplete" else f"lladdr {THERE.hex(':')}"
        ip(f"neigh replace {address} {lladdr} dev eth0 nud {nud}", namespace=PEER)
        assert MAC.hex(":") not in entry_of(address)
        assert sender.put("eth0", frames[form]) is None
        assert read() == [frames[form]]
    sender.close()
    until_known(address)


def opened_sender() -> Sender:
    """With its socket in the namespace of the caller."""
    sender = Sender()
    assert sender.put("eth0") is None
    return sender


@pytest.mark.lab
@pytest.mark.parametrize("known", [True, False], ids=["known", "asked"])
@pytest.mark.parametrize(("address", "peer"), TARGETS)
def test_a_host_that_knew_nothing_of_the_vip_knows_it_then(network: None, address: str, peer: str, known: bool) -> None:
    frames = frames_for(MAC, packed(address), packed(peer), mac_in(PEER) if known else None, ping=False)
    assert entry_of(address) == ""
    sender = opened_in(HOST, opened_sender)
    # again and again: a fresh IPv6 address joins its solicited-node group a moment later
    until_known(address, lambda: sender.put("eth0", frames[0]))
    sender.close()


@pytest.mark.lab
@pytest.mark.parametrize(("v", "peer"), [(V4, "10.9.0.2"), (V6, "fd09::2")])
def test_a_ping_is_answered_to_the_vip(network: None, v: Vip, peer: str) -> None:
    address = v.addresses[0].ip
    nudge = echo_request(MAC, packed(address), mac_in(PEER), packed(peer))

    def is_answer(frame: bytes) -> bool:
        if ":" in peer:
            return frame[20] == 58 and frame[54] == 129 and frame[38:54] == packed(address)
        return frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[34] == 0 and frame[30:34] == packed(address)

    listener, read = heard(1, is_answer, HOST)
    with listener:

        async def story(host: Host) -> None:
            await host.hold(1, v)
            sender = Sender()
            assert sender.put("eth0", nudge) is None
            await asyncio.to_thread(read)
            sender.close()

        on_the_host(story, v)


def test_an_echo_request_has_its_checksums() -> None:
    frame = echo_request(MAC, packed("10.9.1.1"), THERE, packed("10.9.0.2"))
    assert checksum(frame[14:34]) == checksum(frame[34:42]) == b"\0\0"


@pytest.mark.lab
def test_a_member_that_acquires_tells_its_list_its_neighbours_and_the_others(network: None) -> None:
    peer, mine = mac_in(PEER), packed("10.9.1.2")
    said = Neighbours(
        (
            Segment("10.9.1.2", ((packed("10.9.0.77"), THERE), (packed("10.8.0.1"), ELSEWHERE))),
            Segment("10.7.7.7", ((packed("10.9.0.78"), ELSEWHERE),)),  # a network without a VIP here
        )
    )
    wanted = {
        *frames_for(MAC, mine, packed("10.9.0.2"), peer, ping=True),  # in the kernel's table, and in the list
        *frames_for(MAC, mine, packed("10.9.0.77"), THERE, ping=False),
        *frames_for(MAC, mine, packed("10.9.0.99"), None, ping=False),
        *frames_for(MAC, packed("fd09::1:2"), packed("fd09::2"), peer, ping=False),
    }
    notify = Notify((hosts("10.9.0.99"), hosts("10.9.0.2", ping=True)), {}, Cache(128, False), 60.0)
    listener, read = heard(1, lambda frame: frame in wanted)
    for address in ("10.9.0.2", "fd09::2"):
        ip(f"neigh replace {address} lladdr {peer.hex(':')} dev eth0 nud reachable", namespace=HOST)
    with listener:

        async def story(host: Host) -> None:
            await host.until(lambda: bool(host.neighbours))
            (shared,) = host.neighbours[0].segments
            assert {(packed("10.9.0.2"), peer), (packed("fd09::2"), peer)} <= set(shared.known)
            host.kernel.listed.heard(said)
            await host.hold(1, BOTH)
            found: set[bytes] = set()
            while found != wanted:
                found |= set(await asyncio.to_thread(read))

        on_the_host(story, BOTH, notify=notify)


@pytest.mark.lab
@pytest.mark.parametrize("forwarding", [0, 1])
def test_a_router_tells_its_list_that_it_is_one(network: None, forwarding: int) -> None:
    """Else the host forgets the default route that it learnt from its advertisements (RFC 4861, 7.2.5)."""
    switch = f"echo {forwarding} >/proc/sys/net/ipv6/conf/all/forwarding"
    tool("ip", "netns", "exec", HOST, "sh", "-c", switch)
    peer, mine = mac_in(PEER), packed("fd09::1:1")
    ip(f"neigh replace fd09::2 lladdr {peer.hex(':')} dev eth0 nud reachable", namespace=HOST)
    listener, read = heard(1, lambda f: (f[:6], f[54:55], f[62:78]) == (peer, b"\x88", mine))
    with listener:

        async def story(host: Host) -> None:
            await host.until(lambda: bool(host.neighbours))
            await host.hold(1, V6)
            (advertisement,) = await asyncio.to_thread(read)
            assert advertisement[58] == (0xA0 if forwarding else 0x20)

        on_the_host(story, V6, notify=Notify(cache=Cache(128, False)))


def questions_of(*senders: bytes) -> Callable[[bytes], bool]:
    return lambda frame: frame[12:14] == b"\x08\x06" and frame[28:32] in senders and frame[38:42] not in senders


@pytest.mark.lab
def test_the_list_is_told_of_a_new_hardware_address_and_of_the_old_one_no_more(network: None) -> None:
    new = bytes.fromhex("020000000005")
    listener, read = heard(50, questions_of(packed("10.9.1.1")))
    with listener:

        async def story(host: Host) -> None:
            await host.hold(1, V4)
            assert {frame[22:28] for frame in await asyncio.to_thread(read)} == {MAC}
            ip(f"link set eth0 address {new.hex(':')}", namespace=HOST)
            asked = [frame[22:28] for _ in range(8) for frame in await asyncio.to_thread(read)]
            assert asked[-50:] == [new] * 50
            assert asked == sorted(asked)

        on_the_host(story, V4, notify=Notify((hosts("10.9.128.0/17", 1000),)))


@pytest.mark.lab
def test_hazard_18_the_list_is_told_nothing_more_after_the_release(network: None) -> None:
    other = Vip("other", (Address("10.9.1.5", 32, "eth0"),))
    senders = [packed("10.9.1.1"), packed("10.9.1.5")]
    is_question = questions_of(*senders)
    notify = Notify((hosts("10.9.128.0/17", 1000),))
    listener, read = heard(50, is_question)
    with listener:

        async def story(host: Host) -> None:
            await host.hold(1, V4)
            assert {frame[28:32] for frame in await asyncio.to_thread(read)} == {senders[0]}
            await host.hold(2, other)
            asked = [frame[28:32] for _ in range(8) for frame in await asyncio.to_thread(read)]
            assert asked[-50:] == [senders[1]] * 50
            assert asked == sorted(asked)

        on_the_host(story, V4, other, notify=notify)
