"""What a page is told: everything once, then what changed; told one after the other it knows what there is."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.watch.stage import STORIES, enlarged, recorded
from wackamole.following import Heard
from wackamole.web.feed import Shown, difference, plain, shown


def heard(story: str, **more: Any) -> Heard:
    status, events = recorded(story)
    return Heard(status=status, entries=tuple(events), **more)


def put_together(page: dict[str, Any], told: Mapping[str, Any]) -> None:
    """What page.js does with it."""
    page.update({k: told[k] for k in ("daemon", "cluster") if k in told})
    vips = page.setdefault("vips", {})
    for key in told.get("removed", ()):
        del vips[key]
    vips.update({v["key"]: v for v in told.get("vips", ())})
    page.setdefault("events", []).extend(told.get("events", ()))


@given(st.lists(st.tuples(st.sampled_from(STORIES), st.booleans(), st.sampled_from([None, "gone"])), min_size=1))
def test_what_was_told_piece_by_piece_is_what_there_is(steps: list[tuple[str, bool, str | None]]) -> None:
    page: dict[str, Any] = {}
    known = Shown()
    for story, late, gone in steps:
        now = shown(heard(story, gone=gone), known, late=late, fresh=True)
        told = json.loads(json.dumps(difference(known, now)))
        put_together(page, told)
        known = now
        found = json.loads(json.dumps(plain(now.found)))
        assert page["daemon"] == {"gone": gone, "late": late}
        assert {**page["cluster"], "vips": sorted(page["vips"].values(), key=lambda v: v["key"])} == {
            **found,
            "vips": sorted(found["vips"], key=lambda v: v["key"]),
        }
        assert difference(known, now) == {}


def test_of_a_thousand_vips_one_is_told_when_one_moves() -> None:
    status = enlarged(recorded("settled")[0], 50, 1000)
    first = shown(Heard(status=status), Shown(), late=False, fresh=True)
    assert len(difference(Shown(), first)["vips"]) == 1000
    moved = copy.deepcopy(status)
    moved["vips"][0] |= {"holder": "node-9", "target": "node-9"}
    then = shown(Heard(status=moved), first, late=False, fresh=True)
    told = difference(first, then)
    assert [v["name"] for v in told["vips"]] == ["vip-1"]
    assert len(json.dumps(told)) < len(json.dumps(difference(Shown(), first))) / 10


def test_an_event_is_told_once() -> None:
    first = shown(heard("settled"), Shown(), late=False, fresh=True)
    told = difference(Shown(), first)
    assert len(told["events"]) == len(recorded("settled")[1])
    assert "events" not in difference(first, shown(heard("settled"), first, late=True, fresh=False))


def test_only_what_is_shown_leaves_the_host() -> None:
    told = json.dumps(difference(Shown(), shown(heard("settled"), Shown(), late=False, fresh=True)))
    for kept_back in ("pid", "guard", "generation", "lease_ms", "scheduling", "token"):
        assert f'"{kept_back}"' not in told
