"""One member of a group on a real engine, as a process: commands come as JSON lines, events go out as JSON lines.

`python -m tests.engine.member ENGINE NODE ADDRESS…`, in the node's namespaces; NODE is its number.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, assert_never

from wackamole.core.model import NodeId
from wackamole.engine.contract import Delivered, EngineEvent, GroupEngine, Joined, Lost, NewView
from wackamole.engine.corosync.adapter import CorosyncEngine
from wackamole.engine.corosync.conf import RingNode, node_id
from wackamole.engine.corosync.managed import ManagedCorosync
from wackamole.engine.spread.adapter import SpreadEngine
from wackamole.engine.spread.address import spread_address

DETECTION_MS = 1000


def said(event: EngineEvent) -> dict[str, Any]:
    """An event as plain data."""
    match event:
        case Joined(me, incarnation):
            return {"joined": [me, incarnation]}
        case NewView(view):
            return {
                "view": [view.id.node, view.id.seq, view.id.change],
                "members": view.members,
                "came": view.joined,
                "left": [[n, why.name] for n, why in view.left],
                "direct": view.direct,
            }
        case Delivered(sender, payload):
            return {"sender": sender, "payload": payload.decode("latin-1")}
        case Lost(reason):
            return {"lost": reason}
        case _:
            assert_never(event)


def out(what: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def engine_of(kind: str, node: NodeId, addresses: list[str]) -> GroupEngine:
    """A member of the group `contract`."""

    def record(what: str, **fields: object) -> None:
        out({"record": what, **fields})

    if kind == "spread":
        return SpreadEngine("contract", node, spread_address("4803@localhost"), on_record=record)
    nodes = tuple(RingNode(f"n{node_id(a)}", node_id(a), (a,)) for a in addresses)
    managed = ManagedCorosync(
        "contract",
        nodes,
        DETECTION_MS,
        secret=b"0123456789abcdef",
        directory=Path("/run/wackamole/corosync"),
        state_dir=Path("/run/state/corosync"),
    )
    return CorosyncEngine("contract", managed, on_record=record)


async def main() -> None:
    """Serve until `leave` is done."""
    kind, node, *addresses = sys.argv[1:]
    engine = engine_of(kind, NodeId(int(node)), addresses)
    await engine.start(lambda event: out(said(event)))
    reader = asyncio.StreamReader(limit=64 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        match command["do"]:
            case "multicast":
                for payload in command["payloads"]:
                    engine.multicast(payload.encode("latin-1"))
            case "rejoin":
                await engine.rejoin("asked to")
            case "leave":
                await engine.leave()
                out({"done": True})
                return


if __name__ == "__main__":
    asyncio.run(main())
