"""Log lines and history."""

from __future__ import annotations

import asyncio

import pytest

from wackamole.shell.journal import HISTORY_MAX, Journal, line


def test_a_line_is_an_event_and_its_fields() -> None:
    assert line("moved", {"vip": "web-1", "to": "b"}) == "moved vip=web-1 to=b"
    assert line("failed", {"reason": 'he said "no" \\'}) == r'failed reason="he said \"no\" \\"'
    assert line("x", {"empty": ""}) == 'x empty=""'


def test_nobody_can_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Journal().record("failed", reason="first\n12:00:00.000 moved vip=web-1\x1b[31m")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_under_systemd_lines_carry_their_priority(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    journal = Journal()
    journal.record("conflict", vip="v")
    journal.record("view", id="1")
    assert [text[:3] for text in capsys.readouterr().err.splitlines()] == ["<4>", "<6>"]


def test_the_history_is_bounded_and_can_be_followed(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> list[object]:
        journal = Journal()
        for i in range(HISTORY_MAX + 10):
            journal.record("tick", i=i)
        seen: list[object] = []
        async for entry in journal.follow(follow=True):
            if not seen:
                journal.record("last")
            seen.append(entry["event"] if entry["event"] == "last" else entry["i"])
            if seen[-1] == "last":
                break
        return seen

    seen = asyncio.run(asyncio.wait_for(main(), 10))
    assert seen[0] == "10"
    assert len(seen) == HISTORY_MAX + 1


@pytest.mark.parametrize(("verbose", "lines"), [(False, 1), (True, 2)])
def test_details_are_logged_when_asked_and_always_in_the_history(
    verbose: bool, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def entries() -> int:
        return len([e async for e in journal.follow(follow=False)])

    journal = Journal(verbose=verbose)
    journal.record("moved", vip="v")
    journal.record("acquired", vip="v")
    assert len(capsys.readouterr().err.splitlines()) == lines
    assert asyncio.run(entries()) == 2
