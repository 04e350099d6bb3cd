"""What a supervisor is told by a whole daemon: sd_notify(3) on a socket of ours, in the place of systemd's. `script/test system`
has the same under a systemd."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab


class Supervisor:
    """The other end."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.said: list[str] = []

    def heard(self, words: str) -> bool:
        """Whether a datagram begins so, that came since it was asked for last or earlier."""
        while True:
            try:
                self.said.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return any(said.startswith(words) for said in self.said)

    def forget(self) -> None:
        """What was said so far."""
        self.heard("")
        self.said.clear()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    found = Supervisor(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(400_000))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield found
    found.close()


def test_a_daemon_tells_its_supervisor(make_lab: Callable[..., Lab], supervisor: Supervisor) -> None:
    lab = make_lab(nodes=1, vips=2, vips6=0)
    lab.start("a")
    lab.until(lambda: supervisor.heard("READY=1"), within_s=60, story="it is ready")
    assert (lab.status("a") or {})["phase"] == "settled"  # not before
    lab.until(
        lambda: supervisor.heard("STATUS=settled; 2 of 2 addresses here"), within_s=30, story="it says what it holds"
    )

    supervisor.forget()
    lab.until(lambda: supervisor.heard("WATCHDOG=1"), within_s=30, story="the watchdog is petted")

    # the process that takes its place is the same one to its supervisor, and talks to it as before
    supervisor.forget()
    pid, before = lab.daemon("a"), (lab.status("a") or {})["process"]
    lab.ask("a", "restart", {"within_ms": 10_000})
    lab.until(
        lambda: (s := lab.status("a")) is not None and s["process"]["started"] != before["started"],
        within_s=30,
        story="it is replaced",
    )
    lab.until(lambda: supervisor.heard("READY=1"), within_s=30, story="the new one is ready")
    lab.until(lambda: supervisor.heard("WATCHDOG=1"), within_s=30, story="the new one pets the watchdog")
    assert lab.daemon("a") == pid
    assert not supervisor.heard("STOPPING=1")

    lab.stop("a")
    lab.until(lambda: supervisor.heard("STOPPING=1"), within_s=30, story="it says that it goes")
    assert not supervisor.heard("FDSTORE=1")  # docs/decisions: a key that outlives its owner is no fence
