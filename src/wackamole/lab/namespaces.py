"""Network and mount namespaces: entering them, and opening sockets in them (setns(2), ip-netns(8))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

NETNS = Path("/run/netns")
SHM = Path("/dev/shm")  # noqa: S108
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class ToolFailed(Exception):
    """A program that the lab calls failed; the sentence has its own words."""


def tool(*command: str, text: str | None = None) -> str:
    """Run a program to its end and return what it printed. Raises ToolFailed."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ToolFailed(f"the program {command[0]!r} is not installed") from None
    if done.returncode:
        raise ToolFailed(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def ip(*lines: str, namespace: str | None = None) -> None:
    """Carry out lines of ip(8) in one go."""
    where = ("-n", namespace) if namespace else ()
    tool("ip", *where, "-batch", "-", text="\n".join(lines) + "\n")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def enter_network(namespace: str) -> None:
    """Move the calling thread into a network namespace."""
    fd = os.open(NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, CLONE_NEWNET), f"setns {namespace}")
    finally:
        os.close(fd)


def mount(source: str, target: str, kind: str = "none", flags: int = 0) -> None:
    """mount(2)."""
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), flags, None), f"mount on {target}")


def own_mounts(binds: dict[str, str]) -> None:
    """Give the calling process mounts of its own: each target of `binds` shows its source, and /sys this network."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    for target, source in binds.items():
        mount(source, target, flags=MS_BIND)
    with contextlib.suppress(OSError):
        mount("sysfs", "/sys", "sysfs")


def opened_in(namespace: str, opener: Callable[[], T]) -> T:
    """What `opener` returns when it is called in a network namespace: sockets stay in the one they were opened in."""
    found: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            enter_network(namespace)
            found.append(opener())
        except BaseException as wrong:
            failed.append(wrong)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def processes_in(namespace: str) -> list[int]:
    """The processes whose network namespace this is."""
    try:
        mine = (NETNS / namespace).stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                theirs = (entry / "ns" / "net").stat()
                if (theirs.st_ino, theirs.st_dev) == (mine.st_ino, mine.st_dev):
                    found.append(int(entry.name))
    return found
