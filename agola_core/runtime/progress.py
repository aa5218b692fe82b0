"""Progress of long work, told to whoever shows it: one interface for exports, imports and builds."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

_SECONDS = 0.1


class Report(msgspec.Struct, frozen=True):
    """How far some work is.

    Attributes:
        work: What is done, such as "export".
        done: Entries or rows so far.
        total: How many there are about; None where that is not known.
        size: Bytes so far.
        seconds: Since the beginning.
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
        """Entries a second, so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds that are left at that rate; None where they are not known."""
        if self.total is None or not self.done:
            return None
        return max(0, self.total - self.done) / self.rate


Progress = Callable[[Report], None]
"""Takes reports, at most some ten a second and the last one; what it raises ends the work."""


def ignore(report: Report) -> None:
    """Take a report and show nothing."""


class Meter:
    """Counts some work and reports it.

    Args:
        work: What is done.
        progress: Who is told.
        total: How many entries there are about.
        clock: Seconds that never go back.
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
        """Count further entries and bytes."""
        self.done += done
        self.size += size
        now = self._clock()
        if now - self._told >= _SECONDS:
            self._told = now
            self._progress(self._report(now))

    def end(self) -> None:
        """Report the end."""
        self._progress(self._report(self._clock(), ended=True))

    def _report(self, now: float, *, ended: bool = False) -> Report:
        return Report(self._work, self.done, self._total, self.size, now - self._started, ended)
