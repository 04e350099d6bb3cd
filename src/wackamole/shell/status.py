"""What `status` says: the agreed table and the kernel's truth, side by side, as plain data."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.agreed import agreement, facts_of, representative
from ..core.electorate import grown
from ..core.model import NodeId, NotEligible, Phase, Report, Row, VipKey
from ..core.placement import Placement
from ..core.standing import Order
from ..core.state import State


def name_of(reports: Mapping[NodeId, Report], node: NodeId | None) -> str | None:
    """A node's name, or its engine number where its name is not known yet."""
    if node is None:
        return None
    report = reports.get(node)
    return report.name if report else f"#{node}"


def status_of(
    state: State,
    *,
    cluster: str,
    version: str,
    since: Mapping[VipKey, float],
    kernel: tuple[VipKey, ...],
    duplicates: Mapping[VipKey, list[dict[str, object]]],
    witness: Mapping[VipKey, dict[str, object]],
    engine: Mapping[str, str],
    fence: Mapping[str, object],
    warnings: tuple[str, ...],
) -> dict[str, object]:
    """The whole answer of the verb `status`. `since`: wall clock of each VIP's last change of holder, seconds. `duplicates`:
    who else claimed a VIP that was held here. `witness`: what another member heard when it asked for it."""
    reports = {r.node: r for r in state.table.reports}
    facts = facts_of(state)
    rows = state.table.rows
    mine = reports.get(state.me)
    digest = mine.config_digest if mine else state.settings.config_digest
    known = {v.key for v in state.settings.vips}
    members = []
    for node in state.view.members if state.view else ():
        report = reports.get(node)
        members.append(_member(node, report, rows, facts, digest))
    shown = {row.key for row in rows}
    listed = sorted(rows, key=lambda r: r.key)
    listed += [Row(vip.key, vip) for vip in state.settings.vips if vip.key not in shown]
    vips = [
        {
            **_vip(row, reports, facts, since, kernel, state),
            "duplicates": duplicates.get(row.key, []),
            "witness": witness.get(row.key),
        }
        for row in listed
    ]
    notes = list(warnings)
    if not agreement(reports.values()):
        differ = sorted(r.name for r in reports.values() if r.config_digest != digest)
        notes.append(f"the config of {', '.join(differ)} differs from this node's")
    old = sorted(r.name for r in reports.values() if not r.keeps_orders)
    if old and any(o.in_force for o in state.table.orders):
        notes.append(f"operators' orders do not count: {', '.join(old)} runs a version that keeps none")
    notes += [
        f"{row.key.split('#')[0]} is held by a definition that this node's config does not have"
        for row in rows
        if row.holder is not None and row.key not in known
    ]
    return {
        "cluster": cluster,
        "node": state.settings.node,
        "version": version,
        "phase": state.phase.value,
        "view": {
            "id": str(state.view.id) if state.view else None,
            "representative": name_of(reports, representative(state)),
            "members": members,
        },
        "vips": vips,
        "orders": [order_of(o) for o in state.table.orders if o.in_force],
        "absent": sorted(set(state.settings.nodes) - {r.name for r in reports.values()}),
        "fence": dict(fence),
        "engine": dict(engine),
        "warnings": notes,
    }


def order_of(order: Order) -> dict[str, object]:
    """An order of an operator, as plain data. `until`: seconds since 1970, or null."""
    return {
        "kind": order.kind.value,
        "subject": order.subject,
        "node": order.node or None,
        "by": order.by,
        "reason": order.reason,
        "until": order.until_s or None,
        "version": order.version,
    }


def _member(
    node: NodeId, report: Report | None, rows: tuple[Row, ...], facts: Placement, digest: str
) -> dict[str, object]:
    evicted = node not in facts.reports and report is not None
    reasons = ["its state has not arrived yet"]
    if report:  # what a VIP's own `nodes` say is no trouble of the member's
        reasons = sorted({why.value for _, why in report.ineligible if why is not NotEligible.NOT_LISTED})
    return {
        "id": node,
        "name": report.name if report else f"#{node}",
        "weight": report.weight if report else 0,
        "capacity": report.capacity if report else None,
        "load": report.load / 100 if report and report.load is not None else None,
        "eligible": report is not None and not reasons and not report.draining and not evicted,
        "reasons": reasons,
        "drain": bool(report and report.draining),
        "leaving": bool(report and report.leaving),
        "mature": bool(report and report.mature),
        "config_agrees": bool(report and report.config_digest == digest),
        "version": report.version if report else "",
        "vips": sum(1 for row in rows if row.holder == node),
    }


def _vip(
    row: Row,
    reports: Mapping[NodeId, Report],
    facts: Placement,
    since: Mapping[VipKey, float],
    kernel: tuple[VipKey, ...],
    state: State,
) -> dict[str, object]:
    note = ""
    if row.releasing:
        note = "being let go of by " + ", ".join(name_of(reports, n) or "?" for n, _ in row.releasing)
    elif row.holder is None and state.phase is Phase.SETTLED:
        full = {n for n in facts.reports if row.key in facts.rows and facts.full(n, row.key)}
        reasons = {
            r.name: facts.why_not(n, row.key) or (NotEligible.FULL if n in full else None)
            for n, r in facts.reports.items()
        }
        said = [f"{name}: {why.value}" for name, why in reasons.items() if why is not None]
        immature = not grown(reports.values())
        note = "; ".join(said) if said else ("the cluster has not matured yet" if immature else "")
    return {
        "name": row.vip.name,
        "key": row.key,
        "addresses": [str(a) for a in row.vip.addresses],
        "holder": name_of(reports, row.holder),
        "target": name_of(reports, row.target),
        "generation": row.generation,
        "moving": row.holder != row.target or bool(row.releasing),
        "pinned_by_operator": row.sticky,
        "since": since.get(row.key),
        "cause": row.cause.value,
        "here": row.key in kernel,
        "note": note,
    }
