"""The lines that are on the screen. Pure: what is known, what is looked at and a size in; styled lines of that size out.

From the top: a title, what is not as it should be, the nodes, the VIPs (who holds each, as a table against the nodes where
there is room for it), what happened, the keys. What a narrow terminal has no room for is left out from the right.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from ..overview import Grade, Happening, Node, Overview, Trouble, VipSeen, ago
from .look import (
    Choosing,
    Confirming,
    Filtering,
    Look,
    Pane,
    Plain,
    Reading,
    Room,
    choices,
    index,
    node_under,
    shown_events,
    shown_nodes,
    shown_vips,
)

WIDTH_MIN, HEIGHT_MIN = 40, 12
TROUBLES_MAX = 4
RECENT_SECONDS = 60
LATE_SECONDS = 2.0
"""A daemon that has not answered for so long is told of."""
WHY_MIN = 28
"""Columns that a table of nodes leaves for the reason."""
BAR_MAX = 24

T = TypeVar("T")


class Style(Enum):
    """How a piece of text looks; the terminal decides by which colours."""

    PLAIN = auto()
    DIM = auto()
    BOLD = auto()
    GOOD = auto()
    NOTICE = auto()
    BAD = auto()
    FRESH = auto()
    TITLE = auto()
    ALARM = auto()
    HEADER = auto()
    CURSOR = auto()


@dataclass(frozen=True, slots=True)
class Piece:
    """Text in one style."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Piece, ...]
SIGNS = {Grade.GOOD: Piece("·", Style.DIM), Grade.NOTICE: Piece("!", Style.NOTICE), Grade.BAD: Piece("×", Style.BAD)}
STYLES = {Grade.GOOD: Style.PLAIN, Grade.NOTICE: Style.NOTICE, Grade.BAD: Style.BAD}


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known at one moment. `now`: wall clock; `age`: of the overview; `late`: how long a question has had no answer;
    seconds. `gone`: why there is no answer at all. `may`: whether orders can be given."""

    found: Overview | None
    happenings: tuple[Happening, ...]
    now: float
    age: float = 0.0
    late: float = 0.0
    gone: str | None = None
    may: bool = True


# -- the whole ------------------------------------------------------------------------------------------------------------


def lines(moment: Moment, look: Look, width: int, height: int) -> list[Line]:
    """What is on a screen of that size: `height` lines of `width` characters."""
    if width < WIDTH_MIN or height < HEIGHT_MIN:
        return _sized([(Piece(f"needs {WIDTH_MIN}×{HEIGHT_MIN} characters"),)], width, height)
    top = [_title(moment, width), *_troubles(moment, look, width)]
    bottom = _bottom(moment, look, width)
    if isinstance(look.mode, Reading):
        text = look.mode.lines[look.mode.top :][: height - 3]
        body: list[Line] = [(Piece(f" {look.mode.title}", Style.HEADER),), *[(Piece(f" {line}"),) for line in text]]
        return _sized([top[0], *_sized(body, width, height - 2), *bottom[-1:]], width, height)
    if moment.found is None:
        return _sized([*_sized(top, width, height - len(bottom)), *bottom], width, height)
    room = _room(moment, look, width, height - len(top) - len(bottom))
    body = [*_nodes(moment.found, look, room, width), *_vips(moment, look, room, width)]
    body += _events(moment, look, room, width)
    if moment.gone is not None:
        body = [tuple(Piece(p.text, Style.DIM) for p in line) for line in body]
    return _sized([*top, *_sized(body, width, height - len(top) - len(bottom)), *bottom], width, height)


def room_for(moment: Moment, look: Look, width: int, height: int) -> Room:
    """How much of everything that screen has room for; nothing on one that is too small."""
    if width < WIDTH_MIN or height < HEIGHT_MIN:
        return Room(0, 0, 0, 0)
    if moment.found is None:
        return Room(1, 1, 1, max(1, height - 3))
    taken = 1 + len(_troubles(moment, look, width)) + len(_bottom(moment, look, width))
    return _room(moment, look, width, height - taken)


def _room(moment: Moment, look: Look, width: int, height: int) -> Room:
    """Three headers; the pane with the cursor has up to half of the rest, nodes and events else a quarter; nothing is
    left empty while another pane has more to show."""
    assert moment.found is not None
    rest = max(3, height - 3)
    nodes, vips = shown_nodes(moment.found, look), shown_vips(moment.found, look)
    events = len(shown_events(moment.happenings, look))
    quarter = max(2, rest // 4)
    most = rest // 2 if look.pane is Pane.NODES else max(quarter, rest // 3)
    across = 1 if len(nodes) <= most else max(1, width // _cell(nodes))
    node_lines = min(max(1, -(-len(nodes) // across)), most)
    event_lines = min(max(1, events), rest // 2 if look.pane is Pane.EVENTS else quarter)
    vip_lines = min(max(1, len(vips)), rest - node_lines - event_lines)
    event_lines = max(1, rest - node_lines - vip_lines)
    return Room(node_lines * across, max(1, vip_lines), event_lines, max(1, height), across)


def _sized(body: Sequence[Line], width: int, height: int) -> list[Line]:
    filled = [*body[:height], *[()] * (height - len(body))]
    return [_fitted(line, width) for line in filled]


def _fitted(line: Line, width: int) -> Line:
    """Cut to that width; what is cut ends in …, what is short is filled in the style of its end."""
    found: list[Piece] = []
    left = width
    for piece in line:
        if len(piece.text) > left:
            found.append(Piece(piece.text[: max(0, left - 1)] + "…"[:left], piece.style))
            left = 0
            break
        found.append(piece)
        left -= len(piece.text)
    fills = {Style.TITLE, Style.ALARM, Style.HEADER, Style.CURSOR}
    style = found[-1].style if found and found[-1].style in fills else Style.PLAIN
    return (*found, Piece(" " * left, style)) if left else tuple(found)


def _title(moment: Moment, width: int) -> Line:
    style = Style.TITLE if moment.gone is None else Style.ALARM
    clock = time.strftime("%H:%M:%S ", time.localtime(moment.now))
    right = clock if moment.may else f"read only  {clock}"
    found = moment.found
    parts = ["wackamole"] if found is None else [found.cluster, f"on {found.node}", found.phase, f"view {found.view}"]
    parts += [] if found is None else [found.engine, f"fence {found.fence}"]
    while len(parts) > 1 and len(" · ".join(parts)) + len(right) + 3 > width:
        parts.pop()
    left = " " + " · ".join(parts)
    return (Piece(left.ljust(max(0, width - len(right))) + right, style),)


def _troubles(moment: Moment, look: Look, width: int) -> list[Line]:
    if moment.gone is not None:
        told = [moment.gone, "Asked again every second."]
        if moment.found is not None:
            told[1] = f"What stands below was so {ago(moment.age)} ago. {told[1]}"
        return [(Piece(f" {line}", Style.BAD),) for said in told for line in textwrap.wrap(said, width - 2)]
    if moment.found is None:
        return [(Piece(" asking the daemon …", Style.DIM),)]
    troubles = moment.found.troubles
    if moment.late >= LATE_SECONDS:
        late = f"the daemon of {moment.found.node} has not answered for {ago(moment.late)}: what stands below is as old"
        troubles = (Trouble(Grade.BAD, late), *troubles)
    if not troubles:
        return [(Piece(" all is as it should be", Style.GOOD),)]
    most = len(troubles) if look.trouble_only else TROUBLES_MAX
    shown = troubles if len(troubles) <= most else troubles[: most - 1]
    found: list[Line] = [
        (Piece(" "), SIGNS[t.grade], Piece(" "), Piece(t.sentence, STYLES[t.grade])) for t in shown[: 2 * TROUBLES_MAX]
    ]
    if len(shown) < len(troubles):
        found.append((Piece(f"   and {len(troubles) - len(shown)} more: press !", Style.DIM),))
    return found


# -- nodes ----------------------------------------------------------------------------------------------------------------


def _header(title: str, rest: str, width: int, *, focused: bool) -> Line:
    return _fitted((Piece(f"{'▸' if focused else ' '}{title}", Style.HEADER), Piece(f" {rest}", Style.HEADER)), width)


def _cell(nodes: Iterable[Node]) -> int:
    return max((len(n.name) for n in nodes), default=0) + 8


def _paged(listed: Sequence[T], at: int, page: int) -> tuple[int, Sequence[T]]:
    """The page with the cursor in it: a list does not roll under it, which costs a slow link little."""
    top = at // page * page
    return top, listed[top : top + page]


def _span(top: int, page: int, length: int) -> str:
    return f"{top + 1}–{min(length, top + page)} of {length}" if length > page else str(length)


def _nodes(found: Overview, look: Look, room: Room, width: int) -> list[Line]:
    listed = shown_nodes(found, look)
    focused = look.pane is Pane.NODES
    at = index(listed, lambda n: n.name == look.node)
    top, page = _paged(listed, at, room.nodes)
    cursor = node_under(found, look)
    title = f"NODES {_span(top, room.nodes, len(listed))}"
    if not listed:
        return [_header(title, "", width, focused=focused), (Piece("   none to show", Style.DIM),)]
    if room.across > 1:
        words = f" {cursor.name}: {_state(cursor)}" if cursor is not None and focused else ""
        body = []
        for start in range(0, len(page), room.across):
            cells = [
                _node_cell(n, _cell(listed), cursor=focused and n is cursor) for n in page[start : start + room.across]
            ]
            body.append(tuple(piece for cell in cells for piece in cell))
        return [_header(title, words, width, focused=focused), *body]
    name = max(len("NODE"), *(len(n.name) for n in found.nodes))
    most = max(1, *(n.vips for n in found.nodes))
    bar = max(5, min(BAR_MAX, most, width - name - 40))
    load = any(n.load is not None for n in found.nodes)
    head = f"{title:<{max(name + 3, len(title))}} VIPS WEIGHT {'  LOAD ' if load else ''}{'SHARE':<{bar}} STATE"
    name = max(name, len(title) - 3)
    body = [_node_row(n, name, bar, most, load=load, cursor=focused and n is cursor) for n in page]
    return [_header(head, "", width, focused=focused), *body]


def _state(node: Node) -> str:
    words = "; ".join(node.words) or "ok"
    return words + (", representative" if node.first else "")


def _node_cell(node: Node, cell: int, *, cursor: bool) -> Line:
    vips = str(node.vips) if node.present else "-"
    text = f"{node.name} {vips:>{cell - len(node.name) - 5}}"
    style = Style.CURSOR if cursor else STYLES[node.grade]
    return Piece(" "), SIGNS[node.grade], Piece(" "), Piece(text, style), Piece("  ")


def _node_row(node: Node, name: int, bar: int, most: int, *, load: bool, cursor: bool) -> Line:
    vips, weight = (str(node.vips), str(node.weight)) if node.present else ("-", "-")
    measured = "-" if node.load is None else f"{node.load:.2f}"
    row: Line = (
        Piece(" "),
        SIGNS[node.grade],
        Piece(" "),
        Piece(f"{node.name:<{name}}", Style.BOLD if node.asked else Style.PLAIN),
        Piece(f" {vips:>4} {weight:>6} " + (f"{measured:>6} " if load else "")),
        Piece(f"{'■' * -(-node.vips * bar // most) if most > bar else '■' * node.vips:<{bar}} ", Style.GOOD),
        Piece("; ".join(node.words) or "ok", STYLES[node.grade] if node.words else Style.GOOD),
        Piece("  representative" if node.first else "", Style.DIM),
    )
    return _under(row) if cursor else row


def _under(row: Line) -> Line:
    """The row with the cursor."""
    return (*(Piece(p.text, Style.CURSOR) for p in row), Piece(" ", Style.CURSOR))


# -- VIPs -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    name: int
    address: int
    holder: int
    node: int  # width of a node's column in the table; 0: no table
    nodes: tuple[str, ...]

    @staticmethod
    def of(found: Overview, width: int) -> _Columns:
        name = min(24, max(len("VIP"), *(len(v.name) for v in found.vips), 0)) if found.vips else 3
        address = min(22, max((len(_address(v)) for v in found.vips), default=7))
        longest = max((len(n.name) for n in found.nodes), default=1)
        holder = min(24, max(len("HOLDER"), longest))
        left = width - (3 + name + 2 + address + 2 + holder + 2 + 7 + 2) - WHY_MIN
        names = tuple(n.name for n in found.nodes)
        for column in (max(3, longest + 1), 1):
            if names and len(names) * column <= left:
                return _Columns(name, address, holder, column, names)
        return _Columns(name, address, holder, 0, ())


def _address(vip: VipSeen) -> str:
    first = vip.addresses[0].removesuffix("/32").removesuffix("/128") if vip.addresses else "-"
    return first if len(vip.addresses) < 2 else f"{first} +{len(vip.addresses) - 1}"


def _age(seconds: float) -> str:
    """Coarse, so that it changes seldom."""
    return ago(seconds).partition(" ")[0] if 60 <= seconds < 3600 else ago(seconds)


def _vips(moment: Moment, look: Look, room: Room, width: int) -> list[Line]:
    assert moment.found is not None
    listed = shown_vips(moment.found, look)
    focused = look.pane is Pane.VIPS
    at = index(listed, lambda v: v.key == look.vip)
    top, page = _paged(listed, at, room.vips)
    title = f"VIPS {_span(top, room.vips, len(listed))}" + (f" ({len(moment.found.vips)})" if _narrowed(look) else "")
    columns = _Columns.of(moment.found, width)
    lead = 2 + columns.name + 2
    cells = "".join(f"{n:^{columns.node}}" for n in columns.nodes) if columns.node > 1 else " " * len(columns.nodes)
    head = f"{title:<{lead}}{'ADDRESS' if len(title) < lead else '':<{columns.address}}  "
    head = f"{head[: lead + columns.address + 2]}{cells}{' ' if columns.node else ''}"
    head += f"{'HOLDER':<{columns.holder}}  {'SINCE':<7}  WHY"
    if not listed:
        nothing = "nothing here is out of order" if look.trouble_only and not look.filter else "none has this text"
        return [_header(title, "", width, focused=focused), (Piece(f"   {nothing}", Style.DIM),)]
    origins = _origins(moment.happenings, moment.now)
    cursor = listed[at]
    body = [_vip_row(v, columns, origins.get(v.name), moment.now) for v in page]
    return [
        _header(head, "", width, focused=focused),
        *[_under(row) if focused and v is cursor else row for v, row in zip(page, body, strict=True)],
    ]


def _narrowed(look: Look) -> bool:
    return bool(look.filter) or look.trouble_only


def _origins(happenings: Iterable[Happening], now: float) -> Mapping[str, tuple[str, str, bool]]:
    """Of each VIP the last move that was told: from, to, and whether that is recent."""
    return {h.moved[0]: (h.moved[1], h.moved[2], now - h.time < RECENT_SECONDS) for h in happenings if h.moved}


def _vip_row(vip: VipSeen, columns: _Columns, origin: tuple[str, str, bool] | None, now: float) -> Line:
    from_, recent = "", False
    if origin is not None and origin[1] == (vip.holder or "nobody"):
        from_, recent = origin[0], origin[2]
    holder = vip.holder or "nobody"
    held = Style.BAD if vip.holder is None and not vip.moving else Style.BOLD if recent else Style.PLAIN
    if vip.moving and vip.target != vip.holder:
        holder, held = f"{holder} → {vip.target or 'nobody'}", Style.NOTICE
    since = _age(now - vip.since) if vip.since else "-"
    why = "; ".join(vip.words)
    if not why:
        why = f"from {from_}: {vip.cause}" if from_ not in ("", "nobody") else vip.cause
    why += " (stays until `balance`)" if vip.pinned else ""
    marks = tuple(_mark(n, vip, from_ if recent else "", columns.node) for n in columns.nodes)
    return (
        Piece(" "),
        SIGNS[vip.grade],
        Piece(" "),
        Piece(f"{_cut(vip.name, columns.name):<{columns.name}}  ", Style.BOLD),
        Piece(f"{_cut(_address(vip), columns.address):<{columns.address}}  "),
        *marks,
        Piece(" " if columns.node else ""),
        Piece(f"{_cut(holder, columns.holder + 2):<{columns.holder}}  "[: columns.holder + 2], held),
        Piece(f"{since:<7}  ", Style.FRESH if recent else Style.DIM),
        Piece(why, STYLES[vip.grade] if vip.words else Style.DIM),
    )


def _mark(node: str, vip: VipSeen, source: str, column: int) -> Piece:
    if node == vip.holder:
        sign, style = "■", Style.GOOD if vip.grade is Grade.GOOD else STYLES[vip.grade]
    elif node == vip.target and vip.moving:
        sign, style = "□", Style.NOTICE
    elif node == source:
        sign, style = "○", Style.FRESH
    else:
        sign, style = "·", Style.DIM
    return Piece(f"{sign:^{column}}", style)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# -- events, and the last line --------------------------------------------------------------------------------------------


def _events(moment: Moment, look: Look, room: Room, width: int) -> list[Line]:
    listed = shown_events(moment.happenings, look)
    focused = look.pane is Pane.EVENTS
    back = min(look.back, max(0, len(listed) - room.events))
    end = len(listed) - back
    shown = listed[max(0, end - room.events) : end]
    title = f"EVENTS {_span(max(0, end - room.events), room.events, len(listed))}"
    if not shown:
        nothing = "nothing was told yet" if not moment.happenings else "none to show"
        return [_header(title, "", width, focused=focused), (Piece(f"   {nothing}", Style.DIM),)]
    by = max(len(h.by) for h in shown)
    today = time.strftime("%Y-%m-%d", time.localtime(moment.now))
    body: list[Line] = []
    for h in shown:
        when = time.localtime(h.time)
        stamp = time.strftime("%H:%M:%S" if time.strftime("%Y-%m-%d", when) == today else "%m-%d %H:%M", when)
        recent = moment.now - h.time < RECENT_SECONDS
        body.append(
            (
                Piece(" "),
                SIGNS[h.grade],
                Piece(f" {stamp} ", Style.FRESH if recent else Style.DIM),
                Piece(f"{h.by:<{by}}  ", Style.BOLD),
                Piece(h.sentence, STYLES[h.grade]),
            )
        )
    return [_header(title, "", width, focused=focused), *body]


KEYS = (
    ("q", "quit"),
    ("?", "help"),
    ("/", "filter"),
    ("!", "trouble"),
    ("Enter", "why"),
    ("d", "drain"),
    ("r", "resume"),
    ("m", "move"),
    ("Tab", "part"),
)
"""The most needed first: those that there is no room for are left out."""
COMMANDS = frozenset({"d", "r", "m"})


def _bottom(moment: Moment, look: Look, width: int) -> list[Line]:
    """What is asked, or was said last, or else the keys."""
    match look.mode:
        case Confirming(order):
            return _wrapped(f"{order.question}  y: do it; any other key: do not", Style.ALARM, width)
        case Filtering():
            return [(Piece(f" /{look.filter}▏", Style.TITLE), Piece(" Enter: keep it; Esc: as before", Style.TITLE))]
        case Choosing() if moment.found is not None:
            return [_choice(moment.found, look.mode)]
        case Reading():
            return [(Piece(" ↑↓: scroll; any other key: back", Style.TITLE),)]
        case Plain() | Choosing():
            pass
    if look.said is not None:
        return _wrapped(look.said.sentence, Style.ALARM if look.said.grade is Grade.BAD else Style.TITLE, width)
    narrowed = [f"/{look.filter}"] if look.filter else []
    narrowed += ["only trouble"] if look.trouble_only else []
    found: list[Piece] = []
    left = width
    for text in narrowed:
        found += [Piece(f" {text} ", Style.TITLE), Piece(" Esc clears ", Style.PLAIN)]
        left -= len(text) + 14
    for key, meaning in KEYS:
        if (moment.may or key not in COMMANDS) and len(key) + len(meaning) + 3 <= left:
            found += [Piece(f" {key}", Style.BOLD), Piece(f" {meaning} ", Style.DIM)]
            left -= len(key) + len(meaning) + 3
    return [tuple(found)]


def _wrapped(text: str, style: Style, width: int) -> list[Line]:
    return [(Piece(f" {line}", style),) for line in textwrap.wrap(text, width - 2)[:4]]


def _choice(found: Overview, mode: Choosing) -> Line:
    listed = choices(found, mode)
    at = min(mode.at, max(0, len(listed) - 1))
    name = next((v.name for v in found.vips if v.key == mode.vip), "?")
    row = [Piece(f" move {name} to {mode.typed}▏", Style.TITLE)]
    for number, each in list(enumerate(listed))[max(0, at - 3) :]:
        row.append(Piece(f" {each} ", Style.CURSOR if number == at else Style.PLAIN))
    return (*row, Piece("  ← →, or type; Enter; Esc", Style.DIM))
