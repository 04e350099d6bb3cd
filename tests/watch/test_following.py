"""Following a daemon that comes and goes: what it tells again is known, and stands in the cluster's order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from wackamole.following import HISTORY_MAX, Following, Heard, event_id

from .stage import Stage


def until(following: Following, news: threading.Event, fact: Callable[[Heard], bool], story: str) -> Heard:
    deadline = time.monotonic() + 60
    while not fact(heard := following.now()):
        assert time.monotonic() < deadline, (story, heard)
        news.wait(0.1)
        news.clear()
    return heard


def test_what_is_told_again_is_known(tmp_path: Path) -> None:
    with Stage(tmp_path / "control.sock", "lost") as stage:
        news = threading.Event()
        following = Following(str(stage.path), news.set)
        following.start()
        heard = until(following, news, lambda h: len(h.entries) == len(stage.events), "the history is told")
        stage.shut()
        until(following, news, lambda h: h.gone is not None, "the daemon is missed")
        assert following.now().entries == heard.entries
        assert following.now().status is not None
        stage.open()
        until(following, news, lambda h: h.gone is None, "it is back")
        stage.tell(event="started", version="3", time=time.time())
        more = until(following, news, lambda h: len(h.entries) > len(heard.entries), "and followed again")
        assert [event_id(e) for e in more.entries[:-1]] == [event_id(e) for e in heard.entries]
        assert more.entries[-1]["event"] == "started"
        following.close()


def test_the_newest_are_kept_in_the_order_of_the_cluster(tmp_path: Path) -> None:
    with Stage(tmp_path / "control.sock") as stage:
        first = stage.events[0]
        stage.events = [
            {**first, "number": n, "place": {"epoch": 1 + n // 500, "view": "b.1.0", "index": n}}
            for n in reversed(range(HISTORY_MAX + 300))
        ]
        news = threading.Event()
        following = Following(str(stage.path), news.set)
        following.start()
        until(following, news, lambda h: len(h.entries) == HISTORY_MAX, "the history is told")
        stage.tell(event="odd", time=time.time())
        heard = until(following, news, lambda h: h.entries[-1]["event"] == "odd", "what comes is told")
        assert [e["number"] for e in heard.entries[:-1]] == list(range(301, HISTORY_MAX + 300))
        following.close()
