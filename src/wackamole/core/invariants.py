"""The laws, as asserts: used by scenarios, the exhaustive search and the simulator alike.

A world is anything that can say who is a member, what each member's state is and what its kernel has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from .agreed import digest_of, facts_of
from .electorate import quorate
from .model import NodeId, Partition, Phase, Row, Vip
from .placement import Placement
from .state import State
from .voice import gone


class Seen(Protocol):
    """What the laws look at."""

    @property
    def inherited(self) -> frozenset[tuple[str, NodeId, NodeId]]: ...

    def states(self) -> Mapping[NodeId, State]:
        """Every running member's state."""

    def serves(self, node: NodeId) -> Mapping[str, Vip]:
        """What a member's host answers for."""

    def replay_hint(self) -> str:
        """Where everybody stands."""


def what_is_kept_is_so(world: Seen) -> None:
    """What a state keeps so that beats need not compute it is what they would compute."""
    for node, state in world.states().items():
        assert state.gone == gone(state), f"{node} keeps {state.gone}, not {gone(state)}; {world.replay_hint()}"


def no_address_is_held_twice(world: Seen) -> None:
    """P1: members of one view never both have an address, but for what two of them brought along into it (a merge)."""
    owners: dict[tuple[object, str], list[NodeId]] = {}
    for node, state in world.states().items():
        if state.view is None:
            continue
        for ip in world.serves(node):
            owners.setdefault((state.view.id, ip), []).append(node)
    for (view, ip), nodes in owners.items():
        for i, one in enumerate(nodes):
            for other in nodes[i + 1 :]:
                pair = (ip, min(one, other), max(one, other))
                assert pair in world.inherited, f"{ip} held by {one} and {other} in view {view}; {world.replay_hint()}"


def no_address_is_served_by_two_majorities(world: Seen) -> None:
    """Under `majority` P1 holds for the whole cluster, whatever the engines say who is together with whom; but for what
    two members had when they met (they lived under `cover` before)."""
    owners: dict[str, NodeId] = {}
    for node, state in world.states().items():
        if state.settings.partition is not Partition.MAJORITY:
            continue
        for ip in world.serves(node):
            other = owners.setdefault(ip, node)
            known = (ip, min(node, other), max(node, other)) in world.inherited
            assert other == node or known, (
                f"{ip} served by {node} and {other}, each with a majority; {world.replay_hint()}"
            )


def settled_members_agree(world: Seen) -> None:
    """Members settled in one view who applied equally many messages have equal tables."""
    seen: dict[tuple[object, int, int], tuple[NodeId, str]] = {}
    for node, state in world.states().items():
        if state.view is None or state.phase is not Phase.SETTLED:
            continue
        digest = digest_of(state.table)
        place = (state.view.id, state.exchange_round, state.applied)
        other = seen.setdefault(place, (node, digest))
        assert other[1] == digest, f"tables of {node} and {other[0]} differ at {place}; {world.replay_hint()}"


def every_address_is_held_once(world: Seen) -> None:
    """P2, once faults have stopped and everything was delivered: every VIP with somebody eligible is held, by one."""
    components: dict[object, list[NodeId]] = {}
    for node, state in world.states().items():
        assert state.view is not None, f"{node} has no view; {world.replay_hint()}"
        assert state.phase is Phase.SETTLED, f"{node} is not settled; {world.replay_hint()}"
        components.setdefault(state.view.id, []).append(node)
    for nodes in components.values():
        times = Counter(ip for node in nodes for ip in world.serves(node))
        twice = sorted(ip for ip, n in times.items() if n > 1)
        assert not twice, f"{twice} held twice; {world.replay_hint()}"
        state = world.states()[nodes[0]]
        if not quorate(state.table.reports):
            assert not times, f"{sorted(times)} held without a majority; {world.replay_hint()}"
            continue
        facts = facts_of(state)
        wanted = {a.ip for r in state.table.rows for a in r.vip.addresses if _somebody_may(facts, r)}
        dark = sorted(wanted - set(times))
        assert not dark, f"{dark} held by nobody; {world.replay_hint()}"


def _somebody_may(facts: Placement, row: Row) -> bool:
    able = [n for n, r in facts.reports.items() if r.weight and not facts.forbidden(n, row.key)]
    return any(row.holder is not None or not facts.full(n, row.key) for n in able)
