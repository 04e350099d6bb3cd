"""What a page is told. Pure: what there is now and what the page knows in, the difference out, as plain data.

A thousand VIPs are told once; then only those that changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from ..following import EventId, Heard, event_id
from ..overview import Happening, Overview, happening, overview


@dataclass(frozen=True, slots=True)
class Shown:
    """What is there to be shown, or what a page knows already."""

    found: Overview | None = None
    happenings: Mapping[EventId, Happening] | None = None
    gone: str | None = None
    late: bool = False


def shown(heard: Heard, before: Shown, *, late: bool, fresh: bool) -> Shown:
    """What there is now. `before`: what was shown last, of which what did not change is taken; `fresh`: the status is
    another one than then."""
    known = before.happenings or {}
    entries = {event_id(entry): entry for entry in heard.entries}
    return Shown(
        found=overview(heard.status) if heard.status is not None and (fresh or before.found is None) else before.found,
        happenings={key: known.get(key) or happening(entry) for key, entry in entries.items()},
        gone=heard.gone,
        late=late,
    )


def difference(before: Shown, now: Shown) -> dict[str, Any]:
    """What a page that knows `before` has to be told, so that it knows `now`; empty if that is the same."""
    told: dict[str, Any] = {}
    if (now.gone, now.late) != (before.gone, before.late) or before == Shown():
        told["daemon"] = {"gone": now.gone, "late": now.late}
    if now.found is not None and now.found is not before.found:
        old = {vip.key: vip for vip in before.found.vips} if before.found is not None else {}
        new = {vip.key: vip for vip in now.found.vips}
        rest = replace(now.found, vips=())
        if before.found is None or replace(before.found, vips=()) != rest:
            told["cluster"] = plain(rest)
        if changed := [plain(vip) for vip in now.found.vips if old.get(vip.key) != vip]:
            told["vips"] = changed
        if removed := [key for key in old if key not in new]:
            told["removed"] = removed
    known = before.happenings or {}
    if events := [plain(h) for key, h in (now.happenings or {}).items() if key not in known]:
        told["events"] = events
    return told


def plain(value: Any) -> Any:
    """A value of overview.py for JSON: a grade by its name."""
    return asdict(value, dict_factory=lambda items: {k: v.name.lower() if isinstance(v, Enum) else v for k, v in items})
