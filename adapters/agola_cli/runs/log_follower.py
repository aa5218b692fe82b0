"""Follows the logs of a run's tasks while they run, one thread for each task that has started."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Callable, Iterator, Mapping

from agola_cli.output.display import Display
from agola_cli.runs.patience import AWAY, Patience
from agola_cli.runs.timed_line import shown_time, timed_line
from agola_core.errors import AgolaError, NotFoundError
from agola_core.runservice.model.graph import ancestors
from agola_core.runservice.model.requests import WHOLE_LOG, LogPart
from agola_core.runservice.model.types import ExecutorPhase, Run, RunConfigTask, RunTask, TaskStatus

_MAX_LINE = 64 * 1024
FOLLOWED = {TaskStatus.RUNNING, TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.STOPPED}
"""The states of tasks that have started, whose logs are followed."""


class LogFollower:
    """Shows the logs of the tasks that start, each after those of the tasks that it depends on.

    Args:
        patience: Asks the service for the logs.
        display: Shows them.
        tasks: The tasks of the run's configuration, by id.
        wanted: Whether a task, by its id, is followed.
        ended: Called with a task once its whole log was shown and it has ended.
        part: Which lines of each log, and whether with their times.

    Attributes:
        has_lost: Whether a log could not be read.
    """

    def __init__(
        self,
        patience: Patience,
        display: Display,
        tasks: Mapping[str, RunConfigTask],
        wanted: Callable[[str], bool] = lambda _: True,
        ended: Callable[[RunTask], None] = lambda _: None,
        part: LogPart = WHOLE_LOG,
    ) -> None:
        self._patience = patience
        self._display = display
        self._graph = tasks
        self.has_lost = False
        self._wanted = wanted
        self._ended = ended
        self._part = part
        self._threads: dict[str, threading.Thread] = {}
        self._changed = threading.Condition()
        self._tasks: dict[str, RunTask] = {}

    def take(self, run: Run) -> None:
        """Process a run's new state: follow the tasks that have started, and those whose next step has."""
        with self._changed:
            self._tasks = run.tasks
            self._changed.notify_all()
        new = {
            task_id: threading.Thread(target=self._follow, args=(run.id, task_id, len(task.steps)), daemon=True)
            for task_id, task in run.tasks.items()
            if task_id not in self._threads and task.status in FOLLOWED and self._wanted(task_id)
        }
        self._threads |= new
        for task_id in sorted(new, key=lambda task_id: self._graph[task_id].level):  # they wait for those above them
            new[task_id].start()

    def join(self) -> None:
        """Wait until everything is shown."""
        for thread in self._threads.values():
            thread.join()

    def _follow(self, run_id: str, task_id: str, steps: int) -> None:
        for other in ancestors(self._graph, task_id):
            if other in self._threads:
                self._threads[other].join()
        for step in range(steps):
            if not self._wait_step(task_id, step) or self._ended_before(task_id, step):
                continue
            self._display.step(task_id, step)
            try:
                pieces = self._patience.follow_log(run_id, task_id, step, self._part)
                for_each_line(pieces, lambda line: self._show(task_id, line))
            except AgolaError as error:
                self.has_lost = True
                why = "it is not in the store" if isinstance(error, NotFoundError) else error
                self._display.say(f"the log of step {step} cannot be read: {why}")
                if isinstance(error, AWAY):  # it was waited for, and the next steps are no nearer
                    break
        with self._changed:
            self._changed.wait_for(lambda: self._tasks[task_id].status.is_finished)
        self._ended(self._tasks[task_id])

    def _show(self, task_id: str, line: str) -> None:
        if self._part.timestamps:
            text, time = timed_line(line)
            self._display.line(task_id, text, shown_time(time))
        else:
            self._display.line(task_id, line)

    def _ended_before(self, task_id: str, step: int) -> bool:
        """Return whether a step ended before the time from which lines are shown."""
        ended = self._tasks[task_id].steps[step].end_time
        return self._part.since is not None and ended is not None and ended < self._part.since

    def _wait_step(self, task_id: str, step: int) -> bool:
        """Wait until a step has started; return whether it has: False when its task ended before, or left it out."""

        def answer() -> bool | None:
            task = self._tasks[task_id]
            begun = [item.phase not in {None, ExecutorPhase.NOT_STARTED} for item in task.steps[step:]]
            if begun[0]:
                return True
            return False if any(begun) or task.status.is_finished else None

        with self._changed:
            self._changed.wait_for(lambda: answer() is not None)
            return bool(answer())


def for_each_line(pieces: Iterator[bytes], show: Callable[[str], None]) -> None:
    """Call a function with each line of a log, without its end; very long ones are cut into several."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held = ""
    for piece in pieces:
        lines = (held + decoder.decode(piece)).split("\n")
        held = lines.pop()
        for line in lines:
            show(line)
        if len(held) > _MAX_LINE:
            show(held)
            held = ""
    held += decoder.decode(b"", final=True)
    if held:
        show(held)
