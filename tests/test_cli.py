"""The command line as people type it: exit codes, sentences, and that nothing heavy is loaded where it must not be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wackamole import __version__

GOOD = (
    '[cluster]\nname = "web"\n[[node]]\nname = "a"\naddress = "127.0.0.1"\n'
    '[[vip]]\naddress = "192.0.2.10/32"\n[control]\nsocket = "{socket}"\n'
)


def wackamole(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "200", "WACKAMOLE_SOCKET": "/nowhere/control.sock", **environment}
    command = [sys.executable, "-m", "wackamole", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "web.toml"
    file.write_text(GOOD.format(socket=tmp_path / "control.sock"))
    return file


def test_version_and_help() -> None:
    assert wackamole("--version").stdout == f"wackamole {__version__}\n"
    done = wackamole("--help")
    assert done.returncode == 0
    for verb in (
        "run",
        "check",
        "status",
        "events",
        "watch",
        "web",
        "move",
        "drain",
        "resume",
        "balance",
        "leave",
        "doctor",
        "release",
        "restart",
        "keygen",
        "audit",
        "convert",
        "lab",
    ):
        assert f" {verb} " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["dance"], ["status", "--jason"], ["move", "v1"], ["keygen"], ["audit"], ["run", "--config"], ["lab", "crash"]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = wackamole(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr


def test_check_says_everything_and_exits_with_2(tmp_path: Path, good: Path) -> None:
    done = wackamole("check", str(good))
    assert done.returncode == 0, done.stderr
    assert "1 nodes, 1 VIPs" in done.stdout
    assert "keygen" in done.stdout
    bad = tmp_path / "bad.toml"
    bad.write_text(good.read_text().replace("192.0.2.10/32", "192.0.2.300").replace("127.0.0.1", "here"))
    done = wackamole("check", str(bad))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f'{bad}:5  node[1].address  "here" is not an address',
        f'{bad}:7  vip[1].address  "192.0.2.300" is not an address',
    ]
    found = json.loads(wackamole("check", "--json", str(bad)).stdout)
    assert len(found["problems"]) == 2


def test_run_with_a_bad_config_changes_nothing_and_exits_with_2(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[cluster]\n")
    done = wackamole("run", "--config", str(bad))
    assert done.returncode == 2
    assert "cluster  needs a name" in done.stderr
    assert list(tmp_path.iterdir()) == [bad]


def test_run_as_nobody_in_particular(good: Path) -> None:
    done = wackamole("run", "--config", str(good), "--node", "z")
    assert done.returncode == 2
    assert "there is no node 'z' (there are: a)" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["why", "v"], ["events"], ["move", "v", "a"], ["drain"], ["resume", "a"], ["balance"], ["leave"]],
    ids=" ".join,
)
def test_without_a_daemon_every_verb_says_so_and_exits_with_1(arguments: list[str]) -> None:
    done = wackamole(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("wackamole: no daemon answers on /nowhere/control.sock")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "yesterday"], "'yesterday' is not a duration such as 1h"),
        (["--since", ""], "is not a duration"),
        (["--since", "2026-13-01"], "is not a duration"),
        (["--local", "--vip", "v"], "without --local"),
    ],
    ids=str,
)
def test_events_that_cannot_be_asked_for(arguments: list[str], words: str) -> None:
    done = wackamole("events", *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("since", ["1h", "1.5s", "2026-11-26", "2026-11-26T10:00", "2026-11-26T10:00:00+01:00"])
def test_times_that_events_understands(since: str) -> None:
    done = wackamole("events", "--since", since)
    assert (done.returncode, "no daemon answers" in done.stderr) == (1, True)


OLD = "Group = shop\nVirtualInterfaces {{\n  eth0:192.0.2.10/24\n}}\n{more}"


def test_convert_writes_toml_and_tells_the_rest(tmp_path: Path) -> None:
    old, new = tmp_path / "wackamole.conf", tmp_path / "new.toml"
    old.write_text(OLD.format(more="PerlUse Shop\n# caf\xe9\n"), encoding="latin-1")
    done = wackamole("convert", str(old), "--node", "a=10.0.0.11")
    assert done.returncode == 0
    assert 'address = "192.0.2.10/24"' in done.stdout
    assert f"{old}:5:1  carried over  PerlUse Shop" in done.stderr
    assert wackamole("convert", str(old), "--node", "a=10.0.0.11", "-o", str(new)).stdout == ""
    assert new.read_text() == done.stdout
    assert wackamole("check", str(new)).returncode == 0
    again = wackamole("convert", str(old), "--output", str(new))
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert new.read_text() == done.stdout
    forced = wackamole("convert", str(old), "--output", str(new), "--force", "--json")
    assert "missing" in new.read_text()
    assert json.loads(forced.stdout)["missing"]
    checked = wackamole("check", str(new))
    assert checked.returncode == 2
    assert "at least one [[node]] is needed" in checked.stderr


def test_convert_refuses_with_every_problem(tmp_path: Path) -> None:
    old, new = tmp_path / "wackamole.conf", tmp_path / "new.toml"
    old.write_text(OLD.format(more="Mature = 5\nSpred = 4803\n"))
    done = wackamole("convert", str(old), "--output", str(new))
    assert done.returncode == 2
    assert [line.split()[0] for line in done.stderr.splitlines()[:2]] == [f"{old}:5:10", f"{old}:6:1"]
    assert not new.exists()
    for arguments in (["--node", "a"], ["--from", "heartbeat"], ["--engine", "totem"]):
        assert wackamole("convert", str(old), *arguments).returncode == 2
    assert wackamole("convert", str(tmp_path / "none")).returncode == 1


def test_a_config_of_the_original_is_taken_as_it_is(tmp_path: Path) -> None:
    old = tmp_path / "wackamole.conf"
    old.write_text(OLD.format(more=""))
    done = wackamole("run", "--config", str(old))
    assert done.returncode == 2
    assert "#wackamole: node NAME = ADDRESS" in done.stderr
    old.write_text(OLD.format(more="Prefer 10.9.9.0/24\n#wackamole: node a = 127.0.0.1\n"))
    checked = wackamole("check", str(old))
    assert checked.returncode == 0
    assert "1 nodes, 1 VIPs" in checked.stdout
    assert f"note: {old}:5:8  left out  Prefer 10.9.9.0/24" in checked.stdout
    assert "there is no node 'z' (there are: a)" in wackamole("run", "--config", str(old), "--node", "z").stderr


def test_keygen_makes_a_key_once(tmp_path: Path) -> None:
    file = tmp_path / "web.key"
    done = wackamole("keygen", str(file))
    assert done.returncode == 0
    assert file.read_text().strip() not in done.stdout
    again = wackamole("keygen", str(file))
    assert again.returncode == 1
    assert "never overwritten" in again.stderr


def test_the_lab_without_a_lab() -> None:
    done = wackamole("lab", "crash", "a", "--name", "there-is-none")
    assert done.returncode == 1
    assert done.stderr.startswith("wackamole lab: ")
    assert len(done.stderr.splitlines()) == 1


def test_completion_for_the_shell() -> None:
    program = Path(sys.executable).with_name("wackamole")
    env = {**os.environ, "COMP_WORDS": "wackamole dr", "COMP_CWORD": "1", "_WACKAMOLE_COMPLETE": "complete_bash"}
    done = subprocess.run([program], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split() == ["drain"]


HEAVY = ("typer", "rich", "click", "pyroute2", "pydantic", "prometheus_client")


def loaded(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_daemon_is_light() -> None:
    assert not loaded("wackamole.shell.daemon") & set(HEAVY)


def test_corosync_is_begun_before_what_takes_long_is_loaded() -> None:
    assert not loaded("wackamole.shell.start") & {*HEAVY, "asyncio", "ssl", "logging", "msgspec", "h11"}


def test_status_is_asked_without_the_command_lines_grammar() -> None:
    code = "import sys; from wackamole.entry import main\ntry: main()\nfinally: print(*sys.modules)"
    for words, mine in ((["status"], False), (["status", "--json"], False), (["status", "--socket", "/nowhere"], True)):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "no daemon answers" in done.stderr
        assert ("typer" in done.stdout.split()) is mine


def test_the_command_line_imports_lazily() -> None:
    found = loaded("wackamole.cli")
    assert "asyncio" not in found
    assert "msgspec" not in found
    assert "tomllib" not in found
