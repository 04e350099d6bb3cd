"""The charts of `script/bench --only scale`, from figures that are made up here."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

import pytest

from wackamole.lab.scale_bench import Size, charts, fit, ours
from wackamole.lab.scale_chart import Series, plot

SVG = "{http://www.w3.org/2000/svg}"


def size(vips: int, last_ms: float, kernel_ms: float, idle: float) -> Size:
    return Size(3, vips, last_ms * 2, [last_ms, last_ms], [300.0], [290.0], [kernel_ms], [idle])


def test_a_line_goes_through_points_that_lie_on_one() -> None:
    line = fit([(10, 12.0), (100, 30.0), (1000, 210.0)])
    assert [line.slope, line.start] == pytest.approx([0.2, 10.0])
    assert line.at(500) == pytest.approx(110)


def test_the_kernels_list_is_taken_off_once_for_each_survivor() -> None:
    assert ours(size(1000, 30.0, 8.0, 2.0)) == pytest.approx(14.0)
    assert ours(size(1000, 30.0, 20.0, 2.0)) == 0


def test_charts_have_a_dot_for_every_value_and_say_the_slope() -> None:
    found = charts([size(10, 2.0, 0.1, 1.0), size(1000, 30.0, 10.0, 2.0), Size(16, 160, None, [9.0])], "a machine")
    assert set(found) == {"scale-outage.svg", "scale-idle.svg"}
    outage, idle = (ET.fromstring(found[name]) for name in ("scale-outage.svg", "scale-idle.svg"))
    assert len(outage.findall(f"{SVG}circle")) == 4 + 2 + 2  # the last VIP, ours, the kernel's; goals have none
    assert len(outage.findall(f"{SVG}polyline")) == 4
    assert len(idle.findall(f"{SVG}circle")) == 2
    told = [t.text or "" for t in idle.findall(f"{SVG}text")]
    assert any("1.01 % per 1000 VIPs" in t for t in told), told


def test_one_size_makes_no_chart() -> None:
    assert charts([size(10, 2.0, 0.1, 1.0)], "a machine") == {}


def test_names_do_not_lie_upon_each_other_and_are_escaped() -> None:
    same = tuple(Series(f"<{n}>", ((1.0, 5.0),), ((1.0, 5.0), (10.0, 5.0))) for n in range(3))
    drawn = ET.fromstring(plot("t", "n", "x", "y", same))
    places = sorted(float(t.attrib["y"]) for t in drawn.findall(f"{SVG}text") if (t.text or "").startswith("<"))
    assert len(places) == 3
    assert all(b - a >= 16 for a, b in itertools.pairwise(places))
