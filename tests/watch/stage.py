"""A control socket that says what it is told to: the daemon's own server, with recorded answers behind it."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

from wackamole.shell.control import ControlServer, Refused
from wackamole.shell.journal import Follower

RECORDED = Path(__file__).parent / "recorded"
STORIES = sorted(p.stem for p in RECORDED.glob("*.json"))


def recorded(story: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a real daemon said: its status, and the cluster's events."""
    said = json.loads((RECORDED / f"{story}.json").read_text())
    return said["status"], said["events"]


def enlarged(status: dict[str, Any], nodes: int, vips: int) -> dict[str, Any]:
    """The same answer for a larger cluster, with one node of each kind of trouble."""
    found = copy.deepcopy(status)
    member, vip = found["view"]["members"][0], found["vips"][0]
    names = [f"node-{n}" for n in range(1, nodes + 1)]
    found["node"] = found["view"]["representative"] = names[0]
    found["view"]["members"] = [{**member, "id": i, "name": name} for i, name in enumerate(names, 1)]
    found["view"]["members"][nodes // 2]["drain"] = True
    found["absent"] = ["node-away"]
    found["vips"] = [
        {
            **vip,
            "name": f"vip-{i}",
            "key": f"vip-{i}#0",
            "addresses": [f"10.1.{i // 250}.{i % 250}/32"],
            "holder": names[i % nodes],
            "target": names[i % nodes],
            "here": i % nodes == 0,
        }
        for i in range(1, vips + 1)
    ]
    found["vips"][vips // 2] |= {"holder": None, "target": None, "note": "node-1: the interface has no carrier"}
    return found


class Stage:
    """Serves while it is entered; `open` and `shut` come and go as a daemon does. `orders`: what was asked for."""

    def __init__(self, path: Path, story: str = "settled") -> None:
        self.path = path
        self.status, self.events = recorded(story)
        self.orders: list[dict[str, Any]] = []
        self.refusal: str | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: ControlServer | None = None
        self._followers: set[Follower[dict[str, Any]]] = set()

    def __enter__(self) -> Stage:
        self._thread.start()
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, wrong: BaseException | None, at: TracebackType | None) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self) -> None:
        """The daemon is there."""
        server = ControlServer(self.path, self._handle, read_only_for_others=True)
        asyncio.run_coroutine_threadsafe(server.start(), self._loop).result(30)
        self._server = server

    def shut(self) -> None:
        """The daemon is gone, and its connections with it."""

        async def end() -> None:
            if self._server is not None:
                await self._server.close()
                self._server = None
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in tasks:  # again: wait_for of Python 3.11 may swallow it when it ends at the same moment
                    task.cancel()
                await asyncio.wait(tasks, timeout=1)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)

    def tell(self, **event: Any) -> None:
        """Something happened."""
        place = {"epoch": 9, "view": "b.99.0", "index": len(self.events)}
        entry = {**event, "said_by": "a", "run": "0", "number": len(self.events), "place": place}

        def offer() -> None:
            self.events.append(entry)
            for follower in self._followers:
                follower.offer(entry)

        self._loop.call_soon_threadsafe(offer)

    async def _handle(self, verb: str, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        match verb:
            case "status":
                yield {"result": self.status}
            case "events":
                async for entry in self._history():
                    yield {"progress": entry}
            case "drain" | "resume" | "move":
                self.orders.append(request)
                if self.refusal is not None:
                    raise Refused(self.refusal)
                node = request.get("node")
                yield {"result": {"node": node, "vips_moved": 2, "moved": request.get("vips"), "to": node}}
            case _:
                raise Refused(f"there is no verb {verb!r}")

    async def _history(self) -> AsyncIterator[dict[str, Any]]:
        follower = Follower[dict[str, Any]]()
        self._followers.add(follower)
        try:
            for entry in tuple(self.events):
                yield entry
            while True:
                yield await follower.next()
        finally:
            self._followers.discard(follower)
