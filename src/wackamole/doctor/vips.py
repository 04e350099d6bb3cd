"""Where the VIPs belong on this host."""

from __future__ import annotations

import ipaddress

from ..shell.kernel.neighbourhood import within
from ..shell.kernel.surroundings import packed
from .finding import Finding, NotChecked, few, lines, note, ok, problem
from .host import Host, sysctl

V6_ON_AN_INTERFACE_MAX = 300
"""IPv6 addresses that come back on one interface at once: 300 take 16 to 75 ms, 1000 take 2 s (the kernel goes through all
multicast groups for each, and through those that were left within the last ten seconds)."""


def vip_interface(host: Host) -> Finding:
    """Each address of a VIP has an interface that is up, and is in one of its subnets."""
    missing: dict[str, str] = {}
    down: dict[str, str] = {}
    outside: dict[str, str] = {}
    nowhere: list[str] = []
    for address in host.addresses():
        link = host.around.locate(address)
        if link is None and address.interface:
            missing[str(address)] = host.around.name_of(address.interface)
        elif link is None:
            nowhere.append(str(address))
        elif not link.carries:
            down[str(address)] = link.name
        elif not within(packed(address.ip), host.around.networks_on(link.index)):
            outside[str(address)] = link.name
    said, remedies = [], []
    if missing:
        said.append(f"this host has no interface {few(sorted(set(missing.values())))} (for {few(missing)})")
        remedies.append(
            f'# if it is called differently here, under [[node]]: interfaces = {{ {min(missing.values())} = "NAME HERE" }}'
        )
    if nowhere:
        said.append(f"no interface has a subnet that holds {few(nowhere)}")
        remedies.append('# give the interface an address of that subnet, or the VIP under [[vip]]: interface = "NAME"')
    if down:
        said.append(f"{few(sorted(set(down.values())))} is down or has no carrier (for {few(down)})")
        remedies += [f"ip link set {name} up" for name in sorted(set(down.values()))]
    if said:
        return problem("; ".join(said), lines(*remedies))
    if outside:
        return note(
            f"{few(outside)} are in no subnet of their interface ({few(sorted(set(outside.values())))}): only hosts with a"
            " route to them reach them"
        )
    return ok(f"every VIP belongs on an interface: {few(sorted(host.around.links[i].name for i in host.places()))}")


def vip_configured(host: Host) -> Finding:
    """Nobody but the daemon has a VIP on an interface of this host."""
    names = {packed(a.ip): str(a) for a in host.addresses()}
    there = [(a, host.around.links.get(a.index)) for a in host.around.foreign if a.ip in names]
    if not there:
        return ok("nobody else has configured a VIP on this host")
    placed = sorted((f"{ipaddress.ip_address(a.ip)}/{a.prefix}", link.name) for a, link in there if link is not None)
    return problem(
        f"{few(f'{text} on {name}' for text, name in placed)} was configured by somebody else: this node cannot hold it",
        lines(
            *(f"ip address delete {text} dev {name}" for text, name in placed),
            "# and take it out of what configures the network at start",
        ),
    )


def vip_count(host: Host) -> Finding:
    """What the kernel has room for."""
    said, remedies = [], []
    for index, addresses in host.places().items():
        six = sum(1 for a in addresses if ":" in a.ip)
        if six > V6_ON_AN_INTERFACE_MAX:
            said.append(
                f"{six} IPv6 addresses on {host.around.links[index].name}: more than {V6_ON_AN_INTERFACE_MAX} at once come"
                " back slowly"
            )
            remedies.append("# spread them over several interfaces, or over more nodes")
    for version in (4, 6):
        try:
            room = sysctl(f"ipv{version}", "neigh", "default", "gc_thresh3")
        except NotChecked:
            continue  # in a container it is the host's
        count = sum(1 for a in host.addresses() if (":" in a.ip) == (version == 6))
        if count + len(host.configured().nodes) > room:
            said.append(f"{count} IPv{version} addresses, and neighbour tables here have room for {room}")
            remedies.append(
                f"sysctl -w net.ipv{version}.neigh.default.gc_thresh3={4 * count}  # on clients and routers too"
            )
    return note("; ".join(said), lines(*remedies)) if said else ok("the kernel has room for so many addresses")
