"""`wackamole metrics` on a real cluster: what happens is counted where it happens."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
from collections.abc import Callable

import pytest

from tests.metrics.test_catalogue import families
from wackamole.lab.lab import Lab
from wackamole.lab.namespaces import opened_in

pytestmark = pytest.mark.lab
PORT = 8421


class Node:
    """A node whose metrics are served, by a process without rights."""

    def __init__(self, lab: Lab, name: str) -> None:
        self._namespace = lab.layout.namespace(name)
        lab.begin(
            name, sys.executable, "-m", "wackamole", "metrics", "--listen", f"127.0.0.1:{PORT}", "--user", "nobody"
        )
        lab.until(self._serves, within_s=60, story=f"{name} serves metrics")

    def _serves(self) -> bool:
        try:
            return self.get("/metrics")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, str]:
        asked = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        asked.sock = opened_in(self._namespace, lambda: socket.create_connection(("127.0.0.1", PORT), 30))
        with contextlib.closing(asked):
            asked.request("GET", path)
            answer = asked.getresponse()
            return answer.status, answer.read().decode()

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples with these labels."""
        samples = [s for family in families(self.get("/metrics")[1]) for s in family.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())


def test_what_happens_is_counted(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(settings='[control]\nread_only_for_others = true\n[balance]\nsettle = "60s"\n')
    lab.start_all()
    lab.until_settled()
    a, b = Node(lab, "a"), Node(lab, "b")
    for node in (a, b):
        lab.until(lambda node=node: node.get("/readyz") == (200, "ok\n"), within_s=60, story="it is ready")  # type: ignore[misc]
        assert [node.value(f"wackamole_vip_{what}") for what in ("held", "target", "in_kernel", "served")] == [
            2,
            2,
            2,
            6,
        ]
        assert node.value("wackamole_member_present") == 3
        assert node.value("wackamole_takeover_seconds_count", after="loss") == 0
    views, beats = a.value("wackamole_views_total"), a.value("wackamole_beats_received_total", member="b")
    lab.until(lambda: a.value("wackamole_beats_received_total", member="b") > beats, within_s=60, story="b is heard")
    lab.until(lambda: a.value("wackamole_loop_lag_seconds_count") > 0, within_s=60, story="wake-ups are counted")

    mine = len(lab.kernel("c"))
    lab.crash("c")
    lab.until(
        lambda: a.value("wackamole_vip_held") + b.value("wackamole_vip_held") == 6, within_s=60, story="taken over"
    )
    lab.until(
        lambda: sum(n.value("wackamole_takeover_seconds_count", after="loss") for n in (a, b)) == mine,
        within_s=60,
        story="each take-over was timed",
    )
    assert sum(n.value("wackamole_moves_total", cause="host_lost") for n in (a, b)) == mine
    assert (a.value("wackamole_member_present", member="c"), a.value("wackamole_member_present")) == (0, 2)
    assert a.value("wackamole_views_total") > views

    name = next(v["name"] for v in lab.ask("a", "status")["vips"] if v["holder"] == "a")
    before = b.value("wackamole_takeover_seconds_count", after="decision")
    lab.ask("a", "move", {"vips": [name], "node": "b"})
    lab.until(
        lambda: b.value("wackamole_takeover_seconds_count", after="decision") == before + 1,
        within_s=60,
        story="a move was timed by who got it",
    )
    assert b.value("wackamole_moves_total", cause="operator") == 1
    lab.until(lambda: b.value("wackamole_vip_in_kernel", vip=name) == 1, within_s=60, story="its kernel says so")
    assert a.value("wackamole_vip_in_kernel", vip=name) == 0

    lab.stop("b")
    lab.until(lambda: b.value("wackamole_up") == 0, within_s=60, story="b's daemon is gone")
    lab.until(lambda: "no daemon answers" in b.get("/healthz")[1], within_s=60, story="and nothing is left of it")
    assert b.get("/healthz")[0] == 503
