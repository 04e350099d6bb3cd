"""Hazard 15: whatever configs are reloaded where, whoever is cut off, killed and started again in the middle of it, at
rest at most one component has a majority."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from wackamole.core import electorate as votes
from wackamole.core import machine
from wackamole.core.electorate import counting, quorate, worth_keeping
from wackamole.core.events import ConfigReloaded
from wackamole.core.model import Address, Electorate, NodeId, Partition, Phase, Report, Settings, Vip
from wackamole.core.work import Work
from wackamole.sim.world import World

NODES = tuple(NodeId(i) for i in (1, 2, 3, 4))
NAMES = {n: f"n{n}" for n in NODES}
LISTS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("n1", 1), ("n2", 1), ("n3", 1)),
    (("n1", 1), ("n2", 1), ("n3", 1), ("n4", 1)),
    (("n1", 1), ("n2", 1), ("n3", 3)),
    (("n3", 1), ("n4", 1)),
    (("n1", 1), ("n4", 1)),
    (("n4", 1),),
)


def report(node: int, *kept: Electorate, wish: tuple[tuple[str, int], ...] = LISTS[0]) -> Report:
    names = tuple(name for name, _ in wish)
    return Report(NodeId(node), 1, f"n{node}", nodes=names, votes=wish, electorates=kept, partition=Partition.MAJORITY)


def test_a_cluster_begins_by_the_configs_of_all_who_are_there() -> None:
    assert not quorate([report(1)])
    assert quorate([report(1), report(2)])
    assert not quorate([report(1), report(2, wish=LISTS[1])])
    assert quorate([replace(report(1), partition=Partition.COVER)])
    assert worth_keeping((report(1), report(2))) == (Electorate(0, LISTS[0]),)


def test_a_new_electorate_counts_once_most_of_the_old_one_keep_it() -> None:
    old, new = Electorate(0, LISTS[0]), Electorate(1, LISTS[1])
    before = [report(n, old, wish=LISTS[1]) for n in (1, 2, 4)]
    assert worth_keeping(tuple(before)) == (old, new)
    one = [report(1, old, new, wish=LISTS[1]), *before[1:]]
    assert counting(tuple(one)) == (old, new)
    two = [*(report(n, old, new, wish=LISTS[1]) for n in (1, 2)), before[2]]
    assert counting(tuple(two)) == (new,)


def test_two_that_were_begun_apart_count_both_until_one_above_them_does() -> None:
    one, other = Electorate(1, LISTS[0]), Electorate(1, LISTS[1])
    present = tuple(report(n, one, other) for n in (1, 2, 3))
    assert counting(present) == (one, other)
    assert worth_keeping(present) == (one, other, Electorate(2, LISTS[0]))


def world_of_four() -> World:
    vips = (Vip("v", (Address("192.0.2.1", 32),)),)
    first = dict(LISTS[0])
    settings = {
        n: Settings(NAMES[n], tuple(first), vips, "one", partition=Partition.MAJORITY, balance_interval_ms=10**9)
        for n in NODES
    }
    world = World(settings, beats=False)
    for n in NODES[:3]:
        world.power_on(n)
    world.run()
    return world


def disturb(world: World, dice: random.Random) -> None:
    """One thing that people and networks do."""
    what = dice.choice(("cut", "cut", "reload", "reload", "reload", "restart", "start"))
    running = sorted(world.members)
    if what == "cut":
        groups: list[list[NodeId]] = [[], []]
        for n in NODES:
            groups[dice.randrange(2)].append(n)
        world.network.partition([g for g in groups if g], lose=dice.random() < 0.5)
    elif what == "reload":
        wish = dice.choice(LISTS)
        for n in dice.sample(NODES, dice.choice((1, 2, 3, 4, 4, 4))):
            world.with_settings(n, nodes=tuple(name for name, _ in wish), votes=wish, config_digest=repr(wish))
            if n in world.members:
                world.tell(n, ConfigReloaded(world.settings[n]))
    elif what == "restart" and running:
        node = dice.choice(running)
        world.kill(node)
        if dice.random() < 0.5:
            world.power_on(node)
    else:
        for node in NODES:
            if node not in world.members and node in world.disks:  # who remembers nothing is a new cluster's founder
                world.power_on(node)


def majorities(world: World) -> int:
    """Components that may serve."""
    return len(
        {
            s.view.id
            for s in world.states().values()
            if s.view is not None and s.phase is Phase.SETTLED and quorate(s.table.reports)
        }
    )


def walk(seed: int, walks: int) -> int:
    """Return how many changes of the electorate came to count."""
    dice = random.Random(seed)
    start = world_of_four()
    start.power_on(NODES[3])  # it remembers what the others tell it
    start.run()
    assert all(start.disks.get(n) for n in NODES)
    changed = 0
    for number in range(walks):
        world = start.fork()
        epochs = set()
        for _ in range(12):
            disturb(world, dice)
            for _ in range(dice.choice((0, 3, 10, 10_000))):
                if not (actions := world.actions()):
                    break
                world.act(dice.choice(actions))
            if not world.actions():
                assert majorities(world) <= 1, (seed, number, world.disks)
            assert all(m.state.electorates == world.disks.get(n, ()) for n, m in world.members.items())
            epochs |= {kept[0].epoch for kept in world.disks.values()}
        changed += len(epochs) - 1
    return changed


@pytest.mark.parametrize("seed", [1, 2])
def test_at_most_one_component_has_a_majority(seed: int) -> None:
    assert walk(seed, walks=150) > 50


def every_list_counts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was before there were electorates: what the configs of those present say."""
    monkeypatch.setattr(
        votes, "counting", lambda present: tuple(sorted({Electorate(0, votes.wished(r)) for r in present}))
    )


def said_before_it_is_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    remember = machine.remember

    def careless(w: Work) -> None:
        remember(w)
        w.s = replace(w.s, electorates=w.s.remembering)

    monkeypatch.setattr(machine, "remember", careless)


@pytest.mark.parametrize("fault", [every_list_counts_by_itself, said_before_it_is_on_the_disk])
def test_a_fault_is_found(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        walk(seed=1, walks=1000)
