"""Writes a draft as our TOML, and knows where in the foreign files each of its lines comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from .facts import Fate, Options, Place, Remark
from .merge import Draft, DraftHook, DraftNode

Line = tuple[str, Place | None]

LISTED_MAX = 200
"""Remarks that are repeated in the file; all of them are on standard error."""


def lines(draft: Draft, options: Options, paths: Sequence[str]) -> Iterator[Line]:
    """The file, line by line, each with the place that it comes from."""
    yield (
        f"# From {_comment(', '.join(paths))}, by `wackamole convert`. `wackamole check` says whether it is complete.",
        None,
    )
    yield "", None
    yield "[cluster]", None
    name, place = draft.settings["cluster"]
    yield f"name = {quoted(name)}", place
    if "key_file" in draft.settings:
        path, place = draft.settings["key_file"]
        yield f"key_file = {quoted(path)}", place
    else:
        yield (
            '# key_file = "/etc/wackamole/ring.key"    # `wackamole keygen` makes it; without it anybody can join',
            None,
        )
    if "mature" in draft.settings:
        yield f"mature = {quoted(draft.settings['mature'][0])}", draft.settings["mature"][1]
    yield from _engine(draft, options)
    balance = [
        (k, draft.settings[s])
        for k, s in (("interval", "interval"), ("moves_per_round", "moves"))
        if s in draft.settings
    ]
    if balance:
        yield "", None
        yield "[balance]", None
        for key, (value, place) in balance:
            yield f"{key} = {value if value.isdecimal() else quoted(value)}", place
    if "control" in draft.settings:
        where, place = draft.settings["control"]
        yield "", None
        yield "[control]", None
        yield f"original = {quoted(where)}", place
    yield from _notify(draft)
    yield from _nodes(draft.nodes)
    for vip in draft.vips:
        yield "", None
        yield "[[vip]]", vip.place
        if vip.name:
            yield f"name = {quoted(vip.name)}", vip.place
        first = vip.addresses[0]
        if len(vip.addresses) == 1:
            yield f"address = {quoted(first.text)}", first.place
            if first.interface:
                yield f"interface = {quoted(first.interface)}", first.place
        else:
            yield "addresses = [", first.place
            for address in vip.addresses:
                interface = f", interface = {quoted(address.interface)}" if address.interface else ""
                yield f"  {{ address = {quoted(address.text)}{interface} }},", address.place
            yield "]", vip.place
        if vip.prefer:
            yield f"prefer = {_list(vip.prefer)}", vip.place
        for key in ("routes", "rules"):
            texts = [r for r in vip.routing if r.key == key]
            if texts:
                yield f"{key} = {_list([r.text for r in texts])}", texts[0].place
    for hook in draft.hooks:
        yield from _hook(hook)
    left_out = {(r.said, r.sentence): r for r in reversed(draft.remarks) if r.fate is Fate.LEFT_OUT}
    yield from _left_out(sorted(left_out.values(), key=lambda r: r.place))  # once, if several hosts say the same


def _engine(draft: Draft, options: Options) -> Iterator[Line]:
    yield "", None
    yield "[engine]", None
    told: tuple[str, Place | None] = draft.settings.get("engine", ("corosync", None))
    engine, place = (options.engine, None) if options.engine is not None else told
    yield f"type = {quoted(engine)}", place
    if engine == "spread":
        address, place = draft.settings.get("spread", ("4803@localhost", None))
        yield f"address = {quoted(address)}", place
        if "retry" in draft.settings:
            yield f"retry = {quoted(draft.settings['retry'][0])}", draft.settings["retry"][1]


def _notify(draft: Draft) -> Iterator[Line]:
    cache, cache_place = draft.settings.get("neighbours", ("", None))
    if draft.told or cache:
        yield "", None
        yield "[notify]", None
    if draft.told:
        yield "hosts = [", draft.told[0].place
        for told in draft.told:
            more = [f"interface = {quoted(told.interface)}"] if told.interface else []
            more += [f"throttle = {told.throttle}"] if told.throttle is not None else []
            more += [f"ping = {'true' if told.ping else 'false'}"] if told.ping != (cache == "ping") else []
            address = quoted(told.network)
            yield f"  {{ address = {address}, {', '.join(more)} }}," if more else f"  {address},", told.place
        yield "]", None
    if cache:
        yield "neighbours = true", cache_place
    if cache == "ping":
        yield "ping = true", cache_place
    if "arp-cache" in draft.settings:
        interval, place = draft.settings["arp-cache"]
        yield "", None
        yield "[neighbours]", None
        yield f"interval = {quoted(interval)}", place


def _nodes(nodes: Sequence[DraftNode]) -> Iterator[Line]:
    if not nodes:
        yield "", None
        yield (
            "# The hosts are missing: the file has no list of them. One entry for each, the name best its hostname:",
            None,
        )
        for text in ("[[node]]", 'name = "a"', 'address = "10.0.0.11"'):
            yield f"# {text}", None
    for node in nodes:
        yield "", None
        yield "[[node]]", node.place
        yield f"name = {quoted(node.name)}", node.place
        if len(node.addresses) == 1:
            yield f"address = {quoted(node.addresses[0])}", node.place
        elif node.addresses:
            yield f"addresses = {_list(node.addresses)}", node.place
        else:
            yield (
                '# address = "10.0.0.11"    # missing: the address of this host itself, where the others reach it',
                None,
            )
        if node.interfaces:
            inner = ", ".join(f"{_key(name)} = {quoted(real)}" for name, real in node.interfaces)
            yield f"interfaces = {{ {inner} }}", node.place


def _hook(hook: DraftHook) -> Iterator[Line]:
    called = hook.called
    sign = "" if called.command else "# "  # a form to fill in
    yield "", None
    yield f"{sign}[[hook]]", called.place
    yield f"{sign}on = {_list(called.on)}", called.place
    yield f"{sign}command = {_list(called.command or ('/path/to/a/program',))}", called.place
    if hook.vips:
        yield f"{sign}vips = {_list(hook.vips)}", called.place
    if hook.nodes:
        yield f"{sign}nodes = {_list(hook.nodes)}", called.place
    if called.each != "vip":
        yield f"{sign}each = {quoted(called.each)}", called.place


def _left_out(remarks: Sequence[Remark]) -> Iterator[Line]:
    if remarks:
        yield "", None
        yield "# What is not carried over:", None
    for remark in remarks[:LISTED_MAX]:
        yield f"# {_comment(f'{remark.place}  {remark.said}: {remark.sentence}')}", None
    if len(remarks) > LISTED_MAX:
        yield f"# … and {len(remarks) - LISTED_MAX} more", None


def quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else quoted(name)


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, texts))}]"


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
