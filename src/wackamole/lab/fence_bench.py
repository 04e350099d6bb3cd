"""What is measured of the fence: for each kind of trouble, how long two hosts answered for one VIP and how long the worst
VIP was silent (docs/benchmarks.md; `script/bench --only fence`).

Two owners of a VIP are questions of the observer that two hosts answered, times the interval. What a split with carriers
up does before it heals is not counted: each side serves, that is what `cover` means."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..config import Config, parse
from .lab import SWITCH, Lab
from .namespaces import ip
from .probe import Seen

PROBE_MS = 5.0
FROZEN_SECONDS, HOST_FROZEN_SECONDS = 15.0, 10.0
VICTIM, REST = "b", ("a", "c")


@dataclass
class Row:
    """One kind of trouble under one policy; milliseconds. A limit of None is only told."""

    what: str
    two_owners_max: float
    outage_max: float | None
    two_owners: list[float] = field(default_factory=list)
    outage: list[float] = field(default_factory=list)


@dataclass
class Happened:
    """When (monotonic) from which on two owners count, and what was seen."""

    since: float = 0.0


Trouble = Callable[[Lab], Happened]


def look_on(seconds: float) -> None:
    """Let it go on for so long, under observation: what is to be shown is that nothing happens."""
    time.sleep(seconds)


def taken_over(lab: Lab) -> None:
    """Wait until the others have everything."""
    lab.until_settled(REST)


def kill(lab: Lab) -> Happened:
    """kill -9 of the daemon."""
    lab.kill_daemon(VICTIM)
    taken_over(lab)
    look_on(2)
    return Happened()


def kill_and_flush(lab: Lab) -> Happened:
    """kill -9, and later a firewall's reload removes the orphaned gate."""
    lab.kill_daemon(VICTIM)
    look_on(10)
    lab.flush_rules(VICTIM)
    look_on(1)
    return Happened()


def freeze(what: str, seconds: float) -> Trouble:
    """SIGSTOP, later SIGCONT."""

    def trouble(lab: Lab) -> Happened:
        lab.freeze(VICTIM, what)
        look_on(seconds)
        lab.thaw(VICTIM, what)
        look_on(2)
        lab.until_settled()
        return Happened()

    return trouble


def wake(lab: Lab) -> Happened:
    """A whole host goes on that was frozen: what counts is what comes after that."""
    lab.freeze(VICTIM)
    look_on(HOST_FROZEN_SECONDS)
    woken = lab.thaw(VICTIM)
    look_on(2)
    lab.until_settled()
    return Happened(woken)


def kill_corosync(lab: Lab) -> Happened:
    """kill -9 of Corosync."""
    lab.kill_corosync(VICTIM)
    look_on(2)
    lab.until_settled()
    return Happened()


def cable(lab: Lab) -> Happened:
    """The cable is pulled, and plugged in again."""
    lab.cut(VICTIM)
    look_on(3)
    lab.plug(VICTIM)
    look_on(4)
    lab.until_settled()
    return Happened()


def split(lab: Lab) -> Happened:
    """A partition with carriers up, and its end."""
    lab.partition([VICTIM], REST)
    look_on(4)
    healed = lab.heal()
    look_on(4)
    lab.until_settled()
    return Happened(healed)


def flush(lab: Lab) -> Happened:
    """A firewall's reload on a healthy owner."""
    lab.flush_rules(VICTIM)
    look_on(2)
    return Happened()


def restart(lab: Lab) -> Happened:
    """The daemon's process is replaced."""
    before = lab.kernel(VICTIM)
    lab.ask(VICTIM, "restart", {"within_ms": 5000})
    lab.until(lambda: _restarts(lab) > 0, within_s=20, story="the successor is there")
    lab.until_settled()
    assert lab.kernel(VICTIM) == before
    return Happened()


def address_deleted(lab: Lab) -> Happened:
    """Somebody deletes an owner's addresses."""
    here = lab.layout.namespace(VICTIM)
    ip(*[f"addr del {a}/{128 if ':' in a else 32} dev eth0" for a in sorted(lab.kernel(VICTIM))], namespace=here)
    look_on(1)
    lab.until_settled()
    return Happened()


def interface_dies(lab: Lab) -> Happened:
    """The VIPs' network is cut from a host whose ring goes on over another; later it is there again."""
    ip(f"link set {VICTIM}.0 down", namespace=lab.layout.namespace(SWITCH))
    lab.until(
        lambda: all(lab.holders(a) & set(REST) for _, a in lab.layout.vips), within_s=20, story="others have them"
    )
    look_on(1)
    ip(f"link set {VICTIM}.0 up", namespace=lab.layout.namespace(SWITCH))
    look_on(4)
    lab.until_settled()
    return Happened()


def _restarts(lab: Lab) -> int:
    status = lab.status(VICTIM)
    return int(status["process"]["restarts"]) if status is not None else 0


def plan(config: Config, policy: str) -> list[tuple[Row, Trouble]]:
    """The rows for one policy: "" for the defaults, "strict" or "majority"."""
    detection, fence = config.engine.detection_ms, config.fence
    disconnected = float(fence.lease_ms + fence.beat_age_max_ms - detection)
    evicted = config.engine.evict_after_ms + 60.0
    strict = bool(policy)
    lost = detection + 80.0 if not strict else fence.lease_ms + 80.0
    name = f" ({policy})" if policy else ""
    allowed = 0.0 if strict else disconnected
    rows: list[tuple[Row, Trouble]] = [
        (Row(f"daemon kill -9{name}", 0, 80), kill),
        (Row(f"daemon SIGSTOP for 15 s, then SIGCONT{name}", 0, evicted), freeze("daemon", FROZEN_SECONDS)),
        (Row(f"Corosync kill -9{name}", 0, lost), kill_corosync),
        (Row(f"Corosync SIGSTOP for 10 s, then SIGCONT{name}", allowed, lost), freeze("corosync", HOST_FROZEN_SECONDS)),
        (
            Row(f"all processes SIGSTOP for 10 s, then SIGCONT{name}", allowed, lost),
            freeze("all", HOST_FROZEN_SECONDS),
        ),
        (Row(f"… and after waking{name}", 20.0 if not strict else 0.0, None), wake),
        (Row(f"cable pulled, plugged in again{name}", 0, detection + 60.0 if not strict else lost), cable),
    ]
    if not strict:
        rows += [
            (Row("kill -9, and 10 s later `nft flush ruleset` there", 0, 80), kill_and_flush),
            (Row("split with carrier up, `cover`: after the heal", 150, 60), split),
            (Row("`nft flush ruleset` on the owner", 0, 0), flush),
            (Row("planned restart of the daemon", 0, 0), restart),
            (Row("an owner's addresses deleted by somebody", 0, 100), address_deleted),
        ]
    return rows


def plan_of_two_networks() -> list[tuple[Row, Trouble]]:
    """The rows for a ring with a second network."""
    return [(Row("two networks: the VIPs' interface dies, and comes back", 0, 100), interface_dies)]


def measure(
    lab: Lab,
    rows: list[tuple[Row, Trouble]],
    rounds: int,
    *,
    watching: Callable[..., object],
    even: Callable[[Lab], bool],
) -> None:
    """Go through all rows, so many times; between two of them everything is well again."""
    for _ in range(rounds):
        for row, trouble in rows:
            lab.until(lambda: even(lab), within_s=60, story="the load is balanced")
            with watching(lab, interval_ms=PROBE_MS) as found:  # type: ignore[attr-defined]
                happened = trouble(lab)
            seen: Seen = found[0]
            row.two_owners.append(seen.two_owners_s(happened.since) * 1000)
            row.outage.append(seen.worst(happened.since) * 1000)
            if lab._daemon(VICTIM) is None:
                lab.start(VICTIM)


def config_of(lab: Lab) -> Config:
    """The lab's config."""
    return parse(lab.layout.config)


def table(rows: list[Row]) -> str:
    """The rows as Markdown: medians of the outages, the worst of what must not be."""
    import statistics

    def told(values: list[float], limit: float | None, *, worst: bool) -> str:
        value = max(values) if worst else statistics.median(values)
        spread = "" if worst else f" ({min(values):.0f} – {max(values):.0f})"
        at_most = "" if limit is None else f" ≤ {limit:.0f}"
        missed = "" if limit is None or value <= limit else " **missed**"
        return f"{value:.0f} ms{spread} | {at_most}{missed}"

    head = [
        "| | two owners, worst | at most | outage of the worst VIP, median (spread) | at most | n |",
        "|---|---|---|---|---|---|",
    ]
    lines = [
        f"| {r.what} | {told(r.two_owners, r.two_owners_max, worst=True)} |"
        f" {told(r.outage, r.outage_max, worst=False)} | {len(r.outage)} |"
        for r in rows
        if r.outage
    ]
    return "\n".join([*head, *lines])


def kept(row: Row) -> bool:
    """Whether both limits were kept: two owners by the worst value, the outage by its median."""
    import statistics

    outage_ok = row.outage_max is None or statistics.median(row.outage) <= row.outage_max
    return max(row.two_owners) <= row.two_owners_max and outage_ok
