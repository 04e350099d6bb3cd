"""The promises P1 and P2, judged by what members served."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from ..records import Hold, Stop
from .clocks import Clocks
from .reading import AuditRefused, Clock, Run, read
from .spans import Span, common_part, union, without
from .standing import Piece, Segment, pieces, segments

SWEEP_US = 60_000_000
"""Pieces that are further apart than this by the best estimate are not compared exactly."""


class Verdict(Enum):
    """What the records say of a promise."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


class Kind(Enum):
    """What it means that two hosts served one address."""

    DOUBLE = "in one component"
    MERGE = "brought along into a merge"
    SPLIT = "in different components"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two hosts served an address at the same time. `certain`: they surely did; else they may have, within the uncertainty
    of clocks and of what a host did after its last record. Times are microseconds of the first node's wall clock."""

    address: str
    nodes: tuple[str, str]
    views: tuple[str, str]
    kind: Kind
    certain: bool
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Uncovered:
    """As these nodes saw their component, nobody in it served an address, though somebody could have."""

    address: str
    nodes: tuple[str, ...]
    view: str
    since: int
    until: int
    certain_us: int  # of that surely; the rest is what a host may have served after its last record, or by clocks


@dataclass(frozen=True, slots=True)
class Alignment:
    """A host's clock by the first one's: `ahead_us` of its wall clock, and how well that is known at worst; None: the two
    have never heard each other, so their wall clocks are taken as they are."""

    node: str
    ahead_us: int
    within_us: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """What the records prove. `doubts`: why something stays undecided."""

    cluster: str
    nodes: tuple[str, ...]
    records: int
    addresses: int
    since: int
    until: int
    exclusive: Verdict
    covered: Verdict
    overlaps: tuple[Overlap, ...]
    uncovered: tuple[Uncovered, ...]
    uncovered_us_max: int
    alignments: tuple[Alignment, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Evidence:
    """Everything that the two promises are judged by."""

    runs: list[Run]
    clocks: Clocks
    window: Span = (0, 0)
    stood: dict[int, list[Segment]] = field(default_factory=dict)  # by index of the run
    by_address: dict[str, list[Piece]] = field(default_factory=lambda: defaultdict(list))

    def span(self, run: Run, since: int, until: int) -> Span:
        """A time of a run by the common clock, cut to the period."""
        a, b = self.window
        return max(a, self.clocks.common(run.clock, since)), min(b, self.clocks.common(run.clock, until))


def audit(
    files: Iterable[tuple[str, bytes]],
    *,
    since: int | None = None,
    until: int | None = None,
    uncovered_max: int | None = None,
) -> Report:
    """Judge the promises by these files (name, content). Times are microseconds of the wall clock of the first node (by
    name); the period is that for which the records are complete, if it is not given. `uncovered_max`: how long an address
    may be uncovered, microseconds; by default what the config's times allow. Raises AuditRefused."""
    runs, notes = read(files)
    clocks = Clocks(runs)
    evidence = _Evidence(runs, clocks)
    for i, run in enumerate(runs):
        after = runs[i + 1] if i + 1 < len(runs) and runs[i + 1].clock == run.clock else None
        lived = clocks.lived.get(run.clock, 0) if after is None else 0
        evidence.stood[i] = segments(run, after.start.at if after is not None else None, lived)
    first, last = _period(evidence)
    evidence.window = (first if since is None else since, last if until is None else until)
    if evidence.window[0] >= evidence.window[1] or evidence.window[0] >= last or evidence.window[1] <= first:
        raise AuditRefused(["the records have nothing of that period"])
    for i, run in enumerate(runs):
        for piece in pieces(run, evidence.stood[i]):
            evidence.by_address[piece.address].append(piece)
    doubts = clocks.contradictions() + _missing(evidence, first)
    overlaps = _overlaps(evidence)
    uncovered, unsure = _uncovered(evidence)
    limit = uncovered_max if uncovered_max is not None else max(r.start.patience_ms for r in runs) * 1000
    majority = any(run.start.partition == "majority" for run in runs)
    wrong = [o for o in overlaps if o.kind is Kind.DOUBLE or (majority and o.kind is Kind.SPLIT)]
    return Report(
        cluster=runs[0].start.cluster,
        nodes=tuple(sorted({r.start.node for r in runs})),
        records=sum(len(r.records) for r in runs),
        addresses=len({a for r in runs for v in r.start.vips.values() for a in v}),
        since=evidence.window[0],
        until=evidence.window[1],
        exclusive=_verdict(any(o.certain for o in wrong), bool(wrong or doubts)),
        covered=_verdict(
            any(u.certain_us > limit for u in uncovered), bool(doubts) or any(b - a > limit for a, b in unsure)
        ),
        overlaps=tuple(overlaps),
        uncovered=tuple(uncovered),
        uncovered_us_max=limit,
        alignments=tuple(_alignments(evidence)),
        doubts=tuple(doubts),
        notes=(*notes, *_removed(evidence)),
    )


def _verdict(broken: bool, open_: bool) -> Verdict:
    return Verdict.REFUTED if broken else Verdict.UNDECIDED if open_ else Verdict.PROVED


def _period(e: _Evidence) -> Span:
    """From when the records of all are complete, to when those of a member that still lives end."""
    seen: set[str] = set()
    begins, cut, ends = [], [], []
    for run in e.runs:
        begin = e.clocks.common(run.clock, run.start.at)
        if run.start.node not in seen and not run.whole:
            cut.append(begin)
        seen.add(run.start.node)
        begins.append(begin)
        ends.append(e.clocks.common(run.clock, run.last.at))
    last_of = {run.start.node: i for i, run in enumerate(e.runs)}
    views = [(j, next((s for s in reversed(e.stood[j]) if s.members), None)) for j in last_of.values()]
    alive = [
        ends[i]
        for i in last_of.values()
        if not isinstance(e.runs[i].last, Stop)
        and any(
            view is not None
            and j != i
            and e.runs[i].me in view.members
            and e.clocks.common(e.runs[j].clock, view.lived) >= ends[i]
            for j, view in views
        )
    ]
    return max(cut) if cut else min(begins), min(alive) if alive else max(ends)


def _missing(e: _Evidence, first: int) -> list[str]:
    """Members and times of which there are no records in the period."""
    found = []
    recorded = {s.me for stood in e.stood.values() for s in stood}
    unknown: set[int] = set()
    if e.window[0] < first:
        found.append("the period begins before the records of all nodes do")
    for i, run in enumerate(e.runs):
        for segment in e.stood[i]:
            a, b = e.span(run, segment.since, segment.until)
            if a >= b:
                continue
            unknown |= segment.members - recorded
            if not segment.known:
                found.append(f"records of {run.start.node} are missing for {(b - a) / 1e6:.3f} s")
    return found + [f"there are no records of member {n}" for n in sorted(unknown)]


def _removed(e: _Evidence) -> list[str]:
    times: dict[str, int] = defaultdict(int)
    for run in e.runs:
        for record in run.records:
            if isinstance(record, Hold) and record.again:
                a, b = e.span(run, record.at, record.at + 1)
                times[run.start.node] += a < b
    return [
        f"addresses of {node} were removed behind its back and put back, {n} times" for node, n in times.items() if n
    ]


def _alignments(e: _Evidence) -> Iterator[Alignment]:
    """Of every clock, at the moments when it entered a view."""
    seen: dict[Clock, list[tuple[int, Span | None]]] = {}
    for i, run in enumerate(e.runs):
        moments = sorted({s.since for s in e.stood[i] if s.known and s.members})
        seen.setdefault(run.clock, []).extend((t, e.clocks.bounds(run.clock, t)) for t in moments)
    reference = e.clocks.reference
    for clock, found in seen.items():
        if clock == reference or not found:
            continue
        known = [(t, b) for t, b in found if b is not None]
        if not known:
            yield Alignment(clock[0], 0, None)
            continue
        t, (low, high) = known[-1]
        ahead = e.clocks.wall(clock, t) - e.clocks.wall(reference, (low + high) // 2)
        yield Alignment(clock[0], ahead, max((b[1] - b[0] + 1) // 2 for _, b in known))


def _overlaps(e: _Evidence) -> list[Overlap]:
    """P1: everything that two hosts served, or may have served, at the same time."""
    found: list[Overlap] = []
    for address in sorted(e.by_address):
        timed = sorted(((*e.span(p.run, p.since, p.until), p) for p in e.by_address[address]), key=lambda x: x[:2])
        active: list[tuple[int, Piece]] = []
        for since, until, piece in timed:
            if since >= until:
                continue
            active = [(end, p) for end, p in active if end + SWEEP_US > since]
            for _, other in active:
                if other.clock != piece.clock:
                    overlap = _overlap(e, other, piece)
                    if overlap is not None:
                        found.append(overlap)
            active.append((until, piece))
    return _joined(found)


def _overlap(e: _Evidence, a: Piece, b: Piece) -> Overlap | None:
    before = e.clocks.before
    if before(a.clock, a.until, b.clock, b.since) or before(b.clock, b.until, a.clock, a.since):
        return None
    one, other = a.segment, b.segment
    known = one.known and other.known
    together = not known or (one.me in other.members and other.me in one.members)
    if not together:
        kind = Kind.SPLIT
    elif known and a.inherited and b.inherited and (a.passing or b.passing):
        kind = Kind.MERGE
    else:
        kind = Kind.DOUBLE
    spans = [e.span(p.run, p.since, p.until) for p in (a, b)]
    certain = False
    if a.sure is not None and b.sure is not None:
        certain = _meet(e, a.clock, a.sure, b.clock, b.sure)
        if certain:
            spans = [e.span(a.run, *a.sure), e.span(b.run, *b.sure)]
    nodes = (a.run.start.node, b.run.start.node)
    views = (one.view, other.view)
    if nodes[0] > nodes[1]:
        nodes, views = nodes[::-1], views[::-1]
    since = max(s[0] for s in spans)
    return Overlap(a.address, nodes, views, kind, certain, since, max(since, min(s[1] for s in spans)))


def _meet(e: _Evidence, x: Clock, one: Span, y: Clock, other: Span) -> bool:
    """Whether two times surely have a moment in common."""
    first, second = e.clocks.latest(x, one[0], y), e.clocks.latest(y, other[0], x)
    return first is not None and second is not None and first < other[1] and second < one[1]


def _joined(overlaps: list[Overlap]) -> list[Overlap]:
    """What goes on from one piece to the next is one overlap."""
    found: list[Overlap] = []
    last: dict[tuple[object, ...], int] = {}
    for o in sorted(overlaps, key=lambda o: (o.since, o.until, o.address, o.nodes)):
        key = (o.address, o.nodes, o.kind, o.certain)
        i = last.get(key)
        if i is not None and o.since <= found[i].until + 1000:
            found[i] = replace(found[i], until=max(found[i].until, o.until), views=o.views)
        else:
            last[key] = len(found)
            found.append(o)
    return found


def _uncovered(e: _Evidence) -> tuple[list[Uncovered], list[Span]]:
    """P2: what each member saw uncovered in its component; and all spans that may have been uncovered."""
    recorded = {s.me for stood in e.stood.values() for s in stood}
    sure: dict[tuple[str, int], list[Span]] = defaultdict(list)
    may: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for address, all_pieces in e.by_address.items():
        for p in all_pieces:
            me = p.segment.me or p.run.me
            may[address, me].append(e.span(p.run, p.since, p.until))
            if p.sure is not None:
                sure[address, me].append(e.span(p.run, *p.sure))
    able: dict[tuple[str, int], list[Span]] = defaultdict(list)
    lived: list[tuple[Run, Segment, Span]] = []
    for i, run in enumerate(e.runs):
        known = {a for v in run.start.vips.values() for a in v}
        for segment in e.stood[i]:
            span = e.span(run, segment.since, segment.lived)
            if not segment.known or not segment.members or span[0] >= span[1]:
                continue
            lived.append((run, segment, span))
            for address in known - segment.barred:
                able[address, segment.me].append(span)
    sure, may, able = ({k: union(v) for k, v in spans.items()} for spans in (sure, may, able))
    bare: dict[tuple[str, str], list[tuple[Span, str]]] = defaultdict(list)
    bare_surely: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for run, segment, span in lived:
        if run.start.partition == "majority" and 2 * len(segment.members) <= len(run.start.nodes):
            continue
        for address in sorted({a for v in run.start.vips.values() for a in v}):
            of = [(address, m) for m in segment.members]
            need = common_part([span], union(s for k in of for s in able.get(k, ())))
            left = without(need, union(s for k in of for s in sure.get(k, ())))
            bare[address, run.start.node] += [(s, segment.view) for s in left]
            if segment.members <= recorded:
                bare_surely[address, run.start.node] += without(need, union(s for k in of for s in may.get(k, ())))
    found: list[Uncovered] = []
    unsure: list[Span] = []
    for (address, node), parts in sorted(bare.items()):
        surely = union(bare_surely[address, node])
        for a, b in union(s for s, _ in parts):
            unsure.append((a, b))
            view = max(s for s in parts if s[0][0] < b)[1]
            certain = max((y - x for x, y in common_part([(a, b)], surely)), default=0)
            found.append(Uncovered(address, (node,), view, a, b, certain))
    return _seen_together(found), unsure


def _seen_together(uncovered: list[Uncovered]) -> list[Uncovered]:
    """What several members saw at the same time in the same view is one."""
    found: list[Uncovered] = []
    for u in sorted(uncovered, key=lambda u: (u.address, u.view, u.since, u.nodes)):
        last = found[-1] if found else None
        if last is not None and (last.address, last.view) == (u.address, u.view) and u.since < last.until:
            found[-1] = replace(
                last,
                nodes=tuple(sorted({*last.nodes, *u.nodes})),
                until=max(last.until, u.until),
                certain_us=max(last.certain_us, u.certain_us),
            )
        else:
            found.append(u)
    return sorted(found, key=lambda u: (u.since, u.address))
