"""The config's JSON Schema: it has every key, refuses nothing that the reader takes, and refuses mistakes of form."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from wackamole.config import ConfigError, parse
from wackamole.lab.lab import Layout
from wackamole.schema import schema

from .convert.test_samples import STORIES
from .test_config import GOOD

ROOT = Path(__file__).parents[1]
SCHEMA = schema()
VALID = Draft202012Validator(SCHEMA)
KEYS = [(table, key) for table, found in SCHEMA["$defs"].items() if "." not in table for key in found["properties"]]
ARRAYS = [name for name, found in SCHEMA["properties"].items() if found.get("type") == "array"]
MISTAKES_OF_FORM = [
    "[vips]",
    "[engine]\ntipe = 'corosync'",
    "[engine]\ntype = 'totem'",
    "[engine]\nmanaged = 1",
    "[engine]\ndetection = 5",
    "[engine]\ndetection = '5'",
    "[fence]\nwithdraw_after = 11",
    "[fence]\nmark = '0x1'",
    "[balance]\nmoves_per_round = 'some'",
    "[balance]\nmoves_per_round = -1",
    "[balance]\nby = 'luck'",
    "[balance]\nby = 'load'\n[load]\nhysteresis = 1",
    "[notify]\nhosts = '10.0.0.1'",
    "[notify]\nhosts = [5]",
    "[notify]\nhosts = [{ throttle = 5 }]",
    "[notify]\nhosts = [{ address = '10.0.0.1', pong = true }]",
    "[[node]]\naddress = '10.0.0.13'",
    "[[node]]\nname = 'c'",
    "[[node]]\nname = 'c d'\naddress = '10.0.0.13'",
    "[[node]]\nname = 'c'\naddress = '10.0.0.13'\naddresses = ['10.0.0.13']",
    "[[node]]\nname = 'c'\naddress = '10.0.0.13'\nweight = 'heavy'",
    "[[node]]\nname = 'c'\naddress = '10.0.0.13'\ninterfaces = { public = 'a/b' }",
    "[[vip]]\naddress = 5",
    "[[vip]]\naddresses = []",
    "[[vip]]\naddress = '192.0.2.11'\nprefer = 'a'",
    "[[vip]]\naddress = '192.0.2.11'\ninterface = 'a very long name'",
    "[[hook]]\ncommand = ['/bin/true']",
    "[[hook]]\non = ['aquired']\ncommand = ['/bin/true']",
    "[[hook]]\non = ['view']",
    "[[hook]]\non = ['view']\ncommand = '/bin/true -v'",
    "[[hook]]\non = ['view']\npython = 'os.system'",
]


def samples() -> dict[str, str]:
    """Every whole configuration in documents and tests."""
    found = {"smallest": GOOD}
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for number, block in enumerate(re.findall(r"```toml\n(.*?)```", document.read_text(), re.DOTALL)):
            if "[cluster]" in block and "[[vip]]" in block:
                found[f"{document.name} {number}"] = block
    labs = (Layout.of("lab", rings=2), Layout.of("lab", routed=True), Layout.of("lab", engine="spread"))
    found |= {f"lab {number}": lab.config for number, lab in enumerate(labs)}
    for story in ("shop", "router", "ctdb"):
        found[f"converted {story}"] = STORIES[story]().toml
    return found


SAMPLES = samples()


def mistakes(text: str) -> list[str]:
    return [f"{'.'.join(map(str, e.path))}: {e.message}" for e in VALID.iter_errors(tomllib.loads(text))]


def test_it_is_a_schema_and_knows_every_key() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert len(KEYS) > 50
    unknown = [
        f"{table}.{key}"
        for table, found in SCHEMA["$defs"].items()
        for key, kind in found["properties"].items()
        if not kind
    ]
    assert unknown == [], "schema.py has to know these: READ_OTHERWISE, or DOCUMENT so that the reader asks"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_valid(name: str) -> None:
    parse(SAMPLES[name], name)
    assert mistakes(SAMPLES[name]) == []


@pytest.mark.parametrize("lines", MISTAKES_OF_FORM)
def test_mistakes_of_form_are_refused(lines: str) -> None:
    with pytest.raises(ConfigError):
        parse(f"{GOOD}\n{lines}\n")
    assert mistakes(f"{GOOD}\n{lines}\n") != []


VALUES = st.one_of(
    st.integers(-2, 70_000),
    st.booleans(),
    st.sampled_from(
        ["all", "5s", "250 ms", "a", "eth0", "10.9.9.9", "192.0.2.99/24", "/a/b", "os:path", "x:y.z", "off"]
    ),
    st.sampled_from(
        [
            word
            for found in SCHEMA["$defs"].values()
            for kind in found["properties"].values()
            for word in kind.get("enum", ())
        ]
    ),
    st.lists(st.sampled_from(["a", "10.9.9.9", "view", "/bin/true", "moved"]), max_size=2),
    st.dictionaries(
        st.sampled_from(["address", "public", "mode"]), st.sampled_from(["eno1", "10.9.9.9", "off"]), max_size=2
    ),
)


@settings(max_examples=1000)
@given(st.sampled_from(KEYS), VALUES)
@example(("fence", "mark"), 1 << 31)
@example(("balance", "by"), "pytest:main")
@example(("vip", "addresses"), ["10.9.9.9", {"address": "10.9.9.10/24", "interface": "eth0"}])
@example(("notify", "hosts"), ["10.9.9.9", {"address": "10.9.9.0/24", "throttle": 5, "ping": True}])
def test_what_the_reader_takes_the_schema_takes(where: tuple[str, str], value: Any) -> None:
    table, key = where
    document: dict[str, Any] = tomllib.loads(GOOD)
    if table in ARRAYS:
        entry = {"name": "x", "on": ["view"], "command": ["/bin/true"], "address": "10.7.7.7"}
        known = SCHEMA["$defs"][table]["properties"]
        entry = {k: v for k, v in entry.items() if k in known} | {key: value}
        if key in ("addresses", "python"):
            entry.pop({"addresses": "address", "python": "command"}[key])
        document[table] = [*document.get(table, []), entry]
    else:
        document.setdefault(table, {})[key] = value
    text = toml(document)
    try:
        parse(text)
    except ConfigError:
        return  # the reader knows more
    assert mistakes(text) == []


def toml(document: dict[str, Any]) -> str:
    """A document of tables and arrays of tables as TOML."""
    lines = []
    for name, found in document.items():
        for entry in found if isinstance(found, list) else [found]:
            lines.append(f"[[{name}]]" if isinstance(found, list) else f"[{name}]")
            lines += [f"{k} = {value_of(v)}" for k, v in entry.items()]
    return "\n".join(lines)


def value_of(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {value_of(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)
