"""The fence, its guard and nfnetlink in real network namespaces."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from wackamole.lab.namespaces import enter_network, ip, opened_in, tool
from wackamole.shell.clock import boottime_ms
from wackamole.shell.kernel import nfnetlink as nft
from wackamole.shell.kernel.announce import Announcement, Sender, frames
from wackamole.shell.kernel.fence import (
    GATE,
    KEY,
    RENEW,
    SHUT,
    Fence,
    FenceRefused,
    Guarded,
    private_frame,
)
from wackamole.shell.kernel.guard import Guard, descriptors_close_high_first, remove_ours
from wackamole.shell.kernel.nfnetlink import HIGH_DESCRIPTOR, NFPROTO_NETDEV, Changes, Nftables, NftablesError
from wackamole.shell.kernel.routes import RoutingTables
from wackamole.shell.kernel.rtnl import Placed, Rtnl
from wackamole.shell.kernel.surroundings import packed

from .asking import WITHIN_SECONDS, Asker
from .fence_owner import LEASE_MS

pytestmark = pytest.mark.lab

T = TypeVar("T")
HOST, PEER, FAR = (f"wf{os.getpid()}-{name}" for name in ("host", "peer", "far"))
MAC = bytes.fromhex("020000000001")
V4, V6 = "10.9.1.1", "fd09::1:1"
OWN = ("10.9.0.1", "fd09::1")
VIPS = frozenset((packed(V4), packed(V6)))
ALL = {(kind, vip) for kind in ("echo", "claim") for vip in (V4, V6)}
MARK = 0x10000000


class Inside:
    """Calls functions on a thread that lives in a namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._thread = ThreadPoolExecutor(1, initializer=enter_network, initargs=(namespace,))

    def __call__(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        return self._thread.submit(function, *arguments, **named).result()

    def close(self) -> None:
        self._thread.shutdown()

    def index(self, interface: str) -> int:
        return self(socket.if_nametoindex, interface)

    def nft(self, text: str) -> None:
        tool("ip", "netns", "exec", self.namespace, "nft", "-f", "-", text=text)

    def ruleset(self, *what: str) -> str:
        return tool("ip", "netns", "exec", self.namespace, "nft", "list", *(what or ("ruleset",)))

    def tables(self) -> set[str]:
        """The netdev tables."""
        return {line.split()[2] for line in self.ruleset("tables").splitlines() if line.split()[1] == "netdev"}

    def tagged(self) -> int:
        """How many addresses carry our tag."""
        rtnl = self(Rtnl)
        try:
            return sum(a.ours for a in rtnl.addresses())
        finally:
            rtnl.close()


@contextmanager
def namespaces(*names: str) -> Iterator[None]:
    for name in names:
        tool("ip", "netns", "add", name)
    try:
        yield
    finally:
        for name in names:
            tool("ip", "netns", "delete", name)


@pytest.fixture
def host() -> Iterator[Inside]:
    """Two hosts on a cable, eth0 on both sides; the one has two addresses that are to be fenced."""
    with namespaces(HOST, PEER):
        ip(f"link add eth0 address {MAC.hex(':')} type veth peer name eth0 netns {PEER}", namespace=HOST)
        ip("link set lo up", "addr add 10.9.0.1/16 dev eth0", "addr add fd09::1/64 dev eth0 nodad", "link set eth0 up",
           f"addr add {V4}/32 dev eth0", f"addr add {V6}/128 dev eth0 nodad", namespace=HOST)  # fmt: skip
        ip("link set lo up", "addr add 10.9.0.2/16 dev eth0", "addr add fd09::2/64 dev eth0 nodad", "link set eth0 up",
           namespace=PEER)  # fmt: skip
        inside = Inside(HOST)
        try:
            yield inside
        finally:
            inside.close()


@pytest.fixture
def peer(host: Inside) -> Iterator[Asker]:
    asker = Asker(PEER, "eth0")
    try:
        yield asker
    finally:
        asker.close()


@contextmanager
def fenced(host: Inside, *interfaces: str, lease_ms: int = LEASE_MS, ips: frozenset[bytes] = VIPS) -> Iterator[Fence]:
    """A fence for these interfaces, shut."""
    fence = host(Fence, lease_ms, MARK)
    try:
        host(fence.install, tuple(Guarded(host.index(name), name, ips) for name in interfaces))
        yield fence
    finally:
        host(fence.close)


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_SECONDS
    while not fact():
        assert time.monotonic() < end


# -- what passes ------------------------------------------------------------------------------------------------------------


def test_vips_answer_while_the_key_is_open_and_not_otherwise(host: Inside, peer: Asker) -> None:
    with fenced(host, "eth0") as fence:
        index = host.index("eth0")
        assert fence.intact()
        assert fence.why_not(index) is None
        assert peer.answers(V4, V6, control=OWN) == set()
        for _ in range(2):
            assert host(fence.renew, boottime_ms()) == {index}
            peer.until(ALL, V4, V6, control=OWN)
            host(fence.shut)
            assert fence.left_ms() == 0
            assert peer.answers(V4, V6, control=OWN) == set()
    peer.until(ALL, V4, V6, control=OWN)  # closed: no fence at all
    assert host.tables() == set()


def test_what_a_shut_fence_eats_costs_the_announcer_no_socket(host: Inside) -> None:
    """To close one takes the kernel 10 ms: with thousands of VIPs that held the loop up until its lease had run out, which
    shut the fence again."""
    with fenced(host, "eth0") as fence:
        sender = Sender()
        try:
            host(fence.renew, boottime_ms())
            announcement = Announcement(packed(V4), "eth0", MAC)
            assert host(sender.send, announcement) is None
            host(fence.shut)
            before = host(_numbers_of_sockets)
            assert "eth0" in (host(sender.send, announcement) or "")
            assert host(_numbers_of_sockets) == before
            host(fence.renew, boottime_ms())
            assert host(sender.send, announcement) is None
        finally:
            sender.close()


def _numbers_of_sockets() -> set[str]:
    """This process's, as the kernel numbers them: one that was opened anew has another."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return {text for text in found if text.startswith("socket:")}


def test_a_lease_that_is_not_renewed_ends_by_itself(host: Inside, peer: Asker) -> None:
    with fenced(host, "eth0", lease_ms=1500) as fence:
        host(fence.renew, boottime_ms())
        until(lambda: fence.left_ms() == 0)
        assert peer.answers(V4, V6, control=OWN) == set()
        assert host.tables() == {GATE, KEY}
        host(fence.renew, boottime_ms())
        assert fence.left_ms() > 0


def test_a_renewal_counts_from_when_it_is_made(host: Inside) -> None:
    with fenced(host, "eth0") as fence:
        host(fence.renew, boottime_ms())
        until(lambda: fence.left_ms() < LEASE_MS - 20)
        before = fence.left_ms()
        host(fence.renew, boottime_ms())
        assert before < fence.left_ms() <= LEASE_MS


@pytest.mark.parametrize("held", [True, False], ids=["held", "removed"])
def test_a_dark_host_sends_nothing_from_a_vip_and_announces_none(host: Inside, peer: Asker, held: bool) -> None:
    """Datagrams that start here, gratuitous ARP and advertisements by packet socket: all go out before the own ones. An
    address that the guard has removed may still be announced by who wakes up."""
    if not held:
        ip(f"addr del {V4}/32 dev eth0", f"addr del {V6}/128 dev eth0", namespace=HOST)

    def opened() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind(("eth0", 3))
        s.settimeout(WITHIN_SECONDS)
        return s

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("eth0", 0))
            for vip in (V4, V6, *OWN):
                family, to = (socket.AF_INET6, "fd09::2") if ":" in vip else (socket.AF_INET, "10.9.0.2")
                if held or vip in OWN:
                    with socket.socket(family, socket.SOCK_DGRAM) as s:
                        s.bind((vip, 0))
                        try:
                            s.sendto(vip.encode(), (to, 9))
                        except PermissionError:
                            assert vip not in OWN
                for frame in frames(MAC, packed(vip)):
                    try:
                        wire.send(frame)
                    except OSError:
                        assert vip not in OWN

    peer.answers(control=OWN)  # both know each other's hardware addresses
    listener = opened_in(PEER, opened)
    with listener, fenced(host, "eth0") as fence:

        def heard() -> set[str]:
            """The addresses of which something was sent, up to the last of the own ones."""
            found: set[str] = set()
            host(send)
            last = frames(MAC, packed(OWN[1]))[-1]
            while (frame := listener.recv(4096)) != last:
                for vip in (V4, V6, *OWN):
                    own = set(frames(MAC, packed(vip)))
                    if frame in own:
                        found.add(f"announced {vip}")
                    elif vip.encode() == frame[42:] or vip.encode() == frame[62:]:
                        found.add(f"sent from {vip}")
            return found

        own = {f"{what} {OWN[0]}" for what in ("announced", "sent from")} | {f"sent from {OWN[1]}"}
        assert heard() == own
        host(fence.renew, boottime_ms())
        kinds = ("announced", "sent from") if held else ("announced",)
        assert heard() == own | {f"{what} {vip}" for what in kinds for vip in (V4, V6)}


def test_a_dark_host_does_not_hear_what_is_sent_to_its_vips(host: Inside, peer: Asker) -> None:
    """Or a service would carry out what it is asked, although its answer is lost."""

    def listening(vip: str) -> socket.socket:
        s = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((vip, 7000))
        s.settimeout(WITHIN_SECONDS)
        return s

    with fenced(host, "eth0") as fence:
        host(fence.renew, boottime_ms())
        peer.until(ALL, V4, V6, control=OWN)  # it knows their hardware address and will not ask for it
        host(fence.shut)
        for vip, own in zip((V4, V6), OWN, strict=True):
            with host(listening, vip) as to_vip, host(listening, own) as to_own:
                family = socket.AF_INET6 if ":" in vip else socket.AF_INET
                with opened_in(PEER, lambda family=family: socket.socket(family, socket.SOCK_DGRAM)) as s:  # type: ignore[misc]
                    s.sendto(b"in vain", (vip, 7000))
                    s.sendto(b"x", (own, 7000))
                    assert to_own.recv(10) == b"x"
                    to_vip.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        to_vip.recv(10)
                    host(fence.renew, boottime_ms())
                    to_vip.settimeout(WITHIN_SECONDS)
                    s.sendto(b"now", (vip, 7000))
                    assert to_vip.recv(10) == b"now"
                    host(fence.shut)


def test_a_dark_host_still_learns_who_has_an_address(host: Inside) -> None:
    ip("addr del 10.9.1.1/32 dev eth0", "neigh replace 10.9.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud stale",
       namespace=HOST)  # fmt: skip
    mac = bytes.fromhex("020000000042")

    def announce() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("eth0", 0))
            for frame in frames(mac, packed(V4)):
                wire.send(frame)

    def told() -> bool:
        opened_in(PEER, announce)
        return mac.hex(":") in tool("ip", "-n", HOST, "neigh", "show", V4)

    with fenced(host, "eth0"):
        until(told)


@pytest.mark.parametrize("open_key", [False, True], ids=["shut", "open"])
def test_marks_of_others_survive(host: Inside, peer: Asker, open_key: bool) -> None:
    host.nft("""
        table netdev site {
          counter seen_in {}
          counter seen_out {}
          chain mark_in { type filter hook ingress device "eth0" priority -600; meta mark set 0x00000305; }
          chain mark_out { type filter hook egress device "eth0" priority -600; meta mark set 0x00000305; }
          chain read_in { type filter hook ingress device "eth0" priority 0; meta mark != 0x305 counter name seen_in; }
          chain read_out { type filter hook egress device "eth0" priority 0; meta mark != 0x305 counter name seen_out; }
        }
    """)
    with fenced(host, "eth0") as fence:
        if open_key:
            host(fence.renew, boottime_ms())
            peer.until(ALL, V4, V6, control=OWN)
        else:
            assert peer.answers(V4, V6, control=OWN) == set()
        assert host.ruleset("counters").count("packets 0 bytes 0") == 2


def test_private_frames_of_others_change_nothing(host: Inside) -> None:
    """A container with a macvlan on the interface sends through the same hook."""

    def send(ethertype: int) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("eth0", 0))
            wire.send(private_frame(ethertype, bytes(16)))

    with fenced(host, "eth0") as fence:
        host(send, RENEW)
        assert fence.left_ms() == 0
        host(fence.renew, boottime_ms())
        host(send, SHUT)
        assert fence.left_ms() > 0


# -- hosts that route -------------------------------------------------------------------------------------------------------


@pytest.fixture
def router() -> Iterator[Inside]:
    """PEER — eth0 HOST eth1 — FAR: the host routes between a client and a server that has the VIPs."""
    with namespaces(HOST, PEER, FAR):
        ip(f"link add eth0 type veth peer name eth0 netns {PEER}", f"link add eth1 type veth peer name eth0 netns {FAR}",
           "link set lo up", "addr add 10.8.0.1/24 dev eth0", "addr add fd08::1/64 dev eth0 nodad",
           "addr add 10.9.0.1/16 dev eth1", "addr add fd09::1/64 dev eth1 nodad", "link set eth0 up", "link set eth1 up",
           namespace=HOST)  # fmt: skip
        ip("addr add 10.8.0.2/24 dev eth0", "addr add fd08::2/64 dev eth0 nodad", "link set eth0 up",
           "route add default via 10.8.0.1", "route add default via fd08::1", namespace=PEER)  # fmt: skip
        ip("addr add 10.9.0.2/16 dev eth0", "addr add fd09::2/64 dev eth0 nodad", "link set eth0 up",
           f"addr add {V4}/32 dev eth0", f"addr add {V6}/128 dev eth0 nodad",
           "route add default via 10.9.0.1", "route add default via fd09::1", namespace=FAR)  # fmt: skip
        inside = Inside(HOST)
        forwarding = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"
        tool("ip", "netns", "exec", HOST, "sh", "-c", forwarding)
        try:
            yield inside
        finally:
            inside.close()


@pytest.fixture
def client(router: Inside) -> Iterator[Asker]:
    asker = Asker(PEER)
    try:
        yield asker
    finally:
        asker.close()


def test_a_dark_host_that_routes_forwards_to_vips_of_others(router: Inside, client: Asker) -> None:
    both = {("echo", V4), ("echo", V6)}
    with fenced(router, "eth0", "eth1") as fence:
        client.until(both, V4, V6, control=OWN)
        router(fence.renew, boottime_ms())
        client.until(both, V4, V6, control=OWN)


def test_hazard_19_a_leftover_is_not_reached_through_another_interface(router: Inside, client: Asker) -> None:
    ip(f"addr add {V4}/32 dev eth1", f"addr add {V6}/128 dev eth1 nodad", namespace=HOST)
    with fenced(router, "eth0", "eth1") as fence:
        assert client.answers(V4, V6, control=OWN) == set()
        router(fence.renew, boottime_ms())
        client.until({("echo", V4), ("echo", V6)}, V4, V6, control=OWN)


# -- the tables -------------------------------------------------------------------------------------------------------------


def test_a_firewall_reload_leaves_the_fence_in_place(host: Inside, peer: Asker) -> None:
    with fenced(host, "eth0") as fence:
        host.nft("flush ruleset")
        assert fence.intact()
        assert peer.answers(V4, V6, control=OWN) == set()


def test_what_the_site_has_is_untouched(host: Inside) -> None:
    host.nft("""
        table inet site {
          chain c { type filter hook input priority 0; ip saddr 192.0.2.1 drop; }
        }
        table netdev site {
          chain c { type filter hook ingress device "eth0" priority 0; }
        }
    """)
    before = host.ruleset()
    with fenced(host, "eth0"):
        assert host.tables() == {GATE, KEY, "site"}
        with pytest.raises(AssertionError):
            assert host.ruleset() == before
    assert host.ruleset() == before


def test_there_is_one_owner_in_a_namespace(host: Inside, peer: Asker) -> None:
    with fenced(host, "eth0") as fence:
        host(fence.renew, boottime_ms())
        with pytest.raises(FenceRefused, match="does another wackamole run"):
            host(Fence, LEASE_MS)
        assert fence.intact()
        peer.until(ALL, V4, V6, control=OWN)


def test_without_fib_it_is_as_dark_but_no_router(router: Inside, client: Asker) -> None:
    """Kernels that are built without NFT_FIB_NETDEV: dark comes first."""
    with fenced(router, "eth0", "eth1") as fence:
        fence._fib = False
        router(fence.install, tuple(fence._guarded.values()))
        assert fence.intact()
        assert client.answers(V4, V6, control=OWN) == set()


def test_without_the_right_to_it_the_sentence_says_so(host: Inside) -> None:
    program = (
        "import sys, os\nfrom wackamole.lab.namespaces import enter_network\n"
        "from wackamole.shell.kernel.fence import Fence, FenceRefused\n"
        "enter_network(sys.argv[1])\nos.setresuid(65534, 65534, 65534)\n"
        "try: Fence(1000)\nexcept FenceRefused as wrong: print(wrong)\n"
    )
    said = subprocess.run([sys.executable, "-c", program, HOST], capture_output=True, text=True, check=True).stdout
    assert "CAP_NET_ADMIN" in said


def test_a_table_that_is_not_owned_is_replaced(host: Inside, peer: Asker) -> None:
    host.nft(f"add table netdev {GATE}\nadd table netdev {KEY}\nadd chain netdev {KEY} c")
    with fenced(host, "eth0") as fence:
        assert fence.intact()
        assert peer.answers(V4, V6, control=OWN) == set()


def test_an_interface_that_cannot_be_fenced_is_left_out_and_the_others_stay_fenced(host: Inside, peer: Asker) -> None:
    index = host.index("eth0")
    with fenced(host, "eth0") as fence:
        host(fence.renew, boottime_ms())
        gone, refused = Guarded(77, "eth7", VIPS), Guarded(78, "longer-than-names-are", VIPS)
        host(fence.install, (gone, Guarded(index, "eth0", VIPS), refused))
        assert fence.why_not(77) == "there is no such interface"
        assert fence.why_not(78) == os.strerror(errno.ERANGE)
        assert fence.why_not(index) is None
        assert fence.why_not(99) == "not fenced yet"
        assert fence.intact()
        assert fence.left_ms() > 0
        host(fence.shut)
        assert peer.answers(V4, V6, control=OWN) == set()


def test_another_install_keeps_the_lease_as_it_is(host: Inside) -> None:
    index = host.index("eth0")
    ip("link add eth5 type veth peer name eth6", "link set eth5 up", namespace=HOST)
    both = (Guarded(index, "eth0", VIPS), Guarded(host.index("eth5"), "eth5", VIPS))
    with fenced(host, "eth0") as fence:
        host(fence.install, both)
        assert fence.left_ms() == 0
        host(fence.renew, boottime_ms())
        host(fence.install, both[:1])
        assert 0 < fence.left_ms() <= LEASE_MS
        host(fence.install, both)
        assert 0 < fence.left_ms() <= LEASE_MS
        host(fence.shut)
        host(fence.install, both[:1])
        assert fence.left_ms() == 0


def handles(host: Inside) -> list[str]:
    """Of the rules: who makes a table anew has others."""
    text = tool("ip", "netns", "exec", host.namespace, "nft", "-a", "list", "ruleset")
    return re.findall(r"# handle \d+", text)


def test_vips_come_and_go_in_the_tables_that_are_there(host: Inside, peer: Asker) -> None:
    index, more = host.index("eth0"), "10.9.1.2"
    ip(f"addr add {more}/32 dev eth0", namespace=HOST)
    with fenced(host, "eth0", lease_ms=60_000) as fence:
        chains = handles(host)
        assert {a for _, a in peer.answers(V4, more, control=OWN)} == {more}
        host(fence.renew, boottime_ms())
        host(fence.change, (Guarded(index, "eth0", VIPS | {packed(more)}),))
        assert host(fence.left_ms) > 30_000  # not closed for a moment
        host(fence.shut)
        assert peer.answers(V4, more, control=OWN) == set()
        host(fence.change, (Guarded(index, "eth0", frozenset({packed(more)})),))
        assert {a for _, a in peer.answers(V4, more, control=OWN)} == {V4}
        assert handles(host) == chains
        assert host(fence.intact)
        host(fence.install, (Guarded(index, "eth0", frozenset({packed(more)})),))
        assert handles(host) != chains
        assert peer.answers(more, control=OWN) == set()


def test_many_vips(host: Inside, peer: Asker) -> None:
    many = frozenset(packed("10.7.0.0")[:2] + i.to_bytes(2) for i in range(5000))
    many |= frozenset(packed("fd07::")[:14] + i.to_bytes(2) for i in range(1500))
    with fenced(host, "eth0", ips=many | VIPS) as fence:
        assert fence.intact()
        assert peer.answers(V4, V6, control=OWN) == set()
        host(fence.renew, boottime_ms())
        peer.until(ALL, V4, V6, control=OWN)


def test_an_interface_that_is_down_is_shut_as_well(host: Inside, peer: Asker) -> None:
    """It takes no frame; up again before the lease ended it would answer."""
    with fenced(host, "eth0") as fence:
        host(fence.renew, boottime_ms())
        ip("link set eth0 down", namespace=HOST)
        assert host(fence.renew, boottime_ms()) == set()
        assert not host(fence.shut)
        assert fence.intact()
        ip("link set eth0 up", f"addr replace {V6}/128 dev eth0 nodad", "addr replace fd09::1/64 dev eth0 nodad",
           namespace=HOST)  # fmt: skip
        assert peer.answers(V4, V6, control=OWN) == set()
        until(lambda: host(fence.renew, boottime_ms()) == {host.index("eth0")})
        peer.until(ALL, V4, V6, control=OWN)


def test_an_interface_goes_and_comes_back(host: Inside) -> None:
    ip("link add eth5 type veth peer name eth6", "link set eth5 up", "link set eth6 up", namespace=HOST)
    with fenced(host, "eth0", "eth5") as fence:
        zero, five = host.index("eth0"), host.index("eth5")
        assert host(fence.renew, boottime_ms()) == {zero, five}
        ip("link del eth5", namespace=HOST)
        assert host(fence.renew, boottime_ms()) == {zero}
        ip("link add eth7 type veth peer name eth8", "link add eth5 type veth peer name eth6", "link set eth5 up",
           "link set eth6 up", namespace=HOST)  # fmt: skip
        again = host.index("eth5")
        assert again != five
        assert fence.why_not(again) == "not fenced yet"
        host(fence.install, (Guarded(zero, "eth0", VIPS), Guarded(again, "eth5", VIPS)))
        assert fence.left_ms() > 0
        assert fence.why_not(again) is None
        assert fence.why_not(five) == "not fenced yet"
        until(lambda: host(fence.renew, boottime_ms()) == {zero, again})


def test_whoever_touches_the_tables_is_noticed(host: Inside) -> None:
    with fenced(host, "eth0") as fence:
        changes = host(Changes)
        host.nft("table netdev another {}")
        assert select.select([changes], [], [], WITHIN_SECONDS)[0]
        changes.drain()
        assert not select.select([changes], [], [], 0)[0]
        changes.close()
        assert fence.intact()
        index = host.index("eth0")
        fence._owner.commit([(nft.SUBSYSTEM | 5, 0, NFPROTO_NETDEV, nft.text(1, KEY) + nft.text(3, f"in_{index}"))])
        assert not fence.intact()


# -- deaths -----------------------------------------------------------------------------------------------------------------


@contextmanager
def owner(low: socket.socket | None = None) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A process with a fence for both VIPs, open, their addresses, and a guard."""
    ip(f"addr del {V4}/32 dev eth0", f"addr del {V6}/128 dev eth0", namespace=HOST)
    descriptors = () if low is None else (low.fileno(),)
    command = [sys.executable, "-m", "tests.shell.fence_owner", HOST, V4, V6]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, pass_fds=descriptors) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            assert said["took"] == [said["index"]]
            yield process, said
        finally:
            process.kill()


def test_hazard_05_a_kill_darkens_before_the_group_hears_of_it(host: Inside, peer: Asker) -> None:
    mine, its = socket.socketpair()  # stands for the engine's socket: a descriptor below the owner's
    look = host(Nftables)
    with mine, owner(its) as (process, said):
        low = its.fileno()
        its.close()
        assert low < HIGH_DESCRIPTOR <= said["fd"]
        os.kill(said["guard"], signal.SIGKILL)  # or it would tidy up what is to be seen here
        peer.until(ALL, V4, V6, control=OWN)
        process.kill()
        assert mine.recv(1) == b""
        assert look.ask(nft.GETTABLE, NFPROTO_NETDEV, nft.text(1, KEY)) == []
        assert peer.answers(V4, V6, control=OWN) == set()
        assert host.tables() == {GATE}
        assert host.tagged() == 2
    look.close()
    with fenced(host, "eth0") as fence:  # the next one adopts the orphan
        assert fence.intact()
        assert peer.answers(V4, V6, control=OWN) == set()
    assert host.tables() == set()


def test_a_stopped_owner_is_dark_after_its_lease(host: Inside, peer: Asker) -> None:
    """The kernel needs nobody: what is stopped here is everything that could renew."""
    with fenced(host, "eth0", lease_ms=1000) as fence:
        host(fence.renew, boottime_ms())
        peer.until(set(), V4, V6, control=OWN)


def test_the_guard_removes_what_a_dead_owner_left(host: Inside) -> None:
    with owner() as (process, _):
        assert host.tagged() == 2
        process.kill()
        until(lambda: host.tagged() == 0)
        kept = opened_in(HOST, Rtnl)
        assert {packed(own) for own in OWN} <= {a.ip for a in kept.addresses()}
        kept.close()


def test_a_dismissed_guard_removes_nothing(host: Inside) -> None:
    with owner() as (process, _):
        assert process.stdin is not None
        process.stdin.write("end\n")
        process.stdin.close()
        assert process.wait(WITHIN_SECONDS) == 0  # it has waited for the guard's end
        assert host.tagged() == 2


def test_hazard_05_a_guard_holds_nothing_that_it_was_forked_with() -> None:
    """Or that would close when the guard gets round to it, be the daemon dark by then or not."""
    mine, its = socket.socketpair()
    guard = Guard()
    its.close()
    mine.setblocking(False)
    assert mine.recv(1) == b""
    assert guard.alive()
    guard.dismiss()
    mine.close()


def test_a_guard_that_is_not_armed_removes_nothing(host: Inside) -> None:
    """A daemon that is refused because another one runs here ends, and the other's addresses stay."""
    rtnl = host(Rtnl)
    assert rtnl.add([Placed(packed("10.9.1.5"), 32, host.index("eth0"))]) == {}
    guard = host(Guard)
    os.close(guard.descriptor)
    os.waitpid(guard.pid, 0)
    assert host.tagged() == 1
    rtnl.close()


def test_a_guard_that_was_killed_is_noticed(host: Inside) -> None:
    guard = Guard()
    assert guard.alive()
    os.kill(guard.pid, signal.SIGKILL)
    until(lambda: not guard.alive())
    guard.dismiss()


def test_only_tagged_addresses_are_removed(host: Inside) -> None:
    rtnl = host(RoutingTables)
    index = host.index("eth0")
    many = [Placed(packed("10.9.3.0")[:3] + bytes((i,)), 32, index) for i in range(1, 250)]
    assert rtnl.add(many) == {}
    assert remove_ours(rtnl) == len(many)
    assert remove_ours(rtnl) == 0
    assert {packed(V4), packed(V6), *(packed(own) for own in OWN)} <= {a.ip for a in rtnl.addresses()}
    rtnl.close()


def test_this_kernel_closes_the_highest_descriptor_first() -> None:
    assert descriptors_close_high_first()


def test_a_small_limit_of_descriptors_is_enough() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert nft.high_descriptor() < 256
        assert descriptors_close_high_first()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- nfnetlink --------------------------------------------------------------------------------------------------------------


def test_a_batch_is_made_whole_or_not_at_all_and_says_where(host: Inside) -> None:
    nftables = host(Nftables)
    with pytest.raises(NftablesError) as wrong:
        nftables.commit(
            [
                nft.table(NFPROTO_NETDEV, "one"),
                nft.no_table(NFPROTO_NETDEV, "none"),
                nft.chain(NFPROTO_NETDEV, "one", "c", 0, 0, "eth9"),
            ]
        )
    assert (wrong.value.errno, wrong.value.at) == (2, 1)
    assert host.tables() == set()
    nftables.commit([])
    nftables.commit([nft.table(NFPROTO_NETDEV, "one")])  # answers of the refused batch are not taken for this one's
    assert host.tables() == {"one"}
    assert nftables.ask(nft.GETTABLE, NFPROTO_NETDEV, nft.text(1, "two")) == []
    nftables.close()
