"""Records when the logs of a task grew, each in a file beside the log (see `line_times`)."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from agola_core.executor.files import open_own, read_own
from agola_core.executor.tasks.directory import TaskDirectory
from agola_core.executor.tasks.log_watcher import LogWatcher
from agola_core.runservice.model.line_times import MAX_BYTES, LineClock, parse

logger = logging.getLogger(__name__)

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_MAX_LOG_BYTES = 1 << 42
"""A log that is larger has holes; some file systems let a step make it so large that its records had no end."""


class TaskTimes:
    """The times of one task's logs. Thread-safe.

    Args:
        directory: The task's directory.
        watcher: Tells when commands write.
        clock: Milliseconds since 1970.
        grown: Called when one of the logs may have grown.
    """

    def __init__(
        self,
        directory: TaskDirectory,
        watcher: LogWatcher,
        clock: Callable[[], int],
        grown: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._watcher = watcher
        self._clock = clock
        self._lock = threading.Lock()
        self._logs: dict[int | None, _LogTimes] = {}
        self._grown = grown
        self._watches: dict[int, int] = {}

    def watch(self, step: int) -> None:
        """Begin to record a log that a command is about to write, or writes already."""

        def grown() -> float:
            again = self.look(step)
            self._grown()
            return again

        self._watches[step] = self._watcher.add(self._directory.log(step), grown)

    def is_told(self, step: int | None) -> bool:
        """Return whether `grown` is called at once whenever a log grows."""
        number = self._watches.get(step) if step is not None else None
        return number is not None and self._watcher.is_told(number)

    def record(self, step: int | None) -> None:
        """Record how a log has grown.

        Args:
            step: The step's number; None for the set-up.
        """
        with self._lock:
            self._log(step).look(self._clock(), force=True)

    def record_first(self, size: int) -> None:
        """Record that the set-up has said so many bytes, for which there is no file."""
        with self._lock:
            self._log(None).take(size, self._clock())

    def is_empty(self, step: int) -> bool:
        """Return whether the last look found a log and nothing in it."""
        with self._lock:
            return self._log(step).found_empty

    def look(self, step: int | None) -> float:
        """Record how a log has grown unless it has just been done; return the seconds until it is to be done again."""
        with self._lock:
            return self._log(step).look(self._clock())

    def end(self) -> None:
        """Record the rest, once nothing writes any more."""
        while self._watches:
            self._watcher.remove(self._watches.popitem()[1])
        with self._lock:
            for step, log in self._logs.items():
                log.look(self._clock(), force=True)
                if step is not None:  # the only line of a set-up is known to be written at its start
                    log.save()

    def unsaved(self, step: int | None) -> bytes:
        """Return what has been recorded of a log that has no file yet."""
        with self._lock:
            return self._log(step).unsaved

    def _log(self, step: int | None) -> _LogTimes:
        if step not in self._logs:
            self._logs[step] = _LogTimes(self._directory.log(step), self._directory.times(step))
        return self._logs[step]


class _LogTimes:
    """The times of one log; those that an earlier executor recorded go on.

    The first record is kept in memory until there is another: a file for each short step would cost more than the rest.

    Attributes:
        unsaved: The first record, while it is not in the file.
        found_empty: Whether the last look found a log and nothing in it.
    """

    def __init__(self, log: Path, path: Path) -> None:
        self._log = log
        self._path = path
        self._clock = LineClock(parse(read_own(path, MAX_BYTES + 1)))
        self._failed = False
        self._looked = False
        self.unsaved = b""
        self.found_empty = False

    def look(self, now: int, *, force: bool = False) -> float:
        try:
            found = self._log.lstat()
        except OSError:
            self.found_empty = False
            return 0.0
        self.found_empty = not found.st_size and stat.S_ISREG(found.st_mode)
        if found.st_size < self._clock.size:  # a step has emptied its log
            self._clock, self.unsaved = LineClock(), b""
        if found.st_size == self._clock.size or self._failed or found.st_size > _MAX_LOG_BYTES:
            return 0.0
        if not force and (wait := self._clock.wait(now)):
            return wait / 1000
        if not self._looked:  # while no executor ran, nobody looked: the last write is known
            now = min(now, int(found.st_mtime * 1000))
        self.take(found.st_size, now)
        return 0.0

    def take(self, size: int, now: int) -> None:
        recorded = self._clock.recorded
        data = self._clock.take(size, now)
        if not recorded:
            self.unsaved = data
        elif self.unsaved:
            self.unsaved += data
            self.save()
        else:
            self._append(data, recorded)
        self._looked = True

    def save(self) -> None:
        data, self.unsaved = self.unsaved, b""
        if data:
            self._append(data, 0)

    def _append(self, data: bytes, at: int) -> None:
        try:
            descriptor = open_own(self._path, _APPEND)
            try:
                if not self._looked or not at:  # an executor may have been killed within a record
                    os.ftruncate(descriptor, at)
                self._failed = os.write(descriptor, data) != len(data)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._failed = True  # the disk is full: what follows would stand in the wrong place
            logger.warning("the times of a log are recorded no further: %s: %s", self._path, error)
