"""A terminal for a real program: a pseudo-terminal, and an emulator that knows what is on the screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pyte

SECONDS_MAX = 60.0
SOURCE = Path(__file__).parents[2] / "src"
KEYS = {
    "up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D", "pagedown": "\x1b[6~", "pageup": "\x1b[5~",
    "end": "\x1b[4~", "home": "\x1b[1~", "tab": "\t", "enter": "\r", "escape": "\x1b", "backspace": "\x7f",
}  # fmt: skip


class Terminal:
    """Runs `wackamole` with these arguments on a terminal of its own. `sent`: the bytes that it wrote."""

    def __init__(
        self, *arguments: str, columns: int = 80, rows: int = 24, user: int | None = None, **environment: str
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.sent = 0
        self._master, slave = pty.openpty()
        self._size(columns, rows)
        env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        # the emulator does not know how others scroll
        env |= {"TERM": "linux", "PYTHONPATH": str(SOURCE), "LC_ALL": "C.UTF-8", **environment}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "wackamole", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, wrong: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._process.pid

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """What a terminal does when its window gets another size."""
        self.screen.resize(rows, columns)
        self._size(columns, rows)
        os.killpg(self._process.pid, signal.SIGWINCH)

    def press(self, *keys: str) -> None:
        """Type characters and keys by name."""
        os.write(self._master, "".join(KEYS.get(key, key) for key in keys).encode())

    def read(self, seconds: float) -> bool:
        """Take what the program writes within that time; whether there was something."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        content = b""
        with contextlib.suppress(OSError):  # it has ended
            content = os.read(self._master, 65536)
        self.sent += len(content)
        self._stream.feed(content)
        return bool(content)

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, fact: Callable[[str], bool], story: str) -> str:
        """Wait until the screen is so."""
        deadline = time.monotonic() + SECONDS_MAX
        while not fact(self.text):
            assert time.monotonic() < deadline, f"{story}; there is:\n{self.text}"
            self.read(0.05)
        return self.text

    def ended(self) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + SECONDS_MAX
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on; there is:\n{self.text}"
            self.read(0.05)
        while self.read(0):
            pass
        return self._process.returncode
