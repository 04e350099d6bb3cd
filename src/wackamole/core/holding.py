"""My kernel: what it shall have, by the table, and what it answers."""

from __future__ import annotations

from .effects import HoldExactly
from .events import (
    KernelConfirmed,
)
from .model import (
    Phase,
    Vip,
)
from .state import Refusal, changed
from .work import Work

REFUSED_AGAIN_MS = (5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000)
"""How long a member keeps off a VIP that its kernel refused, by the number of refusals (hazard 25)."""


def on_kernel(w: Work, event: KernelConfirmed) -> None:
    """The kernel was read back."""
    if event.serial != w.s.serial:
        return  # a later one is under way, and will be confirmed
    refused = dict(event.refused)
    wanted = {v.key for v in w.s.wanted}
    by_key = {r.key: r for r in w.s.refusals}
    for key in sorted(refused):
        row = w.rows.get(key)
        if key not in wanted or row is None:
            continue
        count = by_key[key].count + 1 if key in by_key else 1
        wait_ms = REFUSED_AGAIN_MS[min(count, len(REFUSED_AGAIN_MS)) - 1]
        by_key[key] = Refusal(key, row.generation, refused[key], count, w.now_ms + wait_ms)
    for key in event.held:
        if key in wanted:
            by_key.pop(key, None)
    held = tuple(sorted(event.held))
    for key in sorted(set(held) - set(w.s.confirmed)):
        w.record("acquired", vip=key, node=w.s.me)
    for key in sorted(set(w.s.confirmed) - set(held)):
        w.record("released", vip=key, node=w.s.me)
    w.s = changed(
        w.s,
        may_hold=tuple(sorted({*held, *wanted})),  # of what is wanted and not held whole, some addresses may be there
        confirmed=held,
        refusals=tuple(by_key[k] for k in sorted(by_key)),
    )


def wish(w: Work) -> tuple[Vip, ...]:
    """What my kernel shall have. Never what my config does not have, whatever members say: an address of theirs on my
    interface would be a hole in my network. What a reload took away stays until it is agreed that it goes."""
    me = w.s.me
    mine = {v.key for v in w.s.settings.vips}
    if me in w.reports:
        mine |= frozenset(w.reports[me].known)
    if w.s.phase is Phase.SETTLED or (w.s.phase is Phase.EXCHANGE and me in w.reports):
        failing = {(r.key, r.generation) for r in w.s.refusals if r.generation is not None}
        # what I may not have I do not take, although the group gave it to me before it has heard of that: alone with a
        # carrier that is coming back, it would be a second owner until the merge
        barred = {key for key, why in w.s.ineligible if why.forbids}
        return tuple(
            row.vip
            for row in w.s.table.rows
            if row.holder == me
            and row.target == me
            and row.key in mine
            and (row.key, row.generation) not in failing
            and row.key not in barred
        )
    if w.s.phase is Phase.EXCHANGE and w.s.statement is not None:
        held = frozenset(w.s.statement.held)
        return tuple(k.vip for k in w.s.statement.known if k.vip.key in held)
    if w.s.phase is Phase.OFFLINE and w.now_ms < w.s.inherited_until_ms:
        return w.s.inherited
    return ()


def want(w: Work) -> None:
    """Ask the kernel, if it shall have something else than was asked for last."""
    was, now = w.before, w.s
    if now.inherited and now.phase is Phase.OFFLINE and w.now_ms >= now.inherited_until_ms:
        now = w.s = changed(now, inherited=())
    if (
        now.table is was.table
        and now.phase is was.phase
        and now.statement is was.statement
        and now.refusals is was.refusals
        and now.ineligible is was.ineligible
        and now.inherited is was.inherited
    ):
        return
    wanted = wish(w)
    if wanted == w.s.wanted:
        return
    may = set(w.s.may_hold) | {v.key for v in wanted}
    w.s = changed(w.s, wanted=wanted, serial=w.s.serial + 1, may_hold=tuple(sorted(may)))
    w.effects.append(HoldExactly(w.s.serial, wanted))
