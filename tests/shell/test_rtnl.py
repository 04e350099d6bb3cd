"""The pure parts of the kernel's side: the difference to make, and messages as bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.shell.kernel.keeper import plan
from wackamole.shell.kernel.rtnl import OURS, RTM_DELADDR, RTM_NEWADDR, RTM_NEWLINK, Placed, messages, parse

addresses = st.builds(
    Placed, st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)), st.just(32), st.just(2)
)


@given(st.sets(addresses), st.sets(addresses), st.sets(addresses))
def test_the_plan_makes_it_so_and_never_touches_what_is_not_ours(
    ours: set[Placed], foreign: set[Placed], wanted: set[Placed]
) -> None:
    foreign = foreign - ours
    drop, add = plan(ours | foreign, wanted, ours)
    assert not set(drop) & foreign
    after = (ours | foreign) - set(drop) | set(add)
    assert after - foreign == wanted - foreign


MESSAGE = (
    struct.pack("=IHHII", 40, RTM_NEWADDR, 0, 1, 0)
    + struct.pack("=BBBBI", 2, 32, 0, 0, 3)
    + struct.pack("=HH", 8, 2)
    + b"\x0a\0\0\1"
    + struct.pack("=HH", 5, 11)
    + bytes((OURS,))
    + b"\0" * 3
)


def test_a_notification_is_read() -> None:
    assert [parse(k, b) for k, _, b in messages(MESSAGE)] == [Placed(b"\x0a\0\0\1", 32, 3)]


@pytest.mark.parametrize("cut", range(len(MESSAGE)))
def test_a_message_that_is_cut_short_is_nothing(cut: int) -> None:
    assert list(messages(MESSAGE[:cut])) == []


@given(st.sampled_from((RTM_NEWADDR, RTM_DELADDR, RTM_NEWLINK)), st.binary(max_size=80))
def test_any_body_is_read_or_is_nothing(kind: int, body: bytes) -> None:
    found = parse(kind, body)
    assert found is None or found.index is not None
    for _ in messages(body):
        pass
