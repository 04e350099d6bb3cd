"""Small random histories: what the auditor says is compared with the truth, which is found by looking at every moment."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.audit import Kind, Report, Verdict, audit
from wackamole.audit.spans import common_part, length, union, without

from .histories import EPOCH_US, Host, Moment, bare, doubles, files, longest, played

ADDRESSES = ("10.0.0.1", "10.0.0.2")
TICKS = 120
MARGIN = 3  # ticks: clocks that are bounded at every tick, and the rounding of spans to ticks


@st.composite
def histories(draw: st.DrawFn, *, kills: bool) -> list[Host]:
    """Two or three hosts that hold, renew and are grouped at random."""
    count = draw(st.integers(2, 3))
    numbers = tuple(range(1, count + 1))
    times = draw(st.lists(st.integers(1, TICKS - 1), min_size=1, max_size=8, unique=True))
    moments: dict[int, dict[int, Moment]] = {n: {} for n in numbers}
    for tick in (0, *sorted(times)):
        groups = draw(st.tuples(*[st.integers(0, 1) for _ in numbers]))
        changes_views = tick == 0 or draw(st.booleans())
        for n in numbers:
            view = tuple(m for m in numbers if groups[m - 1] == groups[n - 1]) if changes_views else None
            hold = draw(st.none() | st.frozensets(st.sampled_from(ADDRESSES)))
            moments[n][tick] = Moment(view, hold, draw(st.sampled_from((None, None, True, False))))
    clocks = st.integers(0, 10**9)
    killed = st.none() | st.integers(TICKS // 3, TICKS - 1) if kills else st.none()
    return [Host(n, moments[n], draw(clocks), draw(st.integers(-(10**6), 10**6)), draw(killed)) for n in numbers]


def judged(hosts: list[Host], *, heard_every: int = 1, latency: int = 0, limit_ms: int | None = None) -> Report:
    played(hosts, TICKS, ADDRESSES, heard_every, latency)
    end = EPOCH_US + TICKS * 1000 + hosts[0].wall_ahead_us
    return audit(files(hosts), until=end, uncovered_max=None if limit_ms is None else limit_ms * 1000)


few = settings(max_examples=60)


@few
@given(histories(kills=False), st.integers(0, TICKS))
def test_with_clocks_that_are_known_the_verdicts_are_the_truth(hosts: list[Host], limit: int) -> None:
    report = judged(hosts, limit_ms=limit)
    double = max(longest(doubles(hosts, a)) for a in ADDRESSES)
    if double >= MARGIN:
        assert report.exclusive is Verdict.REFUTED
    elif double == 0:
        assert report.exclusive is not Verdict.REFUTED
    uncovered = max(longest(bare(hosts, h, a)) for h in hosts for a in ADDRESSES)
    shown = max((u.until - u.since for u in report.uncovered), default=0) / 1000
    assert abs(shown - uncovered) <= MARGIN
    if uncovered > limit + MARGIN:
        assert report.covered is Verdict.REFUTED
    elif uncovered < limit - MARGIN:
        assert report.covered is Verdict.PROVED


@few
@given(histories(kills=False))
def test_every_overlap_that_is_called_certain_was_one_and_as_long(hosts: list[Host]) -> None:
    report = judged(hosts)
    for address in ADDRESSES:
        claimed = sum(
            o.until - o.since for o in report.overlaps if o.certain and o.address == address and len(hosts) == 2
        )
        both = [x and y for x, y in zip(*(_serves(h, address) for h in hosts[:2]), strict=True)]
        if len(hosts) == 2:
            changes = sum(a != b for a, b in itertools.pairwise(both)) + len(report.overlaps)
            assert abs(claimed / 1000 - sum(both)) <= MARGIN * (changes + 1)


def _serves(host: Host, address: str) -> list[bool]:
    return [address in served for _, served in host.truth]


@few
@given(histories(kills=True), st.integers(1, 40), st.integers(0, 20), st.integers(0, TICKS))
def test_with_poor_clocks_and_killed_daemons_nothing_false_is_proved_or_refuted(
    hosts: list[Host], heard_every: int, latency: int, limit: int
) -> None:
    report = judged(hosts, heard_every=heard_every, latency=latency, limit_ms=limit)
    double = max(longest(doubles(hosts, a)) for a in ADDRESSES)
    assert (report.exclusive is not Verdict.PROVED) if double else (report.exclusive is not Verdict.REFUTED)
    for overlap in report.overlaps:
        if overlap.certain and overlap.kind is Kind.DOUBLE:
            assert any(doubles(hosts, overlap.address))
    for host in hosts:  # the true clocks are within the bounds that are shown
        for alignment in report.alignments:
            if alignment.node == host.name and alignment.within_us is not None:
                ahead = host.wall_ahead_us - hosts[0].wall_ahead_us
                assert abs(alignment.ahead_us - ahead) <= alignment.within_us + 1


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6)


@given(spans, spans)
def test_spans_are_sets_of_moments(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    def moments(some: list[tuple[int, int]]) -> set[int]:
        return {t for a, b in some for t in range(a, b)}

    x, y = union(one), union(other)
    assert moments(x) == moments(one)
    assert length(x) == len(moments(one))
    assert moments(common_part(x, y)) == moments(one) & moments(other)
    assert moments(without(x, y)) == moments(one) - moments(other)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(x))
