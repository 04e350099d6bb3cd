"""The server: GET only, three paths (docs/decisions/0024-metrics.md).

Whatever clients do, the daemon is asked by one thread at a time and at most every FRESH_SECONDS: it has 32 places at its
control socket, and those are for operators.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ..client import NotReachable, Refused, ask
from ..serving import Listen, RequestHandler, Server, without_rights
from ..shell.kernel.rtnl import Rtnl
from .catalogue import Facts, Scrape
from .readiness import reasons_against

ANSWER_SECONDS_MAX = 5.0
"""A daemon that has not answered for so long does not: half of Prometheus' usual time for a scrape."""
FRESH_SECONDS = 0.5
TEXT = "text/plain; charset=utf-8"


class Daemon:
    """The daemon behind a control socket, asked for everybody; `facts` may be called from any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._one = threading.Lock()
        self._asked_at = -FRESH_SECONDS
        self._facts: Facts | None = None
        self._silent = ""

    def facts(self) -> tuple[Facts | None, str]:
        """What it says now; or None, and why it says nothing."""
        with self._one:
            if time.monotonic() - self._asked_at >= FRESH_SECONDS:
                before = self._silent
                self._facts, self._silent = self._ask()
                self._asked_at = time.monotonic()
                if self._silent != before:
                    print(self._silent or "the daemon answers again", file=sys.stderr, flush=True)
            return self._facts, self._silent

    def _ask(self) -> tuple[Facts | None, str]:
        try:
            status: dict[str, Any] = ask(self._path, "status", seconds=ANSWER_SECONDS_MAX)
        except (NotReachable, Refused) as no:
            return None, str(no)
        if "counts" not in status:
            return None, f"the daemon is of version {status.get('version')}, which has no metrics: restart it"
        return Facts(status, addresses()), ""


def addresses() -> frozenset[str] | None:
    """Those on this host's interfaces now, as the kernel says; None if it does not say."""
    try:
        kernel = Rtnl()
    except OSError:
        return None
    try:
        found = kernel.addresses()
    except OSError:
        return None
    finally:
        kernel.close()
    return frozenset(socket.inet_ntop(socket.AF_INET if len(a.ip) == 4 else socket.AF_INET6, a.ip) for a in found)


class Handler(RequestHandler):
    """One request."""

    server: MetricsServer
    headers_always = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}  # noqa: RUF012

    def do_GET(self) -> None:  # noqa: N802 (the library calls it)
        """One of the three."""
        self.in_time()
        match self.path.partition("?")[0]:
            case "/metrics":
                registry = CollectorRegistry(auto_describe=False)
                registry.register(Scrape(self.server.daemon.facts()[0]))
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self.answer(HTTPStatus.OK, kind, encode(registry))
            case "/healthz":
                facts, silent = self.server.daemon.facts()
                self._say([silent] if facts is None else [])
            case "/readyz":
                facts, silent = self.server.daemon.facts()
                self._say([silent] if facts is None else reasons_against(facts.status))
            case _:
                self.send_error(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")

    def _say(self, against: list[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if against else HTTPStatus.OK
        self.answer(status, TEXT, "".join(f"{line}\n" for line in against or ["ok"]).encode())


class MetricsServer(Server):
    """Serves one daemon's metrics."""

    def __init__(self, listen: Listen, daemon: Daemon) -> None:
        self.daemon = daemon
        super().__init__(listen, Handler)


def serve(path: str, listen: Listen, *, user: str | None, ready: Callable[[str], None]) -> None:
    """Serve the metrics of the daemon behind this control socket until the process is ended. `ready` is told the URL. Raises
    CannotServe."""
    without_rights(user)
    with MetricsServer(listen, Daemon(path)) as server:
        ready(Listen(listen.host, server.server_port).url)
        server.serve_forever()
