"""The state while one event is handled: the table's parts as dicts, the effects so far, and what all parts of the core
do with them. The other modules of the core are functions of a Work."""

from __future__ import annotations

from dataclasses import replace

from . import placement as placing
from .agreed import digest_of
from .effects import Effect, Multicast, Record
from .messages import (
    Message,
)
from .model import (
    NodeId,
    Phase,
    Report,
    Row,
    Table,
    VipKey,
)
from .state import Said, State

RECENT_MAX = 64
"""Pairs of (applied, digest) kept to compare beats with: more than is ever in flight."""


class Work:
    """What handles one event."""

    def __init__(self, state: State, now_ms: int) -> None:
        self.before = state
        self.now_ms = now_ms
        self.s = state
        self.rows: dict[VipKey, Row] = {row.key: row for row in state.table.rows}
        self.reports: dict[NodeId, Report] = {r.node: r for r in state.table.reports}
        self.evicted: dict[NodeId, int] = dict(state.table.evicted)
        self.effects: list[Effect] = []
        self.table_changed = False
        self.applied_one = False

    def freeze_table(self) -> None:
        """Make the dicts the state's table."""
        if self.table_changed:
            table = Table(
                rows=tuple(self.rows[k] for k in sorted(self.rows)),
                reports=tuple(self.reports[n] for n in sorted(self.reports)),
                evicted=tuple(sorted(self.evicted.items())),
            )
            self.s = replace(self.s, table=table)

    def remember_digest(self) -> None:
        """Note the digest at this place of the order, to compare beats with."""
        if self.s.phase is not Phase.SETTLED:
            self.s = replace(self.s, recent=())
            return
        recent = self.s.recent
        if not self.table_changed and recent:
            digest = recent[-1][1]
        else:
            digest = digest_of(self.s.table)
        if not recent or recent[-1] != (self.s.applied, digest):
            recent = (*(pair for pair in recent if pair[0] != self.s.applied), (self.s.applied, digest))
            self.s = replace(self.s, recent=recent[-RECENT_MAX:])

    def put(self, row: Row) -> None:
        """Change a row."""
        self.rows[row.key] = row
        self.table_changed = True

    def put_report(self, report: Report) -> None:
        """Change a member's report."""
        self.reports[report.node] = report
        self.table_changed = True

    def record(self, what: str, *, vip: VipKey | None = None, node: NodeId | None = None, **fields: object) -> None:
        """Tell people."""
        self.effects.append(Record(what, tuple((k, str(v)) for k, v in fields.items()), vip, node))

    def name_of(self, node: NodeId | None) -> str:
        """A node as people know it."""
        if node is None:
            return "nobody"
        if node == self.s.me:
            return self.s.settings.node
        report = self.reports.get(node)
        return report.name if report else f"#{node}"

    def say(self, message: Message) -> None:
        """Multicast, unless the same was said in this view and may still be under way."""
        view = self.s.view
        if view is None:
            return
        overdue_ms = 3 * self.s.settings.beat_ms
        said = [x for x in self.s.said if x.message != message]
        for x in self.s.said:
            if x.message == message and self.now_ms - x.at_ms < overdue_ms:
                return
        said.append(Said(message, self.now_ms))
        self.s = replace(self.s, said=tuple(said[-64:]))
        self.effects.append(Multicast(view.id, message))

    def drop_group(self) -> None:
        """Forget everything that was agreed."""
        self.rows, self.reports, self.evicted = {}, {}, {}
        self.table_changed = True
        self.s = replace(
            self.s,
            phase=Phase.OFFLINE,
            view=None,
            component=1,
            exchange_round=0,
            statement=None,
            applied=0,
            recent=(),
            heard=(),
            said=(),
            member_since=(),
        )

    def placement(self) -> placing.Placement:
        """The facts for placement."""
        return placing.Placement(self.rows.values(), self.reports.values(), self.evicted, dict(self.s.settings.prefer))

    def first(self) -> NodeId | None:
        """The first member in good standing, as of now."""
        view = self.s.view
        return min((m for m in view.members if m not in self.evicted), default=None) if view else None
