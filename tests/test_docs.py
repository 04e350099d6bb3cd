"""Documents that can be checked: man pages name every option and key, examples are valid, links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from wackamole.cli import app
from wackamole.config import parse

ROOT = Path(__file__).parents[1]
CONFIG = (ROOT / "src/wackamole/config.py").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def plain(page: Path) -> str:
    return page.read_text().replace("\\-", "-")


def options(command: Any, path: str = "wackamole") -> dict[str, set[str]]:
    """Every command's options, by the words that call it."""
    found = {path: {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}}
    for name, inner in getattr(command, "commands", {}).items():
        found |= options(inner, f"{path} {name}")
    return found


def test_the_man_page_names_every_command_and_option() -> None:
    page = plain(ROOT / "man/wackamole.8")
    known = options(get_command(app))
    assert len(known) > 20
    for command, names in known.items():
        assert re.search(rf"\b{command.split()[-1]}\b", page), command
        for option in names:
            assert option in page, f"{command} {option}"


def keys() -> set[str]:
    return {
        key
        for listed in re.findall(r"self\.keys\([^(]*?\(([^)]*)\),?\s*\)", CONFIG)
        for key in re.findall(r'"([a-z_]+)"', listed)
    }


@pytest.mark.parametrize("document", ["man/wackamole.toml.5", "docs/config.md"])
def test_every_key_of_the_config_is_described(document: str) -> None:
    found = keys()
    assert {"detection", "moves_per_round", "prefer", "interfaces", "vip"} <= found
    text = (ROOT / document).read_text()
    missing = sorted(k for k in found if not re.search(rf"(^\.B[A-Z]? |`|\[){re.escape(k)}\b", text, re.MULTILINE))
    assert missing == []


@pytest.mark.parametrize("page", ["wackamole.8", "wackamole.toml.5", "wackatrl.8"])
def test_man_pages_can_be_shown(page: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("needs the program man (script/test installs man-db)")
    done = subprocess.run(
        ["man", "--warnings", "-l", str(ROOT / "man" / page)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    assert "NAME" in done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_examples_are_valid_and_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        if "[cluster]" in block and "[[vip]]" in block:
            parse(block, document.name)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link:
            assert (document.parent / link).exists(), link


@pytest.mark.parametrize("unit", ["wackamole", "wackamole-web"])
def test_the_unit_is_as_systemd_wants_it(unit: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    file = ROOT / f"packaging/{unit}.service"
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    # what is not installed on this host is no fault of the unit
    wrong = [x for x in done.stderr.splitlines() if "not executable" not in x and "Command 'man " not in x]
    assert wrong == []
