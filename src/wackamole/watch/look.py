"""What somebody looks at, and what each key changes of it. Pure: a key in, a new look and perhaps a wish out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

from ..overview import Grade, Happening, Node, Overview, Trouble, VipSeen

FILTER_MAX = 64

T = TypeVar("T")


class Pane(Enum):
    """The parts of the screen; one of them has the cursor."""

    NODES = "nodes"
    VIPS = "vips"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Order:
    """Something to be asked of the daemon once it is confirmed. `question`: what it will do; `doing`: while it does."""

    verb: str
    arguments: Mapping[str, object] = field(hash=False)
    question: str
    doing: str


@dataclass(frozen=True, slots=True)
class Why:
    """Asks for the explanation of a VIP's place."""

    vip: str


@dataclass(frozen=True, slots=True)
class Quit:
    """Ends it."""


Wish = Order | Why | Quit


@dataclass(frozen=True, slots=True)
class Plain:
    """Nothing is asked."""


@dataclass(frozen=True, slots=True)
class Filtering:
    """A filter is typed. `before`: the one to go back to."""

    before: str


@dataclass(frozen=True, slots=True)
class Choosing:
    """A node is chosen to move a VIP to: the `at`th of those that begin with `typed`."""

    vip: str
    typed: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Confirming:
    """Yes or no."""

    order: Order


@dataclass(frozen=True, slots=True)
class Reading:
    """A text over everything else, from its line `top` on."""

    title: str
    lines: tuple[str, ...]
    top: int = 0


Mode = Plain | Filtering | Choosing | Confirming | Reading


@dataclass(frozen=True, slots=True)
class Look:
    """Cursors are names, so that they stay where they are while lists change; "" is the first. `back`: how many events
    newer than the last one shown there are. `said`: what there is to say of the last order."""

    pane: Pane = Pane.VIPS
    node: str = ""
    vip: str = ""
    back: int = 0
    filter: str = ""
    trouble_only: bool = False
    mode: Mode = Plain()
    said: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """How many entries of each pane there is room for; `across`: nodes that stand side by side."""

    nodes: int
    vips: int
    events: int
    text: int
    across: int = 1


HELP = (
    "Tab      the next part: nodes, VIPs, events",
    "↑ ↓ …    move the cursor; so do j, k, PgUp, PgDn, Home, End",
    "/        show only what has this text: a name, an address, a reason, an event;",
    "         @b: what node b holds. Enter keeps the filter, Esc takes it away",
    "!        only what is not as it should be; again: everything",
    "Enter    on a VIP: why it is there, step by step",
    "         on a node: only what it holds",
    "m        move the VIP under the cursor; it stays there until `balance`",
    "d        drain the node under the cursor: its VIPs go to others",
    "r        resume: let the node under the cursor hold VIPs again",
    "q        quit; nothing of the cluster depends on this program",
    "",
    "d, r and m ask before anything is done.",
    "",
    "×  not as it should be       !  under way, meant so, or worth knowing",
    "■  holds the VIP             □  where the VIP is going",
    "○  where it came from in the last minute",
)


# -- what is to be seen ---------------------------------------------------------------------------------------------------


def shown_vips(found: Overview, look: Look) -> list[VipSeen]:
    """The VIPs that pass the filter."""
    return [
        vip
        for vip in found.vips
        if not (look.trouble_only and vip.grade is Grade.GOOD) and _vip_passes(vip, look.filter.casefold())
    ]


def _vip_passes(vip: VipSeen, wanted: str) -> bool:
    if wanted.startswith("@"):
        return wanted[1:] in ((vip.holder or "nobody").casefold(), (vip.target or "nobody").casefold())
    words = (vip.name, *vip.addresses, vip.holder or "nobody", vip.target or "", vip.cause, *vip.words)
    return any(wanted in word.casefold() for word in words)


def shown_nodes(found: Overview, look: Look) -> list[Node]:
    """The nodes that pass the filter by their name or state, or hold a VIP that does."""
    wanted = look.filter.casefold()
    holders = {vip.holder for vip in shown_vips(found, replace(look, trouble_only=False))} if wanted else set()
    return [
        node
        for node in found.nodes
        if not (look.trouble_only and node.grade is Grade.GOOD)
        and (node.name in holders or any(wanted.removeprefix("@") in w.casefold() for w in (node.name, *node.words)))
    ]


def shown_events(happenings: Sequence[Happening], look: Look) -> list[Happening]:
    """The events that pass the filter, oldest first."""
    wanted = look.filter.casefold().removeprefix("@")
    return [
        h
        for h in happenings
        if not (look.trouble_only and h.grade is Grade.GOOD)
        and (wanted in h.sentence.casefold() or wanted == h.by.casefold())
    ]


def index(listed: Sequence[T], is_it: Callable[[T], bool]) -> int:
    """Where the cursor stands: on the entry that is it, or on the first."""
    return next((i for i, each in enumerate(listed) if is_it(each)), 0)


def node_under(found: Overview, look: Look) -> Node | None:
    """The node under the cursor."""
    listed = shown_nodes(found, look)
    return listed[index(listed, lambda n: n.name == look.node)] if listed else None


def vip_under(found: Overview, look: Look) -> VipSeen | None:
    """The VIP under the cursor."""
    listed = shown_vips(found, look)
    return listed[index(listed, lambda v: v.key == look.vip)] if listed else None


def choices(found: Overview, mode: Choosing) -> list[str]:
    """Where the VIP may be asked to go: the daemon judges whether it can."""
    holder = next((v.holder for v in found.vips if v.key == mode.vip), None)
    return [n.name for n in found.nodes if n.present and n.name != holder and n.name.startswith(mode.typed)]


# -- keys -----------------------------------------------------------------------------------------------------------------


def pressed(
    look: Look, key: str, found: Overview | None, happenings: Sequence[Happening], room: Room, *, may: bool
) -> tuple[Look, Wish | None]:
    """What a key does. `key` is a character, or one of up, down, left, right, pageup, pagedown, home, end, tab, backtab,
    enter, escape and backspace; `may`: whether orders can be given."""
    look = replace(look, said=None)
    if not room.text:  # nothing can be read, so nothing can be confirmed
        return replace(look, mode=Plain()), Quit() if key == "q" else None
    match look.mode:
        case Reading():
            return _read(look, look.mode, key, room), None
        case Filtering():
            return _typed(look, look.mode, key), None
        case Confirming(order) if key in ("y", "Y"):
            return replace(look, mode=Plain(), said=Trouble(Grade.NOTICE, order.doing)), order
        case Confirming():
            return replace(look, mode=Plain(), said=Trouble(Grade.NOTICE, "nothing was done")), None
        case Choosing():
            return _chosen(look, look.mode, key, found), None
        case Plain():
            pass
    if key == "q":
        return look, Quit()
    if key == "?":
        return replace(look, mode=Reading("keys", HELP)), None
    if found is None:
        return look, None
    match key:
        case "/":
            return replace(look, mode=Filtering(look.filter)), None
        case "!":
            return replace(look, trouble_only=not look.trouble_only, back=0), None
        case "escape":
            return replace(look, filter="", trouble_only=False, back=0), None
        case "tab" | "backtab":
            panes = list(Pane)
            step = 1 if key == "tab" else -1
            return replace(look, pane=panes[(panes.index(look.pane) + step) % len(panes)]), None
        case "d" | "r" | "m" if not may:
            return replace(look, said=Trouble(Grade.NOTICE, READ_ONLY)), None
        case "d" | "r":
            return _asked_of_node(look, key, found), None
        case "m":
            return _asked_of_vip(look, found), None
        case "enter":
            return _entered(look, found)
    return _moved(look, key, found, happenings, room), None


READ_ONLY = "this is read only: root and the group wackamole may give orders"


def _read(look: Look, mode: Reading, key: str, room: Room) -> Look:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -room.text, "pagedown": room.text, " ": room.text}
    if key not in steps:
        return replace(look, mode=Plain())
    top = max(0, min(mode.top + steps[key], len(mode.lines) - room.text))
    return replace(look, mode=replace(mode, top=top))


def _typed(look: Look, mode: Filtering, key: str) -> Look:
    match key:
        case "enter":
            return replace(look, mode=Plain())
        case "escape":
            return replace(look, mode=Plain(), filter=mode.before, back=0)
        case "backspace":
            return replace(look, filter=look.filter[:-1], back=0)
    if len(key) == 1 and key.isprintable() and len(look.filter) < FILTER_MAX:
        return replace(look, filter=look.filter + key, back=0)
    return look


def _chosen(look: Look, mode: Choosing, key: str, found: Overview | None) -> Look:
    listed = choices(found, mode) if found is not None else []
    match key:
        case "escape":
            return replace(look, mode=Plain(), said=Trouble(Grade.NOTICE, "nothing was done"))
        case "left" | "up" | "backtab":
            return replace(look, mode=replace(mode, at=max(0, mode.at - 1)))
        case "right" | "down" | "tab":
            return replace(look, mode=replace(mode, at=min(mode.at + 1, max(0, len(listed) - 1))))
        case "backspace":
            return replace(look, mode=replace(mode, typed=mode.typed[:-1], at=0))
        case "enter" if listed and found is not None:
            vip = next(v for v in found.vips if v.key == mode.vip)
            to = listed[min(mode.at, len(listed) - 1)]
            return replace(look, mode=Confirming(_move(vip, to)))
    if len(key) == 1 and found is not None and choices(found, replace(mode, typed=mode.typed + key)):
        return replace(look, mode=replace(mode, typed=mode.typed + key, at=0))
    return look


def _move(vip: VipSeen, to: str) -> Order:
    return Order(
        "move",
        {"vips": [vip.key], "node": to},
        f"move {vip.name} ({_short(vip.addresses)}) from {vip.holder or 'nobody'} to {to}? It stays there until `balance`.",
        f"{vip.name} is being moved to {to} …",
    )


def _short(addresses: Sequence[str]) -> str:
    return addresses[0].partition("/")[0] + (f" and {len(addresses) - 1} more" if len(addresses) > 1 else "")


def _asked_of_node(look: Look, key: str, found: Overview) -> Look:
    node = node_under(found, look)
    if look.pane is not Pane.NODES or node is None:
        return replace(look, pane=Pane.NODES, said=Trouble(Grade.NOTICE, "choose the node, then the key again"))
    if not node.present:
        return replace(look, said=Trouble(Grade.NOTICE, f"{node.name} is absent: it cannot be asked anything"))
    if key == "d" and node.drained:
        return replace(look, said=Trouble(Grade.NOTICE, f"{node.name} is drained already; r lets it hold VIPs again"))
    if key == "r" and not node.drained:
        return replace(look, said=Trouble(Grade.NOTICE, f"{node.name} is not drained"))
    if key == "r":
        question = f"resume {node.name}? It may hold VIPs again; balance brings them, one after the other."
        order = Order("resume", {"node": node.name}, question, f"{node.name} is being resumed …")
    else:
        question = f"drain {node.name}? Its {node.vips} VIPs go to other nodes, and it stays empty until it is resumed."
        order = Order("drain", {"node": node.name}, question, f"{node.name} is being drained …")
    return replace(look, mode=Confirming(order))


def _asked_of_vip(look: Look, found: Overview) -> Look:
    vip = vip_under(found, look)
    if look.pane is not Pane.VIPS or vip is None:
        return replace(look, pane=Pane.VIPS, said=Trouble(Grade.NOTICE, "choose the VIP, then m again"))
    if not choices(found, Choosing(vip.key)):
        return replace(look, said=Trouble(Grade.NOTICE, "there is no other node to move it to"))
    return replace(look, mode=Choosing(vip.key))


def _entered(look: Look, found: Overview) -> tuple[Look, Wish | None]:
    if look.pane is Pane.VIPS:
        vip = vip_under(found, look)
        return look, Why(vip.key) if vip is not None else None
    node = node_under(found, look)
    if look.pane is Pane.NODES and node is not None:
        return replace(look, filter=f"@{node.name}", pane=Pane.VIPS, back=0), None
    return look, None


def _moved(look: Look, key: str, found: Overview, happenings: Sequence[Happening], room: Room) -> Look:
    across = room.across if look.pane is Pane.NODES else 1
    page = {Pane.NODES: room.nodes, Pane.VIPS: room.vips, Pane.EVENTS: room.events}[look.pane]
    steps = {"up": -across, "k": -across, "down": across, "j": across, "left": -1, "right": 1}
    steps |= {"pageup": -page, "pagedown": page, " ": page, "home": -(10**9), "end": 10**9}
    if key not in steps or (key in ("left", "right") and across == 1):
        return look
    step = steps[key]
    match look.pane:
        case Pane.NODES:
            nodes = shown_nodes(found, look)
            at = _stepped(index(nodes, lambda n: n.name == look.node), step, len(nodes))
            return replace(look, node=nodes[at].name if nodes else "")
        case Pane.VIPS:
            vips = shown_vips(found, look)
            at = _stepped(index(vips, lambda v: v.key == look.vip), step, len(vips))
            return replace(look, vip=vips[at].key if vips else "")
        case Pane.EVENTS:
            most = max(0, len(shown_events(happenings, look)) - room.events)
            return replace(look, back=max(0, min(look.back - step, most)))


def _stepped(at: int, step: int, length: int) -> int:
    return max(0, min(at + step, length - 1))
