"""Other systems' configuration files as ours: wackamole.conf of Wackamole 2.1, keepalived.conf, CTDB's public_addresses.

Pure: texts come in, a text and sentences go out. `facts.py` has the nouns; one reader for each kind of file gathers a
host's facts; `merge.py` makes one cluster of them; `emit.py` writes it. Whether the outcome can be served is judged by
`config.parse` alone, whose problems get the places of the foreign file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config import Config, ConfigError, HostsMissing, parse
from . import ctdb, keepalived_conf, wackamole_conf
from .emit import Line, lines
from .facts import PROBLEMS_MAX, Fate, Host, Kind, Options, Place, Problem, Remark, Source
from .merge import Draft, merge

__all__ = [
    "PROBLEMS_MAX",
    "Converted",
    "Fate",
    "Kind",
    "Options",
    "Place",
    "Problem",
    "Remark",
    "Source",
    "convert",
    "detect",
    "load",
]

_CLUSTER = {Kind.WACKAMOLE: "wackamole", Kind.KEEPALIVED: "vrrp", Kind.CTDB: "ctdb"}
_KEEPALIVED = re.compile(
    r"^[ \t]*(vrrp_instance|global_defs|vrrp_sync_group|vrrp_script|virtual_server)\b", re.MULTILINE
)
_WACKAMOLE = re.compile(
    r"^[ \t]*((virtualinterfaces|vifs|vips|balance|notify)\s{0,100}\{|prefer[ \t]+(\{|none\b|\S+/)"
    r"|(spread|group|mature|control|arp-cache|spreadretryinterval)[ \t]+=)",
    re.MULTILINE | re.IGNORECASE,
)
_TOML = re.compile(r"^[ \t]*\[\[?[ \t]*[A-Za-z0-9_.-]+[ \t]*\]", re.MULTILINE)
_CTDB = re.compile(r"^[ \t]*[0-9a-fA-F.:]+/[0-9]{1,3}([ \t]+\S+)?[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Converted:
    """The outcome. `missing`: what no foreign file says and has to be filled in; with problems the TOML is of no use."""

    toml: str
    remarks: tuple[Remark, ...]
    problems: tuple[Problem, ...]
    missing: tuple[str, ...]


def detect(text: str) -> Kind | None:
    """Whose file it is, by what stands in it; None also for TOML, be it a broken one."""
    if _TOML.search(text):
        return None
    for kind, sign in ((Kind.KEEPALIVED, _KEEPALIVED), (Kind.WACKAMOLE, _WACKAMOLE), (Kind.CTDB, _CTDB)):
        if sign.search(text):
            return kind
    return None


def convert(sources: Sequence[Source], options: Options | None = None, nodes: Source | None = None) -> Converted:
    """One cluster of one or several hosts' files of one kind; `nodes` is CTDB's file of that name. Never raises."""
    options = options or Options()
    kinds = {source.path: options.kind or detect(source.text) for source in sources}
    problems = [
        Problem(Place(path), f"is of no kind that is known; say which by --from ({', '.join(k.value for k in Kind)})")
        for path, kind in kinds.items()
        if kind is None
    ]
    known = {kind for kind in kinds.values() if kind is not None}
    if len(known) > 1:
        listed = ", ".join(f"{path} of {kind.value}" for path, kind in kinds.items() if kind)
        problems.append(Problem(Place(sources[0].path), f"files of one kind are converted together: {listed}"))
    names = [source.node for source in sources]
    if len(sources) > 1 and (None in names or len(set(names)) < len(names)):
        problems.append(Problem(Place(sources[0].path), "of several files each needs its host's name: a=FILE b=FILE"))
    if problems or not known:
        return Converted("", (), tuple(problems), ())
    kind = known.pop()
    hosts = [_read(source, kind, options, alone=len(sources) == 1) for source in sources]
    if nodes is not None:
        hosts[0].nodes += (told := ctdb.read_nodes(nodes)).nodes
        hosts[0].remarks += told.remarks
        hosts[0].problems += told.problems
    draft = merge(hosts, options)
    _named(draft, options.cluster, kind)
    if kind is Kind.WACKAMOLE:  # the original's own values, where its file has none
        default = Place(sources[0].path)
        for key, value in (("mature", "5s"), ("interval", "4s"), ("moves", "1")):
            draft.settings.setdefault(key, (value, default))
    written = list(lines(draft, options, [s.path for s in sources]))
    toml = "".join(f"{text}\n" for text, _ in written)
    missing = _missing(draft)
    order = {source.path: n for n, source in enumerate(sources)}

    def by_place(what: Problem | Remark) -> tuple[int, Place]:
        return order.get(what.place.path, len(order)), what.place

    found = sorted([*draft.problems, *_judged(toml, written, missing)], key=by_place)
    if len(found) > PROBLEMS_MAX:
        rest = Problem(found[PROBLEMS_MAX].place, f"… and {len(found) - PROBLEMS_MAX} more problems")
        found[PROBLEMS_MAX:] = [rest]
    return Converted(toml, tuple(sorted(draft.remarks, key=by_place)), tuple(found), missing)


def _read(source: Source, kind: Kind, options: Options, *, alone: bool) -> Host:
    match kind:
        case Kind.WACKAMOLE:
            return wackamole_conf.read(source, options)
        case Kind.KEEPALIVED:
            return keepalived_conf.read(source, alone=alone)
        case Kind.CTDB:
            return ctdb.read(source)


def _named(draft: Draft, told: str | None, kind: Kind) -> None:
    """Give the cluster a name that our config takes."""
    if told is not None:
        draft.settings["cluster"] = (told, Place("--cluster"))
        return
    given, place = draft.settings.get("cluster", (_CLUSTER[kind], Place("")))
    name = re.sub(r"[^A-Za-z0-9._:-]", "-", given)[:63].lstrip("._:-") or _CLUSTER[kind]
    if name != given:
        draft.remarks.append(Remark(place, given, Fate.CHANGED, f"the cluster's name is {name}"))
    draft.settings["cluster"] = (name, place)


def _missing(draft: Draft) -> tuple[str, ...]:
    if not draft.nodes:
        return ("the hosts: no file lists them; give each by --node NAME=ADDRESS",)
    return tuple(
        f"the address of node {n.name}: give it by --node {n.name}=ADDRESS" for n in draft.nodes if not n.addresses
    )


def _judged(toml: str, written: list[Line], missing: tuple[str, ...]) -> list[Problem]:
    """What `config.parse` says of it, at the places of the foreign file. What is missing is known already."""
    try:
        parse(toml, "")
    except ConfigError as wrong:
        sentences = wrong.problems
    else:
        return []
    found = []
    for sentence in sentences:
        match = re.fullmatch(r":?(\d*)  (\S+)  (.*)", sentence, re.DOTALL)
        assert match is not None, f"every problem has a place: {sentence}"
        number, where, said = int(match[1] or 0), match[2], match[3]
        filled_in = missing and where.startswith("node") and ("at least one" in said or "needs either" in said)
        if not filled_in:
            place = next((p for _, p in reversed(written[:number]) if p is not None), Place("the whole"))
            found.append(Problem(place, f"{where}  {said}"))
    return found


def load(text: str, path: str) -> Config | None:
    """The config that a wackamole.conf means, None if it is none. Raises ConfigError with every problem, HostsMissing if that is
    the only one."""
    if detect(text) is not Kind.WACKAMOLE:
        return None
    outcome = convert([Source(path, text)])
    problems = [str(p) for p in outcome.problems]
    if outcome.missing:
        problems.append(f"{path}  has no list of the hosts: add a line `#wackamole: node NAME = ADDRESS` for each")
    if problems:
        raise (ConfigError if outcome.problems else HostsMissing)(problems)
    lost = (Fate.CHANGED, Fate.LEFT_OUT)
    return replace(parse(outcome.toml, path), notes=tuple(str(r) for r in outcome.remarks if r.fate in lost))
