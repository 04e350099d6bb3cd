"""The state while one event is handled: the table's parts as dicts, the effects so far, and what all parts of the core
do with them. The other modules of the core are functions of a Work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from . import placement as placing
from .agreed import digest_of, facts
from .effects import Effect, Multicast, Record, ShutFence
from .messages import (
    Message,
)
from .model import (
    MEMBERS_MAX,
    ROW_ADDRESSES_MAX,
    ROWS_MAX,
    NodeId,
    Phase,
    Report,
    Row,
    Table,
    Vip,
    VipKey,
)
from .standing import Register
from .state import Said, State, changed

RECENT_MAX = 64
"""Pairs of (applied, digest) kept to compare beats with: more than is ever in flight."""


SAID_MAX = 64
"""Messages of a member that are under way at once."""


class Work:
    """What handles one event."""

    def __init__(self, state: State, now_ms: int) -> None:
        self.before = state
        self.now_ms = now_ms
        self.s = state
        self._rows: dict[VipKey, Row] | None = None
        self.reports: dict[NodeId, Report] = {r.node: r for r in state.table.reports}
        self.evicted: dict[NodeId, int] = dict(state.table.evicted)
        self.lapsing: dict[NodeId, tuple[int, int]] = {n: (i, ms) for n, i, ms in state.table.lapsing}
        self.orders: Register = state.table.orders
        self.effects: list[Effect] = []
        self.table_changed = False
        self.applied_one = False

    @property
    def rows(self) -> dict[VipKey, Row]:
        """The table's rows; made when first asked for, since a beat does not."""
        if self._rows is None:
            self._rows = {row.key: row for row in self.before.table.rows}
        return self._rows

    @rows.setter
    def rows(self, rows: dict[VipKey, Row]) -> None:
        self._rows = rows

    def row(self, key: VipKey) -> Row | None:
        """One row. For a single one no index of thousands is made."""
        if self._rows is not None:
            return self._rows.get(key)
        rows = self.before.table.rows
        low, high = 0, len(rows)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if rows[middle].key < key else (low, middle)
        return rows[low] if low < len(rows) and rows[low].key == key else None

    def freeze_table(self) -> None:
        """Make the dicts the state's table."""
        if self.table_changed:
            table = Table(
                rows=tuple(self.rows[k] for k in sorted(self.rows)),
                reports=tuple(self.reports[n] for n in sorted(self.reports)),
                evicted=tuple(sorted(self.evicted.items())),
                lapsing=tuple((n, i, ms) for n, (i, ms) in sorted(self.lapsing.items())),
                orders=self.orders,
            )
            self.s = changed(self.s, table=table)

    def remember_digest(self) -> None:
        """Note the digest at this place of the order, to compare beats with."""
        if self.s.phase is not Phase.SETTLED:
            self.s = changed(self.s, recent=())
            return
        recent = self.s.recent
        if not self.table_changed and recent:
            digest = recent[-1][1]
        else:
            digest = digest_of(self.s.table)
        if not recent or recent[-1] != (self.s.applied, digest):
            recent = (*(pair for pair in recent if pair[0] != self.s.applied), (self.s.applied, digest))
            self.s = changed(self.s, recent=recent[-RECENT_MAX:])

    def put(self, row: Row) -> None:
        """Change a row."""
        self.rows[row.key] = row
        self.table_changed = True

    def add_rows(self, vips: Iterable[Vip]) -> None:
        """Rows for those VIPs that the table does not have, in this order, as far as there is room: whatever members say,
        a table stays one that fits into a message."""
        rows = self.rows
        new = [vip for vip in vips if vip.key not in rows]
        addresses = sum([len(row.vip.addresses) for row in rows.values()]) if new else 0
        for vip in new:
            more = addresses + len(vip.addresses)
            if vip.key not in rows and len(rows) < ROWS_MAX and more <= ROW_ADDRESSES_MAX:
                self.put(Row(vip.key, vip))
                addresses = more

    def put_report(self, report: Report) -> None:
        """Change a member's report. Most members know the same VIPs: then one tuple does for all of these."""
        if report.known == self.s.settings.keys and report.known is not self.s.settings.keys:
            report = replace(report, known=self.s.settings.keys)
        self.reports[report.node] = report
        self.table_changed = True

    def put_orders(self, orders: Register) -> None:
        """Change the register of orders."""
        if orders != self.orders:
            self.orders = orders
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
        said = tuple(x for x in self.s.said if self.now_ms - x.at_ms < overdue_ms)
        if len(said) >= SAID_MAX or any(x.message == message for x in said):
            return  # it is derived again when some of these have come back
        self.s = changed(self.s, said=(*said, Said(message, self.now_ms)))
        self.effects.append(Multicast(view.id, message))

    def drop_group(self) -> None:
        """Forget everything that was agreed, but for orders."""
        self.rows, self.reports, self.evicted, self.lapsing = {}, {}, {}, {}
        self.table_changed = True
        if self.s.renewed_ms is not None:
            self.effects.append(ShutFence())
        self.s = changed(
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
            settled_table=None,
            may_serve=(),
            lapse_due=(),
            renewed_ms=None,
            gone=(),
            member_since=(),
            falling_back=None,
        )

    def fall_back(self, reason: str) -> None:
        """I may have been given up for gone: drop everything, and come back as a newcomer that has to be told what it holds.
        My going frees what I had: so without a proven fence I go when my kernel has confirmed that it has nothing."""
        self.drop_group()
        self.s = changed(self.s, mature=False, started_ms=self.now_ms, falling_back=reason)

    def expect_lapse(self, node: NodeId, incarnation: int, wait_ms: int) -> None:
        """A lost member may go on serving what it had for so long, counted from now at the latest."""
        if wait_ms <= 0 or (node not in self.lapsing and len(self.lapsing) >= MEMBERS_MAX):
            return
        _, known_ms = self.lapsing.get(node, (incarnation, 0))
        self.lapsing[node] = (incarnation, max(wait_ms, known_ms))
        self.table_changed = True
        due_ms = self.now_ms + wait_ms + wait_ms // 100  # the clocks of two hosts, at most a hundredth apart
        kept = [x for x in self.s.lapse_due if x[0] != node]
        due_ms = max([due_ms, *(at for n, _, at in self.s.lapse_due if n == node)])
        self.s = changed(self.s, lapse_due=tuple(sorted([*kept, (node, incarnation, due_ms)])))

    def forget_lapse(self, node: NodeId) -> None:
        """A lost member is back, or silent for certain: nothing waits for it any longer."""
        if self.lapsing.pop(node, None) is None:
            return
        self.table_changed = True
        self.s = changed(self.s, lapse_due=tuple(x for x in self.s.lapse_due if x[0] != node))
        for row in list(self.rows.values()):
            if any(n == node for n, _ in row.releasing):
                self.put(replace(row, releasing=tuple(x for x in row.releasing if x[0] != node)))

    def placement(self) -> placing.Placement:
        """The facts for placement."""
        return facts(self.s.settings, self.rows.values(), self.reports.values(), self.evicted, self.orders)

    def first(self) -> NodeId | None:
        """The first member in good standing, as of now."""
        view = self.s.view
        return min((m for m in view.members if m not in self.evicted), default=None) if view else None
