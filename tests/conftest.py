"""What all tests share: why the lab's tests are skipped where they cannot run, and a lab."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from wackamole.lab.lab import Lab, Layout

NEEDED = ("ip", "nft", "corosync")

settings.register_profile(  # no test depends on how fast it runs, and a folder for all examples is what they mean
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any machine")


def why_no_lab() -> str | None:
    """Why no lab can be made here, or None."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces: sudo script/test"
    missing = [program for program in NEEDED if shutil.which(program) is None]
    return f"{', '.join(missing)} not installed: sudo script/test installs what is missing" if missing else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_no_lab()
    for item in items:
        if item.get_closest_marker("lab") is not None:
            item.add_marker(pytest.mark.xdist_group("lab"))  # one after the other, also where tests run side by side
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What runs beside the lab runs on what it leaves over: a cluster must not starve for another test's sake."""
    if "PYTEST_XDIST_WORKER" in os.environ and why_no_lab() is None:
        alone = item.get_closest_marker("lab") is None
        os.sched_setscheduler(0, os.SCHED_IDLE if alone else os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """Makes labs; takes them away at the end, whatever happened."""
    made: list[Lab] = []

    def make(**options: Any) -> Lab:
        options.setdefault("detection", "1s")
        lab = Lab.create(Layout.of(f"t{os.getpid()}-{len(made)}", **options), ephemeral=True)
        made.append(lab)
        return lab

    yield make
    for lab in made:
        lab.down()
