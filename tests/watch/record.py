"""Records tests/watch/recorded/*.json: what real daemons of a lab cluster say in some situations. As root, after a change of
`status` or `events`: `python -m tests.watch.record`."""

from __future__ import annotations

import json
from pathlib import Path

from wackamole.client import converse
from wackamole.lab.lab import Lab, Layout

RECORDED = Path(__file__).parent / "recorded"
SETTINGS = '[balance]\ninterval = "1s"\nsettle = "60s"\n'


def history(lab: Lab, node: str) -> list[dict[str, object]]:
    """The cluster's events, as a node tells them."""
    socket = str(lab.home / node / "run/wackamole/control.sock")
    return [said for kind, said in converse(socket, "events", {"cluster": True}) if kind == "progress"]


def put(lab: Lab, node: str, story: str) -> None:
    """Write down what it says now."""
    said = {"status": lab.status(node), "events": history(lab, node)}
    (RECORDED / f"{story}.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def told(lab: Lab, node: str, **fields: str) -> None:
    """Wait until it tells of such an event."""
    lab.until(lambda: any(fields.items() <= e.items() for e in history(lab, node)), within_s=30, story=str(fields))


def main() -> None:
    """A cluster that covers what it can, then one that wants a majority."""
    with Lab.create(Layout.of("record", settings=SETTINGS), ephemeral=True) as lab:
        lab.start_all()
        lab.until_settled()
        told(lab, "a", event="view", members="a,b,c")
        put(lab, "a", "settled")
        lab.ask("a", "drain", {"node": "b"})
        lab.ask("a", "move", {"vips": ["v1"], "node": "c"})
        lab.until_settled()
        told(lab, "a", event="moved", cause="an operator moved it")
        put(lab, "a", "drained")
        lab.crash("c")
        lab.until_settled(["a", "b"])
        told(lab, "a", event="moved", cause="its host was lost")
        put(lab, "a", "lost")
    with Lab.create(Layout.of("record", settings=SETTINGS, cluster='partition = "majority"'), ephemeral=True) as lab:
        lab.start_all()
        lab.until_settled()
        lab.partition(["a"], ["b", "c"])
        lab.until(lambda: not lab.kernel("a") and alone(lab), within_s=30, story="a lets go")
        told(lab, "a", event="moved", to="nobody")
        put(lab, "a", "minority")


def alone(lab: Lab) -> bool:
    """Whether a is settled by itself, and knows that it holds nothing."""
    status = lab.status("a") or {"phase": "", "vips": [], "view": {"members": []}}
    members = len(status["view"]["members"])
    return members == 1 and status["phase"] == "settled" and all(v["holder"] is None for v in status["vips"])


if __name__ == "__main__":
    main()
