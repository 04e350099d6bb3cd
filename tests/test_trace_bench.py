"""What `script/bench --only trace` reads from frames and draws, from made-up ones."""

from __future__ import annotations

import socket
import struct
from xml.etree import ElementTree as ET

import pytest

from wackamole.engine.corosync.conf import PORT
from wackamole.lab.trace_bench import FILTER, SNAP_BYTES, Acquired, Trace, charts, read, table
from wackamole.shell.kernel.announce import gratuitous_arp, neighbour_advertisement
from wackamole.shell.kernel.claims import attach

SVG = "{http://www.w3.org/2000/svg}"
MAC, TO = bytes.fromhex("02570000000b"), bytes.fromhex("02570000000c")
IP, IP6 = socket.inet_aton("10.77.1.1"), socket.inet_pton(socket.AF_INET6, "fd77::1:1")


def ring(kind: int, port: int = PORT) -> bytes:
    """A packet of the ring's: knet's 12 bytes, then Corosync's magic number, version and kind."""
    totem = bytes(12) + struct.pack("=HBB", 0xC070, 3, kind) + bytes(40)
    udp = struct.pack("!HHHH", 40000, port, 8 + len(totem), 0) + totem
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + IP + IP
    return TO + MAC + b"\x08\x00" + head + udp


def question() -> bytes:
    """An ARP request for another's address."""
    return gratuitous_arp(MAC, IP, reply=1)[:38] + socket.inet_aton("10.77.1.2") + bytes(18)


WANTED = {
    "token": ring(0),
    "message": ring(1),
    "join": ring(3),
    "announcement of 10.77.1.1": gratuitous_arp(MAC, IP, reply=1),
    "announcement of fd77::1:1": neighbour_advertisement(MAC, IP6),
}
OTHERS = {
    "a question": question(),
    "another port": ring(0, PORT + 2),
    "an answer to one": neighbour_advertisement(MAC, IP6, to=IP6, to_mac=TO),
}


def test_frames_are_told_apart() -> None:
    found = {name: read(content, 1.5) for name, content in WANTED.items()}
    for name, frame in found.items():
        assert frame is not None
        assert f"{frame.kind} of {frame.ip}".removesuffix(" of ") == name
        assert (frame.at, frame.mac) == (1.5, "02:57:00:00:00:0b")
    assert read(ring(200), 1.0) is None
    assert read(ring(0)[:44], 1.0) is None  # knet's own, which is short


def test_the_filter_lets_through_what_is_traced_and_nothing_else() -> None:
    """The kernel's own reading of it, on datagrams: the frames are what they carry."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        attach(here, b"".join(struct.pack("=HBBI", *line) for line in FILTER))
        here.setblocking(False)
        for content in (*OTHERS.values(), *WANTED.values()):
            there.send(content)
        assert [here.recv(2048) for _ in WANTED] == [content[:SNAP_BYTES] for content in WANTED.values()]
        with pytest.raises(BlockingIOError):
            here.recv(2048)


def test_a_record_says_when_the_kernel_was_asked_and_had_done_it() -> None:
    entries = [
        {"event": "kernel", "monotonic": 9.0, "added": "3", "add_ms": "1.00", "confirm_ms": "2.00"},
        {"event": "kernel", "monotonic": 10.0, "added": "0", "add_ms": "1.00", "confirm_ms": "2.00"},
        {"event": "view", "monotonic": 10.1},
        {"event": "kernel", "monotonic": 10.2, "added": "3", "add_ms": "5.00", "confirm_ms": "20.00"},
    ]
    found = Acquired.of(entries, 9.5)
    assert [found.asked, found.done] == pytest.approx([10.18, 10.185])


def test_the_chart_has_a_bar_for_every_part_where_the_last_one_ends() -> None:
    trace, empty = Trace("A <crash>"), Trace("Nothing")
    trace.add([("", 1.0), ("first", 1.3), ("second", 1.31)])
    trace.add([("", 2.0), ("first", 2.1), ("second", 2.13)])
    drawn = ET.fromstring(charts([trace, empty], "a machine")["takeover.svg"])
    first, second = (r.attrib for r in drawn.findall(f"{SVG}rect") if r.attrib["class"] == "part")
    assert float(second["x"]) == pytest.approx(float(first["x"]) + float(first["width"]), abs=0.2)
    assert float(first["width"]) == pytest.approx(10 * float(second["width"]), rel=0.05)
    told = [t.text for t in drawn.findall(f"{SVG}text")]
    assert "A <crash>" in told
    assert "200.00 ms (100.00 – 300.00)" in told
    assert charts([empty], "a machine") == {}
    assert "| A <crash>: second | 20.00 ms (10.00 – 30.00) | 2 |" in table([trace, empty])
