"""What the daemon runs on: its rights, the kernel, Corosync."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import threading
from pathlib import Path

from ..lab.namespaces import CLONE_NEWNET
from ..shell import scheduling
from ..shell.kernel.fence import Fence, FenceRefused, Guarded
from ..shell.kernel.kernel import LINUX_MIN
from .finding import Finding, NotChecked, lines, note, ok, problem
from .host import Host, tool

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
"""What the daemon cannot do without (linux/capability.h)."""
COROSYNC_MIN = (3, 0)
"""With knet; the wire format of 2.x is another one."""
LEASE_MS_TRIED = 1000
LOOPBACK = 1
"""The number of `lo` in every network namespace."""


def capabilities(host: Host) -> Finding:
    """The daemon, or without one this process, may configure the network."""
    who, process = (
        ("the daemon", host.status["process"]["pid"]) if host.status is not None else ("this process", "self")
    )
    if host.status is None and os.geteuid():
        raise NotChecked("no daemon runs, and this is not root")
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError as no:
        raise NotChecked(f"the daemon's process cannot be looked at: {no.strerror}") from None
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    if found is None:
        raise NotChecked("this kernel does not tell a process's capabilities")
    missing = [name for name, bit in CAPABILITIES.items() if not int(found[1], 16) >> bit & 1]
    if missing:
        return problem(
            f"{who} does not have {' and '.join(missing)}",
            "systemctl edit wackamole\n# and write:\n[Service]\n"
            "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_CHOWN\n"
            "# in a container: start it with --cap-add=NET_ADMIN --cap-add=NET_RAW",
        )
    return ok(f"{who} has {' and '.join(CAPABILITIES)}")


def real_time(host: Host) -> Finding:
    """The daemon runs before what is not real-time; without one, whether this host would grant it."""
    granted = scheduling.PRIORITY
    remedy = (
        f"systemctl edit wackamole\n# and write:\n[Service]\nLimitRTPRIO={granted}\n"
        "# then: wackamole restart. In a container: --ulimit rtprio=10, or --cap-add=SYS_NICE"
    )
    if host.status is not None:
        how = host.status["process"]["scheduling"]
        if how != "rr":
            return problem("the daemon is not scheduled in real time: a busy host renews its lease late", remedy)
        return ok(f"the daemon is scheduled in real time (SCHED_RR, {granted})")
    found: list[str] = []

    def attempt() -> None:
        scheduling.before_others()
        found.append(scheduling.current())

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if found != ["rr"]:
        if os.geteuid():
            raise NotChecked("no daemon runs, and this is not root")
        return problem("this host does not grant real-time scheduling: a busy host renews its lease late", remedy)
    return ok("this host grants real-time scheduling")


def kernel(host: Host) -> Finding:
    """The version of Linux, and whether it can fence: tried in a network namespace of its own."""
    release = os.uname().release
    wrong = kernel_too_old(release)
    if wrong is not None:
        return wrong
    running = host.status["fence"] if host.status is not None else {}
    if running.get("mode") == "nftables":
        if not running["proven"]:
            return problem(
                "the fence is not proven: an interface cannot be fenced, or this kernel closes a dying process's"
                " descriptors in the wrong order; others wait for the lease when the daemon dies",
                "wackamole events --local  # fence_broken says which",
            )
        return ok(f"Linux {release}; its fence is up on {', '.join(running['interfaces'])}")
    fence = host.configured().fence
    if fence.mode == "off":
        return problem(
            "the config asks for no fence: a frozen host's VIPs stay up beside their new owner's",
            '# under [fence]:\nmode = "nftables"',
        )
    if fence.mode == "lifetime":
        return ok(f"Linux {release}; addresses end by themselves after {fence.lifetime_s} s, as the config asks")
    refused = _fence_refused()
    if refused is not None:
        return problem(
            refused, 'modprobe nf_tables && modprobe nft_fib_inet  # if that fails, under [fence]:\n# mode = "lifetime"'
        )
    return ok(f"Linux {release} can fence by nftables")


def kernel_too_old(release: str) -> Finding | None:
    """A problem if a release such as `5.10.0-30-amd64` is below LINUX_MIN."""
    if _version(release) >= LINUX_MIN:
        return None
    least = ".".join(map(str, LINUX_MIN))
    return problem(f"Linux {release} is older than {least}", f"# a kernel of at least {least}; in Debian 12 it is 6.1")


def corosync(host: Host) -> Finding:
    """Corosync and its libraries are there, in a version that can be used."""
    engine = host.configured().engine
    if engine.type != "corosync":
        raise NotChecked("the engine is Spread")
    missing = [name for name in ("libcpg.so.4", "libcmap.so.4") if not _loads(name)]
    if missing:
        return problem(f"{' and '.join(missing)} cannot be loaded", "apt install libcpg4 libcmap4")
    if not engine.managed:
        return ok("the libraries libcpg and libcmap are there; Corosync itself is not ours")
    try:
        said = tool("corosync", "-v")
    except NotChecked as no:
        return problem(str(no), "apt install corosync && systemctl disable --now corosync")
    return corosync_too_old(said) or ok(said.splitlines()[0])


def corosync_too_old(said: str) -> Finding | None:
    """A problem if `corosync -v` says a version below COROSYNC_MIN."""
    found = re.search(r"version '([^']+)'", said)
    if found is None:
        return note(f"`corosync -v` says no version: {said.strip()[:60]!r}")
    if _version(found[1]) >= COROSYNC_MIN:
        return None
    return problem(
        f"Corosync {found[1]} is older than {'.'.join(map(str, COROSYNC_MIN))}",
        lines("# a release with Corosync 3: Debian 10, Ubuntu 20.04, Fedora 30, or later"),
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text)[:2])


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _fence_refused() -> str | None:
    """Put a fence up in a network namespace that ends with this call; why the kernel refused, or None."""
    result: list[str | Exception | None] = []

    def attempt() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            code = ctypes.get_errno()
            why = "that needs root" if code == errno.EPERM else os.strerror(code)
            result.append(NotChecked(f"no network namespace could be made to try the fence in: {why}"))
            return
        try:
            fence = Fence(LEASE_MS_TRIED)
            fence.install((Guarded(LOOPBACK, "lo", frozenset((bytes(4), bytes(16)))),))
        except (FenceRefused, OSError) as no:
            result.append(str(no))
            return
        missing = fence.why_not(LOOPBACK)
        result.append(f"this kernel cannot fence an interface by nftables: {missing}" if missing else None)
        fence.close()

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    found = result[0]
    if isinstance(found, Exception):
        raise found
    return found
