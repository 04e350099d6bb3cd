"""The web server: GET only, four paths, bounded clients (docs/decisions/0020-web-with-the-standard-library.md).

It has nothing to hide and nothing to command: whoever reaches it reads what `wackamole status` and `events` print, and no
request changes anything. What is guarded against is other sites' scripts in a browser that reaches it: a `Host` that is a
foreign name (DNS rebinding) is refused, cross-site requests for the stream are, no other site may frame the page, and the
page runs and loads nothing but its own three files.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import pwd
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from ..following import Following
from .feed import Shown, difference, shown

CLIENTS_MAX = 32
REQUEST_SECONDS_MAX = 10.0
"""For the whole request, and for a client that reads nothing."""
PAUSE_SECONDS = 0.25
"""A page is told of changes no more often."""
ALIVE_SECONDS = 15.0
"""Something is said so often in any case: a client that is gone is noticed."""
LATE_SECONDS = 2.0
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
STREAM = "/events"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class WebRefused(Exception):
    """It cannot be served like that; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen."""

    host: str
    port: int

    @staticmethod
    def of(text: str) -> Listen:
        """127.0.0.1:8420 or [::1]:8420. Raises WebRefused."""
        host, _, port = text.rpartition(":")
        try:
            if host.startswith("[") == ("." in host):
                raise ValueError(host)
            ip = ipaddress.ip_address(host.strip("[]"))
            if not port.isascii() or not port.isdecimal() or int(port) > 65535:
                raise ValueError(port)
        except ValueError:
            raise WebRefused(f"{text!r} is no address and port, such as 127.0.0.1:8420 or [::1]:8420") from None
        return Listen(str(ip), int(port))

    @property
    def url(self) -> str:
        """What to type into a browser."""
        return f"http://[{self.host}]:{self.port}/" if ":" in self.host else f"http://{self.host}:{self.port}/"


class Feed:
    """What all pages are told, made once for all of them."""

    def __init__(self, path: str) -> None:
        self._changed = threading.Condition()
        self._news = 0
        self._shown = Shown()
        self._made = (-1, 0.0, False)
        self._following = Following(path, self._heard)
        self._following.start()

    def close(self) -> None:
        """Follow no more."""
        self._following.close()

    def _heard(self) -> None:
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    def wait(self, news: int, seconds: float) -> int:
        """Wait for something newer than that, no longer than `seconds`; which news there is."""
        with self._changed:
            self._changed.wait_for(lambda: self._news != news, seconds)
            return self._news

    def now(self) -> Shown:
        """What there is to be shown. Alike for all who ask between two news."""
        with self._changed:
            heard = self._following.now()
            asked = heard.asked_at
            late = asked is not None and heard.gone is None and time.monotonic() - asked > LATE_SECONDS
            if self._made != (self._news, heard.status_at, late):
                self._shown = shown(heard, self._shown, late=late, fresh=heard.status_at != self._made[1])
                self._made = (self._news, heard.status_at, late)
            return self._shown


class Handler(BaseHTTPRequestHandler):
    """One request, then the connection is closed; the stream goes on until one side does."""

    server: WebServer
    timeout = REQUEST_SECONDS_MAX
    server_version = "wackamole"
    sys_version = ""

    def handle_one_request(self) -> None:
        """Read and answer it; a request that takes too long ends with its connection, however it trickles in."""
        alarm = threading.Timer(REQUEST_SECONDS_MAX, self._hang_up)
        alarm.daemon = True
        self._alarm = alarm
        alarm.start()
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                super().handle_one_request()
        finally:
            alarm.cancel()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """One of the files, or the stream."""
        self._alarm.cancel()
        if not self._is_host_ours():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "open it by its address, or name it: --name")
        elif self.path == STREAM:
            if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
                self.send_error(HTTPStatus.FORBIDDEN, "not for other sites")
            else:
                self._stream()
        elif self.path in FILES:
            name, kind = FILES[self.path]
            self._answer(HTTPStatus.OK, kind, files(__package__).joinpath(name).read_bytes())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _is_host_ours(self) -> bool:
        """An address cannot be rebound to another one by DNS, a name can."""
        host = self.headers.get("Host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
        if name.casefold() in self.server.names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._begin(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in HEADERS.items():
            self.send_header(name, value)

    def _stream(self) -> None:
        """Server-sent events, until the client is gone or reads too slowly."""
        self._begin(HTTPStatus.OK, "text/event-stream; charset=utf-8")
        self.end_headers()
        feed, known, news = self.server.feed, Shown(), -1
        while not self.server.closing.wait(PAUSE_SECONDS if news >= 0 else 0):
            news = feed.wait(news, LATE_SECONDS if not known.late else ALIVE_SECONDS)
            now = feed.now()
            told = difference(known, now)
            told = {"now": time.time(), **told} if told else {}
            text = f"data: {json.dumps(told, separators=(',', ':'))}\n\n" if told else ""
            if text or time.monotonic() - self._said_at > ALIVE_SECONDS:
                self.wfile.write((text or ": alive\n\n").encode())
                self._said_at = time.monotonic()
            known = now

    _said_at = 0.0

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """A refusal in a line of plain text."""
        status = HTTPStatus(code)
        self._answer(
            status, "text/plain; charset=utf-8", f"{status.phrase}: {message or status.description}\n".encode()
        )

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Who reads is nobody's business."""


class WebServer(ThreadingHTTPServer):
    """Serves CLIENTS_MAX connections at a time, each by a thread of its own. `names`: host names, besides `localhost` and
    addresses, by which the page may be opened."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listen: Listen, feed: Feed, names: tuple[str, ...] = ()) -> None:
        self.address_family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        self.feed = feed
        self.names = frozenset({"localhost", *(name.casefold() for name in names)})
        self.closing = threading.Event()
        self._room = threading.BoundedSemaphore(CLIENTS_MAX)
        try:
            super().__init__((listen.host, listen.port), Handler)
        except OSError as wrong:
            raise WebRefused(f"it cannot listen on {listen.url}: {wrong.strerror or wrong}") from None

    def server_bind(self) -> None:
        """Without the look-up of a name that nobody needs."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve it in a thread, if there is room."""
        if not self._room.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.settimeout(0)
                request.send(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\n\r\ntoo many readers at once\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is its own affair; what is ours is told."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def become(user: str) -> None:
    """Give up root's rights for those of this user. Raises WebRefused."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise WebRefused(f"there is no user {user!r}") from None
    if entry.pw_uid == 0:
        raise WebRefused("root needs no page: name a user without rights, such as nobody")
    try:
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except PermissionError:
        raise WebRefused("only root can become another user") from None


def serve(path: str, listen: Listen, *, names: tuple[str, ...], user: str | None, ready: Callable[[str], None]) -> None:
    """Serve the page of the daemon behind this control socket until the process is ended. `ready` is told the URL. Raises
    WebRefused."""
    if user is not None:
        become(user)
    if os.geteuid() == 0:
        raise WebRefused("it shall not run as root, as it needs no rights: --user nobody")
    feed = Feed(path)
    with WebServer(listen, feed, names) as server:
        ready(Listen(listen.host, server.server_port).url)
        try:
            server.serve_forever()
        finally:
            server.closing.set()
            feed.close()
