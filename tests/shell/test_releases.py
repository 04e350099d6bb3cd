"""What is handed over goes in turns: the next when the new holders have the last (their hooks: test_hooks.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from wackamole.core.model import Address, Vip, VipKey
from wackamole.shell import releases as module
from wackamole.shell.releases import AT_ONCE, SINGLY_MAX, TURNS_MAX, Releases

WITHIN_SECONDS = 20.0


def vips(number: int) -> tuple[Vip, ...]:
    named = (Vip(f"v{i:04}", (Address(f"10.{i >> 8}.{i & 255}.1", 32),)) for i in range(number))
    return tuple(sorted(named, key=lambda v: v.key))


class Kernel:
    """What it was asked to hold, and how many of the last are on their way."""

    def __init__(self, held: tuple[Vip, ...], *, all_tell: bool = True) -> None:
        self.asked: list[tuple[int, tuple[Vip, ...]]] = []
        self.news = asyncio.Event()
        self.releases = Releases(held, self._hold, self._no_hooks, lambda: all_tell)

    def _hold(self, serial: int, vips: tuple[Vip, ...]) -> None:
        self.asked.append((serial, vips))
        self.news.set()

    def _no_hooks(self, vips: Mapping[VipKey, Vip], done: Callable[[VipKey], None]) -> float:
        for key in vips:
            done(key)
        return 0.0

    @property
    def numbers(self) -> list[int]:
        return [len(vips) for _, vips in self.asked]


def keys(vips: tuple[Vip, ...]) -> frozenset[VipKey]:
    return frozenset(v.key for v in vips)


def test_the_next_go_when_all_of_the_last_have_arrived() -> None:
    async def main() -> None:
        held = vips(2 * AT_ONCE + 3)
        kernel = Kernel(held)
        kernel.releases.hold_exactly(7, (), keys(held))
        assert kernel.numbers == [AT_ONCE + 3]
        first = sorted(keys(held) - keys(kernel.asked[0][1]))
        kernel.releases.arrived(first[1:])
        kernel.releases.arrived(keys(held[-1:]))  # of which nobody has let go
        assert kernel.numbers == [AT_ONCE + 3]
        kernel.releases.arrived(first[:1])
        assert kernel.numbers == [AT_ONCE + 3, 3]
        kernel.releases.arrived(keys(held))
        kernel.releases.arrived(keys(held))
        assert kernel.numbers == [AT_ONCE + 3, 3, 0]
        assert {serial for serial, _ in kernel.asked} == {7}
        kernel.releases.close()

    asyncio.run(main())


def test_few_go_one_after_the_other() -> None:
    async def main() -> None:
        held = vips(SINGLY_MAX)
        kernel = Kernel(held)
        kernel.releases.hold_exactly(1, (), keys(held))
        while kernel.numbers[-1]:
            kernel.releases.arrived(keys(held) - keys(kernel.asked[-1][1]))
        assert kernel.numbers == [*reversed(range(SINGLY_MAX))]
        more = vips(SINGLY_MAX + 1)
        kernel = Kernel(more)
        kernel.releases.hold_exactly(1, (), keys(more))
        assert kernel.numbers == [0]
        kernel.releases.close()

    asyncio.run(main())


def test_who_leaves_with_few_waits_for_the_last_and_for_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        held = vips(3)
        kernel = Kernel(held)
        kernel.releases.hold_exactly(1, (), keys(held))
        kernel.releases.arrived(keys(held[:1]))
        kernel.releases.arrived(keys(held[1:2]))
        assert kernel.numbers == [2, 1, 0]
        waiting = asyncio.ensure_future(kernel.releases.taken())
        await asyncio.sleep(0)
        assert not waiting.done()
        kernel.releases.arrived(keys(held[2:]))
        await asyncio.wait_for(waiting, WITHIN_SECONDS)
        monkeypatch.setattr(module, "TURN_SECONDS_MAX", 0.02)
        silent = Kernel(held)
        silent.releases.hold_exactly(1, (), keys(held))
        async with asyncio.timeout(WITHIN_SECONDS):
            while silent.numbers[-1]:
                silent.releases.hold_exactly(1, (), keys(held))  # what is asked again does not begin its time anew
                await asyncio.sleep(0)

    asyncio.run(main())


def test_many_go_in_no_more_turns_than_that() -> None:
    async def main() -> None:
        held = vips(AT_ONCE * TURNS_MAX * 3)
        kernel = Kernel(held)
        kernel.releases.hold_exactly(1, (), keys(held))
        while kernel.numbers[-1]:
            kernel.releases.arrived(keys(held) - keys(kernel.asked[-1][1]))
        assert len(kernel.asked) == TURNS_MAX

    asyncio.run(main())


def test_where_not_all_tell_and_what_is_not_planned_nothing_is_waited_for() -> None:
    async def main() -> None:
        held = vips(3 * AT_ONCE)
        kernel = Kernel(held, all_tell=False)
        kernel.releases.hold_exactly(1, (), keys(held))
        assert kernel.numbers == [0]
        kernel = Kernel(held)
        kernel.releases.hold_exactly(1, (), keys(held))
        kernel.releases.hold_exactly(2, (), frozenset())  # the group is lost
        assert kernel.numbers == [2 * AT_ONCE, 0]

    asyncio.run(main())


def test_what_comes_back_is_not_waited_for() -> None:
    async def main() -> None:
        held = vips(2 * AT_ONCE)
        kernel = Kernel(held)
        kernel.releases.hold_exactly(1, (), keys(held))
        refused = tuple(v for v in held if v not in kernel.asked[0][1])[:1]  # by its new holder
        others = keys(held) - keys(kernel.asked[0][1]) - keys(refused)
        kernel.releases.hold_exactly(2, refused, keys(held) - keys(refused))
        kernel.releases.arrived(others)
        assert kernel.asked[-1] == (2, refused)

    asyncio.run(main())


def test_who_does_not_tell_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS_MAX", 0.02)

    async def main() -> None:
        held = vips(3 * AT_ONCE)
        kernel = Kernel(held)
        kernel.releases.hold_exactly(1, (), keys(held))
        async with asyncio.timeout(WITHIN_SECONDS):
            while kernel.numbers[-1]:
                kernel.news.clear()
                await kernel.news.wait()
        assert kernel.numbers == [2 * AT_ONCE, AT_ONCE, 0]

    asyncio.run(main())


def test_who_leaves_waits_until_the_others_have_everything() -> None:
    async def main() -> None:
        held = vips(AT_ONCE)
        kernel = Kernel(held)
        await kernel.releases.taken()  # nothing is on its way
        kernel.releases.hold_exactly(1, (), keys(held))
        kernel.releases.hold_exactly(2, (), frozenset())  # it has let go, and the table is no longer its own
        waiting = asyncio.ensure_future(kernel.releases.taken())
        await asyncio.sleep(0)
        kernel.releases.arrived(keys(held[1:]))
        await asyncio.sleep(0)
        assert not waiting.done()
        kernel.releases.arrived(keys(held[:1]))
        await asyncio.wait_for(waiting, WITHIN_SECONDS)

    asyncio.run(main())


def test_who_leaves_waits_for_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        held = vips(AT_ONCE)
        kernel = Kernel(held)
        kernel.releases.hold_exactly(1, (), keys(held))
        monkeypatch.setattr(module, "TURN_SECONDS_MAX", 0.02)
        await asyncio.wait_for(kernel.releases.taken(), WITHIN_SECONDS)
        silent = Kernel(held, all_tell=False)  # an older version is among them: nothing is waited for
        silent.releases.hold_exactly(1, (), keys(held))
        monkeypatch.setattr(module, "TURN_SECONDS_MAX", WITHIN_SECONDS * 2)
        await asyncio.wait_for(silent.releases.taken(), WITHIN_SECONDS)

    asyncio.run(main())


def test_who_leaves_goes_at_once_when_the_group_changes() -> None:
    async def main() -> None:
        held = vips(AT_ONCE)
        kernel = Kernel(held)
        kernel.releases.hold_exactly(1, (), keys(held))
        waiting = asyncio.ensure_future(kernel.releases.taken())
        await asyncio.sleep(0)
        assert not waiting.done()
        kernel.releases.wait_no_longer()
        kernel.releases.arrived(keys(held))  # too late to count
        await asyncio.wait_for(waiting, WITHIN_SECONDS)
        assert kernel.numbers == [0]

    asyncio.run(main())
