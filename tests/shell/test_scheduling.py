"""Real time is for those who ask, and not for what they start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CHILD = """
import json, os, subprocess, sys, threading
from wackamole.shell import scheduling
found = {"before": scheduling.current()}
scheduling.before_others()
found["asked"] = scheduling.current()
def look(): found["thread"] = scheduling.current()
thread = threading.Thread(target=look); thread.start(); thread.join()
def behind():
    scheduling.behind_the_loop()
    found["behind"] = scheduling.current(), os.sched_getparam(0).sched_priority
thread = threading.Thread(target=behind); thread.start(); thread.join()
found["priority"] = os.sched_getparam(0).sched_priority
child = [sys.executable, "-c", "from wackamole.shell import scheduling; print(scheduling.current())"]
found["child"] = subprocess.run(child, capture_output=True, text=True, check=True).stdout.strip()
print(json.dumps(found))
"""


def test_who_asks_runs_in_real_time_and_what_it_starts_does_not() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["thread"] == found["child"] == "other"
    if found["asked"] != "rr":
        pytest.skip("this host does not grant real-time scheduling (RLIMIT_RTPRIO, or a container)")
    assert found["before"] == "other"
    assert found["behind"] == ["rr", found["priority"] - 1]
