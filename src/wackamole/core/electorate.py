"""Who votes on which component may serve, under `majority`; and how that changes without two majorities (hazard 15).

An *electorate* is a list of votes by node name, with an epoch. Each member keeps on its disk the electorates that may
count somewhere, and reports them: one in quiet times. A component may serve if it has more than half of the votes of
every electorate that a member present knows of.

A change takes no messages of its own. When the configs of all who are present say the same new list, each of them keeps
it as well, with the next epoch, and reports that. Once members with more than half of the votes of each older electorate
keep the new one, it alone counts: whoever has a majority of an older one has somebody with it who knows the new one, and
needs that one's majority too. Then the older ones are forgotten, here and, at the next meeting, wherever they are known
still: an epoch below the lowest that some member keeps is over.

All this is a function of delivered reports; what is kept is said only when it is on the disk, so a restart forgets
nothing that was counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from .model import Electorate, Partition, Report


def quorate(reports: Iterable[Report]) -> bool:
    """Whether this component may serve: always under `cover`; under `majority` with more than half of the votes of every
    electorate that counts."""
    present = tuple(reports)
    return _may_serve(present, present)


def grown(reports: Iterable[Report]) -> bool:
    """Whether what is free may be given out: somebody is mature. Under `majority` those who are must have a majority without
    the others, who may have been with another majority a moment ago, whose leases still run, and remember nothing of it."""
    present = tuple(reports)
    mature = tuple(r for r in present if r.mature)
    return bool(mature) and _may_serve(mature, present)


def _may_serve(some: tuple[Report, ...], present: tuple[Report, ...]) -> bool:
    if all(r.partition is Partition.COVER for r in present):
        return True
    names = frozenset(r.name for r in some)
    return all(has_majority(names, e) for e in counting(present))


def has_majority(names: frozenset[str], electorate: Electorate) -> bool:
    """Whether these nodes have more than half of the votes."""
    return 2 * sum(n for name, n in electorate.votes if name in names) > sum(n for _, n in electorate.votes)


def counting(present: tuple[Report, ...]) -> tuple[Electorate, ...]:
    """The electorates that count where these members are, ascending."""
    over_below = max((r.electorates[0].epoch for r in present if r.electorates), default=0)
    known = sorted({e for r in present for e in r.electorates if e.epoch >= over_below})
    if not known:  # nobody remembers one: the cluster begins, by the configs
        return tuple(sorted({Electorate(0, wished(r)) for r in present}))
    newest, older = known[-1], known[:-1]
    kept_by = frozenset(r.name for r in present if newest in r.electorates)
    if all(has_majority(kept_by, e) and e.epoch < newest.epoch for e in older):
        return (newest,)
    return tuple(known)


def worth_keeping(present: tuple[Report, ...]) -> tuple[Electorate, ...]:
    """What every member present should have on its disk, ascending: what counts, and what all their configs wish."""
    known = counting(present)
    wishes = {wished(r) for r in present}
    newest = known[-1]
    alone = all(
        e.epoch < newest.epoch for e in known[:-1]
    )  # else two were begun apart: only one above both can end that
    if len(wishes) > 1 or (alone and newest.votes in wishes):
        return known
    return (*known, Electorate(newest.epoch + 1, wishes.pop()))


def changing(present: tuple[Report, ...]) -> bool:
    """Whether some member present may keep more, or less, than has been delivered of it."""
    if all(r.partition is Partition.COVER for r in present):
        return False
    return any(r.electorates != worth_keeping(present) for r in present)


def wished(report: Report) -> tuple[tuple[str, int], ...]:
    """The votes as a member's config has them."""
    votes = dict(report.votes)
    return tuple((name, votes.get(name, 1)) for name in sorted(report.nodes))
