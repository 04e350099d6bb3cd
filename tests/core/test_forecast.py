"""`plan` equals what then happens: whatever cluster, whatever was ordered before, the machine comes to rest where it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.core.events import ConfigReloaded, MoveRequested, OrderRequested
from wackamole.core.forecast import cluster, drained, forecast, supposed, without
from wackamole.core.model import Address, Count, NodeId, NotEligible, Phase, Row, Settings, Vip, VipKey
from wackamole.core.standing import Kind, Order
from wackamole.core.state import State
from wackamole.sim.world import World

NAMES = "abcde"
REST_MS = 15_000


@st.composite
def configs(draw: st.DrawFn) -> dict[NodeId, Settings]:
    """Two to five nodes with some VIPs."""
    names = NAMES[: draw(st.integers(2, 5))]
    vips = tuple(
        Vip(
            f"v{i:02}", tuple(Address(f"192.0.{2 + j}.{i + 1}", 32) for j in range(draw(st.sampled_from((1, 1, 2, 4)))))
        )
        for i in range(draw(st.integers(1, 12)))
    )
    wishes = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True).map(tuple)

    def some(what: st.SearchStrategy[Any]) -> dict[VipKey, Any]:
        """Of a few VIPs, in half of the clusters."""
        return {v.key: draw(what) for v in vips if draw(st.integers(0, 3)) == 0} if draw(st.booleans()) else {}

    prefer, avoid, apart, only = some(wishes), some(wishes), some(st.sampled_from("gh")), some(wishes)
    limited = draw(st.booleans())
    count = draw(st.sampled_from(Count))
    most = draw(st.sampled_from((None, None, 0, 1)))
    return {
        NodeId(i + 1): Settings(
            name,
            tuple(names),
            vips,
            "one",
            prefer=tuple(sorted(prefer.items())),
            avoid=tuple(sorted(avoid.items())),
            apart=tuple(sorted(apart.items())),
            not_mine=tuple(sorted(key for key, listed in only.items() if name not in listed)),
            capacity=draw(st.sampled_from((None, 2, 4, 8))) if limited else None,
            weight=draw(st.sampled_from((0, 1, 1, 1, 2, 3))) if i else 1,
            mature_ms=0,
            beat_ms=2000,  # they are left out, so nobody may be missed for it
            evict_after_ms=10**9,
            settle_ms=1000,
            balance_interval_ms=500,
            moves_per_round=most,
            count=count,
        )
        for i, name in enumerate(names)
    }


def started(nodes: dict[NodeId, Settings]) -> World:
    world = World(nodes, beats=False)
    for node in nodes:
        world.power_on(node)
    world.pass_time(REST_MS)
    return world


def state_of(world: World) -> State:
    return next(s for _, s in sorted(world.states().items()) if s.phase is Phase.SETTLED)


def now(world: World) -> State:
    state = state_of(world)
    return supposed(state.table, state.settings, state.me)


def holders(rows: tuple[Row, ...]) -> dict[VipKey, NodeId | None]:
    return {row.key: row.holder for row in rows}


@given(configs(), st.data())
@settings(max_examples=30)
def test_what_is_foreseen_is_what_then_happens(nodes: dict[NodeId, Settings], data: st.DataObject) -> None:
    world = started(nodes)
    for _ in range(data.draw(st.integers(1, 4))):
        state = state_of(world)
        here = sorted(world.members)
        node = data.draw(st.sampled_from(here))
        name = nodes[node].node
        row = data.draw(st.sampled_from(state.table.rows))
        whats = ("down", "down", "drain", "drain", "resume", "weight", "capacity", "sick", "pin", "hold")
        what = data.draw(st.sampled_from(whats))
        wished = {
            "drain": Order(Kind.DRAIN, name, in_force=True),
            "resume": Order(Kind.DRAIN, name, in_force=False),
            "pin": Order(Kind.PIN, row.vip.name, in_force=True, node=name),
            "hold": Order(Kind.HOLD, row.vip.name, in_force=True),
        }
        foreseen = None
        match what:
            case "down" if len(here) > 1:
                foreseen = forecast(without(now(world), [name]))
                world.crash(node)
            case "drain":
                foreseen = forecast(drained(now(world), [name]))
                world.tell(here[0], OrderRequested((wished[what],)))
            case "weight" | "capacity":
                value: dict[str, Any] = {what: data.draw(st.integers(0, 3))}
                table = now(world).table
                reports = tuple(replace(r, **value) if r.node == node else r for r in table.reports)
                foreseen = forecast(replace(now(world), table=replace(table, reports=reports)))
                world.with_settings(node, **value)
                world.tell(node, ConfigReloaded(world.settings[node]))
            case "sick":
                keys = data.draw(st.sets(st.sampled_from([v.key for v in nodes[node].vips])))
                world.set_health(node, [(key, NotEligible.CHECK_FAILING) for key in keys], ())
            case "pin":
                world.tell(here[0], OrderRequested((wished[what],)))
                world.run()
                world.tell(here[0], MoveRequested((row.key,), node))
            case "hold" | "resume":
                world.tell(here[0], OrderRequested((wished[what],)))
        world.pass_time(REST_MS)
        if foreseen is not None:
            assert holders(foreseen) == holders(state_of(world).table.rows), what


@given(configs())
@settings(max_examples=20)
def test_a_cluster_that_starts_comes_to_rest_where_it_is_foreseen(nodes: dict[NodeId, Settings]) -> None:
    table = cluster(nodes.items())
    foreseen = forecast(supposed(table, nodes[NodeId(1)], NodeId(1)))
    assert holders(foreseen) == holders(state_of(started(nodes)).table.rows)
