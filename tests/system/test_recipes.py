"""The recipes of docs/health.md, with the programs that they are for: haproxy and nginx as Debian has them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wackamole.config import parse
from wackamole.lab.lab import Lab

pytestmark = [pytest.mark.system, pytest.mark.lab]

PAGE = (Path(__file__).parents[2] / "docs/health.md").read_text()
MakeLab = Callable[..., Lab]


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"needs {name}: apt-get install {name}")
    return found


def recipe(title: str) -> tuple[str, str]:
    """The program's own file, and the checks for ours."""
    section = PAGE.partition(f"### {title}\n")[2].partition("\n### ")[0]
    blocks = re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL)
    theirs = next(text for kind, text in blocks if not kind)
    ours = next(text for kind, text in blocks if kind == "toml").partition("[[vip]]")[0]
    return theirs, re.sub(r"\nlabels = .*", "", ours)


def write(lab: Lab, node: str, name: str, text: str) -> str:
    """Where the node sees it."""
    path = lab.home / node / "run" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return f"/run/{name}"


def held(lab: Lab) -> dict[str, int]:
    return {n: len(lab.kernel(n)) for n in lab.layout.nodes}


def follows(lab: Lab, well: str, story: str) -> None:
    """All VIPs are with these nodes."""
    lab.until(
        lambda: sum(held(lab).values()) == 6 and {n for n, count in held(lab).items() if count} == set(well),
        within_s=120,
        story=story,
    )


def test_haproxy(make_lab: MakeLab) -> None:
    haproxy, nginx = program("haproxy"), program("nginx")  # which is what stands behind it
    theirs, checks = recipe("HAProxy")
    lab = make_lab(settings=f'[balance]\ninterval = "1s"\nsettle = "1s"\n{checks}', nodes=2)
    behind = {}
    for node in lab.layout.nodes:
        timeouts = "defaults\n    timeout connect 1s\n    timeout client 5s\n    timeout server 5s\n"
        app = "backend app\n    mode http\n    server one 127.0.0.1:8000 check inter 500ms\n"
        file = write(lab, node, "haproxy.cfg", f"{timeouts}{theirs}\n{app}")
        lab.begin(node, haproxy, "-db", "-f", file)
        server = "server { listen 127.0.0.1:8000; location / { return 200; } }"
        behind[node] = lab.begin(node, nginx, "-c", write(lab, node, "nginx.conf", nginx_conf(server)))
    lab.start_all()
    follows(lab, "ab", "both are well")
    behind["a"].terminate()
    behind["a"].wait()
    follows(lab, "b", "nothing is behind a's proxy any more, which says so")
    lab.begin("a", nginx, "-c", "/run/nginx.conf")
    follows(lab, "ab", "it is back")
    lab.down()


def nginx_conf(server: str) -> str:
    """In the foreground, with everything in /run."""
    temporary = "".join(f"{kind}_temp_path /run/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    return (
        "daemon off;\nuser root;\npid /run/nginx.pid;\nerror_log /run/error.log;\nevents {}\n"
        f"http {{\naccess_log off;\nclient_body_temp_path /run/body;\n{temporary}{server}\n}}\n"
    )


def test_nginx(make_lab: MakeLab) -> None:
    nginx = program("nginx")
    theirs, checks = recipe("nginx")
    lab = make_lab(settings=f'[balance]\ninterval = "1s"\nsettle = "1s"\n{checks}', nodes=2)
    running = {n: lab.begin(n, nginx, "-c", write(lab, n, "nginx.conf", nginx_conf(theirs))) for n in "ab"}
    lab.start_all()
    follows(lab, "ab", "both are well")
    running["b"].terminate()
    running["b"].wait()
    follows(lab, "a", "b's has ended")
    running["b"] = lab.begin("b", nginx, "-c", "/run/nginx.conf")
    follows(lab, "ab", "b's is back")
    write(lab, "a", "maintenance", "")
    follows(lab, "b", "a is taken out by hand")


def test_the_page_s_examples_are_valid() -> None:
    base = '[cluster]\nname = "x"\n[[node]]\nname = "a"\naddress = "10.0.0.1"\n'
    vip = '[[vip]]\nname = "v"\naddress = "192.0.2.99"\n'
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        assert parse(base + vip + block, "health.md").checks
