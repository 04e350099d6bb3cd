"""From CPG's callbacks to views, without Corosync: the orders that a live ring shows once a year."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.core.model import Left, NodeId, View
from wackamole.engine.chunks import CHUNKS_MAX
from wackamole.engine.contract import PAYLOAD_BYTES_MAX, Delivered, EngineEvent, Joined, NewView
from wackamole.engine.corosync.cpg import Callback, Confchg, Message, Process, Totem
from wackamole.engine.corosync.membership import (
    CHUNK,
    HELLO,
    JOIN,
    LEAVE,
    NODEDOWN,
    NODEUP,
    PROCDOWN,
    RING_STEP,
    WHOLE_BYTES_MAX,
    Membership,
    payload_frames,
)

A, B, C = Process(1, 100), Process(2, 200), Process(3, 300)


def because(process: Process, reason: int) -> Process:
    return Process(process.nodeid, process.pid, reason)


def said(sender: Process, payload: bytes, serial: int = 1) -> list[Message]:
    """What CPG delivers for a payload."""
    return [Message(sender, frame) for frame in payload_frames(payload, serial)]


@dataclass
class Member:
    """One member's sight of the group, and what it wants to send."""

    me: Process
    incarnation: int = 7
    founded: int = 1000
    sent: deque[bytes] = field(default_factory=deque)
    events: list[EngineEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.membership = Membership(self.me, self.incarnation, lambda: self.founded, self.sent.append)

    def take(self, *callbacks: Callback) -> list[EngineEvent]:
        new: list[EngineEvent] = []
        for callback in callbacks:
            new += self.membership.take(callback)
        self.events += new
        return new

    @property
    def views(self) -> list[View]:
        return [e.view for e in self.events if isinstance(e, NewView)]


def founder(me: Process = A, ring: int = 8) -> Member:
    """A member that is alone in a ring."""
    member = Member(me)
    member.take(Confchg((me,), (), (because(me, JOIN),)), Totem(me.nodeid, ring, (me.nodeid,)))
    return member


def group_of_three() -> Member:
    """A, with B and C, after a change of the ring to number 12."""
    member = founder()
    member.take(Confchg((A, B, C), (), (because(B, NODEUP), because(C, NODEUP))), Totem(1, 12, (1, 2, 3)))
    assert member.views[-1].members == (1, 2, 3)
    return member


def the_view(events: list[EngineEvent]) -> View:
    views = [e.view for e in events if isinstance(e, NewView)]
    assert len(views) == 1
    return views[0]


def test_who_is_alone_is_a_member_at_once() -> None:
    member = founder()
    assert member.events[0] == Joined(1, 7)  # type: ignore[arg-type]
    assert member.views[0].members == (1,)
    assert member.views[0].id.change == 1000
    assert not member.views[0].direct


def test_a_host_that_dies_is_one_view() -> None:
    member = group_of_three()
    view = the_view(member.take(Confchg((A, B), (because(C, NODEDOWN),), ()), Totem(1, 16, (1, 2))))
    assert view.left == ((3, Left.HOST_LOST),)
    assert view.joined == ()
    assert view.direct


def test_hazard_02_a_ring_that_was_not_shown_is_not_vouched_for() -> None:
    member = group_of_three()
    view = the_view(member.take(Confchg((A, B), (because(C, NODEDOWN),), ()), Totem(1, 12 + 2 * RING_STEP, (1, 2))))
    assert not view.direct


def test_hazard_11_left_and_joined_in_one_change_is_one_view_and_no_departure() -> None:
    member = group_of_three()
    assert member.take(Confchg((A, B), (because(C, NODEDOWN),), ())) == []
    assert member.take(Confchg((A, B, C), (), (because(C, NODEUP),))) == []
    view = the_view(member.take(Totem(1, 20, (1, 2, 3))))
    assert view.members == (1, 2, 3)
    assert view.joined == (3,)
    assert view.left == ()


def test_hazard_11_every_change_of_the_ring_is_a_view_even_with_an_id_seen_before() -> None:
    member = group_of_three()
    member.take(Confchg((A, B), (because(C, NODEDOWN),), ()), Totem(1, 16, (1, 2)))
    view = the_view(member.take(Confchg((A, B, C), (), (because(C, NODEUP),)), Totem(1, 16, (1, 2, 3))))
    assert view.joined == (3,)


def test_the_reasons_of_leaving() -> None:
    for reason, why in ((LEAVE, Left.LEFT), (PROCDOWN, Left.PROCESS_DIED)):
        member = group_of_three()
        view = the_view(member.take(Confchg((A, B), (because(C, reason),), ())))
        assert view.left == ((3, why),)
        assert view.direct


def test_hazard_12_a_view_id_is_not_used_twice_within_a_ring() -> None:
    member = group_of_three()
    for _ in range(3):
        member.take(Confchg((A, B), (because(C, LEAVE),), ()))
        member.take(Confchg((A, B, C), (), (because(C, JOIN),)))
    ids = [view.id for view in member.views]
    assert len(set(ids)) == len(ids)


def test_hazard_12_a_leaver_that_was_no_member_changes_nothing() -> None:
    member = group_of_three()
    ghost = Process(9, 900)
    assert member.take(Confchg((A, B, C), (because(ghost, LEAVE),), ())) == []
    assert member.take(Confchg((A, B, C), (because(Process(3, 299), PROCDOWN),), ())) == []


def test_hazard_13_one_process_per_node_the_last_that_joined_counts() -> None:
    member = group_of_three()
    young = Process(3, 301)
    view = the_view(member.take(Confchg((A, B, C, young), (), (because(young, JOIN),))))
    assert view.members == (1, 2, 3)
    assert view.joined == (3,)
    assert member.take(said(C, b"from the dead")[0]) == []
    assert member.take(said(young, b"hello")[0]) == [Delivered(3, b"hello")]  # type: ignore[arg-type]
    assert member.take(Confchg((A, B, young), (because(C, PROCDOWN),), ())) == []


def test_what_is_no_frame_of_ours_is_counted_and_dropped() -> None:
    member = group_of_three()
    for rubbish in (
        b"",
        b"\x09",
        bytes((HELLO,)),
        bytes((HELLO,)) + b"x" * 50,
        bytes((CHUNK,)),
        bytes((CHUNK,)) + b"x" * 50,
    ):
        assert member.take(Message(B, rubbish)) == []
    assert member.membership.malformed == 6


def test_only_a_payload_that_cpg_would_not_carry_goes_in_chunks() -> None:
    """Members of the version before know none."""
    assert payload_frames(bytes(WHOLE_BYTES_MAX), 1) == [bytes(1 + WHOLE_BYTES_MAX)]
    frames = payload_frames(bytes(PAYLOAD_BYTES_MAX), 1)
    assert len(frames) == CHUNKS_MAX
    assert {frame[0] for frame in frames} == {CHUNK}


def test_a_large_payload_is_delivered_whole_among_others() -> None:
    member = group_of_three()
    large = bytes(range(250)) * (PAYLOAD_BYTES_MAX // 250)
    events = []
    for chunk in said(B, large):
        events += member.take(chunk, *said(C, b"small"))
    assert events[-2:] == [Delivered(NodeId(2), large), Delivered(NodeId(3), b"small")]
    assert len(events) == CHUNKS_MAX + 1


def test_what_is_unfinished_at_a_change_is_dropped_by_all() -> None:
    """A newcomer cannot have it, so nobody has it."""
    member = group_of_three()
    first, *rest = said(B, bytes(WHOLE_BYTES_MAX + 1))
    change = Confchg((A, B), (because(C, PROCDOWN),), ())
    assert [type(e) for e in member.take(first, change, *rest)] == [NewView]
    assert member.membership.malformed == 0
    assert member.take(*said(B, b"next", 2)) == [Delivered(NodeId(2), b"next")]
    assert member.take(first, *said(C, b"from the dead")) == []


class Order:
    """A ring's total order: frames that were sent are delivered to everybody who is there, at its place."""

    def __init__(self, *members: Member) -> None:
        self.members = list(members)

    def run(self) -> None:
        while any(m.sent for m in self.members):
            for sender in self.members:
                if sender.sent:
                    frame = sender.sent.popleft()
                    for member in self.members:
                        member.take(Message(sender.me, frame))

    def join(self, newcomer: Member, ring: Totem) -> None:
        everybody = (*(m.me for m in self.members), newcomer.me)
        change = Confchg(everybody, (), (because(newcomer.me, JOIN),))
        for member in self.members:
            member.take(change)
        self.members.append(newcomer)
        newcomer.take(change, ring)


def test_a_newcomer_learns_the_count_and_agrees_on_the_view() -> None:
    old = founder()
    new = Member(B, incarnation=8)
    order = Order(old, new)
    order.members.remove(new)
    order.join(new, Totem(1, 8, (1, 2)))
    assert new.events == []
    order.run()
    assert new.views[-1].id == old.views[-1].id
    assert new.views[-1].members == old.views[-1].members == (1, 2)


def test_a_newcomer_whose_elders_have_gone_founds_the_count_anew() -> None:
    new = Member(B, founded=5000)
    new.take(Confchg((A, B), (), (because(B, JOIN),)), Totem(1, 8, (1, 2)))
    assert new.events == []
    new.take(Confchg((B,), (because(A, PROCDOWN),), ()))
    assert new.views[-1].members == (2,)
    assert new.views[0].id.change == 5000


def test_a_newcomer_needs_no_welcome_when_the_ring_changes() -> None:
    old, new = founder(), Member(B)
    change = Confchg((A, B), (), (because(B, JOIN),))
    old.take(change)
    new.take(change, Totem(1, 8, (1, 2)))
    both = (Confchg((A, B, C), (), (because(C, NODEUP),)), Totem(1, 12, (1, 2, 3)))
    old.take(*both)
    new.take(*both)
    assert new.views[-1].id == old.views[-1].id
    assert new.views[-1].members == old.views[-1].members


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.randoms())
@settings(max_examples=200)
def test_members_within_a_ring_agree_on_every_view_whoever_comes_and_goes(changes: list[int], random: object) -> None:
    """Processes join and leave in any order, with Hellos and Welcomes delivered at any moment between."""
    first = Process(1, 1)
    elder = founder(first)
    order = Order(elder)
    pid = 10
    for change in changes:
        here = {m.me.nodeid: m for m in order.members}
        node = 2 + change
        if node in here:
            gone = here[node]
            order.members.remove(gone)
            left = Confchg(tuple(m.me for m in order.members), (because(gone.me, LEAVE),), ())
            for member in order.members:
                member.take(left)
        else:
            pid += 1
            order.join(Member(Process(node, pid), incarnation=pid), Totem(1, 8, (1, 2, 3, 4, 5)))
        for _ in range(random.randrange(3)):  # type: ignore[attr-defined]
            speakers = [m for m in order.members if m.sent]
            if speakers:
                speaker = random.choice(speakers)  # type: ignore[attr-defined]
                frame = speaker.sent.popleft()
                for member in order.members:
                    member.take(Message(speaker.me, frame))
    order.run()
    last = elder.views[-1]
    for member in order.members:
        assert member.views[-1].id == last.id
        assert member.views[-1].members == last.members
        seen = {v.id: v.members for v in elder.views}
        for view in member.views:
            assert seen.get(view.id, view.members) == view.members
