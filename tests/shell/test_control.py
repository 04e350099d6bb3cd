"""The control socket, asked by a real client from another thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.client import NotReachable, ask, converse
from wackamole.client import Refused as ClientRefused
from wackamole.shell import control
from wackamole.shell.claim import Refused
from wackamole.shell.control import CLIENTS_MAX, REQUEST_BYTES_MAX, ControlServer

T = TypeVar("T")


async def handler(verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    match verb:
        case "status":
            yield {"result": {"hello": request.get("name", "world")}}
        case "who":
            yield {"result": request["by"]}
        case "events":
            for number in range(3):
                yield {"progress": number}
            yield {"result": []}
        case _:
            raise Refused(f"there is no verb {verb!r}")


def serve(path: Path, talk: Callable[[], T], *, read_only_for_others: bool = False) -> T:
    """Run a server, and meanwhile `talk` in a thread."""

    async def main() -> T:
        server = ControlServer(path, handler, read_only_for_others=read_only_for_others)
        await server.start()
        try:
            return await asyncio.wait_for(asyncio.to_thread(talk), 30)
        finally:
            await server.close()

    return asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def raw(path: Path, content: bytes) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(path))
        with contextlib.suppress(BrokenPipeError):  # it may have answered and closed already
            s.sendall(content)
            s.shutdown(socket.SHUT_WR)
        with s.makefile("rb") as answers:
            return [json.loads(line) for line in answers]


def test_a_question_and_its_answer(path: Path) -> None:
    assert serve(path, lambda: ask(str(path), "status", {"name": "you"})) == {"hello": "you"}
    assert not path.exists()


def test_progress_comes_before_the_result(path: Path) -> None:
    said = serve(path, lambda: list(converse(str(path), "events")))
    assert said == [("progress", 0), ("progress", 1), ("progress", 2), ("result", [])]


def test_who_asks_is_what_the_kernel_says(path: Path) -> None:
    uid = os.getuid()
    assert serve(path, lambda: ask(str(path), "who", {"by": "somebody else"})) == ("root" if uid == 0 else f"uid:{uid}")


def test_a_refusal_is_a_sentence(path: Path) -> None:
    def talk() -> None:
        with pytest.raises(ClientRefused, match="there is no verb 'dance'"):
            ask(str(path), "dance")

    serve(path, talk)


def test_nobody_there_is_a_sentence(path: Path) -> None:
    with pytest.raises(NotReachable, match="no daemon answers"):
        ask(str(path), "status")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello\n", "no request"),
        (b"[1]\n", "no request"),
        (b'{"verb": 1}\n', "no request"),
        (b"[" * 60_000 + b"\n", "no request"),
        (b'{"verb": "' + b"x" * REQUEST_BYTES_MAX + b'"}\n', "at most"),
    ],
    ids=["text", "list", "number", "deep", "long"],
)
def test_rubbish_gets_an_answer(path: Path, content: bytes, words: str) -> None:
    answers = serve(path, lambda: raw(path, content))
    assert [a["ok"] for a in answers] == [False]
    assert words in answers[0]["error"]


@given(content=st.binary(max_size=200))
@settings(max_examples=30)
def test_after_any_bytes_the_next_client_is_served(path: Path, content: bytes) -> None:
    def talk() -> Any:
        raw(path, content + b"\n")
        return ask(str(path), "status")

    assert serve(path, talk) == {"hello": "world"}


def test_a_client_that_went_away_is_not_counted(path: Path) -> None:
    """Followers that are gone are told of nothing, and so would be noticed at the next event only."""
    following = asyncio.Event()

    async def follow(verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        if verb == "events":
            yield {"progress": "first"}
            await following.wait()
        yield {"result": "here"}

    def talk() -> Any:
        for _ in range(CLIENTS_MAX):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(path))
                s.sendall(b'{"verb": "events"}\n')
                assert s.recv(100)
        return ask(str(path), "status")

    async def main() -> Any:
        server = ControlServer(path, follow, read_only_for_others=False)
        await server.start()
        try:
            return await asyncio.wait_for(asyncio.to_thread(talk), 30)
        finally:
            await server.close()

    assert asyncio.run(main()) == "here"


def test_a_client_that_reads_nothing_is_dropped_and_costs_little(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS_MAX", 0.1)
    said: list[int] = []
    dropped = asyncio.Event()

    async def flood(verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                said.append(1)
                yield {"progress": "x" * 10_000}
        finally:
            dropped.set()

    async def main() -> None:
        server = ControlServer(path, flood, read_only_for_others=False)
        await server.start()
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(path))
                s.sendall(b'{"verb": "events"}\n')
                await asyncio.wait_for(dropped.wait(), 30)
        finally:
            await server.close()

    tracemalloc.start()
    asyncio.run(main())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * control.ANSWER_BYTES_MAX
    assert len(said) * 10_000 < 4 * control.ANSWER_BYTES_MAX


def test_an_answer_is_a_sentence_not_a_flood(path: Path) -> None:
    def talk() -> None:
        with pytest.raises(ClientRefused) as no:
            ask(str(path), "d" * 60_000)
        assert len(str(no.value)) <= control.SENTENCE_MAX

    serve(path, talk)


def test_only_so_many_clients_at_once(path: Path) -> None:
    def talk() -> None:
        idle = [socket.socket(socket.AF_UNIX) for _ in range(CLIENTS_MAX)]
        try:
            for s in idle:
                s.connect(str(path))
            with pytest.raises(ClientRefused, match="clients at once"):
                ask(str(path), "status")
        finally:
            for s in idle:
                s.close()

    serve(path, talk)


@pytest.mark.parametrize(("read_only_for_others", "mode"), [(False, 0o660), (True, 0o666)])
def test_the_sockets_mode(path: Path, read_only_for_others: bool, mode: int) -> None:
    found = serve(path, lambda: path.stat().st_mode, read_only_for_others=read_only_for_others)
    assert stat.S_IMODE(found) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to ask as somebody else")
def test_others_may_read_if_the_config_allows_it_but_not_command(tmp_path: Path) -> None:
    import subprocess
    import sys
    import tempfile

    code = (
        "import os,sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "import socket; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(sys.argv[2].encode()+b'\\n'); print(s.makefile().readline())"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "control.sock"

        def as_nobody(verb: str) -> dict[str, Any]:
            command = [sys.executable, "-I", "-c", code, str(path), json.dumps({"verb": verb})]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
            found = json.loads(done.stdout)
            assert isinstance(found, dict)
            return found

        read, command = serve(path, lambda: (as_nobody("status"), as_nobody("leave")), read_only_for_others=True)
    assert read["ok"]
    assert not command["ok"]
    assert "only root and the group wackamole may leave" in command["error"]


def test_a_second_daemon_is_refused_and_a_dead_ones_socket_is_replaced(path: Path) -> None:
    async def second() -> str:
        first = ControlServer(path, handler, read_only_for_others=False)
        await first.start()
        with pytest.raises(Refused) as caught:
            await ControlServer(path, handler, read_only_for_others=False).start()
        await first.close()
        return str(caught.value)

    assert "another daemon listens" in asyncio.run(second())
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert serve(path, lambda: ask(str(path), "status")) == {"hello": "world"}


def test_a_stuck_daemon_with_a_full_queue_does_not_hold_up_the_second(path: Path) -> None:
    with contextlib.ExitStack() as opened:
        stuck = opened.enter_context(socket.socket(socket.AF_UNIX))
        stuck.bind(str(path))
        stuck.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = opened.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))
        with pytest.raises(Refused, match="another daemon listens"):
            asyncio.run(ControlServer(path, handler, read_only_for_others=False).start())
    assert path.is_socket()


def test_a_path_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    start: Callable[[], Awaitable[None]] = ControlServer(
        tmp_path / "file" / "control.sock", handler, read_only_for_others=False
    ).start
    with pytest.raises(Refused, match="cannot be made"):
        asyncio.run(start())  # type: ignore[arg-type]
