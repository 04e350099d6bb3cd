"""sd_notify(3), read from the other end of a real socket."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from wackamole.shell.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.setblocking(False)
        yield s


def said(s: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(s.recv(1024))
        except BlockingIOError:
            return found


def test_ready_status_stopping(systemd: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready()
    notifier.status("settled")
    notifier.status("settled")
    notifier.stopping()
    assert said(systemd) == [b"READY=1", b"STATUS=settled", b"STOPPING=1"]


def test_what_is_started_later_cannot_speak_for_the_daemon(systemd: socket.socket) -> None:
    notifier = Notifier()
    subprocess.run(["sh", "-c", 'test -z "$NOTIFY_SOCKET"'], check=True)
    assert notifier.variables == {"NOTIFY_SOCKET": systemd.getsockname()}


def test_the_watchdog_wants_a_pat_every_quarter_of_its_time(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(10 * 10**6))
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier()
    assert notifier.watchdog_seconds == 2.5
    notifier.watchdog()
    assert said(systemd) == [b"WATCHDOG=1"]


def test_anothers_watchdog_is_not_ours(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert Notifier().watchdog_seconds is None


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    notifier.ready()
    notifier.watchdog()


def test_nobody_listens_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notifier = Notifier()
    notifier.ready()
    notifier.ready()
