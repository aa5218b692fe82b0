"""Owns background threads: starts, wakes and stops their loops."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from agola_core.runtime.clock import until_next
from agola_core.runtime.failures import log_failure
from agola_core.runtime.processes.forks import Origin, fork_safe

logger = logging.getLogger(__name__)

_SHORTEST_ALIGNED, _LONGEST_ALIGNED = 1.0, 5.0
"""Rounds with an interval between these are at its multiples (see `until_next`)."""

Interval = float | None | Callable[[], float | None]


class Loop:
    """A background loop that calls a function whenever it is woken, and at least every `interval` seconds.

    An error of the function is logged, and the loop continues after a pause that doubles up to `max_backoff`: a loop
    ends only when it is stopped.

    Args:
        name: The thread's name.
        work: Called in every round.
        interval: Seconds between rounds unless the loop is woken, or a function that returns them after each round;
            None waits for `wake` alone.
        max_backoff: Maximum pause after an error, in seconds.
    """

    def __init__(
        self, name: str, work: Callable[[], object], *, interval: Interval = None, max_backoff: float = 5.0
    ) -> None:
        self.name = name
        self.failures = 0
        self._work = work
        self._interval = interval
        self._max_backoff = max_backoff
        self._woken = fork_safe(threading.Event())
        self._stopping = fork_safe(threading.Event())
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Request a round now; requests during a round are merged into one more round."""
        if not self._woken.is_set():
            self._woken.set()

    def signal_stop(self) -> None:
        """Ask the loop to stop after its current round."""
        self._stopping.set()
        self._woken.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread to end; return whether it has.

        Args:
            timeout: Seconds to wait; None waits indefinitely.
        """
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether the loop was asked to stop; to be checked in long rounds."""
        return self._stopping.is_set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                self._work()
                self.failures = 0
            except Exception as error:  # noqa: BLE001 - it is logged, and the next round tries again
                self.failures += 1
                if not self._stopping.is_set():
                    log_failure(logger, error, "loop %s failed (%d in a row)", self.name, self.failures)
            if self.failures:
                self._stopping.wait(min(0.05 * 2 ** min(self.failures, 10), self._max_backoff))
            elif not self._stopping.is_set():  # a stop before the clear above must not be missed
                self._woken.wait(self._pause())

    def _pause(self) -> float | None:
        interval = self._interval
        if callable(interval):
            return interval()
        if interval is not None and _SHORTEST_ALIGNED <= interval <= _LONGEST_ALIGNED:
            return until_next(interval)
        return interval


class Supervisor:
    """Owns the loops of a component; a context manager that stops them all on exit.

    Args:
        name: The component's name, used as the prefix of thread names.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._origin = Origin("what the loops work for")
        self._loops: list[Loop] = []
        self._lock = fork_safe(threading.Lock())

    def loop(
        self, name: str, work: Callable[[], object], *, interval: Interval = None, max_backoff: float = 5.0
    ) -> Loop:
        """Start a loop and return it (see `Loop` for the parameters)."""
        loop = Loop(f"{self.name}-{name}", work, interval=interval, max_backoff=max_backoff)
        with self._lock:
            self._loops.append(loop)
        loop.start()
        return loop

    def stop(self, timeout: float = 10.0) -> list[str]:
        """Stop all loops, last started first.

        Args:
            timeout: Seconds to wait for all of them.

        Returns:
            The names of the loops that did not end in time.
        """
        if not self._origin.is_here:  # a forked child has none of the threads
            return []
        with self._lock:
            loops, self._loops = self._loops, []
        for loop in reversed(loops):
            loop.signal_stop()
        end = time.monotonic() + timeout
        late = [loop.name for loop in reversed(loops) if not loop.join(max(0.0, end - time.monotonic()))]
        if late:
            logger.error("loops that did not stop within %.0f s: %s", timeout, ", ".join(late))
        return late

    def status(self) -> dict[str, bool]:
        """Return whether each loop's thread is running."""
        with self._lock:
            return {loop.name: loop.alive for loop in self._loops}

    def __enter__(self) -> Self:
        """Return the supervisor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all loops."""
        self.stop()
