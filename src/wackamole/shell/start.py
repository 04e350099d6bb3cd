"""`python -m wackamole.shell.start`: what `wackamole run` becomes, so that the daemon's process stays light.

A start is mostly waiting for Corosync and loading our own modules, so it begins Corosync with as little as that needs, and
loads the daemon meanwhile. The guard is forked before that as well: it keeps what there was in memory then.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .. import keys
from ..config import Config, ConfigError, NodeConfig, find_self, load
from ..engine.corosync.managed import CorosyncRefused, ManagedCorosync, ring_nodes
from . import scheduling
from .claim import Refused, claimed
from .kernel.guard import Guard, descriptors_close_high_first
from .notify import Notifier
from .succession import Succession, inherited

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from another: the addresses' thread must not wait 5 ms, the default, for each
of the others."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the daemon was started with."""

    config: Config
    node: NodeConfig
    verbose: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """What has to be there before the first thread. `closes_first`: this kernel closes the highest descriptor of a dead
    process first. `corosync`: the private one, if the config asks for it. `control`: the control socket. `notifier`: what systemd is
    told by, made before anything is started that could take its variables for its own."""

    closes_first: bool
    guard: Guard
    succession: Succession | None = None
    corosync: ManagedCorosync | None = None
    control: socket.socket | None = None
    notifier: Notifier = field(default_factory=Notifier)

    def give_up(self) -> None:
        """The daemon does not serve: end what was begun for it."""
        self.guard.dismiss()
        if self.corosync is not None:
            self.corosync.take_back()


def managed_corosync(config: Config) -> ManagedCorosync | None:
    """The private Corosync that the config asks for, if it does. Raises KeyRefused."""
    if config.engine.type != "corosync" or not config.engine.managed:
        return None
    key_file = config.cluster.key_file
    return ManagedCorosync(
        config.cluster.name,
        ring_nodes(config.nodes),
        config.engine.detection_ms,
        secret=keys.read(Path(key_file)) if key_file is not None else None,
        directory=Path(config.control.socket).parent / "corosync",
        state_dir=Path(os.environ.get("STATE_DIRECTORY", "/var/lib/wackamole")) / "corosync",
    )


def keep(config: Config) -> Kept:
    """Take the control socket, begin what takes long, and fork the guard. Raises Refused, KeyRefused, CorosyncRefused and
    ChildProcessError."""
    left, notifier = inherited(), Notifier()
    control = claimed(Path(config.control.socket))
    corosync = managed_corosync(config)
    if corosync is not None and left is None:
        corosync.begin()
    try:
        guard = Guard((left.guard, left.guard_pid) if left is not None else None)
    except ChildProcessError:
        if corosync is not None:
            corosync.take_back()
        raise
    closes_first = left.closes_first if left is not None else descriptors_close_high_first()
    return Kept(closes_first, guard, left, corosync, control, notifier)


def _loaded(given: Given, kept: Kept) -> int:
    from .daemon import run

    return run(given, kept)


def main(run: Callable[[Given, Kept], int] = _loaded) -> None:
    """Start, serve, and end with the exit code: 0 after a clean leave, 2 for an unusable config, 1 for a failure."""
    gc.disable()  # until the daemon serves: what is loaded stays
    parser = argparse.ArgumentParser(prog="wackamole run")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--node")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    scheduling.before_others()
    try:
        config = load(given.config)
        node = find_self(config, given.node)
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        sys.exit(2)
    try:
        kept = keep(config)
    except ChildProcessError as wrong:
        print(f"wackamole: {wrong}; its reason is above", file=sys.stderr)
        sys.exit(1)
    except (Refused, keys.KeyRefused, CorosyncRefused) as no:
        print(f"wackamole: {no}", file=sys.stderr)
        sys.exit(1)
    sys.exit(run(Given(config, node, given.verbose), kept))


if __name__ == "__main__":
    main()
