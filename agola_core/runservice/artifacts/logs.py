"""Reads the logs of steps: from their executor while they grow, from storage afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agola_core.errors import NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.artifacts.live_logs import LiveLogs
from agola_core.runservice.artifacts.log_lines import LogLines, open_view, read_lines
from agola_core.runservice.artifacts.log_times import read_times
from agola_core.runservice.artifacts.log_view import LogView
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.line_times import NO_TIMES, LineTimes, parse
from agola_core.runservice.model.protocol import ExecutorDirectory
from agola_core.runservice.model.types import Executor, ExecutorPhase, FetchPhase, Run, RunTask, RunTaskStep
from agola_core.runservice.state.mirror import Mirror
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

    def open(self, run_id: str, task_id: str, step: int | None, *, follow: bool) -> Iterator[bytes]:
        """Yield a step's log.

        Args:
            run_id: The run.
            task_id: The task.
            step: The step's number; None for the set-up.
            follow: Wait for the step to begin, and continue until it has ended. While there is nothing new, an empty
                piece is yielded now and then, so that a caller without a reader can stop.

        Raises:
            NotFoundError: There is no such run, task, step or log.
        """
        pieces = self._open_now(run_id, task_id, step, follow=follow)
        return self._awaited(run_id, task_id, step) if pieces is None else pieces

    def lines(
        self, run_id: str, task_id: str, step: int | None, first: int, count: int, *, timestamps: bool = False
    ) -> LogLines:
        """Return lines of the log of a step that has ended (see `log_lines.read_lines`).

        Raises:
            NotFoundError: There is no such run, task, step or log, or the log is not in storage yet.
        """
        task = self._check_stored(run_id, task_id, step)

        def times(size: int) -> LineTimes:
            return parse(read_times(self._storage, task_id, step, size, _state(task, step).start_time)) or NO_TIMES

        return read_lines(self._storage, task_id, step, first, count, times=times if timestamps else None)

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
                with open_view(self._storage, task_id, step, context) as stored:
                    yield stored
                return
            live = self._view_on_executor(run_id, task, step, context)
            if live is not None:
                yield live
                return
            task = self._task_of(self._find_run(run_id), run_id, task_id, step)  # the mirror may not know it yet
        raise NotFoundError(f"the log of task {task_id!r} does not exist yet")

    def _view_on_executor(self, run_id: str, task: RunTask, step: int | None, context: Context) -> LogView | None:
        executor = self._executor_of(run_id, task.id)
        if executor is None:
            return None
        client = self._directory.client(executor)
        try:
            return self._live.view(client, executor.id, task.attempt, task.id, step, context)
        except NotFoundError:
            return None

    def _check_stored(self, run_id: str, task_id: str, step: int | None) -> RunTask:
        task = self._find_task(run_id, task_id, step)
        if not _is_settled(task, step):
            raise NotFoundError(f"the log of task {task_id!r} is not in storage yet")
        return task

    def _awaited(self, run_id: str, task_id: str, step: int | None) -> Iterator[bytes]:
        while (pieces := self._open_now(run_id, task_id, step, follow=True)) is None:
            with self._mirror.condition:
                self._mirror.condition.wait(_WAIT_SECONDS)
            yield b""
        yield from pieces

    def _open_now(self, run_id: str, task_id: str, step: int | None, *, follow: bool) -> Iterator[bytes] | None:
        """Open a log where it is now; None if it is to be waited for."""
        task = self._find_task(run_id, task_id, step)
        for _ in range(2):  # between the two looks the log may have moved from its executor to storage
            if _is_settled(task, step):
                if _state(task, step).log_lost:
                    raise NotFoundError(f"the log of task {task_id!r} was lost with its executor")
                return self._storage.open_stream(object_paths.log(task_id, step))
            pieces = self._open_on_executor(run_id, task_id, step, follow=follow)
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

    def _open_on_executor(self, run_id: str, task_id: str, step: int | None, *, follow: bool) -> Iterator[bytes] | None:
        executor = self._executor_of(run_id, task_id)
        if executor is None:
            return None
        try:
            return self._directory.client(executor).open_log(task_id, step, follow=follow)
        except NotFoundError:
            return None

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


def _state(task: RunTask, step: int | None) -> RunTaskStep:
    return task.setup_step if step is None else task.steps[step]


def _is_settled(task: RunTask, step: int | None) -> bool:
    """Return whether a log is no longer on its executor but in storage, or lost."""
    return _state(task, step).log_phase is FetchPhase.FINISHED
