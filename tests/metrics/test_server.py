"""/metrics, /healthz and /readyz, asked over real connections, with a control socket behind them."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from tests.metrics.test_catalogue import families, told
from tests.watch.stage import Stage
from tests.watch.terminal import Terminal
from wackamole.metrics import server as module
from wackamole.metrics.server import Daemon, MetricsServer, addresses, serve
from wackamole.serving import CannotServe, Listen


class Asked(Stage):
    """Counts how often it is asked, and by how many at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.status = told()
        self.times = self.at_once = self.at_once_max = 0

    async def _handle(self, verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        assert verb == "status", "nothing else is asked for"
        self.times += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        async for said in super()._handle(verb, request):
            yield said
        self.at_once -= 1


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Asked]:
    found = Asked(tmp_path / "control.sock")
    with found:
        yield found


@pytest.fixture
def server(stage: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    """Asks the daemon each time."""
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    with MetricsServer(Listen("127.0.0.1", 0), Daemon(str(stage.path))) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def get(server: MetricsServer | int, path: str, **headers: str) -> tuple[int, str, str]:
    port = server if isinstance(server, int) else server.server_port
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(asked):
        asked.request("GET", path, headers=headers)
        answer = asked.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()


def value(text: str, name: str) -> float:
    return next(s.value for f in families(text) for s in f.samples if s.name == name)


def test_metrics_in_the_format_that_is_asked_for(server: MetricsServer) -> None:
    status, kind, text = get(server, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert value(text, "wackamole_up") == 1
    status, kind, text = get(server, "/metrics?x=1", Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    assert "wackamole_views" in {f.name for f in openmetrics_families(text)}  # type: ignore[no-untyped-call]


def test_a_daemon_that_comes_and_goes(server: MetricsServer, stage: Asked) -> None:
    assert get(server, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert get(server, "/readyz")[0::2] == (200, "ok\n")
    stage.shut()
    assert value(get(server, "/metrics")[2], "wackamole_up") == 0
    for path in ("/healthz", "/readyz"):
        status, _, text = get(server, path)
        assert status == 503
        assert "no daemon answers" in text
    stage.open()
    assert get(server, "/healthz")[0] == 200


def test_a_daemon_whose_loop_stands_still_is_not_healthy(
    server: MetricsServer, stage: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS_MAX", 0.2)
    goes_on = threading.Event()
    stage._loop.call_soon_threadsafe(goes_on.wait, 60)
    status, _, text = get(server, "/healthz")
    goes_on.set()
    assert status == 503
    assert "has not answered" in text
    monkeypatch.setattr(module, "ANSWER_SECONDS_MAX", 30)
    assert get(server, "/healthz")[0] == 200


def test_an_older_daemon_says_that_it_is(server: MetricsServer, stage: Asked) -> None:
    del stage.status["counts"]
    status, _, text = get(server, "/healthz")
    assert status == 503
    assert "has no metrics: restart it" in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"phase": "exchanging state"}, "this node is not settled: exchanging state"),
        ({"engine": {"type": "corosync", "state": "connecting"}}, "the engine is connecting"),
        ({"fence": {"mode": "off", "state": "none"}}, "there is no fence, as the config asks"),
        (
            {"fence": {"mode": "nftables", "state": "shut", "proven": True}},
            "the fence is shut: VIPs that are held here are silent",
        ),
        (
            {"fence": {"mode": "nftables", "state": "open", "proven": False}},
            "the fence is not proven: others wait for its lease before they take over",
        ),
        ({"fence": {"mode": "lifetime", "state": "shut"}}, "the fence is shut: VIPs that are held here are silent"),
    ],
)
def test_what_keeps_a_member_from_being_ready(
    server: MetricsServer, stage: Asked, change: dict[str, Any], reason: str
) -> None:
    stage.status |= change
    assert get(server, "/readyz")[0::2] == (503, f"{reason}\n")
    assert get(server, "/healthz")[0] == 200


def test_every_reason_is_said(server: MetricsServer, stage: Asked) -> None:
    for member in stage.status["view"]["members"][1:]:
        member["config_agrees"] = False
    stage.status["phase"] = "no group"
    stage.status["engine"]["state"] = "connecting"
    assert get(server, "/readyz")[2].splitlines() == [
        "the engine is connecting",
        "this node is not settled: no group",
        "the config of b, c differs from this node's",
    ]


def test_other_paths_are_named(server: MetricsServer) -> None:
    for path in ("/", "/metrics/", "/status"):
        assert get(server, path)[0::2] == (404, "Not Found: there are /metrics, /healthz and /readyz\n")


def test_the_daemon_is_asked_by_one_at_a_time_and_not_too_often(
    server: MetricsServer, stage: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 3600.0)
    server.daemon = Daemon(str(stage.path))
    found: list[int] = []
    clients = [threading.Thread(target=lambda: found.append(get(server, "/metrics")[0])) for _ in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert (found, stage.times) == ([200] * 20, 1)
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    assert [get(server, "/readyz")[0] for _ in range(5)] == [200] * 5
    assert (stage.times, stage.at_once_max) == (6, 1)


def test_the_kernel_says_which_addresses_there_are() -> None:
    found = addresses()
    assert found is not None
    assert "127.0.0.1" in found


def test_it_does_not_run_as_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be refused")
    with pytest.raises(CannotServe, match="not run as root"):
        serve(str(tmp_path / "x"), Listen("127.0.0.1", 0), user=None, ready=lambda _: None)


def test_the_command() -> None:
    """Root becomes somebody without rights, who sees the daemon and the kernel all the same."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        folder.chmod(0o755)
        stage = Asked(folder / "control.sock")
        stack.enter_context(stage)
        arguments = ("metrics", "--socket", str(stage.path), "--listen", "127.0.0.1:0", "--user", "nobody")
        terminal = stack.enter_context(Terminal(*arguments, columns=100))
        shown = terminal.until(lambda text: "/metrics  (Ctrl-C ends it" in text, "it says where")
        port = int(shown.partition("http://127.0.0.1:")[2].partition("/")[0])
        assert Path(f"/proc/{terminal.pid}").stat().st_uid != 0
        text = get(port, "/metrics")[2]
        assert value(text, "wackamole_up") == 1
        assert "wackamole_vip_in_kernel{" in text
        stage.shut()
        began = time.monotonic()
        while get(port, "/healthz")[0] == 200:  # until what it knows is no longer fresh
            assert time.monotonic() - began < 30
        terminal.until(lambda text: "no daemon answers" in text, "its own log says why")
        terminal.press("\x03")
        assert terminal.ended() == 0
