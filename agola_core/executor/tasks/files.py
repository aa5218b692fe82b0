"""Serves the logs and archives of tasks to the run service, with secrets masked."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from agola_core.errors import NotFoundError
from agola_core.executor.files import open_own
from agola_core.executor.masking import masked, patterns_of
from agola_core.executor.tasks.directory import TaskDirectories, first_line
from agola_core.executor.tasks.pool import TaskPool
from agola_core.executor.tasks.runner import TaskRunner
from agola_core.runservice.model.line_times import MAX_BYTES
from agola_core.runservice.model.types import ExecutorPhase, ExecutorTask

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
_MUCH_BYTES = 1 << 16
_QUIET_SECONDS = 1.0
_TOLD_SECONDS = 0.25
"""Seconds between looks at a quiet log whose growth the kernel tells of."""
_CHUNK = 1 << 20
_MOST_REMEMBERED = 256


class TaskFiles:
    """The logs and archives of an executor's tasks.

    Args:
        directories: The directories of all tasks.
        pool: The tasks that have not ended.
        executor_id: The executor, for error messages.
        max_log_bytes: How much of a log is served; a larger one fails its task, and a step can make one of terabytes.
    """

    def __init__(self, directories: TaskDirectories, pool: TaskPool, executor_id: str, max_log_bytes: int) -> None:
        self._directories = directories
        self._pool = pool
        self._executor_id = executor_id
        self._max_log_bytes = max_log_bytes
        self._lock = threading.Lock()
        self._hidden: dict[str, tuple[bytes, ...]] = {}

    def remember(self, task: ExecutorTask) -> None:
        """Keep what to hide in the logs of a task that has ended: they are fetched in a moment."""
        patterns = patterns_of(task.secrets)
        with self._lock:
            self._hidden[task.id] = patterns
            if len(self._hidden) > _MOST_REMEMBERED:
                del self._hidden[next(iter(self._hidden))]

    def open_log(self, task_id: str, step: int | None, *, follow: bool, offset: int = 0) -> Iterator[bytes]:
        """Yield a step's log up to its limit; with `follow` also an empty piece now and then, while nothing is new."""
        path = self._directories.of(task_id).log(step)
        runner = self._runner(task_id, step)
        goes_on = not follow and runner is not None and not _step_ended(runner.task, step)
        # Before the log: a directory that is removed in between has no log either, and no secret is shown.
        patterns = self._patterns(task_id, runner)
        if patterns is None and step is not None:  # its secrets are not known
            raise self._missing("log", task_id, step)
        file, line = None, b""
        try:
            file = _open_file(path)
        except FileNotFoundError as error:
            line = self._first_line(task_id) if step is None else b""
            if (runner is None or not follow) and not line:
                raise self._missing("log", task_id, step) from error
        end = self._max_log_bytes
        if not patterns:
            return self._read_log(path, file, line, task_id, step, follow=follow, offset=offset, end=end)
        before = min(offset, len(patterns[0]) - 1)  # a secret may begin before the place
        behind = end + len(patterns[0]) - 1  # or end behind the limit
        pieces = self._read_log(path, file, line, task_id, step, follow=follow, offset=offset - before, end=behind)
        return _first(masked(pieces, patterns, skip=before, goes_on=goes_on), end - offset)

    def _first_line(self, task_id: str) -> bytes:
        """Return what the log of a set-up begins with, which may have no file yet; nothing before the set-up begins."""
        runner = self._pool.get(task_id)
        task = runner.task if runner is not None else self._directories.of(task_id).load()
        has_begun = task is not None and task.status.setup_step.phase is not ExecutorPhase.NOT_STARTED
        return first_line(task) if task is not None and has_begun else b""

    def _patterns(self, task_id: str, runner: TaskRunner | None) -> tuple[bytes, ...] | None:
        """Return what to hide in a task's logs; None where that is not known."""
        if runner is None and (known := self._hidden.get(task_id)) is not None:
            return known
        task = runner.task if runner is not None else self._directories.of(task_id).load()
        return None if task is None else patterns_of(task.secrets)

    def open_times(self, task_id: str, step: int | None, *, offset: int = 0) -> Iterator[bytes]:
        """Yield when the lines of a step's log were written, as far as it has been recorded.

        Raises:
            NotFoundError: Nothing is recorded.
        """
        runner = self._runner(task_id, step)
        if runner is not None:
            runner.times.look(step)
            if unsaved := runner.times.unsaved(step):
                return iter([unsaved[offset:]])
        try:
            file = _open_file(self._directories.of(task_id).times(step))
        except FileNotFoundError as error:
            raise self._missing("times", task_id, step) from error
        return _read_to_end(file, offset, MAX_BYTES + 1)  # a step can make it larger: such times are not used

    def open_archive(self, task_id: str, step: int, *, offset: int = 0) -> Iterator[bytes]:
        """Yield an archive that a step saved to the workspace."""
        try:
            file = _open_file(self._directories.of(task_id).archive(step))
        except FileNotFoundError as error:
            raise self._missing("archive", task_id, step) from error
        return _read_to_end(file, offset)

    def log_size(self, task_id: str, step: int | None) -> int:
        """Return how many bytes of a step's log there are now, up to its limit.

        Raises:
            NotFoundError: There is no such log.
        """
        try:
            return min(self._directories.of(task_id).log(step).lstat().st_size, self._max_log_bytes)
        except FileNotFoundError as error:
            if step is None and (line := self._first_line(task_id)):
                return len(line)
            raise self._missing("log", task_id, step) from error

    def archive_size(self, task_id: str, step: int) -> int:
        """Return how many bytes an archive has that a step saved to the workspace.

        Raises:
            NotFoundError: There is no such archive.
        """
        try:
            return self._directories.of(task_id).archive(step).lstat().st_size
        except FileNotFoundError as error:
            raise self._missing("archive", task_id, step) from error

    def _runner(self, task_id: str, step: int | None) -> TaskRunner | None:
        runner = self._pool.get(task_id)
        if runner is not None and step is not None and not 0 <= step < len(runner.task.steps):
            raise NotFoundError(f"task {task_id!r} has no step {step}")
        return runner

    def _missing(self, what: str, task_id: str, step: int | None) -> NotFoundError:
        return NotFoundError(f"no {what} of task {task_id!r} step {step} on executor {self._executor_id}")

    def _read_log(
        self,
        path: Path,
        file: FileIO | None,
        line: bytes,
        task_id: str,
        step: int | None,
        *,
        follow: bool,
        offset: int,
        end: int,
    ) -> Iterator[bytes]:
        """Yield a log that is open, or whose step has not begun; it may be removed meanwhile, once it is in storage.

        Args:
            path: Its file.
            file: The file, open; None while there is none.
            line: What stands for a file that is not there.
            task_id: Its task.
            step: Its step; None for the set-up.
            follow: Whether to wait for more until the step has ended.
            offset: The first byte.
            end: Where reading ends at the latest.
        """
        quiet_until = time.monotonic() + _QUIET_SECONDS
        pause = _LONGEST_PAUSE
        try:
            while True:
                runner = self._pool.get(task_id)
                ended = runner is None or not follow or _step_ended(runner.task, step)
                growths, before = runner.state.growths if runner is not None else 0, offset
                if file is None:
                    with contextlib.suppress(FileNotFoundError):
                        file = _open_file(path)
                pause = min(2 * pause, _LONGEST_PAUSE)
                if file is None and step is None:
                    line = line or self._first_line(task_id)
                    if rest := line[offset:]:
                        offset += len(rest)
                        yield rest
                if file is not None:
                    for piece in _pieces(file, offset, end):
                        if len(piece) >= _MUCH_BYTES:  # more comes before a long pause is over
                            pause = _FIRST_PAUSE
                        offset += len(piece)
                        quiet_until = time.monotonic() + _QUIET_SECONDS
                        yield piece
                if ended or runner is None:
                    return
                if time.monotonic() > quiet_until:  # a reader that has gone away is noticed when it gets something
                    quiet_until = time.monotonic() + _QUIET_SECONDS
                    yield b""
                told = offset == before and file is not None and runner.times.is_told(step)
                with runner.state.condition:
                    if _step_ended(runner.task, step):
                        continue
                    if told:
                        runner.state.wait_growth(growths, _TOLD_SECONDS)
                    else:
                        runner.state.condition.wait(pause)
        finally:
            if file is not None:
                file.close()


def _step_ended(task: ExecutorTask, step: int | None) -> bool:
    if task.status.phase.is_finished:
        return True
    return (task.status.setup_step if step is None else task.status.steps[step]).phase.is_finished


def _open_file(path: Path) -> FileIO:
    """Open a file of a task for reading.

    Raises:
        FileNotFoundError: It is missing, or is no regular file.
    """
    return FileIO(open_own(path))


def _read_to_end(file: FileIO, offset: int, end: int | None = None) -> Iterator[bytes]:
    with file:
        yield from _pieces(file, offset, end)


def _first(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield at most that many bytes, and every empty piece."""
    for piece in pieces:
        if size > 0 or not piece:
            yield piece[:size]
        size = max(0, size - len(piece))


def _pieces(file: FileIO, offset: int, end: int | None = None) -> Iterator[bytes]:
    while piece := os.pread(file.fileno(), _CHUNK if end is None else max(0, min(_CHUNK, end - offset)), offset):
        offset += len(piece)
        yield piece
