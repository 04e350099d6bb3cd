"""Two versions in one group, as while a cluster is upgraded: daemons of the previous one come out of this repository's history."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from wackamole.client import Refused
from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[2]
PREVIOUS = "24f40ed"
"""There is no release yet: what was before members told each other their loads, the last time that the wire was extended.
From the first release on this is its tag."""


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The folder of the previous version's package."""
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", PREVIOUS, "src"], capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"needs the commit {PREVIOUS} of this repository: {packed.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=packed.stdout, check=True)
    return tmp_path / "src"


def whats_wrong(lab: Lab) -> dict[str, list[str]]:
    """Of each node's log, the lines that tell of members who do not understand each other."""
    words = ("bad_message", "diverged", "Traceback", "message_too_large")
    found = {n: [line for line in lab.log(n).splitlines() if any(w in line for w in words)] for n in lab.layout.nodes}
    return {n: lines for n, lines in found.items() if lines}


def all_served_once(lab: Lab) -> bool:
    return all(len(lab.holders(address)) == 1 for _, address in lab.layout.vips)


def test_a_cluster_is_upgraded_node_by_node(make_lab: Callable[..., Lab], previous: Path, tmp_path: Path) -> None:
    """Everything that nodes do together, while a and b are of the previous version and c is of this one; then b is replaced."""
    lab = make_lab()
    installed = tmp_path / "installed"  # b's package, which an upgrade changes
    installed.symlink_to(previous)
    lab.start("a", source=previous)
    lab.start("b", source=installed)
    lab.start("c")
    lab.until_settled()
    assert [len(lab.kernel(n)) for n in "abc"] == [2, 2, 2]

    lab.ask("a", "drain", {"node": "c", "force": False})
    lab.until(lambda: not lab.kernel("c") and all_served_once(lab), within_s=30, story="a drains c")
    with pytest.raises(Refused, match="keeps no orders"):  # what this one would keep, the others would forget
        lab.ask("c", "resume", {"node": "c"})
    lab.ask("a", "resume", {"node": "c"})
    with pytest.raises(Refused, match="balance waits"):
        lab.ask("c", "balance")
    lab.ask("b", "move", {"vips": ["v1"], "node": "a"})
    lab.ask("a", "move", {"vips": ["v2", "v3"], "node": "c"})
    lab.until(lambda: len(lab.kernel("c")) == 2 and all_served_once(lab), within_s=30, story="c takes part again")
    lab.until_settled()
    holders = {v["name"]: v["holder"] for v in (lab.status("b") or {})["vips"]}
    assert (holders["v1"], holders["v2"]) == ("a", "c")

    for crashed in "ac":  # one of each version
        lab.crash(crashed)
        others = [n for n in "abc" if n != crashed]
        lab.until(lambda: all_served_once(lab), within_s=30, story=f"the others serve after {crashed} is gone")
        lab.start(crashed, source=previous if crashed == "a" else None)
        lab.until_settled()
        assert all(lab.kernel(n) for n in others)

    serving = lab.kernel("b")
    before = (lab.status("b") or {})["process"]
    installed.unlink()
    installed.symlink_to(ROOT / "src")
    lab.ask("b", "restart", {"within_ms": 10_000})
    lab.until(
        lambda: (s := lab.status("b")) is not None and s["process"]["started"] != before["started"],
        within_s=30,
        story="b is replaced by this version",
    )
    lab.until_settled()
    assert lab.kernel("b") == serving
    assert lab.ask("b", "why", {"vip": "v1"})["members"]  # which the previous version does not know
    assert whats_wrong(lab) == {}
