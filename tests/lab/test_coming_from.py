"""A wackamole.conf of 2.1, as it is, runs a cluster, on either engine; our wackatrl drives it, and so does the original's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]
OURS = (sys.executable, "-c", "import sys, wackamole.wackatrl as w; sys.exit(w.main())")
ON_SPREAD = pytest.param(
    "spread",
    marks=pytest.mark.skipif(shutil.which("spread") is None, reason="no `spread` on the PATH (www.spread.org)"),
)


def old_cluster(make_lab: MakeLab, engine: str = "corosync") -> Lab:
    """Two nodes that serve four VIPs by a wackamole.conf."""
    lab = make_lab(nodes=2, vips=4, vips6=0, engine=engine)
    vips = "\n".join(f"  eth0:{address}/32" for _, address in lab.layout.vips)
    old = (
        f"Spread = 4803\nGroup = {lab.layout.name}\nControl = /var/run/wack.it\nMature = 2s\nPrefer None\n"
        f"VirtualInterfaces {{\n{vips}\n}}\nNotify {{ arp-cache }}\nBalance {{ AcquisitionsPerRound = all Interval = 1s }}\n"
        "#wackamole: node a = 10.77.0.11\n#wackamole: node b = 10.77.0.12\n"
        f"#wackamole: engine = {engine}\n"
    )
    for node in lab.layout.nodes:
        lab.start(node, old)
    lab.until(lambda: all_on(lab, "a", "b"), within_s=60, story="both serve")
    assert lab.kernel("a") | lab.kernel("b") == {address for _, address in lab.layout.vips}
    return lab


def all_on(lab: Lab, *nodes: str) -> bool:
    return lab.settled() and {n for n in lab.layout.nodes if lab.kernel(n)} == set(nodes)


def called(lab: Lab, *command: str) -> str:
    command = (*command[:-1], "-c", "/run/wackamole.toml", command[-1])
    done = subprocess.run(
        lab._command("a", *command), env=lab.environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout


def drive(lab: Lab, *program: str) -> None:
    """List, fail, succeed."""
    assert called(lab, *program, "-l").count("Owner: 10.77.0.11\n\t*    eth0:10.77.1.") == 2
    assert called(lab, *program, "-f").count("Owner: 10.77.0.12\n") == 4
    assert all_on(lab, "b")
    called(lab, *program, "-s")
    lab.until(lambda: all_on(lab, "a", "b"), within_s=60, story="a has its share again")


@pytest.mark.parametrize("engine", ["corosync", ON_SPREAD])
def test_a_wackamole_conf_runs_as_it_is(make_lab: MakeLab, engine: str) -> None:
    lab = old_cluster(make_lab, engine)
    status = lab.status("a")
    assert status is not None
    assert status["engine"]["type"] == engine
    drive(lab, *OURS)


def test_the_originals_wackatrl_drives_a_cluster_of_ours(make_lab: MakeLab) -> None:
    program = os.environ.get("WACKATRL_ORIGINAL")
    if not program:
        pytest.skip("WACKATRL_ORIGINAL names no wackatrl of Wackamole 2.1")
    drive(old_cluster(make_lab), str(Path(program).resolve()))
