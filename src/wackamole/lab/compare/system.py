"""What the comparison asks of a fail-over system, and what its adapters share.

An adapter writes the system's own configuration, starts and stops it as its unit file would, and says which processes are
its daemon. Everything else, faults and what is measured, is the same for all of them and knows no system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..lab import Lab, Layout
from ..namespaces import ToolFailed, processes_in, tool

NODES, VIPS = 3, 10


class NotOffered(Exception):
    """The system cannot do that; the sentence says why."""


@dataclass(frozen=True, slots=True)
class About:
    """How a system is named in tables, and how much patience it needs."""

    name: str  # in records and on the command line
    title: str  # in tables and charts
    tuned: str  # what of its configuration is not its default, one phrase
    ours: bool = False
    slow: bool = False
    """Whether its clusters take so long that they are measured fewer times."""


class System(Protocol):
    """A fail-over system on a lab's nodes. No method waits for what it began, unless it says so."""

    about: About

    def missing(self) -> str | None:
        """Why it cannot run on this machine; None if it can."""

    def version(self) -> str:
        """The program's own words about its version."""

    def layout(self, name: str) -> Layout:
        """The lab that it needs: NODES nodes, VIPS VIPs."""

    def start(self, lab: Lab, node: str) -> None:
        """Boot a node if it has crashed, and start the system there."""

    def ready(self, lab: Lab) -> bool:
        """Whether, by its own word, nothing is pending: what the kernels cannot tell."""

    def daemons(self, lab: Lab, node: str) -> list[int]:
        """The processes that `kill -9 of the daemon` and `freeze` mean: the system itself, without an engine below it."""

    def leave(self, lab: Lab, node: str) -> None:
        """Ask a node to leave in an orderly way."""

    def left(self, lab: Lab, node: str) -> bool:
        """Whether it has ended after that; goes on with what else is to be stopped."""

    def move(self, lab: Lab, vip: str, source: str, target: str) -> None:
        """Order that an address moves. Raises NotOffered."""

    def unmove(self, lab: Lab, vip: str, source: str, target: str) -> None:
        """Take that order back, so that it goes home."""


def layout(name: str, *, engine: str = "corosync", detection: str = "300ms", settings: str = "") -> Layout:
    """The lab that every system gets: the same nodes, addresses and cables."""
    return Layout.of(name, nodes=NODES, vips=VIPS, vips6=0, engine=engine, detection=detection, settings=settings)


def address(lab: Lab, node: str) -> str:
    """A node's own address."""
    return f"10.77.0.{11 + lab.layout.nodes.index(node)}"


def preference(index: int, nodes: Sequence[str]) -> tuple[str, ...]:
    """In which order nodes are to serve the VIP of that index, for systems that are told so: everybody is first for as many,
    and second for as many of each other's."""
    lap, first = divmod(index, len(nodes))
    others = [n for n in reversed(nodes) if n != nodes[first]]
    turn = lap % len(others)
    return nodes[first], *others[turn:], *others[:turn]


def named(lab: Lab, node: str, names: Iterable[str]) -> list[int]:
    """The processes of a node whose program's name begins with one of these (proc(5), comm)."""
    found = []
    for pid in processes_in(lab.layout.namespace(node)):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith(tuple(names)):
                found.append(pid)
    return sorted(found)


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """A signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def not_installed(program: str, package: str) -> str | None:
    """Why a program cannot be run; None if it is there."""
    return None if shutil.which(program) else f"{program} is not installed (Debian: {package})"


def first_line(*command: str) -> str:
    """What a program says of its version."""
    try:
        said = tool(*command)
    except ToolFailed as wrong:
        said = str(wrong)
    return next((line.strip() for line in said.splitlines() if line.strip()), "?")


class Peer:
    """What most adapters of other systems have in common: one kind of process, ended by SIGTERM."""

    about: About
    programs: tuple[str, ...]
    """What the names of its processes begin with."""

    def layout(self, name: str) -> Layout:
        """The lab that it needs."""
        return layout(name)

    def ready(self, lab: Lab) -> bool:  # noqa: ARG002
        """What the kernels show is all there is to know."""
        return True

    def daemons(self, lab: Lab, node: str) -> list[int]:
        """All processes with its names."""
        return named(lab, node, self.programs)

    def leave(self, lab: Lab, node: str) -> None:
        """SIGTERM to the first process, which ends its children."""
        send(signal.SIGTERM, self.daemons(lab, node)[:1])

    def left(self, lab: Lab, node: str) -> bool:
        """Whether none is there any more."""
        return not self.daemons(lab, node)

    def move(self, lab: Lab, vip: str, source: str, target: str) -> None:  # noqa: ARG002
        """No such order."""
        raise NotOffered(f"{self.about.title} has no order that moves one address")

    def unmove(self, lab: Lab, vip: str, source: str, target: str) -> None:
        """No such order."""

    @staticmethod
    def file(lab: Lab, node: str, path: str, text: str, mode: int = 0o600) -> Path:
        """Write a file below a node's directory in the lab."""
        file = lab.home / node / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file
