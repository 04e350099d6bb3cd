"""`wackamole doctor` beside running daemons: what they know is asked of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from wackamole.lab.lab import CLIENT, Lab
from wackamole.lab.namespaces import ip

pytestmark = pytest.mark.lab


def test_it_asks_the_daemon_and_finds_strangers_absent_nodes_and_pauses(
    make_lab: Callable[..., Lab], capfd: pytest.CaptureFixture[str]
) -> None:
    lab = make_lab(nodes=3, vips=6)
    lab.start_all()
    lab.until_settled()

    def doctor(node: str) -> dict[str, tuple[str, str]]:
        capfd.readouterr()
        config = "/run/wackamole.toml"
        code = lab.call(node, sys.executable, "-m", "wackamole", "doctor", "--json", "-c", config, "--node", node)
        said = json.loads(capfd.readouterr().out)
        assert code == said["problems"]
        return {c["check"]: (c["result"], c["found"]) for c in said["checks"]}

    found = doctor("a")
    assert found["cluster"][0] == "note"  # the lab's ring has no key, and the daemon says so
    assert "no key" in found["cluster"][1]
    for check in ("capabilities", "ring_port", "firewall", "vip_answered", "vip_configured", "other_clusters", "mtu"):
        assert found[check][0] == "ok", found[check]
    assert found["capabilities"][1].startswith("the daemon has")
    assert found["kernel"] == ("ok", found["kernel"][1])
    assert "its fence is up on eth0" in found["kernel"][1]
    assert "Corosync's own average" in found["detection"][1]
    scheduling = (lab.status("a") or {})["process"]["scheduling"]
    assert found["real_time"][0] == ("ok" if scheduling == "rr" else "problem")
    assert found["clock"][0] in ("ok", "note")
    assert found["vip_answered"][1].startswith("4 of 6")  # two are held by this node itself

    vips = {v["holder"]: v["addresses"][0] for v in (lab.status("a") or {})["vips"] if ":" not in v["addresses"][0]}
    for holder in ("a", "b"):
        ip(f"addr add {vips[holder]} dev eth0", namespace=lab.layout.namespace(CLIENT))
        result, said = doctor("a")["vip_answered"]
        assert result == "problem"
        assert vips[holder].partition("/")[0] in said
        ip(f"addr del {vips[holder]} dev eth0", namespace=lab.layout.namespace(CLIENT))

    lab.freeze("a", "daemon")
    lab.until(lambda: len((lab.status("b") or {"absent": []})["absent"]) == 1, within_s=60, story="a is evicted")
    lab.thaw("a", "daemon")
    lab.until_settled()
    assert doctor("a")["clock"][0] == "problem"

    lab.crash("c")
    lab.until(lambda: (lab.status("a") or {"absent": []})["absent"] == ["c"], within_s=60, story="c is missed")
    result, said = doctor("a")["cluster"]
    assert result == "problem"
    assert "c: not in the group" in said
