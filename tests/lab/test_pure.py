"""The parts of the lab that compute: silences out of probes, bars out of owners, the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.config import parse
from wackamole.lab.lab import LabRefused, Layout
from wackamole.lab.probe import Seen, silences
from wackamole.lab.timeline import held, svg


def test_a_silence_lasts_from_the_first_lost_probe_to_the_next_answer() -> None:
    probes = [(0.0, 0.001), (0.01, None), (0.02, None), (0.03, 0.031), (0.04, 0.041)]
    assert silences(probes) == [(0.01, 0.031)]


def test_an_answer_that_comes_late_is_silence_until_then() -> None:
    assert silences([(0.0, 0.001), (0.01, 0.3), (0.02, 0.3), (0.29, 0.301)]) == [(0.01, 0.301)]


def test_a_silence_without_an_end_is_one_too() -> None:
    assert silences([(0.0, 0.001), (0.01, None), (0.02, None)]) == [(0.01, 0.02)]


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_silences_cover_exactly_the_lost_probes(answered: list[bool]) -> None:
    probes = [(float(i), float(i) + 0.001 if a else None) for i, a in enumerate(answered)]
    found = silences(probes)
    for sent, answer in probes:
        at = sent if answer is None else answer
        assert any(began < at < over or began == at or (answer is None and at == over) for began, over in found) == (
            answer is None
        )


def seen() -> Seen:
    return Seen(
        0.005,
        {"10.0.0.1": [(1.0, 1.3)], "10.0.0.2": [(2.0, 2.1), (5.0, 5.4)]},
        {},
        {"10.0.0.1": [(1.3, ("a", "b")), (1.305, ("a", "b"))], "10.0.0.2": []},
        {},
    )


def test_what_was_seen_in_a_time() -> None:
    found = seen()
    assert found.worst(0) == pytest.approx(0.4)
    assert found.worst(0, 3) == pytest.approx(0.3)
    assert found.worst(6) == 0
    assert found.outage("10.0.0.2", 0, 3) == pytest.approx(0.1)
    assert found.interrupted(1.5) == {"10.0.0.2"}
    assert found.two_owners_s() == pytest.approx(0.01)
    assert found.two_owners_s(since=2.0) == 0


def test_bars_are_cut_by_silences() -> None:
    assert held([(0.0, "a"), (4.0, "b")], [(1.0, 2.0), (3.5, 4.5)], 6.0) == [
        ("a", 0.0, 1.0),
        ("a", 2.0, 3.5),
        ("b", 4.5, 6.0),
    ]


def test_the_picture_is_well_formed_whatever_the_names() -> None:
    text = svg(
        'a title with <, & and "',
        ["a", "b"],
        {"10.0.0.1": "<v&1>"},
        {"10.0.0.1": [(0.0, "a"), (4.0, "b")]},
        {"10.0.0.1": [(3.7, 4.0)]},
        [(3.7, "a crashes <&>")],
        (0.0, 8.0),
    )
    root = ET.fromstring(text)
    words = "".join(root.itertext())
    assert "a crashes <&>" in words
    assert "<v&1> 300 ms" in words


def test_a_layout_is_a_config_that_is_valid() -> None:
    from wackamole.config import parse

    layout = Layout.of("x", nodes=16, vips=200, vips6=20, rings=2)
    config = parse(layout.config)
    assert len(config.nodes) == 16
    assert len(config.vips) == 200
    assert sum(":" in a for _, a in layout.vips) == 20
    with pytest.raises(LabRefused, match="is no name for a lab"):
        Layout.of("Not A Name")


def test_a_lab_of_a_config_on_spread_is_on_spread(tmp_path: Path) -> None:
    file = tmp_path / "wackamole.toml"
    nodes = "".join(
        f'[[node]]\nname = "{n}"\naddresses = ["10.0.0.{i}", "10.1.0.{i}"]\n' for i, n in enumerate("ab", 1)
    )
    vip = '[[vip]]\naddress = "192.0.2.10"\n'
    for engine in ("corosync", "spread"):
        file.write_text(f'[cluster]\nname = "x"\n[engine]\ntype = "{engine}"\ndetection = "1s"\n{nodes}{vip}')
        layout = Layout.of("x", config=file)
        assert (layout.engine, parse(layout.config).engine.type) == (engine, engine)
        assert layout.rings == {"corosync": 2, "spread": 1}[engine]
        assert layout.detection_ms == 1000
