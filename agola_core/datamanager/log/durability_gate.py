"""The durability gate: writers wait here until their WALs are in storage (`durability="storage"`)."""

from __future__ import annotations

import heapq
import itertools
import threading

from agola_core.runtime.processes.forks import fork_safe
from agola_core.sequence import Sequence


class DurabilityGate:
    """Wakes each writer when its own WAL is in storage, and no sooner. Thread-safe.

    If every commit woke all of them, they would compete with the committing threads for the interpreter; and if they
    took the log's lock, which a commit holds until it is durable, they would wait for commits that are not their own.

    Attributes:
        synced: The newest WAL that is in storage.
    """

    def __init__(self, synced: Sequence) -> None:
        self.synced = synced
        self._lock = fork_safe(threading.Lock())
        self._waiting: list[tuple[Sequence, int, threading.Lock]] = []
        self._numbers = itertools.count()

    def enter(self, sequence: Sequence) -> threading.Lock | None:
        """Return a lock that is released once a WAL is in storage, or when its writer must check the log again.

        None if the WAL is in storage.
        """
        held = threading.Lock()
        held.acquire()
        with self._lock:
            if sequence <= self.synced:
                return None
            heapq.heappush(self._waiting, (sequence, next(self._numbers), held))
        return held

    def leave(self, held: threading.Lock) -> None:
        """Stop waiting."""
        with self._lock:
            self._waiting = [item for item in self._waiting if item[2] is not held]
            heapq.heapify(self._waiting)

    def let_through(self, synced: Sequence) -> None:
        """Note that storage has the log up to a WAL, and wake the writers whose WALs are now there."""
        through = []
        with self._lock:
            if synced <= self.synced:
                return
            self.synced = synced
            while self._waiting and self._waiting[0][0] <= synced:
                through.append(heapq.heappop(self._waiting)[2])
        for held in through:
            held.release()

    def reset(self, synced: Sequence) -> None:
        """Begin again, perhaps with another lineage, of which storage has the log up to a WAL; all check the log."""
        with self._lock:
            if synced.epoch != self.synced.epoch or synced > self.synced:  # a batch may have arrived meanwhile
                self.synced = synced
        self.wake_all()

    def wake_all(self) -> None:
        """Wake every writer: the log was closed, or its lineage changed."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for _, _, held in waiting:
            held.release()
