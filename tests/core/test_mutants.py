"""Every fault that is put into the core on purpose is found (sim/mutants.py has the list)."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from wackamole.core.orders import on_evict
from wackamole.sim.mutants import MUTANTS, Mutant, hunt, same, stories_in

STORIES = stories_in(Path(__file__).parent.parent / "scenarios")


@pytest.mark.parametrize("mutant", MUTANTS, ids=[m.name.replace(" ", "-") for m in MUTANTS])
def test_a_fault_is_found(mutant: Mutant) -> None:
    assert hunt(mutant, STORIES).by is not None


def test_without_a_fault_nothing_is_found() -> None:
    nothing = Mutant("nothing", on_evict, "return", "return")
    source = inspect.getsource(on_evict)
    harmless = Mutant("harmless", on_evict, source.splitlines()[0], source.splitlines()[0] + "  # as it was")
    with pytest.raises(LookupError, match="times in on_evict"), nothing.put_in():
        pass
    with harmless.put_in():
        for path in STORIES[:10]:
            same(path)
