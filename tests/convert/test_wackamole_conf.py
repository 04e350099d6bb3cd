"""What a wackamole.conf says of the control socket and, in a comment, of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from wackamole import config
from wackamole.config import Config, ConfigError
from wackamole.convert import Converted, Fate, Options, Source, convert, load
from wackamole.original import ControlAddress

CONF = "Spread = 4803\nGroup = shop\n#wackamole: node a = 10.0.0.11\nVirtualInterfaces { eth0:192.0.2.10/24 }\n"


def direct(more: str) -> Config:
    found = load(CONF + more, "wackamole.conf")
    assert found is not None
    return found


def converted(more: str, options: Options | None = None) -> Converted:
    return convert([Source("wackamole.conf", CONF + more)], options)


@pytest.mark.parametrize(
    ("control", "address", "words"),
    [
        ("/var/run/wack.it", ControlAddress("/var/run/wack.it"), "an old wackatrl is served there"),
        ('"/var/run/my wack.it"', ControlAddress("/var/run/my wack.it"), "served there"),
        ("127.0.0.1:2413", ControlAddress("", "127.0.0.1", 2413), "every user of this host can drain"),
        ("10.0.0.11:2413", ControlAddress("", "10.0.0.11", 2413), "anybody on the network can drain"),
    ],
)
def test_the_control_socket_is_carried_over(control: str, address: ControlAddress, words: str) -> None:
    assert direct(f"Control = {control}\n").control.original == address
    (told,) = [r for r in converted(f"Control = {control}\n").remarks if r.said.startswith("Control")]
    assert told.fate is Fate.CARRIED
    assert words in told.sentence


@pytest.mark.parametrize("control", ["wack.it", "2413x", "db.example:2413", "127.0.0.1:0", "/" + "x" * 101])
def test_a_control_socket_that_cannot_be_is_left_out_with_its_reason(control: str) -> None:
    found = direct(f"Control = {control}\n")
    assert found.control.original is None
    assert len(found.notes) == 1
    assert found.notes[0].startswith("wackamole.conf:5:1  left out  Control = ")


def test_an_old_file_in_latin_1_is_read_directly(tmp_path: Path) -> None:
    file = tmp_path / "wackamole.conf"
    file.write_bytes(b"# f\xfcr den Laden\n" + CONF.encode())
    assert config.load(file).cluster.name == "shop"
    file.write_bytes(b"# f\xfcr den Laden\n[cluster]\n")
    with pytest.raises(ConfigError, match=r"wackamole.conf:1  is not UTF-8 text"):
        config.load(file)


def test_our_own_socket_is_none_of_the_originals() -> None:
    with pytest.raises(ConfigError, match=r"wackamole.conf:5:1  control.original  .* speaks another protocol"):
        direct("Control = /run/wackamole/control.sock\n")


@pytest.mark.parametrize(
    ("more", "option", "engine"),
    [
        ("", None, "corosync"),
        ("#wackamole: engine = corosync\n", None, "corosync"),
        ("#wackamole: engine = Spread\n", None, "spread"),
        ("#wackamole: engine = spread\n", "corosync", "corosync"),
        ("", "spread", "spread"),
    ],
)
def test_a_comment_chooses_the_engine_and_the_option_overrules_it(more: str, option: str | None, engine: str) -> None:
    done = converted(more, Options(engine=option))
    assert f'type = "{engine}"' in done.toml
    assert ('address = "4803@localhost"' in done.toml) is (engine == "spread")
    fates = {r.said: r.fate for r in done.remarks}
    assert fates["Spread = 4803"] is (Fate.CARRIED if engine == "spread" else Fate.NOT_NEEDED)


def test_with_the_comment_the_file_runs_on_spread_as_it_is() -> None:
    found = direct("#wackamole: engine = spread\nSpreadRetryInterval = 7s\n").engine
    assert (found.type, str(found.address), found.retry_ms) == ("spread", "4803@localhost", 7000)


@pytest.mark.parametrize(
    ("more", "place", "words"),
    [
        ("#wackamole: engine = totem\n", "wackamole.conf:5:1", "`engine = corosync` or `spread`"),
        ("#wackamole: engine = spread\nSpread = 99999\n", "wackamole.conf:6:1", "no address of a Spread daemon"),
    ],
)
def test_a_mistake_about_the_engine_is_told_at_its_place(more: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        direct(more)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(place)
    assert words in caught.value.problems[0]


@pytest.mark.parametrize(
    ("function", "call"),
    [("Shop::announce", "Shop::announce($vip, \\\\@more, {})"), ("announce", "announce($vip, \\\\@more, {})")],
)
def test_a_function_without_a_colon_is_a_perl_function_as_well(function: str, call: str) -> None:
    """As the original took it: only MODULE:FUNCTION with a single colon is a shared object."""
    done = converted(f"PerlUse Shop\nRunDynamic {function} on up\n")
    assert call in done.toml
    assert [r.fate for r in done.remarks if r.said.startswith("RunDynamic")] == [Fate.CHANGED]


def test_what_is_no_name_of_a_perl_function_is_left_out_and_put_into_no_command() -> None:
    done = converted('RunDynamic "Shop::x(`id`)" on up\nRunDynamic lib.so:f post up\n')
    told = [r for r in done.remarks if r.said.startswith("RunDynamic")]
    assert [r.fate for r in told] == [Fate.LEFT_OUT, Fate.LEFT_OUT]
    assert "no name of a Perl function" in told[0].sentence
    assert "a shared object is not loaded" in told[1].sentence
    assert "id" not in "".join(line for line in done.toml.splitlines() if not line.startswith("#"))
