"""What the servers for browsers and scrapers share (`web/`, `metrics/`): where to listen, no rights, bounded clients.

Requests have no body and answers are short, so the standard library's server does (docs/decisions/0020-web-with-the-standard-library.md); what it leaves
unbounded is bounded here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLIENTS_MAX = 32
REQUEST_SECONDS_MAX = 10.0
"""For the whole request, and for a client that reads nothing."""


class CannotServe(Exception):
    """It cannot be served like that; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen."""

    host: str
    port: int

    @staticmethod
    def of(text: str) -> Listen:
        """127.0.0.1:8420 or [::1]:8420. Raises CannotServe."""
        host, _, port = text.rpartition(":")
        try:
            if host.startswith("[") == ("." in host):
                raise ValueError(host)
            ip = ipaddress.ip_address(host.strip("[]"))
            if not port.isascii() or not port.isdecimal() or int(port) > 65535:
                raise ValueError(port)
        except ValueError:
            raise CannotServe(f"{text!r} is no address and port, such as 127.0.0.1:8420 or [::1]:8420") from None
        return Listen(str(ip), int(port))

    @property
    def url(self) -> str:
        """What to type into a browser."""
        return f"http://[{self.host}]:{self.port}/" if ":" in self.host else f"http://{self.host}:{self.port}/"


class RequestHandler(BaseHTTPRequestHandler):
    """One request, then the connection is closed. Subclasses have `do_GET`, which calls `in_time` first."""

    timeout = REQUEST_SECONDS_MAX
    server_version = "wackamole"
    sys_version = ""
    headers_always: Mapping[str, str] = {}
    """Of every answer."""

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

    def in_time(self) -> None:
        """The request is there."""
        self._alarm.cancel()

    def answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        """The whole answer."""
        self.begin(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self, status: HTTPStatus, kind: str) -> None:
        """Its first lines."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in self.headers_always.items():
            self.send_header(name, value)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """A refusal in a line of plain text."""
        status = HTTPStatus(code)
        self.answer(status, "text/plain; charset=utf-8", f"{status.phrase}: {message or status.description}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Who reads is nobody's business."""


class Server(ThreadingHTTPServer):
    """Serves CLIENTS_MAX connections at a time, each by a thread of its own. Raises CannotServe."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listen: Listen, handler: type[RequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        self._room = threading.BoundedSemaphore(CLIENTS_MAX)
        try:
            super().__init__((listen.host, listen.port), handler)
        except OSError as wrong:
            raise CannotServe(f"it cannot listen on {listen.url}: {wrong.strerror or wrong}") from None

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
    """Give up root's rights for those of this user. Raises CannotServe."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise CannotServe(f"there is no user {user!r}") from None
    if entry.pw_uid == 0:
        raise CannotServe("root is not needed here: name a user without rights, such as nobody")
    try:
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except PermissionError:
        raise CannotServe("only root can become another user") from None


def without_rights(user: str | None) -> None:
    """Become this user, if one is named; never serve as root. Raises CannotServe."""
    if user is not None:
        become(user)
    if os.geteuid() == 0:
        raise CannotServe("it shall not run as root, as it needs no rights: --user nobody")
