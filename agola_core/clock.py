"""The clock for leases and deadlines that others must agree with."""

from __future__ import annotations

import time


def boot_clock() -> float:
    """Return seconds since the machine started, sleep included: the same for all its processes, never set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
