"""Whether a VIP is answered for on the wire, and by how many, asked by another host than its holder's.

The table says who holds a VIP, and the holder's kernel says that it has it; only the segment knows whether neighbours reach
it there. So the member after the holder (core/agreed.py) asks for a VIP that was acquired, by ARP (RFC 826) or a neighbour
solicitation (RFC 4861), and counts the hardware addresses that answer. It is advice: it never moves anything.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from ...core.model import Address, NodeId, OnWire, Vip, VipKey
from .announce import ETH_BROADCAST, icmpv6
from .claims import Claim

ANSWER_SECONDS = 0.3
"""How long answers are waited for; then a VIP that nobody answered for is asked for once more."""
BEFORE_SECONDS = 0.1
"""The holder's kernel has a VIP some milliseconds after the table says so."""
QUESTIONS_PER_SECOND = 20
SOLICITED_NODE = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13]

Place = tuple[int, bytes]
"""An interface's number, and an address."""


def question(mac: bytes, source: bytes, target: bytes) -> bytes:
    """The frame that asks who has `target`, as `source`."""
    if len(target) == 4:
        header = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        return ETH_BROADCAST + mac + b"\x08\x06" + header + mac + source + bytes(6) + target + bytes(18)
    group = SOLICITED_NODE + target[13:]
    return icmpv6(
        mac, source, b"\x33\x33" + group[12:], group, struct.pack("!BBHI", 135, 0, 0, 0) + target + b"\1\1" + mac
    )


@dataclass(slots=True, eq=False)
class _Look:
    """One VIP that is looked at; `again`: for the second time."""

    vip: Vip
    holder: NodeId
    again: bool = False
    answers: tuple[set[bytes], ...] = ()


class Witness:
    """Asks for VIPs, one after the other. `ask` sends the question for an address and returns where its answers will come
    from, or None where this host cannot ask. All calls on the loop's thread."""

    def __init__(
        self, ask: Callable[[Address], Place | None], on_result: Callable[[VipKey, NodeId, OnWire], None]
    ) -> None:
        self._ask = ask
        self._on_result = on_result
        self._queue: dict[
            VipKey, _Look
        ] = {}  # of VIPs in the table: the newest only, so there are not more than of these
        self._waiting: dict[Place, set[bytes]] = {}
        self._pace: asyncio.TimerHandle | None = None
        self._judging: set[asyncio.TimerHandle] = set()

    def look(self, vip: Vip, holder: NodeId) -> None:
        """A member holds a VIP that it did not hold before."""
        self._queue[vip.key] = _Look(vip, holder)
        self._go_on(BEFORE_SECONDS)

    def heard(self, claim: Claim) -> None:
        """A host says that it has an address."""
        answers = self._waiting.get((claim.index, claim.ip))
        if answers is not None and len(answers) < 2:
            answers.add(claim.mac)

    def _go_on(self, seconds: float) -> None:
        if self._pace is None and self._queue:
            self._pace = asyncio.get_running_loop().call_later(seconds, self._next)

    def _next(self) -> None:
        self._pace = None
        look = self._queue.pop(next(iter(self._queue)))
        places = [self._ask(address) for address in look.vip.addresses]
        asked = [place for place in places if place is not None]
        if len(asked) == len(places):
            look.answers = tuple(set() for _ in asked)
            self._waiting |= dict(zip(asked, look.answers, strict=True))
            self._judge_later(look, asked)
        self._go_on(len(places) / QUESTIONS_PER_SECOND)

    def _judge_later(self, look: _Look, asked: list[Place]) -> None:
        handle: asyncio.TimerHandle

        def judge() -> None:
            self._judging.discard(handle)
            for place, answers in zip(asked, look.answers, strict=True):
                if self._waiting.get(place) is answers:  # it was not asked anew meanwhile
                    del self._waiting[place]
            self._judge(look)

        handle = asyncio.get_running_loop().call_later(ANSWER_SECONDS, judge)
        self._judging.add(handle)

    def _judge(self, look: _Look) -> None:
        if look.vip.key in self._queue:
            return  # it has moved on
        counts = [len(macs) for macs in look.answers]
        if max(counts) > 1:
            result = OnWire.DUPLICATE
        elif min(counts) == 1:
            result = OnWire.VERIFIED
        elif not look.again:
            self._queue[look.vip.key] = _Look(look.vip, look.holder, again=True)
            self._go_on(0)
            return
        else:
            result = OnWire.SILENT
        self._on_result(look.vip.key, look.holder, result)

    def close(self) -> None:
        """Ask no more."""
        self._queue.clear()
        for timer in (self._pace, *self._judging):
            if timer is not None:
                timer.cancel()
        self._judging.clear()
