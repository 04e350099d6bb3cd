"""What is read: whole files, torn ones, several of one run, and what is no record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from wackamole.audit import AuditRefused, Kind, Verdict, audit
from wackamole.audit.clocks import Clocks
from wackamole.audit.reading import read
from wackamole.records import AnyRecord, Ask, Barred, Evicted, Gap, Heard, Hold, Settled, Start, View, line

from .histories import EPOCH_US, OPEN_MS, Host, Moment, files, played

X, Y = "10.0.0.1", "10.0.0.2"
TICKS = 200


def pair(**second: Any) -> list[Host]:
    """Two hosts in one view; n1 serves X and n2 serves Y, all the time."""
    both = (1, 2)
    hosts = [
        Host(1, {0: Moment(both, frozenset({X}))}, 0, 0),
        Host(2, {0: Moment(both, frozenset({Y})), **second.pop("moments", {})}, 5_000_000, 2_000, **second),
    ]
    played(hosts, TICKS, (X, Y), 1, 0)
    return hosts


def problems(*named: tuple[str, bytes]) -> list[str]:
    with pytest.raises(AuditRefused) as refused:
        audit(named)
    return list(refused.value.problems)


def without(hosts: list[Host], number: int, drop: Callable[[AnyRecord], bool]) -> list[tuple[str, bytes]]:
    for host in hosts:
        if host.number == number:
            host.records = [r for r in host.records if not drop(r)]
    return files(hosts)


def test_two_hosts_that_keep_to_themselves_are_proved() -> None:
    report = audit(files(pair()))
    assert (report.exclusive, report.covered) == (Verdict.PROVED, Verdict.PROVED)
    assert report.overlaps == ()
    (other,) = report.alignments
    assert other.within_us is not None
    assert abs(other.ahead_us - 2_000) <= other.within_us


def test_a_torn_last_line_is_noted_and_all_others_count() -> None:
    hosts = pair()
    (one, other) = files(hosts)
    report = audit([one, (other[0], other[1][:-5])])
    assert len(report.notes) == 1
    assert report.notes[0].startswith(f"n2.jsonl:{len(hosts[1].records)}  ends in mid-line")
    assert report.records == sum(len(h.records) for h in hosts) - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace(b'"serial":1', b'"serial":"one"', 1), "Expected `int`, got `str` - at `$.serial`"),
        (lambda t: t.replace(b'"record":"view"', b'"record":"vision"', 1), "Invalid value 'vision'"),
        (lambda t: t.replace(b'"record":"joined",', b"", 1), "missing required field `record`"),
        (lambda t: b"\n".join([t.split(b"\n")[0], b"\xff\xfe", b""]), ":2  not a record"),
        (lambda t: t.replace(b'"format":1', b'"format":2', 1), ":1  format 2; this wackamole reads format 1"),
        (lambda t: t.split(b"\n", 1)[1], ":1  the first record of a file must be a start"),
        (lambda t: t + t.split(b"\n")[1] + b"\n", "the clock runs backwards"),
        (lambda t: b"", "n1.jsonl  has no records"),
        (lambda t: b"[" * 100_000 + b"\n", ":1  not a record"),
        (lambda t: b"x" * (5 << 20) + b"\n", "a line of 5242880 bytes is no record"),
    ],
)
def test_what_is_no_record_is_said_with_its_place(change: Callable[[bytes], bytes], words: str) -> None:
    (name, text), other = files(pair())
    found = problems((name, change(text)), other)
    assert any(words in p for p in found), found
    assert all(p.startswith("n1.jsonl") for p in found)


def test_all_problems_are_said_and_not_too_many() -> None:
    (name, text), (other, right) = files(pair())
    assert len(problems((name, text.replace(b'"hold"', b'"had"')), (other, right.replace(b'"hold"', b'"had"')))) == 2
    many = problems((name, text.split(b"\n")[0] + b"\n" + b"?\n" * 100))
    assert len(many) == 21
    assert many[-1].startswith("and ")


def test_files_that_do_not_belong_together() -> None:
    one, other = files(pair())
    assert "the same records" in problems(one, ("copy.jsonl", one[1]))[0]
    assert problems(one, (other[0], other[1].replace(b'"cluster":"web"', b'"cluster":"mail"'))) == [
        "records of different clusters: mail, web"
    ]
    assert problems() == ["there are no records"]


def test_without_the_records_of_a_member_nothing_is_proved() -> None:
    report = audit(files(pair())[:1])
    assert report.exclusive is Verdict.UNDECIDED
    assert report.covered is Verdict.UNDECIDED
    assert report.doubts == ("there are no records of member 2",)


def start_again(host: Host, tick: int, part: int) -> Start:
    first = host.records[0]
    assert isinstance(first, Start)
    at, wall = host.clock(tick * 1000)
    return msgspec.structs.replace(first, at=at, wall=wall, part=part)


def split(host: Host, tick: int) -> tuple[list[AnyRecord], list[AnyRecord]]:
    at, _ = host.clock(tick * 1000)
    return [r for r in host.records if r.at < at], [r for r in host.records if r.at >= at]


def standing(host: Host, tick: int) -> list[AnyRecord]:
    """Where a host of `pair` stands, as a recorder says it again."""
    at, wall = host.clock(tick * 1000)
    same = [r for r in host.records if r.at == host.records[0].at and not isinstance(r, Start | Heard)]
    fresh = [msgspec.structs.replace(r, at=at, wall=wall) for r in same]
    return [msgspec.structs.replace(r, until=at + OPEN_MS * 1000) if hasattr(r, "until") else r for r in fresh]


def test_a_run_in_two_files_is_one() -> None:
    hosts = pair()
    early, late = split(hosts[1], 100)
    late = [start_again(hosts[1], 100, 2), *standing(hosts[1], 100), *late]
    texts = [files(hosts)[0], *((n, b"".join(map(line, rs))) for n, rs in (("n2.jsonl", late), ("n2.jsonl.1", early)))]
    report = audit(texts)
    assert (report.exclusive, report.covered) == (Verdict.PROVED, Verdict.PROVED)
    assert not report.uncovered or max(u.until - u.since for u in report.uncovered) < 5000
    # with the later file alone, the period is that of which all are known
    report = audit(texts[:2])
    assert report.exclusive is Verdict.PROVED
    assert abs(report.until - report.since - 100_000) < 5_000


def test_a_gap_leaves_undecided_what_may_have_been_in_it() -> None:
    hosts = pair()
    early, late = split(hosts[1], 100)
    at, wall = hosts[1].clock(140_000)
    gap = Gap(at=at, wall=wall, since=hosts[1].clock(100_000)[0], lost=7)
    late = [r for r in late if r.at >= at]
    hosts[1].records = [*early, start_again(hosts[1], 140, 2), gap, *standing(hosts[1], 140), *late]
    report = audit(files(hosts))
    assert report.exclusive is Verdict.UNDECIDED
    assert report.doubts == ("records of n2 are missing for 0.040 s",)
    assert all(not o.certain for o in report.overlaps)
    report = audit(files(hosts), until=EPOCH_US + 90_000)
    assert report.exclusive is Verdict.PROVED


def test_a_part_that_is_not_there_is_a_gap() -> None:
    hosts = pair()
    early, late = split(hosts[1], 100)
    third = [
        start_again(hosts[1], 150, 3),
        *standing(hosts[1], 150),
        *(r for r in late if r.at >= hosts[1].clock(150_000)[0]),
    ]
    runs, _ = read([("1", b"".join(map(line, early))), ("3", b"".join(map(line, third)))])
    assert len(runs) == 1
    (gap,) = [r for r in runs[0].records if isinstance(r, Gap)]
    assert gap.since == early[-1].at


def test_who_lived_on_after_its_records_end_may_have_served_anything() -> None:
    """Its disk was full, say: the others heard it long after."""
    hosts = pair()
    end = hosts[1].clock(60_000)[0]
    texts = without(hosts, 2, lambda r: r.at > end)
    report = audit(texts, until=EPOCH_US + 150_000)
    assert report.exclusive is Verdict.UNDECIDED
    assert any("records of n2 are missing" in d for d in report.doubts)
    report = audit(texts)  # by itself it judges the time of which it knows
    assert report.exclusive is Verdict.PROVED
    assert abs(report.until - report.since - 60_000) < 5_000


def test_a_killed_host_may_answer_until_its_lease_ends_and_no_longer() -> None:
    """n2 is killed at 100 ms, n1 sees it go at 110 and takes over at 120: a split, and none after 100 + OPEN_MS."""
    hosts = pair(killed=100)
    hosts[0].moments |= {110: Moment((1,)), 120: Moment(hold=frozenset({X, Y}))}
    hosts[0].records, hosts[1].records = [], []
    played(hosts, TICKS, (X, Y), 1, 0)
    report = audit(files(hosts))
    assert report.exclusive is Verdict.PROVED
    (tail,) = report.overlaps
    assert (tail.kind, tail.certain, tail.address) == (Kind.SPLIT, False, Y)
    assert abs(tail.until - tail.since - (OPEN_MS - 20) * 1000) < 5_000
    (dark,) = [u for u in report.uncovered if u.until - u.since > 5_000]
    assert dark.address == Y
    assert abs(dark.until - dark.since - 20_000) < 5_000
    assert abs(dark.certain_us - 10_000) < 5_000  # in n1's view; before that n2's kernel may have gone on


def test_clocks_that_cannot_both_be_true_are_said() -> None:
    hosts = pair()
    hosts[0].records = [
        msgspec.structs.replace(r, sent=r.sent + 50_000) if isinstance(r, Heard) and i % 2 else r
        for i, r in enumerate(hosts[0].records)
    ]
    report = audit(files(hosts))
    assert report.exclusive is Verdict.UNDECIDED
    assert any("before it was sent" in d for d in report.doubts)


def test_hosts_that_never_heard_each_other_are_compared_by_their_wall_clocks() -> None:
    apart = [Host(n, {0: Moment((n,), frozenset({X, Y}))}, n * 10**8, 0) for n in (1, 2)]
    played(apart, TICKS, (X, Y), TICKS * 2, 0)
    for host in apart:
        host.records = [r for r in host.records if not isinstance(r, Heard)]
    report = audit(files(apart))
    assert [a.within_us for a in report.alignments] == [None]
    assert {o.kind for o in report.overlaps} == {Kind.SPLIT}
    assert not any(o.certain for o in report.overlaps)
    assert report.exclusive is Verdict.PROVED


@pytest.mark.parametrize(("since", "until"), [(10**6, None), (None, -(10**6)), (5_000, 4_000)])
def test_a_period_of_which_nothing_is_known(since: int | None, until: int | None) -> None:
    with pytest.raises(AuditRefused, match="nothing of that period"):
        audit(
            files(pair()),
            since=None if since is None else EPOCH_US + since,
            until=None if until is None else EPOCH_US + until,
        )


def test_put_backs_are_told() -> None:
    hosts = pair()
    holds = [i for i, r in enumerate(hosts[0].records) if isinstance(r, Hold)]
    again = msgspec.structs.replace(hosts[0].records[holds[-1]], again=True, acquired=())
    at, wall = hosts[0].clock(50_000)
    place = next(i for i, r in enumerate(hosts[0].records) if r.at >= at)
    hosts[0].records.insert(place, msgspec.structs.replace(again, at=at, wall=wall))
    assert audit(files(hosts)).notes == ("addresses of n1 were removed behind its back and put back, 1 times",)


def test_views_tell_who_is_together() -> None:
    """The same doubles: in one view they refute, in two they do not, and under `majority` they do as well."""
    for view, partition, verdict in (
        ((1, 2), "cover", Verdict.REFUTED),
        ((2,), "cover", Verdict.PROVED),
        ((2,), "majority", Verdict.REFUTED),
    ):
        hosts = pair(moments={60: Moment(view, frozenset({X, Y}))})
        if view == (2,):
            hosts[0].moments[60] = Moment((1,))
            hosts[0].records, hosts[1].records = [], []
            played(hosts, TICKS, (X, Y), 1, 0)
        for host in hosts:
            first = host.records[0]
            assert isinstance(first, Start)
            host.records[0] = msgspec.structs.replace(first, partition=partition)
        assert sum(isinstance(r, View) for r in hosts[0].records) == (1 if view == (1, 2) else 2)
        assert audit(files(hosts)).exclusive is verdict


def test_clocks_may_go_apart_where_no_message_ties_them() -> None:
    hosts = pair()
    for host in hosts:
        host.records = [r for r in host.records if not isinstance(r, Heard) or r.at < host.clock(2_000)[0]]
    runs, _ = read(files(hosts))
    clocks = Clocks(runs)
    one, other = runs[0].clock, runs[1].clock
    for seconds in (0, 1, 10, 100):
        true = seconds * 1_000_000
        (t, _), (shown, _) = hosts[0].clock(true), hosts[1].clock(true)
        low, high = clocks.earliest(one, t, other), clocks.latest(one, t, other)
        assert low is not None
        assert high is not None
        apart = true // 1000  # two clocks that NTP slews as much as it may, one forward and one back
        assert low <= shown - apart + 10
        assert high >= shown + apart - 10
        assert high - low <= 2 * apart + 5_000


def rewritten(host: Host, tick: int, *more: AnyRecord) -> None:
    """Put records into a history, at a tick, by the host's own clock."""
    at, wall = host.clock(tick * 1000)
    early, late = split(host, tick)
    host.records = [*early, *(msgspec.structs.replace(r, at=at, wall=wall) for r in more), *late]


def asks(*addresses: str, serial: int) -> AnyRecord:
    return Ask(at=0, wall=0, serial=serial, addresses=addresses)


def holds(*addresses: str, serial: int) -> AnyRecord:
    return Hold(at=0, wall=0, serial=serial, addresses=addresses, acquired=(), released=())


@pytest.mark.parametrize(
    ("asked", "held", "gone", "exclusive"),
    [
        (90, 95, 80, Verdict.PROVED),  # n2 confirms that it has let go before n1 asks
        (75, 95, 80, Verdict.UNDECIDED),  # n1's kernel may have been as quick as that
        (50, 95, 80, Verdict.UNDECIDED),  # n1's kernel may not have been done before n2 was asked
        (70, 75, 80, Verdict.UNDECIDED),  # n2's kernel may have been done before it said so
        (50, 55, 80, Verdict.REFUTED),  # n1 had it before n2 was even asked
    ],
)
def test_between_request_and_confirmation_nothing_is_sure(asked: int, held: int, gone: int, exclusive: Verdict) -> None:
    """n2 is asked to let go of Y at 65 and confirms at `gone`; n1 asks for it at `asked` and confirms at `held`."""
    one, other = hosts = pair()
    rewritten(one, asked, asks(X, Y, serial=2))
    rewritten(one, held, holds(X, Y, serial=2))
    rewritten(other, 65, asks(serial=2))
    rewritten(other, gone, holds(serial=2))
    report = audit(files(hosts))
    assert report.exclusive is exclusive
    assert {o.address for o in report.overlaps} == ({Y} if exclusive is not Verdict.PROVED else set())


@pytest.mark.parametrize(("until", "exclusive"), [(62, Verdict.PROVED), (TICKS, Verdict.REFUTED)])
def test_a_double_that_came_along_into_a_merge_may_not_stay(until: int, exclusive: Verdict) -> None:
    """Both have Y when they meet at 60 ms; they are settled at 70, and n2 lets go at `until`."""
    hosts = pair(moments={0: Moment((2,), frozenset({Y}))})
    hosts[0].moments |= {0: Moment((1,), frozenset({X, Y})), 60: Moment((1, 2))}
    hosts[1].moments |= {60: Moment((1, 2)), until: Moment(hold=frozenset())}
    for host in hosts:
        host.records = []
    played(hosts, TICKS, (X, Y), 1, 0)
    for host in hosts:
        at = host.clock(60_000)[0]
        host.records = [r for r in host.records if not (isinstance(r, Settled) and r.at == at)]
        rewritten(host, 70, Settled(at=0, wall=0, settled=True))
    report = audit(files(hosts))
    assert report.exclusive is exclusive
    certain = {o.kind for o in report.overlaps if o.certain}
    assert certain == {Kind.SPLIT, Kind.MERGE} | ({Kind.DOUBLE} if exclusive is Verdict.REFUTED else set())


def test_who_is_evicted_is_in_the_component_no_longer() -> None:
    hosts = pair()
    rewritten(hosts[0], 60, Evicted(at=0, wall=0, members=(2,)))
    rewritten(hosts[0], 70, asks(X, Y, serial=2), holds(X, Y, serial=2))
    report = audit(files(hosts))
    assert report.exclusive is Verdict.PROVED
    assert {o.kind for o in report.overlaps if o.certain} == {Kind.SPLIT}


def test_what_nobody_can_hold_need_not_be_held() -> None:
    hosts = pair()
    rewritten(hosts[1], 60, asks(serial=2), holds(serial=2), Barred(at=0, wall=0, addresses={Y: "no carrier"}))
    assert audit(files(hosts), uncovered_max=20_000).covered is Verdict.REFUTED
    rewritten(hosts[0], 60, Barred(at=0, wall=0, addresses={Y: "no carrier"}))
    assert audit(files(hosts), uncovered_max=20_000).covered is Verdict.PROVED
