"""An entry point of the operator's own as a rule of shares: `by = "package.module:function"` under `[balance]`.

It runs in the daemon's process, with all its rights, on the loop: it must be quick, and a pure function of its argument.
What it raises or returns wrongly is told once, and weights count instead; so it must fail everywhere or nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from ..core.model import Sharer, ShareRule

SHARE_MAX = 1_000_000


def rule_of(entry_point: str, on_record: Callable[[str, Mapping[str, object]], None]) -> ShareRule:
    """The function, made safe to call."""
    module, _, name = entry_point.partition(":")
    told = ""

    def failed(reason: str) -> None:
        nonlocal told
        if reason != told:
            told = reason
            on_record("shares_failed", {"entry_point": entry_point, "reason": reason, "instead": "weight"})

    try:
        function = getattr(import_module(module), name)
    except Exception as wrong:
        failed(f"cannot be loaded: {type(wrong).__name__}: {wrong}")
        return lambda _: None

    def rule(sharers: tuple[Sharer, ...]) -> tuple[int, ...] | None:
        try:
            found = tuple(function(sharers))
        except Exception as wrong:
            failed(f"{type(wrong).__name__}: {wrong}")
            return None
        if len(found) != len(sharers) or not all(type(x) is int and 0 <= x <= SHARE_MAX for x in found):
            failed(f"must return {len(sharers)} whole numbers from 0 to {SHARE_MAX}, not {str(found)[:80]}")
            return None
        return found

    return rule
