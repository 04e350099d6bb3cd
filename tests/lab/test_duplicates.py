"""A stranger in a real cluster's segment has one of its VIPs too."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from wackamole.lab.lab import CLIENT, OBSERVER, Lab
from wackamole.lab.namespaces import ip, opened_in, tool

pytestmark = pytest.mark.lab


def ask_as(lab: Lab, address: str) -> None:
    """Let the client look for a host that is not there, as `address`: its kernel asks the whole segment."""

    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((address, 0))
            s.sendto(b"x", ("10.77.0.250", 9))

    opened_in(lab.layout.namespace(CLIENT), ask)


def test_a_stranger_with_a_vip_is_seen_in_the_holders_status(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.start_all()
    lab.until_settled()
    name, address = next((n, a) for n, a in lab.layout.vips if ":" not in a)
    (holder,) = lab.holders(address)
    stranger = f"02:57:00:00:00:{lab._number(CLIENT):02x}"

    def claimants(node: str) -> list[str]:
        (vip,) = [v for v in lab.ask(node, "status")["vips"] if v["name"] == name]
        return [c["mac"] for c in vip["duplicates"]]

    observer = lab.layout.namespace(OBSERVER)
    tool("ip", "-n", observer, "neigh", "replace", address, "lladdr", stranger, "dev", "eth0", "nud", "stale")
    assert claimants(holder) == []
    ip(f"addr add {address}/32 dev eth0", namespace=lab.layout.namespace(CLIENT))
    ask_as(lab, address)
    lab.until(lambda: claimants(holder) == [stranger], within_s=20, story="the holder shows who claims it")
    warnings = lab.ask(holder, "status")["warnings"]
    assert any(stranger in w and name in w for w in warnings)
    for other in set(lab.layout.nodes) - {holder}:
        assert claimants(other) == []
    lab.until(
        lambda: lab.macs()[holder] in tool("ip", "-n", observer, "neigh", "show", address),
        within_s=20,
        story="neighbours know the holder again",
    )
    assert lab.holders(address) == {holder}
    assert f"duplicate vip={name} mac={stranger}" in lab.log(holder)


def test_the_next_member_looks_at_a_vip_on_the_wire_and_every_status_shows_what_it_heard(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.start_all()
    lab.until_settled()
    names = {"four": "", "six": ""}
    for name, address in lab.layout.vips:
        names["six" if ":" in address else "four"] = name

    def move(name: str, to: str) -> None:
        lab.ask("a", "move", {"vips": [name], "node": to})

    def heard(name: str) -> set[tuple[str, str]]:
        found = set()
        for node in lab.layout.nodes:
            (vip,) = [v for v in lab.ask(node, "status")["vips"] if v["name"] == name]
            found.add((vip["witness"]["by"], vip["witness"]["result"]) if vip["witness"] else ("nobody", "nothing"))
        return found

    for name in names.values():
        move(name, "b")  # wherever it was, and whoever saw that, it moves next
        for to, by in (("a", "b"), ("b", "c"), ("c", "a")):
            move(name, to)
            lab.until(
                lambda name=name, by=by: heard(name) == {(by, "verified")},  # type: ignore[misc]
                within_s=20,
                story=f"{by} hears {to} alone answer for {name}",
            )
    name = names["four"]
    address = dict(lab.layout.vips)[name]
    ip(f"addr add {address}/32 dev eth0", namespace=lab.layout.namespace(CLIENT))
    move(name, "b")
    lab.until(lambda: heard(name) == {("c", "duplicate")}, within_s=20, story="c hears two")
    lab.until_settled()
    assert lab.holders(address) == {"b"}
    assert f"witness vip={name} by=c result=duplicate" in lab.log("b")
