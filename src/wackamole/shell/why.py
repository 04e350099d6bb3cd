"""What `why VIP` says: placement's own steps for one VIP, as plain data."""

from __future__ import annotations

from dataclasses import replace

from ..core.agreed import agreement, facts_of, representative
from ..core.balancing import Balance
from ..core.electorate import grown
from ..core.model import NodeId, NotEligible, Row, VipKey
from ..core.placement import Placement
from ..core.state import State
from ..core.voice import moves_for_load, steady
from .status import name_of, order_of


def why_of(state: State, key: VipKey, *, since: float | None, now_ms: int) -> dict[str, object]:
    """Why a VIP of the table is where it is, who would get it if it were free now, and what balance makes of it."""
    row = next(row for row in state.table.rows if row.key == key)
    facts = facts_of(state)
    names = {n: r.name for n, r in facts.reports.items()}
    reports = {r.node: r for r in state.table.reports}
    orphan = [replace(r, holder=None, target=None) if r is row else r for r in state.table.rows]
    free = facts_of(replace(state, table=replace(state.table, rows=tuple(orphan))))
    candidates, quotas = free.candidates(key), free.quotas()
    choice = free.choose(key, quotas)
    preferred = facts.prefer.get(key, ())
    shares = facts.shares()
    return {
        "name": row.vip.name,
        "key": key,
        "addresses": [str(a) for a in row.vip.addresses],
        "holder": name_of(reports, row.holder),
        "target": name_of(reports, row.target),
        "releasing": [name_of(reports, n) for n, _ in row.releasing],
        "pinned_by_operator": row.sticky,
        "orders": [order_of(o) for o in state.table.orders if o.in_force and o.subject == row.vip.name],
        "since": since,
        "cause": row.cause.value,
        "by": state.settings.shares.by.value,
        "count": state.settings.count.value,
        "prefer": list(preferred),
        "avoid": list(facts.avoid.get(key, ())),
        "apart": facts.apart.get(key),
        "mature": grown(reports.values()),
        "placed_by": "every member alike" if agreement(reports.values()) else name_of(reports, representative(state)),
        "members": [
            {
                "name": r.name,
                "why_not": _why_not(free, n, key, candidates),
                "candidate": n in candidates,
                "weight": r.weight,
                "load": r.load / 100 if r.load is not None else None,
                "share": shares[n],
                "quota": facts.quotas().get(n, 0),
                "held": facts.held[n],
                "capacity": r.capacity,
                "avoided": r.name in facts.avoid.get(key, ()),
                "of_group": facts.of_group(key, n),
            }
            for n, r in facts.reports.items()
        ],
        "choice": names[choice] if choice is not None else None,
        "steps": [
            {
                "scorer": step.scorer,
                "scores": {names[n]: score for n, score in step.scores},
                "left": [names[n] for n in step.left],
            }
            for step in free.steps(candidates, key, quotas)
        ],
        "balance": _balance(state, row, now_ms),
    }


def _why_not(facts: Placement, node: NodeId, key: VipKey, candidates: list[NodeId]) -> str | None:
    reason = facts.why_not(node, key)
    if (reason is None or not reason.forbids) and facts.full(node, key):
        return NotEligible.FULL.value
    if node in candidates:
        return reason.value if reason is not None else None
    if reason is not None and reason.forbids:
        return reason.value
    return "it is leaving" if facts.reports[node].leaving else "its weight is 0"


def _balance(state: State, row: Row, now_ms: int) -> dict[str, object]:
    """The next round, as the representative would make it now."""
    facts = facts_of(state)
    onto, for_load, most = steady(state, now_ms), moves_for_load(state, now_ms), state.settings.moves_per_round
    to = dict(Balance(facts_of(state), onto, most, for_load).moves).get(row.key)
    next_round = to is not None
    made = Balance(facts, onto, None, for_load)
    if to is None:
        to = dict(made.moves).get(row.key)
    stays = made.fixed(row)
    refused: dict[str, str] = {}
    if stays is None and to is None:
        stays = made.keeps(row)
        if stays is None:
            no = {r.name: made.refuses(row, n) for n, r in facts.reports.items()}
            refused = {name: reason.value for name, reason in no.items() if reason is not None}
    return {
        "moves_to": facts.reports[to].name if to is not None else None,
        "next_round": next_round,
        "off": most == 0,
        "stays": stays.value if stays is not None else None,
        "refused": refused,
    }
