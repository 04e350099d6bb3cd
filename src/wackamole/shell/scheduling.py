"""Running before everything that is not real-time (sched(7)): a lease that is renewed late is a blink of every address.

Each thread that cannot wait asks for itself. What it starts does not inherit it: the disk's thread, a private Corosync
(which asks for its own, higher) and everything else run as usual.
"""

from __future__ import annotations

import contextlib
import os

PRIORITY = 10
"""Of 1 to 99; Corosync runs at 99."""


def before_others() -> None:
    """Ask for it, for this thread. A host that does not grant it (RLIMIT_RTPRIO, a container) serves all the same."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))


def current() -> str:
    """How this thread is scheduled: `rr` or `other`."""
    return "rr" if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR else "other"
