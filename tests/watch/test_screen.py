"""What is on the screen and what keys do, without a terminal: for what real daemons said, at any size."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.overview import Grade, Overview, happening, overview
from wackamole.watch.look import Choosing, Confirming, Look, Order, Pane, Plain, Quit, Reading, Why, Wish, pressed
from wackamole.watch.screen import WIDTH_MIN, Moment, Style, lines, room_for

from .stage import STORIES, enlarged, recorded

LARGE = "50 nodes × 1000 VIPs"


@cache
def moment(story: str) -> Moment:
    status, events = recorded("settled" if story == LARGE else story)
    found = overview(enlarged(status, 50, 1000) if story == LARGE else status)
    return Moment(found, tuple(map(happening, events)), now=max(float(e["time"]) for e in events) + 5)


def found_in(at: Moment) -> Overview:
    assert at.found is not None
    return at.found


def text(at: Moment, look: Look | None = None, width: int = 80, height: int = 24) -> str:
    drawn = lines(at, look or Look(), width, height)
    return "\n".join("".join(p.text for p in line).rstrip() for line in drawn)


def press(at: Moment, look: Look, *keys: str, may: bool = True) -> tuple[Look, Wish | None]:
    wish = None
    for key in keys:
        look, wish = pressed(look, key, at.found, at.happenings, room_for(at, look, 80, 24), may=may)
    return look, wish


def rows(at: Moment, look: Look | None = None, **size: int) -> list[str]:
    """The lines of the VIPs."""
    shown = text(at, look, **size).splitlines()
    begin = next(i for i, line in enumerate(shown) if "VIPS " in line and "HOLDER" in line)
    end = next(i for i, line in enumerate(shown) if line.startswith((" EVENTS", "▸EVENTS")))
    return shown[begin + 1 : end]


# -- what is to be seen ---------------------------------------------------------------------------------------------------


def test_who_holds_what_since_when_and_why_on_eighty_columns() -> None:
    shown = text(moment("lost"))
    first, *rest = shown.splitlines()
    assert first.startswith(" record · on a · settled")
    assert rest[0] == " × node c: absent"
    assert rest[1] == " ! node b: drained"
    vip = next(line for line in rows(moment("lost")) if " v3 " in line)
    assert "■" in vip
    assert "○" in vip
    assert vip.endswith("from c: its host was lost")
    assert "c is gone (host lost)" in shown
    for key in ("q quit", "d drain", "r resume", "m move", "/ filter", "? help"):
        assert key in shown.splitlines()[-1]


def test_the_mark_of_a_holder_stands_under_its_node() -> None:
    shown = text(moment("settled")).splitlines()
    head = next(line for line in shown if "HOLDER" in line)
    columns = {name: head.index(f" {name} ") + 1 for name in ("a", "b", "c")}
    for vip in found_in(moment("settled")).vips:
        row = next(line for line in rows(moment("settled")) if f" {vip.name} " in line)
        assert [name for name, x in columns.items() if row[x] == "■"] == [vip.holder]


def test_a_move_that_is_under_way_shows_where_to() -> None:
    status = copy.deepcopy(recorded("settled")[0])
    status["vips"][0] |= {"target": "b", "moving": True}
    at = replace(moment("settled"), found=overview(status))
    row = rows(at)[0]
    assert "a → b" in row
    assert "□" in row
    assert "! VIP v1: on the move" in text(at)


def test_a_quiet_cluster_says_so() -> None:
    status = copy.deepcopy(recorded("settled")[0])
    status["warnings"] = []
    shown = text(replace(moment("settled"), found=overview(status)))
    assert shown.splitlines()[1] == " all is as it should be"
    assert "×" not in shown


def test_a_daemon_that_is_gone_or_late_is_told_plainly_and_what_is_old_is_dim() -> None:
    at = replace(moment("settled"), gone="no daemon answers on /x; is it running?", age=12.0)
    shown = lines(at, Look(), 80, 24)
    assert "no daemon answers on /x" in text(at)
    assert "What stands below was so 12s ago" in text(at)
    assert shown[0][0].style is Style.ALARM
    assert {p.style for line in shown[4:-1] for p in line if p.text.strip()} == {Style.DIM}
    assert "has not answered for 7s" in text(replace(moment("settled"), late=7.0))
    assert "no daemon answers" in text(Moment(None, (), 0.0, gone="no daemon answers on /x; is it running?"))


def test_fifty_nodes_and_a_thousand_vips_stay_readable() -> None:
    at = moment(LARGE)
    shown = text(at)
    assert "× VIP vip-501: held by nobody (node-1: the interface has no carrier)" in shown
    assert "× node node-away: absent" in shown
    assert "! node node-26: drained" in shown
    assert "of 51" in shown
    assert "VIPS 1–" in shown
    assert len(rows(at)) >= 7
    assert all("10.1." in row and "node-" in row for row in rows(at))
    wide = rows(at, width=200, height=60)
    assert len(wide) > 25
    assert all(row.count("■") == 1 for row in wide)
    only = Look(trouble_only=True)
    assert [row.split()[1] for row in rows(at, only)] == ["vip-501"]
    found, _ = press(at, Look(), "/", *"10.1.3.25")
    assert [row.split()[1] for row in rows(at, found)] == ["vip-775"]


def test_the_pages_of_a_long_list_follow_the_cursor() -> None:
    at = moment(LARGE)
    room = room_for(at, Look(), 80, 24)
    look, _ = press(at, Look(), "pagedown", "down")
    assert look.vip == f"vip-{room.vips + 2}#0"
    assert rows(at, look)[1].split()[1] == f"vip-{room.vips + 2}"
    look, _ = press(at, look, "end")
    assert rows(at, look)[-1].split()[1] == "vip-1000"
    cursor = [line for line in lines(at, look, 80, 24) if line[0].style is Style.CURSOR]
    assert ["vip-1000" in "".join(p.text for p in line) for line in cursor] == [True]


@pytest.mark.parametrize("width", [WIDTH_MIN, 80, 132, 240])
@pytest.mark.parametrize("story", [*STORIES, LARGE])
def test_what_matters_is_there_at_every_width(story: str, width: int) -> None:
    at = moment(story)
    shown = text(at, width=width)
    assert found_in(at).node in shown
    assert "quit" in shown
    assert found_in(at).troubles[0].sentence[: WIDTH_MIN - 6] in shown
    assert any(found_in(at).vips[0].name in row for row in rows(at, width=width))


def test_a_terminal_that_is_too_small_is_told() -> None:
    assert "40×12" in text(moment("settled"), width=30, height=24).replace("\n", "")
    asked, _ = press(moment("settled"), Look(pane=Pane.NODES), "d")
    small = room_for(moment("settled"), asked, 30, 24)
    look, wish = pressed(asked, "y", moment("settled").found, (), small, may=True)
    assert (look.mode, wish) == (Plain(), None)


# -- keys -----------------------------------------------------------------------------------------------------------------


def test_a_drain_is_asked_for_and_confirmed() -> None:
    at = moment("settled")
    look, wish = press(at, Look(), "tab", "backtab", "d")
    assert (look.pane, wish) == (Pane.NODES, None)
    assert "choose the node" in text(at, look)
    look, wish = press(at, look, "down", "d")
    assert wish is None
    assert "drain b? Its 2 VIPs go to other nodes" in text(at, look)
    _, wish = press(at, look, "y")
    assert isinstance(wish, Order)
    assert (wish.verb, wish.arguments) == ("drain", {"node": "b"})
    for key in ("n", "enter", "escape", "d"):
        refused, wish = press(at, look, key)
        assert wish is None
        assert "nothing was done" in text(at, refused)


def test_a_resume_is_for_a_drained_node() -> None:
    at = moment("drained")
    look = Look(pane=Pane.NODES, node="b")
    assert "resume b?" in text(at, press(at, look, "r")[0])
    assert press(at, look, "r", "y")[1] == Order("resume", {"node": "b"}, *_words(press(at, look, "r")[0]))
    assert "drained already" in text(at, press(at, look, "d")[0])
    assert "is not drained" in text(at, press(at, Look(pane=Pane.NODES, node="a"), "r")[0])
    assert "is absent" in text(moment("lost"), press(moment("lost"), Look(pane=Pane.NODES, node="c"), "d")[0])


def _words(look: Look) -> tuple[str, str]:
    assert isinstance(look.mode, Confirming)
    return look.mode.order.question, look.mode.order.doing


def test_a_move_chooses_a_node_and_is_confirmed() -> None:
    at = moment("settled")
    look, _ = press(at, Look(), "m")
    assert look.mode == Choosing(found_in(at).vips[0].key)
    assert "move v1 to" in text(at, look)
    chosen, _ = press(at, look, "right", "enter")
    assert "move v1 (10.77.1.1) from a to c?" in text(at, chosen)
    typed, _ = press(at, look, "x", "b", "enter")
    _, wish = press(at, typed, "y")
    assert isinstance(wish, Order)
    assert (wish.verb, wish.arguments) == ("move", {"vips": [found_in(at).vips[0].key], "node": "b"})
    assert "nothing was done" in text(at, press(at, look, "escape")[0])


def test_who_may_only_read_is_told_so_and_asks_for_nothing() -> None:
    at = replace(moment("settled"), may=False)
    shown = text(at)
    assert "read only" in shown.splitlines()[0]
    assert "drain" not in shown.splitlines()[-1]
    for key in "drm":
        look, wish = press(at, Look(pane=Pane.NODES), key, may=False)
        assert (look.mode, wish) == (Plain(), None)
        assert "read only" in text(at, look).splitlines()[-1]


def test_a_filter_is_typed_kept_and_taken_away() -> None:
    at = moment("settled")
    look, _ = press(at, Look(), "/", "v", "2", "backspace", "3")
    assert [r.split()[1] for r in rows(at, look)] == ["v3"]
    assert "/v3" in text(at, look).splitlines()[-1]
    kept, _ = press(at, look, "enter")
    assert "/v3" in text(at, kept).splitlines()[-1]
    assert len(rows(at, press(at, kept, "escape")[0])) == 6
    assert press(at, kept, "/", "9", "escape")[0].filter == "v3"
    assert "none has this text" in text(at, press(at, kept, "/", "9", "enter")[0])


def test_enter_on_a_node_shows_what_it_holds_and_on_a_vip_asks_why() -> None:
    at = moment("settled")
    look, wish = press(at, Look(pane=Pane.NODES), "down", "enter")
    assert wish is None
    held = [v.name for v in found_in(at).vips if v.holder == "b"]
    assert [r.split()[1] for r in rows(at, look)] == held
    assert press(at, Look(), "down", "enter")[1] == Why(found_in(at).vips[1].key)


def test_help_names_every_key_and_goes_away() -> None:
    at = moment("settled")
    look, _ = press(at, Look(), "?")
    shown = text(at, look)
    for word in ("Tab", "filter", "drain", "resume", "move", "quit", "!", "Enter", "ask before anything"):
        assert word in shown
    assert "…" not in shown.replace("↑ ↓ …", "")
    assert press(at, look, "escape")[0].mode == Plain()
    assert press(at, Look(), "q")[1] == Quit()


def test_a_long_text_scrolls_and_stops_at_its_end() -> None:
    at = moment("settled")
    look = Look(mode=Reading("why", tuple(f"line {n}" for n in range(60))))
    assert "line 0" in text(at, look)
    down, _ = press(at, look, *["pagedown"] * 9)
    assert "line 59" in text(at, down)
    assert "line 0" in text(at, press(at, down, *["pageup"] * 9)[0])


def test_events_are_scrolled_back_and_forth() -> None:
    at = moment("lost")
    newest = at.happenings[-1].sentence
    look, _ = press(at, Look(pane=Pane.EVENTS), *["up"] * 3)
    assert newest in text(at, Look(pane=Pane.EVENTS))
    assert look.back == 3
    assert newest not in text(at, look)
    assert at.happenings[0].sentence in text(at, press(at, look, "home")[0])
    assert newest in text(at, press(at, look, "home", "end")[0])


NAMED = [
    "up",
    "down",
    "left",
    "right",
    "pageup",
    "pagedown",
    "home",
    "end",
    "tab",
    "backtab",
    "enter",
    "escape",
    "backspace",
]
KEYS = st.sampled_from([*"qdrmyn?/!@jk a1v-.x\x00é\U0001f4a5", *NAMED])
MOMENTS = st.sampled_from([*STORIES, LARGE, ""])


@given(
    st.lists(st.tuples(KEYS, MOMENTS), max_size=25),
    st.integers(1, 200),
    st.integers(1, 70),
    st.booleans(),
    st.sampled_from([None, "no daemon answers"]),
)
def test_any_keys_on_any_screen(
    keys: list[tuple[str, str]], width: int, height: int, may: bool, gone: str | None
) -> None:
    """Whatever is typed while the cluster changes: every line has the width of the screen, and no order is given that was
    not confirmed."""
    look = Look()
    for key, story in keys:
        at = moment(story) if story else Moment(None, (), 0.0)
        at = replace(at, may=may, gone=gone)
        before = look.mode
        look, wish = pressed(look, key, at.found, at.happenings, room_for(at, look, width, height), may=may)
        assert not isinstance(wish, Order) or (may and isinstance(before, Confirming) and key == "y")
        drawn = lines(at, look, width, height)
        assert len(drawn) == height
        assert {sum(len(p.text) for p in line) for line in drawn} == {width}


ODD: list[dict[str, Any]] = [
    {"name": "x" * 200},
    {"addresses": [f"fd77::{n}/128" for n in range(30)]},
    {"note": "\x1b[31mred\x07" + "long " * 200},
    {"since": None, "cause": ""},
    {"since": -1e9},
]


@pytest.mark.parametrize("fields", ODD, ids=lambda f: next(iter(f)))
def test_odd_answers_are_shown_within_their_line(fields: dict[str, Any]) -> None:
    status = copy.deepcopy(recorded("settled")[0])
    status["vips"][0] |= fields
    at = replace(moment("settled"), found=overview(status))
    assert {sum(len(p.text) for p in line) for line in lines(at, Look(), 80, 24)} == {80}
    assert found_in(at).vips[0].grade in Grade
