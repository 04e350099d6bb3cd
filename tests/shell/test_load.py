"""Measuring: what a command may do, and what becomes of one that does something else; and entry points of the operator's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from wackamole.core.model import Sharer
from wackamole.shell.load import Measuring, NotMeasured, measure, measure_on
from wackamole.shell.shares import rule_of

SHARERS = (Sharer("a", 1, 100, 2), Sharer("b", 3, None, 0))


def config(*command: str, timeout_ms: int = 60_000, keep_ms: int = 0) -> Measuring:
    return Measuring(command, 1, timeout_ms, keep_ms)


def script(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


def test_the_load_average_is_counted_for_each_cpu() -> None:
    found = asyncio.run(measure(config()))
    assert abs(found - 100 * os.getloadavg()[0] / (os.cpu_count() or 1)) < 100


def test_the_number_that_a_command_prints_is_the_load() -> None:
    assert asyncio.run(measure(config("/bin/echo", "1.25"))) == 125


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("/no/such/command",), "cannot be run"),
        (script("echo 1; exit 3"), "ended with 3"),
        (script("echo one"), "no number"),
        (script("echo nan"), "no number"),
        (script("echo -1"), "no number"),
        (script("echo 1e9"), "no number"),
        (script("yes | head -c 1000000"), "more than 64 bytes"),
    ],
)
def test_what_is_no_measurement_is_said(command: tuple[str, ...], words: str) -> None:
    with pytest.raises(NotMeasured, match=words):
        asyncio.run(measure(config(*command)))


def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """Its child holds the writing end of the pipe: what is read ends only when that is dead too."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    text = f"(echo here; while :; do sleep 1000; done) > {pipe} & while :; do sleep 1000; done"
    with pytest.raises(NotMeasured, match="longer than"):
        asyncio.run(measure(config(*script(text), timeout_ms=2000)))
    os.set_blocking(reader, True)
    assert os.read(reader, 100) in (b"", b"here\n")
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_a_command_has_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "5")
    assert asyncio.run(measure(config(*script("echo ${SECRET:-7}")))) == 700


def test_a_load_that_cannot_be_told_any_more_is_unknown_and_recorded_once(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    loads: list[int | None] = []
    records: list[tuple[str, Mapping[str, object]]] = []

    async def scene() -> None:
        enough = asyncio.Event()

        def on_load(load: int | None) -> None:
            loads.append(load)
            flag.unlink(missing_ok=True)
            if loads.count(None) >= 3:
                enough.set()

        text = f"test -e {flag} && echo 2"
        measuring = measure_on(config(*script(text)), on_load, lambda what, fields: records.append((what, fields)))
        running = asyncio.create_task(measuring)
        await asyncio.wait_for(enough.wait(), 120)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(scene())
    assert loads[0] == 200
    assert set(loads[1:]) == {None}
    assert [what for what, _ in records] == ["load_failed"]
    assert "ended with 1" in str(records[0][1]["reason"])


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "sites_own_rule.py").write_text(
        "def twice(sharers):\n    return [2 * s.weight for s in sharers]\n"
        "def wrong(sharers):\n    return [0.5 for s in sharers]\n"
        "def raises(sharers):\n    return [1 // 0]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "sites_own_rule"


@pytest.mark.parametrize(
    ("name", "shares", "told"),
    [
        ("twice", (2, 6), ""),
        ("wrong", None, "2 whole numbers"),
        ("raises", None, "ZeroDivisionError"),
        ("missing", None, "cannot be loaded"),
    ],
)
def test_an_entry_point_gives_shares_or_a_reason_told_once(
    module: str, name: str, shares: tuple[int, ...] | None, told: str
) -> None:
    records: list[Mapping[str, object]] = []
    rule = rule_of(f"{module}:{name}", lambda _, fields: records.append(fields))
    assert rule(SHARERS) == shares
    assert rule(SHARERS) == shares
    assert [told in str(r["reason"]) for r in records] == [True] * bool(told)
