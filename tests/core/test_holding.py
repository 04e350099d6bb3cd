"""What a kernel answers, and what may be said then."""

from __future__ import annotations

from wackamole.core import effects as do
from wackamole.core import events as ev
from wackamole.core.machine import step
from wackamole.core.messages import Move, Moves, Released
from wackamole.core.model import Address, NodeId, Settings, Vip
from wackamole.sim.world import World

A, B = NodeId(1), NodeId(2)
VIP = Vip("v", (Address("192.0.2.1", 32), Address("2001:db8::1", 128)))


def test_a_vip_of_which_one_address_is_gone_is_not_released_before_the_other_is() -> None:
    """It was deleted behind our back, so the VIP is not held whole; the rest of it still answers."""
    settings = {
        n: Settings(node=name, nodes=("a", "b"), vips=(VIP,), config_digest="one") for n, name in ((A, "a"), (B, "b"))
    }
    world = World(settings)
    for node in settings:
        world.power_on(node)
    world.pass_time(10_000)
    (row,) = world.members[A].state.table.rows
    assert row.holder == A
    state = world.members[A].state
    view = state.view
    assert view is not None
    state, _ = step(state, ev.KernelConfirmed(state.serial, (), ()), world.now_ms)
    moves = Moves((Move(VIP.key, A, row.generation, B),), operator=True)
    state, effects = step(state, ev.MessageDelivered(B, view.id, moves), world.now_ms)
    assert [e for e in effects if isinstance(e, do.HoldExactly)] == [do.HoldExactly(state.serial, ())]
    assert not said(effects)
    _, effects = step(state, ev.KernelConfirmed(state.serial, (), ()), world.now_ms)
    assert [key for message in said(effects) for key, _ in message.released] == [VIP.key]


def said(effects: tuple[do.Effect, ...]) -> list[Released]:
    return [e.message for e in effects if isinstance(e, do.Multicast) and isinstance(e.message, Released)]
