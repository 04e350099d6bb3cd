"""Real daemons tell a host that only one of them has ever talked to, and stop when there is nothing to tell."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest

from wackamole.lab.lab import CLIENT, Lab
from wackamole.lab.namespaces import opened_in, tool
from wackamole.shell.kernel.listed import frames_for
from wackamole.shell.kernel.surroundings import packed

pytestmark = pytest.mark.lab

CLIENT_ADDRESSES = ("10.77.0.200", "fd77::200")
SETTINGS = '[notify]\nneighbours = true\nping = true\n[neighbours]\ninterval = "1s"\n'


def meet(lab: Lab, node: str, address: str) -> None:
    """Let a node's kernel learn the client's hardware address."""

    def send() -> None:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"x", (address, 9))

    opened_in(lab.layout.namespace(node), send)


def hears(lab: Lab) -> socket.socket:
    def opened() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.bind(("eth0", 3))
        s.setblocking(False)
        return s

    return opened_in(lab.layout.namespace(CLIENT), opened)


def test_whoever_takes_over_tells_the_neighbours_of_the_dead(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(settings=SETTINGS, vips=6, vips6=2)
    lab.start_all()
    lab.until_settled()
    client = bytes.fromhex(f"0257000000{lab._number(CLIENT):02x}")
    for address in CLIENT_ADDRESSES:
        meet(lab, "a", address)

    def messages(node: str) -> int:
        return int(lab.ask(node, "status")["notify"]["heard"])

    # of two that talk at 0.8 to 1.2 s, each says at least three of eight: the last of them after it has looked again
    wanted = {n: messages(n) + 8 for n in "bc"}
    lab.until(lambda: all(messages(n) >= wanted[n] for n in "bc"), within_s=60, story="b and c have heard whom a knows")
    for node in "bc":
        for address in CLIENT_ADDRESSES:
            assert client.hex(":") not in tool("ip", "-n", lab.layout.namespace(node), "neigh", "show", address)
    taken = [address for _, address in lab.layout.vips if lab.holders(address) == {"a"}]
    assert taken
    frames: dict[bytes, str] = {}
    for address in taken:
        to = CLIENT_ADDRESSES[":" in address]
        for node in "bc":
            mac = bytes.fromhex(lab.macs()[node].replace(":", ""))
            frames |= dict.fromkeys(
                frames_for(mac, packed(address), packed(to), client, ping=True), f"{node} {address}"
            )
    heard: list[str] = []

    def told() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = wire.recv(2048)
                if frame in frames:
                    heard.append(frames[frame])
        return {text.split()[1] for text in heard} == set(taken)

    with hears(lab) as wire:
        lab.crash("a")
        lab.until_settled("bc")
        lab.until(told, within_s=30, story="the client is told of every VIP that a had")
        for text in set(heard):
            node, address = text.split()
            assert lab.holders(address) == {node}
    for node in "bc":
        lab.until(
            lambda node=node: lab.ask(node, "status")["notify"]["under_way"] == 0,  # type: ignore[misc]
            within_s=60,
            story=f"{node} has told them all",
        )
