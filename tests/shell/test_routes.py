"""Routes, rules and connections that go with a VIP, in real network namespaces."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from wackamole.core.model import Address, Vip, VipKey
from wackamole.lab.namespaces import ip, opened_in, tool
from wackamole.routing import Route, Rule, route, rule
from wackamole.shell.kernel.connections import Diag, only_from
from wackamole.shell.kernel.guard import remove_ours
from wackamole.shell.kernel.kernel import Kernel, KernelConfig
from wackamole.shell.kernel.release import release
from wackamole.shell.kernel.routes import RoutingTables, route_entry, rule_entry
from wackamole.shell.kernel.surroundings import packed

pytestmark = pytest.mark.lab

WITHIN_SECONDS = 20.0
HOST, PEER = f"wo{os.getpid()}-host", f"wo{os.getpid()}-peer"
V4 = Vip("v4", (Address("10.9.1.1", 32, "eth0"),))
V6 = Vip("v6", (Address("fd09::1:1", 128, "eth0"),))
ROUTING: dict[VipKey, tuple[Route | Rule, ...]] = {
    V4.key: (
        route("default via 10.9.0.2 src 10.9.1.1 table 100"),
        route("10.8.0.0/16 via 10.9.0.2 dev public mtu 1400 metric 7 table 4000"),
        route("unreachable 10.7.0.0/16"),
        rule("from 10.9.1.1 lookup 100 priority 1000"),
        rule("not to 10.9.0.0/16 fwmark 0x1/0xff lookup 4000"),
    ),
    V6.key: (
        route("default via fd09::2 table 100"),
        rule("from fd09::1:1 lookup 100"),
        rule("iif public inet6 prohibit"),
    ),
}


@pytest.fixture
def network() -> Iterator[None]:
    """Two hosts on a cable: eth0 on both sides."""
    for name in (HOST, PEER):
        tool("ip", "netns", "add", name)
    try:
        ip(f"link add eth0 type veth peer name eth0 netns {PEER}", namespace=HOST)
        for name, number in ((HOST, 1), (PEER, 2)):
            ip("link set lo up", f"addr add 10.9.0.{number}/16 dev eth0", f"addr add fd09::{number}/64 dev eth0 nodad",
               "link set eth0 up", namespace=name)  # fmt: skip
        yield
    finally:
        for name in (HOST, PEER):
            tool("ip", "netns", "delete", name)


def routes() -> list[str]:
    """Everything with our tag, as ip(8) shows it."""
    found = []
    for family in ("-4", "-6"):
        listed = json.loads(
            tool("ip", family, "-n", HOST, "-json", "route", "show", "table", "all", "proto", "87") or "[]"
        )
        for r in listed:
            kind = r.get("type", "unicast")
            more = [f"{k} {r[k]}" for k in ("gateway", "table", "prefsrc") if k in r and r[k] != "main"]
            metrics = [f"{k} {m[k]}" for m in r.get("metrics", [{}]) for k in m]
            found.append(" ".join(["" if kind == "unicast" else f"{kind} ", r["dst"], *more, *metrics]).strip())
        for line in tool("ip", family, "-d", "-n", HOST, "rule").splitlines():
            number, _, text = line.partition(":\t")
            if "proto 87" in text:
                found.append(
                    f"rule {text.replace(' proto 87', '').strip()}" + (f" pref {number}" if number == "1000" else "")
                )
    return sorted(found)


OF_V4 = sorted(
    [
        "default gateway 10.9.0.2 table 100 prefsrc 10.9.1.1",
        "10.8.0.0/16 gateway 10.9.0.2 table 4000 mtu 1400",
        "unreachable  10.7.0.0/16",
        "rule from 10.9.1.1 lookup 100 pref 1000",
        "rule not from all to 10.9.0.0/16 fwmark 0x1/0xff lookup 4000",
    ]
)
OF_V6 = sorted(
    ["default gateway fd09::2 table 100", "rule from fd09::1:1 lookup 100", "rule from all iif eth0 prohibit"]
)  # fmt: skip


class Host:
    """A Kernel, and what it said."""

    def __init__(self, routing: dict[VipKey, tuple[Route | Rule, ...]], keep: frozenset[VipKey] = frozenset()) -> None:
        self.records: list[tuple[str, dict[str, str]]] = []
        self.serials: set[int] = set()
        self.news = asyncio.Event()
        self.kernel = Kernel(
            KernelConfig((V4, V6), {"public": "eth0"}, routing=routing, keep_connections=keep),
            on_confirmed=lambda serial, held, refused: self._told(lambda: self.serials.add(serial)),
            on_eligibility=lambda _: None,
            on_record=lambda what, fields: self._told(lambda: self.records.append((what, fields))),
        )

    def _told(self, what: Callable[[], Any]) -> None:
        what()
        self.news.set()

    async def until(self, fact: Callable[[], bool]) -> None:
        """A fact that a record or a confirmation tells of."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not fact():
                self.news.clear()
                await self.news.wait()

    async def hold(self, serial: int, *vips: Vip) -> None:
        """Hold them, and let the routes follow."""
        self.kernel.hold_exactly(serial, vips)
        await self.until(lambda: serial in self.serials)
        await asyncio.sleep(0)
        await asyncio.to_thread(self.kernel._routing._thread.submit(lambda: None).result)

    def said(self, what: str) -> list[dict[str, str]]:
        return [fields for name, fields in self.records if name == what]


def on_the_host(story: Callable[[Host], Awaitable[None]], *given: Any) -> None:
    async def main() -> None:
        host = Host(*given)
        await host.kernel.start()
        try:
            await story(host)
        finally:
            await host.kernel.close()

    opened_in(HOST, lambda: asyncio.run(main()))


def test_routes_and_rules_are_there_while_their_vip_is(network: None) -> None:
    async def story(host: Host) -> None:
        await host.hold(1)
        assert routes() == []
        await host.hold(2, V4)
        assert routes() == OF_V4
        await host.hold(3, V4, V6)
        assert routes() == sorted(OF_V4 + OF_V6)
        await host.hold(4, V6)
        assert routes() == OF_V6
        assert host.said("routing_failed") == []

    on_the_host(story, ROUTING)
    assert routes() == []


def test_what_two_vips_share_stays_until_the_last_has_gone(network: None) -> None:
    shared = (route("10.8.0.0/16 via 10.9.0.2"),)

    async def story(host: Host) -> None:
        await host.hold(1, V4, V6)
        await host.hold(2, V6)
        assert routes() == ["10.8.0.0/16 gateway 10.9.0.2"]
        await host.hold(3)
        assert routes() == []

    on_the_host(story, {V4.key: shared, V6.key: shared})


def test_a_route_that_went_with_its_address_comes_back_with_it(network: None) -> None:
    """The kernel removes routes with that source along with the address."""

    async def story(host: Host) -> None:
        await host.hold(1, V4)
        ip("addr del 10.9.1.1/32 dev eth0", namespace=HOST)
        await host.until(lambda: any(r.get("put_back") == "yes" for r in host.said("kernel")))
        await host.hold(2, V4)
        assert routes() == OF_V4

    on_the_host(story, ROUTING)


def test_what_the_kernel_refuses_or_somebody_else_has_is_told_once_and_left_alone(network: None) -> None:
    ip("route add 10.8.0.0/16 via 10.9.0.2", namespace=HOST)
    routing = (route("10.8.0.0/16 via 10.9.0.2"), route("10.7.0.0/16 via 10.200.0.1"), route("10.6.0.0/16 dev eth9"))

    async def story(host: Host) -> None:
        await host.hold(1, V4)
        await host.hold(2, V4, V6)
        assert routes() == []
        assert {r["what"]: r["reason"] for r in host.said("routing_failed")} == {
            "10.8.0.0/16 via 10.9.0.2": "somebody else has made such a one",
            "10.7.0.0/16 via 10.200.0.1": os.strerror(errno.ENETUNREACH),
            "10.6.0.0/16 dev eth9": "there is no interface eth9",
        }
        assert len(host.said("routing_failed")) == len(host.kernel.warnings()) == 3

    on_the_host(story, {V4.key: routing})
    assert "10.8.0.0/16 via 10.9.0.2" in tool("ip", "-n", HOST, "route")


def test_what_somebody_removed_is_put_back_and_what_was_refused_is_tried_again(network: None) -> None:
    """As systemd-networkd does at its start, with whatever is not its own."""
    ip("route add 10.6.0.0/16 via 10.9.0.2 proto static", namespace=HOST)
    routing = {**ROUTING, V4.key: (*ROUTING[V4.key], route("10.6.0.0/16 via 10.9.0.2"))}

    async def story(host: Host) -> None:
        await host.hold(1, V4, V6)
        await host.until(lambda: len(host.said("routing_failed")) == 1)
        assert routes() == sorted(OF_V4 + OF_V6)
        ip("route flush table 100", "route del 10.8.0.0/16 table 4000", "rule del from 10.9.1.1 lookup 100",
           "rule del not to 10.9.0.0/16 fwmark 0x1/0xff lookup 4000",
           "route del 10.6.0.0/16 via 10.9.0.2 proto static", namespace=HOST)  # fmt: skip
        for gone in ("route flush table 100", "rule del iif eth0 prohibit"):
            tool("ip", "-6", "-n", HOST, *gone.split())
        whole = sorted([*OF_V4, *OF_V6, "10.6.0.0/16 gateway 10.9.0.2"])
        await host.until(lambda: bool(host.said("routing_put_back")) and routes() == whole)
        assert host.kernel.warnings() == []
        assert len(host.said("routing_failed")) == 1

    on_the_host(story, routing)
    assert routes() == []


def left_behind() -> None:
    """What a killed daemon leaves: its routes, among others' own."""
    ip("addr add 10.9.1.1/32 dev eth0", "route add 10.5.0.0/16 via 10.9.0.2 proto static", "rule add from 10.5.0.1 lookup 5",
       namespace=HOST)  # fmt: skip
    tables = opened_in(HOST, RoutingTables)
    index = next(link.index for link in tables.links() if link.name == "eth0")
    entries = [
        rule_entry(x, lambda _: "eth0") if isinstance(x, Rule) else route_entry(x, index if x.dev else None)
        for x in (*ROUTING[V4.key], *ROUTING[V6.key])
    ]
    assert tables.put(entries) == {}
    tables.close()
    assert routes() == sorted(OF_V4 + OF_V6)


def others_are_there() -> None:
    assert "10.5.0.0/16 via 10.9.0.2" in tool("ip", "-n", HOST, "route")
    assert "from 10.5.0.1 lookup 5" in tool("ip", "-n", HOST, "rule")


def test_what_a_former_run_left_is_removed_at_start_and_what_is_held_is_kept(network: None) -> None:
    left_behind()
    ip("addr del 10.9.1.1/32 dev eth0", namespace=HOST)  # takes the route of that source along

    async def story(host: Host) -> None:
        await host.hold(1, V6)
        assert routes() == OF_V6
        assert host.said("routing_failed") == []

    on_the_host(story, ROUTING)
    others_are_there()


@pytest.mark.parametrize("by", ["release", "guard"])
def test_what_a_dead_daemon_left_is_removed(network: None, by: str) -> None:
    left_behind()
    if by == "release":
        assert opened_in(HOST, lambda: release("/nowhere")).routes == len(OF_V4) + len(OF_V6)
    else:
        opened_in(HOST, lambda: remove_ours(RoutingTables()))
    assert routes() == []
    others_are_there()


# -- connections ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def destroying(network: None) -> None:
    """A kernel that can do it."""
    diag = opened_in(HOST, Diag)
    can = diag.can_destroy()
    diag.close()
    if not can:
        pytest.skip("this kernel lacks SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY)")


def connected(address: str, family: socket.AddressFamily) -> tuple[socket.socket, socket.socket]:
    """A connection from the peer to an address of the host: the host's end, the peer's end. Both give up after a while."""
    listener = opened_in(HOST, lambda: socket.create_server((address if family == socket.AF_INET or address == "fd09::1:1" else "::", 0),
                         family=family, dualstack_ipv6=False))  # fmt: skip
    with listener:
        port = listener.getsockname()[1]
        there = opened_in(PEER, lambda: socket.create_connection((address, port), WITHIN_SECONDS))
        here, _ = listener.accept()
    here.settimeout(WITHIN_SECONDS)
    return here, there


@pytest.mark.parametrize(
    ("vip", "family"),
    [(V4, socket.AF_INET), (V6, socket.AF_INET6), (V4, socket.AF_INET6)],
    ids=["v4", "v6", "v4-in-v6"],
)
def test_connections_on_a_vip_end_when_it_goes_and_others_do_not(
    destroying: None, vip: Vip, family: socket.AddressFamily
) -> None:
    async def story(host: Host) -> None:
        await host.hold(1, V4, V6)
        mapped = vip is V4 and family == socket.AF_INET6
        address = vip.addresses[0].ip
        here, there = dual(address) if mapped else connected(address, family)
        own, own_peer = connected("10.9.0.1", socket.AF_INET)
        with here, there, own, own_peer:
            await host.hold(2)
            await host.until(lambda: host.said("connections_destroyed") == [{"number": "1"}])
            with pytest.raises(ConnectionAbortedError):
                here.recv(1)
            own_peer.send(b"x")
            assert own.recv(1) == b"x"

    on_the_host(story, {})


def dual(address: str) -> tuple[socket.socket, socket.socket]:
    """The same over a listener for both families, as most servers have it."""
    with opened_in(
        HOST, lambda: socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    ) as listener:
        port = listener.getsockname()[1]
        there = opened_in(PEER, lambda: socket.create_connection((address, port), WITHIN_SECONDS))
        here, _ = listener.accept()
    here.settimeout(WITHIN_SECONDS)
    return here, there


def test_connections_can_be_kept(destroying: None) -> None:
    async def story(host: Host) -> None:
        await host.hold(1, V4, V6)
        kept, kept_peer = connected("10.9.1.1", socket.AF_INET)
        gone, gone_peer = connected("fd09::1:1", socket.AF_INET6)
        with kept, kept_peer, gone, gone_peer:
            await host.hold(2)
            await host.until(lambda: host.said("connections_destroyed") == [{"number": "1"}])
            with pytest.raises(ConnectionAbortedError):
                gone.recv(1)
            await host.hold(3, V4)
            kept_peer.send(b"x")
            assert kept.recv(1) == b"x"

    on_the_host(story, {}, frozenset({V4.key}))


def test_of_many_addresses_exactly_the_named_are_found(network: None) -> None:
    """The filter runs in the kernel: as many conditions as fit, the first, the last and one in the middle match."""
    many = [packed(f"10.9.2.{i}") for i in range(1, 200)]
    ip(*(f"addr add 10.9.2.{i}/32 dev eth0" for i in (1, 100, 199, 200)), namespace=HOST)
    pairs = [connected(f"10.9.2.{i}", socket.AF_INET) for i in (1, 100, 199, 200)]
    diag = opened_in(HOST, Diag)
    found = diag.found(many)
    assert len(found) == 3
    assert len(diag.found([packed("10.9.2.200")])) == 1
    assert diag.found([packed("10.9.2.2"), packed("fd09::77")]) == []
    assert len(only_from(many[:64])) == 64 * 20
    diag.close()
    for here, there in pairs:
        here.close()
        there.close()
