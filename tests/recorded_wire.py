"""One message of each kind, as this version writes it, and what it can read: for the next version's tests.

At a release: `PYTHONPATH=src python -m tests.recorded_wire > tests/previous_wire.json`
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from wackamole import __version__, wire
from wackamole.advice import Segment
from wackamole.core.model import Address, NodeId, Row, ViewId, Vip

VIP = Vip("web-1", (Address("192.0.2.10", 24, "eth0"), Address("2001:db8::10", 64, "eth1")))
VIEW = ViewId(3, 1 << 40, 7)
SIMPLE: dict[Any, Any] = {
    Vip: VIP,
    Row: Row(VIP.key, VIP, holder=NodeId(1), target=NodeId(2), generation=3, previous=NodeId(1)),
    Segment: Segment("192.0.2.10", ((bytes(4), bytes(6)),)),
    bool: True,
    int: 5,
    str: "node-1",
    bytes: b"a note",
}


def examples(kind: Any) -> Iterator[Any]:
    """Values of a type that is on the wire: one, or all of an Enum's."""
    if getattr(kind, "__supertype__", None) is str:  # a VipKey
        yield VIP.key
        return
    kind = getattr(kind, "__supertype__", kind)
    args = get_args(kind)
    if kind in SIMPLE:
        yield SIMPLE[kind]
    elif is_dataclass(kind):
        yield example(kind)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        yield from kind
    elif get_origin(kind) is tuple and args[-1] is Ellipsis:
        yield tuple(examples(args[0]))
    elif get_origin(kind) is tuple:
        every = [list(examples(a)) for a in args]
        for number in range(max(map(len, every))):
            yield tuple(values[min(number, len(values) - 1)] for values in every)
    else:  # X | None
        yield from examples(next(a for a in args if a is not type(None)))


def example(kind: Any) -> Any:
    """One of a dataclass, every field set."""
    hints = get_type_hints(kind)
    return kind(**{f.name: next(examples(hints[f.name])) for f in fields(kind) if f.init})


def recorded() -> dict[str, Any]:
    """What the file has: messages by their kind, and JSON Schema of what is read."""
    kinds = sorted(get_args(wire.Message), key=lambda kind: str(kind.__name__))
    return {
        "version": __version__,
        "format": wire.VERSION,
        "messages": {kind.__name__: wire.encode(VIEW, example(kind)).hex() for kind in kinds},
        "reads": msgspec.json.schema_components(kinds)[1],
    }


if __name__ == "__main__":
    print(json.dumps(recorded(), indent=1, sort_keys=True))
