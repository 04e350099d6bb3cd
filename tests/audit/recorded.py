"""A modelled cluster whose members keep records, each by a clock of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wackamole.core import effects as do
from wackamole.core.effects import Effect
from wackamole.core.events import Event
from wackamole.core.model import NodeId
from wackamole.core.state import NOBODY, State
from wackamole.engine.memory import Network
from wackamole.records import AnyRecord, Heard, Reading, Recorder, line
from wackamole.sim.story import LawfulWorld

EPOCH_US = 1_700_000_000_000_000
BOOT_US = 1_000_000_000


@dataclass(slots=True)
class RecordedWorld(LawfulWorld):
    """Every step of every member is recorded. Steps at the same time are a microsecond apart, in the order of the model."""

    network: Network = field(default_factory=Network)  # ids of views are never used again
    kept: dict[NodeId, list[AnyRecord]] = field(default_factory=dict)
    recorders: dict[NodeId, Recorder] = field(default_factory=dict)
    last_us: int = BOOT_US
    runs: int = 0
    stepping: NodeId = NOBODY

    def reading(self) -> Reading:
        """The one true clock."""
        self.last_us = max(self.last_us + 1, BOOT_US + self.now_ms * 1000)
        return Reading(self.last_us, EPOCH_US + self.last_us, self.last_us)

    def power_on(self, node: NodeId) -> None:
        self.runs += 1
        self.recorders[node] = Recorder(
            self.settings[node],
            cluster="web",
            boot=f"boot of {node}",
            run=f"run {self.runs}",
            slack_ms=50,
            clocks=self.reading,
        )
        self.kept.setdefault(node, []).extend(self.recorders[node].begin())
        LawfulWorld.power_on(self, node)

    def tell(self, node: NodeId, event: Event) -> None:
        self.stepping = node
        LawfulWorld.tell(self, node, event)

    def step(self, state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
        node = self.stepping
        after, effects = LawfulWorld.step(self, state, event)
        self.kept[node] += self.recorders[node].note(event, effects, after)
        if any(isinstance(e, do.LeaveGroup) and not e.come_back for e in effects):
            self.kept[node].append(self.recorders[node].stop("left"))
        return after, effects

    def files(self, ahead_us: Mapping[NodeId, int] | None = None) -> list[tuple[str, bytes]]:
        """What the members wrote, if their clocks are ahead of the true one by so much."""
        ahead = {NodeId(0): BOOT_US, **(ahead_us or {})}
        found = []
        for node, records in sorted(self.kept.items()):
            text = b"".join(line(shifted(r, ahead.get(node, 0), ahead)) for r in records)
            found.append((f"{self.name(node)}.jsonl", text))
        return found


def shifted(record: AnyRecord, by: int, ahead: Mapping[NodeId, int]) -> AnyRecord:
    """A record as a clock that is ahead by so much would have it. Beats are stamped by the true time since the epoch of
    the model, to which NodeId(0) says how far the clocks of records are ahead."""
    changes: dict[str, Any] = {}
    for name in ("at", "wall", "mono", "until", "lapsed", "since"):
        if getattr(record, name, None) is not None:
            changes[name] = getattr(record, name) + by
    if isinstance(record, Heard):
        changes["sent"] = record.sent + ahead[NodeId(0)] + ahead.get(NodeId(record.member), 0)
    return msgspec.structs.replace(record, **changes)
