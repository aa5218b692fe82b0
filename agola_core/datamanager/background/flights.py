"""Flights: batches of WALs on their way to storage, several at once, for writers that wait for them.

A WAL never waits for the end of a request that left without it. Each batch begins where storage ends for certain and
repeats what the batches before it hold: whichever arrives first, there is never a gap.
"""

from __future__ import annotations

import threading

from agola_core.datamanager.background.sync import Syncer
from agola_core.datamanager.log.log import Log
from agola_core.runtime.processes.forks import fork_safe
from agola_core.sequence import Sequence

FLIGHTS = 8
"""How many batches may be on their way at once: each has a thread that calls `fly` again and again."""

_REPEATED_BYTES = 1024 * 1024
"""No batch leaves while this many bytes are on their way, since it would repeat most of them."""

_NOTHING = Sequence(0, 0)


class Flights:
    """Sends batches as soon as there is something to send.

    One of the threads waits for WALs. Once there are some, it lets another one wait, and takes them to storage.

    Args:
        log: The log.
        syncer: Copies WALs to storage.
        stopping: Set when `fly` is to return.
        interval: Seconds after which WALs are sent though nobody waits for them.
    """

    def __init__(self, log: Log, syncer: Syncer, stopping: threading.Event, interval: float) -> None:
        self._log = log
        self._syncer = syncer
        self._stopping = stopping
        self._interval = interval
        self._turn = fork_safe(threading.Lock())
        self._wanted = fork_safe(threading.Event())
        self._lock = fork_safe(threading.Lock())
        self._on_the_way = _NOTHING
        self._bytes_on_the_way = 0

    def send(self, sequence: Sequence) -> None:
        """Have a WAL sent now, unless it is in a batch on its way; if that fails, it is sent again."""
        if sequence > self._on_the_way and not self._wanted.is_set():
            self._wanted.set()

    def stop(self) -> None:
        """Let `fly` return once it is to stop."""
        self._wanted.set()

    def fly(self) -> None:
        """Wait until there are WALs that are in no batch on its way, and copy them to storage.

        Raises:
            RecoveryError: The coordinator went back in time.
        """
        if not self._wait():
            return
        size = 0
        try:
            batch = self._syncer.newest_batch()
            if batch is None:
                self._syncer.sync()
            else:
                size = sum(map(len, batch.frames))
                self._change(size, batch.last)
                self._syncer.send(batch)
        except BaseException:
            self._on_the_way = _NOTHING  # nobody may wait for it
            self._wanted.set()
            raise
        finally:
            self._change(-size)

    def _wait(self) -> bool:
        """Return True once there is a batch to send; False when the thread is to stop."""
        with self._turn:
            while True:
                self._wanted.clear()
                if self._claim():
                    return True
                if self._stopping.is_set():
                    return False
                self._wanted.wait(self._interval)

    def _claim(self) -> bool:
        newest = self._log.view.sequence
        if newest <= max(self._log.synced, self._on_the_way) or self._bytes_on_the_way >= _REPEATED_BYTES:
            return False
        self._on_the_way = newest
        return True

    def _change(self, size: int, last: Sequence = _NOTHING) -> None:
        """Note that bytes have left, or arrived."""
        with self._lock:
            was_full = self._bytes_on_the_way >= _REPEATED_BYTES
            self._bytes_on_the_way += size
            self._on_the_way = max(self._on_the_way, last)
        if was_full and size < 0:
            self._wanted.set()
