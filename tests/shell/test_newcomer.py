"""Who gives way when members cannot read each other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from wackamole.core.model import NodeId, View, ViewId
from wackamole.shell.newcomer import UNREAD_MIN, Newcomer

ME, A, B, C = map(NodeId, (9, 1, 2, 3))


def view(*members: NodeId) -> View:
    return View(ViewId(1, 1, 1), tuple(sorted(members)), (), (), direct=True)


def newcomer(*there: NodeId) -> Newcomer:
    found = Newcomer()
    found.joined()
    found.entered(view(ME, *there), ME)
    return found


def gives_way(one: Newcomer, senders: Sequence[NodeId]) -> bool:
    return any(one.gives_way(sender, ValueError("it has no seal")) for sender in senders)


def test_who_understands_nobody_of_those_that_were_there_gives_way() -> None:
    assert gives_way(newcomer(A, B, C), [A, B] * UNREAD_MIN)
    one = newcomer(A)
    assert gives_way(one, [A] * UNREAD_MIN)
    assert one.why == "the members that were there cannot be understood (it has no seal)"
    assert not gives_way(one, [A] * 99), "once is enough"
    one.joined()
    one.entered(view(ME, A), ME)
    assert one.why
    one.read(A)
    assert not one.why


@pytest.mark.parametrize("senders", [[A] * (UNREAD_MIN - 1), [A] * 99, [ME] * 99, [NodeId(7)] * 99, []])
def test_one_of_several_or_a_single_message_is_not_enough(senders: list[NodeId]) -> None:
    assert not gives_way(newcomer(A, B, C), senders)


def test_who_has_understood_one_does_not_give_way() -> None:
    one = newcomer(A, B)
    one.read(ME)
    one.read(A)
    assert not gives_way(one, [A, B] * 99)


def test_who_was_there_first_does_not_give_way() -> None:
    """Else one with a wrong key would send all others away."""
    one = newcomer()
    one.entered(view(ME, A), ME)
    assert not gives_way(one, [A] * 99)
    one.joined()
    one.entered(view(ME, A), ME)
    assert gives_way(one, [A] * UNREAD_MIN)
