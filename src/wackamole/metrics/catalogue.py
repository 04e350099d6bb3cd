"""Every metric that is served, in one table: its name, what it says, its labels, and where in the answer of `status` it is.

Pure: the daemon's answer and the kernel's addresses in, prometheus_client's families out. docs/metrics.md has the same table,
and a test that compares them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ..core.model import Phase

Status = Mapping[str, Any]
Value = tuple[tuple[str, ...], float]
"""The values of the labels, and the value."""
Duration = tuple[tuple[str, ...], Mapping[str, Any]]
"""The values of the labels, and the histogram as `shell/counts.py` describes it."""
ALWAYS = ("cluster", "node")
"""Labels of everything that the daemon says."""


class Kind(Enum):
    """Of a metric, as Prometheus has them."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Facts:
    """What one scrape knows. `kernel`: the addresses on this host's interfaces, as text; None: they cannot be read."""

    status: Status
    kernel: AbstractSet[str] | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `read` finds its values. Counters are named without their `_total` here, which the format adds."""

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...]
    read: Callable[[Facts], Iterable[Value] | Iterable[Duration]]

    @property
    def served_as(self) -> str:
        """The name that a query uses."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


def one(value: Callable[[Status], Any]) -> Callable[[Facts], Iterator[Value]]:
    """A single value."""

    def read(facts: Facts) -> Iterator[Value]:
        found = value(facts.status)
        if found is not None:
            yield (), float(found)

    return read


def per_vip(value: Callable[[Status, Mapping[str, Any]], Any]) -> Callable[[Facts], Iterator[Value]]:
    """One for each VIP. Of two VIPs of one name, which members with different configs may have, the larger."""

    def read(facts: Facts) -> Iterator[Value]:
        found: dict[str, list[float]] = defaultdict(list)
        for vip in facts.status["vips"]:
            if (said := value(facts.status, vip)) is not None:
                found[vip["name"]].append(float(said))
        return (((name,), max(values)) for name, values in found.items())

    return read


def per_member(value: Callable[[Mapping[str, Any]], Any]) -> Callable[[Facts], Iterator[Value]]:
    """One for each member of the view whose name is known."""

    def read(facts: Facts) -> Iterator[Value]:
        members = {m["name"]: m for m in facts.status["view"]["members"] if not m["name"].startswith("#")}
        return (((name,), float(value(m))) for name, m in members.items())

    return read


def counted(key: str) -> Callable[[Facts], Iterator[Value]]:
    """One of the daemon's counts that is told by something."""
    return lambda facts: (((label,), float(n)) for label, n in facts.status["counts"][key].items())


def _in_kernel(facts: Facts) -> Iterator[Value]:
    here = facts.kernel
    if here is None:
        return iter(())
    return per_vip(lambda _, vip: all(a.partition("/")[0] in here for a in _ips(vip)))(facts)


def _ips(vip: Mapping[str, Any]) -> list[str]:
    return [str(a).split()[0] for a in vip["addresses"]]


def _present(facts: Facts) -> Iterator[Value]:
    status = facts.status
    yield from (((m["name"],), 1.0) for m in status["view"]["members"] if not m["name"].startswith("#"))
    yield from (((name,), 0.0) for name in status["absent"])


def _takeovers(facts: Facts) -> Iterator[Duration]:
    return (((after,), h) for after, h in facts.status["counts"]["takeovers"].items())


def _fence(key: str, scale: float = 1.0) -> Callable[[Status], float | None]:
    return lambda s: s["fence"][key] * scale if key in s["fence"] else None


def _checks(facts: Facts) -> Iterator[Value]:
    for check in facts.status["checks"]:
        if check["state"] != "unknown":
            yield (check["name"], "yes" if check["only_one"] else "no"), float(check["state"] == "passing")


def _information(facts: Facts) -> Iterator[Value]:
    s = facts.status
    yield (str(s["version"]), str(s["engine"]["type"]), str(s["fence"]["mode"])), 1.0


G, C, H = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM
CATALOGUE = (
    Metric("wackamole_info", G, "Always 1; the labels say what runs.", ("version", "engine", "fence"), _information),
    Metric("wackamole_start_time_seconds", G, "When the daemon started, since 1970.", (),
           one(lambda s: s["process"]["started"])),
    Metric("wackamole_settled", G, "1 if the member is in the group and has settled with it.", (),
           one(lambda s: s["phase"] == Phase.SETTLED.value)),
    Metric("wackamole_config_agrees", G, "1 if all members have this node's config.", (),
           one(lambda s: all(m["config_agrees"] for m in s["view"]["members"]))),
    Metric("wackamole_attention", G, "Sentences under `attention` of `wackamole status`.", (),
           one(lambda s: len(s["warnings"]))),
    # the VIPs
    Metric("wackamole_vip_held", G, "1 if this node holds the VIP, by the agreed table.", ("vip",),
           per_vip(lambda s, v: v["holder"] == s["node"])),
    Metric("wackamole_vip_target", G, "1 if this node is to hold the VIP, by the agreed table.", ("vip",),
           per_vip(lambda s, v: v["target"] == s["node"])),
    Metric("wackamole_vip_in_kernel", G, "1 if all the VIP's addresses are on this host's interfaces at this moment.",
           ("vip",), _in_kernel),
    Metric("wackamole_vip_served", G, "1 if some member holds the VIP, by the agreed table.", ("vip",),
           per_vip(lambda _, v: v["holder"] is not None)),
    Metric("wackamole_vip_moving", G, "1 while the VIP is on its way.", ("vip",), per_vip(lambda _, v: v["moving"])),
    Metric("wackamole_vip_changed_timestamp_seconds", G, "When the VIP's holder changed last, as far as is known here.",
           ("vip",), per_vip(lambda _, v: v["since"])),
    Metric("wackamole_vip_duplicate_claims", C, "How often another host claimed the VIP while it was held here.", ("vip",),
           per_vip(lambda _, v: sum(d["count"] for d in v["duplicates"]))),
    # the members
    Metric("wackamole_member_present", G, "1 if this node of the config is a member of the view.", ("member",), _present),
    Metric("wackamole_member_eligible", G, "1 if the member may hold every VIP.", ("member",),
           per_member(lambda m: m["eligible"])),
    Metric("wackamole_member_drained", G, "1 if the member is being drained.", ("member",), per_member(lambda m: m["drain"])),
    Metric("wackamole_member_config_agrees", G, "1 if the member has this node's config.", ("member",),
           per_member(lambda m: m["config_agrees"])),
    Metric("wackamole_member_vips", G, "How many VIPs the member holds.", ("member",), per_member(lambda m: m["vips"])),
    # what happened
    Metric("wackamole_views", C, "Changes of the membership.", (), one(lambda s: s["counts"]["views"])),
    Metric("wackamole_moves", C, "VIPs that came to this node, by cause.", ("cause",), counted("moves")),
    Metric("wackamole_takeover_seconds", H,
           "Until a VIP was announced here, from the loss of its holder, or else from the group's decision.", ("after",),
           _takeovers),
    Metric("wackamole_evictions", C, "How often the group put a member out for its silence.", ("member",),
           counted("evictions")),
    Metric("wackamole_rejoins", C, "How often this node left the group to come back as a newcomer.", (),
           one(lambda s: s["counts"]["rejoins"])),
    Metric("wackamole_warnings", C, "Entries of the journal that warn, by their first word.", ("event",),
           counted("warnings")),
    # the pulse
    Metric("wackamole_beats_sent", C, "Beats that were given to the engine.", (), one(lambda s: s["counts"]["beats_sent"])),
    Metric("wackamole_beats_received", C, "Beats that were delivered, this node's own too.", ("member",),
           counted("beats_received")),
    Metric("wackamole_beats_missed", C, "Beats that were lost or came too late, here or there.", ("member",),
           counted("beats_missed")),
    Metric("wackamole_loop_lag_seconds", H, "How much later than it was due the daemon's loop woke up.", (),
           lambda facts: [((), facts.status["counts"]["lag"])]),
    Metric("wackamole_loop_lag_max_seconds", G, "The longest of these since the daemon started.", (),
           one(lambda s: s["counts"]["lag"]["max"])),
    # the fence and the kernel
    Metric("wackamole_fence_open", G, "1 while VIPs that are held here pass.", (), one(lambda s: s["fence"]["state"] == "open")),
    Metric("wackamole_fence_proven", G, "1 if the daemon's death is known to silence its VIPs at once.", (),
           one(_fence("proven"))),
    Metric("wackamole_fence_lease_seconds", G, "How long VIPs pass after the last good beat.", (),
           one(_fence("lease_ms", 0.001))),
    Metric("wackamole_fence_lease_left_seconds", G, "How much of that is left.", (), one(_fence("left_ms", 0.001))),
    Metric("wackamole_fence_repairs", C, "How often the fence had to be put back.", (), one(_fence("repairs"))),
    Metric("wackamole_guard_alive", G, "1 while the process is there that cleans up after the daemon.", (),
           one(lambda s: s["fence"]["guard"] == "alive")),
    Metric("wackamole_addresses_put_back", C, "Addresses that somebody removed and the daemon put back.", (),
           one(_fence("put_back"))),
    # the engine
    Metric("wackamole_engine_connected", G, "1 if the daemon is joined to its engine.", (),
           one(lambda s: s["engine"].get("state", "joined") == "joined")),
    Metric("wackamole_engine_reconnects", C, "How often it had to connect anew.", (),
           one(lambda s: s["engine"].get("reconnects"))),
    # checks and hooks
    Metric("wackamole_check_passing", G, "1 if the health check passes, 0 if it fails; absent until it has said anything.",
           ("check", "only_one"), _checks),
    Metric("wackamole_hook_runs", C, "How often the hook was called.", ("hook",),
           lambda f: [((h["name"],), float(h["runs"])) for h in f.status["hooks"]]),
    Metric("wackamole_hook_failures", C, "How often it failed.", ("hook",),
           lambda f: [((h["name"],), float(h["failed"])) for h in f.status["hooks"]]),
)  # fmt: skip
UP = Metric("wackamole_up", G, "1 if the daemon answers.", (), lambda _: ())
"""Without labels: of a daemon that does not answer nothing else is known."""

Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily


def families(facts: Facts | None) -> Iterator[Family]:
    """What is served; None: the daemon does not answer."""
    yield GaugeMetricFamily(UP.name, UP.says, value=float(facts is not None))
    for metric in CATALOGUE if facts is not None else ():
        assert facts is not None
        yield _family(metric, (facts.status["cluster"], facts.status["node"]), metric.read(facts))


def _family(metric: Metric, always: tuple[str, ...], values: Iterable[Any]) -> Family:
    labels = (*ALWAYS, *metric.labels)
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.says, labels=labels)
        for own, found in values:
            sums = list(accumulate(found["counts"]))
            bounds = [*(f"{bound:g}" for bound in found["bounds"]), "+Inf"]
            histogram.add_metric((*always, *own), list(zip(bounds, sums, strict=True)), found["sum"])
        return histogram
    family = (CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily)(
        metric.name, metric.says, labels=labels
    )
    for own, value in values:
        family.add_metric((*always, *own), value)
    return family


class Scrape(Collector):
    """One scrape, as prometheus_client's exposition wants it."""

    def __init__(self, facts: Facts | None) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Family]:
        """What is served."""
        return families(self._facts)
