"""All checks, and running them: each within a bounded time, and those that wait at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import answers, cluster, ring, software, surroundings, sysctls, vips
from .finding import Finding, NotChecked, Result
from .host import Host

SECONDS_MAX = 15.0
"""What a check may take; then it is given up, and said not to have been made."""
EXIT_CODE_MAX = 100
"""A count of problems above it could not be told from what a shell says of a program that was killed (128 and up)."""

Check = Callable[[Host], Finding]

CHECKS: Mapping[str, Check] = {
    "configuration": cluster.configuration,
    "key": cluster.key,
    "cluster": cluster.cluster,
    "capabilities": software.capabilities,
    "real_time": software.real_time,
    "kernel": software.kernel,
    "corosync": software.corosync,
    "hostname": surroundings.hostname,
    "networkd": surroundings.networkd,
    "network_manager": surroundings.network_manager,
    "vip_interface": vips.vip_interface,
    "vip_configured": vips.vip_configured,
    "vip_count": vips.vip_count,
    "vip_answered": answers.vip_answered,
    "promote_secondaries": sysctls.promote_secondaries,
    "arp_ignore": sysctls.arp_ignore,
    "arp_announce": sysctls.arp_announce,
    "rp_filter": sysctls.rp_filter,
    "ip_nonlocal_bind": sysctls.ip_nonlocal_bind,
    "ring_address": ring.ring_address,
    "ring_port": ring.ring_port_free,
    "firewall": ring.firewall,
    "other_clusters": ring.other_clusters,
    "mtu": ring.mtu,
    "detection": ring.detection,
    "clock": surroundings.clock,
}
SENDING: Mapping[str, str] = {
    "vip_answered": "ARP probes and neighbour solicitations for the VIPs",
    "mtu": "ICMP echoes to the other nodes",
    "detection": "ICMP echoes to the other nodes",
}
"""The checks that send something, and what."""
WAITING = frozenset({"hostname", "vip_answered", "other_clusters", "mtu", "detection", "clock"})
"""The checks that wait for somebody. They run after the others, so that what these compute does not hold them up."""


def examine(host: Host, *, quiet: bool = False) -> dict[str, Finding]:
    """The finding of every check. `quiet`: nothing is sent."""
    found = {
        name: Finding(Result.NOT_CHECKED, f"it sends {what}, and was asked not to")
        for name, what in SENDING.items()
        if quiet
    }
    for together in (CHECKS.keys() - WAITING, WAITING):
        found |= run({name: CHECKS[name] for name in CHECKS if name in together and name not in found}, host)
    return {name: found[name] for name in CHECKS}


def run(checks: Mapping[str, Check], host: Host, seconds: float = SECONDS_MAX) -> dict[str, Finding]:
    """Run them all at once, each on a thread; one that has not ended in time is left to itself."""
    found: dict[str, Finding] = {}
    crashed: list[BaseException] = []

    def work(name: str, check: Check) -> None:
        try:
            found[name] = check(host)
        except NotChecked as no:
            found[name] = Finding(Result.NOT_CHECKED, str(no))
        except OSError as no:
            found[name] = Finding(Result.NOT_CHECKED, f"the kernel refused: {no.strerror or no}")
        except BaseException as wrong:
            crashed.append(wrong)

    threads = {n: threading.Thread(target=work, args=(n, check), daemon=True) for n, check in checks.items()}
    until = time.monotonic() + seconds
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, until - time.monotonic()))
    if crashed:
        raise crashed[0]
    late = Finding(Result.NOT_CHECKED, f"it took longer than {seconds:.0f} s")
    return {name: found.get(name, late) for name in checks}


def problems(found: Mapping[str, Finding]) -> int:
    """How many problems there are."""
    return sum(1 for finding in found.values() if finding.result is Result.PROBLEM)


def as_plain(found: Mapping[str, Finding]) -> dict[str, Any]:
    """For --json."""
    checks = [
        {"check": name, "result": f.result.value, "found": f.found, "remedy": f.remedy} for name, f in found.items()
    ]
    return {"problems": problems(found), "checks": checks}
