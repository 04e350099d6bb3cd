"""Corosync begun early, with a program in its place that only stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wackamole.engine.corosync.conf import RingNode
from wackamole.engine.corosync.managed import SYSTEMD, ManagedCorosync, answers

Make = Callable[[], ManagedCorosync]

pytestmark = [
    pytest.mark.skipif(SYSTEMD.is_dir(), reason="systemd would start it, in a unit"),
    pytest.mark.skipif(answers(), reason="a Corosync runs on this host"),
]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    program = tmp_path / "corosync"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    made: list[ManagedCorosync] = []

    def one() -> ManagedCorosync:
        nodes = (RingNode("a", 11, ("10.0.0.11",)),)
        run, state = tmp_path / "run", tmp_path / "state"
        made.append(
            ManagedCorosync("web", nodes, 300, secret=None, directory=run, state_dir=state, program=str(program))
        )
        return made[-1]

    yield one
    for each in made:
        asyncio.run(each.stop())


def test_what_was_begun_is_this_daemons_own(make: Make) -> None:
    mine = make()
    mine.begin()
    begun = mine.running()
    assert begun is not None
    asyncio.run(mine.ensure())
    assert mine.running() == begun
    assert not mine.adopted


def test_the_next_daemon_adopts_it_and_begins_no_other(make: Make) -> None:
    first, second = make(), make()
    first.begin()
    asyncio.run(first.ensure())
    second.begin()
    asyncio.run(second.ensure())
    assert second.running() == first.running()
    assert second.adopted
    second.take_back()
    assert first.running() is not None  # it was not begun by this one


def test_what_was_begun_outlives_a_daemon_that_has_served(make: Make) -> None:
    mine = make()
    mine.begin()
    asyncio.run(mine.ensure())
    begun = mine.running()
    assert begun is not None
    mine.take_back()  # what a daemon does that ends by a bug (hazard 30)
    assert mine.running() == begun
    asyncio.run(mine.ensure())
    assert mine.adopted  # the same one once more, which nobody had to start


def test_a_daemon_that_does_not_serve_takes_it_back_and_the_next_begins_none(make: Make) -> None:
    refused, again = make(), make()
    refused.begin()
    refused.take_back()
    assert refused.running() is None
    again.begin()
    assert again.running() is None  # the others' ring would change at each attempt
    asyncio.run(again.ensure())
    assert again.running() is not None
    later = make()
    asyncio.run(again.stop())
    later.begin()
    assert later.running() is not None
