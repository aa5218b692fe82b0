"""The last hour of a store in memory: samples that are taken by the way, when something runs anyway."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from agola_core.datamanager import Counters
from agola_core.runservice.archive.store_history import StoreSample, sample_of
from agola_core.runtime.processes.forks import fork_safe

HOUR = 3600.0
_FINE_SECONDS, _COARSE_SECONDS = 1.0, 10.0
_FINE_KEPT = 300


class RecentSamples:
    """Keeps samples of the last hour: one in ten seconds at most, and of the newest one a second. Thread-safe.

    Args:
        read: Returns how far the store is, from memory.
        clock: Seconds, of a clock that is not set back.
    """

    def __init__(self, read: Callable[[], Counters], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._lock = fork_safe(threading.Lock())
        self._fine: deque[StoreSample] = deque(maxlen=_FINE_KEPT)
        self._coarse: deque[StoreSample] = deque(maxlen=int(HOUR / _COARSE_SECONDS))

    def take(self) -> None:
        """Take a sample, unless the last one is newer than a second."""
        with self._lock:
            now = self._clock()
            if self._fine and now - self._fine[-1].time < _FINE_SECONDS:
                return
            sample = sample_of(self._read(), now)
            self._fine.append(sample)
            if not self._coarse or now - self._coarse[-1].time >= _COARSE_SECONDS:
                self._coarse.append(sample)

    def all(self) -> list[StoreSample]:
        """Return the samples of the last hour, oldest first."""
        with self._lock:
            oldest, since = self._clock() - HOUR, self._fine[0].time if self._fine else 0.0
            kept = [sample for sample in self._coarse if sample.time < since]
            return [sample for sample in (*kept, *self._fine) if sample.time >= oldest]
