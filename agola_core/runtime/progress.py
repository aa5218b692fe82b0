"""Progress reports of long operations (exports, imports, builds), through one interface."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

_SECONDS = 0.1


class Report(msgspec.Struct, frozen=True):
    """The progress of an operation.

    Attributes:
        work: Name of the operation, such as "export".
        done: Entries or rows so far.
        total: Approximate total; None if unknown.
        size: Bytes so far.
        seconds: Seconds since the start.
        ended: Whether this is the last report.
    """

    work: str
    done: int
    total: int | None
    size: int
    seconds: float
    ended: bool = False

    @property
    def rate(self) -> float:
        """Entries per second so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Estimated remaining seconds; None if unknown."""
        if self.total is None or not self.done:
            return None
        return max(0, self.total - self.done) / self.rate


Progress = Callable[[Report], None]
"""Receives about ten reports per second at most, and the last one; an error that it raises aborts the operation."""


def ignore(report: Report) -> None:
    """Ignore a report."""


class Meter:
    """Counts the progress of an operation and reports it.

    Args:
        work: Name of the operation.
        progress: Receives the reports.
        total: Approximate number of entries.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        work: str,
        progress: Progress,
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.done = 0
        self.size = 0
        self._work = work
        self._progress = progress
        self._total = total
        self._clock = clock
        self._started = self._told = clock()

    def add(self, done: int, size: int = 0) -> None:
        """Add to the counts."""
        self.done += done
        self.size += size
        now = self._clock()
        if now - self._told >= _SECONDS:
            self._told = now
            self._progress(self._report(now))

    def end(self) -> None:
        """Send the last report."""
        self._progress(self._report(self._clock(), ended=True))

    def _report(self, now: float, *, ended: bool = False) -> Report:
        return Report(self._work, self.done, self._total, self.size, now - self._started, ended)
