"""Sample files and what becomes of them, to be read: WACKAMOLE_REWRITE=1 writes the outcomes anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from wackamole.config import parse
from wackamole.convert import Converted, Options, Source, convert

SAMPLES = Path(__file__).parent / "samples"
AB = (("a", ("10.0.0.11",)), ("b", ("10.0.0.12",)))


def source(name: str, node: str | None = None) -> Source:
    return Source(name, (SAMPLES / name).read_text(), node)


STORIES = {
    "shop": lambda: convert([source("shop-a.conf", "a"), source("shop-b.conf", "b")]),
    "shop-alone": lambda: convert([source("shop-a.conf")], Options(engine="spread")),
    "router": lambda: convert([source(f"router-{n}.conf", n) for n in "abc"]),
    "router-alone": lambda: convert([source("router-b.conf")]),
    "ctdb": lambda: convert([source("public_addresses")], Options(cluster="files"), source("nodes")),
    "ctdb-without-nodes": lambda: convert([source("public_addresses")]),
    "broken": lambda: convert([source("broken.conf")], Options(nodes=AB)),
}


def told(done: Converted) -> str:
    said = [*map(str, done.problems), *map(str, done.remarks), *(f"missing: {m}" for m in done.missing)]
    return done.toml + "----\n" + "".join(f"{line}\n" for line in said)


@pytest.mark.parametrize("story", STORIES)
def test_the_story_is_as_it_was(story: str) -> None:
    found, file = told(STORIES[story]()), SAMPLES / f"{story}.txt"
    if os.environ.get("WACKAMOLE_REWRITE"):
        file.write_text(found)
    assert found == file.read_text()


@pytest.mark.parametrize("story", ["shop", "router", "ctdb"])
def test_what_is_complete_is_a_config(story: str) -> None:
    done = STORIES[story]()
    assert not done.problems
    assert not done.missing
    found = parse(done.toml)
    assert len(found.nodes) >= 2
    assert len(found.vips) >= 2


@pytest.mark.parametrize("name", ["shop-a.conf", "router-a.conf", "public_addresses"])
def test_every_line_that_says_something_is_accounted_for(name: str) -> None:
    done = convert([source(name, "a")])
    accounted = set()
    for remark in done.remarks:
        until = re.search(r"\} to line (\d+)\Z", remark.said)
        # of what is read inside the braces, each line counts for itself
        whole = until is not None and "[[vip]]" not in remark.sentence
        accounted |= set(range(remark.place.line, int(until[1]) + 1 if until and whole else remark.place.line + 1))
    only_opens = re.compile(
        r"\s*([!#](?!wackamole).*|[{}\s]*|(virtualinterfaces|notify|vips|unicast_peer|virtual_ipaddress\w*|virtual_(routes|rules)) \{)\s*",
        re.IGNORECASE,
    )
    silent = [
        (number, line)
        for number, line in enumerate(source(name).text.splitlines(), 1)
        if number not in accounted and not only_opens.fullmatch(line)
    ]
    assert silent == []
