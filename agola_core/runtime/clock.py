"""The monotonic clock that all processes of a machine share, for leases and deadlines, and the id of its boot."""

from __future__ import annotations

import time
from pathlib import Path


def boot_clock() -> float:
    """Return the seconds since boot, including suspends: common to all processes, never set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return the id of this boot of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
