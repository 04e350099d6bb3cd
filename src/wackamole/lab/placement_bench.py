"""How long placement computes: pure functions of facts that are made up here, so nothing but this process is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from ..core.balancing import balance
from ..core.model import Address, NodeId, NotEligible, Report, Row, Vip, VipKey
from ..core.placement import Placement, fill
from ..core.voice import MOVES_AT_ONCE

MEMBERS = 32
MANY, MOST = 4096, 10_000
"""VIPs: of a large config, and as many as one may have."""
Measured = Iterator[tuple[str, float | None, Callable[[], object]]]


class Facts:
    """A cluster of MEMBERS nodes with weights of 1 to 3; `wishes`: three of four VIPs have lists of nodes that they prefer,
    avoid or need, or a group, and all members have capacities."""

    def __init__(self, vips: int, *, wishes: bool = False) -> None:
        made = [Vip(f"v{i:05}", (Address(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 32),)) for i in range(vips)]
        self.vips = sorted(made, key=lambda vip: vip.key)
        keys = [vip.key for vip in self.vips]
        self.prefer: dict[VipKey, tuple[str, ...]] = {}
        self.avoid: dict[VipKey, tuple[str, ...]] = {}
        self.apart: dict[VipKey, str] = {}
        self.reports = [
            Report(NodeId(i), i, f"n{i}", known=tuple(keys), mature=True, weight=1 + i % 3)
            for i in range(1, MEMBERS + 1)
        ]
        if not wishes:
            return
        for i, key in enumerate(keys):
            one, other = f"n{1 + i % MEMBERS}", f"n{1 + (i + 5) % MEMBERS}"
            match i % 8:
                case 0 | 1:
                    self.prefer[key] = (one, other)
                case 2 | 3:
                    self.avoid[key] = (one,)
                case 4:
                    self.apart[key] = f"g{i // 256}"
        for report in list(self.reports):
            others = [key for i, key in enumerate(keys) if i % 8 == 5 and (i // 8 - report.node) % MEMBERS > 1]
            barred = tuple((key, NotEligible.NOT_LISTED) for key in others)
            self.reports[report.node - 1] = replace(report, ineligible=barred, capacity=vips // 12)

    def placement(self, holder: Callable[[VipKey], int | None], without: int = 0) -> Placement:
        """With these holders; the last members are not there."""
        held = {vip.key: holder(vip.key) for vip in self.vips}
        rows = [Row(v.key, v, _node(held[v.key]), _node(held[v.key])) for v in self.vips]
        there = self.reports[: MEMBERS - without]
        return Placement(rows, there, (), self.prefer, avoid=self.avoid, apart=self.apart)

    def again(self, facts: Placement) -> Placement:
        """The same facts, indexed anew: that is part of what is measured."""
        return Placement(
            facts.rows.values(), facts.reports.values(), (), self.prefer, avoid=self.avoid, apart=self.apart
        )


def _node(number: int | None) -> NodeId | None:
    return None if number is None else NodeId(number)


def measurements() -> Measured:
    """What is measured, its limit in ms (None: only told), and what to call."""
    for vips, fill_max, balance_max, wishes in (
        (MANY, 20.0, None, False),
        (MOST, 50.0, 200.0, False),
        (MANY, None, None, True),
        (1000, 20.0, None, True),
    ):
        facts = Facts(vips, wishes=wishes)
        what = f"{vips} VIPs on {MEMBERS} members" + (", most with lists, groups or capacities" if wishes else "")
        empty = facts.placement(lambda _: None)
        given = dict(fill(facts.again(empty)))
        at_rest = facts.placement(given.get)
        one_less = dict(fill(facts.again(facts.placement(lambda _: None, without=1))))
        joined = facts.placement(one_less.get)
        died = facts.placement(lambda key: given[key] if given[key] != MEMBERS else None, without=1)  # noqa: B023
        packed = facts.placement(lambda key: 1 + given[key] % 4 if wishes else 1)  # noqa: B023
        yield f"{what}: fill of all", fill_max, lambda: fill(facts.again(empty))  # noqa: B023
        yield f"{what}: fill after a death", fill_max, lambda: fill(facts.again(died))  # noqa: B023
        yield f"{what}: balance at rest", None, lambda: balance(facts.again(at_rest))  # noqa: B023
        yield f"{what}: balance when one joined", None, lambda: balance(facts.again(joined))  # noqa: B023
        yield f"{what}: full balance", balance_max, lambda: balance(facts.again(packed))  # noqa: B023
        limit = 20.0 if (vips < MANY if wishes else vips == MANY) else None
        yield f"{what}: full balance, one step", limit, lambda: balance(facts.again(packed), None, MOVES_AT_ONCE)  # noqa: B023


def milliseconds(what: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000
