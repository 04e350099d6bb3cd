"""The web server, asked over real connections by all sorts of clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.watch.stage import Stage
from tests.watch.terminal import Terminal
from wackamole import serving
from wackamole.serving import CLIENTS_MAX, CannotServe, Listen, become
from wackamole.web import server as web
from wackamole.web.server import Feed, WebServer, serve


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "control.sock", "lost") as found:
        yield found


@pytest.fixture
def server(stage: Stage) -> Iterator[WebServer]:
    feed = Feed(str(stage.path))
    with WebServer(Listen("127.0.0.1", 0), feed, ("page.example",)) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.closing.set()
        found.shutdown()
        thread.join()
    feed.close()


def get(server: WebServer, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    asked = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    with contextlib.closing(asked):
        asked.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = asked.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()


class Stream:
    """The stream, followed."""

    def __init__(self, server: WebServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        self._connection.request("GET", "/events")
        self._answer = self._connection.getresponse()
        assert self._answer.getheader("Content-Type") == "text/event-stream; charset=utf-8"

    def next(self) -> dict[str, Any]:
        while True:
            line = self._answer.readline()
            assert line
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line[6:])
                return found

    def until(self, key: str) -> dict[str, Any]:
        while key not in (told := self.next()):
            pass
        return told

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


def test_the_page_and_its_files_and_nothing_else(server: WebServer) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        status, headers, text = get(server, path)
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
        assert text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["x-frame-options"] == "DENY"
        assert headers["server"].strip() == "wackamole"
    for path in ("/server.py", "/../cli.py", "/page.js/", "/%2e%2e/", "/events/", "*"):
        assert get(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_nothing_but_get(server: WebServer, stage: Stage, method: str) -> None:
    status, _, _ = get(server, "/", method)
    assert status == 501
    assert stage.orders == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8420", 200),
        ("[::1]:8420", 200),
        ("[::1]", 200),
        ("10.0.0.11", 200),
        ("localhost:1", 200),
        ("page.example", 200),
        ("Page.Example:80", 200),
        ("evil.example", 421),
        ("evil.example:8420", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_a_name_that_is_not_ours_is_refused(server: WebServer, host: str, status: int) -> None:
    """A page of another site that has its name point here (DNS rebinding) reads nothing."""
    assert get(server, "/", Host=host)[0] == status
    if status != 200:
        assert get(server, "/events", Host=host)[0] == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_the_stream_is_not_for_other_sites(server: WebServer, site: str) -> None:
    assert get(server, "/events", Sec_Fetch_Site=site)[0] == 403
    assert get(server, "/", Sec_Fetch_Site=site)[0] == 200  # a link from elsewhere may lead here


def test_the_stream_tells_what_there_is_and_what_comes(server: WebServer, stage: Stage) -> None:
    stream = Stream(server)
    told = stream.until("vips")
    assert len(told["vips"]) == 6
    assert told["cluster"]["troubles"][0] == {"grade": "bad", "sentence": "node c: absent"}
    stage.status["vips"][0] |= {"holder": "b", "target": "b", "here": False}
    stage.tell(event="moved", vip="v1", source="a", to="b", cause="an operator moved it", time=time.time())
    assert [v["name"] for v in stream.until("vips")["vips"]] == ["v1"]
    stage.shut()
    while "no daemon answers" not in (stream.until("daemon")["daemon"]["gone"] or ""):
        pass  # at first it may be in the middle of an answer
    stage.open()
    while stream.until("daemon")["daemon"]["gone"] is not None:
        pass
    stream.close()


def test_readers_are_bounded_and_room_comes_back(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ALIVE_SECONDS", 0.5)
    streams = [Stream(server) for _ in range(CLIENTS_MAX)]
    for stream in streams:
        stream.next()
    asked = socket.create_connection(("127.0.0.1", server.server_port), timeout=30)
    with contextlib.closing(asked):
        assert b"503" in asked.recv(4096)
    for stream in streams:
        stream.close()
    deadline = time.monotonic() + 60
    while True:  # they are missed when they are next told something
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(server)[0] == 200:
                break
        assert time.monotonic() < deadline


def test_a_request_that_trickles_in_is_ended(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REQUEST_SECONDS_MAX", 0.5)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as asked:
        asked.sendall(b"GET / HTTP/1.0\r\nX: ")
        ended = False
        while not ended:
            with contextlib.suppress(TimeoutError):
                asked.settimeout(0.05)
                ended = asked.recv(1) == b""
            with contextlib.suppress(OSError):
                asked.sendall(b"x")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 70000, b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\xff\xfe\r\n\r\n"]
)
def test_rubbish_is_refused_and_harms_nobody(server: WebServer, content: bytes) -> None:
    asked = socket.create_connection(("127.0.0.1", server.server_port), timeout=30)
    with asked, contextlib.suppress(OSError):
        asked.sendall(content)
        asked.shutdown(socket.SHUT_WR)
        while asked.recv(65536):
            pass
    assert get(server)[0] == 200


@pytest.mark.parametrize(
    "text", ["8420", "localhost:8420", "127.0.0.1", "127.0.0.1:70000", "::1:8420", "[10.0.0.1]:1", "10.0.0.1:-1"]
)
def test_where_it_cannot_listen(text: str) -> None:
    with pytest.raises(CannotServe, match="is no address and port"):
        Listen.of(text)


def test_where_it_can_listen() -> None:
    assert Listen.of("127.0.0.1:8420").url == "http://127.0.0.1:8420/"
    assert Listen.of("[::1]:8420").url == "http://[::1]:8420/"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotServe, match="cannot listen"):
        WebServer(Listen("127.0.0.1", taken.getsockname()[1]), Feed("/nowhere"))


def test_it_does_not_run_as_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be refused")
    with pytest.raises(CannotServe, match="not run as root"):
        serve(str(tmp_path / "x"), Listen("127.0.0.1", 0), names=(), user=None, ready=lambda _: None)
    for user, words in (("root", "root is not needed"), ("no-such-user", "there is no user")):
        with pytest.raises(CannotServe, match=words):
            become(user)


def test_the_program_serves_as_somebody_without_rights(stage: Stage) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    for folder in (stage.path.parent, stage.path.parent.parent):
        folder.chmod(0o755)
    arguments = ("web", "--socket", str(stage.path), "--listen", "127.0.0.1:0", "--user", "nobody")
    with Terminal(*arguments) as terminal:
        shown = terminal.until(lambda text: "http://127.0.0.1:" in text and "Ctrl-C" in text, "it serves")
        port = int(shown.partition("http://127.0.0.1:")[2].partition("/")[0])
        answer = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        answer.request("GET", "/")
        assert answer.getresponse().status == 200
        assert Path(f"/proc/{terminal.pid}").stat().st_uid != 0
        terminal.press("\x03")
        assert terminal.ended() == 0
