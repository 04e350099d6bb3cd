"""Running before everything that is not real-time (sched(7)): a lease that is renewed late is a blink of every address.

Each thread asks for itself. The loop and the addresses' thread cannot wait; the daemon's others run just below them,
since who holds the interpreter's lock keeps the loop waiting: were it scheduled as usual, the loop would wait for whatever
the host computes. What a thread starts does not inherit it: a private Corosync (which asks for its own, higher) and every
other program run as usual.
"""

from __future__ import annotations

import contextlib
import os

PRIORITY = 10
"""Of 1 to 99; Corosync runs at 99."""


def before_others() -> None:
    """Ask for it, for this thread. A host that does not grant it (RLIMIT_RTPRIO, a container) serves all the same."""
    _ask(PRIORITY)


def behind_the_loop() -> None:
    """Ask for it, for a thread that may hold the interpreter's lock while the loop wants it."""
    _ask(PRIORITY - 1)


def _ask(priority: int) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(priority))


def current() -> str:
    """How this thread is scheduled: `rr` or `other`."""
    return "rr" if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR else "other"
