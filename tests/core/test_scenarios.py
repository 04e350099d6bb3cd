"""The stories of tests/scenarios, told by sim/story.py.

WACKAMOLE_REWRITE=1 pytest tests/core/test_scenarios.py     writes the outcomes anew; explain the diff in the commit
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wackamole.sim.story import play

FOLDER = Path(__file__).parent.parent / "scenarios"
STORIES = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=[p.stem for p in STORIES])
def test_story(path: Path) -> None:
    text = path.read_text()
    outcome = play(text)
    if os.environ.get("WACKAMOLE_REWRITE"):
        path.write_text(outcome)
    assert outcome == text


@pytest.mark.parametrize("seed", ["1", "77"])
def test_stories_do_not_depend_on_the_hash_seed(seed: str) -> None:
    code = "import sys; from tests.core.test_scenarios import STORIES, play\nfor p in STORIES: sys.stdout.write(play(p.read_text()))"
    here = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(here), str(here / "src")])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "".join(p.read_text() for p in STORIES)
