"""A wackamole.conf of 2.1, as it is, runs a cluster, and its own control program drives it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]


def test_a_wackamole_conf_runs_as_it_is(make_lab: MakeLab) -> None:
    lab = make_lab(nodes=2, vips=4, vips6=0)
    vips = "\n".join(f"  eth0:{address}/32" for _, address in lab.layout.vips)
    old = (
        f"Spread = 4803\nGroup = {lab.layout.name}\nControl = /var/run/wack.it\nMature = 2s\nPrefer None\n"
        f"VirtualInterfaces {{\n{vips}\n}}\nNotify {{ arp-cache }}\nBalance {{ AcquisitionsPerRound = all Interval = 1s }}\n"
        "#wackamole: node a = 10.77.0.11\n#wackamole: node b = 10.77.0.12\n"
    )
    for node in lab.layout.nodes:
        lab.start(node, old)
    served = {address for _, address in lab.layout.vips}

    def wackatrl(option: str) -> str:
        command = [sys.executable, "-c", "import sys, wackamole.wackatrl as w; sys.exit(w.main())"]
        command = lab._command("a", *command, "-c", "/run/wackamole.toml", option)
        return subprocess.run(command, env=lab.environment(), capture_output=True, text=True, check=True).stdout

    def all_on(nodes: set[str]) -> bool:
        return lab.settled() and {n for n in lab.layout.nodes if lab.kernel(n)} == nodes

    lab.until(lambda: all_on({"a", "b"}), within_s=60, story="both serve")
    assert lab.kernel("a") | lab.kernel("b") == served
    assert wackatrl("-l").count("Owner: 10.77.0.11") == 2
    assert wackatrl("-f").count("Owner: 10.77.0.12") == 4
    assert all_on({"b"})
    wackatrl("-s")
    lab.until(lambda: all_on({"a", "b"}), within_s=60, story="a has its share again")
