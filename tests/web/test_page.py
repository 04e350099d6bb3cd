"""The page in a real browser, with a real server and the daemon's own control server behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.watch.stage import Stage, enlarged
from wackamole.serving import Listen
from wackamole.web.server import Feed, WebServer

from .browser import CHROMIUM, MISSING, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

NODE = "[...document.querySelectorAll('.node')].find((n) => n.querySelector('h3').innerText.startsWith('{}'))"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "control.sock", "settled") as found:
        yield found


@pytest.fixture
def url(stage: Stage) -> Iterator[str]:
    feed = Feed(str(stage.path))
    with WebServer(Listen("127.0.0.1", 0), feed) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.closing.set()
        server.shutdown()
        thread.join()
    feed.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as found:
        yield found


def chips(browser: Browser, node: str) -> list[str]:
    found: list[str] = browser.value(f"[...{NODE.format(node)}.querySelectorAll('.chip')].map((c) => c.textContent)")
    return found


def test_the_page_lives(browser: Browser, url: str, stage: Stage) -> None:
    browser.open(url)
    browser.until("document.querySelectorAll('#vips tr').length === 6", "the VIPs are there")
    assert chips(browser, "a") == ["v1", "v4"]
    assert browser.value("document.title") == "record – wackamole"
    stage.status["vips"][0] |= {"holder": "b", "target": "b", "here": False, "since": time.time()}
    stage.tell(event="moved", vip="v1", source="a", to="b", cause="an operator moved it", time=time.time())
    browser.until(f"{NODE.format('b')}.innerText.includes('v1')", "v1 has moved")
    assert "v1" not in chips(browser, "a")
    browser.until("document.querySelector('#events li').innerText.includes('a → b')", "and its move is told")
    browser.until("document.querySelector('#vips tr').innerText.includes('from a: ')", "with where it came from")
    browser.until("document.querySelector('#vips tr.fresh')?.innerText.includes('v1')", "and marked")
    stage.status["vips"][5] |= {"holder": None, "target": None, "note": "a: the interface has no carrier"}
    stage.tell(event="moved", vip="v6", source="c", to="nobody", cause="x", time=time.time())
    browser.until(
        "document.querySelector('#troubles .bad')?.innerText.includes('v6: held by nobody')", "trouble is told"
    )
    assert chips(browser, "nobody") == ["v6"]
    assert browser.value("document.title").startswith("×")
    assert browser.faults == []
    assert {r for r in browser.requests if not r.startswith((url, "data:", "about:"))} == set()


def test_the_daemon_and_the_server_go_away_and_come_back(browser: Browser, url: str, stage: Stage) -> None:
    browser.open(url)
    browser.until("document.querySelectorAll('#vips tr').length === 6", "the VIPs are there")
    stage.shut()
    browser.until("document.querySelector('#link').innerText.includes('no daemon answers')", "it says so")
    assert browser.value("document.body.className") == "old"
    stage.open()
    browser.until("document.querySelector('#link').innerText.startsWith('live')", "it is back")
    assert browser.value("document.body.className") == ""
    assert browser.value("document.querySelectorAll('#vips tr').length") == 6


def test_a_filter_and_one_vip(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.until("document.querySelectorAll('#vips tr').length === 6", "the VIPs are there")
    browser.value("at('filter').value = '10.77.1.2'; at('filter').dispatchEvent(new Event('input'))")
    assert browser.value("[...document.querySelectorAll('#vips tr')].map((r) => r.cells[1].innerText)") == ["v2"]
    assert browser.value("document.querySelectorAll('.chip.dim').length") == 5
    browser.value("document.querySelector('#vips button').click()")
    assert browser.value("at('detail').open")
    assert "10.77.1.2/32 is held by b" in browser.value("at('detail-facts').innerText")
    assert browser.value("document.querySelectorAll('#timeline .bar').length") == 1
    assert "held by" in browser.value("document.querySelector('#timeline svg').getAttribute('aria-label')")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    browser.until("!at('detail').open", "it is closed")


def test_what_others_say_is_text(browser: Browser, url: str, stage: Stage) -> None:
    stage.status["warnings"] = ["<img src=x onerror=\"document.title='bad'\"><script>document.title='bad'</script>"]
    stage.status["vips"][0]["name"] = "<b>v1</b>"
    stage.tell(event="odd", text="<i>x</i>", time=time.time())
    browser.open(url)
    browser.until("document.querySelector('#troubles').innerText.includes('<script>')", "it is shown as it is")
    assert browser.value("document.querySelectorAll('main img, main script, main i, td b').length") == 0
    assert "bad" not in browser.value("document.title")


def test_fifty_nodes_and_a_thousand_vips(browser: Browser, url: str, stage: Stage, tmp_path: Path) -> None:
    stage.status = enlarged(stage.status, 50, 1000)
    browser.open(url)
    browser.until("document.querySelectorAll('#vips tr').length === 1000", "all are there")
    assert browser.value("document.querySelectorAll('.chip').length") == 1000
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    assert browser.value("at('events-title').getBoundingClientRect().top < 2 * innerHeight")
    browser.value("at('wrong').click()")
    assert browser.value("[...document.querySelectorAll('#vips tr')].map((r) => r.cells[1].innerText)") == ["vip-501"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_it_can_be_read(browser: Browser, url: str, stage: Stage, scheme: str, width: int) -> None:
    """Contrast of all text is that of WCAG AA at least; everything that can be pressed has a name; nothing is wider than
    the window."""
    stage.status["vips"][5] |= {"holder": None, "target": None, "note": "a: x"}
    stage.status["absent"] = ["d"]
    browser.size(width, 900)
    browser.scheme(scheme)
    browser.open(url)
    browser.until(
        "document.querySelectorAll('#vips tr').length === 6 && at('events').children.length > 0", "it is there"
    )
    assert browser.value(CONTRASTS) == []
    assert browser.value("[...document.querySelectorAll('button')].filter((b) => !b.innerText && !b.ariaLabel)") == []
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")


CONTRASTS = """(() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = parts(c).slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (parts(c)[3] !== 0) return c; }
    return getComputedStyle(document.body).backgroundColor; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility() || e.closest('noscript, dialog')) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${e.className} ${e.textContent.slice(0, 30)} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return poor;
})()"""
