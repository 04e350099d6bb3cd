"""Who answers for the VIPs on the wire.

It is asked by ARP probes, whose sender is 0.0.0.0 (RFC 5227, 1.1): they claim nothing, and nobody who hears one learns or
forgets anything. IPv6 is asked by neighbour solicitations from this host's own address (RFC 4861, 4.3), not from `::` as for
duplicate address detection: that would make a host give an address up which it is just about to take.
"""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass, field

from ..core.model import Address
from ..shell.kernel.claims import Claim, Ears
from ..shell.kernel.fence import Guarded
from ..shell.kernel.surroundings import packed
from ..shell.kernel.witness import Place, question
from .finding import Finding, NotChecked, few, note, ok, problem
from .host import Host

ASKED_MAX = 1000
QUESTIONS_PER_SECOND = 300
ROUNDS = 2
"""A question or its answer may be lost."""
ANSWER_SECONDS = 0.5
NO_SENDER = bytes(4)
REMEDY = (
    "# find the hardware address in your switches' tables, and take the address off that host;\n"
    "# if both are the same host's, on that host: sysctl -w net.ipv4.conf.all.arp_ignore=1"
)


@dataclass(slots=True)
class _Round:
    """What was asked, as `questions`, and the hardware addresses that answered for each place."""

    questions: dict[Place, bytes] = field(default_factory=dict)
    heard: dict[Place, set[bytes]] = field(default_factory=dict)

    def claimed(self, claim: Claim) -> None:
        """Somebody says that it has an address."""
        if (claim.index, claim.ip) in self.questions:
            self.heard.setdefault((claim.index, claim.ip), set()).add(claim.mac)


def vip_answered(host: Host) -> Finding:
    """Nobody answers for a VIP but the node that holds it."""
    asked, left_out = _questions(host)
    nodes = {} if host.status is not None else _nodes(host)
    found = _Round({**asked, **{place: q for places in nodes.values() for place, q in places.items()}})
    _ask(host, found)
    own = {link.mac for link in host.around.links.values()}
    members = {mac for places in nodes.values() for place in places for mac in found.heard.get(place, ())}
    strange: list[str] = []
    unsure: list[str] = []
    answered = 0
    for place in asked:
        ip = str(ipaddress.ip_address(place[1]))
        macs = found.heard.get(place, set()) - own
        answered += bool(macs)
        said = f"{ip} by {' and '.join(sorted(mac.hex(':') for mac in macs))}"
        may = _may_answer(host, ip)
        if len(macs) > 1 or (macs and may is False):
            strange.append(said)
        elif macs and may is None and not macs & members:
            everybody = all(any(found.heard.get(p) for p in places) for places in nodes.values())
            (strange if everybody else unsure).append(said)
    if strange:
        return problem(f"somebody else answers for a VIP: {few(strange)}", REMEDY)
    if unsure:
        return note(
            f"there is an answer for {few(unsure)}; whether that is a node of this cluster cannot be told without a daemon"
            " here, as not all nodes have answered on that network"
        )
    rest = f"; {left_out} more were not asked for" if left_out else ""
    return ok(f"{answered} of {len(asked)} addresses of VIPs are answered for by others, each by one that may{rest}")


def _may_answer(host: Host, ip: str) -> bool | None:
    """Whether another node of the cluster may answer for an address; None: without a daemon nobody knows."""
    if host.status is None:
        return None
    for vip in host.status["vips"]:
        if any(text.partition("/")[0] == ip for text in vip["addresses"]):
            return bool(vip["moving"] or vip["holder"] not in (None, host.status["node"]))
    return True  # the daemon has another file than was read here, and others may have this one


def _questions(host: Host) -> tuple[dict[Place, bytes], int]:
    """A question for each address of a VIP, and how many addresses cannot be asked for."""
    addresses = host.addresses()
    found = dict(x for a in addresses[:ASKED_MAX] if (x := _question(host, a)) is not None)
    if not found:
        raise NotChecked("there is no interface here on which one could ask for a VIP")
    return found, len(addresses) - len(found)


def _nodes(host: Host) -> dict[str, dict[Place, bytes]]:
    """Questions for the own addresses of the other nodes, where they are on the networks of VIPs: so their hardware
    addresses are known."""
    me = host.itself()
    on = {host.around.links[i].name for i in host.places()}
    found: dict[str, dict[Place, bytes]] = {}
    for node in host.configured().nodes:
        if node.name != me.name:
            asked = (_question(host, Address(a, 32, "")) for a in node.addresses)
            found[node.name] = {p: q for p, q in filter(None, asked) if host.around.links[p[0]].name in on}
    return found


def _question(host: Host, address: Address) -> tuple[Place, bytes] | None:
    link, target = host.around.locate(address), packed(address.ip)
    if link is None or not link.carries:
        return None
    source = NO_SENDER if len(target) == 4 else host.around.source_for(target, link)
    return None if source is None else ((link.index, target), question(link.mac, source, target))


def _ask(host: Host, round_: _Round) -> None:
    async def main() -> None:
        ears = Ears(round_.claimed)
        try:
            by_link: dict[int, set[bytes]] = {}
            for index, ip in round_.questions:
                by_link.setdefault(index, set()).add(ip)
            ears.listen(Guarded(i, host.around.links[i].name, frozenset(ips)) for i, ips in by_link.items())
            if ears.deaf:
                raise NotChecked(
                    "no question can be asked on "
                    + "; ".join(f"{name}: {why}" for name, why in sorted(ears.deaf.items()))
                )
            for _ in range(ROUNDS):
                for (index, _), frame in round_.questions.items():
                    ears.send(index, frame)
                    await asyncio.sleep(1 / QUESTIONS_PER_SECOND)
                await asyncio.sleep(ANSWER_SECONDS)
        finally:
            ears.close()

    asyncio.run(main())
