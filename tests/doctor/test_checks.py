"""Each check, on a real network: where it finds the problem, and where there is none."""

from __future__ import annotations

import contextlib
import ctypes
import json
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wackamole.doctor import software
from wackamole.doctor.finding import Result
from wackamole.doctor.firewall import Fate, Packet, Ruleset
from wackamole.doctor.ring import suggested_ms
from wackamole.doctor.surroundings import Clock, judge_clock
from wackamole.keys import write_new
from wackamole.lab.namespaces import ip, opened_in, tool
from wackamole.shell.kernel.announce import checksum

from .segment import HOST, NODE, STRANGER, V4, V6, Segment, mac, segment

__all__ = ["segment"]

pytestmark = pytest.mark.lab

OK, NOTE, PROBLEM, NOT_CHECKED = Result.OK, Result.NOTE, Result.PROBLEM, Result.NOT_CHECKED


# -- the config, and what the daemon runs on ------------------------------------------------------------------------------


def test_configuration(segment: Segment) -> None:
    assert segment.check("configuration").result is OK
    found = segment.check("configuration", node="nobody")
    assert found.result is PROBLEM
    assert "there is no node 'nobody'" in found.found
    segment.config.write_text(segment.config.read_text().replace(V4, "10.9.0.300").replace('"b"', '"b b"'))
    found = segment.check("configuration")
    assert found.result is PROBLEM
    assert "10.9.0.300" in found.found
    assert "b b" in found.found
    needy = segment.check("vip_interface")
    assert (needy.result, needy.found) == (NOT_CHECKED, "the configuration cannot be used")


def test_key(segment: Segment) -> None:
    assert segment.check("key").result is PROBLEM
    file = segment.folder / "ring.key"
    segment.configure(cluster=f'key_file = "{file}"')
    found = segment.check("key")
    assert found.result is PROBLEM
    assert "No such file" in found.found
    write_new(file)
    assert segment.check("key").result is OK
    file.chmod(0o644)
    found = segment.check("key")
    assert found.result is PROBLEM
    assert f"chmod 600 {file}" in found.remedy


def test_without_a_daemon_the_group_is_not_judged(segment: Segment) -> None:
    found = segment.check("cluster")
    assert found.result is NOT_CHECKED
    assert "no daemon answers" in found.found


def test_capabilities(segment: Segment) -> None:
    assert segment.check("capabilities").result is OK
    found = segment.found("capabilities", before=("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"))
    assert found["result"] == "problem"
    assert "CAP_NET_RAW" in found["found"]
    assert "CAP_NET_ADMIN" not in found["found"]
    assert "CapabilityBoundingSet" in found["remedy"]


def test_real_time(segment: Segment) -> None:
    refused = ("setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", "prlimit", "--rtprio=0")
    found = segment.found("real_time", before=refused)
    assert found["result"] == "problem"
    assert "LimitRTPRIO" in found["remedy"]
    done = subprocess.run(["chrt", "--rr", "10", "true"], capture_output=True, check=False)
    expected = OK if done.returncode == 0 else PROBLEM  # what this machine grants, asked by another program
    assert segment.check("real_time").result is expected


def test_kernel(segment: Segment) -> None:
    found = segment.check("kernel")
    assert found.result is OK
    assert "can fence" in found.found
    assert tool("ip", "netns", "exec", HOST, "nft", "list", "tables") == ""
    segment.configure(fence='mode = "lifetime"')
    assert segment.check("kernel").result is OK
    segment.configure(fence='mode = "off"')
    assert segment.check("kernel").result is PROBLEM
    segment.configure()
    rightless = segment.found("kernel", before=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"))
    assert rightless["result"] == "not checked"


@pytest.mark.parametrize(
    ("release", "fine"), [("5.10.0-30-amd64", False), ("5.18.0", True), ("6.1.0-28-amd64", True), ("4.19", False)]
)
def test_the_version_of_linux(release: str, fine: bool) -> None:
    found = software.kernel_too_old(release)
    assert (found is None) == fine
    assert found is None or found.result is PROBLEM


def test_corosync(segment: Segment, tmp_path: Path) -> None:
    assert segment.check("corosync").result is OK
    nothing = tmp_path / "bin"
    nothing.mkdir()
    for program in ("env",):
        (nothing / program).symlink_to(f"/usr/bin/{program}")
    found = segment.found("corosync", before=("env", f"PATH={nothing}"))
    assert found["result"] == "problem"
    assert "apt install corosync" in found["remedy"]
    segment.configure(engine='type = "spread"')
    assert segment.check("corosync").result is NOT_CHECKED


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ("Corosync Cluster Engine, version '3.1.7'\nCopyright", None),
        ("Corosync Cluster Engine, version '2.4.5'", PROBLEM),
        ("what?", NOTE),
    ],
)
def test_the_version_of_corosync(said: str, result: Result | None) -> None:
    found = software.corosync_too_old(said)
    assert (found.result if found else None) is result


# -- what else configures the host ----------------------------------------------------------------------------------------


def index(interface: str = "eth0") -> int:
    return opened_in(HOST, lambda: socket.if_nametoindex(interface))


def test_networkd(segment: Segment) -> None:
    assert segment.found("networkd")["result"] == "not checked"
    links = segment.folder / "run/systemd/netif/links"
    links.mkdir(parents=True)
    network = segment.folder / "10-eth0.network"
    network.write_text("[Match]\nName=eth0\n[Network]\nAddress=10.9.0.1/24\nAddress=10.9.0.3/24\n")
    state = links / str(index())
    state.write_text(f"# This is private data. Do not parse.\nADMIN_STATE=configured\nNETWORK_FILE={network}\n")
    found = segment.found("networkd")
    assert found["result"] == "problem"
    assert "eth0" in found["found"]
    assert "> /etc/systemd/network/10-eth0.network.d/wackamole.conf" in found["remedy"]
    network.write_text(network.read_text() + "KeepConfiguration=static\n")
    assert segment.found("networkd")["result"] == "ok"
    dropin = segment.folder / "late.conf"
    dropin.write_text("[Network]\nKeepConfiguration=no\n")
    state.write_text(f'{state.read_text()}NETWORK_FILE_DROPINS="{dropin}"\n')
    assert segment.found("networkd")["result"] == "problem"
    state.write_text("ADMIN_STATE=unmanaged\n")
    assert segment.found("networkd")["result"] == "ok"
    routes = 'address = "10.9.0.100"\nroutes = ["default via 10.9.0.254"]'
    segment.configure(routes)
    found = segment.found("networkd")
    assert found["result"] == "problem"
    assert "ManageForeignRoutes=no\\nManageForeignRoutingPolicyRules=no" in found["remedy"]


def test_network_manager(segment: Segment) -> None:
    assert segment.found("network_manager")["result"] == "not checked"
    devices = segment.folder / "run/NetworkManager/devices"
    devices.mkdir(parents=True)
    device = devices / str(index())
    device.write_text("[device]\nmanaged=true\nconnection-uuid=6cf0a7a4\n")
    found = segment.found("network_manager")
    assert found["result"] == "problem"
    assert "interface-name:eth0" in found["remedy"]
    device.write_text("[device]\nmanaged=false\n")
    assert segment.found("network_manager")["result"] == "ok"


def test_hostname(segment: Segment) -> None:
    hosts = segment.folder / "hosts"
    script = 'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'
    before = ("unshare", "--uts", "--mount", "sh", "-c", script, "sh", "web-a", str(hosts))
    hosts.write_text("127.0.0.1 localhost\n127.0.1.1 web-a\n")
    assert segment.found("hostname", before=before)["result"] == "note"
    segment.configure(engine="managed = false")
    found = segment.found("hostname", before=before)
    assert found["result"] == "problem"
    assert "127.0.1.1" in found["found"]
    tool("sh", "-c", found["remedy"].replace("/etc/hosts", str(hosts)))
    assert hosts.read_text() == "127.0.0.1 localhost\n10.9.0.1 web-a\n"
    assert segment.found("hostname", before=before)["result"] == "ok"


@pytest.mark.parametrize(
    ("clock", "result"),
    [
        (Clock(0.4, synchronised=True, pauses=0), OK),
        (Clock(0.4, synchronised=False, pauses=0), NOTE),
        (Clock(-1200.0, synchronised=True, pauses=0), PROBLEM),
        (Clock(0.4, synchronised=True, pauses=2), PROBLEM),
    ],
)
def test_clocks(clock: Clock, result: Result) -> None:
    assert judge_clock(clock).result is result


def test_the_clock_of_this_machine(segment: Segment) -> None:
    found = segment.check("clock")
    assert found.result in (OK, NOTE)
    status = ctypes.CDLL(None).adjtimex(
        ctypes.create_string_buffer(512)
    )  # 5, TIME_ERROR, is what others call unsynchronised
    assert (found.result is NOTE) == (status == 5)


# -- the VIPs -------------------------------------------------------------------------------------------------------------


def test_vip_interface(segment: Segment) -> None:
    assert segment.check("vip_interface").result is OK
    segment.configure(V4, "192.0.2.7")
    found = segment.check("vip_interface")
    assert found.result is PROBLEM
    assert "192.0.2.7/32" in found.found
    assert V4 not in found.found
    segment.configure('address = "10.9.0.100"\ninterface = "public"')
    found = segment.check("vip_interface")
    assert found.result is PROBLEM
    assert 'interfaces = { public = "NAME HERE" }' in found.remedy
    segment.configure('address = "192.0.2.7"\ninterface = "eth0"')
    assert segment.check("vip_interface").result is NOTE
    segment.configure()
    ip("link set eth0 down", namespace=HOST)
    found = segment.check("vip_interface")
    assert found.result is PROBLEM
    assert "ip link set eth0 up" in found.remedy


def test_vip_configured(segment: Segment) -> None:
    assert segment.check("vip_configured").result is OK
    ip(f"addr add {V4}/24 dev eth0", namespace=HOST)
    found = segment.check("vip_configured")
    assert found.result is PROBLEM
    assert f"ip address delete {V4}/24 dev eth0" in found.remedy
    for command in (line for line in found.remedy.splitlines() if line.startswith("ip ")):
        tool("ip", "-n", HOST, *command.split()[1:])
    assert segment.check("vip_configured").result is OK


def test_vip_count(segment: Segment) -> None:
    assert segment.check("vip_count").result is OK
    segment.configure(*(f"fd09::1:{i:x}" for i in range(1, 302)))
    found = segment.check("vip_count")
    assert found.result is NOTE
    assert "301 IPv6 addresses on eth0" in found.found


def served(host: str, *addresses: str) -> None:
    ip(*(f"addr add {a} dev eth0 {'nodad' if ':' in a else ''}" for a in addresses), namespace=host)


def test_vip_answered_by_nobody_or_by_a_node(segment: Segment) -> None:
    found = segment.check("vip_answered")
    assert found.result is OK
    assert found.found.startswith("0 of 2")
    served(NODE, V4)
    found = segment.check("vip_answered")
    assert found.result is OK
    assert found.found.startswith("1 of 2")
    neighbours = json.loads(tool("ip", "-n", NODE, "-j", "neigh"))
    assert [n for n in neighbours if n["dst"] == "10.9.0.1"] == []  # who is asked by a probe learns nothing from it


@pytest.mark.parametrize("address", [V4, V6])
def test_vip_answered_by_a_stranger(segment: Segment, address: str) -> None:
    served(STRANGER, address)
    found = segment.check("vip_answered")
    assert found.result is PROBLEM
    assert f"{address} by {mac(STRANGER)}" in found.found


@pytest.mark.parametrize("address", [V4, V6])
def test_vip_answered_by_two(segment: Segment, address: str) -> None:
    served(STRANGER, address)
    served(NODE, address)
    found = segment.check("vip_answered")
    assert found.result is PROBLEM
    assert mac(STRANGER) in found.found
    assert mac(NODE) in found.found


def test_vip_answered_by_somebody_who_may_be_a_node_that_is_not_known_there(segment: Segment) -> None:
    served(STRANGER, V4)
    ip("addr del 10.9.0.2/24 dev eth0", namespace=NODE)
    assert segment.check("vip_answered").result is NOTE


def test_where_nobody_can_be_asked_that_is_said(segment: Segment) -> None:
    ip("link set eth0 down", namespace=HOST)
    assert segment.check("vip_answered").result is NOT_CHECKED


# -- kernel parameters ----------------------------------------------------------------------------------------------------


def remedied(segment: Segment, check: str) -> None:
    """Do what is said, and look again."""
    found = segment.check(check)
    assert found.result in (PROBLEM, NOTE)
    commands = [line.split() for line in found.remedy.splitlines() if line.startswith("sysctl -w ")]
    assert commands
    for _, _, setting in commands:
        tool("ip", "netns", "exec", HOST, "sysctl", "-w", setting)
    assert segment.check(check).result is OK


def test_promote_secondaries(segment: Segment) -> None:
    segment.sysctl("ipv4.conf.all.promote_secondaries", 0)
    segment.sysctl("ipv4.conf.eth0.promote_secondaries", 0)
    assert segment.check("promote_secondaries").result is OK  # a VIP of /32 is never secondary
    segment.configure(f"{V4}/24")
    assert segment.check("promote_secondaries").result is PROBLEM
    remedied(segment, "promote_secondaries")


def test_arp_ignore(segment: Segment) -> None:
    assert segment.check("arp_ignore").result is OK
    segment.second_interface("10.8.0.1/24")
    assert segment.check("arp_ignore").result is NOTE
    ip("addr add 10.9.0.51/24 dev eth1", namespace=HOST)
    found = segment.check("arp_ignore")
    assert found.result is PROBLEM
    assert "eth0, eth1" in found.found
    remedied(segment, "arp_ignore")
    segment.sysctl("ipv4.conf.eth0.arp_ignore", 8)
    found = segment.check("arp_ignore")
    assert found.result is PROBLEM
    assert "answers nobody" in found.found
    remedied(segment, "arp_ignore")


def test_arp_announce(segment: Segment) -> None:
    assert segment.check("arp_announce").result is OK
    segment.second_interface()
    assert segment.check("arp_announce").result is PROBLEM
    remedied(segment, "arp_announce")


def test_rp_filter(segment: Segment) -> None:
    segment.sysctl("ipv4.conf.all.rp_filter", 0)
    segment.sysctl("ipv4.conf.eth0.rp_filter", 1)
    assert segment.check("rp_filter").result is OK
    segment.second_interface("10.8.0.1/24")
    ip("route add default via 10.8.0.254", namespace=HOST)
    found = segment.check("rp_filter")
    assert found.result is NOTE
    assert "eth1" in found.found
    ip("addr add 10.9.0.51/24 dev eth1", namespace=HOST)
    assert segment.check("rp_filter").result is PROBLEM
    remedied(segment, "rp_filter")


@pytest.mark.parametrize(
    ("address", "kind"), [(V4, socket.SOCK_STREAM), (V6, socket.SOCK_STREAM), (V4, socket.SOCK_DGRAM)]
)
def test_ip_nonlocal_bind(segment: Segment, address: str, kind: socket.SocketKind) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    version = "ipv6" if ":" in address else "ipv4"
    segment.sysctl(f"{version}.ip_nonlocal_bind", 0)
    assert segment.check("ip_nonlocal_bind").result is OK
    served(HOST, address)
    with opened_in(HOST, lambda: socket.socket(family, kind)) as service:
        service.bind((address, 8080))
        if kind == socket.SOCK_STREAM:
            service.listen()
        found = segment.check("ip_nonlocal_bind")
        assert found.result is PROBLEM
        assert f"{address}" in found.found
        assert ":8080" in found.found
        remedied(segment, "ip_nonlocal_bind")


# -- the ring -------------------------------------------------------------------------------------------------------------


def test_ring_address(segment: Segment) -> None:
    assert segment.check("ring_address").result is OK
    ip("addr del 10.9.0.1/24 dev eth0", namespace=HOST)
    found = segment.check("ring_address")
    assert found.result is PROBLEM
    assert "10.9.0.1" in found.found


def test_ring_port(segment: Segment) -> None:
    assert segment.check("ring_port").result is OK
    with opened_in(HOST, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("0.0.0.0", 5405))
        found = segment.check("ring_port")
        assert found.result is PROBLEM
        assert "5405" in found.found
    with opened_in(HOST, lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as cpg:
        cpg.bind(b"\0cpg".ljust(108, b"\0"))
        cpg.listen()
        found = segment.check("ring_port")
        assert found.result is PROBLEM
        assert "systemctl disable --now corosync" in found.remedy
    segment.configure(engine="managed = false")
    assert segment.check("ring_port").result is NOT_CHECKED


CHAIN = "table inet filter {{ chain input {{ type filter hook input priority 0; policy {policy}; {rules} }} {more} }}"
RULES = [
    ("accept", "", "", OK),
    ("accept", "udp dport 5405 drop", "", PROBLEM),
    ("accept", "udp dport 5000-5404 drop; udp dport { 53, 6000-7000 } reject", "", OK),
    ("accept", "ip saddr 10.9.0.2 meta l4proto udp reject", "", PROBLEM),
    ("accept", "ip saddr 10.9.0.99 drop; iifname eth7 drop; tcp dport 5405 drop", "", OK),
    ("drop", "", "", PROBLEM),
    ("drop", "ip saddr @nodes udp dport 5405 accept", "set nodes { type ipv4_addr; elements = { 10.9.0.2 } }", OK),
    ("drop", "ip saddr @nodes accept", "set nodes { type ipv4_addr; elements = { 10.9.0.9 } }", PROBLEM),
    ("drop", "ct state vmap { established : accept, invalid : drop, new : jump known }",
     "chain known { iifname eth0 udp dport 5405 accept; }", OK),
    ("drop", "jump known", "chain known { ip saddr 10.8.0.0/16 return; udp dport 5404-5410 counter accept; }", OK),
    ("drop", "ct state established,related accept", "", NOTE),
    ("accept", "limit rate over 10/second drop", "", NOTE),
    ("drop", "meta mark 7 accept", "", NOTE),
    ("accept", "meta mark 7 udp dport 53 drop", "", OK),
    ("drop", "meta mark 7 return; udp dport 5405 accept", "", NOTE),
    ("accept", "udp dport vmap { 5405 : goto no }", "chain no { drop; }", PROBLEM),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "rules", "more", "result"), RULES)
def test_firewall(segment: Segment, policy: str, rules: str, more: str, result: Result) -> None:
    text = CHAIN.format(policy=policy, rules=f"{rules};" if rules else "", more="")
    tables = f"table inet filter {{ {more} }}\n{text}" if more else text
    tool("ip", "netns", "exec", HOST, "nft", "-f", "-", text=tables.replace(" }", "\n}"))
    assert segment.check("firewall").result is result
    if result is PROBLEM or (policy, rules) == ("drop", "ct state established,related accept"):
        command = segment.check("firewall").remedy.splitlines()[0]
        assert command.startswith("nft insert rule inet filter ")
        tool("ip", "netns", "exec", HOST, *command.replace("'", "").split())


def iptables(*rules: list[dict[str, Any]]) -> Ruleset:
    """The filter of iptables 1.8.9 (nf_tables) with policy DROP, as nft 1.0.6 lists it."""
    chain = {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "prio": 0}
    listed: list[dict[str, Any]] = [{"metainfo": {"version": "1.0.6"}}, {"chain": {**chain, "policy": "drop"}}]
    for handle, expressions in enumerate(rules, 2):
        place = {"family": "ip", "table": "filter", "chain": "INPUT", "handle": handle}
        listed.append({"rule": {**place, "expr": expressions}})
    return Ruleset({"nftables": listed})


COUNTER: dict[str, Any] = {"counter": {"packets": 0, "bytes": 0}}
ACCEPT: dict[str, Any] = {"accept": None}
CONNTRACK, MULTIPORT, COMMENT = ({"xt": {"type": "match", "name": n}} for n in ("conntrack", "multiport", "comment"))
REJECT = {"xt": {"type": "target", "name": "REJECT"}}
PORTS = {
    "match": {
        "op": "==",
        "left": {"payload": {"protocol": "udp", "field": "dport"}},
        "right": {"range": [5404, 5412]},
    }
}


@pytest.mark.parametrize(
    ("rules", "fate"),
    [
        ([[CONNTRACK, COUNTER, ACCEPT], [PORTS, COUNTER, ACCEPT], [COUNTER, REJECT]], Fate.PASSES),
        ([[CONNTRACK, COUNTER, ACCEPT], [PORTS, COMMENT, COUNTER, ACCEPT]], Fate.PASSES),
        ([[COUNTER, REJECT], [PORTS, COUNTER, ACCEPT]], Fate.DROPPED),
        ([[MULTIPORT, COUNTER, ACCEPT], [COUNTER, REJECT]], Fate.UNCERTAIN),
        ([[MULTIPORT, COUNTER, REJECT], [PORTS, COUNTER, ACCEPT]], Fate.UNCERTAIN),
        ([[MULTIPORT, COUNTER, REJECT]], Fate.DROPPED),
    ],
)
def test_what_iptables_has_made_is_read_as_far_as_nft_tells_it(rules: list[list[dict[str, Any]]], fate: Fate) -> None:
    assert iptables(*rules).judge(Packet("10.9.0.2", "10.9.0.1", 5405, "eth0"), "input").fate is fate


@pytest.mark.parametrize("way", ["input", "output"])
def test_the_firewall_is_judged_as_the_kernel_does_it(segment: Segment, way: str) -> None:
    """Of the same rules the kernel and the doctor think alike, before the remedy and after it."""
    rules = f"table inet f {{ chain c {{ type filter hook {way} priority 5; policy drop; iif lo accept; }} }}"
    tool("ip", "netns", "exec", HOST, "nft", "-f", "-", text=rules.replace(" }", "\n}"))
    ip(f"neigh add 10.9.0.1 lladdr {mac(HOST)} dev eth0", namespace=NODE)
    ip(f"neigh add 10.9.0.2 lladdr {mac(NODE)} dev eth0", namespace=HOST)
    found = segment.check("firewall")
    assert found.result is PROBLEM
    assert "inet f c: policy drop" in found.found
    with udp(HOST, "10.9.0.1") as here, udp(NODE, "10.9.0.2") as there:
        sender, receiver, to = (there, here, "10.9.0.1") if way == "input" else (here, there, "10.9.0.2")
        with contextlib.suppress(PermissionError):  # what a chain of `output` drops is an error to who sends it
            sender.sendto(b"before", (to, 5405))
        command = found.remedy.splitlines()[0].replace("'", "").split()
        tool("ip", "netns", "exec", HOST, *command)
        sender.sendto(b"after", (to, 5405))
        receiver.settimeout(20)
        assert receiver.recv(64) == b"after"
    tool("ip", "netns", "exec", HOST, "nft", "flush", "ruleset")
    assert segment.check("firewall").result is OK


def udp(host: str, address: str) -> socket.socket:
    s = opened_in(host, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    s.bind((address, 5405))
    return s


@contextlib.contextmanager
def sending(host: str, source: str, port: int = 5405) -> Iterator[None]:
    """Somebody sends to HOST all the time."""
    over = threading.Event()
    with opened_in(host, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as s:
        s.bind((source, 0))

        def work() -> None:
            while not over.wait(0.02):
                s.sendto(b"token", ("10.9.0.1", port))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def test_other_clusters(segment: Segment) -> None:
    with sending(NODE, "10.9.0.2"), sending(STRANGER, "10.9.0.99", 5406):
        assert segment.check("other_clusters").result is OK
        with sending(STRANGER, "10.9.0.99"):
            found = segment.check("other_clusters")
    assert found.result is PROBLEM
    assert found.found.startswith("10.9.0.99 sends")


def test_mtu(segment: Segment) -> None:
    found = segment.check("mtu")
    assert found.result is OK
    assert "1500" in found.found
    ip("link set eth0 mtu 9000", namespace=HOST)
    found = segment.check("mtu")
    assert found.result is PROBLEM
    assert "packets of 9000 bytes do not reach 10.9.0.2 (b)" in found.found
    assert "ip link set eth0 mtu 1500" in found.remedy
    ip("link set eth0 down", namespace=NODE)
    assert segment.check("mtu").result is NOT_CHECKED


def test_detection(segment: Segment) -> None:
    segment.configure(engine='detection = "60s"')
    found = segment.check("detection")
    assert found.result is OK
    assert "by ICMP echo" in found.found
    with slow_echo(NODE, 0.6):
        segment.configure(engine='detection = "300ms"')
        found = segment.check("detection")
    assert found.result is PROBLEM
    suggested = int(found.remedy.partition('detection = "')[2].partition("ms")[0])
    assert suggested >= suggested_ms(2, 600, 0) == 1500
    ip("link set eth0 down", namespace=NODE)
    assert segment.check("detection").result is NOT_CHECKED


@contextlib.contextmanager
def slow_echo(host: str, seconds: float) -> Iterator[None]:
    """A host that answers each ICMP echo so much later."""
    opened_in(host, lambda: Path("/proc/sys/net/ipv4/icmp_echo_ignore_all").write_text("1"))
    wake, sleeper = socket.socketpair()
    with opened_in(host, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as s:
        due: list[tuple[float, bytes, str]] = []

        def work() -> None:
            watch = selectors.DefaultSelector()
            watch.register(s, selectors.EVENT_READ)
            watch.register(sleeper, selectors.EVENT_READ)
            while True:
                wait = max(0.0, due[0][0] - time.monotonic()) if due else None
                for key, _ in watch.select(wait):
                    if key.fileobj is sleeper:
                        watch.close()
                        return
                    content, source = s.recvfrom(65535)
                    if content[20] == 8:
                        reply = b"\0\0\0\0" + content[24:]
                        reply = reply[:2] + checksum(reply + bytes(len(reply) % 2)) + reply[4:]
                        due.append((time.monotonic() + seconds, reply, source[0]))
                while due and due[0][0] <= time.monotonic():
                    _, reply, to = due.pop(0)
                    s.sendto(reply, (to, 0))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            wake.send(b"x")
            thread.join()
            wake.close()
            sleeper.close()


@pytest.mark.parametrize(
    ("nodes", "round_trip_ms", "stall_ms", "wanted"),
    [(3, 0.3, 2, 150), (3, 40, 10, 200), (3, 80, 20, 350), (2, 1, 200, 550)],
)
def test_the_detection_that_is_suggested(nodes: int, round_trip_ms: float, stall_ms: float, wanted: int) -> None:
    assert suggested_ms(nodes, round_trip_ms, stall_ms) == wanted
