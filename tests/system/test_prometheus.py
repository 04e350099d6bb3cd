"""The metrics, alerts and dashboard with a real Prometheus, as Debian has it: three nodes are scraped, and things happen."""

from __future__ import annotations

import contextlib
import http
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.metrics.test_catalogue import CASES, DASHBOARD, RULES, alerts, text, told
from wackamole.lab.lab import CLIENT, Lab
from wackamole.lab.namespaces import ip, opened_in
from wackamole.metrics.catalogue import CATALOGUE, UP, Kind

pytestmark = pytest.mark.system

SETTINGS = """
[control]
read_only_for_others = true
[balance]
settle = "60s"
[[check]]
name = "disk"
kind = "exec"
command = ["/bin/true"]
interval = "1s"
[[hook]]
on = ["acquired"]
command = ["/bin/true"]
"""


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: script/test system installs it")
    return found


def promtool(*arguments: str, said: str | None = None) -> None:
    done = subprocess.run([program("promtool"), *arguments], input=said, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_the_rules_are_rules() -> None:
    promtool("check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", str(CASES))


def test_promtool_finds_nothing_to_say_of_the_metrics() -> None:
    for status in (told(), told("lost"), None):
        promtool("check", "metrics", said=text(status))


class Prometheus:
    """A Prometheus on the lab's client, with the shipped rules."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        home = lab.home / CLIENT / "run"
        shutil.copy(RULES, home)
        targets = [f"10.77.0.{11 + i}:8421" for i in range(len(lab.layout.nodes))]
        (home / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            "rule_files: [wackamole.rules.yml]\n"
            f"scrape_configs: [{{job_name: wackamole, static_configs: [{{targets: {json.dumps(targets)}}}]}}]\n"
        )
        self.process = lab.begin(
            CLIENT,
            program("prometheus"),
            "--config.file=/run/prometheus.yml",
            "--storage.tsdb.path=/run/tsdb",
            "--web.listen-address=127.0.0.1:9090",
            "--log.level=error",
        )

    def get(self, path: str) -> Any:
        """The answer of its API; raises OSError while it is not there."""
        asked = http.client.HTTPConnection("127.0.0.1", 9090, timeout=30)
        namespace = self._lab.layout.namespace(CLIENT)
        asked.sock = opened_in(namespace, lambda: socket.create_connection(("127.0.0.1", 9090), 30))
        with contextlib.closing(asked):
            asked.request("GET", f"/api/v1/{path}")
            said = asked.getresponse()
            if said.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise ConnectionError("it is starting")
            answer = json.loads(said.read())
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found: list[dict[str, Any]] = self.get(f"query?query={quote(expression)}")["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The one value of a query, if it has one."""
        found = self.query(expression)
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else None

    def is_there(self) -> bool:
        """Whether all nodes are scraped."""
        try:
            return self.value("count(wackamole_up == 1)") == len(self._lab.layout.nodes)
        except OSError:
            return False

    def alerts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What is pending or firing, by name and what it is about."""
        about = ("member", "vip", "instance", "cluster")
        found: list[dict[str, Any]] = self.get("alerts")["alerts"]
        return {(a["labels"]["alertname"], next(a["labels"][x] for x in about if x in a["labels"])): a for a in found}


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    program("prometheus")
    found = make_lab(settings=SETTINGS)
    found.start_all()
    found.until_settled()
    for node in found.layout.nodes:
        serve(found, node)
    return found


def serve(lab: Lab, node: str) -> None:
    """Its metrics, by a process without rights."""
    where = f"10.77.0.{11 + lab.layout.nodes.index(node)}:8421"
    lab.begin(node, sys.executable, "-m", "wackamole", "metrics", "--listen", where, "--user", "nobody")


@pytest.mark.lab
def test_a_real_cluster_in_a_real_prometheus(lab: Lab) -> None:
    prometheus = Prometheus(lab)
    lab.until(prometheus.is_there, within_s=120, story="all nodes are scraped")
    vips = len(lab.layout.vips)
    calm = (
        "WackamoleLoopLag",
        "WackamoleFlapping",
        "WackamoleNotSettled",
    )  # a slow machine may be late, and the start is new

    # every metric is there, and the table, the targets and the kernels say the same
    names = set(prometheus.get("label/__name__/values"))
    ends = {Kind.HISTOGRAM: "_count"}
    assert {m.served_as + ends.get(m.kind, "") for m in (UP, *CATALOGUE)} <= names
    for metric in ("held", "target", "in_kernel"):
        lab.until(
            lambda m=metric: prometheus.value(f"count(sum by (vip) (wackamole_vip_{m}) == 1)") == vips,  # type: ignore[misc]
            within_s=60,
            story=f"each VIP is {metric} once",
        )
    lab.until(lambda: prometheus.value("sum(wackamole_check_passing)") == 3, within_s=60, story="the checks pass")
    rules = prometheus.get("rules")["groups"][0]["rules"]
    assert {r["name"] for r in rules} == set(alerts())
    lab.until(
        lambda: all(r["health"] == "ok" for r in prometheus.get("rules")["groups"][0]["rules"]),
        within_s=60,
        story="all rules were evaluated without an error",
    )
    lab.until(lambda: not [a for a, _ in prometheus.alerts() if a not in calm], within_s=120, story="nothing is wrong")

    # a host is lost
    mine = 2
    lab.until(lambda: len(lab.kernel("c")) == mine, within_s=180, story="c has its share, at last by balance")
    before = prometheus.value('sum(wackamole_takeover_seconds_count{after="loss"})')
    lab.crash("c")
    lab.until(lambda: ("WackamoleMemberMissing", "c") in prometheus.alerts(), within_s=60, story="it is missed")
    lab.until(
        lambda: (
            prometheus.value('sum(wackamole_takeover_seconds_count{after="loss",node!="c"})') == (before or 0) + mine
        ),
        within_s=60,
        story="the others took its VIPs over, and say how long that took",
    )
    lab.until(
        lambda: prometheus.value('sum(wackamole_moves_total{node!="c",cause="host_lost"})') == mine,
        within_s=60,
        story="and why",
    )
    lab.until(
        lambda: (
            {
                a["state"]
                for (name, about), a in prometheus.alerts().items()
                if (name, about)
                in {("WackamoleMemberMissing", "c"), ("WackamoleMetricsUnreachable", "10.77.0.13:8421")}
            }
            == {"firing"}
        ),
        within_s=180,
        story="somebody is called",
    )
    words = prometheus.alerts()["WackamoleMemberMissing", "c"]["annotations"]
    assert words["summary"] == f"c is missing in the cluster {lab.layout.name}"

    # the dashboard: every query has an answer
    lab.ask("a", "move", {"vips": [lab.layout.vips[0][0]], "node": "b"})
    lab.ask("a", "move", {"vips": [lab.layout.vips[0][0]], "node": "a"})
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$cluster", lab.layout.name).replace("$__rate_interval", "5m")

            def has_values(expression: str = expression) -> bool:
                return any(s["value"][1] != "NaN" for s in prometheus.query(expression))

            lab.until(has_values, within_s=60, story=f"{panel['title']}: {expression}")

    # it comes back; somebody configures a VIP by hand on another node
    lab.start("c")
    lab.until_settled()
    serve(lab, "c")
    lab.until(
        lambda: not {"WackamoleMemberMissing", "WackamoleMetricsUnreachable"} & {n for n, _ in prometheus.alerts()},
        within_s=120,
        story="it is missed no more",
    )
    name, address = lab.layout.vips[0]
    other = next(n for n in lab.layout.nodes if lab.holders(address) == {"a"} and n != "a")
    ip(f"address add {address}/32 dev eth0", namespace=lab.layout.namespace(other))
    wrong = {("WackamoleVipTwoOwners", name), ("WackamoleKernelDiffers", name)}
    lab.until(lambda: wrong <= set(prometheus.alerts()), within_s=60, story="two have it, and one should not")
    ip(f"address delete {address}/32 dev eth0", namespace=lab.layout.namespace(other))
    lab.until(lambda: not wrong & set(prometheus.alerts()), within_s=60, story="it is gone")

    # a daemon hangs
    lab.freeze("b", "daemon")
    down = ("WackamoleDaemonDown", "10.77.0.12:8421")
    lab.until(
        lambda: down in prometheus.alerts() or ("WackamoleMetricsUnreachable", down[1]) in prometheus.alerts(),
        within_s=60,
        story="a daemon that hangs is told",
    )
    lab.thaw("b", "daemon")
    lab.until_settled()

    # one is stopped: what is left of it says so
    lab.stop("b")
    lab.until(lambda: down in prometheus.alerts(), within_s=60, story="a daemon that is gone is told")
    for (alert, about), found in prometheus.alerts().items():
        for said in found["annotations"].values():
            assert not re.search(r"<no value>|<error", said), (alert, about, said)
