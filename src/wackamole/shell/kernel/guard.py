"""A small process that outlives the daemon by a moment: when the daemon is gone it removes the addresses and routes that are left.

The fence has silenced them by then; but an orphaned gate falls with the next firewall reload, and without nftables
nothing else would ever remove them. The guard is forked before the daemon has threads or sockets, keeps one end of a
pipe, and wakes when the other end closes: there is no pid to mistake and nothing to ask. It cannot see a daemon that is
stopped; the lease can.

`descriptors_close_high_first` is the self-test of what the fence relies on (hazard 5): at exit the kernel closes the
highest descriptor first, so that the key is gone before a group engine hears of the death.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time
import traceback
from pathlib import Path

from .nfnetlink import high_descriptor
from .routes import RoutingTables
from .rtnl import Placed, Rtnl

ARMED, DONE = b"a", b"d"
TRIES = 5


class Guard:
    """The daemon's side: holds the pipe open. It is made when the guard watches, and holds nothing that it was forked with:
    what it held would close with it, and not when the daemon dies. Raises ChildProcessError if it does not get so far."""

    def __init__(self, inherited: tuple[int, int] | None = None) -> None:
        """`inherited`: pipe and process of a guard that a former process of this pid has started."""
        self.armed = inherited is not None
        """Whether something of ours may be on the interfaces."""
        if inherited is not None:
            self.descriptor, self.pid = inherited
            os.set_inheritable(self.descriptor, False)
            return
        read_end, self.descriptor = os.pipe2(os.O_CLOEXEC)
        ready, tell = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                _watch(read_end, tell)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(read_end)
        os.close(tell)
        with os.fdopen(ready, "rb") as watches:
            if not watches.read(1):
                os.close(self.descriptor)
                os.waitpid(self.pid, 0)
                raise ChildProcessError("the guard process does not start")

    def alive(self) -> bool:
        """Whether it still watches; one that was killed is reaped here."""
        if self.pid:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                    return True
            self.pid = 0
        return False

    def arm(self) -> None:
        """From now on what is on the interfaces is ours: a daemon that is refused because another runs here has nothing
        to clean up."""
        self.armed = True
        with contextlib.suppress(BrokenPipeError):
            os.write(self.descriptor, ARMED)

    def disarm(self) -> None:
        """Nothing of ours is left."""
        self.armed = False

    def dismiss(self) -> None:
        """There is nothing left to remove: let it end."""
        if self.pid:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.descriptor, DONE)
        os.close(self.descriptor)
        if self.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = 0


def _watch(read_end: int, tell: int) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in (read_end, tell):
            with contextlib.suppress(OSError):
                os.close(descriptor)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("wackamole-guard")
    rtnl = RoutingTables()
    os.write(tell, b".")
    os.close(tell)
    armed = False
    while (said := os.read(read_end, 1)) != b"":
        if said == DONE:
            return
        armed = True
    if armed:
        remove_ours(rtnl)


def remove_ours(rtnl: RoutingTables) -> int:
    """Remove every address, route and rule that carries our tag. Returns how many addresses went."""
    found, refused = remove_addresses(rtnl)
    rtnl.take(rtnl.ours())
    return len(found) - len(refused)


def remove_addresses(rtnl: Rtnl) -> tuple[tuple[Placed, ...], dict[Placed, int]]:
    """Remove every address that carries our tag. Returns those that there were, and the errno of each that stays."""
    found: dict[Placed, None] = {}
    refused: dict[Placed, int] = {}
    for _ in range(TRIES):  # a list that others change while it is read may lack some
        ours = [a for a in rtnl.addresses() if a.ours]
        refused = rtnl.delete(ours)
        if not ours:
            break
        found |= dict.fromkeys(ours)
    return tuple(found), refused


def descriptors_close_high_first() -> bool:
    """Kill a child that holds a low and a high descriptor, a few times: when the low one is closed, is the high one?
    Also False where a high one cannot be had."""
    return all(_high_was_first() for _ in range(TRIES))


def _high_was_first() -> bool:
    low_read, low_write = os.pipe2(os.O_CLOEXEC)
    high_read, high_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            raised = fcntl.fcntl(high_write, fcntl.F_DUPFD_CLOEXEC, high_descriptor())
            os.close(high_write)
            os.write(raised, b".")
            while True:
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(low_write)
    os.close(high_write)
    try:
        if os.read(high_read, 1) != b".":  # not ready, but dead
            return False
        os.kill(child, signal.SIGKILL)
        select.select([low_read], [], [])
        ready, _, _ = select.select([high_read], [], [], 0)
        return bool(ready) and os.read(high_read, 1) == b""
    finally:
        os.waitpid(child, 0)
        os.close(low_read)
        os.close(high_read)
