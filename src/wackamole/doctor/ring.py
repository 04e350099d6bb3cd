"""The network between the nodes: the ring's ports, who else is on them, how far away the others are."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from ..config import DETECTION_MS_MIN, Config, NodeConfig
from ..engine.corosync.cmap import STATISTICS, read_numbers
from ..engine.corosync.conf import ring_port
from ..engine.corosync.cpg import LibraryMissing
from ..engine.corosync.managed import answers, noted
from ..shell import scheduling
from ..shell.kernel.claims import ETH_P_IPV6, attach, frames
from ..shell.kernel.rtnl import Link
from ..shell.kernel.surroundings import packed
from .echo import echoes
from .finding import Finding, NotChecked, few, lines, note, ok, problem
from .firewall import Fate, Judgement, Packet, Ruleset
from .host import Host, tool

SIOCGIFMTU = 0x8921
IP_BYTES_MAX = 65_535
"""A loopback's MTU is larger than any packet."""
ETH_P_IP = 0x0800
LISTEN_SECONDS = 2.0
STRANGERS_MAX = 16
STALL_TICK_SECONDS = 0.005
LOSS_PERCENT_MAX = 2
ROUND_UP_MS = 50
LEGACY_TABLES = (Path("/proc/thread-self/net/ip_tables_names"), Path("/proc/thread-self/net/ip6_tables_names"))
SOCKETS = (Path("/proc/thread-self/net/udp"), Path("/proc/thread-self/net/udp6"))

_LOAD_BYTE, _LOAD_HALF, _HEADER_LENGTH, _LOAD_HALF_AFTER = 0x30, 0x28, 0xB1, 0x48  # linux/bpf_common.h
_IF_EQUAL, _RETURN = 0x15, 0x06


def _udp_to(ports: list[int], ethertype: int) -> bytes:
    """A filter for packets without their link header: UDP to one of these ports (no fragments, no IPv6 extensions)."""
    if ethertype == ETH_P_IP:
        head = [(_LOAD_BYTE, 9), (_HEADER_LENGTH, 0), (_LOAD_HALF_AFTER, 2)]
    else:
        head = [(_LOAD_BYTE, 6), (_LOAD_HALF, 42)]
    program = [(head[0][0], 0, 0, head[0][1]), (_IF_EQUAL, 0, len(head) - 1 + len(ports), socket.IPPROTO_UDP)]
    program += [(code, 0, 0, k) for code, k in head[1:]]
    program += [(_IF_EQUAL, len(ports) - n, 0, port) for n, port in enumerate(ports)]
    program += [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, 256)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _links(config: Config) -> int:
    return min(len(n.addresses) for n in config.nodes)


def _ports(config: Config) -> list[int]:
    """The ports of our own Corosync."""
    if config.engine.type != "corosync":
        raise NotChecked("the engine is Spread: its ports are in its spread.conf")
    if not config.engine.managed:
        raise NotChecked("the ring is not ours (`managed = false`): its ports are in its corosync.conf")
    return [ring_port(link) for link in range(_links(config))]


def _interface(host: Host, address: str) -> Link | None:
    """The interface that has an own address."""
    ip = packed(address)
    return next((host.around.links.get(a.index) for a in host.around.foreign if a.ip == ip), None)


def ring_address(host: Host) -> Finding:
    """This node's addresses are on interfaces of this host that are up."""
    node = host.itself()
    missing = [a for a in node.addresses if (link := _interface(host, a)) is None or not link.carries]
    if missing:
        return problem(
            f"{few(missing)} of node {node.name} {'is' if len(missing) == 1 else 'are'} on no interface that is up",
            lines(
                *(f"ip address show to {a}" for a in missing), "# or correct `address` under [[node]], on every node"
            ),
        )
    return ok(f"{few(node.addresses)} {'is' if len(node.addresses) == 1 else 'are'} here")


# -- ports ----------------------------------------------------------------------------------------------------------------


def firewall(host: Host) -> Finding:
    """Packets of the ring come in and go out."""
    config, me = host.configured(), host.itself()
    ports = _ports(config)
    rules = Ruleset(json.loads(tool("nft", "-j", "list", "ruleset")))
    legacy = [file.name for file in LEGACY_TABLES if file.exists() and "filter" in file.read_text().split()]
    judged: list[tuple[int, str, Judgement]] = []
    reply: list[Judgement] = []
    for node in host.others():
        for link, port in enumerate(ports):
            own, peer = me.addresses[link], node.addresses[link]
            interface = _interface(host, own)
            name = interface.name if interface is not None else ""
            for way, hooks, source, to, iif, oif in (
                ("from", ("prerouting", "input"), peer, own, name, ""),
                ("to", ("output", "postrouting"), own, peer, "", name),
            ):
                first = rules.judge(Packet(source, to, port, iif, oif), *hooks)
                judged.append((port, f"UDP {port} {way} {node.name} ({peer})", first))
                if first.fate is Fate.DROPPED:
                    reply.append(rules.judge(Packet(source, to, port, iif, oif, "established"), *hooks))
    dropped = [(port, what, j) for port, what, j in judged if j.fate is Fate.DROPPED]
    if dropped:
        said = f"{dropped[0][1]} is dropped by {dropped[0][2].place}" + (
            f" ({len(dropped)} such ways in all)" if len(dropped) > 1 else ""
        )
        remedy = _open_ports(rules, sorted({port for port, _, _ in dropped}), dropped[0][2].place)
        if all(j.fate is Fate.PASSES for j in reply):
            return note(f"{said}, and comes in only as an answer to what went the other way", remedy)
        return problem(said, remedy)
    unsure = [f"{what} may be dropped by {j.place}" for _, what, j in judged if j.fate is Fate.UNCERTAIN]
    whole = host.status is not None and not host.status["absent"]
    if (unsure or legacy) and not whole:
        said = (
            few(unsure, 1) if unsure else f"there are rules of the older iptables ({few(legacy)}), which are not read"
        )
        return note(said, f"# look whether it lets UDP {', '.join(map(str, ports))} through:\nnft list ruleset")
    return ok(f"UDP {', '.join(map(str, ports))} passes, to and from every node")


def _open_ports(rules: Ruleset, ports: list[int], place: str) -> str:
    """How to let UDP to these ports through, by whatever made the rules."""
    if "firewalld" in rules.names:
        return lines(*(f"firewall-cmd --permanent --add-port={p}/udp" for p in ports), "firewall-cmd --reload")
    if any(name.startswith("ufw") for name in rules.names):
        return lines(*(f"ufw allow {p}/udp" for p in ports))
    chain = place.partition(":")[0]
    listed = ", ".join(map(str, ports))
    return f"nft insert rule {chain} udp dport '{{ {listed} }}' accept\n# and the same rule in /etc/nftables.conf"


def ring_port_free(host: Host) -> Finding:
    """Nobody else on this host has the ring's ports, and no other Corosync runs."""
    config = host.configured()
    ports = _ports(config)
    if host.status is not None and host.status["engine"].get("state") == "joined":
        return ok("the daemon's own Corosync has them")
    own = noted(Path(host.socket).parent / "corosync" / "running.json")
    if own is not None and own[0].alive():
        return ok("a Corosync of ours runs, and the next daemon goes on with it")
    if answers():
        return problem(
            "another Corosync runs on this host, and a host can run only one",
            "systemctl disable --now corosync\n# if something needs it, under [engine]: managed = false",
        )
    taken = sorted({port for port in _bound() if port in ports})
    if taken:
        return problem(f"UDP {few(map(str, taken))} is in use on this host", f"ss -lunp 'sport = :{taken[0]}'")
    return ok(f"UDP {few(map(str, ports))} is free")


def _bound() -> Iterator[int]:
    for file in SOCKETS:
        try:
            rows = file.read_text().splitlines()[1:]
        except OSError as no:
            raise NotChecked(f"{file} cannot be read: {no.strerror}") from None
        yield from (int(row.split()[1].rpartition(":")[2], 16) for row in rows)


def other_clusters(host: Host) -> Finding:
    """Nobody but the nodes sends to the ring's ports. Listens for LISTEN_SECONDS, and sends nothing."""
    config, me = host.configured(), host.itself()
    ports = _ports(config)
    names = {link.name for a in me.addresses if (link := _interface(host, a)) is not None}
    if not names:
        raise NotChecked("no interface of this host has an address of this node")
    nodes = {packed(a) for n in config.nodes for a in n.addresses}
    strangers: set[bytes] = set()
    with ExitStack() as stack:
        watch = stack.enter_context(selectors.DefaultSelector())
        for name in names:
            for ethertype in (ETH_P_IP, ETH_P_IPV6):
                watch.register(stack.enter_context(_ear(name, ethertype, ports)), selectors.EVENT_READ, ethertype)
        until = time.monotonic() + LISTEN_SECONDS
        while (left := until - time.monotonic()) > 0 and len(strangers) < STRANGERS_MAX:
            for key, _ in watch.select(left):
                assert isinstance(key.fileobj, socket.socket)
                for packet in frames(key.fileobj):
                    strangers.add(packet[12:16] if key.data == ETH_P_IP else packet[8:24])
    strangers -= nodes
    if strangers:
        listed = few(sorted(str(ipaddress.ip_address(ip)) for ip in strangers))
        return problem(
            f"{listed} sends to the ring's ports on {few(sorted(names))} and is no node of this cluster: another cluster's"
            " ring, or a node that was taken out of the file here and not there",
            "# add it as a [[node]] on every host, or stop Corosync there, or keep the clusters' networks apart\n"
            "# (with a key_file no other cluster's ring can join this one)",
        )
    return ok(f"in {LISTEN_SECONDS:.0f} s nobody but nodes sent to the ring's ports on {few(sorted(names))}")


def _ear(name: str, ethertype: int, ports: list[int]) -> socket.socket:
    try:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    except PermissionError:
        raise NotChecked("listening on an interface needs root (CAP_NET_RAW)") from None
    s.setblocking(False)
    attach(s, _udp_to(ports, ethertype))
    s.bind((name, ethertype))
    return s


# -- distances ------------------------------------------------------------------------------------------------------------


def mtu(host: Host) -> Finding:
    """Packets as large as an interface allows reach the other nodes, unfragmented."""
    sizes = _mtus(host)
    heard = echoes([a for _, a in _others(host)], sizes)
    lost = {
        f"{address} ({node.name})": sizes[address]
        for node, address in _others(host)
        if heard[address].round_trips_ms and heard[address].large is False
    }
    if lost:
        names = sorted({link.name for a in host.itself().addresses if (link := _interface(host, a)) is not None})
        return problem(
            f"packets of {max(lost.values())} bytes do not reach {few(lost)}, small ones do: the MTU is not the same all the"
            " way",
            lines(
                "# set the same MTU on all nodes and switches; until then here:",
                *(f"ip link set {name} mtu {1500 if max(lost.values()) > 1500 else 1280}" for name in names),
            ),
        )
    reached = [a for _, a in _others(host) if heard[a].large]
    if not reached:
        raise NotChecked("no other node has answered an ICMP echo")
    return ok(f"packets of {min(sizes[a] for a in reached)} bytes reach {len(reached)} addresses of other nodes")


def detection(host: Host) -> Finding:
    """`detection` suits the network and this host: measured by ICMP echo, and by what Corosync itself has measured."""
    config = host.configured()
    stalls = _Stalls()
    stalls.start()
    heard = echoes([a for _, a in _others(host)], {})
    stall_ms = stalls.end()
    answered = {a: h for _, a in _others(host) if (h := heard[a]).round_trips_ms}
    if not answered:
        raise NotChecked("no other node has answered an ICMP echo: down, or a firewall eats it")
    worst_ms = max(max(h.round_trips_ms) for h in answered.values())
    typical_ms = sorted(x for h in answered.values() for x in h.round_trips_ms)
    lost = sum(h.sent - len(h.round_trips_ms) for h in answered.values())
    sent = sum(h.sent for h in answered.values())
    own = _of_corosync(config, host.others())
    wanted = suggested_ms(len(config.nodes), max(worst_ms, own or 0.0), stall_ms)
    said = (
        f"round trips by ICMP echo {typical_ms[len(typical_ms) // 2]:.1f} ms, at worst {worst_ms:.1f} ms; this host late by up"
        f" to {stall_ms:.0f} ms"
        + (f"; Corosync's own average {own:.1f} ms" if own is not None else "")
        + f": detection from {wanted} ms up"
    )
    if lost * 100 > sent * LOSS_PERCENT_MAX:
        return problem(
            f"{lost} of {sent} ICMP echoes were lost; {said}",
            "# mend the network first: every lost packet of the ring costs a retransmission\nip -s link",
        )
    if config.engine.type == "spread":
        return note(f"{said}; a Spread daemon's own timeouts are compiled into it")
    if config.engine.detection_ms < wanted:
        return problem(
            f"{said}, and the config has {config.engine.detection_ms} ms",
            f'# under [engine], on every node (this changes the ring):\ndetection = "{wanted}ms"',
        )
    return ok(f"{said}; the config has {config.engine.detection_ms} ms")


def suggested_ms(nodes: int, round_trip_ms: float, stall_ms: float) -> int:
    """The least detection time: the token passes every node once each rotation, any of them may be late, and one lost token
    has to be sent again within the time; consensus takes another fifth (engine/corosync/conf.py)."""
    rotation_ms = nodes * round_trip_ms / 2 + stall_ms
    least = 2 * rotation_ms * 5 / 4
    return max(DETECTION_MS_MIN, -(-int(least) // ROUND_UP_MS) * ROUND_UP_MS)


def _of_corosync(config: Config, others: tuple[NodeConfig, ...]) -> float | None:
    """The largest mean latency of a link that a running Corosync knows of, in milliseconds."""
    if config.engine.type != "corosync":
        return None
    links = range(_links(config))
    keys = tuple(f"stats.knet.node{n.id}.link{link}.latency_ave" for n in others for link in links)
    try:
        found = read_numbers(keys, STATISTICS)
    except LibraryMissing:
        return None
    return max((us / 1000 for us in found.values() if us), default=None)


def _others(host: Host) -> list[tuple[NodeConfig, str]]:
    return [(n, a) for n in host.others() for a in n.addresses]


def _mtus(host: Host) -> dict[str, int]:
    """The MTU towards each address of another node: that of the interface with the own address of that link."""
    me, found = host.itself(), {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for node in host.others():
            for own, address in zip(me.addresses, node.addresses, strict=False):
                link = _interface(host, own)
                if link is not None:
                    answer = fcntl.ioctl(s, SIOCGIFMTU, struct.pack("16si12x", link.name.encode(), 0))
                    found[address] = min(IP_BYTES_MAX, struct.unpack("16si12x", answer)[1])
    return found


class _Stalls(threading.Thread):
    """How late this host lets a thread run at worst that asks for the same priority as the daemon's."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self._worst_s = 0.0

    def run(self) -> None:
        """Sleep for short times until it is over."""
        scheduling.before_others()
        while not self._over.is_set():
            began = time.monotonic()
            time.sleep(STALL_TICK_SECONDS)
            self._worst_s = max(self._worst_s, time.monotonic() - began - STALL_TICK_SECONDS)

    def end(self) -> float:
        """Milliseconds."""
        self._over.set()
        self.join()
        return self._worst_s * 1000
