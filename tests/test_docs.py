"""Documents that can be checked: man pages name every option and key, examples are valid, links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from wackamole.cli import app
from wackamole.config import parse
from wackamole.schema import schema

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


WACKAMOLE = str(Path(sys.executable).with_name("wackamole"))


def plain(page: Path) -> str:
    return page.read_text().replace("\\-", "-")


def options(command: Any, path: str = "wackamole") -> dict[str, set[str]]:
    """Every command's options, by the words that call it."""
    found = {path: {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}}
    for name, inner in getattr(command, "commands", {}).items():
        found |= options(inner, f"{path} {name}")
    return found


EVERYWHERE = {"--json", "--socket", "--help", "-h", "--name", "--install-completion", "--show-completion", "--version"}
"""Options of all commands, or of all of a kind; described once."""


def sections(page: Path, heading: str) -> dict[str, str]:
    """What stands under each heading; the heading is a part of it."""
    parts = re.split(heading, plain(page), flags=re.MULTILINE)
    return {part.split("\n")[0].strip('" `'): part for part in parts[1:]}


def test_the_man_page_describes_every_command_with_its_options() -> None:
    page = ROOT / "man/wackamole.8"
    found = sections(page, r"^\.S[SH] ")
    of = {name.split()[1]: text for name, text in found.items() if name.startswith("wackamole ")}
    known = options(get_command(app))
    assert len(known) > 20
    assert all(option in plain(page) for option in EVERYWHERE)
    for command, names in known.items():
        words = command.split()
        text = of[words[1]] if len(words) > 1 else found["GLOBAL OPTIONS"]
        assert re.search(rf"\b{words[-1]}\b", text) or len(words) == 1, command
        assert [o for o in names - EVERYWHERE if not re.search(rf"{re.escape(o)}\b", text)] == [], command
    assert len(of) == sum(1 for name in found if name.startswith("wackamole ")), "a command is described twice"


@pytest.mark.parametrize(
    ("document", "heading"), [("man/wackamole.toml.5", r"^\.SH "), ("docs/config.md", r"^## ")], ids=["man", "docs"]
)
def test_every_key_of_the_config_is_described_with_its_table(document: str, heading: str) -> None:
    found = sections(ROOT / document, heading)
    arrays = [name for name, kind in schema()["properties"].items() if kind.get("type") == "array"]
    missing = []
    for table, known in schema()["$defs"].items():
        names = [table.split(".")[0], table.split(".")[-1]]  # what is told of a VIP is written as under [notify]
        text = "".join(found.get(f"[[{n}]]" if n in arrays else f"[{n}]", "") for n in names)
        said = re.compile(r"(?:^\.[BI][A-Z]? .*|`|\{ |, )\b([a-z_0-9]+)\b", re.MULTILINE)
        words = {w for m in said.finditer(text) for w in re.findall(r"\w+", m[0])}
        missing += [f"{table}.{key}" for key in known["properties"] if key not in words]
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


UNIT = ROOT / "packaging/wackamole.service"


@pytest.fixture
def analyze() -> str:
    """The program systemd-analyze."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    return "systemd-analyze"


@pytest.mark.parametrize("unit", ["wackamole", "wackamole-web", "wackamole-metrics"])
def test_the_unit_is_as_systemd_wants_it(analyze: str, unit: str) -> None:
    file = ROOT / f"packaging/{unit}.service"
    done = subprocess.run([analyze, "verify", str(file)], capture_output=True, text=True, check=False)
    # what is not installed on this host is no fault of the unit
    wrong = [x for x in done.stderr.splitlines() if "not executable" not in x and "Command 'man " not in x]
    assert wrong == []


def test_what_is_left_open_in_the_unit_is_said_with_its_reason(analyze: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=30", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1:]  # an exposure of at most 3.0
    open_ = {line.split()[1].split("=")[0] for line in done.stdout.splitlines() if line.startswith("✗")}
    assert len(open_) > 5
    text = (ROOT / "docs/operations.md").read_text().partition("## Under systemd")[2].partition("\n## ")[0]
    assert sorted(setting for setting in open_ if f"`{setting}" not in text) == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_completes_commands_and_options(shell: str, tmp_path: Path) -> None:
    """By the script that the package installs; in zsh, what that one asks for."""

    def called(**more: str) -> str:
        env = {**os.environ, "_WACKAMOLE_COMPLETE": f"complete_{shell}", **more}
        return subprocess.run([WACKAMOLE], env=env, capture_output=True, text=True, check=False).stdout

    script = called(_WACKAMOLE_COMPLETE=f"source_{shell}")
    if shell == "zsh":
        assert "_WACKAMOLE_COMPLETE=complete_zsh" in script
        assert "--force" in called(_TYPER_COMPLETE_ARGS="wackamole drain --f")
        return
    (tmp_path / "completion").write_text(script)
    for words, offered in (
        ("wackamole dra", "drain"),
        ("wackamole drain --f", "--force"),
        ("wackamole lab cr", "crash"),
    ):
        typed = words.split()
        line = (
            f". {tmp_path}/completion; COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1};"
            ' _wackamole_completion wackamole; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", line],
            env={**os.environ, "PATH": f"{Path(WACKAMOLE).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert offered in done.stdout.split(), words
