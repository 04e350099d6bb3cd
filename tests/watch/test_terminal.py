"""The real program on a pseudo-terminal, with the daemon's own control server behind its socket."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .stage import Stage, enlarged
from .terminal import SOURCE, Terminal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)  # another user is to reach the socket
    tmp_path.chmod(0o755)
    return tmp_path / "control.sock"


def watch(path: Path, **options: int | str) -> Terminal:
    return Terminal("watch", "--socket", str(path), **options)  # type: ignore[arg-type]


def test_it_shows_the_cluster_and_ends_clean(path: Path) -> None:
    with Stage(path, "lost") as _, watch(path) as terminal:
        shown = terminal.until(lambda text: "c is gone" in text and "v3" in text, "the cluster is shown")
        assert " record · on a · settled" in shown
        assert "× node c: absent" in shown
        terminal.press("q")
        assert terminal.ended() == 0


def test_colours_tell_what_is_not_as_it_should_be(path: Path) -> None:
    def colour(terminal: Terminal, words: str) -> str:
        y = next(y for y, line in enumerate(terminal.screen.display) if words in line)
        return str(terminal.screen.buffer[y][terminal.screen.display[y].index(words)].fg)

    with Stage(path, "lost") as _, watch(path) as terminal:
        terminal.until(lambda text: "c is gone" in text, "the cluster is shown")
        assert colour(terminal, "node c: absent") == "red"
        assert colour(terminal, "node b: drained") == "brown"
    with Stage(path, "lost") as _, watch(path, NO_COLOR="1") as terminal:
        terminal.until(lambda text: "c is gone" in text, "the cluster is shown")
        assert colour(terminal, "node c: absent") == "default"


def test_a_move_is_seen_when_it_is_told_and_costs_few_bytes(path: Path) -> None:
    with Stage(path) as stage, watch(path) as terminal:
        terminal.until(lambda text: "v6" in text and "members: a b c" in text, "the cluster is shown")
        while terminal.read(0.5):
            pass
        full = terminal.sent
        stage.status["vips"][0] |= {"holder": "b", "target": "b", "here": False, "cause": "an operator moved it"}
        stage.tell(
            event="moved", vip="v1", source="a", to="b", cause="an operator moved it", view="b.13.0", time=time.time()
        )
        terminal.until(lambda text: "v1  a → b: an operator moved it" in text, "the move is told")
        terminal.until(lambda text: "from a: an operator moved it" in text, "and shown")
        assert terminal.sent - full < full / 2


def test_what_is_redrawn_in_part_is_what_is_drawn_anew(path: Path) -> None:
    def without_clock(terminal: Terminal) -> list[str]:
        terminal.read(0)
        return [line for line in terminal.text.splitlines() if not line.startswith(" record")]

    with Stage(path, "lost") as stage:
        stage.status = enlarged(stage.status, 50, 1000)
        with watch(path) as old:
            old.until(lambda text: "of 1000" in text and "of 21" in text, "the cluster is shown")
            old.press("tab", "tab", "pagedown", "d", "n", "tab", "pagedown", "up", "up", "/", "77", "escape")
            for vip in stage.status["vips"][:12]:
                vip["holder"] = vip["target"] = None
            stage.tell(event="started", version="3", time=time.time())
            old.until(lambda text: "13 VIPs" in text or "12 VIPs" in text, "it goes on")
            old.press("home", "tab", "tab", "home", "tab")
            with watch(path) as new:
                new.until(lambda text: "of 1000" in text and "daemon has started" in text, "the cluster is shown")
                new.until(lambda _: without_clock(new) == without_clock(old), "both show the same")


def test_the_daemon_goes_away_and_comes_back(path: Path) -> None:
    with Stage(path) as stage, watch(path) as terminal:
        terminal.until(lambda text: "v6" in text, "the cluster is shown")
        stage.shut()
        told = ("no daemon answers", "What stands below was so", "v6")
        terminal.until(lambda text: all(words in text for words in told), "its end is told")
        stage.open()
        terminal.until(lambda text: "no daemon answers" not in text and "v6" in text, "it is back")
        stage.status["vips"][5]["holder"] = None
        stage.status["vips"][5]["target"] = None
        stage.tell(event="moved", vip="v6", source="b", to="nobody", cause="x", time=time.time())
        terminal.until(lambda text: "VIP v6: held by nobody" in text, "and followed again")


def test_it_may_be_started_before_the_daemon(path: Path) -> None:
    with watch(path) as terminal:
        terminal.until(lambda text: "no daemon answers" in text, "it says so")
        with Stage(path):
            terminal.until(lambda text: "v6" in text, "the cluster is shown")
            terminal.press("q")
            assert terminal.ended() == 0


def test_a_drain_is_carried_out_once_it_is_confirmed(path: Path) -> None:
    with Stage(path) as stage, watch(path) as terminal:
        terminal.until(lambda text: "v6" in text, "the cluster is shown")
        terminal.press("d")
        terminal.until(lambda text: "choose the node" in text, "it wants to know which")
        terminal.press("down", "d")
        terminal.until(lambda text: "drain b?" in text, "it asks")
        assert stage.orders == []
        terminal.press("n")
        terminal.until(lambda text: "nothing was done" in text, "it lets it be")
        terminal.press("d", "y")
        terminal.until(lambda text: "done: b is drained, 2 VIPs were moved" in text, "it is done")
        assert [(o["verb"], o["node"], o["by"]) for o in stage.orders] == [
            ("drain", "b", "root" if os.geteuid() == 0 else f"uid:{os.geteuid()}")
        ]


def test_a_refusal_is_shown_whole(path: Path) -> None:
    with Stage(path) as stage, watch(path) as terminal:
        stage.refusal = "b cannot take v1: " + "its config does not have this VIP " * 3 + "and so on to the end"
        terminal.until(lambda text: "v6" in text, "the cluster is shown")
        terminal.press("m", "enter", "y")
        terminal.until(lambda text: "and so on to the end" in text, "the whole sentence is there")
        assert [o["verb"] for o in stage.orders] == ["move"]


def test_somebody_else_may_only_read(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    with Stage(path) as stage, watch(path, user=65534) as terminal:
        shown = terminal.until(lambda text: "v6" in text, "others may read")
        assert "read only" in shown
        terminal.press("tab", "tab", "d")
        terminal.until(lambda text: "root and the group wackamole may give orders" in text, "it gives no orders")
        terminal.press("y", "/", "v5", "enter")
        terminal.until(lambda text: "VIPS 1 (6)" in text, "it goes on")
        assert stage.orders == []
        path.chmod(0o600)
        stage.tell(event="started", version="3", time=time.time())
        terminal.until(lambda text: "this user may not ask the daemon" in text, "nor read any more")


def test_a_large_cluster_in_a_small_terminal_that_grows(path: Path) -> None:
    with Stage(path) as stage:
        stage.status = enlarged(stage.status, 50, 1000)
        with watch(path) as terminal:
            terminal.until(lambda text: "of 1000" in text, "the cluster is shown")
            terminal.press("/", "vip-77", "enter")
            terminal.until(lambda text: "VIPS 11 (1000)" in text, "it is filtered")
            terminal.press("escape", "!")
            terminal.until(lambda text: "VIPS 1 (1000)" in text and "vip-501" in text, "only trouble is shown")
            terminal.press("escape")
            terminal.resize(160, 60)
            shown = terminal.until(lambda text: "vip-30 " in text, "there is room for more")
            assert max(map(len, shown.splitlines())) > 100
            terminal.resize(30, 10)
            terminal.until(lambda text: "needs 40×12 characters" in text, "there is no room")
            terminal.resize(80, 24)
            terminal.until(lambda text: "of 1000" in text, "there is again")


def test_without_utf_8_the_signs_are_plain(path: Path) -> None:
    with Stage(path, "lost") as _, watch(path, LC_ALL="POSIX", PYTHONUTF8="0") as terminal:
        shown = terminal.until(lambda text: "c is gone" in text, "the cluster is shown")
        assert shown.isascii()
        assert "x node c: absent" in shown


def test_what_others_say_does_not_reach_the_terminal_as_it_is(path: Path) -> None:
    with Stage(path) as stage, watch(path) as terminal:
        stage.status["warnings"] = ["\x1b]0;title\x07\x1b[2Jhello\n\r\x9b31m"]
        terminal.until(lambda text: "?]0;title??[2Jhello??" in text, "it is shown harmless")


@pytest.mark.parametrize(("term", "words"), [("no-such-terminal", "this terminal is not known"), ("", "not known")])
def test_a_terminal_that_is_not_known(path: Path, term: str, words: str) -> None:
    with watch(path, TERM=term) as terminal:
        assert terminal.ended() == 1
        assert words in terminal.text


def test_without_a_terminal_it_says_what_to_use() -> None:
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "wackamole", "watch"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("wackamole: watch needs a terminal; `wackamole status` prints once")
