"""Hooks: what programs are told, in which order, and that nobody waits for them."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.shell.test_operator import Alone
from wackamole.config import Config, HookConfig, find_self, parse
from wackamole.convert import load as load_foreign
from wackamole.core.events import LeaveRequested, TimePassed
from wackamole.core.model import Address, Vip, VipKey
from wackamole.lab.namespaces import ip, opened_in, tool
from wackamole.shell.daemon import Daemon, Kept
from wackamole.shell.hook_runner import AT_ONCE_MAX, SAID_CHARACTERS_MAX
from wackamole.shell.hooks import LATE_SECONDS, RESTART_SECONDS, Hooks
from wackamole.shell.journal import Journal
from wackamole.shell.kernel.guard import Guard
from wackamole.shell.releases import Releases

WITHIN_SECONDS = 60.0
HOOK = HookConfig("h", ("acquired",), ("/bin/true",), "", (), (), "vip", 10_000, 200)
WEB = Vip("web", (Address("192.0.2.10", 32),))
MAIL = Vip("mail", (Address("192.0.2.11", 32),))


def about(name: str) -> dict[str, object]:
    return {
        "vip": name,
        "addresses": [{"ip": "192.0.2.10", "prefix": 32, "interface": "eth0"}],
        "cause": "its host was lost",
        "holder": "a",
        "previous": "b",
    }


def python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


class Told:
    """Hooks with a runner, and what they wrote into the history."""

    def __init__(self, *hooks: HookConfig) -> None:
        self.results: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        common = {"cluster": "web", "node": "a", "view": "1.4.0"}
        self.hooks = Hooks(hooks, "a", lambda: common, self._record)

    def _record(self, what: str, fields: Mapping[str, object]) -> None:
        self.results.append({"what": what, **fields})
        self._news.set()

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not fact():
                self._news.clear()
                await self._news.wait()


def story(talk: Callable[[Told], Awaitable[None]], *hooks: HookConfig) -> list[dict[str, Any]]:
    surprises: list[dict[str, Any]] = []  # of any of them a daemon would end

    async def main() -> list[dict[str, Any]]:
        told = Told(*hooks)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: surprises.append(context))
        await told.hooks.start()
        try:
            await talk(told)
        finally:
            await told.hooks.close(WITHIN_SECONDS)
        return told.results

    results = asyncio.run(main())
    gc.collect()
    assert surprises == []
    return results


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_program_is_told_what_happened_and_why(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        f"import json,os,sys; json.dump([dict(os.environ), json.load(sys.stdin), os.getcwd()], open({str(out)!r}, 'w'))"
    )

    async def talk(told: Told) -> None:
        told.hooks.happened("acquired", "web", about("web"))

    results = story(talk, replace(HOOK, command=python(program)))
    environment, said, directory = json.loads(out.read_text())
    assert directory == "/"
    assert {k: v for k, v in environment.items() if k.startswith("WACKAMOLE_")} == {
        "WACKAMOLE_EVENT": "acquired",
        "WACKAMOLE_CLUSTER": "web",
        "WACKAMOLE_NODE": "a",
        "WACKAMOLE_VIEW": "1.4.0",
        "WACKAMOLE_VIP": "web",
        "WACKAMOLE_ADDRESSES": "192.0.2.10/32",
        "WACKAMOLE_IPS": "192.0.2.10",
        "WACKAMOLE_CAUSE": "its host was lost",
        "WACKAMOLE_HOLDER": "a",
        "WACKAMOLE_PREVIOUS": "b",
    }
    assert {k for k in environment if not k.startswith("WACKAMOLE_")} <= {"PATH", "LANG", "LC_CTYPE", "PYTHONPATH"}
    assert said.items() >= {"event": "acquired", "node": "a", **about("web")}.items()
    assert [(r["what"], r["hook"], r["vip"], r["outcome"]) for r in results] == [("hook", "h", "web", "ok")]


def test_what_goes_wrong_is_told_with_its_first_line(tmp_path: Path) -> None:
    async def talk(told: Told) -> None:
        told.hooks.happened("acquired", "web", about("web"))
        await told.until(lambda: len(told.results) == 4)
        assert [s["failed"] for s in told.hooks.describe()] == [1, 1, 1, 1]
        assert len(told.hooks.warnings()) == 4

    results = story(
        talk,
        replace(HOOK, name="exit", command=python("import sys; sys.exit('no such table\\nand more')")),
        replace(HOOK, name="signal", command=python("import os; os.kill(os.getpid(), 9)")),
        replace(HOOK, name="missing", command=("/nowhere/hook",)),
        replace(HOOK, name="timeout", timeout_ms=50, command=("/bin/sleep", "infinity")),
    )
    assert [(r["hook"], r["outcome"], r["said"]) for r in results[:2]] == [
        ("exit", "exit 1", "no such table"),
        ("signal", "signal 9", ""),
    ]
    assert results[2]["outcome"] == "not started"
    assert "/nowhere/hook" in results[2]["said"]
    assert (results[3]["hook"], results[3]["outcome"]) == ("timeout", "timeout")
    assert {r["what"] for r in results} == {"hook_failed"}


def test_what_a_hook_started_dies_with_it_when_its_time_is_over(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"import os,subprocess,time; p = subprocess.Popen(['/bin/sleep', 'infinity']); open({str(pid)!r}, 'w').write(str(p.pid)); p.wait()"

    async def talk(told: Told) -> None:
        told.hooks.happened("acquired", "web", about("web"))

    results = story(talk, replace(HOOK, timeout_ms=2000, command=python(program)))
    assert results[0]["outcome"] == "timeout"
    child = Path(f"/proc/{pid.read_text()}/stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_hook_that_leaves_something_running_has_ended_and_what_it_says_is_bounded(tmp_path: Path) -> None:
    """Whatever it started has its standard error; the hook's VIP does not wait for that, and no descriptor stays open."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    leaves = f"import subprocess; subprocess.Popen(['/bin/cat', {str(gate)!r}], start_new_session=True); raise SystemExit('done')"
    chatter = "import sys\nfor _ in range(300): sys.stderr.write('x' * 10_000)\nsys.exit(1)"

    async def talk(told: Told) -> None:
        assert told.hooks._process is not None
        descriptors = Path(f"/proc/{told.hooks._process.pid}/fd")
        for _ in range(2):
            told.hooks.happened("acquired", "web", about("web"))
        await told.until(lambda: len(told.results) == 4)
        before = len(list(descriptors.iterdir()))
        for _ in range(3):
            told.hooks.happened("acquired", "web", about("web"))
        await told.until(lambda: len(told.results) == 10)
        assert len(list(descriptors.iterdir())) == before
        gate.write_text("")  # what was left running ends

    results = story(
        talk,
        replace(HOOK, name="leaves", command=python(leaves), timeout_ms=5000),
        replace(HOOK, name="chatter", command=python(chatter)),
    )
    assert {(r["hook"], r["outcome"]) for r in results} == {("leaves", "exit 1"), ("chatter", "exit 1")}
    assert {len(r["said"]) for r in results} == {len("done"), SAID_CHARACTERS_MAX}


def append(out: Path, text: str) -> tuple[str, ...]:
    return python(f"import os,sys; open({str(out)!r}, 'a').write({text} + '\\n')")


def test_one_vip_is_told_in_order_and_another_does_not_wait_for_it(tmp_path: Path) -> None:
    gate, out = tmp_path / "gate", tmp_path / "out"
    os.mkfifo(gate)
    slow = python(f"open({str(gate)!r}).read(); open({str(out)!r}, 'a').write('first of web\\n')")
    echo = append(out, "os.environ['WACKAMOLE_EVENT'] + ' ' + os.environ['WACKAMOLE_VIP']")

    async def talk(told: Told) -> None:
        told.hooks.happened("acquired", "web", about("web"))
        told.hooks.happened("released", "web", about("web"))
        told.hooks.happened("acquired", "mail", about("mail"))
        await told.until(lambda: len(told.results) == 1)
        assert lines(out) == ["acquired mail"]
        gate.write_text("")

    both = replace(HOOK, on=("acquired", "released"), command=echo)
    story(talk, replace(HOOK, vips=("web",), command=slow), both)
    assert lines(out) == ["acquired mail", "first of web", "acquired web", "released web"]


def test_a_round_is_told_once_and_after_its_vips(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = append(out, "os.environ['WACKAMOLE_VIP']")
    whole = append(out, "' '.join(h['vip'] for h in __import__('json').load(sys.stdin)['happenings'])")

    async def talk(told: Told) -> None:
        for name in ("web", "mail"):
            told.hooks.happened("acquired", name, about(name))

    story(talk, replace(HOOK, each="round", command=whole), replace(HOOK, command=words))
    assert sorted(lines(out)[:2]) == ["mail", "web"]
    assert lines(out)[2:] == ["web mail"]


def test_rounds_keep_the_order_of_what_happened_to_one_vip(tmp_path: Path) -> None:
    """What came first would otherwise be told with the round that began first."""
    out = tmp_path / "out"

    async def talk(told: Told) -> None:
        for event, name in (("released", "mail"), ("acquired", "web"), ("released", "web"), ("acquired", "mail")):
            told.hooks.happened(event, name, about(name))

    echo = append(out, "os.environ['WACKAMOLE_EVENT'] + ' ' + os.environ['WACKAMOLE_VIP']")
    story(talk, replace(HOOK, on=("acquired", "released"), each="round", command=echo))
    said = [(event, name) for event, *names in map(str.split, lines(out)) for name in names]
    assert [event for event, name in said if name == "web"] == ["acquired", "released"]
    assert [event for event, name in said if name == "mail"] == ["released", "acquired"]


def test_a_view_concerns_no_vip(tmp_path: Path) -> None:
    out = tmp_path / "out"

    async def talk(told: Told) -> None:
        told.hooks.happened("view", "", {"details": {"members": "a,b"}})

    echo = append(out, "__import__('json').load(sys.stdin)['details']['members'] + os.environ['WACKAMOLE_VIP']")
    story(talk, replace(HOOK, on=("view",), command=echo))
    assert lines(out) == ["a,b"]


def test_a_python_function_is_called_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    (tmp_path / "site_hooks.py").write_text(
        f"import os\nclass On:\n    @staticmethod\n    def up(said):\n"
        f"        open({str(out)!r}, 'w').write(f'{{os.getpid()}} {{said[\"vip\"]}}')\n"
        f"def wrong(said):\n    raise ValueError('no ' + said['vip'])\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")

    async def talk(told: Told) -> None:
        told.hooks.happened("acquired", "web", about("web"))

    results = story(
        talk, replace(HOOK, command=(), python="site_hooks:On.up"), replace(HOOK, command=(), python="site_hooks:wrong")
    )
    pid, vip = out.read_text().split()
    assert (vip, pid != str(os.getpid())) == ("web", True)
    assert [r["outcome"] for r in results] == ["ok", "exit 1"]
    assert results[1]["said"] == "ValueError: no web"


def test_hooks_that_hang_everywhere_are_told_and_the_rest_goes_on() -> None:
    """More than can run at once."""

    async def talk(told: Told) -> None:
        for number in range(AT_ONCE_MAX + 4):
            told.hooks.happened("acquired", f"v{number}", about(f"v{number}"))

    results = story(talk, replace(HOOK, timeout_ms=100, command=("/bin/sleep", "infinity")))
    assert [r["outcome"] for r in results] == ["timeout"] * (AT_ONCE_MAX + 4)


@pytest.mark.parametrize("waiting", [0, 2000])
def test_a_runner_that_is_killed_is_replaced(waiting: int) -> None:
    """Also one that had stood still, with more waiting for it than a pipe takes."""

    async def talk(told: Told) -> None:
        assert told.hooks._process is not None
        told.hooks._process.send_signal(signal.SIGSTOP)
        for _ in range(waiting):
            told.hooks.happened("acquired", "web", about("web"))
        while told.hooks._waiting:
            told.hooks._flush()
        told.hooks._process.kill()
        await told.until(lambda: len(told.results) == 2)
        assert [r["what"] for r in told.results] == ["hook_failed", "hook"]
        assert told.results[0]["lost"] == waiting
        told.hooks.happened("acquired", "web", about("web"))

    results = story(talk, HOOK)
    assert [r["outcome"] for r in results[2:]] == ["ok"]


def test_what_happens_while_no_runner_is_there_is_told_to_the_next_in_order(tmp_path: Path) -> None:
    out = tmp_path / "out"

    async def talk(told: Told) -> None:
        assert told.hooks._process is not None
        told.hooks._process.kill()
        await told.until(lambda: bool(told.results))
        for event in ("acquired", "released"):
            told.hooks.happened(event, "web", about("web"))
        await told.until(lambda: sum(r.get("outcome") == "ok" for r in told.results) == 4)

    both = replace(HOOK, on=("acquired", "released"), command=append(out, "os.environ['WACKAMOLE_EVENT']"))
    results = story(talk, both, replace(both, each="round"))
    assert [r["what"] for r in results].count("hook_failed") == 1
    assert lines(out) == ["acquired", "released"] * 2


def test_a_runner_that_cannot_live_is_tried_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk(told: Told) -> None:
        (tmp_path / "wackamole").mkdir()
        (tmp_path / "wackamole" / "__init__.py").write_text("raise SystemExit('broken')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        assert told.hooks._process is not None
        began = asyncio.get_running_loop().time()
        told.hooks._process.kill()
        await told.until(lambda: sum(r["what"] == "hook_failed" for r in told.results) == 3)
        assert asyncio.get_running_loop().time() - began >= 3 * RESTART_SECONDS

    story(talk, HOOK)


def test_a_runner_that_stands_still_is_told() -> None:
    now = 1000.0

    async def main() -> None:
        nonlocal now
        hooks = Hooks([HOOK], "a", lambda: {"cluster": "web", "node": "a", "view": "-"}, lambda *_: None, lambda: now)
        await hooks.start()
        assert hooks._process is not None
        hooks._process.send_signal(signal.SIGSTOP)
        hooks.happened("acquired", "web", about("web"))
        hooks._flush()
        now += LATE_SECONDS
        assert hooks.warnings() == []
        now += 1
        assert hooks.warnings() == [f"1 calls of hooks wait, the first for {LATE_SECONDS + 1:.0f} s"]
        hooks._process.send_signal(signal.SIGCONT)
        await hooks.close(WITHIN_SECONDS)
        assert hooks.warnings() == []

    asyncio.run(main())


def test_other_nodes_hooks_are_not_called() -> None:
    async def talk(told: Told) -> None:
        assert told.hooks.events == frozenset()
        told.hooks.happened("acquired", "web", about("web"))

    assert story(talk, replace(HOOK, nodes=("b",))) == []


# -- before a release -----------------------------------------------------------------------------------------------------


def releasing(*hooks: HookConfig, planned: tuple[Vip, ...]) -> tuple[list[set[str]], list[dict[str, Any]]]:
    """WEB and MAIL are held, and shall be let go; what the kernel was asked for, in order, until it is asked for nothing."""
    asked: list[set[str]] = []

    async def talk(told: Told) -> None:
        empty = asyncio.Event()

        def hold(serial: int, vips: tuple[Vip, ...]) -> None:
            asked.append({v.name for v in vips})
            if not vips:
                empty.set()

        def ask(vips: Mapping[VipKey, Vip], done: Callable[[VipKey], None]) -> float:
            return told.hooks.ask(vips, {k: about(v.name) for k, v in vips.items()}, done)

        releases = Releases((WEB, MAIL), hold, ask, lambda: False)
        releases.hold_exactly(1, (), frozenset(v.key for v in planned))
        async with asyncio.timeout(WITHIN_SECONDS):
            await empty.wait()

    return asked, story(talk, *hooks)


BEFORE = replace(HOOK, on=("before_release",), budget_ms=1000)


def test_without_a_hook_before_it_everything_is_let_go_at_once() -> None:
    assert releasing(HOOK, planned=(WEB, MAIL))[0] == [set()]


def test_a_release_waits_for_its_hook_and_what_is_not_planned_does_not() -> None:
    asked, results = releasing(replace(BEFORE, budget_ms=60_000), planned=(WEB,))
    assert asked == [{"web"}, set()]
    assert [(r["on"], r["vip"], r["outcome"]) for r in results] == [("before_release", "web", "ok")]


def test_a_hook_that_hangs_stops_no_release() -> None:
    hangs = replace(BEFORE, vips=("mail",), command=("/bin/sleep", "infinity"), timeout_ms=2000, budget_ms=50)
    asked, results = releasing(hangs, planned=(WEB, MAIL))
    assert asked == [{"mail"}, set()]
    assert results[0]["outcome"] in ("timeout", "too late")  # the latter if the machine is slow to start it


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_release_does_not_wait_for_a_runner_that_is_gone(when: str) -> None:
    async def talk(told: Told) -> None:
        released, ended = asyncio.Event(), list[VipKey]()

        def done(key: VipKey) -> None:
            ended.append(key)
            released.set()

        process = told.hooks._process
        assert process is not None
        if when == "before":
            process.kill()
            await told.until(lambda: bool(told.results))
            assert process.returncode is not None
        else:
            process.send_signal(signal.SIGSTOP)
        told.hooks.ask({WEB.key: WEB}, {WEB.key: about("web")}, done)
        assert ended == []
        if when == "meanwhile":
            process.kill()
        async with asyncio.timeout(WITHIN_SECONDS):
            await released.wait()
        assert ended == [WEB.key]

    story(talk, replace(BEFORE, budget_ms=600_000))


def test_a_vip_that_is_wanted_again_meanwhile_stays() -> None:
    asked: list[tuple[int, set[str]]] = []
    ended: list[Callable[[VipKey], None]] = []

    def ask(vips: Mapping[VipKey, Vip], done: Callable[[VipKey], None]) -> float:
        ended.append(done)
        return 600.0

    async def main() -> None:
        def hold(serial: int, vips: tuple[Vip, ...]) -> None:
            asked.append((serial, {v.name for v in vips}))

        releases = Releases((WEB, MAIL), hold, ask, lambda: False)
        releases.hold_exactly(1, (MAIL,), frozenset({WEB.key}))
        releases.hold_exactly(2, (MAIL, WEB), frozenset())
        releases.hold_exactly(3, (MAIL,), frozenset({WEB.key}))
        ended[0](WEB.key)  # the first time's hook: the second time's is still under way
        await asyncio.sleep(0)
        assert asked == [(1, {"web", "mail"}), (2, {"web", "mail"}), (3, {"web", "mail"})]
        ended[1](WEB.key)
        await asyncio.sleep(0)
        assert asked[3:] == [(3, {"mail"})]
        releases.hold_exactly(4, (), frozenset({MAIL.key}))
        releases.hold_exactly(5, (), frozenset())  # the group is lost: nothing waits any more
        assert asked[4:] == [(4, {"mail"}), (5, set())]

    asyncio.run(main())
    assert len(ended) == 3


# -- a converted hook -----------------------------------------------------------------------------------------------------


def test_a_perl_function_of_the_original_is_called_as_it_was(tmp_path: Path) -> None:
    perl = Path("/usr/bin/perl")
    if not perl.exists():
        pytest.skip("needs perl")
    out = tmp_path / "out"
    (tmp_path / "Shop.pm").write_text(
        f"package Shop; sub up {{ my ($vip, $more) = @_; open(my $f, '>', '{out}');"
        f" print $f join(' ', $vip->{{ip}}, map {{ $_->{{ip}} }} @$more); }} 1;\n"
    )
    old = f"Group = shop\nPerlUse Shop\nPerlUseLib {tmp_path}\nRunDynamic Shop::up on up\n"
    old += "VirtualInterfaces { { eth0:192.0.2.10/32 eth0:192.0.2.11/32 } }\n#wackamole: node a = 10.0.0.11\n"
    config = load(old)
    addresses = [{"ip": ip, "prefix": 32, "interface": "eth0"} for ip in ("192.0.2.10", "192.0.2.11")]

    async def talk(told: Told) -> None:
        told.hooks.happened("acquired", "192.0.2.10", {**about("192.0.2.10"), "addresses": addresses})

    assert [(r["outcome"], r.get("said", "")) for r in story(talk, *config.hooks)] == [("ok", "")]
    assert out.read_text() == "192.0.2.10 192.0.2.11"


def load(text: str) -> Config:
    found = load_foreign(text, "wackamole.conf")
    assert found is not None
    return found


# -- in a daemon ----------------------------------------------------------------------------------------------------------

HOST = f"wh{os.getpid()}"
CONFIG = """\
fence = "off"
[cluster]
name = "web"
mature = "0s"
[[node]]
name = "a"
address = "127.0.0.1"
[[vip]]
name = "web"
address = "192.0.2.10"
interface = "eth0"
routes = ["default dev eth0 table 100"]
[[hook]]
on = ["acquired", "released", "view", "moved"]
command = {command}
[control]
socket = "{socket}"
"""


@pytest.mark.lab
def test_a_daemon_tells_what_happens_to_its_vips_and_why(tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = parse(
        CONFIG.format(
            command=json.dumps(python(f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read())")),
            socket=tmp_path / "control.sock",
        )
    )
    guard = Guard()

    async def main() -> None:
        daemon = Daemon(config, find_self(config, "a"), Journal(), Kept(True, guard))
        daemon.engine = Alone()
        await daemon.kernel.start()
        await daemon.hooks.start()
        await daemon.engine.start(daemon.on_engine)
        assert await daemon.operator.carried_out(
            TimePassed(), lambda: daemon.kernel.held() == (config.vips[0].vip.key,)
        )
        daemon.tell(LeaveRequested())
        async with asyncio.timeout(WITHIN_SECONDS):
            await daemon.done.wait()
        await daemon.kernel.close()
        await daemon.hooks.close(WITHIN_SECONDS)
        assert [h["failed"] for h in daemon.hooks.describe()] == [0]

    tool("ip", "netns", "add", HOST)
    try:
        ip(
            "link set lo up",
            "link add eth0 type veth peer name eth1",
            "link set eth0 up",
            "link set eth1 up",
            namespace=HOST,
        )
        opened_in(HOST, lambda: asyncio.run(main()))
    finally:
        tool("ip", "netns", "delete", HOST)
        guard.dismiss()
    said = [json.loads(line) for line in lines(out)]
    assert [h["details"]["members"] for h in said if h["event"] == "view"] == ["a"]
    mine = [h for h in said if h.get("vip") == "web"]
    assert [h["event"] for h in mine] == ["moved", "acquired", "released"]
    assert {h["node"] for h in mine} == {"a"}
    assert mine[2]["cause"] == "left"
    assert mine[1].items() >= {"view": "1.4.0", "cause": "nobody held it", "holder": "a", "previous": None}.items()
    assert mine[1]["addresses"] == [{"ip": "192.0.2.10", "prefix": 32, "interface": "eth0"}]
