"""The whole program: what it prints, how long it may take, what it sends, and its exit code."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from wackamole.doctor.examination import CHECKS, SENDING, as_plain, run
from wackamole.doctor.finding import Finding, NotChecked, Result, ok, problem
from wackamole.doctor.host import Host, look
from wackamole.lab.namespaces import ip, opened_in

from .segment import HOST, STRANGER, V4, Segment, mac, segment

__all__ = ["segment"]


@pytest.mark.lab
def test_the_exit_code_counts_the_problems_and_every_problem_has_a_remedy(segment: Segment) -> None:
    code, said = segment.doctor()
    wrong = {c["check"] for c in said["checks"] if c["result"] == "problem"}
    assert "key" in wrong
    assert code == said["problems"] == len(wrong)
    assert [c["check"] for c in said["checks"]] == list(CHECKS)
    assert all(c["found"] for c in said["checks"])
    ip(f"addr add {V4}/24 dev eth0", namespace=HOST)
    segment.configure(V4, "192.0.2.7", fence='mode = "off"')
    worse, said = segment.doctor("--quiet")
    assert {"key", "kernel", "vip_interface", "vip_configured"} <= {
        c["check"] for c in said["checks"] if c["result"] == "problem"
    }
    assert worse == said["problems"] >= 4
    assert all(c["remedy"] for c in said["checks"] if c["result"] == "problem")
    assert {c["check"] for c in said["checks"] if "was asked not to" in c["found"]} == set(SENDING)


@pytest.mark.lab
def test_a_config_that_cannot_be_used_is_a_problem_like_another(segment: Segment) -> None:
    segment.config.write_text("[cluster]\n")
    code, said = segment.doctor("--quiet")
    assert code == said["problems"] >= 1
    assert said["checks"][0]["result"] == "problem"
    assert "at least one [[node]] is needed" in said["checks"][0]["found"]


@pytest.mark.lab
def test_quiet_sends_nothing_and_otherwise_only_probes_and_echoes(segment: Segment) -> None:
    with opened_in(STRANGER, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))) as ear:
        ear.bind(("eth0", 3))
        ear.setblocking(False)
        segment.doctor("--quiet")
        assert kinds(ear) == set()
        segment.doctor()
        found = kinds(ear)
    assert {"probe of 10.9.0.100", "neighbour solicitation"} <= found
    assert found <= {"probe of 10.9.0.100", "probe of 10.9.0.2", "question for 10.9.0.2", "neighbour solicitation"}


def kinds(ear: socket.socket) -> set[str]:
    """What HOST has sent, but for what its kernel sends by itself: reports of multicast groups, questions for routers."""
    found = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            frame = ear.recv(4096)
            if frame[6:12].hex(":") == mac(HOST):
                found.add(kind(frame))
    return found - {"listener report", "router solicitation"}


def kind(frame: bytes) -> str:
    if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1":
        asked = ".".join(map(str, frame[38:42]))
        return f"{'probe of' if frame[28:32] == bytes(4) else 'question for'} {asked}"
    if frame[12:14] == b"\x86\xdd":
        hop_by_hop = frame[20] == 0
        icmp = frame[62 if hop_by_hop else 54]
        known = {133: "router solicitation", 135: "neighbour solicitation", 143: "listener report"}
        return known.get(icmp, f"ICMPv6 {icmp}")
    return frame.hex()


@pytest.mark.lab
def test_people_read_the_same_and_the_remedy_is_not_broken_into_lines(segment: Segment) -> None:
    command = [sys.executable, "-m", "wackamole", "doctor", "--quiet", "-c", str(segment.config), "--node", "a"]
    done = subprocess.run(
        ["ip", "netns", "exec", HOST, *command], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.stderr == ""
    assert "key                  problem" in done.stdout
    assert "  wackamole keygen /etc/wackamole/ring.key\n" in done.stdout
    assert done.stdout.splitlines()[-1].partition(" ")[0] == str(done.returncode)


def environment() -> dict[str, str]:
    from wackamole.lab.lab import Lab

    return {**Lab.environment(), "COLUMNS": "80"}


def test_wrong_usage_is_exit_code_2_and_prints_no_findings() -> None:
    command = [sys.executable, "-m", "wackamole", "doctor", "--louder"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert "--louder" in done.stderr


@pytest.fixture
def nowhere() -> Host:
    from pathlib import Path

    return look(Path("/nowhere/wackamole.toml"), None, "/nowhere/control.sock")


def test_a_check_that_does_not_end_is_given_up_and_checks_do_not_wait_for_each_other(nowhere: Host) -> None:
    met = threading.Barrier(2)
    never = threading.Event()

    def meets(_: Host) -> Finding:
        met.wait(20)
        return ok("met")

    def hangs(_: Host) -> Finding:
        never.wait()
        raise AssertionError

    began = time.monotonic()
    found = run({"one": meets, "other": meets, "hangs": hangs}, nowhere, seconds=1.0)
    assert time.monotonic() - began >= 1.0
    assert [f.result for f in found.values()] == [Result.OK, Result.OK, Result.NOT_CHECKED]
    assert found["hangs"].found == "it took longer than 1 s"
    never.set()


def test_what_the_host_cannot_tell_is_not_checked(nowhere: Host) -> None:
    def cannot(_: Host) -> Finding:
        raise NotChecked("there is no such thing here")

    def refused(_: Host) -> Finding:
        raise PermissionError(1, "Operation not permitted")

    found = run({"cannot": cannot, "refused": refused, "wrong": lambda _: problem("it is", "mend it")}, nowhere)
    assert found["cannot"] == Finding(Result.NOT_CHECKED, "there is no such thing here")
    assert found["refused"].result is Result.NOT_CHECKED
    assert "Operation not permitted" in found["refused"].found
    assert as_plain(found)["problems"] == 1


def test_a_fault_of_our_own_is_not_hidden(nowhere: Host) -> None:
    def wrong(_: Host) -> Finding:
        raise AssertionError("impossible")

    with pytest.raises(AssertionError, match="impossible"):
        run({"wrong": wrong}, nowhere)
