"""`wackamole plan`: two supposed clusters, the one of now and the one of then, and where VIPs differ between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from .config import Config, settings_for
from .core.forecast import cluster, drained, forecast, report_of, supposed, without
from .core.model import Address, NodeId, NotEligible, Report, Row, Settings, ShareRule, Table, Vip
from .core.state import State


class PlanRefused(Exception):
    """A supposition that cannot be made; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Supposition:
    """What would be otherwise: hosts that are lost, nodes that are drained, weights, VIPs that are added, another config."""

    down: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    weights: tuple[tuple[str, int], ...] = ()
    added: tuple[Vip, ...] = ()
    config: Config | None = None
    rule: ShareRule | None = None  # of the config, if its shares follow an entry point


@dataclass(frozen=True, slots=True)
class Change:
    """One VIP that is elsewhere then. None: nobody has it."""

    vip: str
    source: str | None
    to: str | None
    cause: str


def vip_of(text: str) -> Vip:
    """`[NAME=]ADDRESS[/PREFIX]` as a VIP. Raises PlanRefused."""
    name, equals, address = text.rpartition("=")
    try:
        found = ip_interface(address)
    except ValueError:
        raise PlanRefused(f"{text!r} is no VIP: give [NAME=]ADDRESS[/PREFIX]") from None
    return Vip(name if equals else str(found.ip), (Address(str(found.ip), found.network.prefixlen),))


def weight_of(text: str) -> tuple[str, int]:
    """`NODE=WEIGHT`. Raises PlanRefused."""
    name, _, weight = text.rpartition("=")
    if not name or not weight.isdecimal() or int(weight) > 1000:
        raise PlanRefused(f"{text!r} is no weight: give NODE=WEIGHT, from 0 to 1000")
    return name, int(weight)


def cluster_of(config: Config, rule: ShareRule | None = None) -> State:
    """A cluster with this config, all of whose nodes are there, after it has given everything out."""
    members = [(NodeId(n.id), settings_for(config, n, rule)) for n in config.nodes]
    state = supposed(cluster(members), members[0][1], members[0][0])
    return replace(state, table=replace(state.table, rows=forecast(state)))


def running(table: Table, node: NodeId, config: Config, rule: ShareRule | None = None) -> State:
    """The cluster that runs, by the table of a member that has read this config."""
    name = next(r.name for r in table.reports if r.node == node)
    mine = next((n for n in config.nodes if n.name == name), config.nodes[0])
    return supposed(table, settings_for(config, mine, rule), node)


def plan(now: State, then: Supposition) -> list[Change]:
    """What would be elsewhere then; by the name of the VIP. Raises PlanRefused."""
    state = now
    if then.config is not None:
        state = _with_config(state, then.config, then.rule)
    if then.added:
        state = _with_vips(state, then.added)
    names = {r.name for r in state.table.reports}
    for name in (*then.down, *then.drain, *(name for name, _ in then.weights)):
        if name not in names:
            raise PlanRefused(f"{name} is not in the group (members: {', '.join(sorted(names))})")
    weights = dict(then.weights)
    reports = tuple(replace(r, weight=weights.get(r.name, r.weight)) for r in state.table.reports)
    state = replace(state, table=replace(state.table, reports=reports))
    state = drained(without(state, then.down), then.drain)
    if not state.table.reports:
        raise PlanRefused("nobody would be left")
    return differences(now.table.reports, now.table.rows, state.table.reports, forecast(state))


def differences(
    old: Iterable[Report], before: Iterable[Row], new: Iterable[Report], after: Iterable[Row]
) -> list[Change]:
    """VIPs whose holder differs, by name; a VIP that is defined anew is the same one."""
    names: Mapping[NodeId, str] = {r.node: r.name for r in (*old, *new)}
    was, now = ({r.vip.name: r for r in rows if r.holder is not None} for rows in (before, after))
    known = {r.vip.name for r in after}
    found = []
    for name in sorted({*was, *now}):
        source, to = (names[r.holder] if r and r.holder else None for r in (was.get(name), now.get(name)))
        if source != to:
            row = now.get(name) or next((r for r in after if r.vip.name == name), None)
            cause = row.cause.value if row is not None and name in known else "no config has it"
            found.append(Change(name, source, to, cause))
    return found


def _with_config(state: State, config: Config, rule: ShareRule | None) -> State:
    """All members have read it; nodes that it adds have come, and nodes that it does not have are gone."""
    configured = {n.name: n for n in config.nodes}
    kept = [r for r in state.table.reports if r.name in configured]
    gone = [r.name for r in state.table.reports if r.name not in configured]
    reports = [_reloaded(r, settings_for(config, configured[r.name], rule)) for r in kept]
    new = configured.keys() - {name for r in state.table.reports for name in (r.name, *r.nodes)}
    reports += [report_of(NodeId(n.id), settings_for(config, n, rule)) for n in config.nodes if n.name in new]
    state = without(state, gone)
    table = replace(state.table, reports=tuple(sorted(reports, key=lambda r: r.node)))
    if not reports:
        raise PlanRefused("none of the members is in that config")
    me = reports[0]
    return supposed(table, settings_for(config, configured[me.name], rule), me.node)


def _reloaded(report: Report, settings: Settings) -> Report:
    """What a member says when it has read another config: of its own, as before."""
    fresh = report_of(report.node, settings)
    known = frozenset(fresh.known)
    own = {k: why for k, why in report.ineligible if k in known and why is not NotEligible.NOT_LISTED}
    return replace(
        report,
        known=fresh.known,
        weight=fresh.weight,
        capacity=fresh.capacity,
        nodes=fresh.nodes,
        votes=fresh.votes,
        partition=fresh.partition,
        takeover=fresh.takeover,
        ineligible=tuple(sorted({**own, **dict(fresh.ineligible)}.items(), key=lambda kv: kv[0])),
        chosen=tuple(k for k in report.chosen if k in known),
    )


def _with_vips(state: State, added: tuple[Vip, ...]) -> State:
    taken = {a.ip: row.vip.name for row in state.table.rows for a in row.vip.addresses}
    names = {row.vip.name for row in state.table.rows}
    for vip in added:
        if vip.name in names or vip.addresses[0].ip in taken:
            raise PlanRefused(f"{vip.name} is there already")
    keys = {v.key for v in added}
    reports = tuple(replace(r, known=tuple(sorted({*r.known, *keys}))) for r in state.table.reports)
    avoid = dict(state.settings.avoid)
    spares = [n for n in state.settings.nodes if all(n in avoid.get(v.key, ()) for v in state.settings.vips)]
    if spares and state.settings.vips:
        avoid |= {key: tuple(spares) for key in keys}
    settings = replace(
        state.settings,
        vips=tuple(sorted((*state.settings.vips, *added), key=lambda v: v.key)),
        avoid=tuple(sorted(avoid.items())),
    )
    return replace(state, settings=settings, table=replace(state.table, reports=reports))
