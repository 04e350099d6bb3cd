"""What is served, and that its documents, alerts and dashboard speak of that and of nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from tests.watch.stage import STORIES, enlarged, recorded
from wackamole.core.model import Cause, NodeId
from wackamole.metrics.catalogue import ALWAYS, CATALOGUE, UP, Facts, Kind, Scrape
from wackamole.shell.counts import Counts

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging/prometheus/wackamole.rules.yml"
CASES = ROOT / "packaging/prometheus/wackamole.rules.test.yml"
DASHBOARD = ROOT / "packaging/grafana/wackamole.json"
PAGE = ROOT / "docs/metrics.md"
NAMES = {NodeId(1): "a", NodeId(2): "b", NodeId(3): "c"}
CHECKS = [
    {"name": "web", "state": "passing", "only_one": False},
    {"name": "mute", "state": "unknown", "only_one": False},
    {"name": "primary", "state": "failing", "only_one": True},
]


def told(story: str = "settled", counts: Counts | None = None) -> dict[str, Any]:
    """What a daemon says."""
    status, _ = recorded(story)
    hooks = [{"name": "h", "runs": 5, "failed": 2}]
    return {**status, "hooks": hooks, "checks": CHECKS, "counts": (counts or Counts("a")).describe(NAMES)}


def text(status: dict[str, Any] | None, kernel: frozenset[str] | None = frozenset()) -> str:
    registry = CollectorRegistry()
    registry.register(Scrape(Facts(status, kernel) if status is not None else None))
    return generate_latest(registry).decode()


def families(text: str) -> list[Metric]:
    """What a client reads."""
    return list(text_string_to_metric_families(text))


def served(status: dict[str, Any] | None, kernel: frozenset[str] | None = frozenset()) -> dict[str, dict[str, float]]:
    """By name, then by the values of the labels but those that are always there."""
    found: dict[str, dict[str, float]] = {}
    for family in families(text(status, kernel)):
        for sample in family.samples:
            labels = ",".join(v for k, v in sorted(sample.labels.items()) if k not in ALWAYS)
            place = found.setdefault(sample.name, {})
            assert labels not in place, f"{sample.name} {labels} is there twice"
            place[labels] = sample.value
    return found


@pytest.mark.parametrize("story", STORIES)
def test_every_metric_is_served(story: str) -> None:
    found = served(told(story))
    ends = {Kind.HISTOGRAM: "_count"}
    missing = [m.served_as for m in (UP, *CATALOGUE) if m.served_as + ends.get(m.kind, "") not in found]
    assert missing == []


def test_names_are_as_prometheus_wants_them() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"wackamole(_[a-z]+)+", metric.name)
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_ms"))
        assert metric.says.endswith(".")
    names = [m.name for m in CATALOGUE]
    assert len(set(names)) == len(names) > 30


def test_a_daemon_that_does_not_answer_is_down_and_nothing_else_is_known() -> None:
    assert served(None) == {"wackamole_up": {"": 0.0}}


def test_the_table_and_the_kernel_stand_side_by_side() -> None:
    status = told()
    mine = [v for v in status["vips"] if v["holder"] == "a"]
    other = next(v for v in status["vips"] if v["holder"] != "a")
    ips = {a.split("/")[0] for v in (*mine[1:], other) for a in v["addresses"]}
    found = served(status, frozenset(ips | {"192.0.2.1"}))
    assert {n for n, held in found["wackamole_vip_held"].items() if held} == {v["name"] for v in mine}
    assert {n for n, here in found["wackamole_vip_in_kernel"].items() if here} == {
        v["name"] for v in (*mine[1:], other)
    }
    assert set(found["wackamole_vip_served"].values()) == {1.0}
    assert "wackamole_vip_in_kernel" not in served(status, None)  # nothing is claimed of what cannot be read


def test_half_of_a_vip_is_not_in_the_kernel() -> None:
    status = told()
    status["vips"][0]["addresses"] = ["10.0.0.1/24 eth0", "fd00::1/64 eth1"]
    name = status["vips"][0]["name"]
    assert served(status, frozenset({"10.0.0.1"}))["wackamole_vip_in_kernel"][name] == 0
    assert served(status, frozenset({"10.0.0.1", "fd00::1"}))["wackamole_vip_in_kernel"][name] == 1


def test_two_vips_of_one_name_are_one_series() -> None:
    status = told()
    one = status["vips"][0]
    status["vips"].append({**one, "key": "other#1", "holder": None, "target": None})
    assert served(status)["wackamole_vip_served"][one["name"]] == 1.0


def test_names_that_are_strange_are_escaped() -> None:
    status = told()
    strange = 'a"b\\c\n# TYPE x counter'
    status["vips"][0]["name"] = strange
    assert strange in served(status)["wackamole_vip_held"]


def test_counts_become_counters_and_histograms() -> None:
    counts = Counts("a")
    for late in (0.0005, 0.03, 9.0):
        counts.woken(late)
    counts.recorded({"event": "moved", "to": "a", "cause": Cause.HOST_LOST.value})
    found = served(told(counts=counts))
    assert found["wackamole_moves_total"]["host_lost"] == 1
    assert found["wackamole_loop_lag_seconds_bucket"] | {"+Inf": 3} == found["wackamole_loop_lag_seconds_bucket"]
    assert [found["wackamole_loop_lag_seconds_bucket"][le] for le in ("0.001", "0.02", "0.05", "5")] == [1, 1, 2, 2]
    assert found["wackamole_loop_lag_seconds_count"][""] == 3
    assert set(found["wackamole_takeover_seconds_count"]) == {"loss", "decision"}
    assert found["wackamole_check_passing"] == {"web,no": 1.0, "primary,yes": 0.0}


def test_the_other_format_is_whole_too() -> None:
    registry = CollectorRegistry()
    registry.register(Scrape(Facts(told(), frozenset())))
    names = {f.name for f in openmetrics_families(openmetrics(registry).decode())}  # type: ignore[no-untyped-call]
    assert names == {m.name for m in (UP, *CATALOGUE)}


def test_the_number_of_series_is_bounded_by_the_config() -> None:
    """Per VIP seven, per member and node of the config eight, and what there is once."""

    def series(nodes: int, vips: int) -> int:
        status = enlarged(told(), nodes, vips)
        status["counts"] = Counts("node-1").describe({NodeId(i): f"node-{i}" for i in range(1, nodes + 1)})
        return sum(len(labels) for labels in served(status).values())

    once = series(3, 10)
    assert series(3, 1010) - once == 7 * 1000
    assert series(13, 10) - once == 8 * 10


# -- documents ----------------------------------------------------------------------------------------------------------------


def asked_for(expression: str) -> set[str]:
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bwackamole_\w+", expression)}


KNOWN = {m.served_as for m in (UP, *CATALOGUE)}


def alerts() -> dict[str, str]:
    """Every alert of the rules, whole."""
    return {part.split("\n")[0]: part for part in RULES.read_text().split("      - alert: ")[1:]}


def test_the_page_has_every_metric_as_it_is() -> None:
    rows = re.findall(r"^\| `(wackamole_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    wanted = [(m.served_as, m.kind.value, " ".join(f"`{x}`" for x in m.labels), m.says) for m in (UP, *CATALOGUE)]
    assert [(name, kind, labels.strip(), says) for name, kind, labels, says in rows] == wanted


def test_every_alert_has_its_words_a_known_metric_and_a_place_on_the_page() -> None:
    page = PAGE.read_text()
    assert len(alerts()) >= 15
    for name, whole in alerts().items():
        assert re.search(r"^ {8}labels: \{severity: (critical|warning)\}$", whole, re.MULTILINE), name
        assert re.search(r'^ {10}summary: "\S', whole, re.MULTILINE), name
        assert len(whole.partition("description: >-")[2].split()) > 15, f"{name} names no remedy"
        expression = whole.partition("expr:")[2].partition("labels:")[0]
        assert asked_for(expression) <= KNOWN, name
        assert f"| `{name}` |" in page, name


def test_every_alert_is_tested_both_ways() -> None:
    cases = re.findall(r"^  - name: (.*)$", CASES.read_text(), re.MULTILINE)
    assert sorted(cases) == sorted(f"{name} {way}" for name in alerts() for way in ("fires", "does not fire"))


def test_the_dashboard_asks_for_what_there_is() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [t["expr"] for p in panels for t in p["targets"]]
    assert len(queries) > 15
    assert all('{cluster="$cluster"' in query for query in queries)
    assert set().union(*map(asked_for, queries)) <= KNOWN
    assert len({p["id"] for p in panels}) == len(panels)
    taken = [(x, y) for p in panels for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
             for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])]  # fmt: skip
    assert len(set(taken)) == len(taken), "panels overlap"
    assert max(x for x, _ in taken) < 24
