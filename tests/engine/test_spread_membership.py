"""From a Spread daemon's messages to views: recorded networks that split and heal, and the orders nobody recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.spread_transcripts import conversations, heard
from wackamole.core.model import Left, NodeId, View
from wackamole.engine.chunks import CHUNK_BYTES, CHUNKS_MAX, UNFINISHED_BYTES_MAX, Joiner, split
from wackamole.engine.contract import PAYLOAD_BYTES_MAX, Delivered, EngineEvent, Joined, Lost, NewView
from wackamole.engine.spread.codec import (
    AGREED,
    FIFO,
    PRIVATE_NAME_MAX,
    Cause,
    Membership,
    Message,
    Regular,
    Rejected,
    SelfLeave,
    Transition,
    is_name,
)
from wackamole.engine.spread.membership import GroupMembership, private_name

NODES = {"alice": 1, "bob": 2, "carol": 3, "xena": 4, "anna": 5, "beth": 6, "cora": 7, "dave": 8, "erin": 9}


def as_member(name: str) -> str:
    """A recorded private group, as if that client were a node."""
    _, private, daemon = name.split("#")
    return f"#w{NODES[private]:x}-{private}#{daemon}" if private in NODES else name


def renamed(message: Message) -> Message:
    match message:
        case Membership():
            return replace(
                message,
                members=tuple(map(as_member, message.members)),
                sets=tuple(tuple(map(as_member, s)) for s in message.sets),
            )
        case Regular():
            body = split(message.body, 1)[0] if len(message.body) <= CHUNK_BYTES else message.body
            return replace(message, sender=as_member(message.sender), body=body)
    return message


def sight(group: str, me: str, messages: list[Message]) -> list[EngineEvent]:
    membership = GroupMembership(group, "w", me, incarnation=77)
    return [e for m in messages for e in membership.take(m)]


def recorded(file: str, label: str) -> list[EngineEvent]:
    """What one client of a transcript would have told its listener."""
    (talk,) = [c for c in conversations(file) if c.label == label]
    handshake, messages, _ = heard([p.raw for p in talk.came])
    assert handshake.private_group is not None
    return sight("grp", as_member(handshake.private_group), [renamed(m) for m in messages])


def views(events: list[EngineEvent]) -> list[View]:
    return [e.view for e in events if isinstance(e, NewView)]


def short(view: View) -> tuple[str, str, str, bool]:
    left = " ".join(f"{n}:{why.name}" for n, why in view.left)
    return (" ".join(map(str, view.members)), " ".join(map(str, view.joined)), left, view.direct)


BOTH_ORDERS = pytest.mark.parametrize("order", ["", "-big-endian"])


@BOTH_ORDERS
def test_a_partition_and_a_merge(order: str) -> None:
    alice, carol = recorded(f"partition-and-merge{order}", "a"), recorded(f"partition-and-merge{order}", "c")
    assert alice[0] == Joined(NodeId(1), 77)
    assert [short(v) for v in views(alice)][:5] == [
        ("1", "1", "", False),
        ("1 2", "2", "", True),
        ("1 2 3", "3", "", True),
        ("1 2", "", "3:HOST_LOST", True),
        ("1 2 3", "3", "", False),
    ]
    assert [short(v) for v in views(carol)][:3] == [
        ("1 2 3", "1 2 3", "", False),
        ("3", "", "1:HOST_LOST 2:HOST_LOST", True),
        ("1 2 3", "1 2", "", False),
    ]
    both = {v.id: v.members for v in views(alice)}
    assert all(both.get(v.id, v.members) == v.members for v in views(carol))
    assert views(carol)[2].id == views(alice)[4].id
    said = [e for e in alice if isinstance(e, Delivered)]
    assert said
    assert all(e.sender in (1, 2, 3) for e in said)


@BOTH_ORDERS
def test_three_parts_merge_at_once(order: str) -> None:
    came = {"a": {3, 4, 6, 7}, "c": {1, 5, 3, 7}, "e": {1, 5, 2, 6}}
    ids = set()
    for label, others in came.items():
        last = views(recorded(f"three-way-merge{order}", label))[-1]
        assert last.members == (1, 2, 3, 5, 6, 7)
        assert not last.direct
        ids.add(last.id)
        assert set(last.joined) == {1, 2, 3, 5, 6, 7} - {int(n) for n in {"a": "15", "c": "26", "e": "37"}[label]}
        assert others
    assert len(ids) == 1


@BOTH_ORDERS
def test_a_daemon_that_crashes_takes_its_members_along(order: str) -> None:
    last = [short(v) for v in views(recorded(f"daemon-crash{order}", "a"))]
    assert any(left.endswith("HOST_LOST") and direct for _, _, left, direct in last)


def test_a_change_during_a_change_gives_no_view_of_its_own() -> None:
    alice, bob, carol, xena = (recorded("changes-during-partition", label) for label in "abcx")
    seen = [short(v) for v in views(alice)]
    assert seen[:5] == [
        ("1", "1", "", False),
        ("1 2", "2", "", True),
        ("1 2 3", "3", "", True),
        ("1 2 3 4", "4", "", True),
        ("1 2", "", "3:HOST_LOST 4:DISCONNECTED", True),
    ]
    assert [v.id for v in views(bob)] == [v.id for v in views(alice)][1:]
    assert [short(v) for v in views(carol)][-2:] == [
        ("1 2 3", "", "4:LEFT", True),
        ("3", "", "1:HOST_LOST 2:HOST_LOST", True),
    ]
    assert Lost("this process was taken out of its group") in xena


@pytest.mark.parametrize(
    ("file", "why"), [("leave", Left.LEFT), ("disconnect", Left.DISCONNECTED), ("crash", Left.DISCONNECTED)]
)
def test_the_three_ways_out(file: str, why: Left) -> None:
    for talk in conversations(file):
        reasons = [reason for v in views(recorded(file, talk.label)) for _, reason in v.left]
        if reasons:
            assert set(reasons) <= {why, Left.DISCONNECTED}
            assert why in reasons
            return
    pytest.fail("nobody saw anybody go")


# -- by hand ------------------------------------------------------------------------------------------------------------

A, B, C, D = "#w1-aaaa#d1", "#w2-bbbb#d2", "#w3-cccc#d3", "#w4-dddd#d4"


@dataclass
class Member:
    """One member's sight of a group whose memberships are written by hand."""

    me: str
    events: list[EngineEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.membership = GroupMembership("g", "w", self.me, 7)

    def take(self, *messages: Message) -> list[EngineEvent]:
        new = [e for m in messages for e in self.membership.take(m)]
        self.events += new
        return new

    def last(self) -> View:
        return views(self.events)[-1]


def changed(cause: Cause, who: str, count: int, *members: str, ring: int = 9) -> Membership:
    return Membership("g", cause, members, (5, ring, count), ((who,),), 0)


def network(ring: int, count: int, *sets: tuple[str, ...], mine: int = 0) -> Membership:
    members = tuple(sorted(n for s in sets for n in s))
    return Membership("g", Cause.NETWORK, members, (5, ring, count), sets, mine)


def said(sender: str, payload: bytes, serial: int = 1) -> list[Regular]:
    return [Regular(sender, ("g",), AGREED, 0, chunk) for chunk in split(payload, serial)]


SIGNAL = Transition("g", (5, 9, 3))


def three() -> Member:
    member = Member(A)
    member.take(changed(Cause.JOIN, A, 1, A), changed(Cause.JOIN, B, 2, A, B), changed(Cause.JOIN, C, 3, A, B, C))
    assert member.last().members == (1, 2, 3)
    return member


def test_nothing_is_delivered_between_a_signal_and_its_view() -> None:
    """Hazard 32: such a delivery must not renew a lease, and those who go on together drop the same."""
    member = three()
    assert member.take(*said(A, b"before")) == [Delivered(NodeId(1), b"before")]
    assert member.take(SIGNAL, *said(A, b"between")) == []
    assert member.take(network(10, 2, (A, B), (C,)), *said(B, b"still"), SIGNAL, *said(B, b"between")) == []
    member.take(network(11, 1, (A, B)))
    assert short(member.last()) == ("1 2", "", "3:HOST_LOST", True)
    assert member.take(*said(B, b"after")) == [Delivered(NodeId(2), b"after")]


def test_who_joins_during_a_change_comes_with_the_view_and_is_new_to_all() -> None:
    old, new = three(), Member(D)
    joining = (SIGNAL, network(10, 2, (A, B), (C,), (D,)), SIGNAL)
    assert old.take(*joining) == []
    assert new.take(replace(network(10, 2, (A, B), (C,), (D,)), mine=2), SIGNAL, *said(A, b"x")) == []
    final = network(11, 1, (A, B, D))
    old.take(final)
    new.take(final)
    assert short(old.last()) == ("1 2 4", "4", "3:HOST_LOST", True)
    assert short(new.last()) == ("1 2 4", "1 2 4", "", False)
    assert old.last().id == new.last().id


def test_a_merge_that_comes_with_a_loss() -> None:
    member = three()
    member.take(SIGNAL, network(11, 1, (A, B), (D,)))
    assert short(member.last()) == ("1 2 4", "4", "3:HOST_LOST", False)


def test_who_was_away_and_is_back_is_new() -> None:
    member = three()
    member.take(network(11, 1, (A, B), (C,)))
    assert short(member.last()) == ("1 2 3", "3", "", False)
    again = "#w3-again#d3"
    member.take(SIGNAL, network(12, 2, (A, B)), SIGNAL, network(13, 1, (A, B, again)))
    assert short(member.last()) == ("1 2 3", "3", "", True)


def test_strangers_in_the_group_are_nobodys_view() -> None:
    member = three()
    before = member.last()
    stranger = "#mallory#d2"
    assert member.take(changed(Cause.JOIN, stranger, 4, A, B, stranger, C)) == []
    assert member.membership.strangers == 1
    assert member.take(*said(stranger, b"hello")) == []
    assert member.membership.malformed == 1
    assert member.take(changed(Cause.DISCONNECT, stranger, 5, A, B, C)) == []
    assert member.last() == before
    for other in ("#w0-zero#d1", "#wfffff-x#d1", "#w3cccc#d3", "#W3-cccc#d3", "#w3-#d3", "#x3-cccc#d3"):
        assert member.take(changed(Cause.JOIN, other, 6, A, B, C, other)) == [], other


def test_what_is_not_said_to_all_in_order_is_not_delivered() -> None:
    member = three()
    (good,) = said(B, b"good")
    assert member.take(replace(good, groups=(A,))) == []
    assert member.take(replace(good, service=FIFO)) == []
    assert member.take(replace(good, body=b"short")) == []
    assert member.membership.malformed == 2
    assert member.take(replace(good, groups=("other", "g"))) == [Delivered(NodeId(2), b"good")]
    assert member.take(replace(SIGNAL, group="other"), good) == [Delivered(NodeId(2), b"good")]
    assert member.take(Membership("other", Cause.JOIN, (A,), (1, 1, 1), ((A,),), 0), SelfLeave("other")) == []


def test_a_second_process_of_a_node_gives_way() -> None:
    """Two hosts that were told the same name, say: whoever was there first stays."""
    second = "#w1-0000#d4"
    joining = changed(Cause.JOIN, second, 4, A, B, C, second)
    late = Member(second)
    assert late.take(joining) == [Lost(f"another process is node 1: {A}")]
    for me in (A, B):
        member = Member(me)
        member.take(changed(Cause.JOIN, me, 3, A, B, C))
        member.take(replace(joining, members=(second, A, B, C)))
        assert short(member.last()) == ("1 2 3", "", "", True)
        assert member.take(*said(second, b"mine")) == []
        assert member.take(*said(A, b"mine")) == [Delivered(NodeId(1), b"mine")]
        member.take(changed(Cause.LEAVE, second, 5, A, B, C))
        assert short(member.last()) == ("1 2 3", "", "", True)


def test_of_two_processes_of_a_node_that_meet_one_stays() -> None:
    other = "#w1-zzzz#d4"
    merge = network(12, 1, (A, B), (other, D))
    one, far = three(), Member(other)
    far.take(changed(Cause.JOIN, other, 1, other, D, ring=4))
    one.take(merge)
    assert one.last().members == (1, 2, 4)
    assert far.take(replace(merge, mine=1)) == [Lost(f"another process is node 1: {A}")]


def test_a_group_that_begins_anew_has_other_ids() -> None:
    """A group that was empty gets the numbers again that it had in the same membership of the daemons."""
    ids = []
    for me in (A, "#w1-bbbb#d1"):
        member = Member(me)
        member.take(changed(Cause.JOIN, me, 1, me))
        ids.append(member.last().id)
    assert ids[0] != ids[1]
    assert max(ids[0].node, ids[0].seq, ids[0].change) < 2**53
    lowest = Membership("g", Cause.JOIN, (A,), (-1, -1, -1), ((A,),), 0)
    (_, event) = Member(A).take(lowest)
    assert isinstance(event, NewView)
    assert 0 <= min(event.view.id.node, event.view.id.seq) <= event.view.id.seq < 2**53


def test_a_policy_that_forbids_the_group() -> None:
    assert Member(A).take(Rejected(0x100, ("g", A))) == [Lost("the Spread daemon's access policy forbids this group")]


@pytest.mark.parametrize("node", [1, 0xB, 0xFFFF])
def test_private_names_tell_the_node_and_differ(node: int) -> None:
    names = {private_name("w", NodeId(node)) for _ in range(50)}
    assert len(names) > 40
    for name in names:
        assert is_name(name, PRIVATE_NAME_MAX)
        joined = Member(f"#{name}#d1").take(changed(Cause.JOIN, "x", 1, f"#{name}#d1"))[0]
        assert joined == Joined(NodeId(node), 7)


# -- chunks -------------------------------------------------------------------------------------------------------------


def test_a_large_payload_is_delivered_whole_among_others() -> None:
    member = three()
    large = bytes(range(250)) * (PAYLOAD_BYTES_MAX // 250)
    assert len(large) == PAYLOAD_BYTES_MAX
    chunks = said(B, large)
    assert len(chunks) == CHUNKS_MAX
    events = []
    for chunk in chunks:
        events += member.take(chunk, *said(C, b"small", 9))
    assert events[-2:] == [Delivered(NodeId(2), large), Delivered(NodeId(3), b"small")]
    assert len(events) == CHUNKS_MAX + 1


@pytest.mark.parametrize(
    "change",
    [lambda: [changed(Cause.JOIN, D, 4, A, B, C, D)], lambda: [SIGNAL, network(11, 1, (A, B, C))]],
    ids=["join", "network"],
)
def test_what_is_unfinished_at_a_change_is_dropped_by_all(change: Callable[[], list[Message]]) -> None:
    """A newcomer cannot have it, so nobody has it."""
    member = three()
    first, *rest = said(B, bytes(3 * CHUNK_BYTES))
    assert [type(e) for e in member.take(first, *change(), *rest)] == [NewView]
    assert member.membership.malformed == 0
    assert member.take(*said(B, b"next", 2)) == [Delivered(NodeId(2), b"next")]


def test_a_stranger_who_comes_and_goes_costs_no_large_payload() -> None:
    member = three()
    stranger = "#mallory#d2"
    first, *rest = said(B, bytes(3 * CHUNK_BYTES))
    coming = changed(Cause.JOIN, stranger, 4, A, B, stranger, C)
    assert member.take(first, coming, *rest) == [Delivered(NodeId(2), bytes(3 * CHUNK_BYTES))]


def test_chunks_that_do_not_fit_together_are_dropped() -> None:
    joiner = Joiner()
    one, two, three_ = split(bytes(3 * CHUNK_BYTES), 5)
    assert joiner.take("b", one) is None
    with pytest.raises(ValueError, match="does not follow"):
        joiner.take("b", three_)
    assert joiner.take("b", two) is None  # the rest of what was dropped
    for bad in (b"", b"1234567", split(b"x", 1)[0][:4] + b"\0\1\0\1", split(b"", 1)[0][:4] + b"\0\0\0\xff"):
        with pytest.raises(ValueError, match="chunk"):
            joiner.take("b", bad)
    too_large = split(bytes(CHUNK_BYTES * CHUNKS_MAX), 6)
    assert all(joiner.take("b", c) is None for c in too_large[:-1])
    with pytest.raises(ValueError, match="a payload of"):
        joiner.take("b", too_large[-1])


def test_unfinished_payloads_are_bounded() -> None:
    joiner = Joiner()
    senders = [f"s{i}" for i in range(200)]
    halves = split(bytes(2 * CHUNK_BYTES), 1)
    for sender in senders:
        assert joiner.take(sender, halves[0]) is None
    finished = [s for s in senders if joiner.take(s, halves[1]) is not None]
    assert finished == senders[-(UNFINISHED_BYTES_MAX // CHUNK_BYTES) :]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=40)), max_size=20))
def test_rubbish_as_chunks_is_refused_or_dropped(bodies: list[tuple[str, bytes]]) -> None:
    joiner = Joiner()
    for sender, body in bodies:
        try:
            payload = joiner.take(sender, body)
        except ValueError:
            continue
        assert payload is None or len(payload) <= len(body)


NAMES = st.sampled_from([A, B, C, D, "#w1-zzzz#d4", "#mallory#d2"])


@given(st.data())
def test_whatever_a_daemon_says_no_view_is_wrong_in_itself(data: st.DataObject) -> None:
    member = Member(A)
    for count in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["change", "network", "signal", "say"]))
        names = tuple(sorted({A, *data.draw(st.sets(NAMES))}))
        match kind:
            case "change":
                cause = data.draw(st.sampled_from([Cause.JOIN, Cause.LEAVE, Cause.DISCONNECT]))
                member.take(changed(cause, data.draw(NAMES), count + 1, *names))
            case "network":
                cut = data.draw(st.integers(0, len(names)))
                mine = 0 if A in names[:cut] else 1
                sets = (names[:cut], names[cut:])
                member.take(network(10 + count, data.draw(st.integers(1, 2)), *sets, mine=mine))
            case "signal":
                member.take(SIGNAL)
            case "say":
                member.take(*said(data.draw(NAMES), b"x"))
        if Lost in map(type, member.events):
            break
    before: View | None = None
    for view in views(member.events):
        assert NodeId(1) in view.members
        assert view.members == tuple(sorted(set(view.members)))
        assert set(view.joined) <= set(view.members)
        assert not {n for n, _ in view.left} & set(view.members)
        if before is None:
            assert view.joined == view.members
            assert not view.direct
        else:
            assert set(view.members) - set(before.members) <= set(view.joined)
            assert {n for n, _ in view.left} == set(before.members) - set(view.members)
        before = view
