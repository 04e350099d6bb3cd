"""Whether a member is ready: it is in the group, what it does is agreed, and the fence stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.model import Phase


def reasons_against(status: Mapping[str, Any]) -> list[str]:
    """Why the member that gave this answer to `status` is not ready; empty if it is."""
    found = []
    engine, fence = status["engine"], status["fence"]
    if engine.get("state", "joined") != "joined":
        found.append(f"the engine is {engine['state']}")
    if status["phase"] != Phase.SETTLED.value:
        found.append(f"this node is not settled: {status['phase']}")
    differ = [m["name"] for m in status["view"]["members"] if not m["config_agrees"]]
    if differ:
        found.append(f"the config of {', '.join(differ)} differs from this node's")
    if fence["mode"] == "off":
        found.append("there is no fence, as the config asks")
    elif fence["state"] != "open":
        found.append("the fence is shut: VIPs that are held here are silent")
    elif not fence.get("proven", True):
        found.append("the fence is not proven: others wait for its lease before they take over")
    return found
