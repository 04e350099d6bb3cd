"""What a cluster's `status` and its events mean to somebody who looks at them: what is as it should be, and what is not.

Pure: plain data of the control socket in, small frozen values out. `wackamole watch` draws them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

NAMES_SHOWN_MAX = 4
"""Of the VIPs that one sentence names; the rest is counted."""


class Grade(Enum):
    """How much attention something needs. Text never depends on it alone: each has a sign of its own."""

    GOOD = "as it should be"
    NOTICE = "under way, meant by an operator, or worth knowing"
    BAD = "not as it should be"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing about the cluster, or this node, that is not quite good."""

    grade: Grade
    sentence: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the config or of the group. `vips`: how many it holds; `words`: what there is to say, if it is not good."""

    name: str
    vips: int
    weight: int
    load: float | None
    present: bool
    drained: bool
    first: bool  # the representative
    asked: bool  # whose daemon says all this
    grade: Grade
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VipSeen:
    """A VIP. `since`: wall clock of its last change of holder, seconds since 1970."""

    name: str
    key: str
    addresses: tuple[str, ...]
    holder: str | None
    target: str | None
    moving: bool
    pinned: bool  # an operator put it there
    since: float | None
    cause: str
    grade: Grade
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it. Nodes and VIPs are in the order in which people count: web-2 before web-10."""

    cluster: str
    node: str
    phase: str
    settled: bool
    view: str
    engine: str
    fence: str
    troubles: tuple[Trouble, ...]  # the worst first
    nodes: tuple[Node, ...]
    vips: tuple[VipSeen, ...]

    @property
    def grade(self) -> Grade:
        """The worst there is."""
        return self.troubles[0].grade if self.troubles else Grade.GOOD


@dataclass(frozen=True, slots=True)
class Happening:
    """One entry of the cluster's history, as a sentence. `time`: seconds since 1970, by the clock of the node `by`."""

    time: float
    by: str
    sentence: str
    grade: Grade
    moved: tuple[str, str, str] | None = None  # VIP, from, to


def ago(seconds: float) -> str:
    """A duration as people say it, two units at most."""
    whole = max(0, int(seconds))
    for unit, size, below, per in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // per}{below}"
    return f"{whole}s"


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key to sort names by, as people count: numbers by their size, and before letters."""
    parts = filter(None, re.split(r"([0-9]+)", name))
    return tuple((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)


def overview(status: Mapping[str, Any]) -> Overview:
    """What a `status` answer means."""
    members = status["view"]["members"]
    vips = tuple(sorted((_vip(vip, status["node"]) for vip in status["vips"]), key=lambda v: (natural(v.name), v.key)))
    held: dict[str | None, int] = {}
    for vip in vips:
        held[vip.holder] = held.get(vip.holder, 0) + 1
    first = status["view"]["representative"]
    found = [_node(m, held.get(m["name"], 0), first=first, asked=status["node"]) for m in members]
    found += [
        Node(name, held.get(name, 0), 0, None, False, False, False, name == status["node"], Grade.BAD, ("absent",))
        for name in status["absent"]
    ]
    nodes = tuple(sorted(found, key=lambda n: natural(n.name)))
    engine, fence = status["engine"], status["fence"]
    troubles = [*_of_this_node(status), *_of_vips(vips), *_of_nodes(nodes)]
    troubles += [Trouble(Grade.NOTICE, text) for text in status["warnings"]]
    return Overview(
        cluster=status["cluster"],
        node=status["node"],
        phase=status["phase"],
        settled=status["phase"] == "settled",
        view=str(status["view"]["id"] or "none"),
        engine=f"{engine.get('type', '?')} {engine.get('state', '?')}",
        fence=f"{fence['mode']} {fence['state']}" if fence["mode"] != "off" else "off",
        troubles=tuple(sorted(troubles, key=lambda t: t.grade is not Grade.BAD)),
        nodes=nodes,
        vips=vips,
    )


def _node(member: Mapping[str, Any], vips: int, *, first: str | None, asked: str) -> Node:
    bad = list(member["reasons"])
    words = [*bad, *(["drained"] if member["drain"] and not member["leaving"] else [])]
    words += ["leaving"] if member["leaving"] else []
    words += [] if member["mature"] else ["not matured yet"]
    words += [] if member["config_agrees"] else ["its config differs"]
    return Node(
        name=member["name"],
        vips=vips,
        weight=member["weight"],
        load=member["load"],
        present=True,
        drained=member["drain"],
        first=member["name"] == first,
        asked=member["name"] == asked,
        grade=Grade.BAD if bad else Grade.NOTICE if words else Grade.GOOD,
        words=tuple(words),
    )


def _vip(vip: Mapping[str, Any], asked: str) -> VipSeen:
    bad, notice = [], []
    if vip["holder"] is None and vip["target"] is None:
        bad.append(vip["note"] or "no reason is known")
    elif vip["moving"]:
        notice.append(vip["note"] or f"on its way to {vip['target'] or 'nobody'}")
    elif vip["note"]:
        notice.append(vip["note"])
    if not vip["moving"] and vip["holder"] == asked and not vip["here"]:
        bad.append(f"missing in the kernel of {asked}")
    if vip["here"] and vip["holder"] != asked and not vip["moving"]:
        bad.append(f"still in the kernel of {asked}")
    witness = vip["witness"]
    if witness is not None and witness["result"] != "verified":
        bad.append(f"{witness['result']} on the wire, {witness['by']} says")
    if vip["duplicates"]:
        bad.append("another host claims it")
    return VipSeen(
        name=vip["name"],
        key=vip["key"],
        addresses=tuple(vip["addresses"]),
        holder=vip["holder"],
        target=vip["target"],
        moving=vip["moving"],
        pinned=vip["pinned_by_operator"],
        since=vip["since"],
        cause=vip["cause"],
        grade=Grade.BAD if bad else Grade.NOTICE if notice else Grade.GOOD,
        words=(*bad, *notice),
    )


def _of_this_node(status: Mapping[str, Any]) -> list[Trouble]:
    found = []
    engine, fence, asked = status["engine"], status["fence"], status["node"]
    if status["phase"] == "offline":
        found.append(Trouble(Grade.BAD, f"{asked} is offline: it has no group, and serves nothing ({_engine(engine)})"))
    elif status["phase"] != "settled":
        found.append(Trouble(Grade.NOTICE, f"{asked} is not settled: {status['phase']}"))
    if fence["mode"] != "off" and fence["state"] != "open" and status["phase"] != "offline":
        found.append(Trouble(Grade.BAD, f"the fence of {asked} is {fence['state']}: this host's VIPs are silenced"))
    if fence.get("proven") is False and fence["mode"] == "nftables":
        found.append(Trouble(Grade.NOTICE, f"the fence of {asked} is not proven: others wait for the lease"))
    return found


def _engine(engine: Mapping[str, str]) -> str:
    said = f"{engine.get('type', '?')} is {engine.get('state', '?')}"
    return f"{said}: {engine['reason']}" if engine.get("reason") else said


def _of_vips(vips: Iterable[VipSeen]) -> list[Trouble]:
    """One sentence for all VIPs of which the same is to be said."""
    bad: dict[str, list[str]] = {}
    moving = [vip.name for vip in vips if vip.moving and vip.grade is Grade.NOTICE]
    for vip in vips:
        for said in vip.words if vip.grade is Grade.BAD else ():
            bad.setdefault(f"held by nobody ({said})" if vip.holder is None else said, []).append(vip.name)
    found = [Trouble(Grade.BAD, f"{_counted(names)} {said}") for said, names in bad.items()]
    return found + ([Trouble(Grade.NOTICE, f"{_counted(moving)} on the move")] if moving else [])


def _counted(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN_MAX]) + (", …" if len(names) > NAMES_SHOWN_MAX else "")
    return f"VIP {shown}:" if len(names) == 1 else f"{len(names)} VIPs ({shown}):"


def _of_nodes(nodes: Iterable[Node]) -> list[Trouble]:
    return [Trouble(n.grade, f"node {n.name}: {'; '.join(n.words)}") for n in nodes if n.words]


# -- what happened --------------------------------------------------------------------------------------------------------

HARD_CAUSES = frozenset({"its host was lost", "its daemon died", "its holder was silent", "two held it after a merge"})
PLACE = frozenset({"number", "time", "monotonic", "event", "said_by", "run", "place"})
"""What an entry has beside the event's own fields."""


def happening(entry: Mapping[str, Any]) -> Happening:
    """An entry of `events` as a sentence."""
    what = str(entry["event"])
    sentence, grade, moved = _sentence(what, entry)
    return Happening(float(entry["time"]), str(entry.get("said_by", "")), sentence, grade, moved)


def _sentence(what: str, told: Mapping[str, Any]) -> tuple[str, Grade, tuple[str, str, str] | None]:
    match what:
        case "moved":
            vip, source, to = (str(told.get(k, "?")) for k in ("vip", "source", "to"))
            cause = str(told.get("cause", ""))
            grade = Grade.BAD if to == "nobody" else Grade.NOTICE if cause in HARD_CAUSES else Grade.GOOD
            return f"{vip}  {source} → {to}: {cause}", grade, (vip, source, to)
        case "view":
            return (*_view(told), None)
        case "command":
            words = " ".join(str(told[k]).replace(",", " ") for k in ("verb", "vips", "node") if told.get(k))
            return f"{told.get('by', '?')} asked: {words}", Grade.GOOD, None
        case "command_refused":
            return f"{told.get('verb', '?')} was refused: {told.get('reason', '?')}", Grade.NOTICE, None
        case "drain" if told.get("leaving") != "True":
            return f"{told.get('node', '?')} is drained", Grade.NOTICE, None
        case "resume":
            return f"{told.get('node', '?')} may hold VIPs again", Grade.GOOD, None
        case "started":
            return f"the daemon has started, version {told.get('version', '?')}", Grade.GOOD, None
        case "ineligible":
            return f"cannot hold {told.get('vips', '?')}: {told.get('reason', '?')}", Grade.BAD, None
        case "eligible":
            return f"can hold {told.get('vips', '?')} again", Grade.GOOD, None
    from .shell.journal import WARNINGS, line  # 60 ms, as it imports asyncio

    rest = {k: v for k, v in told.items() if k not in PLACE}
    return line(what, rest), Grade.BAD if what in WARNINGS else Grade.GOOD, None


def _view(told: Mapping[str, Any]) -> tuple[str, Grade]:
    said = f"members: {str(told.get('members', '?')).replace(',', ' ')}"
    grade = Grade.GOOD
    for gone in filter(None, str(told.get("left", "")).split(",")):
        name, _, how = gone.partition(":")
        said += f"; {name} is gone ({how})"
        grade = grade if how == "left" else Grade.BAD
    if told.get("joined"):
        said += f"; {str(told['joined']).replace(',', ' ')} joined"
    return said, grade
