"""The clock of deadlines and leases."""

from __future__ import annotations

import time


def boottime_ms() -> int:
    """CLOCK_BOOTTIME in milliseconds: it goes on while the host sleeps, so a pause shows as a gap."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
