"""`wackamole plan` on config files, as a pipeline uses it; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wackamole.cli import app
from wackamole.config import parse
from wackamole.planning import Change, PlanRefused, Supposition, cluster_of, plan, vip_of, weight_of
from wackamole.wire import WireError, table_from, table_text

CONFIG = """\
[cluster]
name = "web"
[engine]
detection = "300ms"
[[node]]
name = "a"
address = "10.0.0.1"
[[node]]
name = "b"
address = "10.0.0.2"
[[node]]
name = "c"
address = "10.0.0.3"
"""
VIPS = "".join(f'[[vip]]\nname = "v{i}"\naddress = "192.0.2.{i}/32"\n' for i in range(1, 7))


def held(config: str) -> dict[str, list[str]]:
    state = cluster_of(parse(config))
    names = {r.node: r.name for r in state.table.reports}
    found: dict[str, list[str]] = {}
    for row in state.table.rows:
        assert row.holder is not None
        found.setdefault(names[row.holder], []).append(row.vip.name)
    return found


def test_only_what_a_lost_host_had_goes_and_it_is_said_why() -> None:
    had = held(CONFIG + VIPS)["b"]
    changes = plan(cluster_of(parse(CONFIG + VIPS)), Supposition(down=("b",)))
    assert [(c.vip, c.source, c.cause) for c in changes] == [(v, "b", "its host was lost") for v in had]
    assert {c.to for c in changes} == {"a", "c"}


def test_drains_weights_and_vips_that_are_added() -> None:
    now = cluster_of(parse(CONFIG + VIPS))
    assert {c.cause for c in plan(now, Supposition(drain=("a",)))} == {"its holder is drained"}
    heavier = plan(now, Supposition(weights=(("a", 4),)))
    assert {(c.to, c.cause) for c in heavier} == {("a", "balance")}
    assert len(heavier) == 2
    (added,) = plan(now, Supposition(added=(vip_of("new=192.0.2.9"),)))
    assert (added.vip, added.source, added.cause) == ("new", None, "nobody held it")
    assert plan(now, Supposition()) == []
    everything = plan(now, Supposition(down=("a", "b"), drain=("c",)))
    assert {c.to for c in everything} == {"c"}


def test_another_config_adds_and_removes_nodes_and_vips() -> None:
    now = cluster_of(parse(CONFIG + VIPS))
    fewer = plan(now, Supposition(config=parse(CONFIG + VIPS.replace("v6", "w6").replace("192.0.2.6", "192.0.2.16"))))
    (had,) = [node for node, vips in held(CONFIG + VIPS).items() if "v6" in vips]
    assert Change("v6", had, None, "no config has it") in fewer
    assert [c.vip for c in fewer if c.source is None] == ["w6"]
    without_c = CONFIG[: CONFIG.rindex("[[node]]")] + VIPS
    assert {c.source for c in plan(now, Supposition(config=parse(without_c)))} == {"c"}
    more = plan(now, Supposition(config=parse(CONFIG + '[[node]]\nname = "d"\naddress = "10.0.0.4"\n' + VIPS)))
    assert {c.to for c in more} == {"d"}


@pytest.mark.parametrize("text", ["v=", "192.0.2.300", "x=y", ""])
def test_what_is_no_vip_is_refused(text: str) -> None:
    with pytest.raises(PlanRefused, match="is no VIP"):
        vip_of(text)


@pytest.mark.parametrize("text", ["a", "=3", "a=-1", "a=1001", "a=x"])
def test_what_is_no_weight_is_refused(text: str) -> None:
    with pytest.raises(PlanRefused, match="is no weight"):
        weight_of(text)


def test_what_cannot_be_supposed_is_refused() -> None:
    now = cluster_of(parse(CONFIG + VIPS))
    for then, words in (
        (Supposition(down=("z",)), "z is not in the group"),
        (Supposition(down=("a", "b", "c")), "nobody would be left"),
        (Supposition(added=(vip_of("v1=192.0.2.99"),)), "there already"),
        (Supposition(added=(vip_of("192.0.2.1"),)), "there already"),
    ):
        with pytest.raises(PlanRefused, match=words):
            plan(now, then)


def test_a_table_goes_to_the_command_line_and_back() -> None:
    table = cluster_of(parse(CONFIG + VIPS)).table
    assert table_from(table_text(table)) == table
    with pytest.raises(WireError, match="no table"):
        table_from("{}}")


def test_on_the_command_line(tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(CONFIG + VIPS)
    new.write_text(CONFIG + VIPS.replace("/32", "/99"))
    runner = CliRunner()
    done = runner.invoke(app, ["plan", "--from", str(old), "--down", "b"])
    assert done.exit_code == 0
    assert "2 of 6 VIPs would move" in done.stdout
    asked = runner.invoke(app, ["plan", "--from", str(old), "--drain", "b", "--json"])
    found = json.loads(asked.stdout)
    assert found["vips"] == 6
    assert {move["source"] for move in found["moves"]} == {"b"}
    assert found["changes"] == []
    heavier = tmp_path / "heavier.toml"
    heavier.write_text(CONFIG.replace('"a"\n', '"a"\nweight = 4\n') + VIPS)
    shown = runner.invoke(app, ["plan", "--from", str(old), "--config", str(heavier)]).stdout.splitlines()
    assert shown[0] == "~ node a weight: 1 → 4"
    assert shown[-1] == "2 of 6 VIPs would move"
    assert runner.invoke(app, ["plan", "--from", str(old)]).stdout == "nothing would move\n"
    wrong = runner.invoke(app, ["plan", "--from", str(old), "--config", str(new)])
    assert wrong.exit_code == 2
    assert wrong.stderr.count("/99") == 6
    assert runner.invoke(app, ["plan", "--from", str(old), "--down", "z"]).exit_code == 2
