"""The kernel's settings for IP (ip-sysctl.rst): those that bite hosts with virtual addresses."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from pathlib import Path

from ..shell.kernel.rtnl import Link
from ..shell.kernel.surroundings import network_of, packed
from .finding import Finding, NotChecked, few, lines, note, ok, problem
from .host import Host, sysctl, wired

LISTENERS = (
    Path("/proc/thread-self/net/tcp"),
    Path("/proc/thread-self/net/tcp6"),
    Path("/proc/thread-self/net/udp"),
    Path("/proc/thread-self/net/udp6"),
)
LISTENING = {"tcp": "0A", "udp": "07"}
"""The states of a socket that waits for anybody (net/tcp_states.h: TCP_LISTEN, TCP_CLOSE)."""
ROUTES = Path("/proc/thread-self/net/route")
RTF_UP = 1


def _remedy(*settings: str) -> str:
    """Set them now, and at every start."""
    now = [f"sysctl -w {s}" for s in settings]
    return lines(*now, *(f"echo '{s}' >> /etc/sysctl.d/90-wackamole.conf" for s in settings))


def _on(setting: str, link: Link) -> int:
    """What counts on an interface: the larger of its own value and that for all."""
    return max(sysctl("ipv4", "conf", "all", setting), sysctl("ipv4", "conf", link.name, setting))


def _dotted(link: Link, setting: str, value: int) -> str:
    """As sysctl(8) wants it: a dot in an interface's name is written as a slash."""
    return f"net.ipv4.conf.{link.name.replace('.', '/')}.{setting}={value}"


def promote_secondaries(host: Host) -> Finding:
    """A VIP with its subnet's prefix length goes with the address that the host has there."""
    wrong: dict[str, Link] = {}
    for index, addresses in host.places().items():
        own = host.around.networks_on(index)
        link = host.around.links[index]
        for a in addresses:
            secondary = ":" not in a.ip and network_of(packed(a.ip), a.prefix) in own
            if secondary and not _on("promote_secondaries", link):
                wrong[str(a)] = link
    if not wrong:
        return ok("no VIP goes because another address of its interface goes")
    return problem(
        f"{few(wrong)} share prefix and subnet with an own address of the host, and go when that one is removed:"
        " promote_secondaries is 0",
        lines(
            *(_remedy(_dotted(link, "promote_secondaries", 1)) for link in wrong.values()),
            "# or give the VIPs the prefix length /32",
        ),
    )


def arp_ignore(host: Host) -> Finding:
    """On a host with several interfaces in a segment each answers for every address."""
    mute = [link for link, _ in host.segments(4) if _on("arp_ignore", link) >= 8]
    if mute:
        return problem(
            f"arp_ignore is 8 on {_names(mute)}: this host answers nobody there, for no VIP",
            _remedy(*(_dotted(link, "arp_ignore", 1) for link in mute), "net.ipv4.conf.all.arp_ignore=1"),
        )
    shared = _shared(host)
    loud = [link for link in shared if not _on("arp_ignore", link)]
    if loud:
        return problem(
            f"{_names(loud)} are in one segment, and each answers ARP for the other's addresses too: neighbours see two"
            " hardware addresses for a VIP",
            _remedy("net.ipv4.conf.all.arp_ignore=1"),
        )
    other = [x for x in wired(host.around) if host.segments(4) and x.index not in {s.index for s in shared}]
    if not shared and len(other) > 1 and any(not _on("arp_ignore", x) for x in other):
        return note(
            f"{_names(other)} answer ARP for each other's addresses: it matters if two are plugged into one segment",
            _remedy("net.ipv4.conf.all.arp_ignore=1"),
        )
    return ok("no interface answers ARP for an address of another in its segment")


def arp_announce(host: Host) -> Finding:
    """With arp_announce 0 a question on one interface may have another's address as its sender."""
    loose = [link for link in _shared(host) if _on("arp_announce", link) < 2]
    if loose:
        return problem(
            f"{_names(loose)} are in one segment, and what this host asks there may name a VIP with the wrong hardware"
            " address",
            _remedy("net.ipv4.conf.all.arp_announce=2"),
        )
    return ok("no interface names an address of another in its segment as its own")


def rp_filter(host: Host) -> Finding:
    """A strict filter drops what comes in by another interface than the way back goes."""
    shared = [link for link in _shared(host) if _on("rp_filter", link) == 1]
    strict = [link for link, _ in host.segments(4) if _on("rp_filter", link) == 1]
    if not strict and not shared:
        return ok("no interface with VIPs filters strictly by the way back")
    if shared:
        return problem(
            f"rp_filter is 1 on {_names(shared)}, and another interface is in the same segment: what comes in by the one"
            " while the route goes by the other is dropped",
            _remedy(*(_dotted(link, "rp_filter", 2) for link in shared), "net.ipv4.conf.all.rp_filter=2"),
        )
    away = _default_routes()
    routed = {a.ip for v in host.configured().vips if v.routing for a in v.vip.addresses}
    elsewhere = [
        link
        for link in strict
        if away and link.name not in away and any(a.ip not in routed for a in host.places()[link.index])
    ]
    if elsewhere:
        return note(
            f"rp_filter is 1 on {_names(elsewhere)}, and the default route goes by {', '.join(sorted(away))}: clients"
            " behind a router on the VIPs' side are dropped",
            lines(
                _remedy(*(_dotted(link, "rp_filter", 2) for link in elsewhere), "net.ipv4.conf.all.rp_filter=2"),
                "# or give the VIPs routes and rules of their own: `routes` and `rules` under [[vip]]",
            ),
        )
    return ok("the strict filter (rp_filter 1) is in nobody's way here")


def ip_nonlocal_bind(host: Host) -> Finding:
    """A service that listens on a VIP alone cannot start on a host that does not have it."""
    vips = {a.ip for a in host.addresses()}
    bound: dict[int, set[str]] = {4: set(), 6: set()}
    for ip, port in _listeners():
        if ip in vips:
            version = 6 if ":" in ip else 4
            bound[version].add(f"[{ip}]:{port}" if version == 6 else f"{ip}:{port}")
    wrong = {v: found for v, found in bound.items() if found and not sysctl(f"ipv{v}", "ip_nonlocal_bind")}
    if not wrong:
        alone = sorted(bound[4] | bound[6])
        return ok(
            f"services that listen on a VIP alone ({few(alone)}) start without it too"
            if alone
            else "nothing here listens on a VIP alone, of what runs now"
        )
    return problem(
        f"something listens on {few(sorted(set().union(*wrong.values())))} alone: where the VIP is not, it cannot start",
        lines(
            _remedy(*(f"net.ipv{v}.ip_nonlocal_bind=1" for v in wrong)),
            "# on every node; or let it listen on all addresses",
        ),
    )


def _shared(host: Host) -> list[Link]:
    """Interfaces that share a segment with VIPs with another one."""
    found = {x.index: x for link, same in host.segments(4) if same for x in (link, *same)}
    return [found[i] for i in sorted(found)]


def _listeners() -> Iterable[tuple[str, int]]:
    """Addresses and ports on which anything listens in this network namespace (proc(5), /proc/net/tcp)."""
    for file in LISTENERS:
        try:
            rows = file.read_text().splitlines()[1:]
        except OSError as no:
            raise NotChecked(f"{file} cannot be read: {no.strerror}") from None
        for row in rows:
            _, local, _, state, *_ = row.split()
            if state == LISTENING[file.name[:3]]:
                address, _, port = local.partition(":")
                words = [int(address[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(address), 8)]
                yield str(ipaddress.ip_address(b"".join(words))), int(port, 16)


def _default_routes() -> set[str]:
    """The interfaces of IPv4 default routes (proc(5), /proc/net/route)."""
    found = set()
    for row in ROUTES.read_text().splitlines()[1:]:
        interface, destination, _, flags, _, _, _, mask, *_ = row.split()
        if destination == mask == "00000000" and int(flags, 16) & RTF_UP:
            found.add(interface)
    return found


def _names(links: Iterable[Link]) -> str:
    return ", ".join(sorted({link.name for link in links}))
