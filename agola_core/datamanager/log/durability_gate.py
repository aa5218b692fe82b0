"""Where writers wait until storage has their WALs, as `durability="storage"` has it."""

from __future__ import annotations

import heapq
import itertools
import threading

from agola_core.sequence import Sequence


class SyncGate:
    """Lets writers through by the sequences of their WALs. The log's lock guards it.

    A crowd that wakes at each commit would only stand in the way of those who commit.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Sequence, int, threading.Lock]] = []
        self._numbers = itertools.count()

    def enter(self, sequence: Sequence) -> threading.Lock:
        """Return a lock that is held until storage has a WAL, or something happened that its writer must look at."""
        held = threading.Lock()
        held.acquire()
        heapq.heappush(self._waiting, (sequence, next(self._numbers), held))
        return held

    def leave(self, held: threading.Lock) -> None:
        """Give a place up."""
        self._waiting = [item for item in self._waiting if item[2] is not held]
        heapq.heapify(self._waiting)

    def let_through(self, synced: Sequence) -> None:
        """Wake those whose WALs storage now has."""
        while self._waiting and self._waiting[0][0] <= synced:
            heapq.heappop(self._waiting)[2].release()

    def let_all_look(self) -> None:
        """Wake everybody: the log was closed, or its history is another one."""
        waiting, self._waiting = self._waiting, []
        for _, _, held in waiting:
            held.release()
