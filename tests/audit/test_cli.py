"""`wackamole audit` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_cli import wackamole

from .histories import EPOCH_US, Moment, files, played
from .test_reading import TICKS, X, Y, pair


@pytest.fixture
def kept(tmp_path: Path) -> list[str]:
    return written(tmp_path, files(pair()))


def written(folder: Path, texts: list[tuple[str, bytes]]) -> list[str]:
    for name, text in texts:
        (folder / name).write_bytes(text)
    return [str(folder / name) for name, _ in texts]


def test_what_is_proved_is_exit_code_0(kept: list[str]) -> None:
    done = wackamole("audit", *kept)
    assert (done.returncode, done.stderr) == (0, "")
    assert "P1: in one component no address was served by two hosts: proved" in done.stdout
    assert "P2: no address was uncovered for more than 1 s: proved" in done.stdout
    assert "the clock of n2 is +2.0 ms ahead" in done.stdout
    found = json.loads(wackamole("audit", "--json", *kept).stdout)
    assert (found["exclusive"], found["covered"], found["nodes"]) == ("proved", "proved", ["n1", "n2"])


def test_what_is_refuted_is_exit_code_1_and_shown(tmp_path: Path) -> None:
    doubled = written(tmp_path, files(pair(moments={60: Moment(hold=frozenset({X, Y}))})))
    done = wackamole("audit", *doubled)
    assert done.returncode == 1
    assert "served by two hosts: refuted" in done.stdout
    assert "1 times served by two hosts, in one component:" in done.stdout
    (overlap,) = [o for o in json.loads(wackamole("audit", "--json", *doubled).stdout)["overlaps"] if o["certain"]]
    assert (overlap["address"], overlap["nodes"], overlap["kind"]) == (X, ["n1", "n2"], "in one component")
    assert overlap["seconds"] == pytest.approx(0.14, abs=0.005)


def test_how_long_an_address_may_be_uncovered_can_be_said(tmp_path: Path) -> None:
    hosts = pair(moments={60: Moment(hold=frozenset()), 90: Moment(hold=frozenset({Y}))})
    kept = written(tmp_path, files(hosts))
    assert wackamole("audit", *kept).returncode == 0
    done = wackamole("audit", "--uncovered-max", "0.01", *kept)
    assert done.returncode == 1
    assert "no address was uncovered for more than 0.01 s: refuted" in done.stdout
    assert "longest without a host: 0.03" in done.stdout


def test_what_the_records_cannot_decide_is_exit_code_2_with_the_reason(kept: list[str]) -> None:
    done = wackamole("audit", kept[0])
    assert done.returncode == 2
    assert "undecided: there are no records of member 2" in done.stdout


def test_a_period_can_be_chosen(tmp_path: Path) -> None:
    hosts = pair(moments={60: Moment(hold=frozenset({X, Y}))})
    doubled = written(tmp_path, files(hosts))
    assert EPOCH_US == 1_700_000_000_000_000  # 22:13:20 UTC
    assert wackamole("audit", "--until", "2023-11-14T22:13:20.050Z", *doubled).returncode == 0
    assert wackamole("audit", "--since", "2023-11-14T22:13:20.100+00:00", *doubled).returncode == 1
    done = wackamole("audit", "--since", "yesterday", *doubled)
    assert done.returncode == 2
    assert "'yesterday' is not a time" in done.stderr
    done = wackamole("audit", "--since", "2024-01-01", *doubled)
    assert (done.returncode, done.stderr) == (2, "the records have nothing of that period\n")


def test_files_that_cannot_be_used_change_nothing_and_are_exit_code_2(tmp_path: Path, kept: list[str]) -> None:
    missing = str(tmp_path / "nowhere.jsonl")
    done = wackamole("audit", missing)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{missing}  cannot be read: No such file or directory\n"
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nothing\n")
    done = wackamole("audit", str(bad), *kept)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{bad}:1  not a record: ")
    assert len(done.stderr.splitlines()) == 1


def test_many_lines_are_cut_to_the_longest(tmp_path: Path) -> None:
    moves = {t: Moment(hold=frozenset({X} if t % 4 else {Y})) for t in range(2, 190, 2)}
    hosts = pair()
    hosts[1].moments |= moves
    hosts[0].records, hosts[1].records = [], []
    played(hosts, TICKS, (X, Y), 1, 0)
    done = wackamole("audit", *written(tmp_path, files(hosts)))
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) < 80
