"""Reads the logs of steps: from their executor while they grow, from storage or the run itself afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from agola_core.errors import AgolaError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.logs.live_logs import LiveLogs
from agola_core.runservice.logs.log_lines import open_view, text_view
from agola_core.runservice.logs.log_part import beginning, pieces_of, stamped, stored_from
from agola_core.runservice.logs.log_times import line_times, read_times
from agola_core.runservice.logs.log_view import LogView
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.bounds import Bounded
from agola_core.runservice.model.line_times import MAX_BYTES, GrowingTimes
from agola_core.runservice.model.protocol import ExecutorClient, ExecutorDirectory
from agola_core.runservice.model.requests import WHOLE_LOG, LogPart
from agola_core.runservice.model.types import Executor, ExecutorPhase, FetchPhase, Run, RunTask, RunTaskStep
from agola_core.runservice.state.memory.mirror import Mirror
from agola_core.runtime.context import Context

_WAIT_SECONDS = 1.0


class LogReader:
    """Opens logs."""

    def __init__(
        self,
        storage: ObjectStorage,
        mirror: Mirror,
        directory: ExecutorDirectory,
        find_run: Callable[[str], Run | None],
    ) -> None:
        self._storage = storage
        self._mirror = mirror
        self._directory = directory
        self._find_run = find_run
        self._live = LiveLogs()
        self._ending = False

    def open(
        self, run_id: str, task_id: str, step: int | None, *, follow: bool, part: LogPart = WHOLE_LOG
    ) -> Iterator[bytes]:
        """Yield a step's log.

        Args:
            run_id: The run.
            task_id: The task.
            step: The step's number; None for the set-up.
            follow: Wait for the step to begin, and continue until it has ended. While there is nothing new, an empty
                piece is yielded now and then, so that a caller without a reader can stop.
            part: Which lines, and whether with their times.

        Raises:
            NotFoundError: There is no such run, task, step or log.
        """
        if part.since is not None or part.tail is not None:
            part = LogPart(timestamps=part.timestamps, offset=self.begin(run_id, task_id, step, part))
        pieces = self._open_now(run_id, task_id, step, part, follow=follow)
        return self._awaited(run_id, task_id, step, part) if pieces is None else pieces

    def begin(self, run_id: str, task_id: str, step: int | None, part: LogPart) -> int:
        """Return the byte of a log at which a part of it begins; 0 for a log that is not there.

        Raises:
            NotFoundError: There is no such run, task or step.
        """
        is_stored, times = self._is_stored(run_id, task_id, step), self.times(run_id, task_id, step)
        try:
            if is_stored:
                text = self._text(run_id, task_id, step)
                if text is not None:
                    return beginning(lambda offset: pieces_of(text, offset), len(text), times, part)
                path = object_paths.log(task_id, step)
                size = self._storage.stat(path).size
                return beginning(partial(stored_from, self._storage, path), size, times, part)
            client = self._client(run_id, task_id)
            if client is None:
                return 0
            times.reach(1)
            opened = partial(client.open_log, task_id, step, follow=False)
            return beginning(lambda offset: opened(offset=offset), times.times.size, times, part)
        except NotFoundError:
            return 0

    def times(self, run_id: str, task_id: str, step: int | None) -> GrowingTimes:
        """Return the times of the lines of a log, wherever it is now.

        Raises:
            NotFoundError: There is no such run, task or step.
        """
        is_stored = self._is_stored(run_id, task_id, step)
        is_whole = False

        def read(offset: int) -> bytes:
            nonlocal is_whole
            if is_whole:
                return b""
            task = self._find_task(run_id, task_id, step)
            try:
                if not _is_settled(task, step):
                    client = self._client(run_id, task_id)
                    if client is None:
                        return b""
                    pieces = Bounded(client.open_times(task_id, step, offset=offset), MAX_BYTES - offset)
                    try:
                        return b"".join(pieces)
                    finally:
                        is_whole = pieces.too_large  # a step has written to the file: it tells nothing
                if (text := _text_of(task, step)) is not None:
                    is_whole = True
                    return line_times(text, _state(task, step).start_time)[offset:]
                size = self._storage.stat(object_paths.log(task_id, step)).size
                data = read_times(self._storage, task_id, step, size, _state(task, step).start_time)
                is_whole = True  # stored times do not grow, and a log of an older version has none
                return data[offset:]
            except AgolaError:  # they are shown as unknown
                return b""

        return GrowingTimes(read, None if is_stored else _now)

    @contextmanager
    def view(self, run_id: str, task_id: str, step: int | None, context: Context) -> Iterator[LogView]:
        """Open a step's log to look into it, wherever it is; of one that grows, what there is now.

        Args:
            run_id: The run.
            task_id: The task.
            step: The step's number; None for the set-up.
            context: Ends what takes long.

        Raises:
            NotFoundError: There is no such run, task, step or log.
        """
        task = self._find_task(run_id, task_id, step)
        for _ in range(2):  # between the two looks the log may have moved from its executor to storage
            if _is_settled(task, step):
                if _state(task, step).log_lost:
                    raise NotFoundError(f"the log of task {task_id!r} was lost with its executor")
                if (text := _text_of(task, step)) is not None:
                    yield text_view(text, context)
                    return
                with open_view(self._storage, task_id, step, context) as stored:
                    yield stored
                return
            with ExitStack() as stack:
                live = self._view_on_executor(run_id, task, step, context, stack)
                if live is not None:
                    yield live
                    return
            task = self._task_of(self._find_run(run_id), run_id, task_id, step)  # the mirror may not know it yet
        raise NotFoundError(f"the log of task {task_id!r} does not exist yet")

    def _view_on_executor(
        self, run_id: str, task: RunTask, step: int | None, context: Context, stack: ExitStack
    ) -> LogView | None:
        executor = self._executor_of(run_id, task.id)
        if executor is None:
            return None
        client = self._directory.client(executor)
        try:
            return stack.enter_context(self._live.view(client, executor.id, task.attempt, task.id, step, context))
        except NotFoundError:
            return None

    def _is_stored(self, run_id: str, task_id: str, step: int | None) -> bool:
        return _is_settled(self._find_task(run_id, task_id, step), step)

    def _awaited(self, run_id: str, task_id: str, step: int | None, part: LogPart) -> Iterator[bytes]:
        while (pieces := self._open_now(run_id, task_id, step, part, follow=True)) is None:
            with self._mirror.condition:
                self._mirror.condition.wait(_WAIT_SECONDS)
            yield b""
        yield from pieces

    def _open_now(
        self, run_id: str, task_id: str, step: int | None, part: LogPart, *, follow: bool
    ) -> Iterator[bytes] | None:
        """Open a log where it is now; None if it is to be waited for."""
        task = self._find_task(run_id, task_id, step)
        for _ in range(2):  # between the two looks the log may have moved from its executor to storage
            if _is_settled(task, step):
                if _state(task, step).log_lost:
                    raise NotFoundError(f"the log of task {task_id!r} was lost with its executor")
                return self._open_stored(run_id, task_id, step, part)
            pieces = self._open_on_executor(run_id, task_id, step, part, follow=follow)
            if pieces is not None:
                return pieces
            task = self._task_of(self._find_run(run_id), run_id, task_id, step)  # the mirror may not know it yet
        if follow and not task.status.is_finished and not self._ending:
            return None
        raise NotFoundError(f"the log of task {task_id!r} does not exist yet")

    def wait_step(self, run_id: str, task_id: str, step: int) -> bool:
        """Wait until a step has begun; return False if its task has ended before.

        Needs a started service.

        Raises:
            NotFoundError: There is no such run, task or step.
        """

        def begun() -> bool | None:
            task = self._find_task(run_id, task_id, step)
            held = self._mirror.held(run_id, task_id)
            if held is not None and held.status.steps[step].phase is not ExecutorPhase.NOT_STARTED:
                return True
            if task.status.is_finished:
                return task.steps[step].phase is not ExecutorPhase.NOT_STARTED
            return None

        with self._mirror.condition:
            while (answer := begun()) is None:
                self._mirror.condition.wait(_WAIT_SECONDS)
        return answer

    def end_waits(self) -> None:
        """Wake everybody who waits for a log to begin."""
        with self._mirror.condition:
            self._ending = True
            self._mirror.condition.notify_all()

    def _text(self, run_id: str, task_id: str, step: int | None) -> bytes | None:
        return _text_of(self._find_task(run_id, task_id, step), step)

    def _open_stored(self, run_id: str, task_id: str, step: int | None, part: LogPart) -> Iterator[bytes]:
        text = self._text(run_id, task_id, step)
        if text is not None:
            return self._shown(pieces_of(text, part.offset), run_id, task_id, step, part)
        path = object_paths.log(task_id, step)
        if part == WHOLE_LOG:
            return self._storage.open_stream(path)
        self._storage.stat(path)
        return self._shown(stored_from(self._storage, path, part.offset), run_id, task_id, step, part)

    def _open_on_executor(
        self, run_id: str, task_id: str, step: int | None, part: LogPart, *, follow: bool
    ) -> Iterator[bytes] | None:
        client = self._client(run_id, task_id)
        if client is None:
            return None
        try:
            pieces = client.open_log(task_id, step, follow=follow, offset=part.offset)
        except NotFoundError:
            return None
        return self._shown(pieces, run_id, task_id, step, part)

    def _shown(
        self, pieces: Iterator[bytes], run_id: str, task_id: str, step: int | None, part: LogPart
    ) -> Iterator[bytes]:
        return stamped(pieces, part.offset, self.times(run_id, task_id, step)) if part.timestamps else pieces

    def _client(self, run_id: str, task_id: str) -> ExecutorClient | None:
        executor = self._executor_of(run_id, task_id)
        return self._directory.client(executor) if executor else None

    def _executor_of(self, run_id: str, task_id: str) -> Executor | None:
        held = self._mirror.held(run_id, task_id)
        return self._mirror.executors.get(held.status.executor_id) if held else None

    def _find_task(self, run_id: str, task_id: str, step: int | None) -> RunTask:
        return self._task_of(self._mirror.run(run_id) or self._find_run(run_id), run_id, task_id, step)

    @staticmethod
    def _task_of(run: Run | None, run_id: str, task_id: str, step: int | None) -> RunTask:
        if run is None:
            raise NotFoundError(f"no such run with id: {run_id}")
        task = run.tasks.get(task_id)
        if task is None:
            raise NotFoundError(f"no such task with ID {task_id} in run {run_id}")
        if step is not None and not 0 <= step < len(task.steps):
            raise NotFoundError(f"no such step for task {task_id} in run {run_id}")
        return task


def _now() -> int:
    return int(1000 * time.time())


def _state(task: RunTask, step: int | None) -> RunTaskStep:
    return task.setup_step if step is None else task.steps[step]


def _text_of(task: RunTask, step: int | None) -> bytes | None:
    """Return a log that the run itself holds; None for one that is in storage, or elsewhere."""
    text = _state(task, step).log_text
    return None if text is None else text.encode()


def _is_settled(task: RunTask, step: int | None) -> bool:
    """Return whether a log is no longer on its executor but in storage or in the run, or lost."""
    return _state(task, step).log_phase is FetchPhase.FINISHED
