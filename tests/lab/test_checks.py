"""Health checks in a whole cluster: VIPs follow services that are well, by hand-over, and stay where nobody is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from wackamole.client import Refused
from wackamole.lab.bench import watching
from wackamole.lab.lab import Lab

pytestmark = pytest.mark.lab

MakeLab = Callable[..., Lab]
SERVE = """\
import http.server, os, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, _, body = open(sys.argv[1]).read().partition(" ")
        self.send_response(int(status))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Page).serve_forever()
"""
PRIMARY = 'kind = "http"\nurl = "http://127.0.0.1:8080/primary"\nstatus = [200]\n'


class Service:
    """A web server of a node, which says what it is told to: a status and a text."""

    def __init__(self, lab: Lab, node: str, says: str = "200 ok") -> None:
        self._file = lab.home / node / "run/page"
        self.says(says)
        self._process = lab.begin(node, sys.executable, "-c", SERVE, "/run/page")

    def says(self, text: str) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(text)
        new.replace(self._file)

    def die(self) -> None:
        self._process.kill()
        self._process.wait()


def check(name: str, kind: str, more: str = "") -> str:
    """One that the tests' machine may stall beside."""
    return f'[[check]]\nname = "{name}"\n{kind}\ninterval = "500ms"\nrise = 2\nfall = 2\n{more}\n'


def states(lab: Lab, node: str) -> dict[str, str]:
    return {c["name"]: c["state"] for c in (lab.status(node) or {"checks": []})["checks"]}


def held(lab: Lab) -> dict[str, int]:
    return {n: len(lab.kernel(n)) for n in lab.layout.nodes}


def test_vips_leave_a_node_whose_service_died_by_hand_over_and_come_back(make_lab: MakeLab) -> None:
    tcp = check("web", 'kind = "tcp"\naddress = "127.0.0.1:8080"')
    lab = make_lab(settings=f'[balance]\ninterval = "1s"\nsettle = "1s"\n{tcp}')
    services = {n: Service(lab, n) for n in lab.layout.nodes}
    lab.start_all()
    lab.until_settled()
    lab.until(lambda: all(states(lab, n) == {"web": "passing"} for n in "abc"), within_s=60, story="all are well")
    lab.until(lambda: held(lab) == {"a": 2, "b": 2, "c": 2}, within_s=60, story="the last one to be well has its share")
    with watching(lab) as seen:
        services["a"].die()
        lab.until(lambda: held(lab)["a"] == 0, within_s=60, story="a's VIPs have left")
        lab.until_settled()
    assert not any(seen[0].two_owners.values())
    assert held(lab) == {"a": 0, "b": 3, "c": 3}
    moved = [e for e in lab.records("b") if e["event"] == "moved" and e["source"] == "a"]
    assert {e["cause"] for e in moved} == {"its holder's health check fails"}
    assert len(moved) == 2
    assert states(lab, "a") == {"web": "failing"}
    (found,) = (lab.status("a") or {})["checks"]
    assert (found["said"], found["vips"]) == ("connection refused", [f"v{i}" for i in range(1, 7)])
    member = next(m for m in (lab.status("c") or {})["view"]["members"] if m["name"] == "a")
    assert (member["eligible"], member["reasons"]) == (False, ["its health check fails"])
    told = [e for e in lab.records("a") if e["event"] == "check_failed"]
    assert [e["check"] for e in told] == ["web"]

    with pytest.raises(Refused, match="a cannot take v1: its health check fails"):
        lab.ask("b", "move", {"vips": ["v1"], "node": "a"})

    for node in "bc":  # now all are sick: a sick server beats none
        services[node].die()
    lab.until(lambda: all(states(lab, n) == {"web": "failing"} for n in "abc"), within_s=60, story="all are sick")
    lab.until_settled()
    kept = held(lab)  # who was sick last has what the other had
    assert (kept["a"], kept["b"] + kept["c"]) == (0, 6)

    Service(lab, "a")
    lab.until(lambda: held(lab) == {"a": 6, "b": 0, "c": 0}, within_s=60, story="a is the only one that is well")
    lab.until_settled()
    for node in "bc":
        Service(lab, node)
    lab.until(lambda: held(lab) == {"a": 2, "b": 2, "c": 2}, within_s=60, story="all are well, and share again")


def test_a_vip_is_withdrawn_and_one_follows_the_only_primary(make_lab: MakeLab) -> None:
    """v1 as for a database: on the node that says that it is the primary, and on none if two say so. v2 and v3 by another
    check of the same page, with the text it wants. All others are nobody's business."""
    lab = make_lab(
        settings=check("primary", PRIMARY, 'vips = ["v1"]\nonly_one = true')
        + check(
            "page",
            PRIMARY.replace("[200]", '["100-599"]') + 'body = "fine"',
            'vips = ["v2", "v3"]\nunhealthy = "withdraw"',
        )
    )
    services = {n: Service(lab, n, "503 fine") for n in lab.layout.nodes}
    services["b"].says("200 fine")
    lab.start_all()
    lab.until_settled()
    by_name = dict(lab.layout.vips)
    lab.until(lambda: lab.holders(by_name["v1"]) == {"b"}, within_s=60, story="v1 is with the primary")
    services["c"].says("200 fine")
    lab.until(lambda: lab.holders(by_name["v1"]) == set(), within_s=60, story="two say so, nobody has it")
    note = next(v["note"] for v in (lab.status("a") or {})["vips"] if v["name"] == "v1")
    assert "passes on several" in note
    services["b"].says("503 fine")
    lab.until(lambda: lab.holders(by_name["v1"]) == {"c"}, within_s=60, story="v1 follows the primary")
    for service in services.values():
        service.says("503 nothing")
    lab.until(
        lambda: all(lab.holders(by_name[v]) == set() for v in ("v1", "v2", "v3")), within_s=60, story="nobody is well"
    )
    assert all(len(lab.holders(by_name[v])) == 1 for v in ("v4", "v5", "v6"))
    services["a"].says("503 fine")
    lab.until(
        lambda: all(lab.holders(by_name[v]) == {"a"} for v in ("v2", "v3")),
        within_s=60,
        story="a is well, and has them",
    )


def test_a_daemon_that_is_replaced_or_loses_its_checker_drops_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(settings=check("web", 'kind = "tcp"\naddress = "127.0.0.1:8080"', 'unhealthy = "withdraw"'))
    for node in lab.layout.nodes:
        Service(lab, node)
    lab.start_all()
    lab.until_settled()
    with watching(lab) as seen:
        before = (lab.status("a") or {})["process"]["restarts"]
        lab.ask("a", "restart", {"within_ms": 20_000})
        lab.until(
            lambda: ((lab.status("a") or {}).get("process") or {}).get("restarts") == before + 1,
            within_s=60,
            story="another process goes on",
        )
        lab.until_settled()
        lab.until(lambda: states(lab, "a") == {"web": "passing"}, within_s=60, story="and its checks pass")
        (checker,) = checkers(lab, "a")
        subprocess.run(["kill", "-9", str(checker)], check=True)
        lab.until(lambda: checkers(lab, "a") not in ([], [checker]), within_s=60, story="another checker looks")
    assert not any(seen[0].two_owners.values())
    assert [e["reason"] for e in lab.records("a") if e["event"] == "checker_failed"] == ["it ended"]
    assert not any(e["event"] == "released" for e in lab.records("a"))
    assert lab.settled()


def checkers(lab: Lab, node: str) -> list[int]:
    """The checker's process of a node's daemon."""
    found = subprocess.run(
        ["pgrep", "-P", str(lab.daemon(node)), "-f", "wackamole.shell.checker"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(word) for word in found.stdout.split()]
