"""Records of what the core is told and asks for, and the file that they go to."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from wackamole import records as rec
from wackamole.audit import Verdict, audit
from wackamole.core import effects as do
from wackamole.core import events as ev
from wackamole.core.messages import Beat, Released
from wackamole.core.model import Address, NodeId, NotEligible, Phase, Settings, Table, View, ViewId, Vip
from wackamole.core.state import State, initial
from wackamole.records import HEARD_WRITTEN_US, AnyRecord, Reading, Recorder, decoder
from wackamole.shell.record import Audit, AuditFile, audit_path

A, B = NodeId(1), NodeId(2)
VIPS = (Vip("v", (Address("10.0.0.1", 32), Address("fd00::1", 128))), Vip("w", (Address("10.0.0.2", 32),)))
V, W = (v.key for v in VIPS)
SETTINGS = Settings(node="a", nodes=("a", "b"), vips=VIPS, config_digest="one", lease_ms=1100, beat_age_max_ms=150)
VIEW = View(ViewId(1, 4, 0), (A, B), (A, B), (), direct=False)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.us = 1_000_000

    def __call__(self) -> Reading:
        return Reading(self.us, self.us + 10**15, self.us)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(clock: Clock) -> Recorder:
    found = Recorder(SETTINGS, cluster="web", boot="boot", run="run", slack_ms=50, clocks=clock)
    found.begin()
    return found


def member(**changes: object) -> State:
    joined = replace(initial(SETTINGS), me=A, incarnation=7, view=VIEW, phase=Phase.SETTLED)
    return replace(joined, **changes)  # type: ignore[arg-type]


def kinds(found: list[AnyRecord]) -> list[str]:
    return [type(r).__name__ for r in found]


# -- records ----------------------------------------------------------------------------------------------------------------


def test_the_header_says_what_the_auditor_needs(clock: Clock) -> None:
    recorder = Recorder(SETTINGS, cluster="web", boot="boot", run="run", slack_ms=50, clocks=clock)
    (start,) = recorder.begin()
    assert isinstance(start, rec.Start)
    assert (start.cluster, start.node, start.boot, start.part, start.format) == ("web", "a", "boot", 1, rec.FORMAT)
    assert (start.at, start.wall, start.mono) == tuple(clock())
    assert (start.open_ms, start.slack_ms) == (950, 50)
    assert start.vips == {"v": ("10.0.0.1", "fd00::1"), "w": ("10.0.0.2",)}


def test_views_and_phases(recorder: Recorder) -> None:
    (joined,) = recorder.note(ev.EngineJoined(A, 7), (), replace(initial(SETTINGS), me=A))
    assert isinstance(joined, rec.Joined)
    assert (joined.id, joined.incarnation) == (1, 7)
    exchanging = member(phase=Phase.EXCHANGE)
    (view,) = recorder.note(ev.ViewInstalled(VIEW), (), exchanging)
    assert isinstance(view, rec.View)
    assert (view.id, view.members) == ("1.4.0", (1, 2))
    assert kinds(recorder.note(ev.TimePassed(), (), member())) == ["Settled"]
    assert recorder.note(ev.TimePassed(), (), member()) == []
    (unsettled,) = recorder.note(ev.TimePassed(), (), exchanging)
    assert isinstance(unsettled, rec.Settled)
    assert not unsettled.settled
    (evicted,) = recorder.note(ev.TimePassed(), (), replace(exchanging, table=Table(evicted=((B, 9),))))
    assert isinstance(evicted, rec.Evicted)
    assert evicted.members == (2,)


@pytest.mark.parametrize(
    ("event", "effects", "reason"),
    [
        (ev.EngineLost("it died"), (), "it died"),
        (ev.TimePassed(), (do.LeaveGroup(True, "evicted"),), "evicted"),
        (ev.TimePassed(), (), "leaving"),
    ],
)
def test_being_out_has_a_reason(
    recorder: Recorder, event: ev.Event, effects: tuple[do.Effect, ...], reason: str
) -> None:
    recorder.note(ev.ViewInstalled(VIEW), (), member())
    (out,) = recorder.note(event, effects, replace(initial(SETTINGS), me=A))
    assert isinstance(out, rec.Out)
    assert out.reason == reason


def test_what_is_asked_and_what_the_kernel_says(recorder: Recorder) -> None:
    state = member()
    recorder.note(ev.ViewInstalled(VIEW), (), state)
    (ask,) = recorder.note(ev.TimePassed(), (do.HoldExactly(1, VIPS),), state)
    assert isinstance(ask, rec.Ask)
    assert ask.addresses == ("10.0.0.1", "10.0.0.2", "fd00::1")
    (hold,) = recorder.note(ev.KernelConfirmed(1, (V,), ((W, "no"),)), (), state)
    assert isinstance(hold, rec.Hold)
    assert (hold.addresses, hold.released, hold.again) == (("10.0.0.1", "fd00::1"), (), False)
    (again,) = recorder.note(ev.KernelConfirmed(1, (V,), ()), (), state)
    assert isinstance(again, rec.Hold)
    assert again.again
    found = recorder.note(ev.KernelConfirmed(1, (), ()), (do.HoldExactly(2, ()),), state)
    assert kinds(found) == ["Hold", "Ask"]  # in the order in which they happened
    assert isinstance(found[0], rec.Hold)
    assert found[0].released == ("10.0.0.1", "fd00::1")
    assert recorder.note(ev.KernelConfirmed(1, (V,), ()), (), state) == []  # the answer to an older request


def test_the_fence_is_written_when_it_changes_and_each_second(recorder: Recorder, clock: Clock) -> None:
    state, renew = member(), (do.RenewLease(0),)
    recorder.note(ev.ViewInstalled(VIEW), (), state)

    def renewed(at_ms: int) -> list[AnyRecord]:
        clock.us = at_ms * 1000
        return recorder.note(ev.TimePassed(), renew, state)

    (first,) = renewed(2000)
    assert first == rec.Fence(at=2_000_000, wall=2_000_000 + 10**15, until=2_950_000)
    assert renewed(2100) == renewed(2900) == []
    (second,) = renewed(3000)
    assert isinstance(second, rec.Fence)
    assert (second.until, second.lapsed) == (3_950_000, None)
    assert renewed(3500) == []
    (late,) = renewed(5000)
    assert isinstance(late, rec.Fence)
    assert (late.until, late.lapsed) == (5_950_000, 4_450_000)  # of the renewal that was not written
    clock.us = 5_500_000
    (shut,) = recorder.note(ev.TimePassed(), (do.ShutFence(),), state)
    assert isinstance(shut, rec.Fence)
    assert (shut.until, shut.lapsed) == (None, None)
    assert recorder.note(ev.TimePassed(), (do.ShutFence(),), state) == []


def test_without_a_fence_there_is_none_in_the_records(clock: Clock) -> None:
    recorder = Recorder(replace(SETTINGS, lease_ms=0), cluster="web", boot="boot", run="run", slack_ms=50, clocks=clock)
    (start,) = recorder.begin()
    assert isinstance(start, rec.Start)
    assert start.open_ms == 0
    assert recorder.note(ev.TimePassed(), (do.RenewLease(0), do.ShutFence()), initial(SETTINGS)) == []


def test_beats_tie_clocks_at_a_low_rate(recorder: Recorder, clock: Clock) -> None:
    state = member()
    recorder.note(ev.ViewInstalled(VIEW), (), state)

    def beat(sender: NodeId) -> list[AnyRecord]:
        return recorder.note(ev.MessageDelivered(sender, VIEW.id, Beat(1, 0, "", 77)), (), state)

    assert beat(A) == []
    (heard,) = beat(B)
    assert isinstance(heard, rec.Heard)
    assert (heard.member, heard.sent) == (2, 77_000)
    clock.us += HEARD_WRITTEN_US - 1
    assert beat(B) == []
    clock.us += 1
    assert kinds(beat(B)) == ["Heard"]
    other = replace(VIEW, id=ViewId(1, 8, 0))
    recorder.note(ev.ViewInstalled(other), (), replace(state, view=other))
    assert kinds(
        recorder.note(ev.MessageDelivered(B, other.id, Beat(1, 0, "", 78)), (), replace(state, view=other))
    ) == ["Heard"]


def test_messages_have_the_same_mark_at_both_ends(recorder: Recorder) -> None:
    state = member()
    recorder.note(ev.ViewInstalled(VIEW), (), state)
    message, later = Released(((V, 3),)), Released(((V, 4),))
    said = recorder.note(ev.TimePassed(), (do.Multicast(VIEW.id, message), do.Multicast(VIEW.id, later)), state)
    (told,) = recorder.note(ev.MessageDelivered(B, VIEW.id, message), (), state)
    assert isinstance(told, rec.Told)
    marks = [r.what for r in said if isinstance(r, rec.Said)]
    assert len(set(marks)) == 2
    assert (told.member, told.what) == (2, marks[0])
    assert recorder.note(ev.MessageDelivered(A, VIEW.id, message), (), state) == []


def test_what_cannot_be_held_is_told_by_address(recorder: Recorder) -> None:
    event = ev.EligibilityChanged(((V, NotEligible.LINK_DOWN),))
    (barred,) = recorder.note(event, (), initial(SETTINGS))
    assert isinstance(barred, rec.Barred)
    assert barred.addresses == {"10.0.0.1": "the interface has no carrier", "fd00::1": "the interface has no carrier"}


def test_a_later_file_says_where_the_run_stands(recorder: Recorder, clock: Clock) -> None:
    state = member(table=Table(evicted=((B, 9),)))
    recorder.note(ev.EngineJoined(A, 7), (), replace(initial(SETTINGS), me=A))
    recorder.note(ev.ViewInstalled(VIEW), (do.RenewLease(0), do.HoldExactly(1, VIPS)), state)
    recorder.note(ev.KernelConfirmed(1, (V,), ()), (do.HoldExactly(2, ()),), state)
    clock.us += 1000
    found = recorder.begin()
    assert kinds(found) == ["Start", "Joined", "View", "Settled", "Evicted", "Barred", "Hold", "Ask", "Fence"]
    assert all(r.at == clock.us for r in found)
    assert isinstance(found[0], rec.Start)
    assert found[0].part == 2
    assert kinds(recorder.gap(5, 3))[:2] == ["Start", "Gap"]


# -- the file ---------------------------------------------------------------------------------------------------------------


class Journal:
    """What was warned of."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, str]]] = []

    def warn(self, what: str, fields: dict[str, str]) -> None:
        self.said.append((what, fields))


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state/audit.jsonl"


def begun(path: Path, journal: Journal, clock: Clock, bytes_max: int = 1 << 20) -> Audit:
    made = Audit(SETTINGS, cluster="web", slack_ms=50, warn=journal.warn, path=path, bytes_max=bytes_max, clocks=clock)
    made.start()
    return made


def lines(path: Path) -> list[AnyRecord]:
    return [decoder.decode(text) for text in path.read_bytes().splitlines()]


def views(count: int) -> Iterator[tuple[ev.Event, State]]:
    for i in range(count):
        view = replace(VIEW, id=ViewId(1, 4 + 4 * i, 0))
        yield ev.ViewInstalled(view), replace(member(), view=view)


def test_the_file_is_private_and_only_appended_to(path: Path, journal: Journal, clock: Clock) -> None:
    for _ in range(2):
        audit_file = begun(path, journal, clock)
        for event, state in views(3):
            audit_file.note(event, (), state)
        audit_file.close("left")
        audit_file.close("twice is nothing")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kinds(lines(path)) == ["Start", "View", "Settled", "View", "Settled", "View", "Settled", "Stop"] * 2
    assert journal.said == []


def test_a_file_that_others_may_read_is_closed_to_them(path: Path, journal: Journal, clock: Clock) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    begun(path, journal, clock).close("left")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(path: Path, journal: Journal, clock: Clock) -> None:
    path.parent.mkdir()
    elsewhere = path.with_name("elsewhere")
    path.symlink_to(elsewhere)
    begun(path, journal, clock).close("left")
    assert not elsewhere.exists()


def test_half_a_line_of_a_killed_run_is_cut_off(path: Path, journal: Journal, clock: Clock) -> None:
    begun(path, journal, clock).close("left")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    begun(path, journal, clock).close("left")
    assert kinds(lines(path)) == ["Start", "Stop", "Start", "Stop"]


def test_a_full_file_becomes_the_older_one_and_both_are_read_as_one_run(
    path: Path, journal: Journal, clock: Clock
) -> None:
    audit_file = begun(path, journal, clock, bytes_max=4000)
    audit_file.note(ev.EngineJoined(A, 7), (), replace(initial(SETTINGS), me=A))
    alone = replace(VIEW, members=(A,))
    for i in range(25):
        clock.us += 1000
        view = replace(alone, id=ViewId(1, 4 + 4 * i, 0))
        audit_file.note(ev.ViewInstalled(view), (), replace(member(), view=view))
    audit_file.close("left")
    older = path.with_name("audit.jsonl.1")
    assert older.stat().st_size < 5000
    assert path.stat().st_size < 5000
    assert kinds(lines(path))[:4] == ["Start", "Joined", "View", "Settled"]
    report = audit([("new", path.read_bytes()), ("old", older.read_bytes())], uncovered_max=10**9)
    assert report.exclusive is Verdict.PROVED
    assert not report.doubts


def test_a_run_that_begins_when_the_file_is_full_begins_another(path: Path, journal: Journal, clock: Clock) -> None:
    begun(path, journal, clock).close("left")
    begun(path, journal, clock, bytes_max=100).close("left")
    assert kinds(lines(path)) == ["Start", "Stop"]
    assert kinds(lines(path.with_name("audit.jsonl.1"))) == ["Start", "Stop"]


def noted_until_warned(audit_file: Audit, journal: Journal, clock: Clock) -> None:
    for event, state in views(1_000_000):
        if journal.said:
            return
        clock.us += 1
        audit_file.note(event, (), state)
    raise AssertionError("no warning")


def test_a_full_disk_is_told_once_and_stops_nothing(journal: Journal, clock: Clock) -> None:
    audit_file = begun(Path("/dev/full"), journal, clock)
    noted_until_warned(audit_file, journal, clock)
    for event, state in views(100):
        clock.us += 100_000
        audit_file.note(event, (), state)
    audit_file.close("left")
    ((what, fields),) = journal.said
    assert what == "audit_failed"
    assert fields == {"file": "/dev/full", "reason": "No space left on device"}
    assert Path("/dev/full").is_char_device()


def test_when_the_disk_works_again_the_file_says_what_is_missing(path: Path, journal: Journal, clock: Clock) -> None:
    path.mkdir(parents=True)  # a directory is in the way
    audit_file = begun(path, journal, clock)
    began = clock.us
    noted_until_warned(audit_file, journal, clock)
    path.rmdir()
    for event, state in views(10_000):
        clock.us += 500_000
        audit_file.note(event, (), state)
        if path.exists():
            break
    audit_file.close("left")
    found = lines(path)
    assert kinds(found)[:2] == ["Start", "Gap"]
    assert isinstance(found[0], rec.Start)
    assert isinstance(found[1], rec.Gap)
    assert found[0].part > 1
    assert found[1].since == began
    assert found[1].lost > 0
    assert kinds(found)[-1] == "Stop"


def test_a_failed_write_leaves_no_half_line(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.jsonl")
    file.append(b"one\n")
    read_end, write_end = os.pipe()
    os.close(read_end)
    broken, file._fd = file._fd, write_end
    assert broken is not None
    with pytest.raises(BrokenPipeError):
        file.append(b"two\n")
    os.close(broken)
    file.append(b"three\n")
    file.close()
    assert (tmp_path / "audit.jsonl").read_bytes() == b"one\nthree\n"


def test_the_state_directory_is_where_systemd_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert audit_path() == Path("/var/lib/wackamole/audit.jsonl")
    monkeypatch.setenv("STATE_DIRECTORY", "/run/state")
    assert audit_path() == Path("/run/state/audit.jsonl")


def test_a_thread_that_is_stuck_costs_records_and_not_memory(path: Path, journal: Journal, clock: Clock) -> None:
    from wackamole.shell import record

    path.parent.mkdir()
    os.mkfifo(path)  # opening it for appending blocks nobody, but nobody reads: a pipe's worth goes in, then it stands
    audit_file = begun(path, journal, clock)
    for event, state in views(record.QUEUE_MAX + 5000):
        clock.us += 1
        audit_file.note(event, (), state)
    assert [what for what, _ in journal.said] == ["audit_failed"]
    assert audit_file._queue.qsize() <= record.QUEUE_MAX
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    drain = threading.Thread(target=_drain, args=(reader, audit_file), daemon=True)
    drain.start()
    audit_file.close("left")
    drain.join(10)
    os.close(reader)
    assert not drain.is_alive()


def _drain(reader: int, audit_file: Audit) -> None:
    import select

    while audit_file._thread is not None:
        if select.select([reader], [], [], 0.1)[0]:
            os.read(reader, 1 << 20)
