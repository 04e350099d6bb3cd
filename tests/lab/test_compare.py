"""What the comparison computes, without a lab: records, resuming, statistics, tables, pictures, and the systems' own files."""

from __future__ import annotations

import argparse
import itertools
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.lab.compare.__main__ import QUICK_CHAOS, QUICK_SLOW_NOT, QUICK_SYSTEMS_NOT, SYSTEMS, scenarios
from wackamole.lab.compare.chart import Bar, bars
from wackamole.lab.compare.keepalived import Keepalived
from wackamole.lab.compare.original import Original
from wackamole.lab.compare.ours import SPREAD_MS, Ours
from wackamole.lab.compare.pacemaker import Pacemaker
from wackamole.lab.compare.report import (
    CRASH,
    DOUBLE,
    OVERVIEW,
    SECTIONS,
    UNFORCED,
    Column,
    Titled,
    charts,
    document,
    longest_double,
    ratio,
    table,
    values,
)
from wackamole.lab.compare.scenario import QUICK, SCENARIOS, Stage, Timing, effect, holds_s, random_faults
from wackamole.lab.compare.store import Record, Store, missing, order
from wackamole.lab.compare.system import About, Peer, System, layout, preference
from wackamole.lab.compare.ucarp import Ucarp
from wackamole.lab.lab import Lab
from wackamole.lab.probe import Seen
from wackamole.lab.spread import spread_conf

NODES = ("a", "b", "c")


def record(
    system: str, scenario: str = "crash", run: int = 0, *, void: str = "", refused: str = "", **figures: float
) -> Record:
    return Record(system, scenario, run, f"2026-01-0{run + 1}T00:00:00", 1.0, "v", "m", void, refused, figures=figures)


# -- records --------------------------------------------------------------------------------------------------------------


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "raw")
    kept = [record("x", outage_worst_ms=1.5), record("y", "kill", 2, void="why")]
    for each in kept:
        store.add(each)
    assert store.records() == kept


def test_a_line_that_a_kill_cut_short_is_no_record_but_any_other_is_a_mistake(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(record("x"))
    with (tmp_path / "x.jsonl").open("a") as file:
        file.write('{"system": "x", "scen')
    assert store.records() == [record("x")]
    store.add(record("x", "kill"))
    assert store.records() == [record("x"), record("x", "kill")]
    (tmp_path / "y.jsonl").write_text('{"nonsense": 1}\n')
    with pytest.raises(ValueError, match=r"y.jsonl, line 1"):
        store.records()


def test_only_what_is_missing_or_void_is_measured_again() -> None:
    there = [
        record("x"),
        record("x", "kill", void="no"),
        record("x", "move", 3, refused="cannot"),
        record("y", "leave"),
    ]
    assert missing(there, "x", ["crash", "kill", "leave", "move"], 0) == ["kill", "leave"]
    assert missing(there, "x", ["crash", "move"], 1) == ["crash"]


def test_systems_take_turns() -> None:
    assert order({"x": 2, "slow": 1}) == [(0, "x"), (0, "slow"), (1, "x")]


# -- statistics -------------------------------------------------------------------------------------------------------------


def test_ratios_compare_runs_with_the_same_number_only() -> None:
    found = [
        *(record("ours", run=i, outage_worst_ms=v) for i, v in enumerate((100, 300, 200))),
        *(record("peer", run=i, outage_worst_ms=v) for i, v in enumerate((200, 300))),
        record("peer", run=2, void="void", outage_worst_ms=1),
    ]
    summary = ratio(found, "ours", "peer", CRASH)
    assert summary is not None
    assert (summary.median, summary.least, summary.most, summary.n) == (0.75, 0.5, 1.0, 2)
    assert ratio(found, "ours", "nobody", CRASH) is None


def test_a_run_that_was_measured_again_counts_once() -> None:
    assert values([record("x", outage_worst_ms=9), record("x", outage_worst_ms=5)], "x", CRASH) == {0: 5}


def test_a_table_tells_median_spread_void_and_not_offered() -> None:
    found = [
        *(record("x", run=i, outage_worst_ms=v) for i, v in enumerate((280.0, 290.0, 310.0))),
        record("y", void="no"),
        record("z", refused="cannot"),
    ]
    rows = table(found, {"x": "X", "y": "Y", "z": "Z", "absent": "A"}, [CRASH]).splitlines()
    assert rows == ["| | crash, ms |", "|---|---:|", "| X | 290 (280–310) |", "| Y | void |", "| Z | – |"]
    assert table(found, {"absent": "A"}, [CRASH]) == ""


def test_the_document_has_every_system_and_the_ratios() -> None:
    found = [record("x", outage_worst_ms=100), record("y", outage_worst_ms=400)]
    text = document(
        found, [Titled("x", "Ours", True, "as it comes"), Titled("y", "Theirs", False), Titled("z", "Absent", False)]
    )
    assert "| Ours | 100 |  |  |  |  |  |  |" in text
    assert "| Theirs | 400 |  |  |  |  |  | 0.25 |" in text
    assert "- Ours: v (as it comes)\n- Theirs: v\n" in text
    assert "Absent" not in text
    assert "## Void" not in text


def test_the_document_tells_each_void_run_and_why() -> None:
    found = [record("x", outage_worst_ms=100), record("x", "kill", 1, void="not ready within 150 s")]
    text = document(found, [Titled("x", "Ours", True)])
    assert "- Ours, kill, run 2: not ready within 150 s" in text
    assert "| Ours | 1 | 1 |" in text


def test_what_was_dark_to_the_end_is_told_as_such() -> None:
    found = [
        record("x", outage_worst_ms=90_100, outage_median_ms=90_000, two_owners_worst_ms=5, unrecovered=1),
        record("y", "split", back_outage_worst_ms=90_100, outage_worst_ms=3, back_unrecovered=1),
    ]
    crash, split = SECTIONS[0], next(s for s in SECTIONS if "split" in s.title)
    assert "| X | ≥ 90 k | ≥ 90 k | 5 |" in table(found, {"x": "X"}, crash.columns)
    assert "| Y | ≥ 90 k |" in table(found, {"y": "Y"}, split.columns)
    assert "| Y | 3 |" in table(found, {"y": "Y"}, [Column("dark", "split", "outage_worst_ms", "")])


def test_two_owners_count_where_they_are_longest() -> None:
    found = [
        record("x", "kill", two_owners_worst_ms=4000),
        record("x", "kill", 1, two_owners_worst_ms=2000),
        record("x", "crash", two_owners_worst_ms=10),
        record("x", "split", two_owners_worst_ms=8000),  # it is told to serve on both sides
    ]
    assert longest_double(found, "x") == 3000
    assert longest_double(found, "y") is None


def seen(silences: dict[str, list[tuple[float, float]]], doubles: dict[str, list[float]]) -> Seen:
    vips = sorted({*silences, *doubles})
    two: dict[str, list[tuple[float, tuple[str, ...]]]] = {
        v: [(t, ("a", "b")) for t in doubles.get(v, [])] for v in vips
    }
    return Seen(0.005, {v: silences.get(v, []) for v in vips}, {v: [] for v in vips}, two, dict.fromkeys(vips, 9))


def test_an_effect_is_charged_to_those_who_could_not_serve() -> None:
    what = seen({"v": [(1.0, 1.3), (2.0, 2.1)], "w": [(1.0, 1.05)], "x": [(9.0, 9.9)]}, {"w": [1.5, 1.505]})
    found = effect(what, (1.0, 5.0), {"v": "a", "w": "b", "x": "b"}, {"v": "b", "w": "c", "x": "b"}, ["a"])
    assert found["outage_worst_ms"] == pytest.approx(400)
    assert found["outage_median_ms"] == pytest.approx(400)
    assert found["two_owners_worst_ms"] == pytest.approx(10)
    assert (found["needless_interruptions"], found["needless_moves"]) == (1, 1)


# -- what is done -----------------------------------------------------------------------------------------------------------


def test_everybody_gets_the_same_faults_one_after_the_other() -> None:
    one = random_faults(7, NODES, 60.0)
    assert one == random_faults(7, NODES, 60.0) != random_faults(8, NODES, 60.0)
    assert all(a.until < b.at for a, b in itertools.pairwise(one))
    assert one[-1].until < 60
    assert len({f.kind for f in one}) == 6


class Entering(Peer):
    """Its processes can be seen only when they have been asked for a few times, as those that are still entering a host."""

    about = About("entering", "Entering", "")

    def __init__(self) -> None:
        self.started: list[str] = []
        self._unseen = dict.fromkeys(NODES, 0)

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "1"

    def start(self, lab: Lab, node: str) -> None:
        self.started.append(node)
        self._unseen[node] = 3

    def daemons(self, lab: Lab, node: str) -> list[int]:
        if node not in self.started:
            return []
        self._unseen[node] -= 1
        return [1] if self._unseen[node] < 0 else []


def test_what_is_missing_is_started_once(lab: Lab) -> None:
    system = Entering()
    stage = Stage(system, lab, 0, Timing())
    stage.start_missing(["c"])
    assert system.started == ["a", "b"]
    stage.start_missing()
    stage.start_missing()
    assert system.started == ["a", "b", "c"]


@given(st.integers(1, 60))
def test_preferences_share_evenly_also_when_one_is_gone(vips: int) -> None:
    orders = [preference(i, NODES) for i in range(vips)]
    assert all(sorted(o) == list(NODES) for o in orders)
    for gone in (None, *NODES):
        shares = Counter(next(n for n in o if n != gone) for o in orders)
        counts = [shares[n] for n in NODES if n != gone]
        assert max(counts) - min(counts) <= (1 if gone is None else 2), gone


def test_ten_addresses_are_shared_as_evenly_as_can_be() -> None:
    for gone in (None, *NODES):
        shares = Counter(next(n for n in preference(i, NODES) if n != gone) for i in range(10))
        assert max(shares.values()) - min(shares.values()) <= 1


# -- their own files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab() -> Lab:
    return Lab(layout("pure"))


def test_keepalived_has_an_instance_for_each_vip_with_rotated_priorities(lab: Lab) -> None:
    texts = {n: Keepalived(tuned=True).config(lab, n) for n in NODES}
    for index in range(10):
        priorities = [
            int(t.split(f"virtual_router_id {index + 1}\n    priority ")[1].split()[0]) for t in texts.values()
        ]
        assert sorted(priorities) == [234, 242, 250]
    assert all(t.count("advert_int 0.1") == 10 and t.count("vrrp_instance") == 10 for t in texts.values())
    assert "vrrp_version 3" not in Keepalived(tuned=False).config(lab, "a")


def test_pacemaker_has_a_resource_for_each_vip(lab: Lab) -> None:
    found = ET.fromstring(Pacemaker.cib(lab)).findall(".//primitive")
    ips = {p.findall(".//nvpair[@name='ip']")[0].get("value") for p in found}
    assert ips == {a for _, a in lab.layout.vips}
    assert "token: 240" in Pacemaker(300).corosync(lab)
    assert "token" not in Pacemaker().corosync(lab)


def test_ucarp_has_a_process_for_each_vip_and_the_original_every_vip(lab: Lab) -> None:
    script, conf = Ucarp().commands(lab, "b"), Original.config(lab)
    assert script.count("ucarp --interface") == 10
    assert "--srcip=10.77.0.12" in script
    assert all(f"--addr={a} " in script and f"eth0:{a}/32n16" in conf for _, a in lab.layout.vips)


def test_the_original_has_spreads_own_timeouts_or_those_that_ours_has() -> None:
    hosts = [("a", "10.77.0.11")]
    default, tuned, ours = (
        spread_conf(hosts, "10.77.255.255", s.layout("pure").detection_ms)
        for s in (Original(), Original(SPREAD_MS), Ours("spread", SPREAD_MS))
    )
    assert "Timeout" not in default
    assert tuned == ours
    assert tuned.count("Timeout = ") == 9  # Spread wants all of them or none


# -- pictures -------------------------------------------------------------------------------------------------------------


def test_a_picture_is_svg_with_words_for_who_cannot_see_it() -> None:
    text = bars(
        "A & B", "how", "ms", [Bar("slow", False, (3000.0, 3100.0), 3050.0), Bar("quick", True, (280.0,), 280.0)]
    )
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "A & B"
    assert "quick 280 ms; slow 3\u202f050 ms" in (root.findtext(f"{space}desc") or "")
    rows = [r for r in root.iter(f"{space}rect") if r.get("class") in ("ours", "peer")]
    assert [r.get("class") for r in rows] == ["ours", "peer"]
    assert float(rows[0].get("width", 0)) < float(rows[1].get("width", 0))
    assert len(list(root.iter(f"{space}circle"))) == 3


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=5))
def test_a_picture_stays_inside_its_edges(found: list[float]) -> None:
    root = ET.fromstring(bars("t", "n", "ms", [Bar("x", False, tuple(found), sorted(found)[0])]))
    places = [float(c.get("cx", "nan")) for c in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert all(0 <= p <= 900 for p in places)


def test_charts_are_made_of_what_there_is() -> None:
    found = charts([record("x", outage_worst_ms=1, two_owners_worst_ms=70)], [Titled("x", "X", True)])
    assert set(found) == {"against"}
    assert "two owners 70 ms" in found["against"]
    clean = [record("x", s, outage_worst_ms=1, two_owners_worst_ms=0) for s in UNFORCED]
    assert "never two owners" not in charts(clean[:-1], [Titled("x", "X", True)])["against"]
    never = charts(clean, [Titled("x", "X", True)])
    assert "never two owners" in never["against"]
    assert "≥" not in never["against"]
    cut_off = charts([record("x", outage_worst_ms=90_000, unrecovered=1)], [Titled("x", "X", True)])
    assert "≥ 90\u202f000 ms" in cut_off["against"]


def test_every_column_is_of_a_scenario() -> None:
    columns = [*OVERVIEW, *DOUBLE, *(c for section in SECTIONS for c in section.columns)]
    assert {c.scenario for c in columns} == set(SCENARIOS)


# -- what is measured -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timing", [Timing(), QUICK])
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.about.name)
def test_what_is_held_lasts_longer_than_the_system_needs_to_notice(system: System, timing: Timing) -> None:
    assert holds_s(timing, system.about) >= max(timing.held, system.about.notices_s + 2)


def test_names_of_systems_are_unique_and_those_that_quick_knows_exist() -> None:
    names = [s.about.name for s in SYSTEMS]
    assert len(names) == len(set(names))
    assert {*QUICK_SYSTEMS_NOT, *QUICK_CHAOS} <= set(names)


def test_quick_has_time_for_less_and_what_is_asked_for_is_always_measured() -> None:
    quick = argparse.Namespace(scenario=None, quick=True)
    peer, slow = About("peer", "Peer", ""), About("slow", "Slow", "", slow=True)
    assert scenarios(quick, About(QUICK_CHAOS[0], "Ours", "")) == list(SCENARIOS)
    assert scenarios(quick, peer) == [s for s in SCENARIOS if s != "chaos"]
    assert set(SCENARIOS) - set(scenarios(quick, slow)) == {"chaos", *QUICK_SLOW_NOT}
    for about in (peer, slow):
        assert scenarios(argparse.Namespace(scenario=["chaos", "freeze"], quick=True), about) == ["chaos", "freeze"]
        assert scenarios(argparse.Namespace(scenario=None, quick=False), about) == list(SCENARIOS)


def test_published_records_are_those_that_were_measured(tmp_path: Path) -> None:
    store, published = Store(tmp_path / "raw"), tmp_path / "published"
    store.add(record("one", worst_ms=1.0))
    published.mkdir()
    (published / "older.jsonl").write_text("what a run of another day left\n")
    store.copy_to(published)
    assert Store(published).records() == store.records() == [record("one", worst_ms=1.0)]
