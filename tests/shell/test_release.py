"""`wackamole release` in a real network namespace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wackamole.lab.namespaces import ip, opened_in, tool
from wackamole.shell.kernel.fence import GATE, KEY
from wackamole.shell.kernel.release import NotReleased, release
from wackamole.shell.kernel.rtnl import Placed, Rtnl
from wackamole.shell.kernel.surroundings import packed

pytestmark = pytest.mark.lab

HOST = f"wr{os.getpid()}"
V4, V6 = "10.9.1.1", "fd09::1:1"
FOREIGN = {"10.9.0.1/16", "10.9.1.7/32", "fd09::1/64"}
NOBODY = "/nowhere/control.sock"
SITE = """
table inet site {
  chain c { type filter hook input priority 0; ip saddr 192.0.2.1 drop; }
}
table netdev wackamole_gate_of_the_site {
  chain c { type filter hook ingress device "eth0" priority 0; }
}
"""


@pytest.fixture
def host() -> Iterator[None]:
    """An interface with addresses of the site's own, and a firewall."""
    tool("ip", "netns", "add", HOST)
    try:
        ip("link set lo up", "link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up",
           *(f"addr add {a} dev eth0" for a in sorted(FOREIGN)), namespace=HOST)  # fmt: skip
        tool("ip", "netns", "exec", HOST, "nft", "-f", "-", text=SITE)
        yield
    finally:
        tool("ip", "netns", "delete", HOST)


def addresses() -> set[str]:
    """What the interfaces have, but for what the kernel gives them."""
    listed = json.loads(tool("ip", "-n", HOST, "-json", "addr"))
    found = {f"{a['local']}/{a['prefixlen']}" for link in listed for a in link["addr_info"]}
    return {a for a in found if not a.startswith(("fe80", "127.", "::1"))}


def tables() -> set[str]:
    return {line.split()[2] for line in tool("ip", "netns", "exec", HOST, "nft", "list", "tables").splitlines()}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["ip", "netns", "exec", HOST, sys.executable, "-m", "wackamole", "release", "--socket", NOBODY, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def owner(host: None) -> Iterator[subprocess.Popen[str]]:
    """A process with our addresses and a fence; its guard is dead, so that something is left when it dies, too."""
    words = [sys.executable, "-m", "tests.shell.fence_owner", HOST, V4, V6]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        try:
            os.kill(json.loads(process.stdout.readline())["guard"], signal.SIGKILL)
            yield process
        finally:
            process.kill()


OURS = {f"{V4}/32", f"{V6}/128"}
SITES = {"site", "wackamole_gate_of_the_site"}


def test_what_a_dead_daemon_left_is_removed_and_nothing_else(owner: subprocess.Popen[str]) -> None:
    site = tool("ip", "netns", "exec", HOST, "nft", "list", "table", "inet", "site")
    owner.kill()
    owner.wait()
    assert addresses() == FOREIGN | OURS
    assert tables() == SITES | {GATE}
    done = command("--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {(a["address"], a["interface"]) for a in said["addresses"]} == {(a, "eth0") for a in OURS}
    assert said["tables"] == [GATE]
    assert addresses() == FOREIGN
    assert tables() == SITES
    assert tool("ip", "netns", "exec", HOST, "nft", "list", "table", "inet", "site") == site


def test_nothing_left_is_no_failure(host: None) -> None:
    done = command()
    assert (done.returncode, done.stdout) == (0, "nothing was left\n")
    assert json.loads(command("--json").stdout) == {"addresses": [], "tables": [], "routes": 0}
    assert addresses() == FOREIGN


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_nothing_is_removed_while_the_fence_has_an_owner(owner: subprocess.Popen[str], state: str) -> None:
    if state == "stopped":
        owner.send_signal(signal.SIGSTOP)
    done = command()
    assert done.returncode == 1
    assert "a daemon lives in this network namespace" in done.stderr
    assert addresses() == FOREIGN | OURS
    assert tables() == SITES | {GATE, KEY}


def test_nothing_is_removed_while_somebody_answers_on_the_socket(host: None, tmp_path: Path) -> None:
    """Without a fence of nftables nothing else tells that a daemon lives."""
    rtnl = opened_in(HOST, Rtnl)
    index = next(link.index for link in rtnl.links() if link.name == "eth0")
    assert rtnl.add([Placed(packed(V4), 32, index)]) == {}
    rtnl.close()
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        daemon.listen(0)
        for _ in range(3):  # also when its queue is full
            with pytest.raises(NotReleased, match="a daemon answers on"):
                opened_in(HOST, lambda: release(str(path)))
    assert addresses() == FOREIGN | {f"{V4}/32"}
    opened_in(HOST, lambda: release(str(path)))  # the file has outlived its process
    assert addresses() == FOREIGN


def test_a_table_of_an_older_kernel_is_removed_too(host: None) -> None:
    """It has no owner there that would keep it, and none that takes it away."""
    tool("ip", "netns", "exec", HOST, "nft", "-f", "-", text=f"add table netdev {GATE}\nadd table netdev {KEY}\n")
    assert set(opened_in(HOST, lambda: release(NOBODY)).tables) == {GATE, KEY}
    assert tables() == SITES


def test_without_the_right_to_it_the_sentence_says_so(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.wait()
    program = (
        "import os, sys\nfrom wackamole.shell.kernel.release import NotReleased, release\n"
        "from wackamole.lab.namespaces import enter_network\nenter_network(sys.argv[1])\n"
        "os.setresuid(65534, 65534, 65534)\ntry: release(sys.argv[2])\nexcept NotReleased as no: print(no)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, HOST, NOBODY], capture_output=True, text=True, check=True)
    assert "CAP_NET_ADMIN" in done.stdout
    assert addresses() == FOREIGN | OURS
