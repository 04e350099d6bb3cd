"""The configuration as JSON Schema (draft 2020-12), for editors that complete and check TOML.

Nothing about keys is written down twice: a reader of configs is run over a document in which every table stands, and what
it asks for is noted. It knows names, kinds, words and bounds; what it reads in a way of its own is in READ_OTHERWISE. What
depends on other values (`wackamole check` tells it) is no part of a schema: it refuses nothing that the reader takes.
"""

# ruff: noqa: ARG002 - a reader that answers without looking

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from .config import (
    ADDRESSES_PER_VIP_MAX,
    CHECK_KINDS,
    ENTRY_POINT,
    HOSTS_MAX,
    INTERFACE,
    NAME,
    NODE_EVENTS,
    VIP_EVENTS,
    WORDS_MAX,
    ConfigError,
    Reader,
    spoken,
)
from .core.model import VIPS_MAX, By
from .engine.corosync.conf import LINKS_MAX

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DURATION = r"^\d{1,9}(\.\d{1,3})?\s*(ms|s|m|h)$"
DOCUMENT: dict[str, dict[str, Any]] = {
    "balance": {"by": By.LOAD.value},
    "notify": {"hosts": [{}]},
    "node": {"capacity": 0},
    "vip": {"name": "", "apart": "", "addresses": [{}], "notify": [{}]},
}
"""What has to stand in a table, so that the reader asks for everything."""
REQUIRED = {"": ("cluster", "node", "vip"), "cluster": ("name",), "node": ("name",), "hook": ("on",)}
REQUIRED |= dict.fromkeys(("notify.hosts", "vip.addresses", "vip.notify"), ("address",))
EITHER = {"node": ("address", "addresses"), "vip": ("address", "addresses"), "hook": ("command", "python")}
TEXT = {"type": "string"}
STATUS = {"anyOf": [{"type": "integer", "minimum": 100, "maximum": 599}, {"type": "string"}]}


def _pattern(compiled: re.Pattern[str]) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{compiled.pattern.removesuffix(chr(92) + 'Z')}$"}


def _list(of: dict[str, Any], *, least: int = 0, most: int) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": least, "maxItems": most}


def _text_or_table(where: str) -> dict[str, Any]:
    return {"anyOf": [TEXT, {"$ref": f"#/$defs/{where}"}]}


READ_OTHERWISE: dict[str, dict[str, Any]] = {
    "fence.mark": {"type": "integer", "minimum": 1, "maximum": 1 << 31},
    "balance.by": {"anyOf": [{"enum": [by.value for by in (By.COUNT, By.WEIGHT, By.LOAD)]}, _pattern(ENTRY_POINT)]},
    "balance.moves_per_round": {"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 0, "maximum": VIPS_MAX}]},
    "notify.hosts": _list(_text_or_table("notify.hosts"), most=HOSTS_MAX),
    "notify.hosts.address": TEXT,
    "node.address": TEXT,
    "node.addresses": _list(TEXT, least=1, most=LINKS_MAX),
    "node.interfaces": {"type": "object", "additionalProperties": _pattern(INTERFACE)},
    "vip.address": _text_or_table("vip.addresses"),
    "vip.addresses": _list(_text_or_table("vip.addresses"), least=1, most=ADDRESSES_PER_VIP_MAX),
    "vip.addresses.address": TEXT,
    "vip.notify": _list(_text_or_table("vip.notify"), most=HOSTS_MAX),
    "vip.notify.address": TEXT,
    "check.status": {"anyOf": [STATUS, _list(STATUS, least=1, most=WORDS_MAX)]},
    "check.command": _list(TEXT, least=1, most=WORDS_MAX),
    "hook.on": _list({"enum": [*VIP_EVENTS, *NODE_EVENTS]}, least=1, most=len(VIP_EVENTS) + len(NODE_EVENTS)),
    "hook.command": _list(TEXT, least=1, most=WORDS_MAX),
    "hook.python": _pattern(ENTRY_POINT),
}


class _Asked(Reader):
    """A reader that notes what it asks for; `kinds` by the path of a key, without numbers of entries."""

    def __init__(self) -> None:
        super().__init__("", {})
        self.listed: dict[str, tuple[str, ...]] = {}
        self.arrays: set[str] = set()
        self.kinds: dict[str, dict[str, Any]] = {}

    def _note(self, where: str, key: str, kind: dict[str, Any]) -> None:
        self.kinds.setdefault(f"{_path(where)}.{key}", kind)

    def wrong(self, where: str, sentence: str) -> None:
        """The document is not meant to be right."""

    def keys(self, table: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
        self.listed[_path(where)] = known

    def table(self, document: dict[str, Any], name: str) -> dict[str, Any]:
        return DOCUMENT.get(name, {})

    def entries(self, document: dict[str, Any], name: str, at_most: int) -> list[dict[str, Any]]:
        self.arrays.add(name)
        return [DOCUMENT.get(name, {})]

    def text(self, table: Mapping[str, Any], where: str, key: str, default: str | None = None) -> str | None:
        self._note(where, key, TEXT)
        return default

    def name(self, table: Mapping[str, Any], where: str, key: str = "name") -> str:
        self._note(where, key, _pattern(NAME))
        return ""

    def flag(self, table: Mapping[str, Any], where: str, key: str, default: bool) -> bool:
        self._note(where, key, {"type": "boolean"})
        return default

    def number(self, table: Mapping[str, Any], where: str, key: str, default: int, least: int, most: int) -> int:
        self._note(where, key, {"type": "integer", "minimum": least, "maximum": most})
        return default

    def duration(self, table: Mapping[str, Any], where: str, key: str, default: int, least: int, most: int) -> int:
        bounds = f"A duration from {spoken(least)} to {spoken(most)}."
        self._note(where, key, {"type": "string", "pattern": DURATION, "description": bounds})
        return default

    def choice(self, table: Mapping[str, Any], where: str, key: str, default: str, known: tuple[str, ...]) -> str:
        self._note(where, key, {"enum": list(known)})
        return default

    def texts(self, table: Mapping[str, Any], where: str, key: str) -> tuple[str, ...]:
        self._note(where, key, {"type": "array", "items": TEXT})
        return ()

    def interface(self, table: Mapping[str, Any], where: str) -> str:
        self._note(where, "interface", _pattern(INTERFACE))
        return ""

    def looked_at(self, table: dict[str, Any], where: str, ips: set[str]) -> tuple[tuple[str, object], ...]:
        for kind, known in CHECK_KINDS.items():
            super().looked_at(dict.fromkeys(known, "") | {"kind": kind}, where, ips)
        return ()


def _path(where: str) -> str:
    return re.sub(r"\[\d+\]", "", where)


def schema() -> dict[str, Any]:
    """The schema."""
    asked = _Asked()
    with contextlib.suppress(ConfigError):  # every table is there; what stands in it is DOCUMENT's
        asked.config(dict.fromkeys(_top_level(), None))
    kinds = {**asked.kinds, **READ_OTHERWISE}
    tables: dict[str, dict[str, Any]] = {}
    for where, known in asked.listed.items():
        properties = {key: kinds.get(f"{where}.{key}", {}) for key in known}
        tables[where] = {"type": "object", "properties": properties, "additionalProperties": False}
        if where in REQUIRED:
            tables[where]["required"] = list(REQUIRED[where])
        if where in EITHER:
            tables[where]["oneOf"] = [{"required": [key]} for key in EITHER[where]]
    top = tables.pop("")
    for name in top["properties"]:
        table = {"$ref": f"#/$defs/{name}"}
        top["properties"][name] = {"type": "array", "items": table} if name in asked.arrays else table
    modes = tables["fence"]["properties"]["mode"]
    top["properties"]["fence"] = {"anyOf": [top["properties"]["fence"], modes]}  # `fence = "off"`
    return {"$schema": DIALECT, "title": "wackamole.toml", **top, "$defs": tables}


def _top_level() -> tuple[str, ...]:
    asked = _Asked()
    with contextlib.suppress(ConfigError):
        asked.config({})
    return asked.listed[""]
