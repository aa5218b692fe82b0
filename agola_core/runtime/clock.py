"""The clock for leases and deadlines that others must agree with, and what tells one start of it from another."""

from __future__ import annotations

import time
from pathlib import Path


def boot_clock() -> float:
    """Return seconds since the machine started, sleep included: the same for all its processes, never set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what tells this start of the machine from others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
