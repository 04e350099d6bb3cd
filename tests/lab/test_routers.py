"""Three routers between two networks, and one virtual gateway with an address of each family on both: what goes through it
goes on when a router dies. How fast is the benchmark's business."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from wackamole.lab.lab import CLIENT, GATEWAY, GATEWAY_ADDRESSES, SERVER, Lab
from wackamole.lab.namespaces import ip, opened_in

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]
SERVED = ("10.78.0.202", "fd78::202")
WITHIN_SECONDS = 60.0
EAGER = '[balance]\ninterval = "1s"\nsettle = "2s"\ncount = "addresses"\n'


class Stream:
    """One TCP connection from the client to the server, which sends back what it gets."""

    def __init__(self, lab: Lab, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = opened_in(
            lab.layout.namespace(SERVER), lambda: socket.create_server((address, 0), family=family)
        )
        self._listener.settimeout(WITHIN_SECONDS)
        self._echo = threading.Thread(target=self._serve, daemon=True)
        self._echo.start()
        self._client = opened_in(lab.layout.namespace(CLIENT), lambda: socket.socket(family))
        self._client.settimeout(WITHIN_SECONDS)
        self._client.connect((address, self._listener.getsockname()[1]))
        self._sent = 0

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            accepted, _ = self._listener.accept()
            accepted.settimeout(WITHIN_SECONDS)
            with accepted:
                while said := accepted.recv(4096):
                    accepted.sendall(said)

    def carries(self, words: int = 20) -> None:
        """These many more come back, each once and in order, over the same connection."""
        for _ in range(words):
            self._sent += 1
            word = self._sent.to_bytes(8)
            self._client.sendall(word)
            back = b""
            while len(back) < len(word):
                back += self._client.recv(len(word) - len(back)) or pytest.fail("the connection broke")
            assert back == word

    def close(self) -> None:
        self._client.close()
        self._listener.close()
        self._echo.join()


@contextlib.contextmanager
def streams(lab: Lab) -> Iterator[list[Stream]]:
    with contextlib.ExitStack() as open_ones:
        yield [open_ones.enter_context(contextlib.closing(Stream(lab, address))) for address in SERVED]


def carried(found: list[Stream]) -> None:
    for stream in found:
        stream.carries()


def router(lab: Lab) -> str:
    """Who is the gateway: the same node has all of its addresses."""
    holders = [lab.holders(address) for _, address in GATEWAY_ADDRESSES]
    assert all(len(h) == 1 for h in holders), holders
    assert len(set().union(*holders)) == 1, holders
    return holders[0].pop()


def moved(lab: Lab, old: str) -> None:
    addresses = [address for _, address in GATEWAY_ADDRESSES]
    lab.until(
        lambda: (
            len(held := set().union(*map(lab.holders, addresses))) == 1
            and old not in held
            and all(map(lab.holders, addresses))
        ),
        within_s=WITHIN_SECONDS,
        story=f"all addresses of the gateway leave {old}, to one other node",
    )


@pytest.fixture
def routers(make_lab: MakeLab) -> Lab:
    lab = make_lab(routed=True, vips=2, vips6=1, settings=EAGER)
    lab.start_all()
    lab.until_settled()
    return lab


def test_a_stream_through_the_virtual_gateway_survives_the_routers_death(routers: Lab) -> None:
    with streams(routers) as found:
        carried(found)
        first = router(routers)
        routers.crash(first)
        carried(found)
        second = router(routers)
        assert second != first
        routers.crash(second)
        carried(found)
        assert router(routers) not in (first, second)


def test_a_stream_goes_on_while_the_router_is_drained_and_its_daemon_leaves(routers: Lab) -> None:
    with streams(routers) as found:
        carried(found)
        first = router(routers)
        routers.ask(first, "drain", {"node": first})
        moved(routers, first)
        carried(found)
        second = router(routers)
        routers.stop(second)
        moved(routers, second)
        carried(found)


@pytest.mark.parametrize("network", [0, 1])
def test_a_router_that_loses_one_of_its_networks_is_router_on_neither(routers: Lab, network: int) -> None:
    with streams(routers) as found:
        carried(found)
        first = router(routers)
        routers.cut(first, network)
        moved(routers, first)
        carried(found)
        routers.plug(first, network)
        routers.until_settled()
        carried(found)


def test_a_router_that_holds_nothing_forwards_as_well(routers: Lab) -> None:
    """Its fence drops what is for it and from it, not what passes: a route may lead through its own address."""
    gateway = router(routers)
    other = next(n for n in routers.layout.nodes if n != gateway)
    number = 11 + routers.layout.nodes.index(other)
    lines = [f"route add {SERVED[0]} via 10.77.0.{number}", f"route add {SERVED[1]} via fd77::{number}"]
    ip(*lines, namespace=routers.layout.namespace(CLIENT))
    with streams(routers) as found:
        carried(found)


def test_shares_count_the_gateways_addresses(routers: Lab) -> None:
    gateway = router(routers)
    for node in routers.layout.nodes:
        names = {v["name"] for v in routers.ask(node, "status")["vips"] if v["holder"] == node}
        assert (names == {GATEWAY}) == (node == gateway), "whoever has four addresses has no other VIP"
        assert len(names) == 1
