"""What the system tests share: a Debian, the package, and a network of two hosts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wackamole.lab.namespaces import ip, tool

from .debian import Tree

ROOT = Path(__file__).parents[2]
RELEASE = "bookworm"
BEFORE = ("python3", "corosync", "nftables", "iproute2", "systemd", "systemd-sysv", "procps")
"""What is there before the package, so that what the package itself leaves behind can be told."""


@pytest.fixture(scope="session")
def package() -> Path:
    """The package that script/package made."""
    found = sorted((ROOT / "dist").glob("wackamole_*.deb"))
    assert len(found) == 1, "script/package makes it"
    return found[0]


@pytest.fixture(scope="session")
def base() -> Tree:
    """A Debian without the package; made once."""
    return Tree.made(ROOT / "build/system" / RELEASE, release=RELEASE, packages=BEFORE)


@pytest.fixture
def tree(base: Tree, tmp_path: Path) -> Tree:
    """One for this test alone."""
    return base.copy(tmp_path / "debian")


@pytest.fixture
def networks() -> Iterator[tuple[str, str]]:
    """Two hosts' network namespaces, a cable between them, and addresses 10.99.0.11 and 10.99.0.12 on eth0."""
    names = (f"wackamole-a-{os.getpid()}", f"wackamole-b-{os.getpid()}")
    try:
        for name in names:
            tool("ip", "netns", "add", name)
        ip(f"link add eth0 type veth peer name eth0 netns {names[1]}", namespace=names[0])
        for number, name in enumerate(names, 11):
            ip("link set lo up", "link set eth0 up", f"address add 10.99.0.{number}/24 dev eth0", namespace=name)
        yield names
    finally:
        for name in names:
            tool("ip", "netns", "delete", name)
