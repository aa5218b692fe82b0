"""Watches of the SQLite coordinator: woken by commits of this process, and by writes of others to the database's files.

The hub keeps the newest changes in memory for watches that are up to date; one that has fallen behind reads the
database. A watch has no queue of its own, so a slow one costs nothing but its position.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

from agola_core.coordinator.port import KeyValue, WatchBatch, WatchEvent
from agola_core.errors import AgolaError, ClosedError, RecoveryError
from agola_core.runtime.clock import until_next
from agola_core.runtime.closing import Closing
from agola_core.runtime.processes.file_events import FileEvents
from agola_core.runtime.processes.forks import Origin, fork_safe
from agola_core.runtime.threads.start import start_thread

_RECENT = 4096
_PAGE = 512
_SHORTEST_POLL = 0.001
_LONGEST_POLL = 1.0
_POLL = 0.008
"""Seconds between looks for commits of other processes, where no events tell of writes."""

Change = tuple[int, list[tuple[str, KeyValue | None]]]
"""A revision and its changes."""

ReadChanges = Callable[[int, int], list[Change]]


class WatchHub:
    """Notifies watches of new revisions.

    Args:
        revision: The newest revision at the start.
        read_changes: Returns the changes of the revisions from the first argument (inclusive) to the second
            (exclusive); raises `CompactedError`.
        read_revision: Returns the newest revision if another process has committed since the last call, else None.
        is_being_written: Returns whether a transaction writes to the database just now.
        origin: The process that opened the database.
        path: The database's file.

    Attributes:
        revision: The newest revision that watches may report.
        wrote: Set after a commit of this process that has no revision, such as a lease's renewal.
        lost: Message of the error that watches raise while the database is gone; "" otherwise.
    """

    def __init__(
        self,
        revision: int,
        read_changes: ReadChanges,
        read_revision: Callable[[], int | None],
        is_being_written: Callable[[], bool],
        origin: Origin,
        path: str,
    ) -> None:
        self.origin = origin
        self._path = path
        self._events: FileEvents | None = None
        self.lock = fork_safe(threading.Lock())
        self.revision = revision
        self.wrote = False
        self.closed = False
        self.lost = ""
        self._read_changes = read_changes
        self._read_revision = read_revision
        self._is_being_written = is_being_written
        self._committed = False
        self._recent: deque[Change] = deque(maxlen=_RECENT)
        self._watches: set[SQLiteWatch] = set()
        self._poller: threading.Thread | None = None
        self._stop_polling = fork_safe(threading.Event())

    def open(self, prefix: str, from_revision: int) -> SQLiteWatch:
        """Start a watch."""
        watch = SQLiteWatch(self, prefix, from_revision)
        with self.lock:
            if self.closed:
                raise ClosedError("the coordinator was closed")
            if self._poller is None:
                if self._events is None:
                    directory, name = os.path.split(os.path.realpath(self._path))
                    self._events = FileEvents.of(directory, (name, f"{name}-wal"))
                self._poller = start_thread("sqlite-watch", self._poll)
            self._watches.add(watch)
        return watch

    def committed(self, batches: list[Change]) -> None:
        """Take the changes of a commit of this process; intervening revisions of other processes are read."""
        newest = batches[-1][0]
        self._committed = True
        with self.lock:
            if newest <= self.revision:
                return
            if not self._watches:
                self._recent.clear()
                self.revision = newest
            elif batches[0][0] != self.revision + 1:
                self._advance_from_database(newest)
            else:
                self._advance(batches)

    def forget(self, watch: SQLiteWatch) -> None:
        """Remove a closed watch."""
        with self.lock:
            self._watches.discard(watch)

    def close(self) -> None:
        """End all watches."""
        with self.lock:
            self.closed = True
            watches = list(self._watches)
            poller = self._poller
        self._stop_polling.set()
        if self._events is not None:
            self._events.interrupt()
        for watch in watches:
            watch.close()
        if poller is not None and poller is not threading.current_thread():
            poller.join()

    def recent_from(self, revision: int) -> list[Change] | None:
        """Return the batches from a revision on if all are in memory, else None; the caller holds the lock."""
        if revision > self.revision:
            return []
        if not self._recent or revision < self._recent[0][0]:
            return None
        start = revision - self._recent[0][0]
        return [self._recent[index] for index in range(start, min(len(self._recent), start + _PAGE))]

    def read(self, revision: int, newest: int) -> tuple[list[Change], int]:
        """Read a page of batches from the database; return it and the revision after it."""
        end = min(revision + _PAGE, newest + 1)
        return self._read_changes(revision, end), end

    def _advance(self, batches: list[Change]) -> None:
        before, self.revision = self.revision, batches[-1][0]
        self._recent.extend(batches)
        for watch in self._watches:
            if watch.woken:
                continue  # it will read everything anyway
            if watch.concerned(batches):
                watch.wake()
            elif watch.position == before + 1:  # up to date and not concerned: advance it
                watch.position = self.revision + 1

    def _advance_from_database(self, revision: int) -> None:
        while self.revision < revision:
            end = min(self.revision + 1 + _PAGE, revision + 1)
            try:
                found = self._read_changes(self.revision + 1, end)
            except AgolaError:  # compacted by another process: the watches find out themselves
                self._recent.clear()
                self.revision = revision
                for watch in self._watches:
                    watch.wake()
                return
            by_revision = dict(found)
            self._advance([(number, by_revision.get(number, [])) for number in range(self.revision + 1, end)])

    def _lose(self, message: str) -> None:
        if self.lost:
            return
        self.lost = message
        with self.lock:
            for watch in self._watches:
                watch.wake()

    def _poll(self) -> None:
        """Look for commits of other processes: at every event, and ever more seldom until nobody writes any more.

        The event of a write comes before its commit can be seen, and nothing tells when it can. But all that was
        written before can be seen once no transaction writes.
        """
        pause = gap = _SHORTEST_POLL
        try:
            while not self._stop_polling.is_set():
                came = self._wait(pause, gap)
                pause, gap = _SHORTEST_POLL if came else min(2 * pause, _LONGEST_POLL), _SHORTEST_POLL
                committed, wrote, self._committed, self.wrote = self._committed, self.wrote, False, False
                if committed or wrote:  # the event was of this process, and more of them may follow
                    pause = gap = _POLL
                if not came and not committed and _POLL <= pause < _LONGEST_POLL and not self._is_being_written():
                    pause = _LONGEST_POLL  # the look below sees all that there were events of
                if not committed:  # such a commit has read those of others before it
                    self._look()
        finally:
            if self._events is not None:
                self._events.close()

    def _wait(self, pause: float, gap: float) -> bool:
        """Wait for an event, at most for a pause; return whether it came, and what follows it within a gap."""
        if self._events is None or self._events.deaf:
            self._stop_polling.wait(_POLL)
            return False
        if not self._events.wait(until_next(pause) if pause == _LONGEST_POLL else pause):
            return False
        with self._events.muted():
            self._stop_polling.wait(gap)
        return True

    def _look(self) -> None:
        try:
            revision = self._read_revision()
        except RecoveryError as error:  # the database is gone
            self._lose(str(error))
            return
        except AgolaError:  # closing, or the disk fails: the watches' own reads report it
            return
        self.lost = ""
        if revision is not None:
            with self.lock:
                if revision > self.revision:
                    self._advance_from_database(revision)


class SQLiteWatch(Closing):
    """A running watch (see `agola_core.coordinator.port.Watch`).

    Attributes:
        prefix: Prefix of the reported keys.
        position: The next revision to read.
    """

    def __init__(self, hub: WatchHub, prefix: str, from_revision: int) -> None:
        self.prefix = prefix
        self.position = max(from_revision, 1)
        self._hub = hub
        self._closed = False
        self._woken = fork_safe(threading.Event())
        self._ready: deque[WatchBatch] = deque()

    @property
    def woken(self) -> bool:
        """Whether a `next` will read before it waits."""
        return self._woken.is_set()

    def wake(self) -> None:
        """Wake a blocked `next`."""
        if not self._woken.is_set():
            self._woken.set()

    def concerned(self, changes: list[Change]) -> bool:
        """Return whether any of the changes is to be reported."""
        prefix = self.prefix
        for _, changed in changes:
            for key, _ in changed:
                if key.startswith(prefix):
                    return True
        return False

    def next(self, timeout: float | None = None) -> WatchBatch | None:
        """Return the next batch (see the port)."""
        if self._ready and not self._closed:
            self._hub.origin.check()
            return self._ready.popleft()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._hub.origin.check()
        while True:
            if self._closed:
                raise ClosedError("the watch was closed")
            if self._ready:
                return self._ready.popleft()
            if self._hub.lost:
                raise RecoveryError(self._hub.lost)
            self._woken.clear()
            if self._fill():
                continue
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._woken.wait(left)

    def _fill(self) -> bool:
        """Read further revisions; return whether there were any."""
        with self._hub.lock:
            begin, newest = self.position, self._hub.revision
            if begin > newest:
                return False
            batches = self._hub.recent_from(begin)
            end = batches[-1][0] + 1 if batches else begin
        if batches is None:  # commits during the read come with the next one
            batches, end = self._hub.read(begin, newest)
        prefix = self.prefix
        for revision, changed in batches:
            events = [WatchEvent(key, item) for key, item in changed if key.startswith(prefix)]
            if events:
                self._ready.append(WatchBatch(revision, tuple(events)))
        with self._hub.lock:
            self.position = max(self.position, end)
        return True

    def close(self) -> None:
        """End the watch."""
        self._closed = True
        self._hub.forget(self)
        self._woken.set()
