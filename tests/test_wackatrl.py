"""`wackatrl` as scripts call it, against a real control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from wackamole.config import load
from wackamole.shell.claim import Refused
from wackamole.shell.control import ControlServer
from wackamole.wackatrl import run

TOML = """
[cluster]
name = "shop"
[control]
socket = "{socket}"
[[node]]
name = "a"
address = "10.0.0.11"
interfaces = {{ service = "bridge0" }}
[[node]]
name = "b"
address = "10.0.0.12"
[[vip]]
name = "z"
addresses = [{{ address = "192.0.2.10/24", interface = "eth0" }}, {{ address = "10.5.0.1", interface = "service" }}]
[[vip]]
address = "192.0.2.11"
"""
LISTED = "Owner: 10.0.0.12\n\t*    eth0:192.0.2.10/24\n\t -> bridge0:10.5.0.1/32\nOwner: not acquired\n\t*       -:192.0.2.11/32\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "wackamole.toml"
    file.write_text(TOML.format(socket=tmp_path / "control.sock"))
    return file


def call(file: Path, *arguments: str, refuse: str = "") -> tuple[int, list[str]]:
    """The exit code, and what the daemon was asked."""
    config, asked = load(file), []

    async def handler(verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        asked.append(f"{verb} {request.get('node', 'here')} {request.get('force', False)}")
        if verb == refuse:
            raise Refused("no member answers")
        holders = dict(zip([v.vip.key for v in config.vips], ["b", None], strict=True))
        yield {
            "result": {"node": "a", "vips": [{"key": key, "holder": holder} for key, holder in sorted(holders.items())]}
        }

    async def main() -> int:
        server = ControlServer(Path(config.control.socket), handler, read_only_for_others=False)
        await server.start()
        try:
            return await asyncio.wait_for(asyncio.to_thread(run, arguments, [file]), 30)
        finally:
            await server.close()

    return asyncio.run(main()), asked


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["-l"], ["status here False"]),
        (["-f"], ["drain here True", "status here False"]),
        (["-s"], ["resume here True", "status here False"]),
        (["-fls"], ["resume here True", "status here False"]),
    ],
    ids=" ".join,
)
def test_each_option_asks_and_lists(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], asked: list[str]
) -> None:
    assert call(file, *arguments) == (0, asked)
    assert capsys.readouterr().out == LISTED
    assert call(file, "-c", str(file), *arguments) == (0, asked)


def test_an_old_file_that_lists_no_hosts_stands_for_the_daemons_own(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts say `wackatrl -c /etc/wackamole.conf -f`, and went on working for twenty years."""
    old = tmp_path / "wackamole.conf"
    old.write_text("Spread = 4803\nGroup = shop\nVirtualInterfaces { eth0:192.0.2.10/24 }\n")
    assert call(file, "-c", str(old), "-f") == (0, ["drain here True", "status here False"])
    said = capsys.readouterr()
    assert said.out == LISTED
    assert said.err == f"wackatrl: {old} does not list the hosts, so {file} is read\n"
    old.write_text("Spread = 4803\nGroup = shop\nVirtualInterfaces { eth0:192.0.2.300/24 }\n")
    assert call(file, "-c", str(old), "-f") == (2, [])


def test_what_goes_wrong_is_told(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(file, "-f", refuse="drain") == (1, ["drain here True"])
    assert "no member answers" in capsys.readouterr().err
    assert run(["-l", "-c", str(file)]) == 1
    assert "no daemon answers" in capsys.readouterr().err
    assert run(["-l"], [tmp_path / "none"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    for arguments in ([], ["-x"], ["-c"], ["-l", "extra"], ["-c", str(file)]):
        assert run(arguments) == 2
        assert "usage: wackatrl" in capsys.readouterr().err
