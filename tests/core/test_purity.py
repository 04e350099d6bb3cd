"""The core is pure: it imports nothing that waits, reads a clock or touches the world."""

from __future__ import annotations

import ast
from pathlib import Path

import wackamole.core

ALLOWED = {"__future__", "dataclasses", "enum", "typing", "collections", "collections.abc", "ipaddress", "hashlib"}
FILES = sorted(Path(wackamole.core.__file__).parent.glob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules that a file imports from outside its own package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                found.add(node.module or "")
            else:
                assert node.level == 1, f"{path.name} reaches out of the core: line {node.lineno}"
    return found


def test_the_core_imports_only_what_is_pure() -> None:
    assert len(FILES) > 5
    for path in FILES:
        assert imported(path) <= ALLOWED, f"{path.name}: {sorted(imported(path) - ALLOWED)}"
