"""Faults one after another, and what an observer makes of the answers. How available VIPs are meanwhile is the machine's
business too, and not asserted here."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wackamole.config import parse
from wackamole.lab.chaos import KINDS, Allowance, Done, Fault, allowed, charge, faults, judge_owners, judge_silence
from wackamole.lab.lab import Lab, Layout
from wackamole.lab.namespaces import ip
from wackamole.lab.probe import PCAP_BYTES_MAX, Capture, Probe, Seen

SETTINGS = '[fence]\ntakeover = "{}"\n'


def fault(number: int, kind: str) -> Fault:
    return Fault(number, kind, "a", "b", "10.77.1.1", 0, 1.0, 1.0)


def two(*at: float) -> Seen:
    """An observer who found a and b together at these moments, 10 ms apart at least."""
    return Seen(0.01, {}, {}, {"10.77.1.1": [(t, ("a", "b")) for t in at]}, {})


def span(begin: float, end: float) -> list[float]:
    return [begin + n * 0.01 for n in range(round((end - begin) * 100))]


# -- what needs no lab ----------------------------------------------------------------------------------------------------


def test_a_seed_stands_for_its_faults() -> None:
    layout = Layout.of("x", nodes=4, rings=2)
    once = list(itertools.islice(faults(7, layout), 100))
    assert once == list(itertools.islice(faults(7, layout), 100))
    assert once != list(itertools.islice(faults(8, layout), 100))
    assert {f.kind for f in once[: len(KINDS)]} == set(KINDS)
    assert all(f.node != f.other for f in once)
    assert [f.number for f in once] == list(range(1, 101))
    assert "cut-network" not in {f.kind for f in itertools.islice(faults(7, Layout.of("x")), 100)}


@pytest.mark.parametrize(
    ("kind", "takeover", "partition", "is_allowed"),
    [
        ("crash", "fast", "cover", Allowance()),
        ("freeze-daemon", "fast", "cover", Allowance()),
        ("freeze-corosync", "fast", "cover", Allowance(750)),
        ("freeze-all", "fast", "cover", Allowance(770, 20)),
        ("freeze-all", "strict", "cover", Allowance()),
        ("freeze-corosync", "fast", "majority", Allowance()),
        ("partition", "strict", "cover", Allowance(None, 150)),
        ("partition", "fast", "majority", Allowance()),
    ],
)
def test_what_is_allowed(kind: str, takeover: str, partition: str, is_allowed: Allowance) -> None:
    layout = Layout.of("x", detection="300ms", settings=SETTINGS.format(takeover), cluster=f'partition = "{partition}"')
    assert allowed(kind, parse(layout.config)) == is_allowed


def test_a_patient_cluster_may_take_longer_to_merge() -> None:
    assert allowed("partition", parse(Layout.of("x", detection="1s").config)) == Allowance(None, 500)


def test_two_owners_are_charged_to_the_fault_that_began_last() -> None:
    done = [Done(fault(1, "partition"), 10.0, 12.0, 12.5), Done(fault(2, "crash"), 20.0, 21.0, 22.0)]
    config = parse(Layout.of("x").config)
    assert charge(done, 9.9) is None
    assert charge(done, 19.9) is done[0]

    def judged(seen: Seen) -> list[str]:
        return [v.kind for v in judge_owners(done, seen, {}, config)[1]]

    assert judged(two()) == []
    assert judged(two(*span(10.3, 12.1))) == []
    assert judged(two(*span(10.3, 12.2))) == ["partition"]
    assert judged(two(20.5)) == ["crash"]
    assert judged(two(5.0)) == ["nothing"]
    assert judged(two(*span(10.3, 12.1), 20.5)) == ["crash"]


def test_a_frozen_host_may_answer_for_its_lease_and_not_longer() -> None:
    done = [Done(fault(1, "freeze-corosync"), 10.0, 13.0, 13.5)]
    config = parse(Layout.of("x", detection="300ms").config)
    assert judge_owners(done, two(*span(10.3, 11.05)), {}, config)[1] == []
    assert [v.kind for v in judge_owners(done, two(*span(10.3, 11.2)), {}, config)[1]] == ["freeze-corosync"]


def test_who_wakes_before_it_is_dark_may_answer_for_the_rest_of_its_lease() -> None:
    config = parse(Layout.of("x", detection="300ms").config)
    assert allowed("freeze-all", config, 0.9) == Allowance(770)
    assert allowed("freeze-all", config, 1.2) == Allowance(770, 20)
    brief = replace(fault(1, "freeze-all"), hold_s=0.5)
    seen = two(*span(10.4, 11.0))
    assert judge_owners([Done(brief, 10.0, 10.5, 11.0)], seen, {}, config)[1] == []
    long = replace(fault(1, "freeze-all"), hold_s=1.5)
    late = two(*span(11.4, 11.6))
    assert [v.kind for v in judge_owners([Done(long, 10.0, 11.5, 12.0)], late, {}, config)[1]] == ["freeze-all"]


def test_silence_is_charged_too_and_makes_the_availability() -> None:
    done = [Done(fault(1, "crash"), 10.0, 12.0, 12.5)]
    seen = Seen(0.01, {"10.77.1.1": [(9.99, 10.35)], "10.77.1.2": []}, {}, {}, {})
    charged, _ = judge_owners(done, seen, {}, parse(Layout.of("x").config))
    availability = judge_silence(done, seen, charged, (0.0, 100.0), ())
    assert charged["crash"].silent_s == pytest.approx(0.36)
    assert availability == pytest.approx(1 - 0.36 / 200)
    assert judge_silence(done, seen, charged, (0.0, 100.0), [(9.0, 11.0)]) == 1


def test_a_capture_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "wire.pcap"
    capture = Capture(path)
    frame = bytes(1 << 20)
    for _ in range(2 * (PCAP_BYTES_MAX >> 20) + 8):
        capture.write(frame, 1.5)
    capture.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wire.pcap", "wire.pcap.1"]
    assert all(p.stat().st_size <= PCAP_BYTES_MAX + (2 << 20) for p in tmp_path.iterdir())


# -- what does ------------------------------------------------------------------------------------------------------------


@pytest.mark.lab
def test_nothing_forbidden_happens_in_a_short_run(tmp_path: Path) -> None:
    command = ["lab", "chaos", "--seconds", "40", "--seed", "5", "--pause", "2", "--detection", "1s", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "wackamole", *command, "--keep", str(tmp_path)],
        env=Lab.environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["violations"] == [], done.stderr
    assert done.returncode == 0
    planned = itertools.islice(faults(5, Layout.of("x"), 2), len(report["faults"]))
    assert [(f["kind"], f["node"], f["hold_s"]) for f in report["faults"]] == [
        (f.kind, f.node, f.hold_s) for f in planned
    ]
    assert len(report["faults"]) >= 3
    assert (tmp_path / "wire.pcap").stat().st_size > 0
    assert "settled" in (tmp_path / "a.events.jsonl").read_text()


@pytest.mark.lab
def test_tshark_finds_the_same_two_owners(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """No daemons: what two kernels answer for an address that both have, and for others that one has."""
    if shutil.which("tshark") is None:
        pytest.skip("needs the program tshark (script/test installs it)")
    lab = make_lab(nodes=2, vips=4, vips6=2)
    (_, both), (_, one), (_, both6), (_, one6) = lab.layout.vips
    for host, addresses in (("a", (both, one, both6, one6)), ("b", (both, both6))):
        lines = [f"addr add {x}/{128 if ':' in x else 32} dev eth0 {'nodad' if ':' in x else ''}" for x in addresses]
        ip(*lines, namespace=lab.layout.namespace(host))
    capture = tmp_path / "wire.pcap"
    with Probe(lab, interval_ms=10, capture=capture) as probe:
        lab.until(
            lambda: capture.exists() and capture.stat().st_size > 100_000,
            within_s=60,
            story="a thousand answers are captured",
        )
        seen = probe.stop()
    found = {address for address, doubles in seen.two_owners.items() if doubles}
    assert found == {both, both6}
    assert {who for _, who in seen.two_owners[both]} == {("a", "b")}
    shown = tshark(capture, "arp.duplicate-address-detected", "arp.src.proto_ipv4")
    assert shown == {both}
    macs = {six: tshark(capture, f"icmpv6.nd.na.target_address == {six}", "eth.src") for six in (both6, one6)}
    assert macs == {both6: set(lab.macs().values()), one6: {lab.macs()["a"]}}


def tshark(capture: Path, chosen: str, wanted: str) -> set[str]:
    """The values of a field in the frames that a display filter chooses."""
    command = ["tshark", "-n", "-r", str(capture), "-Y", chosen, "-T", "fields", "-e", wanted]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
