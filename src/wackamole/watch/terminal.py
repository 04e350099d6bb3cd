"""The terminal: puts lines on it, reads keys, has orders carried out (docs/decisions/0019-watch-with-curses.md).

curses sends only the characters that differ from what is on the screen, so a slow link carries a VIP's move in a few bytes.
"""

from __future__ import annotations

import contextlib
import curses
import io
import locale
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..client import NotReachable, Refused, ask, may_command
from ..following import Following, Heard
from ..overview import Grade, Happening, Overview, Trouble, happening, overview
from .look import Look, Order, Quit, Reading, Why, Wish, pressed
from .screen import Line, Moment, Style, lines, room_for

REDRAW_SECONDS = 0.1
"""However much happens, the screen is drawn no more often; after a key at once."""
KEYS = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right",
    curses.KEY_PPAGE: "pageup",
    curses.KEY_NPAGE: "pagedown",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_BTAB: "backtab",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
}
CONTROLS = {"\t": "tab", "\n": "enter", "\r": "enter", "\x1b": "escape", "\x7f": "backspace", "\b": "backspace"}
ASCII = str.maketrans("·×■□○→▸▏–…", ".x#=o>> -~")
"""For a terminal that is not in UTF-8."""


class NoTerminal(Exception):
    """Nothing can be drawn here; the sentence says why."""


def watch(path: str) -> None:
    """Show the cluster as the daemon of this control socket sees it, until somebody quits. Raises NoTerminal."""
    locale.setlocale(locale.LC_ALL, "")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoTerminal("watch needs a terminal; `wackamole status` prints once, `wackamole events -f` goes on")
    try:
        curses.setupterm()
    except curses.error:
        raise NoTerminal(f"this terminal is not known here (TERM={os.environ.get('TERM', '')!r})") from None
    curses.set_escdelay(25)
    with contextlib.suppress(KeyboardInterrupt):
        curses.wrapper(lambda window: Watch(path, window).run())


class Watch:
    """One session on one terminal; everything but the following of the daemon and an order happens on the caller's
    thread."""

    def __init__(self, path: str, window: curses.window) -> None:
        self._path = path
        self._window = window
        self._attributes = _attributes()
        self._ascii = locale.nl_langinfo(locale.CODESET).upper().replace("-", "") != "UTF8"
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._following = Following(path, self._poke)
        self._answers: queue.SimpleQueue[Callable[[Look], Look]] = queue.SimpleQueue()
        self._look = Look()
        self._seen: tuple[float, Overview] | None = None
        self._may = True
        self._told: tuple[object, tuple[Happening, ...]] = (None, ())
        window.keypad(True)
        window.nodelay(True)
        window.leaveok(True)
        with contextlib.suppress(curses.error):
            curses.curs_set(0)

    def run(self) -> None:
        """Draw, wait, read keys, until somebody quits."""
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._following.start()
        try:
            while self._turn():
                pass
        finally:
            signal.set_wakeup_fd(before)
            self._following.close()

    def _turn(self) -> bool:
        moment = self._moment()
        self._draw(moment)
        drawn = time.monotonic()
        until_next_second = 1 - time.time() % 1
        select.select([0, self._woken.fileno()], [], [], until_next_second)
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        while not self._answers.empty():
            self._look = self._answers.get()(self._look)
        keys = list(self._keys())
        if not keys:
            rest = drawn + REDRAW_SECONDS - time.monotonic()
            if rest > 0:
                select.select([0], [], [], rest)
                keys = list(self._keys())
        for key in keys:
            height, width = self._window.getmaxyx()
            moment = self._moment()
            room = room_for(moment, self._look, width, height)
            self._look, wish = pressed(self._look, key, moment.found, moment.happenings, room, may=moment.may)
            if isinstance(wish, Quit):
                return False
            if wish is not None:
                threading.Thread(target=self._carry_out, args=(wish,), daemon=True).start()
        return True

    def _poke(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b"!")

    # -- what is known ----------------------------------------------------------------------------------------------------

    def _moment(self) -> Moment:
        heard = self._following.now()
        now = time.monotonic()
        if heard.status is not None and (self._seen is None or self._seen[0] != heard.status_at):
            self._seen = heard.status_at, overview(heard.status)
            self._may = may_command(self._path)
        if self._told[0] is not heard.entries:
            self._told = heard.entries, tuple(map(happening, heard.entries))
        return Moment(
            found=self._seen[1] if self._seen is not None else None,
            happenings=self._told[1],
            now=time.time(),
            age=now - heard.status_at,
            late=_late(heard, now),
            gone=heard.gone,
            may=self._may,
        )

    # -- orders -----------------------------------------------------------------------------------------------------------

    def _carry_out(self, wish: Wish) -> None:
        """In a thread of its own: a drain takes its time."""
        try:
            match wish:
                case Order():
                    said = _done(wish, ask(self._path, wish.verb, wish.arguments))
                    self._answers.put(lambda look: replace(look, said=Trouble(Grade.NOTICE, said)))
                case Why():
                    text = _why_text(ask(self._path, "why", {"vip": wish.vip}), self._window.getmaxyx()[1] - 2)
                    self._answers.put(lambda look: replace(look, mode=Reading("why", text)))
        except (NotReachable, Refused, ValueError) as no:
            refusal = Trouble(Grade.BAD, str(no))
            self._answers.put(lambda look: replace(look, said=refusal))
        self._following.look()
        self._poke()

    # -- keys and characters ----------------------------------------------------------------------------------------------

    def _keys(self) -> Iterator[str]:
        while True:
            try:
                key = self._window.get_wch()
            except curses.error:
                return
            if isinstance(key, int):
                if key in KEYS:
                    yield KEYS[key]
            else:
                yield CONTROLS.get(key, key)

    def _draw(self, moment: Moment) -> None:
        size = os.get_terminal_size(1)
        if (size.lines, size.columns) != self._window.getmaxyx():
            curses.resizeterm(size.lines, size.columns)
        height, width = self._window.getmaxyx()
        self._window.erase()
        for y, line in enumerate(lines(moment, self._look, width, height)):
            self._put(y, line)
        self._window.refresh()

    def _put(self, y: int, line: Line) -> None:
        self._window.move(y, 0)
        for piece in line:
            text = "".join(c if c.isprintable() else "?" for c in piece.text)  # what other hosts say is only shown
            if self._ascii:
                text = text.translate(ASCII).encode("ascii", "replace").decode()
            with contextlib.suppress(curses.error):  # the last character of the last line is there all the same
                self._window.addstr(text, self._attributes[piece.style])


def _late(heard: Heard, now: float) -> float:
    return now - heard.asked_at if heard.asked_at is not None and heard.gone is None else 0.0


def _done(order: Order, result: dict[str, Any]) -> str:
    match order.verb:
        case "move":
            return f"done: {', '.join(result['moved'])} → {result['to']}"
        case "drain":
            return f"done: {result['node']} is drained, {result['vips_moved']} VIPs were moved"
        case _:
            return f"done: {result['node']} may hold VIPs again"


def _why_text(found: dict[str, object], width: int) -> tuple[str, ...]:
    from rich.console import Console

    from ..render import print_why

    text = io.StringIO()
    print_why(found, Console(file=text, width=width, highlight=False, color_system=None))
    return tuple(text.getvalue().splitlines())


def _attributes() -> dict[Style, int]:
    """Sixteen colours are more than enough; without any, and with NO_COLOR, the signs and the wording say the same."""
    found = dict.fromkeys(Style, curses.A_NORMAL)
    found |= {Style.DIM: curses.A_DIM, Style.BOLD: curses.A_BOLD, Style.HEADER: curses.A_BOLD | curses.A_UNDERLINE}
    found |= {Style.TITLE: curses.A_REVERSE, Style.CURSOR: curses.A_REVERSE}
    found |= {Style.ALARM: curses.A_REVERSE | curses.A_BOLD, Style.BAD: curses.A_BOLD}
    if curses.has_colors():
        curses.use_default_colors()  # the background is the terminal's own, light or dark
    if not curses.has_colors() or os.environ.get("NO_COLOR"):
        return found
    colours = {Style.GOOD: curses.COLOR_GREEN, Style.NOTICE: curses.COLOR_YELLOW, Style.BAD: curses.COLOR_RED}
    colours |= {Style.FRESH: curses.COLOR_CYAN, Style.ALARM: curses.COLOR_RED}
    for number, (style, colour) in enumerate(colours.items(), 1):
        curses.init_pair(number, colour, -1)
        found[style] |= curses.color_pair(number)
    return found
