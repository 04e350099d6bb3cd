"""What another config would change, line by line, and which of that a running daemon cannot do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum

from .config import CheckConfig, Config, VipConfig

FIXED = frozenset(
    {
        *("[cluster] name", "[cluster] key_file"),
        *(f"[engine] {key}" for key in ("type", "managed", "detection", "address", "retry", "session")),
        *("[engine] beat", "[engine] evict_after"),
        *(f"[fence] {key}" for key in ("mode", "lease", "lifetime", "beat_age_max", "mark")),
        "[control] socket",
    }
)
"""What a daemon is built around: the ring's own settings, the fence's, and where it is asked."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs; `before` is None for what is new, `after` for what is gone."""

    where: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.where}: {self.after}"
        if self.after is None:
            return f"- {self.where}: {self.before}"
        return f"~ {self.where}: {self.before} → {self.after}"


def difference(before: Config, after: Config) -> tuple[Change, ...]:
    """Everything that differs, tables first, in the order of the file."""
    return (
        *_tables(before, after),
        *_entries("node", {n.name: _facts(n) for n in before.nodes}, {n.name: _facts(n) for n in after.nodes}),
        *_entries("vip", {v.vip.name: _vip(v) for v in before.vips}, {v.vip.name: _vip(v) for v in after.vips}),
        *_entries("check", {c.name: _check(c) for c in before.checks}, {c.name: _check(c) for c in after.checks}),
        *_entries("hook", {h.name: _facts(h) for h in before.hooks}, {h.name: _facts(h) for h in after.hooks}),
    )


def fixed(changes: Iterable[Change], node: str) -> tuple[Change, ...]:
    """Those that a running daemon on this node cannot make: it has to be started anew."""
    own = {f"node {node}", f"node {node} id", f"node {node} addresses"}
    return tuple(c for c in changes if c.where in FIXED | own)


def _tables(before: Config, after: Config) -> Iterator[Change]:
    for name in ("cluster", "engine", "fence", "balance", "load", "control", "notify"):
        old, new = _facts(getattr(before, name)), _facts(getattr(after, name))
        for key in dict.fromkeys((*old, *new)):
            if old.get(key) != new.get(key):
                yield Change(f"[{name}] {key}", old.get(key), new.get(key))


def _entries(kind: str, before: Mapping[str, dict[str, str]], after: Mapping[str, dict[str, str]]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            whole = {k: v for k, v in (old or new or {}).items() if v not in ("", "none")}
            said = ", ".join(f"{k} {v}" for k, v in whole.items() if k != "name")
            yield Change(f"{kind} {name}", said if new is None else None, said if old is None else None)
            continue
        for key in dict.fromkeys((*new, *old)):
            if (was := old.get(key, "")) != (will := new.get(key, "")):
                yield Change(f"{kind} {name} {key}", was or "none", will or "none")


def _vip(vip: VipConfig) -> dict[str, str]:
    facts = _facts(vip)
    del facts["vip"]
    return {"addresses": ", ".join(f"{a} {a.interface}".strip() for a in vip.vip.addresses), **facts}


def _check(check: CheckConfig) -> dict[str, str]:
    facts = _facts(check)
    del facts["options"]
    return {**facts, **{key: _shown("", value) for key, value in check.options}}


def _facts(table: object) -> dict[str, str]:
    """A table's keys and values as the file has them; {} for a table that is not there."""
    if not is_dataclass(table):
        return {}
    return {
        f.name.removesuffix("_ms").removesuffix("_s"): _shown(f.name, getattr(table, f.name)) for f in fields(table)
    }


def _shown(name: str, value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case Enum():
            return str(value.value)
        case tuple():
            return ", ".join(_shown("", v) for v in value)
        case _ if is_dataclass(value) and type(value).__str__ is object.__str__:
            return " ".join(v for v in _facts(value).values() if v)
        case int() if name.endswith("_ms"):
            return f"{value}ms"
        case _:
            return str(value)
