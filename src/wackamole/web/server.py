"""The web server: GET only, four paths, bounded clients (docs/decisions/0020-web-with-the-standard-library.md).

It has nothing to hide and nothing to command: whoever reaches it reads what `wackamole status` and `events` print, and no
request changes anything. What is guarded against is other sites' scripts in a browser that reaches it: a `Host` that is a
foreign name (DNS rebinding) is refused, cross-site requests for the stream are, no other site may frame the page, and the
page runs and loads nothing but its own three files.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from importlib.resources import files

from ..following import Following
from ..serving import Listen, RequestHandler, Server, without_rights
from .feed import Shown, difference, shown

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


class Handler(RequestHandler):
    """One request, then the connection is closed; the stream goes on until one side does."""

    server: WebServer
    headers_always = HEADERS

    def do_GET(self) -> None:  # noqa: N802 (the library calls it)
        """One of the files, or the stream."""
        self.in_time()
        if not self._is_host_ours():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "open it by its address, or name it: --name")
        elif self.path == STREAM:
            if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
                self.send_error(HTTPStatus.FORBIDDEN, "not for other sites")
            else:
                self._stream()
        elif self.path in FILES:
            name, kind = FILES[self.path]
            self.answer(HTTPStatus.OK, kind, files(__package__).joinpath(name).read_bytes())
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

    def _stream(self) -> None:
        """Server-sent events, until the client is gone or reads too slowly."""
        self.begin(HTTPStatus.OK, "text/event-stream; charset=utf-8")
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


class WebServer(Server):
    """`names`: host names, besides `localhost` and addresses, by which the page may be opened."""

    def __init__(self, listen: Listen, feed: Feed, names: tuple[str, ...] = ()) -> None:
        self.feed = feed
        self.names = frozenset({"localhost", *(name.casefold() for name in names)})
        self.closing = threading.Event()
        super().__init__(listen, Handler)


def serve(path: str, listen: Listen, *, names: tuple[str, ...], user: str | None, ready: Callable[[str], None]) -> None:
    """Serve the page of the daemon behind this control socket until the process is ended. `ready` is told the URL. Raises
    CannotServe."""
    without_rights(user)
    feed = Feed(path)
    with WebServer(listen, feed, names) as server:
        ready(Listen(listen.host, server.server_port).url)
        try:
            server.serve_forever()
        finally:
            server.closing.set()
            feed.close()
