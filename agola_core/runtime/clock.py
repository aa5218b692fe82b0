"""The monotonic clock that all processes of a machine share, for leases and deadlines, and the id of its boot."""

from __future__ import annotations

import time
from pathlib import Path


def boot_clock() -> float:
    """Return the seconds since boot, including suspends: common to all processes, never set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def until_next(interval: float) -> float:
    """Return the seconds until this clock next shows a multiple of an interval: what is periodic does its work then.

    An idle process then wakes once for all of it, with warm caches, its writes share a commit and its requests a
    connection that is awake.

    Args:
        interval: Seconds; the result is between a tenth of it, for who wakes a little early, and 1.1 of it.
    """
    left = interval - boot_clock() % interval
    return left if left >= interval / 10 else left + interval


def boot_id() -> str:
    """Return the id of this boot of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


MOST_SECONDS = 100 * 365 * 86400.0
"""A hundred years, the longest time of options and timeouts: waits and dates overflow beyond some hundreds."""


def is_duration(seconds: object) -> bool:
    """Return whether something is a number of seconds that can be waited for."""
    return (
        isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and -MOST_SECONDS <= seconds <= MOST_SECONDS
    )
