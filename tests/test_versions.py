"""The wire of the previous version and of this one: each understands the other (tests/lab/test_versions.py has whole daemons).

tests/previous_wire.json is that version's own record (recorded_wire.py). There is no release yet: it is of what was before
members told each other their loads, the last time that the wire was extended.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from wackamole import wire
from wackamole.core.agreed import digest_of
from wackamole.core.messages import Attributes
from wackamole.core.model import Cause, NodeId, NotEligible, Report, Row, Table

from .recorded_wire import VIEW, VIP, example
from .test_wire import messages

PREVIOUS: dict[str, Any] = json.loads((Path(__file__).parent / "previous_wire.json").read_text())
NAMES = {kind.__name__: kind for kind in get_args(wire.Message)}


def plain(payload: bytes) -> tuple[Any, str, dict[str, Any]]:
    """A payload without any knowledge of what it means."""
    body = wire._inflate(payload[2:]) if payload[1] else payload[2:]
    view, name, message = msgspec.msgpack.decode(body)
    return view, name, msgspec.to_builtins(message)


@pytest.mark.parametrize("kind", PREVIOUS["messages"])
def test_what_the_previous_version_says_is_understood(kind: str) -> None:
    payload = bytes.fromhex(PREVIOUS["messages"][kind])
    view, message = wire.decode(payload)
    assert view == VIEW
    said = plain(payload)[2]
    understood = msgspec.to_builtins(message)
    assert is_in(said, understood)
    new = {f.name: f for f in fields(message) if f.name not in said}
    assert all(f.default is not MISSING for f in new.values()), new


def is_in(said: Any, understood: Any) -> bool:
    """Whether everything that was said is there; what is new beside it is what it is if nobody says it."""
    if isinstance(said, dict):
        return all(key in understood and is_in(value, understood[key]) for key, value in said.items())
    if isinstance(said, list):
        return len(said) == len(understood) and all(map(is_in, said, understood))
    return bool(said == understood)


@settings(max_examples=300)
@given(messages)
def test_what_this_version_says_the_previous_one_understands(message: wire.Message) -> None:
    name = type(message).__name__
    if name not in PREVIOUS["messages"]:
        return  # a new kind: said only where everybody reports that it is understood
    validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": PREVIOUS["reads"]})
    payload = wire.encode(VIEW, message)
    assert payload[0] == PREVIOUS["format"]
    assert [e.message for e in validator.iter_errors(plain(payload)[2])] == []


def test_every_kind_of_the_previous_version_is_still_there() -> None:
    assert set(PREVIOUS["messages"]) <= set(NAMES)


def test_a_reason_and_a_field_of_a_later_version_are_no_obstacle() -> None:
    said = msgspec.to_builtins(Attributes(Report(NodeId(1), 5, "a")))
    said["report"]["ineligible"] = [[VIP.key, "its rack is on fire"]]
    said["report"]["of_a_later_version"] = [1, {"x": True}]
    body = msgspec.msgpack.encode((VIEW, "Attributes", said))
    _, message = wire.decode(bytes((wire.VERSION, 0)) + body)
    assert isinstance(message, Attributes)
    assert message.report.ineligible == ((VIP.key, NotEligible.OTHER),)
    assert NotEligible.OTHER.forbids
    assert Cause("its rack is on fire") is Cause.OTHER


def test_members_that_know_a_reason_and_that_do_not_have_equal_tables() -> None:
    report = Report(NodeId(1), 5, "a", ineligible=((VIP.key, NotEligible.LINK_DOWN),))
    table = Table(rows=(Row(VIP.key, VIP),), reports=(report,))
    older = replace(table, reports=(replace(report, ineligible=((VIP.key, NotEligible.OTHER),)),))
    other = replace(table, reports=(replace(report, ineligible=()),))
    assert digest_of(table) == digest_of(older) != digest_of(other)


def test_the_record_can_be_made_of_this_version() -> None:
    for kind in NAMES.values():
        message = example(kind)
        assert wire.decode(wire.encode(VIEW, message)) == (VIEW, message)
