"""The original's control protocol on a socket: by bytes, and, where its own client is at hand, by that.

The client is no part of this project. WACKATRL_ORIGINAL names one that was built from the original's source.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.original import DONE, NOT_DONE, Claim, ControlAddress, Record, encode
from wackamole.shell import original
from wackamole.shell.claim import Refused
from wackamole.shell.original import BAD_TOLD_MAX, CLIENTS_MAX, COMMANDS_MAX, OriginalServer

T = TypeVar("T")
LIST, FAIL, SUCCEED = b"\0", b"\1", b"\2"
SECONDS_MAX = 30
RECORDS = (
    Record(
        Claim.CLAIMED,
        IPv4Address("10.0.0.12"),
        (("eth0", IPv4Interface("192.0.2.10/24")), ("bridge0", IPv4Interface("10.5.0.1/32"))),
    ),
    Record(Claim.UNCLAIMED, None, (("", IPv4Interface("192.0.2.12/32")),)),
)


class Cluster:
    """A daemon's handler and journal, as far as the server sees them."""

    def __init__(self, *, refuses: tuple[str, ...] = (), records: tuple[Record, ...] = RECORDS) -> None:
        self.asked: list[tuple[str, object]] = []
        self.told: list[str] = []
        self.refuses = refuses
        self._records = records

    async def handle(self, verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self.asked.append((verb, request.get("force")))
        if verb in self.refuses:
            raise Refused("no member answers")
        yield {"progress": "on the way"}
        yield {"result": {"verb": verb}}

    def listing(self, status: Mapping[str, Any]) -> tuple[Record, ...]:
        assert status == {"verb": "status"}
        return self._records

    def record(self, what: str, **fields: object) -> None:
        self.told.append(what)


@pytest.fixture
def address(tmp_path: Path) -> ControlAddress:
    return ControlAddress(str(tmp_path / "wack.it"))


def serve(address: ControlAddress, cluster: Cluster, talk: Callable[[], T]) -> T:
    """Run a server, and meanwhile `talk` in a thread."""

    async def main() -> T:
        server = OriginalServer(address, cluster.handle, cluster.listing, cluster.record)
        await server.start()
        try:
            return await asyncio.wait_for(asyncio.to_thread(talk), SECONDS_MAX)
        finally:
            await server.close()

    return asyncio.run(main())


def connected(address: ControlAddress) -> socket.socket:
    if address.path:
        s = socket.socket(socket.AF_UNIX)
        s.connect(address.path)
    else:
        s = socket.create_connection((address.host, address.port))
    s.settimeout(SECONDS_MAX)
    return s


def said(address: ControlAddress, *commands: bytes) -> bytes:
    """Everything that is answered to these commands, to the end."""
    with connected(address) as s:
        s.sendall(b"".join(commands))
        s.shutdown(socket.SHUT_WR)
        return until_closed(s)


def until_closed(s: socket.socket) -> bytes:
    found = b""
    while True:
        try:
            more = s.recv(65536)
        except ConnectionResetError:
            return found
        if not more:
            return found
        found += more


@pytest.mark.parametrize(
    ("commands", "answer", "asked"),
    [
        ((LIST,), encode(RECORDS), ["status"]),
        ((FAIL,), DONE, ["drain"]),
        ((SUCCEED,), DONE, ["resume"]),
        ((FAIL, LIST), DONE + encode(RECORDS), ["drain", "status"]),
        ((), b"", []),
    ],
    ids=["list", "fail", "succeed", "fail and list", "nothing"],
)
def test_each_command_asks_and_answers(
    address: ControlAddress, commands: tuple[bytes, ...], answer: bytes, asked: list[str]
) -> None:
    cluster = Cluster()
    assert serve(address, cluster, lambda: said(address, *commands)) == answer
    assert cluster.asked == [(verb, True) for verb in asked]
    assert not Path(address.path).exists()


def test_a_refusal_is_minus_one_and_told(address: ControlAddress) -> None:
    cluster = Cluster(refuses=("drain", "resume"))
    assert serve(address, cluster, lambda: said(address, FAIL, SUCCEED, LIST)) == NOT_DONE * 2 + encode(RECORDS)
    assert cluster.told == ["wackatrl", "wackatrl_refused"] * 2


def test_a_list_that_is_refused_ends_it(address: ControlAddress) -> None:
    cluster = Cluster(refuses=("status",))
    assert serve(address, cluster, lambda: said(address, LIST, FAIL)) == b""
    assert cluster.told == ["wackatrl_refused"]


def test_no_list_is_sent_where_there_is_nothing_to_list(address: ControlAddress) -> None:
    assert serve(address, Cluster(records=()), lambda: said(address, LIST)) == b""


def test_on_a_port(address: ControlAddress) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        tcp = ControlAddress("", "127.0.0.1", free.getsockname()[1])
        with pytest.raises(Refused, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
            serve(tcp, Cluster(), lambda: None)
    assert serve(tcp, Cluster(), lambda: said(tcp, LIST)) == encode(RECORDS)


def test_the_socket_is_its_owners_alone(address: ControlAddress) -> None:
    assert stat.S_IMODE(serve(address, Cluster(), lambda: Path(address.path).stat().st_mode)) == 0o600


def test_what_cannot_be_listened_on_is_a_sentence(address: ControlAddress, tmp_path: Path) -> None:
    (tmp_path / "wack.it").write_text("a file of somebody")
    with pytest.raises(Refused, match="Address already in use"):
        serve(address, Cluster(), lambda: None)
    assert (tmp_path / "wack.it").read_text() == "a file of somebody"
    other = ControlAddress(str(tmp_path / "other.it"))
    with pytest.raises(Refused, match="another daemon listens"):
        serve(other, Cluster(), lambda: serve(other, Cluster(), lambda: None))


@given(rubbish=st.binary(min_size=1, max_size=50).filter(lambda b: b[0] > 2))
@settings(max_examples=20)
def test_a_wrong_command_ends_it_and_harms_nothing(address: ControlAddress, rubbish: bytes) -> None:
    cluster = Cluster()

    def talk() -> bytes:
        with connected(address) as s:
            s.sendall(rubbish)
            assert until_closed(s) == b""
        return said(address, FAIL)

    assert serve(address, cluster, talk) == DONE
    assert cluster.asked == [("drain", True)]
    assert cluster.told == ["bad_command", "wackatrl"]


@given(sent=st.binary(max_size=8))
@settings(max_examples=15)
def test_after_any_bytes_the_next_client_is_served(
    address: ControlAddress, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original, "COMMAND_SECONDS", 0.0)
    answers = {0: encode(RECORDS), 1: DONE, 2: DONE}
    good = sent[: next((i for i, byte in enumerate(sent) if byte > 2), len(sent))]

    def talk() -> bytes:
        assert said(address, sent) == b"".join(answers[byte] for byte in good)
        return said(address, LIST)

    assert serve(address, Cluster(), talk) == encode(RECORDS)


def test_wrong_commands_do_not_fill_the_log(address: ControlAddress) -> None:
    cluster = Cluster()
    serve(address, cluster, lambda: [said(address, b"x") for _ in range(3 * BAD_TOLD_MAX)])
    assert 0 < len(cluster.told) < BAD_TOLD_MAX


def test_only_so_many_clients_at_once(address: ControlAddress) -> None:
    def talk() -> bytes:
        idle = [connected(address) for _ in range(CLIENTS_MAX)]
        try:
            for s in idle:
                s.sendall(FAIL)
                assert s.recv(4) == DONE
            with connected(address) as late:
                return until_closed(late)
        finally:
            for s in idle:
                s.close()

    assert serve(address, Cluster(), talk) == b""


def test_who_says_nothing_is_dropped(address: ControlAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "IDLE_SECONDS_MAX", 0.1)

    def talk() -> bytes:
        with connected(address) as s:
            return until_closed(s)

    assert serve(address, Cluster(), talk) == b""


def test_who_reads_nothing_is_dropped(address: ControlAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "ANSWER_SECONDS_MAX", 0.1)
    monkeypatch.setattr(original, "COMMAND_SECONDS", 0.0)
    whole = encode(RECORDS * 127)

    def talk() -> int:
        with connected(address) as s:
            s.sendall(LIST * COMMANDS_MAX)
            for _ in range(CLIENTS_MAX):  # others are served meanwhile
                assert said(address, FAIL) == DONE
            hung_up = select.poll()
            hung_up.register(s, 0)
            assert hung_up.poll(SECONDS_MAX * 1000)
            return len(until_closed(s))

    assert serve(address, Cluster(records=RECORDS * 127), talk) < len(whole) * COMMANDS_MAX


def test_commands_are_paced_whoever_gives_them(address: ControlAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "COMMAND_SECONDS", 0.2)

    async def main() -> float:
        cluster = Cluster()
        server = OriginalServer(address, cluster.handle, cluster.listing, cluster.record)
        await server.start()
        began = asyncio.get_running_loop().time()
        talks = [asyncio.to_thread(said, address, FAIL) for _ in range(4)]
        assert await asyncio.wait_for(asyncio.gather(*talks), SECONDS_MAX) == [DONE] * 4
        took = asyncio.get_running_loop().time() - began
        await server.close()
        return took

    assert asyncio.run(main()) >= 3 * 0.2


def test_a_connection_ends_after_so_many_commands(address: ControlAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "COMMAND_SECONDS", 0.0)
    cluster = Cluster()
    found = serve(address, cluster, lambda: said(address, FAIL * (COMMANDS_MAX + 50)))
    assert len(cluster.asked) == COMMANDS_MAX
    assert set(struct.unpack(f"!{len(found) // 4}i", found)) == {0}


@pytest.fixture
def wackatrl(tmp_path: Path) -> Callable[..., str]:
    program = os.environ.get("WACKATRL_ORIGINAL")
    if not program:
        pytest.skip("WACKATRL_ORIGINAL names no wackatrl of Wackamole 2.1")
    conf = tmp_path / "wackamole.conf"

    def call(address: ControlAddress, option: str, complaint: str = "") -> str:
        conf.write_text(f"Control = {address}\nVirtualInterfaces {{ eth0:192.0.2.10/24 }}\n")
        done = subprocess.run([program, "-c", conf, option], capture_output=True, text=True, check=False, timeout=60)
        assert done.stderr == complaint
        return done.stdout

    return call


def test_the_original_client_lists_fails_and_unfails(address: ControlAddress, wackatrl: Callable[..., str]) -> None:
    cluster = Cluster()
    listed = serve(address, cluster, lambda: [wackatrl(address, option) for option in ("-l", "-f", "-s")])
    told = (  # it shows 32 for every prefix length from 8 on, where numbers begin with their low byte
        "Owner: 10.0.0.12\n\t*    eth0:192.0.2.10/32\n\t -> bridge0:10.5.0.1/32\n"
        "Owner: not acquired\n\t*        :192.0.2.12/32\n"
    )
    assert listed == [told] * 3
    assert [verb for verb, _ in cluster.asked] == ["status", "drain", "status", "resume", "status"]


def test_the_original_client_reads_the_largest_list(address: ControlAddress, wackatrl: Callable[..., str]) -> None:
    wide = Record(Claim.CLAIMED, IPv4Address("10.0.0.12"), (("eth0", IPv4Interface("192.0.2.10/24")),) * 31)
    cluster = Cluster(records=(wide,) * 254)
    told = serve(address, cluster, lambda: wackatrl(address, "-l"))
    assert told.count("Owner: 10.0.0.12") == 254
    assert told.count(" -> ") == 254 * 30


def test_the_original_client_tells_what_is_refused(address: ControlAddress, wackatrl: Callable[..., str]) -> None:
    cluster = Cluster(refuses=("drain",))
    told = serve(address, cluster, lambda: wackatrl(address, "-f", "Error posting failure."))
    assert told.count("Owner: ") == 2
    nothing = Cluster(records=())
    assert serve(address, nothing, lambda: wackatrl(address, "-l", "Error on read.\n")) == ""
