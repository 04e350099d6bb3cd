"""What a status and its events mean, on what real daemons said."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from wackamole.overview import Grade, Overview, ago, happening, natural, overview

from .watch.stage import STORIES, enlarged, recorded


def seen(story: str) -> Overview:
    return overview(recorded(story)[0])


def changed(**of_the_first_vip: Any) -> Overview:
    status = copy.deepcopy(recorded("settled")[0])
    status["vips"][0] |= of_the_first_vip
    return overview(status)


def test_a_quiet_cluster_has_no_trouble_but_what_the_daemon_warns_of() -> None:
    found = seen("settled")
    assert [t.sentence for t in found.troubles] == recorded("settled")[0]["warnings"]
    assert {n.grade for n in found.nodes} == {v.grade for v in found.vips} == {Grade.GOOD}
    assert [(n.name, n.vips) for n in found.nodes] == [("a", 2), ("b", 2), ("c", 2)]
    assert (found.settled, found.fence, found.engine) == (True, "nftables open", "corosync joined")


def test_a_drain_and_a_move_are_worth_knowing_and_no_trouble() -> None:
    found = seen("drained")
    assert found.grade is Grade.NOTICE
    assert "node b: drained" in [t.sentence for t in found.troubles]
    assert [v.name for v in found.vips if v.pinned] == ["v1"]


def test_a_lost_host_is_trouble_and_said_first() -> None:
    found = seen("lost")
    assert found.troubles[0].sentence == "node c: absent"
    assert found.grade is Grade.BAD
    assert {v.cause for v in found.vips} >= {"its host was lost"}


def test_a_minority_says_in_a_sentence_for_each_reason_what_is_held_by_nobody() -> None:
    found = seen("minority")
    sentences = [t.sentence for t in found.troubles if t.grade is Grade.BAD]
    assert "2 VIPs (v1, v4): held by nobody (a: its component has no majority)" in sentences
    assert len([s for s in sentences if "held by nobody" in s]) == len({v.words for v in found.vips})
    assert {v.grade for v in found.vips} == {Grade.BAD}


@pytest.mark.parametrize(
    ("fields", "words", "grade"),
    [
        ({"here": False}, "missing in the kernel of a", Grade.BAD),
        ({"holder": "b", "target": "b"}, "still in the kernel of a", Grade.BAD),
        ({"witness": {"by": "c", "result": "silent", "at": 1.0}}, "silent on the wire, c says", Grade.BAD),
        ({"duplicates": [{"mac": "02:00"}]}, "another host claims it", Grade.BAD),
        ({"moving": True, "target": "b"}, "on its way to b", Grade.NOTICE),
        ({"moving": True, "note": "being let go of by c"}, "being let go of by c", Grade.NOTICE),
    ],
)
def test_a_vip_that_is_not_as_it_should_be(fields: dict[str, Any], words: str, grade: Grade) -> None:
    status = recorded("settled")[0]
    assert (status["vips"][0]["holder"], status["vips"][0]["here"]) == ("a", True)
    found = changed(**fields)
    assert found.vips[0].words == (words,)
    assert found.vips[0].grade is grade
    assert any("v1" in t.sentence and t.grade is grade for t in found.troubles)


def test_a_daemon_without_a_group_says_so_first() -> None:
    status = recorded("settled")[0]
    status["phase"], status["engine"]["state"] = "offline", "lost"
    assert overview(status).troubles[0].sentence.startswith("a is offline: it has no group")
    status = recorded("settled")[0]
    status["fence"]["state"] = "shut"
    assert overview(status).troubles[0].sentence == "the fence of a is shut: this host's VIPs are silenced"


def test_names_are_in_the_order_in_which_people_count() -> None:
    assert sorted(["v10", "v9", "v1", "a2b10", "a2b9", "10.0.0.9", "v"], key=natural) == [
        "10.0.0.9",
        "a2b9",
        "a2b10",
        "v",
        "v1",
        "v9",
        "v10",
    ]
    found = overview(enlarged(recorded("settled")[0], 50, 1000))
    assert [v.name for v in found.vips[:3]] == ["vip-1", "vip-2", "vip-3"]
    assert len(found.troubles) == 4  # a VIP without a holder, two nodes, the key


@pytest.mark.parametrize(
    ("entry", "sentence", "grade"),
    [
        ({"event": "moved", "vip": "v", "source": "c", "to": "a", "cause": "its host was lost"}, "v  c → a: its host was lost", Grade.NOTICE),
        ({"event": "moved", "vip": "v", "source": "c", "to": "nobody", "cause": "x"}, "v  c → nobody: x", Grade.BAD),
        ({"event": "moved", "vip": "v", "source": "c", "to": "a", "cause": "balance"}, "v  c → a: balance", Grade.GOOD),
        ({"event": "view", "members": "a,b", "left": "c:host lost"}, "members: a b; c is gone (host lost)", Grade.BAD),
        ({"event": "view", "members": "a,b", "left": "c:left"}, "members: a b; c is gone (left)", Grade.GOOD),
        ({"event": "view", "members": "a,b", "joined": "b"}, "members: a b; b joined", Grade.GOOD),
        ({"event": "command", "verb": "move", "vips": "v,w", "node": "b", "by": "root"}, "root asked: move v w b", Grade.GOOD),
        ({"event": "command_refused", "verb": "drain", "by": "root", "reason": "no"}, "drain was refused: no", Grade.NOTICE),
        ({"event": "drain", "node": "b", "leaving": "False"}, "b is drained", Grade.NOTICE),
        ({"event": "duplicate", "vip": "v"}, "duplicate vip=v", Grade.BAD),
        ({"event": "something_new", "count": "3"}, "something_new count=3", Grade.GOOD),
    ],
)  # fmt: skip
def test_an_event_as_a_sentence(entry: dict[str, Any], sentence: str, grade: Grade) -> None:
    found = happening({**entry, "time": 1.5, "said_by": "a", "run": "0", "number": 1, "place": {}})
    assert (found.time, found.by, found.sentence, found.grade) == (1.5, "a", sentence, grade)


@pytest.mark.parametrize("story", STORIES)
def test_whatever_a_daemon_told_is_a_sentence(story: str) -> None:
    events = recorded(story)[1]
    assert len(events) > 5
    for entry in events:
        assert happening(entry).sentence.strip()
    moves = [h.moved for h in map(happening, events) if h.moved]
    holders = {v.name: v.holder or "nobody" for v in seen(story).vips}
    assert {vip: to for vip, _, to in moves}.items() <= holders.items()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59.9, "59s"), (75, "1m 15s"), (3600 * 25, "1d 1h"), (-3, "0s")]
)
def test_a_duration_as_people_say_it(seconds: float, words: str) -> None:
    assert ago(seconds) == words
