"""Whatever the text is: no crash, bounded answers, and what is converted without a problem is a config."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wackamole.config import ConfigError, load, parse
from wackamole.convert import PROBLEMS_MAX, Kind, Options, Source, convert, detect

NODES = (("a", ("10.0.0.11",)), ("b", ("10.0.0.12",)))
WORDS = [
    "Spread",
    "SpreadRetryInterval",
    "Group",
    "Control",
    "Mature",
    "Balance",
    "AcquisitionsPerRound",
    "Interval",
    "Arp-Cache",
    "Prefer",
    "None",
    "all",
    "=",
    "{",
    "}",
    "VirtualInterfaces",
    "vips",
    "Notify",
    "throttle",
    "ping",
    "RunDynamic",
    "PerlUse",
    "PerlUseLib",
    "LogFacility",
    "ModuleDir",
    "5s",
    "2H",
    "4803",
    "128",
    "m:f",
    "M::f",
    "eth0:10.0.0.10/24",
    "eth1:10.0.0.11/32n24",
    "10.0.0.12/32",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "256.1.1.1/24",
    "x::y",
    "'a",
    '"b',
    "#",
    "!",
    "@x",
    "$A",
    "$A=eth0",
    "${A}",
    "vrrp_instance",
    "vrrp_sync_group",
    "group",
    "VI_1",
    "priority",
    "100",
    "interface",
    "virtual_ipaddress",
    "192.0.2.1",
    "2001:db8::1/64",
    "dev",
    "include",
    "unicast_peer",
    "unicast_src_ip",
    "10.0.0.12",
    "\\",
    "é",
]
GAPS = ["on up", "post  down", "\n", "\t", "\r\n", '"x y"', "\x7f", "\x00", "#wackamole: node c = 10.0.0.13\n"]
GAPS += ["#wackamole: engine = spread\n", "Control = /run/wack.it\n", "Control = 10.0.0.11:2413\n"]
TEXTS = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(WORDS + GAPS), max_size=60).map(" ".join))


def judge(text: str, kind: Kind, *, node: str | None = None, engine: str | None = None) -> None:
    options = Options(NODES, engine, kind=kind)
    done = convert([Source("f", text, node)], options, Source("nodes", text))
    assert len(done.problems) <= PROBLEMS_MAX + 1
    assert all("\n" not in str(said) for said in (*done.problems, *done.remarks, *done.missing))
    tomllib.loads(done.toml)
    if not done.problems and not done.missing:
        parse(done.toml)


@settings(max_examples=300)
@given(TEXTS, st.sampled_from(Kind), st.sampled_from([None, "a", "z"]), st.sampled_from([None, "corosync", "spread"]))
def test_any_text_of_any_kind(text: str, kind: Kind, node: str | None, engine: str | None) -> None:
    judge(text, kind, node=node, engine=engine)


@settings(max_examples=200)
@given(TEXTS, TEXTS)
def test_any_two_hosts(a: str, b: str) -> None:
    for kind in Kind:
        done = convert([Source("a", a, "a"), Source("b", b, "b")], Options(NODES, kind=kind))
        tomllib.loads(done.toml)
        if not done.problems:
            parse(done.toml)


@settings(max_examples=100)
@given(TEXTS)
def test_any_text_is_detected_or_not(text: str) -> None:
    assert detect(text) in (None, *Kind)
    done = convert([Source("f", text)])
    assert done.toml or done.problems


ADDRESSES = st.tuples(st.integers(1, 223).filter(lambda n: n != 127), st.integers(0, 255), st.integers(1, 254)).map(
    lambda o: f"{o[0]}.{o[1]}.7.{o[2]}"
)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(ADDRESSES, st.integers(24, 32), st.sampled_from(["", "eth0", "bond0.5"])), min_size=1, max_size=40
    ),
    st.integers(0, 600),
    st.booleans(),
)
def test_every_good_file_of_the_original_is_a_config(
    vips: list[tuple[str, int, str]], mature: int, twice: bool
) -> None:
    once = {ip: (prefix, interface) for ip, prefix, interface in vips if not ip.endswith((".255", ".0"))}
    lines = [f"{interface}:{ip}/32n{prefix}".lstrip(":") for ip, (prefix, interface) in once.items()]
    lines += lines[: int(twice)]
    text = f"Group = g\nMature = {mature}s\nVirtualInterfaces {{\n" + "\n".join(lines) + "\n}\n"
    done = convert([Source("f", text)], Options(NODES))
    if not lines:
        assert done.problems
        return
    assert not done.problems
    found = parse(done.toml)
    assert [v.vip.addresses[0].ip for v in found.vips] == list(once)
    assert found.cluster.mature_ms == mature * 1000


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "}",
        '"',
        "'",
        "{ ",
        "a",
        "10.0.0.1/8\n",
        "Prefer 0.0.0.0/0\n",
        "$A=$B$B\n",
        "x y {\n",
        "vips { ",
        "# \n",
        "= ",
    ],
)
def test_large_and_hostile_texts(piece: str, kind: Kind) -> None:
    judge(piece * (40_000 // len(piece)), kind)


def test_a_broken_toml_is_judged_as_toml(tmp_path: Path) -> None:
    file = tmp_path / "wackamole.conf"
    for text in ('[cluster]\nname = "web"\nmature = 5s\n', '[cluster]\nname = "web"\nmature = "5s"\n'):
        assert detect(text) is None
        file.write_text(text)
        with pytest.raises(ConfigError) as wrong:
            load(file)
        assert "is not TOML" in str(wrong.value) or "at least one [[node]]" in str(wrong.value)
