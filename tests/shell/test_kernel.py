"""Addresses, announcements and surroundings in real network namespaces."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest

from wackamole.advice import Neighbours
from wackamole.core.model import Address, NotEligible, Vip, VipKey
from wackamole.lab.namespaces import ip, opened_in, tool
from wackamole.shell.kernel.announce import (
    FRAMES_PER_TURN,
    SCHEDULE_MS,
    Announcement,
    Announcer,
    Sender,
    frames,
)
from wackamole.shell.kernel.kernel import PUT_BACK_MAX, Kernel, KernelConfig
from wackamole.shell.kernel.listed import Notify
from wackamole.shell.kernel.rtnl import IFF_LOWER_UP, IFF_RUNNING, IFF_UP, SO_RCVBUFFORCE, Link, Placed, Rtnl
from wackamole.shell.kernel.surroundings import Surroundings, packed

pytestmark = pytest.mark.lab

WITHIN_SECONDS = 20.0
HOST, PEER = f"wt{os.getpid()}-host", f"wt{os.getpid()}-peer"
MAC = bytes.fromhex("020000000001")
V4 = Vip("v4", (Address("10.9.1.1", 32, "eth0"),))
V6 = Vip("v6", (Address("fd09::1:1", 128, "eth0"),))
BOTH = Vip("gw", (Address("10.9.1.2", 32, "eth0"), Address("fd09::1:2", 128, "eth0")))


@pytest.fixture
def network() -> Iterator[None]:
    """Two hosts on a cable: eth0 on both sides."""
    for name in (HOST, PEER):
        tool("ip", "netns", "add", name)
    try:
        ip(f"link add eth0 address {MAC.hex(':')} type veth peer name eth0 netns {PEER}", namespace=HOST)
        ip("link set lo up", "addr add 10.9.0.1/16 dev eth0", "addr add fd09::1/64 dev eth0 nodad", "link set eth0 up",
           namespace=HOST)  # fmt: skip
        ip("link set lo up", "addr add 10.9.0.2/16 dev eth0", "addr add fd09::2/64 dev eth0 nodad", "link set eth0 up",
           namespace=PEER)  # fmt: skip
        yield
    finally:
        for name in (HOST, PEER):
            tool("ip", "netns", "delete", name)


@dataclass
class Host:
    """A Kernel, and everything that it said."""

    kernel: Kernel
    confirmed: dict[int, tuple[tuple[VipKey, ...], dict[VipKey, str]]] = field(default_factory=dict)
    history: list[tuple[int, int]] = field(default_factory=list)  # serial, how many are held
    eligibility: list[dict[VipKey, NotEligible]] = field(default_factory=list)
    records: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    neighbours: list[Neighbours] = field(default_factory=list)
    serving: list[VipKey] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not fact():
                self.news.clear()
                await self.news.wait()

    async def hold(self, serial: int, *vips: Vip) -> tuple[tuple[VipKey, ...], dict[VipKey, str]]:
        self.kernel.hold_exactly(serial, vips)
        await self.until(lambda: serial in self.confirmed)
        return self.confirmed[serial]


def on_the_host(
    story: Callable[[Host], Awaitable[None]],
    *vips: Vip,
    interfaces: dict[str, str] | None = None,
    withdraw_after: int | None = None,
    notify: Notify | None = None,
) -> None:
    """Run a story with a started Kernel, on a thread that lives in the host's namespace."""

    async def main() -> None:
        host: Host

        def confirmed(serial: int, held: tuple[VipKey, ...], refused: tuple[tuple[VipKey, str], ...]) -> None:
            host.confirmed[serial] = (held, dict(refused))
            host.history.append((serial, len(held)))
            host.news.set()

        def eligibility(reasons: tuple[tuple[VipKey, NotEligible], ...]) -> None:
            host.eligibility.append(dict(reasons))
            host.news.set()

        def record(what: str, fields: dict[str, str]) -> None:
            host.records.append((what, fields))
            host.news.set()

        def neighbours(read: Neighbours) -> None:
            host.neighbours.append(read)
            host.news.set()

        def serving(keys: frozenset[VipKey]) -> None:
            host.serving += sorted(keys)
            host.news.set()

        host = Host(
            Kernel(
                KernelConfig(vips, interfaces or {}, withdraw_after=withdraw_after, notify=notify or Notify()),
                on_confirmed=confirmed,
                on_eligibility=eligibility,
                on_record=record,
                on_neighbours=neighbours,
                on_serving=serving,
            )
        )
        await host.kernel.start()
        try:
            await story(host)
        finally:
            await host.kernel.close()

    opened_in(HOST, lambda: asyncio.run(main()))


def addresses(namespace: str = HOST) -> dict[str, Placed]:
    """What the kernel has, asked by a socket of the test's own."""
    rtnl = opened_in(namespace, Rtnl)
    try:
        return {str(ipaddress.ip_address(a.ip)): a for a in rtnl.addresses()}
    finally:
        rtnl.close()


def test_addresses_are_added_tagged_read_back_and_removed(network: None) -> None:
    async def story(host: Host) -> None:
        held, refused = await host.hold(1, BOTH, V4, V6)
        assert set(held) == {BOTH.key, V4.key, V6.key}
        assert refused == {}
        found = addresses()
        for text in ("10.9.1.1", "10.9.1.2", "fd09::1:1", "fd09::1:2"):
            assert found[text].ours, text
        assert not found["10.9.0.1"].ours
        held, _ = await host.hold(2, V4)
        assert held == (V4.key,)
        assert set(addresses()) & {"10.9.1.1", "10.9.1.2", "fd09::1:1", "fd09::1:2"} == {"10.9.1.1"}
        held, _ = await host.hold(3)
        assert held == ()
        assert "10.9.1.1" not in addresses()
        assert "10.9.0.1" in addresses()

    on_the_host(story, BOTH, V4, V6)


def test_the_latest_wish_wins(network: None) -> None:
    async def story(host: Host) -> None:
        for serial in range(1, 50):
            host.kernel.hold_exactly(serial, (V4,) if serial % 2 else ())
        held, _ = await host.hold(50, V6)
        assert held == (V6.key,)
        assert "10.9.1.1" not in addresses()

    on_the_host(story, V4, V6)


def test_it_is_told_when_what_was_acquired_is_served(network: None) -> None:
    async def story(host: Host) -> None:
        serial = 0
        for times in range(1, 6):
            await host.hold(serial := serial + 1, BOTH, V4, V6)
            await host.until(lambda times=times: len(host.serving) == 3 * times)  # type: ignore[misc]
            assert set(host.serving) == {BOTH.key, V4.key, V6.key}
            await host.hold(serial := serial + 1)
        await host.hold(serial + 1, V4)
        assert host.serving[15:] == [V4.key]

    on_the_host(story, BOTH, V4, V6)


def test_of_one_serial_what_was_so_before_is_not_said_afterwards(network: None) -> None:
    async def story(host: Host) -> None:
        await host.hold(1, BOTH, V4, V6)
        for stay in ((BOTH, V4), (V4,), ()):  # what goes in turns
            host.kernel.hold_exactly(1, stay)
        await host.until(lambda: host.history[-1] == (1, 0))
        for _ in range(5):
            await asyncio.to_thread(addresses)  # the addresses' thread has had its say as well
        assert [number for _, number in host.history] == [3, 2, 1, 0]

    on_the_host(story, BOTH, V4, V6)


def test_an_address_that_somebody_else_configured_is_refused_with_the_reason(network: None) -> None:
    async def story(host: Host) -> None:
        assert host.eligibility[-1] == {V4.key: NotEligible.FOREIGN_ADDRESS}
        held, refused = await host.hold(1, V4, V6)
        assert held == (V6.key,)
        assert refused[V4.key] == "10.9.1.1/24 is already configured on eth0 by somebody else"
        await host.hold(2)
        assert not addresses()["10.9.1.1"].ours
        ip("addr del 10.9.1.1/24 dev eth0", namespace=HOST)
        await host.until(lambda: host.eligibility[-1] == {})
        held, _ = await host.hold(3, V4)
        assert held == (V4.key,)

    ip("addr add 10.9.1.1/24 dev eth0", namespace=HOST)
    on_the_host(story, V4, V6)


def test_an_address_removed_behind_our_back_is_put_back(network: None) -> None:
    async def story(host: Host) -> None:
        await host.hold(1, V4, V6)
        ip("addr del 10.9.1.1/32 dev eth0", namespace=HOST)
        await host.until(lambda: any(what == "kernel" and f["put_back"] == "yes" for what, f in host.records))
        assert addresses()["10.9.1.1"].ours

    on_the_host(story, V4, V6)


def test_who_keeps_removing_it_wins_in_the_end_and_that_is_told(network: None) -> None:
    async def story(host: Host) -> None:
        await host.hold(1, V4)
        for count in range(PUT_BACK_MAX):
            ip("addr del 10.9.1.1/32 dev eth0", namespace=HOST)
            await host.until(
                lambda count=count: sum(f["put_back"] == "yes" for w, f in host.records if w == "kernel") > count  # type: ignore[misc]
            )
        ip("addr del 10.9.1.1/32 dev eth0", namespace=HOST)
        await host.until(lambda: any(what == "put_back_waits" for what, _ in host.records))

    on_the_host(story, V4)


def test_without_its_interface_a_vip_is_not_eligible_and_nothing_breaks(network: None) -> None:
    lost = Vip("lost", (Address("10.8.1.1", 32, "eth7"),))
    nowhere = Vip("nowhere", (Address("10.7.1.1", 32),))
    by_subnet = Vip("by-subnet", (Address("10.9.1.9", 32),))
    mapped = Vip("mapped", (Address("10.9.1.8", 32, "public"),))

    async def story(host: Host) -> None:
        assert host.eligibility[-1] == {lost.key: NotEligible.NO_INTERFACE, nowhere.key: NotEligible.NO_INTERFACE}
        held, refused = await host.hold(1, by_subnet, lost, mapped)
        assert set(held) == {by_subnet.key, mapped.key}
        assert set(refused) == {lost.key}
        ip("link add eth7 type veth peer name eth8", "link set eth8 up", "link set eth7 up", namespace=HOST)
        await host.until(lambda: host.eligibility[-1] == {nowhere.key: NotEligible.NO_INTERFACE})
        held, refused = await host.hold(2, lost)
        assert (held, refused) == ((lost.key,), {})
        ip("link del eth7", namespace=HOST)
        await host.until(lambda: lost.key in host.eligibility[-1])

    on_the_host(story, lost, nowhere, by_subnet, mapped, interfaces={"public": "eth0"})


def test_carrier_and_admin_state_are_noticed_both_ways(network: None) -> None:
    async def story(host: Host) -> None:
        assert host.eligibility[-1] == {}
        for where, down, up in (
            (PEER, "link set eth0 down", "link set eth0 up"),
            (HOST, "link set eth0 down", "link set eth0 up"),
        ):
            ip(down, namespace=where)
            await host.until(lambda: host.eligibility[-1] == {V4.key: NotEligible.LINK_DOWN})
            ip(up, namespace=where)
            await host.until(lambda: host.eligibility[-1] == {})

    on_the_host(story, V4)


def test_what_a_former_run_left_behind_is_removed_at_the_start(network: None) -> None:
    async def starts(host: Host) -> None:
        await host.until(lambda: 0 in host.confirmed)
        assert host.confirmed[0] == ((), {})
        assert not {"10.9.1.1", "fd09::1:1"} & set(addresses())
        assert {"10.9.0.1", "10.9.1.7"} <= set(addresses())

    rtnl = opened_in(HOST, Rtnl)  # what a killed daemon leaves behind: our tag, and nobody who knows it
    index = next(link.index for link in rtnl.links() if link.name == "eth0")
    assert rtnl.add([Placed(packed("10.9.1.1"), 32, index), Placed(packed("fd09::1:1"), 128, index)]) == {}
    rtnl.close()
    assert addresses()["10.9.1.1"].ours
    ip("addr add 10.9.1.7/32 dev eth0", namespace=HOST)
    on_the_host(starts, V4, V6)


def heard(
    count: int, wanted: Callable[[bytes], bool], namespace: str = PEER
) -> tuple[socket.socket, Callable[[], list[bytes]]]:
    """A packet socket on the peer (or in another namespace), and how to read that many frames of a kind from it."""

    def opened() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)  # thousands of frames come before any is read
        s.bind(("eth0", 3))
        s.settimeout(WITHIN_SECONDS)
        return s

    s = opened_in(namespace, opened)

    def read() -> list[bytes]:
        found: list[bytes] = []
        while len(found) < count:
            frame = s.recv(2048)
            if wanted(frame):
                found.append(frame)
        return found

    return s, read


def test_what_is_new_is_announced_in_all_forms_that_linux_listens_to(network: None) -> None:
    ours = {f for a in (*BOTH.addresses,) for f in frames(MAC, packed(a.ip))}
    listener, read = heard(3 * len(ours), lambda frame: frame in ours)
    with listener:

        async def story(host: Host) -> None:
            await host.hold(1, BOTH)
            assert set(await asyncio.to_thread(read)) == ours

        on_the_host(story, BOTH)


def test_a_neighbour_learns_the_new_owner_although_its_entry_is_locked(network: None) -> None:
    """Linux ignores most updates of an entry that is younger than a second (arp locktime)."""

    def neighbour() -> str:
        return tool("ip", "-n", PEER, "neigh", "show", "10.9.1.1", "dev", "eth0")

    ip("neigh replace 10.9.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud reachable", namespace=PEER)
    ours = set(frames(MAC, packed("10.9.1.1")))
    listener, read = heard(2, lambda frame: frame in ours)
    with listener:

        async def story(host: Host) -> None:
            await host.hold(1, V4)
            await asyncio.to_thread(read)

        on_the_host(story, V4)
    assert MAC.hex(":") in neighbour()


@pytest.mark.parametrize("forwarding", [0, 1])
def test_a_router_is_announced_as_one(network: None, forwarding: int) -> None:
    """Else neighbours forget that it is one, and with that the routes through it that they learnt."""
    switch = f"echo {forwarding} >/proc/sys/net/ipv6/conf/all/forwarding"
    tool("ip", "netns", "exec", HOST, "sh", "-c", switch)
    at_once = (
        "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad"  # a host hears no advertisement before its own addresses are
    )
    tool("ip", "netns", "exec", PEER, "sh", "-c", at_once)
    ip("link set eth0 down", "link set eth0 up", "addr add fd09::2/64 dev eth0 nodad",
       "neigh replace fd09::1:1 lladdr 02:00:00:00:00:99 dev eth0 nud reachable router", namespace=PEER)  # fmt: skip
    listener, read = heard(2, lambda frame: frame[54:55] == b"\x88" and frame[62:78] == packed("fd09::1:1"))
    with listener:

        async def story(host: Host) -> None:
            await host.hold(1, V6)
            await asyncio.to_thread(read)

        on_the_host(story, V6)
    learnt = tool("ip", "-n", PEER, "neigh", "show", "fd09::1:1", "dev", "eth0").split()
    assert MAC.hex(":") in learnt
    assert ("router" in learnt) == bool(forwarding)


def test_an_interface_that_gets_another_hardware_address_is_announced_with_it(network: None) -> None:
    new = bytes.fromhex("020000000077")
    ours = set(frames(new, packed("10.9.1.1")))
    listener, read = heard(2, lambda frame: frame in ours)
    with listener:

        async def story(host: Host) -> None:
            await host.hold(1, V4)
            ip(f"link set eth0 address {new.hex(':')}", namespace=HOST)
            assert set(await asyncio.to_thread(read)) == ours

        on_the_host(story, V4)


def test_an_interface_that_gets_another_hardware_address_while_addresses_are_being_added(network: None) -> None:
    """What the addresses' thread has announced was the old one; it is heard of before the thread is done with so many."""
    new = bytes.fromhex("020000000077")
    many = tuple(Vip(f"v{i}", (Address(f"10.9.{2 + i // 200}.{1 + i % 200}", 32, "eth0"),)) for i in range(1000))
    ours = {f for v in many for f in frames(new, packed(v.addresses[0].ip))}
    listener, read = heard(20, lambda frame: frame in ours)
    with listener:

        async def story(host: Host) -> None:
            reading = asyncio.create_task(asyncio.to_thread(read))
            await asyncio.sleep(0)
            ip(f"link set eth0 address {new.hex(':')}", namespace=HOST)
            await host.hold(1, *many)
            await reading

        on_the_host(story, *many)


def test_a_name_that_went_to_another_interface_is_followed(network: None) -> None:
    """The socket of a name is bound to the interface that had it when it was opened."""

    def sent() -> None:
        sender = Sender()
        assert sender.put("eth0", b"\xff" * 6 + MAC + b"\x88\xb5first") is None
        ip("link set eth0 down", "link set eth0 name old0", "link add eth0 type veth peer name far0",
           "link set eth0 up", "link set far0 up", namespace=HOST)  # fmt: skip
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as far:
            far.bind(("far0", 0x88B5))
            far.settimeout(WITHIN_SECONDS)
            assert sender.put("eth0", b"\xff" * 6 + MAC + b"\x88\xb5second") is None
            assert far.recv(2048).endswith(b"second")
        sender.close()

    opened_in(HOST, sent)


def test_hazard_18_nothing_is_announced_after_it_was_released(network: None) -> None:
    other = Vip("other", (Address("10.9.1.5", 32, "eth0"),))
    mine, later = set(frames(MAC, packed("10.9.1.1"))), set(frames(MAC, packed("10.9.1.5")))
    # the repetition of 300 ms for `other` comes after the repetition of 100 ms that V4 would have had
    listener, read = heard(2 + 8, lambda frame: frame in mine | later)
    with listener:

        async def story(host: Host) -> None:
            await host.hold(1, V4)
            await host.hold(2, other)
            found = await asyncio.to_thread(read)
            first = next(i for i, frame in enumerate(found) if frame in later)
            assert not [frame for frame in found[first:] if frame in mine]

        on_the_host(story, V4, other)


def test_what_was_added_by_a_job_that_was_overtaken_is_announced_to_the_end_of_the_schedule(network: None) -> None:
    """The later job finds the address there and has nothing to announce."""
    many = tuple(Vip(f"v{i}", (Address(f"10.9.{2 + i // 200}.{1 + i % 200}", 32, "eth0"),)) for i in range(1000))
    stays = tuple(Vip(f"s{i}", (Address(f"10.9.1.{i}", 32, "eth0"),)) for i in range(1, 21))
    ours: set[bytes] = set()
    listener, read = heard(2 * len(SCHEDULE_MS), lambda frame: frame in ours)
    with listener:

        async def story(host: Host) -> None:
            for serial, stay in enumerate(stays, 1):
                host.kernel.hold_exactly(2 * serial - 1, (stay, *many))
                await host.hold(2 * serial, stay)
                if 2 * serial - 1 not in host.confirmed:  # it was overtaken; a loop that stands still lets it be done
                    ours.update(frames(MAC, packed(stay.addresses[0].ip)))
                    break
            await asyncio.to_thread(read)

        on_the_host(story, *stays, *many)


def test_what_is_let_go_between_two_turns_of_announcements_is_not_announced(network: None) -> None:
    """Thousands of announcements take many turns of the loop."""
    many = [Announcement(bytes((10, 9, 2 + i // 200, 1 + i % 200)), "eth0", MAC) for i in range(10 * FRAMES_PER_TURN)]
    mine = {f for a in many for f in frames(MAC, a.ip)}
    last = Announcement(packed("10.9.1.1"), "eth0", MAC)
    told: list[bytes] = []

    def is_last(frame: bytes) -> bool:
        if frame in mine:
            told.append(frame)
        return frame in frames(MAC, last.ip)

    listener, read = heard(2 * len(SCHEDULE_MS), is_last)

    async def story() -> int:
        held, asked = {*many, last}, 0
        begun, over = asyncio.Event(), asyncio.Event()

        def still(announcement: Announcement) -> bool:
            nonlocal asked
            begun.set()
            asked += announcement == last
            if asked == len(SCHEDULE_MS):
                over.set()
            return announcement in held

        announcer = Announcer(Sender(), still)
        announcer.announce(many)
        await begun.wait()
        sent = announcer.sent
        assert 0 < sent < len(many)
        held.difference_update(many)
        announcer.announce([last])
        await over.wait()  # by then all turns of the others are over
        announcer.close()
        return sent

    with listener:
        sent = opened_in(HOST, lambda: asyncio.run(story()))
        read()
        assert len(told) == 2 * sent


def test_two_hundred_at_once(network: None) -> None:
    vips = tuple(Vip(f"v{i}", (Address(f"10.9.{2 + i // 200}.{1 + i % 200}", 32, "eth0"),)) for i in range(180))
    vips += tuple(Vip(f"w{i}", (Address(f"fd09::2:{i:x}", 128, "eth0"),)) for i in range(1, 21))

    async def story(host: Host) -> None:
        held, refused = await host.hold(1, *vips)
        assert len(held) == 200
        assert refused == {}
        assert sum(a.ours for a in addresses().values()) == 200
        await host.hold(2)
        assert sum(a.ours for a in addresses().values()) == 0

    on_the_host(story, *vips)


# -- a VIP of several addresses on several interfaces -----------------------------------------------------------------------

GATEWAY = Vip(
    "gateway",
    (
        Address("10.9.1.3", 32, "inside"),
        Address("fd09::1:3", 128, "inside"),
        Address("10.8.1.3", 32, "eth1"),
        Address("fd08::1:3", 128, "eth1"),
    ),
)
OF_THE_GATEWAY = {a.ip for a in GATEWAY.addresses}
INSIDE = {"inside": "eth0"}


@pytest.fixture
def two_networks(network: None) -> None:
    """The two hosts have a second cable: eth1 on both sides."""
    ip(f"link add eth1 type veth peer name eth1 netns {PEER}", namespace=HOST)
    for name, number in ((HOST, 1), (PEER, 2)):
        ip(f"addr add 10.8.0.{number}/16 dev eth1", f"addr add fd08::{number}/64 dev eth1 nodad", "link set eth1 up",
           namespace=name)  # fmt: skip


def test_a_virtual_router_has_all_its_addresses_each_on_its_interface(two_networks: None) -> None:
    async def story(host: Host) -> None:
        held, refused = await host.hold(1, GATEWAY, V4)
        assert (set(held), refused) == ({GATEWAY.key, V4.key}, {})
        found = addresses()
        assert all(found[text].ours for text in OF_THE_GATEWAY)
        on = {text: found[text].index for text in OF_THE_GATEWAY}
        assert on["10.9.1.3"] == on["fd09::1:3"] == found["10.9.0.1"].index
        assert on["10.8.1.3"] == on["fd08::1:3"] == found["10.8.0.1"].index
        held, _ = await host.hold(2, V4)
        assert held == (V4.key,)
        assert not OF_THE_GATEWAY & set(addresses())

    on_the_host(story, GATEWAY, V4, interfaces=INSIDE)


def test_a_virtual_router_of_which_the_kernel_refuses_one_address_has_none(two_networks: None) -> None:
    """Linux takes no IPv6 address on an interface where IPv6 is off; the three others it took before."""
    tool("ip", "netns", "exec", HOST, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth1/disable_ipv6")

    async def story(host: Host) -> None:
        assert host.eligibility[-1] == {}, "that it will be refused is not seen before it is tried"
        held, refused = await host.hold(1, GATEWAY, V4, V6)
        assert set(held) == {V4.key, V6.key}
        assert refused[GATEWAY.key].startswith("fd08::1:3/128: ")
        assert not OF_THE_GATEWAY & set(addresses())
        assert addresses()["10.9.1.1"].ours
        assert addresses()["fd09::1:1"].ours

    on_the_host(story, GATEWAY, V4, V6, interfaces=INSIDE)


def test_a_virtual_router_lets_go_of_all_when_somebody_else_has_one_of_its_addresses(two_networks: None) -> None:
    async def story(host: Host) -> None:
        await host.hold(1, GATEWAY, V4)
        ip("addr del 10.8.1.3/32 dev eth1", "addr add 10.8.1.3/24 dev eth1", namespace=HOST)
        await host.until(lambda: host.eligibility[-1] == {GATEWAY.key: NotEligible.FOREIGN_ADDRESS})
        held, refused = await host.hold(2, GATEWAY, V4)
        assert held == (V4.key,)
        assert refused[GATEWAY.key] == "10.8.1.3/24 is already configured on eth1 by somebody else"
        assert OF_THE_GATEWAY & set(addresses()) == {"10.8.1.3"}
        assert not addresses()["10.8.1.3"].ours

    on_the_host(story, GATEWAY, V4, interfaces=INSIDE)


def test_a_virtual_router_is_not_eligible_when_one_of_its_interfaces_is_missing_or_dead(two_networks: None) -> None:
    async def story(host: Host) -> None:
        await host.hold(1, GATEWAY, V4)
        ip("link set eth1 down", namespace=PEER)
        await host.until(lambda: host.eligibility[-1] == {GATEWAY.key: NotEligible.LINK_DOWN})
        ip("link set eth1 up", namespace=PEER)
        await host.until(lambda: host.eligibility[-1] == {})
        ip("link del eth1", namespace=HOST)
        await host.until(lambda: host.eligibility[-1] == {GATEWAY.key: NotEligible.NO_INTERFACE})
        held, refused = await host.hold(2, GATEWAY, V4)
        assert held == (V4.key,)
        assert refused[GATEWAY.key] == "10.8.1.3/32: it has no interface for it"
        assert not OF_THE_GATEWAY & set(addresses())

    on_the_host(story, GATEWAY, V4, interfaces=INSIDE)


def test_of_two_interfaces_in_a_subnet_a_vip_belongs_on_the_first_whatever_order_the_kernel_lists_them_in() -> None:
    links = [Link(i, f"eth{i}", IFF_UP | IFF_RUNNING | IFF_LOWER_UP, MAC) for i in (2, 3)]
    for third in range(50):  # sets are gone through in another order each time
        around = Surroundings({})
        around.read(links, [Placed(packed(f"10.9.{third}.{i}"), 24, i, ours=False) for i in (3, 2)])
        found = around.locate(Address(f"10.9.{third}.100", 32))
        assert found is not None
        assert found.name == "eth2"
