"""Reads CTDB's two lists: public_addresses (`IP/prefix [interface[,interface…]]`) and nodes (one address a line)."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import ENTRIES_MAX, PROBLEMS_MAX, Fate, Host, Place, Served, ServedVip, Source, is_address, shown


def _lines(host: Host) -> Iterator[tuple[Place, str]]:
    for number, line in enumerate(host.source.text.split("\n"), 1):
        if len(host.problems) > PROBLEMS_MAX:
            return
        text = line.strip()
        if text:
            yield host.at(number, len(line) - len(line.lstrip()) + 1), text


def read(source: Source) -> Host:
    """VIPs of a public_addresses file."""
    host = Host(source)
    for place, text in _lines(host):
        if text.startswith("#"):
            continue
        address, *rest = text.split()
        interfaces = rest[0].split(",") if rest else [""]
        if not is_address(address) or "/" not in address or len(rest) > 1:
            host.wrong(place, f'"{shown(text)}" is not `IP/prefix interface`')
            continue
        if len(host.vips) >= ENTRIES_MAX:
            host.wrong(place, f"more than {ENTRIES_MAX} addresses")
            break
        host.vips.append(ServedVip("", (Served(address, interfaces[0], place),), None, place))
        if len(interfaces) > 1:
            sentence = f"a [[vip]] on {interfaces[0]}; a second interface is not tried, bond them"
            host.say(place, text, Fate.CHANGED, sentence)
        else:
            host.say(place, text, Fate.CARRIED, "a [[vip]]")
    return host


def read_nodes(source: Source) -> Host:
    """Nodes of a nodes file, by their numbers: a line that is commented out keeps its number."""
    host = Host(source)
    number = 0
    for place, text in _lines(host):
        address = text.lstrip("#").strip()
        if text.startswith("#"):
            number += is_address(address) and "/" not in address
        elif not is_address(text) or "/" in text:
            host.wrong(place, f'"{shown(text)}" is not an address')
        elif len(host.nodes) >= ENTRIES_MAX:
            host.wrong(place, f"more than {ENTRIES_MAX} nodes")
            break
        else:
            host.nodes.append((f"pnn{number}", (text,), place))
            host.say(place, text, Fate.CARRIED, f"[[node]] pnn{number}; better its hostname")
            number += 1
    return host
