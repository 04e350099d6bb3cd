"""The migrations as the documents tell them: what they show is what comes out."""

from __future__ import annotations

import re
from pathlib import Path

from wackamole.config import parse
from wackamole.convert import Options, Source, convert

DOCS = Path(__file__).parents[2] / "docs"


def nodes(names: str) -> Options:
    return Options(
        tuple((n, (f"10.77.0.1{i}",)) for i, n in enumerate(names, 1)), cluster="web" if "c" in names else None
    )


def blocks(document: str) -> dict[str, str]:
    found = re.findall(r"```(conf|told|toml)\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)
    return dict(found)


def test_coming_from_wackamole() -> None:
    shown = blocks("coming-from-wackamole.md")
    done = convert([Source("wackamole.conf", shown["conf"], "a")], nodes("ab"))
    assert done.toml == shown["toml"]
    assert "".join(f"{r}\n" for r in done.remarks) == shown["told"]
    assert not done.problems
    assert not done.missing
    assert (
        f"wackamole.toml: 2 nodes, 3 VIPs, digest {parse(done.toml).digest}\n"
        in DOCS.joinpath("coming-from-wackamole.md").read_text()
    )


def test_coming_from_keepalived() -> None:
    shown = blocks("coming-from-keepalived.md")
    sources = [Source("keepalived-a.conf", shown["conf"], "a")]
    for node, first, second in (("b", 100, 150), ("c", 50, 100)):
        text = re.sub(r"priority 50\n", f"priority {second}\n", shown["conf"])
        text = re.sub(r"priority 150\n", f"priority {first}\n", text, count=1)
        sources.append(Source(f"keepalived-{node}.conf", text, node))
    done = convert(sources, nodes("abc"))
    assert done.toml == shown["toml"]
    assert "".join(f"{r}\n" for r in done.remarks if r.place.path == "keepalived-a.conf") == shown["told"]
    assert not done.problems
