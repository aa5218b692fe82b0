"""The durability gate: writers wait here until their WALs are in storage (`durability="storage"`)."""

from __future__ import annotations

import heapq
import itertools
import threading

from agola_core.sequence import Sequence


class DurabilityGate:
    """Wakes each writer when its own WAL is in storage, and no sooner. The log's lock guards it.

    If every commit woke all of them, they would compete with the committing threads for the interpreter.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Sequence, int, threading.Lock]] = []
        self._numbers = itertools.count()

    def enter(self, sequence: Sequence) -> threading.Lock:
        """Return a lock that is released once a WAL is in storage, or when its writer must check the log again."""
        held = threading.Lock()
        held.acquire()
        heapq.heappush(self._waiting, (sequence, next(self._numbers), held))
        return held

    def leave(self, held: threading.Lock) -> None:
        """Stop waiting."""
        self._waiting = [item for item in self._waiting if item[2] is not held]
        heapq.heapify(self._waiting)

    def let_through(self, synced: Sequence) -> None:
        """Wake the writers whose WALs are now in storage."""
        while self._waiting and self._waiting[0][0] <= synced:
            heapq.heappop(self._waiting)[2].release()

    def wake_all(self) -> None:
        """Wake every writer: the log was closed, or its lineage changed."""
        waiting, self._waiting = self._waiting, []
        for _, _, held in waiting:
            held.release()
