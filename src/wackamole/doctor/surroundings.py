"""What else configures this host: network managers, its own name, its clock."""

from __future__ import annotations

import configparser
import ctypes
import errno
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..client import NotReachable, Refused, converse
from ..shell.kernel.rtnl import Link
from .finding import Finding, NotChecked, few, lines, note, ok, problem
from .host import Host

NETWORKD_LINKS = Path("/run/systemd/netif/links")
"""What systemd-networkd says of each interface, by its number."""
NETWORKD_SETTINGS = ("/etc/systemd/networkd.conf", "/etc/systemd/networkd.conf.d/*.conf")
NETWORK_MANAGER_DEVICES = Path("/run/NetworkManager/devices")
KEPT = ("yes", "true", "on", "1", "static")
"""Values of KeepConfiguration= with which networkd leaves addresses alone that it did not make (systemd.network(5))."""
JUMP_MS_MAX = 50
CLOCK_SECONDS = 1.0
STA_UNSYNC = 0x0040
"""linux/timex.h"""
PAUSED_SECONDS = 86_400.0


def networkd(host: Host) -> Finding:
    """systemd-networkd leaves the VIPs alone: when it starts or is reloaded it removes what it did not configure."""
    if not NETWORKD_LINKS.is_dir() or not any(NETWORKD_LINKS.iterdir()):
        raise NotChecked("systemd-networkd does not run here")
    removed: dict[str, str] = {}
    for link in _links(host):
        facts = _assignments(NETWORKD_LINKS / str(link.index))
        if facts.get("ADMIN_STATE", "unmanaged") == "unmanaged":
            continue
        file = facts.get("NETWORK_FILE", "")
        dropins = [Path(p) for p in facts.get("NETWORK_FILE_DROPINS", "").replace('"', "").split()]
        dropins += sorted(Path("/etc/systemd/network").glob(f"{Path(file).name}.d/*.conf"))
        if _last([Path(file), *dropins], "Network", "KeepConfiguration").lower() not in KEPT:
            removed[link.name] = Path(file).name
    if removed:
        remedies = []
        for name in removed.values():
            folder = f"/etc/systemd/network/{name}.d"
            remedies += [
                f"mkdir -p {folder}",
                f"printf '[Network]\\nKeepConfiguration=static\\n' > {folder}/wackamole.conf",
            ]
        return problem(
            f"systemd-networkd manages {few(sorted(removed))}, and removes the VIPs whenever it is restarted",
            lines(*remedies, "networkctl reload"),
        )
    if any(v.routing for v in host.configured().vips):
        files = [x for pattern in NETWORKD_SETTINGS for x in sorted(Path("/").glob(pattern[1:]))]
        keys = [
            key
            for key in ("ManageForeignRoutes", "ManageForeignRoutingPolicyRules")
            if _last(files, "Network", key).lower() not in ("no", "false", "off", "0")
        ]
        settings = [rf"{key}=no\n" for key in keys]
        if settings:
            return problem(
                "systemd-networkd removes routes and rules that it did not make, and VIPs have some",
                "mkdir -p /etc/systemd/networkd.conf.d\n"
                f"printf '[Network]\\n{''.join(settings)}' > /etc/systemd/networkd.conf.d/wackamole.conf\n"
                "systemctl restart systemd-networkd",
            )
    return ok("systemd-networkd leaves the VIPs' interfaces alone, or keeps what is configured there")


def network_manager(host: Host) -> Finding:
    """NetworkManager leaves the VIPs alone: it removes them when it activates or reapplies a connection."""
    if not NETWORK_MANAGER_DEVICES.is_dir():
        raise NotChecked("NetworkManager does not run here")
    files = {link.name: NETWORK_MANAGER_DEVICES / str(link.index) for link in _links(host)}
    managed = sorted(
        name for name, file in files.items() if _last([file], "device", "managed").lower() in ("true", "1", "yes")
    )
    if managed:
        listed = ";".join(f"interface-name:{name}" for name in managed)
        return problem(
            f"NetworkManager manages {few(managed)}, and removes the VIPs when a connection there is activated or reapplied",
            "# if something else configures the host's own addresses there:\n"
            f"printf '[keyfile]\\nunmanaged-devices={listed}\\n' > /etc/NetworkManager/conf.d/90-wackamole.conf\n"
            "systemctl reload NetworkManager\n"
            "# else never `nmcli connection up` or `nmcli device reapply` on a node that is not drained",
        )
    return ok("NetworkManager leaves the VIPs' interfaces alone")


def hostname(host: Host) -> Finding:
    """This host's name means an address that others reach."""
    name = socket.gethostname()
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    except socket.gaierror as no:
        return note(f"the host's own name {name!r} is not known: {no.strerror}", f"echo 'ADDRESS {name}' >> /etc/hosts")
    loopback = sorted(ip for ip in found if ip.startswith("127.") or ip == "::1")
    if not loopback:
        return ok(f"{name!r} means {few(sorted(found))}")
    own = host.node.addresses[0] if host.node is not None else "ADDRESS"
    said = f"{name!r} means {few(loopback)}, the loopback: who is told to use that name binds where nobody reaches it"
    remedy = lines(
        r"sed -i '/^127\.0\.1\.1[[:space:]]/d' /etc/hosts"
        if "127.0.1.1" in loopback
        else f"# take {name} out of the line of {loopback[0]} in /etc/hosts, and then:",
        f"echo '{own} {name}' >> /etc/hosts",
    )
    config = host.config
    if config is not None and (config.engine.type == "spread" or not config.engine.managed):
        return problem(said, remedy)
    return note(f"{said} (this cluster's own Corosync is given addresses)", remedy)


def _links(host: Host) -> list[Link]:
    """The interfaces with VIPs."""
    found = [host.around.links[i] for i in host.places()]
    if not found:
        raise NotChecked("no VIP belongs on an interface of this host")
    return found


def _assignments(file: Path) -> dict[str, str]:
    """The lines KEY=value of a file; {} if it is not there."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def _last(files: Iterable[Path], section: str, key: str) -> str:
    """The value that counts of several files of which a later one wins; "" if none has it."""
    value = ""
    for file in files:
        reader = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), allow_no_value=True)
        try:
            reader.read_string(file.read_text(errors="replace"))
        except (OSError, configparser.Error):
            continue
        value = reader.get(section, key, fallback=value) or value
    return value.strip()


# -- clocks ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clock:
    """What was seen of the clocks. `jumped_ms`: how far the wall clock moved against the monotonic one; `pauses`: how often
    the daemon did not run for longer than its lease within the last day."""

    jumped_ms: float
    synchronised: bool
    pauses: int


def clock(host: Host) -> Finding:
    """The clocks run evenly. Takes CLOCK_SECONDS."""
    began = time.time() - time.monotonic()
    time.sleep(CLOCK_SECONDS)
    jumped_ms = (time.time() - time.monotonic() - began) * 1000
    return judge_clock(Clock(jumped_ms, _synchronised(), _pauses(host)))


def judge_clock(seen: Clock) -> Finding:
    """What that means."""
    if seen.pauses:
        return problem(
            f"this host stood still {seen.pauses} times within a day for longer than its lease, so that its VIPs went dark:"
            " a virtual machine that is suspended or moved, or a host that is overcommitted",
            "wackamole events --local --json | grep paused\n"
            '# if it cannot be avoided, let everybody be more patient, under [engine]:\ndetection = "2s"',
        )
    if abs(seen.jumped_ms) > JUMP_MS_MAX:
        return problem(
            f"the wall clock jumped by {seen.jumped_ms:.0f} ms within {CLOCK_SECONDS:.0f} s: the times in `events` and of"
            " `audit` are wrong (fail-over does not depend on them)",
            "# one that slews, and only one:\napt install chrony && systemctl disable --now ntp systemd-timesyncd",
        )
    if not seen.synchronised:
        return note(
            "the wall clock is not synchronised: the times in `events` cannot be compared with other nodes'",
            "apt install chrony",
        )
    return ok("the wall clock is synchronised and did not jump")


def _synchronised() -> bool:
    """Whether the kernel's clock is told the time by somebody (adjtimex(2))."""
    timex = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; `status` is the fifth field, after 3 longs
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) == -1:
        raise NotChecked(f"the kernel's clock cannot be read: {os.strerror(ctypes.get_errno() or errno.EPERM)}")
    words = ctypes.sizeof(ctypes.c_long)
    status = ctypes.c_int.from_buffer(timex, 5 * words)
    return not status.value & STA_UNSYNC


def _pauses(host: Host) -> int:
    """How often the daemon says that it was paused; 0 without one."""
    if host.status is None or host.config is None:
        return 0
    since = time.time() - PAUSED_SECONDS
    count = 0
    try:
        for kind, said in converse(host.socket, "events", {"cluster": False, "follow": False}):
            count += kind == "progress" and said.get("event") == "paused" and float(said["time"]) > since
    except (NotReachable, Refused):
        return 0
    return count
