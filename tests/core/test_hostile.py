"""A member that says anything at all: the others do not break, what they keep and say stays bounded, and they heal.

Messages go over the wire as bytes, so everything that `decode` lets through may come, and whatever the honest say in answer
must be what `decode` lets through.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole import wire
from wackamole.core import messages as say
from wackamole.core.agreed import digest_of
from wackamole.core.messages import KnownVip, StateMessage
from wackamole.core.model import (
    ADDRESSES_MAX,
    MEMBERS_MAX,
    ROW_ADDRESSES_MAX,
    ROWS_MAX,
    VIPS_MAX,
    Address,
    Electorate,
    NodeId,
    NotEligible,
    OnWire,
    Partition,
    Phase,
    Report,
    Row,
    Settings,
    Vip,
    VipKey,
)
from wackamole.core.shares import LOAD_MAX
from wackamole.core.standing import ORDERS_MAX, VERSION_MAX, Kind, Order
from wackamole.sim.world import Payload, World

OURS = tuple(sorted((Vip(f"v{i}", (Address(f"10.0.0.{i}", 32),)) for i in range(1, 5)), key=lambda v: v.key))
THEIRS = (
    Vip("same-address", (Address("10.0.0.1", 32),)),
    Vip("two", (Address("10.0.0.2", 32), Address("10.0.0.3", 32))),
    Vip("gateway", (Address("10.0.0.254", 24, "eth0"),)),
)
NODES = tuple(NodeId(n) for n in (1, 2, 3))


class Wired(World):
    """A world whose messages are bytes on their way."""

    def pack(self, payload: Payload) -> Hashable:
        packed = wire.encode(*payload)
        assert wire.decode(packed) == payload
        return packed

    def unpack(self, packed: Hashable) -> Payload:
        assert isinstance(packed, bytes)
        view, message = wire.decode(packed)
        assert isinstance(message, say.Message)
        return view, message


def world(partition: Partition = Partition.COVER) -> Wired:
    """Three members, settled."""
    names = tuple("abc")
    made = Wired(
        {
            node: Settings(names[node - 1], names, OURS, "digest", mature_ms=0, partition=partition, settle_ms=0)
            for node in NODES
        }
    )
    for node in NODES:
        made.power_on(node)
    made.pass_time(3000)
    assert all(m.state.phase is Phase.SETTLED for m in made.members.values())
    assert sum(len(m.kernel) for m in made.members.values()) == len(OURS)
    return made


numbers = st.sampled_from((0, 1, 2, 3, 4, 5, 7, 100, 2**31, 2**53))
nodes = st.sampled_from((1, 2, 3, 4, 2**32 - 1)).map(NodeId)
vips = st.sampled_from(OURS + THEIRS)
keys = vips.map(lambda v: v.key)
kept = st.lists(st.builds(Electorate, st.integers(0, 3), st.just((("a", 1), ("b", 1)))), max_size=2, unique=True)
reports = st.builds(
    Report,
    node=nodes,
    incarnation=st.integers(0, 2**64 - 1),
    name=st.sampled_from("abcd"),
    known=st.lists(keys, max_size=6).map(tuple),
    config_digest=st.sampled_from(("digest", "other")),
    nodes=st.lists(st.sampled_from("abcd"), max_size=4).map(tuple),
    votes=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 1000)), max_size=3).map(tuple),
    electorates=kept.map(lambda x: tuple(sorted(x))),
    placement_version=st.sampled_from((0, 1, 2**53)),
    weight=st.integers(0, 1000),
    ineligible=st.lists(st.tuples(keys, st.sampled_from(NotEligible)), max_size=3).map(tuple),
    lease_ms=st.sampled_from((0, 1, 1100, wire.LEASE_MS_MAX)),
    component=st.integers(0, 512),
    load=st.sampled_from((None, 0, 60, LOAD_MAX)),
    draining=st.booleans(),
    keeps_orders=st.sampled_from((True, True, False)),
)
rows = st.builds(
    lambda vip, **rest: Row(vip.key, vip, **rest),
    vips,
    holder=st.one_of(st.none(), nodes),
    target=st.one_of(st.none(), nodes),
    generation=numbers,
    releasing=st.lists(st.tuples(nodes, numbers), max_size=2).map(tuple),
    previous=st.one_of(st.none(), nodes),
)
moves = st.builds(say.Move, keys, nodes, numbers, nodes)


def some(of: st.SearchStrategy[Any], most: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=most).map(tuple)


orders = st.builds(
    Order,
    st.sampled_from(Kind),
    st.sampled_from(("a", "b", "d", *(v.name for v in OURS))),
    st.booleans(),
    st.sampled_from((0, 1, 2, 7, VERSION_MAX)),
    st.sampled_from("ad"),
    until_s=st.sampled_from((0, 1)),
)
incarnations = st.sampled_from((0, 1, 2**64 - 1))
hostile: st.SearchStrategy[say.Message] = st.one_of(
    st.builds(
        StateMessage,
        round=st.integers(1, 6),
        report=reports,
        known=some(st.builds(KnownVip, vips, numbers, st.booleans()), 7),
        held=some(keys),
        releasing=some(keys),
        evicted=some(st.tuples(nodes, incarnations), 2),
        blocked=some(st.tuples(keys, nodes)),
        lapsing=some(st.tuples(nodes, incarnations, st.sampled_from((0, 1, 2000))), 2),
        orders=some(orders),
    ),
    st.builds(say.Attributes, reports, some(vips)),
    st.builds(say.Moves, some(moves), st.booleans()),
    st.builds(say.Released, some(st.tuples(keys, numbers))),
    st.builds(say.Failed, keys, numbers, st.just("because")),
    st.builds(say.Beat, numbers, numbers, st.sampled_from(("", "x")), numbers),
    st.builds(say.Assign, some(st.tuples(keys, numbers, nodes))),
    st.builds(say.Evict, nodes, incarnations, numbers, st.integers(0, 3)),
    st.builds(say.Lapsed, nodes, incarnations),
    st.builds(say.Drain, nodes, st.booleans(), st.booleans()),
    st.builds(say.Restart, st.sampled_from((0, 1, 5000, wire.RESTART_MS_MAX)), numbers),
    st.builds(say.Witnessed, keys, numbers, st.sampled_from(OnWire)),
    st.builds(say.Note, st.binary(max_size=20)),
    st.builds(say.Unstick, st.booleans()),
    st.builds(say.Ordered, some(orders)),
    st.builds(say.Adopt, some(rows)),
)


def test_there_is_a_hostile_one_of_every_kind() -> None:
    seen: set[type] = set()

    @given(hostile)
    @settings(max_examples=300, database=None, derandomize=True)
    def gather(message: say.Message) -> None:
        seen.add(type(message))

    gather()
    assert seen == set(get_args(say.Message))


def is_bounded(made: Wired) -> None:
    for member in made.members.values():
        table = member.state.table
        assert len(table.rows) <= ROWS_MAX
        assert sum(len(row.vip.addresses) for row in table.rows) <= ROW_ADDRESSES_MAX
        assert len(table.reports) <= len(NODES)
        assert len(table.evicted) <= len(NODES)
        assert len(table.lapsing) <= MEMBERS_MAX
        assert len(table.orders) <= ORDERS_MAX
        assert len(member.state.lapse_due) <= MEMBERS_MAX
        assert len(member.state.said) <= 64
        assert all(len(row.releasing) <= MEMBERS_MAX for row in table.rows)
        assert set(member.kernel) <= {v.key for v in OURS}, "an address that the config does not have"


@given(st.sampled_from(NODES), st.sampled_from(Partition), st.lists(st.tuples(hostile, st.integers(0, 9)), max_size=12))
@settings(max_examples=100)
def test_a_hostile_member_breaks_nobody(
    attacker: NodeId, partition: Partition, said: list[tuple[say.Message, int]]
) -> None:
    made = world(partition)
    made.hang(attacker)  # nothing honest comes from there
    witness = next(n for n in NODES if n != attacker)
    for message, then in said:
        view = made.members[witness].state.view
        if view is not None:
            made.network.multicast(attacker, made.pack((view.id, message)))
        if then < 7:
            for _ in range(then):
                if actions := made.actions():
                    made.act(actions[then % len(actions)])
        else:
            made.pass_time(150)
        is_bounded(made)
    made.pass_time(10_000)
    is_bounded(made)
    made.crash(attacker)
    made.pass_time(20_000)
    is_bounded(made)
    honest = [m.state for m in made.members.values()]
    assert [s.phase for s in honest] == [Phase.SETTLED, Phase.SETTLED], made.replay_hint()
    assert len({digest_of(s.table) for s in honest}) == 1


def test_hazard_15_reports_that_change_to_and_fro_come_to_rest() -> None:
    """Each member decides what to keep by what was delivered, and only when its own last decision is among that."""
    made = world(Partition.MAJORITY)
    attacker = NODES[2]
    made.hang(attacker)
    view = made.members[NODES[0]].state.view
    assert view is not None
    report = made.members[NODES[0]].state.table.reports[2]
    two = tuple(Electorate(epoch, (("a", 1), ("b", 1))) for epoch in (1, 2))
    for electorates in (two, ()):
        message = say.Attributes(replace(report, electorates=electorates))
        made.network.multicast(attacker, made.pack((view.id, message)))
        made.act(made.actions()[0])
    made.run(1000)
    kept = {m.state.electorates for n, m in made.members.items() if n != attacker}
    assert len(kept) == 1


def many(start: int, count: int, addresses: int) -> tuple[KnownVip, ...]:
    return tuple(
        KnownVip(
            Vip(
                f"x{n}", tuple(Address(f"{10 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.{i}", 32) for i in range(addresses))
            ),
            1,
        )
        for n in range(start, start + count)
    )


@pytest.mark.parametrize(("count", "addresses"), [(2 * VIPS_MAX, 1), (64, 255)], ids=["rows", "addresses"])
def test_a_table_does_not_grow_with_what_a_member_says(count: int, addresses: int) -> None:
    """Each exchange opens the next before it is over, and brings VIPs that nobody has heard of."""
    made = world()
    attacker = NODES[2]
    made.hang(attacker)
    made.hang(NODES[1])
    report = replace(made.members[attacker].state.table.reports[2], known=())
    tracemalloc.start()
    try:
        for number in range(1, 4):
            view = made.members[NODES[0]].state.view
            assert view is not None
            known = many(number * count, count, addresses)
            lapsing = tuple((NodeId(1000 * number + i), 1, 1000) for i in range(MEMBERS_MAX))
            message = StateMessage(
                made.members[NODES[0]].state.exchange_round + 1, report, known, (), (), (), (), lapsing
            )
            made.network.multicast(attacker, made.pack((view.id, message)))
            while made.network.pending(NODES[0]):
                made.deliver(NODES[0])
            is_bounded(made)
            statement = made.members[NODES[0]].state.statement
            assert statement is not None
            assert len(statement.known) <= VIPS_MAX
            assert sum(len(k.vip.addresses) for k in statement.known) <= ADDRESSES_MAX
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["Assign", "Adopt"])
def test_nobody_can_put_an_address_on_an_interface_that_the_config_there_does_not_have(name: str) -> None:
    made = world()
    attacker, victim = NODES[0], NODES[1]
    made.hang(attacker)
    gateway = THEIRS[2]
    state = made.members[attacker].state
    assert state.view is not None
    mine = state.table.reports[0]
    knows = replace(mine, known=(*mine.known, gateway.key), ineligible=((gateway.key, NotEligible.REFUSED),))
    messages: list[say.Message] = [say.Attributes(knows, (gateway,)), say.Assign(((gateway.key, 0, victim),))]
    if name == "Adopt":
        messages = [say.Adopt((*state.table.rows, Row(gateway.key, gateway, victim, victim, 9)))]
    for message in messages:
        made.network.multicast(attacker, made.pack((state.view.id, message)))
    wanted: set[VipKey] = set()
    while actions := made.actions():
        made.act(actions[0])
        wanted |= {v.key for v in made.members[victim].state.wanted}
    assert wanted <= {v.key for v in OURS}
    if name == "Assign":
        seen = [row.holder for row in made.members[victim].state.table.rows if row.key == gateway.key]
        assert seen == [None]
