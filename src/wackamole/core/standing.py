"""What operators have ordered to stay so: drains, pins and holds, with versions.

Every member keeps the same register of orders, on its disk as well, and tells it in every exchange; so an order outlives any
restart, also that of all members at once. One order per kind and subject: the one of the highest version, and of two that
were given apart with the same version the cautious one. An order that is over stays in the register, so that an older one
that comes back with somebody who was away is not taken up again.

`join` is the least upper bound of two registers: commutative, associative, idempotent. It keeps the newest ORDERS_MAX, which
changes nothing of that, as what is newer than ORDERS_MAX others stays so in every larger register.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

ORDERS_MAX = 2048
"""In a register, those that are over included: with the longest texts half of what a message can carry."""
VERSION_MAX = 2**52
"""None is raised beyond this: it is what a message can carry, with room."""
UNTIL_S_MAX = 2**40
BY_MAX = 32
REASON_MAX = 100
"""Of texts, in characters."""


class Kind(Enum):
    """What an order is about."""

    DRAIN = "drain"  # a node, by name: whatever can be elsewhere is not there
    PIN = "pin"  # a VIP, by name: it belongs on `node` while that may have it; what `move` leaves behind
    HOLD = "hold"  # a VIP, by name: balance leaves it where it is


Subject = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's word about one node or VIP. As a wish, in a message, `version` is the one that it is to follow."""

    kind: Kind
    subject: str
    in_force: bool
    version: int = 0
    node: str = ""  # of a pin
    by: str = ""
    reason: str = ""
    until_s: int = 0  # when it is over, seconds since 1970 (wall clock); 0: not before it is taken back

    @property
    def about(self) -> Subject:
        """There is one order in force about it at most."""
        return (self.kind, self.subject)

    @property
    def rank(self) -> tuple[int, bool, bool, int, str, str, str]:
        """The greater wins: the newer; the one that is in force, and for longer; the rest makes it total."""
        return (self.version, self.in_force, self.until_s == 0, self.until_s, self.node, self.by, self.reason)


Register = tuple[Order, ...]
"""Sorted by kind and subject."""


def join(one: Register, other: Register) -> Register:
    """Both together."""
    if one == other or not other:
        return one
    return _newest((*one, *other))


def obey(register: Register, wishes: Iterable[Order]) -> Register:
    """The register after an operator's word was delivered. A wish is void if the order has changed since its author saw it, or
    if all is so already; the versions of the others are raised alike by everybody who has the same register."""
    version = max((o.version for o in register), default=0) + 1
    known = {o.about: o for o in register}
    changed = [
        replace(wish, version=version)
        for wish in wishes
        if wish.version == (known[wish.about].version if wish.about in known else 0) and not is_so(known, wish)
    ]
    return _newest((*register, *changed)) if changed and version <= VERSION_MAX else register


def following(register: Register, wishes: Iterable[Order]) -> tuple[Order, ...]:
    """The wishes that are not so already, each of the version that it is to follow."""
    known = {o.about: o for o in register}
    return tuple(
        replace(wish, version=known[wish.about].version if wish.about in known else 0)
        for wish in wishes
        if not is_so(known, wish)
    )


def is_so(known: Mapping[Subject, Order], wish: Order) -> bool:
    """Whether the order in the register is what is wished; what is not in force is all alike."""
    order = known.get(wish.about)
    if order is None or not (order.in_force and wish.in_force):
        return (order is not None and order.in_force) == wish.in_force
    return replace(order, version=0) == replace(wish, version=0)


def in_force(register: Register, kind: Kind) -> dict[str, Order]:
    """The orders of a kind that are, by their subject."""
    return {o.subject: o for o in register if o.kind is kind and o.in_force}


def ended(order: Order, by: str) -> Order:
    """The wish that it be over."""
    return Order(order.kind, order.subject, in_force=False, by=by)


def _newest(orders: Iterable[Order]) -> Register:
    best: dict[Subject, Order] = {}
    for order in orders:
        other = best.get(order.about)
        if other is None or other.rank < order.rank:
            best[order.about] = order
    kept = sorted(best.values(), key=lambda o: (o.rank, _place(o)), reverse=True)[:ORDERS_MAX]
    return tuple(sorted(kept, key=_place))


def _place(order: Order) -> tuple[str, str]:
    return (order.kind.value, order.subject)
