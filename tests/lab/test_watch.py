"""`wackamole watch` on a real cluster: what happens is seen, and keys have it done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.watch.terminal import Terminal
from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab


def socket(lab: Lab, node: str) -> str:
    return str(lab.home / node / "run/wackamole/control.sock")


def test_a_watch_through_a_bad_night(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.start_all()
    lab.until_settled()
    assert Path(socket(lab, "a")).exists()
    with Terminal("watch", "--socket", socket(lab, "a"), rows=40, columns=110) as terminal:
        terminal.until(lambda text: "v6" in text and "members: a b c" in text, "the cluster is shown")

        terminal.press("enter")
        terminal.until(lambda text: "v1 (10.77.1.1/32) is held by" in text, "why v1 is where it is")
        terminal.press("escape")
        terminal.until(lambda text: "EVENTS" in text and "is held by" not in text, "back to the cluster")

        terminal.press("tab", "tab")
        terminal.press("down", "d")
        terminal.until(lambda text: "drain b?" in text, "it asks")
        assert lab.kernel("b")
        terminal.press("y")
        terminal.until(lambda text: "done: b is drained" in text and "node b: drained" in text, "b is drained")
        assert not lab.kernel("b")

        lab.crash("c")
        terminal.until(lambda text: "node c: absent" in text and "c is gone" in text, "the loss is seen")
        terminal.until(lambda text: "from c: its host was lost" in text, "and whose VIPs went where")

        terminal.press("r", "y")
        terminal.until(lambda text: "done: b may hold VIPs again" in text, "b is back in service")
        terminal.press("tab", "m", "b", "enter")
        terminal.until(lambda text: "move v1" in text and "to b?" in text, "it asks")
        terminal.press("y")
        terminal.until(lambda text: "done: v1 → b" in text and "stays until" in text, "v1 is on b")
        assert "10.77.1.1" in lab.kernel("b")

        lab.freeze("a", "daemon")
        terminal.until(lambda text: "has not answered for" in text, "a daemon that hangs is told")
        lab.thaw("a", "daemon")
        terminal.until(lambda text: "has not answered for" not in text, "it answers again")
        lab.kill_daemon("a")
        terminal.until(lambda text: "no daemon answers" in text, "a daemon that is gone is told")
        lab.start("a")
        terminal.until(lambda text: "no daemon answers" not in text and "on a · settled" in text, "it is back")
        terminal.press("q")
        assert terminal.ended() == 0
