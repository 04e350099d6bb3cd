"""What becomes of single statements of a keepalived.conf."""

from __future__ import annotations

import pytest

from wackamole.convert import Converted, Fate, Source, convert


def converted(inside: str, after: str = "") -> Converted:
    text = f"vrrp_instance X {{\n  interface eth0\n  virtual_ipaddress {{ 10.0.0.1 }}\n  {inside}\n}}\n{after}"
    return convert([Source("k.conf", text)])


def fate(done: Converted, line: int) -> tuple[Fate, str]:
    (found,) = [r for r in done.remarks if r.place.line == line]
    return found.fate, found.sentence


@pytest.mark.parametrize("statement", ["prioritty 50", "virtual_ipadress_excluded { 10.0.0.3 }", "frobnicate"])
def test_what_is_not_known_is_left_out_and_not_called_needless(statement: str) -> None:
    """A misspelt list of addresses would be served by nobody."""
    found, sentence = fate(converted(statement), 4)
    assert found is Fate.LEFT_OUT
    assert "known under this name" in sentence
    assert fate(converted("", f"vrrp_sync_group G {{ group {{ X }}\n  {statement}\n}}\n"), 7)[0] is Fate.LEFT_OUT


@pytest.mark.parametrize("statement", ["version 3", "garp_master_delay 5", "dont_track_primary", "state BACKUP"])
def test_details_of_vrrp_are_not_needed(statement: str) -> None:
    assert fate(converted(statement), 4)[0] is Fate.NOT_NEEDED


def test_a_misspelt_statement_is_guessed() -> None:
    assert "did you mean priority?" in fate(converted("prioritty 50"), 4)[1]


def test_what_holds_on_one_host_alone_is_a_problem_wherever_it_stands() -> None:
    for done in (converted("@a priority 50"), converted("", "@a vrrp_instance Y { }\n")):
        (problem,) = done.problems
        assert "lines for one host alone are not read" in problem.sentence


def test_a_file_that_is_read_in_is_told() -> None:
    found, sentence = fate(converted("include more.conf"), 4)
    assert found is Fate.LEFT_OUT
    assert "other files are not read" in sentence


def test_only_the_vips_own_interfaces_are_watched() -> None:
    done = converted("track_interface {\n  eth0 weight 10\n  eth1\n }")
    assert fate(done, 5)[0] is Fate.CARRIED
    found, sentence = fate(done, 6)
    assert found is Fate.LEFT_OUT
    assert "not watched" in sentence
    done = converted("", "vrrp_sync_group G {\n  group { X }\n  track_interface {\n  eth0\n  eth7\n }\n}\n")
    assert fate(done, 9)[0] is Fate.CARRIED
    assert fate(done, 10)[0] is Fate.LEFT_OUT
