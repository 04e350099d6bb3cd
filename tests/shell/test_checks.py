"""What checks see, what verdict that makes, and what the daemon is told of it: real servers, programs and interfaces."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.config import parse
from wackamole.core.events import HealthChanged, LoadMeasured
from wackamole.core.model import NotEligible, VipKey
from wackamole.lab.namespaces import ip, opened_in, tool
from wackamole.shell.checker import Figure, Judge, Verdict, read_line
from wackamole.shell.health import Health
from wackamole.shell.probes import BODY_BYTES_MAX, PROBES, Gateway, Interface, OffLoop, Probe, Unwell

WITHIN_SECONDS = 60.0
CONFIG = """\
[cluster]
name = "web"
[[node]]
name = "a"
address = "10.0.0.11"
interfaces = {{ public = "lo" }}
[[vip]]
name = "v"
address = "192.0.2.10"
[[vip]]
name = "w"
address = "192.0.2.11"
labels = ["slow"]
{more}
"""
FAST = 'interval = "100ms"\ntimeout = "100ms"\n'
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def see(probe: Probe) -> str:
    return asyncio.run(asyncio.wait_for(probe.look(), WITHIN_SECONDS))


def unwell(probe: Probe) -> str:
    with pytest.raises(Unwell) as caught:
        see(probe)
    return str(caught.value)


# -- what is looked at ----------------------------------------------------------------------------------------------------


def page(text: str, **keys: object) -> Probe:
    """The probe of a check on this URL with these keys."""
    lines = [f"{key} = {value}" for key, value in keys.items()]
    check = "\n".join(['[[check]]\nname = "c"\nkind = "http"', f'url = "{text}"', *lines])
    options = dict(parse(CONFIG.format(more=check)).checks[0].options)
    return PROBES["http"](**options)


def asked(answer: bytes | Answer, look: Callable[[int], Probe], tls: ssl.SSLContext | None = None) -> str:
    """What a probe of a server that gives this answer sees; its problem, if it has one, behind a !."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if callable(answer):
            await answer(reader, writer)
        else:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    async def main() -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        async with server:
            try:
                return await asyncio.wait_for(look(server.sockets[0].getsockname()[1]).look(), WITHIN_SECONDS)
            except Unwell as no:
                return f"!{no}"

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "keys", "seen"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", {}, "200 OK"),
        (b"HTTP/1.0 200 OK\r\n\r\n", {}, "200 OK"),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://x/\r\n\r\n", {}, "301 Moved"),
        (b"HTTP/1.1 301 Moved\r\n\r\n", {"status": ["200-299"]}, "!status 301 Moved"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nsecret", {}, "!status 503 Service Unavailable"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", {}, "200 OK"),
        (b"HTTP/1.1 200 OK\r\n\r\nthis is fine.", {"body": '"is fine"'}, "200 OK"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nthis i\r\n7\r\ns fine.\r\n0\r\n\r\n",
            {"body": '"is fine"'},
            "200 OK",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nit burns", {"body": '"fine"'}, "!status 200 OK, but the body does not have"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"." * (BODY_BYTES_MAX + 9) + b"fine", {"body": '"fine"'}, "!status 200 OK, but"),
        (b"SSH-2.0-OpenSSH\r\n", {}, "!no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, {}, "!no HTTP answer"),
        (b"", {}, "!no HTTP answer"),
        (b"HTTP/1.1 200 \x1b[2J\r\n\r\n", {}, "200 ?[2J"),
    ],
)
def test_a_page_is_as_wanted_or_it_is_said_why_not(answer: bytes, keys: dict[str, Any], seen: str) -> None:
    assert asked(answer, lambda port: page(f"http://127.0.0.1:{port}/", **keys)).startswith(seen)


def test_what_is_asked_for_is_what_the_file_says() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        host = next(line for line in head if line.lower().startswith("host:"))
        writer.write(f"HTTP/1.1 200 {head[0].split()[1]} {host.split()[1]}\r\n\r\n".encode())

    def look(port: int) -> Probe:
        return page(f"http://127.0.0.1:{port}/health?x=1", host='"www.example.org"')

    assert asked(answer, look) == "200 /health?x=1 www.example.org"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of localhost, self-signed, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*new, *files], check=True, capture_output=True)
    return folder


def test_certificates_are_verified_unless_the_file_says_otherwise(certificate: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    ok, ca = b"HTTP/1.1 200 OK\r\n\r\n", f'"{certificate / "cert.pem"}"'

    def look(**keys: object) -> str:
        return asked(ok, lambda port: page(f"https://127.0.0.1:{port}/", **keys), tls)

    assert look(tls_ca=ca, tls_name='"localhost"') == "200 OK"
    assert look(tls_ca=ca).startswith("!certificate: IP address mismatch")
    assert look(tls_name='"localhost"').startswith("!certificate: self")
    assert look(tls_verify="false") == "200 OK"
    assert look(tls_ca='"/no/such/file"').startswith("!tls_ca, tls_cert or tls_key cannot be used")


def test_a_server_that_asks_who_we_are_is_told(certificate: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate / "cert.pem"))
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    ok = b"HTTP/1.1 200 OK\r\n\r\n"
    mine = {"tls_cert": f'"{certificate / "cert.pem"}"', "tls_key": f'"{certificate / "key.pem"}"'}

    def look(**keys: object) -> str:
        return asked(ok, lambda port: page(f"https://127.0.0.1:{port}/", tls_verify="false", **keys), tls)

    assert look(**mine) == "200 OK"
    assert look().startswith("!")


def test_a_port_is_connected_to() -> None:
    assert asked(b"", lambda port: PROBES["tcp"](host="127.0.0.1", port=port)) == ""
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        assert unwell(PROBES["tcp"](host="127.0.0.1", port=closed.getsockname()[1])) == "connection refused"


def program(text: str) -> Probe:
    return PROBES["exec"](command=["/bin/sh", "-c", text], environment={"WACKAMOLE_CHECK": "c"})


def test_a_program_says_by_its_end_whether_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert see(program("echo fine; echo more")) == "fine"
    assert see(program("echo $WACKAMOLE_CHECK $SECRET $PWD")) == "c /"
    assert unwell(program("echo it burns >&2; exit 3")) == "exit 3: it burns"
    assert unwell(program("kill -9 $$")) == "signal 9"
    assert see(program("yes | head -c 10000000")) == "y"
    assert see(program("printf 'a\\033[2Jb'")) == "a?[2Jb"
    assert "cannot be run" in unwell(PROBES["exec"](command=["/no/such"], environment={}))


def test_a_program_that_is_given_up_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    text = f"(echo here; while :; do sleep 1000; done) > {pipe} & while :; do sleep 1000; done"
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(program(text).look(), 2))
    os.set_blocking(reader, True)
    assert os.read(reader, 100) in (b"", b"here\n")
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_processes_are_known_by_name_or_by_a_file(tmp_path: Path) -> None:
    name = "wackamole-tested"  # of which the kernel keeps 15 characters
    copy = tmp_path / name
    shutil.copy("/bin/sleep", copy)
    file = tmp_path / "pid"
    with subprocess.Popen([copy, "infinity"]) as child:
        file.write_text(f"{child.pid}\n")
        while Path(f"/proc/{child.pid}/comm").read_text().strip() != name[:15]:
            pass  # it has not become the program yet
        assert see(PROBES["process"](name=name, pid_file="")) == f"process {child.pid}"
        assert see(PROBES["process"](name="", pid_file=str(file))) == f"process {child.pid}"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie
        assert unwell(PROBES["process"](name=name, pid_file="")) == "no such process"
        assert unwell(PROBES["process"](name="", pid_file=str(file))) == f"there is no process {child.pid}"
    file.write_text("none")
    assert "no number can be read" in unwell(PROBES["process"](name="", pid_file=str(file)))
    assert "No such file" in unwell(PROBES["process"](name="", pid_file=str(tmp_path / "none")))


def test_a_file_is_there_or_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "maintenance")
    assert see(PROBES["file"](path=path, exists=False)) == "it is not there"
    assert unwell(PROBES["file"](path=path, exists=True)) == "it is not there"
    Path(path).touch()
    assert see(PROBES["file"](path=path, exists=True)) == "it is there"
    assert unwell(PROBES["file"](path=path, exists=False)) == "it is there"
    assert see(PROBES["file"](path=f"{path}/below", exists=False)) == "it is not there"


def test_a_unit_that_systemd_does_not_know_is_not_active() -> None:
    said = unwell(PROBES["unit"](unit="wackamole-no-such.service"))
    assert said  # whatever this host's systemctl says, if there is one
    assert "active" not in said.split()


def test_what_hangs_in_the_kernel_is_not_called_again() -> None:
    """A pipe that nobody writes to stands for a disk that does not answer."""

    async def main() -> None:
        off_loop, (reading, writing) = OffLoop(), os.pipe()
        hanging = asyncio.create_task(off_loop.call(lambda: os.read(reading, 1)))
        await asyncio.wait({hanging}, timeout=0.05)
        hanging.cancel()
        await asyncio.wait({hanging})
        with pytest.raises(Unwell, match="not answered the last look"):
            await off_loop.call(lambda: b"")
        os.write(writing, b"x")
        while True:
            try:
                assert await off_loop.call(lambda: b"again") == b"again"
                break
            except Unwell:
                await asyncio.sleep(0)
        os.close(reading)
        os.close(writing)

    asyncio.run(main())


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: eth0 on both sides, 10.5.0.1 and .2, fd05::1 and ::2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2, for network namespaces")
    names = tuple(f"wk-{os.getpid()}-{side}" for side in "ab")
    for name in names:
        tool("ip", "netns", "add", name)
    try:
        ip(f"link add eth0 type veth peer name eth0 netns {names[1]}", namespace=names[0])
        for number, name in enumerate(names, 1):
            addresses = (f"addr add 10.5.0.{number}/24 dev eth0", f"addr add fd05::{number}/64 dev eth0 nodad")
            ip("link set lo up", "link set eth0 up", *addresses, namespace=name)
        yield names[0], names[1]
    finally:
        for name in names:
            tool("ip", "netns", "delete", name)


@pytest.mark.lab
def test_interfaces_and_gateways_are_asked(hosts: tuple[str, str]) -> None:
    here, there = hosts

    def looked(probe: Probe) -> str:
        """In the first namespace: a probe's sockets are of the thread that opens them."""

        async def main() -> str:
            try:
                return await asyncio.wait_for(probe.look(), 5)
            except Unwell as no:
                return f"!{no}"
            except TimeoutError:
                return "!silence"

        return opened_in(here, lambda: asyncio.run(main()))

    mac = opened_in(there, lambda: _mac("eth0"))
    assert looked(Interface("eth0")) == "carrier"
    assert looked(Interface("eth7")) == "!there is no such interface"
    assert looked(Gateway("10.5.0.2", "eth0")) == mac
    assert looked(Gateway("fd05::2", "eth0")) == mac
    assert looked(Gateway("10.5.0.9", "eth0")) == "!silence"
    assert looked(Gateway("10.6.0.1", "eth0")) == "!silence"
    assert looked(Gateway("10.5.0.2", "eth7")) == "!there is no such interface"
    ip("link set eth0 down", namespace=there)
    assert looked(Interface("eth0")) == "!no carrier"
    ip("link set eth0 down", namespace=here)
    assert looked(Interface("eth0")) == "!it is down"


def _mac(name: str) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((name, 0))
        found: bytes = s.getsockname()[4]
    return found.hex(":")


# -- what verdict that makes ------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1), st.integers(1, 5), st.integers(1, 5))
def test_a_verdict_changes_after_rise_or_fall_looks_in_a_row(looks: list[bool], rise: int, fall: int) -> None:
    judge = Judge(None, rise, fall)
    for i, well in enumerate(looks):
        before = judge.passes
        changed = judge.saw(well)
        assert changed == (judge.passes is not before)
        if i == 0:
            assert judge.passes is well  # the first decides alone
        elif changed:
            assert looks[: i + 1][-(rise if well else fall) :] == [well] * (rise if well else fall)
        else:
            assert judge.passes is before


def test_a_judge_that_knows_a_verdict_needs_as_many_looks_as_ever() -> None:
    judge = Judge(True, 2, 3)
    assert [judge.saw(False) for _ in range(3)] == [False, False, True]


def test_lines_are_verdicts_and_figures_and_nothing_else() -> None:
    assert read_line(b'{"check": 3, "passes": false, "said": "no"}') == Verdict(3, False, "no")
    assert read_line(b'{"load": 12}') == Figure(12)
    for wrong in (b"", b"[]", b"5", b'{"check": 3}', b'{"verdict": 3}', b'{"check": "x", "passes": true, "said": ""}'):
        with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
            read_line(wrong)


# -- what the daemon is told ------------------------------------------------------------------------------------------------


class Told:
    """Health, with a checker, and what it has told the core and the history."""

    def __init__(self, more: str, known: Mapping[str, bool] | None = None) -> None:
        config = parse(CONFIG.format(more=more))
        self.keys = {str(v.vip.key): v.vip.name for v in config.vips}
        self.health_events: list[tuple[dict[str, NotEligible], list[str]]] = []
        self.loads: list[int | None] = []
        self.records: list[tuple[str, dict[str, object]]] = []
        self._news = asyncio.Event()
        self.health = Health(config, config.nodes[0], known, self._tell, self._record)

    def _named(self, key: VipKey) -> str:
        return self.keys[key]

    def _tell(self, event: HealthChanged | LoadMeasured) -> None:
        if isinstance(event, HealthChanged):
            failing = {self._named(k): why for k, why in event.failing}
            self.health_events.append((failing, [self._named(k) for k in event.chosen]))
        else:
            self.loads.append(event.load)
        self._news.set()

    def _record(self, what: str, fields: Mapping[str, object]) -> None:
        self.records.append((what, dict(fields)))
        self._news.set()

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not fact():
                self._news.clear()
                await self._news.wait()

    def states(self) -> dict[object, object]:
        return {c["name"]: c["state"] for c in self.health.describe()}


def story(talk: Callable[[Told], Awaitable[None]], more: str, known: Mapping[str, bool] | None = None) -> Told:
    surprises: list[dict[str, Any]] = []  # of any of them a daemon would end

    async def main() -> Told:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: surprises.append(context))
        told = Told(more, known)
        told.health.start()
        try:
            await talk(told)
        finally:
            await told.health.close()
        return told

    told = asyncio.run(main())
    assert surprises == []
    return told


def file_check(name: str, path: Path, more: str = "") -> str:
    return f'[[check]]\nname = "{name}"\nkind = "file"\npath = "{path}"\n{FAST}{more}\n'


def test_nothing_is_taken_before_a_check_has_spoken_and_the_first_look_decides(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    more = file_check("good", tmp_path / "there", 'vips = ["v"]')
    more += file_check("bad", tmp_path / "missing", 'labels = ["slow"]')

    async def talk(told: Told) -> None:
        assert told.health_events == [({"v": NotEligible.CHECK_SILENT, "w": NotEligible.CHECK_SILENT}, [])]
        assert told.states() == {"good": "unknown", "bad": "unknown"}
        await told.until(lambda: told.health_events[-1] == ({"w": NotEligible.CHECK_FAILING}, []))
        assert told.states() == {"good": "passing", "bad": "failing"}

    told = story(talk, more)
    assert [(what, fields["check"], fields["said"]) for what, fields in told.records] == [
        ("check_failed", "bad", "it is not there")
    ]


def test_of_several_checks_the_worst_counts_and_what_changes_is_told(tmp_path: Path) -> None:
    mild, hard, one = (tmp_path / name for name in ("mild", "hard", "one"))
    for path in (mild, hard, one):
        path.touch()
    more = file_check("mild", mild) + file_check("hard", hard, 'unhealthy = "withdraw"\nvips = ["v"]')
    more += file_check("one", one, 'only_one = true\nvips = ["w"]')

    async def talk(told: Told) -> None:
        await told.until(lambda: told.health_events[-1] == ({}, ["w"]))
        mild.unlink()
        await told.until(lambda: told.states()["mild"] == "failing")
        hard.unlink()
        both = {"v": NotEligible.CHECK_FORBIDS, "w": NotEligible.CHECK_FAILING}
        await told.until(lambda: told.health_events[-1] == (both, ["w"]))
        one.unlink()
        await told.until(lambda: told.health_events[-1] == (dict.fromkeys("vw", NotEligible.CHECK_FORBIDS), []))
        for path in (mild, hard, one):
            path.touch()
        await told.until(lambda: told.health_events[-1] == ({}, ["w"]))

    told = story(talk, more)
    words = [(what, fields["check"]) for what, fields in told.records]
    assert sorted(words) == [(w, c) for w in ("check_failed", "check_passed") for c in ("hard", "mild", "one")]


def test_another_config_keeps_the_verdicts_and_a_new_check_moves_nothing(tmp_path: Path) -> None:
    for name in ("good", "one"):
        (tmp_path / name).touch()
    two = file_check("good", tmp_path / "good") + file_check("bad", tmp_path / "bad", 'vips = ["v"]')
    two += file_check("one", tmp_path / "one", 'only_one = true\nvips = ["w"]')
    more = two + file_check("new", tmp_path / "missing", 'vips = ["w"]')
    elsewhere = two.replace(str(tmp_path / "one"), str(tmp_path / "other"))

    async def talk(told: Told) -> None:
        def on(text: str) -> Health | None:
            config = parse(CONFIG.format(more=text))
            return told.health.after(config, config.nodes[0])

        async def take(text: str) -> None:
            health = on(text)
            assert health is not None
            await told.health.close()
            told.health = health
            health.start()

        await told.until(lambda: told.health_events[-1] == ({"v": NotEligible.CHECK_FAILING}, ["w"]))
        assert on(two) is None
        since = {c["name"]: c["since"] for c in told.health.describe()}
        await take(more)
        assert told.health_events[-1] == ({"v": NotEligible.CHECK_FAILING}, ["w"])
        assert {c["name"]: c["since"] for c in told.health.describe()}.items() >= since.items()
        await told.until(lambda: told.states()["new"] == "failing")
        await take(two)
        assert told.health_events[-1] == ({"v": NotEligible.CHECK_FAILING}, ["w"])
        await take(elsewhere)
        assert told.health_events[-1] == ({"v": NotEligible.CHECK_FAILING, "w": NotEligible.CHECK_SILENT}, [])
        await told.until(lambda: told.states()["one"] == "failing")
        await take("")
        assert told.health_events[-1] == ({}, [])

    told = story(talk, two)
    assert [fields["check"] for what, fields in told.records if what == "check_failed"] == ["bad", "new", "one"]


def test_a_checker_that_dies_is_started_anew_and_the_last_verdicts_hold(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()

    async def talk(told: Told) -> None:
        await told.until(lambda: told.states() == {"c": "passing"})
        process = told.health._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await told.until(lambda: told.records != [])
        assert told.records == [("checker_failed", {"reason": "it ended"})]
        assert told.states() == {"c": "passing"}
        assert len(told.health.warnings()) == 1
        there.unlink()
        await told.until(lambda: told.health_events[-1][0].get("v") is NotEligible.CHECK_FAILING)
        assert told.health.warnings() == []

    told = story(talk, file_check("c", there))
    assert [failing for failing, _ in told.health_events] == [
        dict.fromkeys("vw", NotEligible.CHECK_SILENT),
        {},
        dict.fromkeys("vw", NotEligible.CHECK_FAILING),
    ]


def test_a_successor_goes_on_with_what_is_known_and_what_is_new_counts_as_passing(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    more = "".join(file_check(name, tmp_path / "there") for name in ("was-well", "was-sick", "new"))
    more += file_check("one", tmp_path / "there", 'vips = ["v"]\nonly_one = true')

    async def talk(told: Told) -> None:
        first = told.health_events[0]
        assert first == ({"v": NotEligible.CHECK_SILENT, "w": NotEligible.CHECK_FAILING}, [])
        await told.until(lambda: set(told.states().values()) == {"passing"})
        assert told.health.known() == dict.fromkeys(("was-well", "was-sick", "new", "one"), True)

    story(talk, more, {"was-well": True, "was-sick": False, "gone": True})


def test_interfaces_are_called_as_on_this_node_and_other_nodes_checks_are_theirs() -> None:
    more = f'[[check]]\nname = "c"\nkind = "interface"\ninterface = "public"\n{FAST}\n'

    async def talk(told: Told) -> None:
        await told.until(lambda: told.states() == {"c": "passing"})

    story(talk, more)

    async def nothing(told: Told) -> None:
        assert told.health_events == []
        assert told.health._keeping is None

    other = '[[node]]\nname = "b"\naddress = "10.0.0.12"\n'
    told = story(nothing, f'{other}{more}nodes = ["b"]\n')
    assert told.states() == {}


def test_what_a_check_says_is_bounded_and_one_that_is_late_fails(tmp_path: Path) -> None:
    long = f'[[check]]\nname = "long"\nkind = "exec"\ncommand = ["{sys.executable}", "-c", "print(9 * \'longer \' * 99)"]\n'
    more = long + 'interval = "60s"\ntimeout = "60s"\n'
    more += f'[[check]]\nname = "late"\nkind = "exec"\ncommand = ["/bin/sleep", "infinity"]\n{FAST}'

    async def talk(told: Told) -> None:
        await told.until(lambda: told.states() == {"long": "passing", "late": "failing"})
        said = {c["name"]: str(c["said"]) for c in told.health.describe()}
        assert said["late"] == "no answer within 0.1 s"
        assert len(said["long"]) == 200

    story(talk, more)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no json", "cannot be read"),
        ("x" * 100_000, "cannot be read"),
        ('{"check": 9, "passes": true, "said": ""}', "check 9"),
        ('{"check": 0, "passes": 1, "said": ""}', "cannot be read"),
    ],
)
def test_a_checker_that_babbles_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    """A program of another package with the same name stands for one that is broken."""
    package = tmp_path / "wackamole/shell"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "checker.py").write_text(f"print({line!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def talk(told: Told) -> None:
        await told.until(lambda: len(told.records) > 1)  # it is tried again

    told = story(talk, file_check("c", tmp_path / "there"), {"c": True})
    assert {what for what, _ in told.records} == {"checker_failed"}
    assert words in str(told.records[0][1]["reason"])
    assert told.states() == {"c": "passing"}


def test_the_load_is_measured_beside_the_checks() -> None:
    more = '[balance]\nby = "load"\n[load]\ncommand = ["/bin/echo", "1.25"]\ninterval = "1s"\n'

    async def talk(told: Told) -> None:
        await told.until(lambda: told.loads == [125])

    told = story(talk, more)
    assert told.health_events == []
    broken = more.replace("1.25", "rubbish").replace('interval = "1s"', 'interval = "1s"\nkeep = "1s"')

    async def sad(told: Told) -> None:
        await told.until(lambda: told.loads[:1] == [None])

    assert [what for what, _ in story(sad, broken).records] == ["load_failed"]
