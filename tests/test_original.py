"""The original's control protocol: bytes as its own control.c wrote them, and what of a cluster of ours goes into them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.config import Config, ConfigError, parse
from wackamole.original import (
    DONE,
    NOT_DONE,
    RECORDS_MAX,
    Claim,
    ControlAddress,
    Record,
    control_address,
    encode,
    notes,
    records,
)

TOML = """
[cluster]
name = "shop"
[[node]]
name = "a"
address = "10.0.0.11"
interfaces = { public = "eno1" }
[[node]]
name = "b"
address = "10.0.0.12"
[[vip]]
name = "z"
addresses = [{ address = "192.0.2.10/23", interface = "public" }, { address = "10.5.0.1", interface = "bridge0" }]
prefer = ["b", "a"]
[[vip]]
name = "six"
address = "2001:db8::1"
[[vip]]
name = "both"
addresses = ["2001:db8::2", "192.0.2.12/24"]
"""


def config(more: str = "") -> Config:
    return parse(TOML + more)


def status(**holders: str | None) -> dict[str, object]:
    found = config()
    members = [{"id": 11, "name": "a"}, {"id": 12, "name": "b"}, {"id": 0x01020304, "name": "c"}]
    vips = [{"key": v.vip.key, "holder": holders.get(v.vip.name)} for v in found.vips]
    return {"node": "a", "view": {"members": members}, "vips": vips}


def interface(name: str, address: str, broadcast: str, mask: str) -> bytes:
    packed = b"".join(IPv4Address(a).packed for a in (address, broadcast, mask))
    return name.encode().ljust(16, b"\0") + packed


def test_a_list_is_what_the_originals_daemon_wrote() -> None:
    """The bytes that control.c of 2.1, compiled on x86-64, made of `{ eth0:192.0.2.10/23 bridge0:10.5.0.1/32 }` held by
    10.0.0.12 and of `192.0.2.12/24`; the second's name was a left-over of the first's there, and is empty here."""
    held = Record(
        Claim.CLAIMED,
        IPv4Address("10.0.0.12"),
        (("eth0", IPv4Interface("192.0.2.10/23")), ("bridge0", IPv4Interface("10.5.0.1/32"))),
    )
    free = Record(Claim.UNCLAIMED, None, (("", IPv4Interface("192.0.2.12/24")),))
    recorded = bytearray(1804)
    for at, found in (
        (0x000, "00000708 00000002"),
        (0x018, "0a00000c"),
        (0x024, "65746830"),
        (0x034, "c000020a c00003ff fffffe00 62726964 67653000"),
        (0x050, "0a050001 0a050001 ffffffff"),
        (0x3B8, "c000020c c00002ff ffffff00"),
    ):
        recorded[at : at + len(bytes.fromhex(found))] = bytes.fromhex(found)
    assert encode((held, free)) == bytes(recorded)
    assert (DONE, NOT_DONE) == (b"\0\0\0\0", b"\xff\xff\xff\xff")


def test_the_status_becomes_records() -> None:
    found = config()
    told = records(found, found.nodes[0], status(z="b"))
    z = (("eno1", IPv4Interface("192.0.2.10/23")), ("bridge0", IPv4Interface("10.5.0.1/32")))
    both = (("", IPv4Interface("192.0.2.12/24")),)
    assert told == (
        Record(Claim.PREFER_CLAIMED, IPv4Address("10.0.0.12"), z),
        Record(Claim.UNCLAIMED, None, both),
    )
    assert records(found, found.nodes[1], status(z="a"))[0] == Record(
        Claim.CLAIMED, IPv4Address("10.0.0.11"), (("public", z[0][1]), z[1])
    )


@pytest.mark.parametrize(("holder", "shown"), [("c", "1.2.3.4"), ("gone", "255.255.255.255")])
def test_a_held_vip_never_looks_free(holder: str, shown: str) -> None:
    found = config()
    assert records(found, found.nodes[0], status(z=holder))[0].holder == IPv4Address(shown)


def test_a_node_without_ipv4_is_shown_by_its_number() -> None:
    found = parse(TOML.replace("10.0.0.11", "2001:db8::a").replace("10.0.0.12", "2001:db8::b"))
    assert records(found, found.nodes[0], status(z="b"))[0].holder == IPv4Address("0.0.0.12")


def test_only_what_the_originals_client_can_read_is_sent() -> None:
    one = (("eth0", IPv4Interface("192.0.2.10/32")),)
    many = [Record(Claim.UNCLAIMED, None, one * 40)] * (RECORDS_MAX + 5)
    told = encode(many)
    assert struct.unpack("!i", told[:4]) == (RECORDS_MAX * 900,)
    assert len(told) == 4 + RECORDS_MAX * 900
    assert (
        told[4 + 4 + 28 :].count(interface("eth0", "192.0.2.10", "192.0.2.10", "255.255.255.255")) == RECORDS_MAX * 31
    )
    with pytest.raises(ValueError, match="empty"):
        encode(())


NAMES = st.text(max_size=20)
ADDRESSES = st.builds(lambda ip, prefix: IPv4Interface((ip, prefix)), st.integers(0, 2**32 - 1), st.integers(0, 32))
RECORDS = st.builds(
    Record,
    st.sampled_from(Claim),
    st.none() | st.integers(0, 2**32 - 1).map(IPv4Address),
    st.lists(st.tuples(NAMES, ADDRESSES), max_size=40).map(tuple),
)


@given(told=st.lists(RECORDS, min_size=1, max_size=8))
def test_every_record_has_its_900_bytes_and_ends_its_names(told: list[Record]) -> None:
    found = encode(told)
    assert len(found) == 4 + struct.unpack("!i", found[:4])[0] == 4 + 900 * len(told)
    for number, record in enumerate(told):
        body = found[4 + 900 * number :][:900]
        assert struct.unpack("!i", body[:4]) == (record.claim.value,)
        served = [body[4 + 28 * i :][:28] for i in range(32)]
        assert all(i[15] == 0 for i in served)
        assert [i[16:20] for i in served[1:]][: len(record.interfaces)] == [a.packed for _, a in record.interfaces[:31]]


def test_what_a_list_cannot_hold_is_told() -> None:
    assert list(notes(config())) == []
    assert list(notes(config('[control]\noriginal = "/run/wack.it"'))) == [
        "an original wackatrl is not shown the IPv6 addresses of 2 VIPs"
    ]
    many = "".join(f'[[vip]]\naddress = "10.9.{n // 250}.{n % 250 + 1}"\n' for n in range(300))
    wide = f"[[vip]]\naddresses = {[f'10.8.0.{n}' for n in range(1, 33)]}\n"
    told = list(notes(config(many + wide + '[control]\noriginal = "0.0.0.0:2413"')))
    assert told[0].startswith("anybody on the network can drain this node by way of 0.0.0.0:2413")
    assert told[2:] == [
        "an original wackatrl is shown the first 254 of 303 VIPs",
        "an original wackatrl is shown the first 31 addresses of 1 VIPs",
    ]


@pytest.mark.parametrize(
    ("text", "address", "exposed", "who"),
    [
        ("/var/run/wackamole.it", ControlAddress("/var/run/wackamole.it"), False, ""),
        ("127.0.0.1:2413", ControlAddress("", "127.0.0.1", 2413), False, "every user of this host"),
        ("localhost:2413", ControlAddress("", "127.0.0.1", 2413), False, "every user of this host"),
        ("10.0.0.11:1", ControlAddress("", "10.0.0.11", 1), True, "anybody on the network"),
        ("0.0.0.0:65535", ControlAddress("", "0.0.0.0", 65535), True, "anybody on the network"),
    ],
)
def test_an_address(text: str, address: ControlAddress, exposed: bool, who: str) -> None:
    found = control_address(text)
    assert found == address
    assert control_address(str(found)) == found
    assert found.exposed is exposed
    assert found.warning.partition(" can ")[0] == who


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wack.it", "neither the whole path"),
        ("2413", "neither the whole path"),
        ("[::1]:2413", "neither the whole path"),
        ("db.example:2413", "'db.example' for the IPv4 address"),
        ("10.0.0.300:2413", "IPv4 address"),
        ("127.0.0.1:0", "from 1 to 65535"),
        ("127.0.0.1:65536", "from 1 to 65535"),
        ("/" + "x" * 100, "100 bytes"),
        ("/a\\u0000b", "zero byte"),
        ("/run/wackamole/control.sock", "is `socket` already"),
    ],
)
def test_a_mistake_is_told_at_its_place(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(f'[control]\noriginal = "{text}"\n')
    assert len(caught.value.problems) == 1
    place, where, sentence = caught.value.problems[0].split("  ", 2)
    assert place == f"config:{len(TOML.splitlines()) + 2}"
    assert where == "control.original"
    assert words in sentence


@given(text=st.text(max_size=30) | st.from_regex(r"[0-9.]{0,16}:[0-9]{0,6}", fullmatch=True))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    try:
        found = control_address(text)
    except ValueError as wrong:
        found, text = ControlAddress(str(wrong)), ""
    assert control_address(str(found)) == found if text else len(found.path) < 150
