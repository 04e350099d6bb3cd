"""Puts the facts of one or more hosts together: nodes, VIPs, who prefers what, and what an interface is called where."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count

from .facts import Called, Fate, Host, Options, Place, Problem, Remark, Routed, Served, ServedVip, Told


@dataclass(frozen=True, slots=True)
class DraftNode:
    """One `[[node]]`; without addresses it is to be filled in."""

    name: str
    addresses: tuple[str, ...]
    interfaces: tuple[tuple[str, str], ...]
    place: Place


@dataclass(frozen=True, slots=True)
class DraftVip:
    """One `[[vip]]`."""

    name: str
    addresses: tuple[Served, ...]
    prefer: tuple[str, ...]
    place: Place
    routing: tuple[Routed, ...] = ()


@dataclass(frozen=True, slots=True)
class DraftHook:
    """One `[[hook]]`; empty `vips` and `nodes` are all."""

    called: Called
    vips: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(slots=True)
class Draft:
    """A cluster as the files have it; maybe not complete, maybe not valid."""

    settings: dict[str, tuple[str, Place]] = field(default_factory=dict)
    nodes: list[DraftNode] = field(default_factory=list)
    vips: list[DraftVip] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    hooks: list[DraftHook] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def merge(hosts: list[Host], options: Options) -> Draft:
    """The cluster of these hosts."""
    draft = Draft()
    for host in hosts:
        draft.remarks += host.remarks
        draft.problems += host.problems
    _settings(draft, hosts)
    found = _same_vips(draft, hosts)
    nodes = _nodes(draft, hosts, options)
    named = {a.interface for h in hosts for v in h.vips for a in v.addresses}
    names = _Names(named | {t.interface for h in hosts for t in h.told})
    known = set(nodes)
    for sight in found:
        addresses = tuple(
            Served(a.text, names.of({h: v.addresses[i].interface for h, v in sight}), a.place)
            for i, a in enumerate(sight[0][1].addresses)
        )
        prefer = tuple(n for n in _prefer(sight, len(hosts)) if n in known)
        routing = tuple({(r.key, r.text): r for _, v in reversed(sight) for r in reversed(v.routing)}.values())[::-1]
        draft.vips.append(DraftVip(sight[0][1].name, addresses, prefer, sight[0][1].place, routing))
    _told(draft, hosts, names)
    draft.nodes = [DraftNode(n, a, names.on(n), p) for n, (a, p) in nodes.items()]
    _hooks(draft, hosts)
    return draft


def _hooks(draft: Draft, hosts: list[Host]) -> None:
    """Each once, with the VIPs that it is for and the nodes whose files have it, if not all."""
    names = {frozenset(a.ip for a in v.addresses): v.name or v.addresses[0].ip for v in draft.vips}
    nodes: dict[Called, dict[str, None]] = {}
    for host in hosts:
        for called in host.hooks:
            if not called.vip or called.vip in names:  # else its VIP is a problem already
                nodes.setdefault(called, {})[host.source.node or ""] = None
    found: dict[tuple[object, ...], DraftHook] = {}
    for called, on_nodes in nodes.items():
        where = tuple(on_nodes) if len(on_nodes) < len(hosts) else ()
        vips = (names[called.vip],) if called.vip else ()
        key = (called.on, called.command, called.each, where, bool(vips))
        known = found.get(key)
        found[key] = replace(known, vips=(*known.vips, *vips)) if known else DraftHook(called, vips, where)
    draft.hooks += [replace(h, vips=()) if len(h.vips) == len(names) else h for h in found.values()]


def _settings(draft: Draft, hosts: list[Host]) -> None:
    for host in hosts:
        for key, (value, place) in host.settings.items():
            kept, where = draft.settings.setdefault(key, (value, place))
            if kept != value:
                draft.remarks.append(
                    Remark(place, value, Fate.CHANGED, f"{kept}, as in {where}: all hosts have one file")
                )


def _told(draft: Draft, hosts: list[Host], names: _Names) -> None:
    """Whom any host tells; the same network is the same entry, and one behind two interfaces of a host is two."""
    found: dict[tuple[str, int], dict[Host, Told]] = {}
    for host in hosts:
        seen: dict[str, dict[str, Told]] = {}
        for told in host.told:
            behind = seen.setdefault(told.network, {})
            first = behind.setdefault(told.interface, told)
            if first is told:
                found.setdefault((told.network, len(behind)), {})[host] = told
            else:
                sentence = f"the same as in {first.place}"
                draft.remarks.append(Remark(told.place, told.network, Fate.NOT_NEEDED, sentence))
    for sight in found.values():
        first, *others = sight.values()
        for other in others:
            if (other.throttle, other.ping) != (first.throttle, first.ping):
                sentence = f"throttle and ping as in {first.place}: all hosts have one file"
                draft.remarks.append(Remark(other.place, other.network, Fate.CHANGED, sentence))
        draft.told.append(replace(first, interface=names.of({h: t.interface for h, t in sight.items()})))


def _nodes(draft: Draft, hosts: list[Host], options: Options) -> dict[str, tuple[tuple[str, ...], Place]]:
    """Names and addresses: those that were told, those of the files, and peers that only have an address."""
    found = {name: (addresses, Place("--node")) for name, addresses in options.nodes}
    for host in hosts:
        for name, addresses, place in host.nodes:
            found.setdefault(name, (addresses, place))
        if host.source.node is not None:
            own = (host.own,) if host.own else ()
            found.setdefault(host.source.node, (own, Place(host.source.path)))
    taken = {a for addresses, _ in found.values() for a in addresses}
    peers = {a: p for h in hosts for a, p in [*([(h.own, Place(h.source.path))] if h.own else []), *h.peers]}
    unknown = {address: place for address, place in peers.items() if address not in taken}
    silent = [name for name, (addresses, _) in found.items() if not addresses]
    if len(silent) == len(unknown) == 1:  # the one that is left is the one that does not say its own
        found[silent[0]] = (tuple(unknown), found[silent[0]][1])
        return found
    for address, place in unknown.items():
        found[address] = ((address,), place)
        draft.remarks.append(Remark(place, address, Fate.CHANGED, "a [[node]] of that name; better its hostname"))
    return found


_Sight = list[tuple[Host, ServedVip]]


def _same_vips(draft: Draft, hosts: list[Host]) -> list[_Sight]:
    """VIPs as each host has them; the same addresses are the same VIP, whatever it is called."""
    found: dict[frozenset[str], _Sight] = {}
    owner: dict[str, frozenset[str]] = {}
    for host in hosts:
        for vip in host.vips:
            key = vip.ips
            sight = found.get(key)
            if sight is None:
                clash = next((owner[a.ip] for a in vip.addresses if a.ip in owner), None)
                if clash is not None or len(key) < len(vip.addresses):
                    where = f" in {found[clash][0][1].place} with others" if clash is not None else " twice in it"
                    sentence = f"{_addresses(vip)}: an address of it is{where}; it must be the same VIP on every host"
                    draft.problems.append(Problem(vip.place, sentence))
                    continue
                found[key] = [(host, vip)]
                owner.update(dict.fromkeys(key, key))
            elif sight[-1][0] is host:
                sentence = f"the same as in {sight[-1][1].place}"
                draft.remarks.append(Remark(vip.place, _addresses(vip), Fate.NOT_NEEDED, sentence))
            else:
                sight.append((host, _in_order(draft, sight[0][1], vip)))
    for sight in found.values():
        if len(sight) < len(hosts):
            sentence = f"in {len(sight)} of {len(hosts)} files only; here every node with the interface may hold it"
            draft.remarks.append(Remark(sight[0][1].place, _addresses(sight[0][1]), Fate.CHANGED, sentence))
    return list(found.values())


def _in_order(draft: Draft, first: ServedVip, vip: ServedVip) -> ServedVip:
    """The other host's VIP with its addresses in the first one's order."""
    by_ip = {a.ip: a for a in vip.addresses}
    ordered = tuple(by_ip[a.ip] for a in first.addresses)
    for mine, theirs in zip(first.addresses, ordered, strict=True):
        if mine.text != theirs.text:
            sentence = f"{mine.text}, as in {mine.place}: all hosts have one file"
            draft.remarks.append(Remark(theirs.place, theirs.text, Fate.CHANGED, sentence))
    return replace(vip, addresses=ordered)


def _addresses(vip: ServedVip) -> str:
    listed = [a.text for a in vip.addresses[:3]]
    return ", ".join(listed + ["…"] * (len(vip.addresses) > 3))


def _prefer(sight: _Sight, hosts: int) -> tuple[str, ...]:
    """Nodes by falling priority; none if the hosts want it alike."""
    wants = [(-v.priority, h.source.node) for h, v in sight if v.priority is not None and h.source.node is not None]
    if hosts > 1 and len(wants) == hosts and len({p for p, _ in wants}) == 1:
        return ()
    return tuple(node for _, node in sorted(wants, key=lambda w: w[0]))


class _Names:
    """Names of interfaces that hold for all hosts, where the hosts' own differ: net1, net2, …"""

    def __init__(self, taken: set[str]) -> None:
        self._free = (name for n in count(1) if (name := f"net{n}") not in taken)
        self._by_host: dict[tuple[tuple[str, str], ...], str] = {}

    def of(self, names: dict[Host, str]) -> str:
        """The one name for what is called so on each host."""
        known = {h: n for h, n in names.items() if n}
        if len(set(known.values())) <= 1:
            return next(iter(known.values()), "")
        key = tuple((h.source.node or "", n) for h, n in known.items())
        if key not in self._by_host:
            self._by_host[key] = next(self._free)
        return self._by_host[key]

    def on(self, node: str) -> tuple[tuple[str, str], ...]:
        """A node's own names, by those that hold for all."""
        return tuple((name, real) for key, name in self._by_host.items() for n, real in key if n == node)
