"""Habits that can be checked by looking at the text: no test sleeps or mocks, and what is public says what it does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = sorted(ROOT.glob("tests/**/*.py"))
SOURCES = sorted(ROOT.glob("src/**/*.py"))
FORBIDDEN = re.compile(
    r"\btime\.sleep\(|\basyncio\.sleep\((?!0\))|unittest\.mock|from unittest import mock|mock\.patch"
)


def test_no_test_sleeps_and_none_mocks() -> None:
    assert len(TESTS) > 10
    guilty = [p.name for p in TESTS if p != Path(__file__) and FORBIDDEN.search(p.read_text())]
    assert guilty == []


def test_what_is_public_has_a_docstring() -> None:
    missing = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            missing.append(path.name)
        named = (n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
        public = [n for n in named if not n.name.startswith("_")]
        missing += [f"{path.name}: {n.name}" for n in public if ast.get_docstring(n) is None]
    assert missing == []


def test_nothing_goes_through_a_shell() -> None:
    guilty = [p.name for p in SOURCES if re.search(r"shell=True|os\.system\(|os\.popen\(", p.read_text())]
    assert guilty == []
