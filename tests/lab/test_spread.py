"""The cluster on real Spread daemons, where there is a `spread` on the PATH."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from wackamole.keys import write_new
from wackamole.lab.lab import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("spread") is None, reason="no `spread` on the PATH (www.spread.org)"),
]


@pytest.fixture
def three(make_lab: Callable[..., Lab]) -> Lab:
    """Three nodes and six VIPs on Spread, settled."""
    lab = make_lab(engine="spread")
    lab.start_all()
    lab.until_settled()
    return lab


def test_a_host_crashes_and_comes_back(three: Lab) -> None:
    status = three.status("a")
    assert status is not None
    assert status["engine"]["type"] == "spread"
    assert sorted(len(three.kernel(n)) for n in three.layout.nodes) == [2, 2, 2]
    three.crash("b")
    three.until_settled(("a", "c"))
    three.start("b")
    three.until_settled()


def test_a_partition_and_a_merge(three: Lab) -> None:
    three.partition(["a"], ["b", "c"])
    three.until_settled(("b", "c"))
    everything = {a for _, a in three.layout.vips}
    three.until(lambda: three.kernel("a") == everything, within_s=60, story="a, cut off, covers everything")
    three.heal()
    three.until_settled()


def test_a_graceful_leave(three: Lab) -> None:
    three.stop("c")
    three.until_settled(("a", "b"))
    assert not three.kernel("c")
    assert "c:left" in three.log("a")


def test_without_its_spread_daemon_a_node_holds_nothing_and_it_comes_back_with_it(three: Lab) -> None:
    pid = three.spread("b")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    three.until(lambda: not three.kernel("b"), within_s=60, story="b drops everything")
    three.until_settled(("a", "c"))
    three.start_spread("b")
    three.until_settled()


def test_with_a_key_what_members_say_is_sealed(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    key = tmp_path / "web.key"
    write_new(key)
    lab = make_lab(engine="spread", cluster=f'key_file = "{key}"')
    lab.start_all()
    lab.until_settled()
    for node in lab.layout.nodes:
        status = lab.status(node)
        assert status is not None
        assert status["engine"]["sealed"] == "HMAC-SHA256"
        assert status["engine"]["refused"] == "0"
    lab.crash("b")
    lab.until_settled(("a", "c"))


@pytest.mark.parametrize("wrong", ["another", "none"])
def test_who_has_another_key_waits_outside_and_serves_nothing(
    make_lab: Callable[..., Lab], tmp_path: Path, wrong: str
) -> None:
    keys = [tmp_path / "web.key", tmp_path / "old.key"]
    for key in keys:
        write_new(key)
    line = f'key_file = "{keys[0]}"'
    lab = make_lab(engine="spread", cluster=line)
    for node in "ab":
        lab.start(node)
    lab.until_settled(("a", "b"))
    lab.start("c", lab.layout.config.replace(line, f'key_file = "{keys[1]}"' if wrong == "another" else ""))
    lab.until(lambda: "cannot be understood" in lab.log("c"), within_s=60, story="c gives way")
    lab.until_settled(("a", "b"))
    assert not lab.kernel("c")
    status = lab.status("c")
    assert status is not None
    assert any("the same key_file" in said for said in status["warnings"])
    assert "duplicate" not in lab.log("a") + lab.log("b")


def test_a_key_is_changed_node_by_node_and_no_address_goes_down(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """As docs/decisions/0009-spread.md says: the new key second, then first, then alone."""
    old, new, used = (tmp_path / name for name in ("old.key", "new.key", "web.key"))
    for key in (old, new, used):
        write_new(key)
    used.write_text(old.read_text())
    lab = make_lab(engine="spread", nodes=2, vips=4, cluster=f'key_file = "{used}"')
    lab.start_all()
    lab.until_settled()
    held = {node: lab.kernel(node) for node in lab.layout.nodes}

    def restarted(node: str, times: int) -> bool:
        assert {n: lab.kernel(n) for n in lab.layout.nodes} == held
        status = lab.status(node)
        return status is not None and status["process"]["restarts"] == times and lab.settled()

    for times, keys in enumerate(((old, new), (new, old), (new,)), 1):
        used.write_text("".join(k.read_text() for k in keys))
        for node in lab.layout.nodes:
            lab.ask(node, "restart", {"within_ms": 5000})
            lab.until(lambda n=node, t=times: restarted(n, t), within_s=60, story=f"{node} is restarted")  # type: ignore[misc]
    for node in lab.layout.nodes:
        status = lab.status(node)
        assert status is not None
        assert status["engine"]["refused"] == "0"
