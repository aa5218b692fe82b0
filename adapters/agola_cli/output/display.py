"""Shows a run as plain lines while it is running, and a summary when it has ended."""

from __future__ import annotations

import shlex
import threading
from collections import deque
from collections.abc import Collection, Iterator
from typing import Protocol, Self

import click

from agola_cli.output.records import coloured, duration, printable, styled, task_mark
from agola_cli.output.reported import result_lines
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import ExecutorPhase, Run, RunConfigTask, RunResult, RunStep, RunTask, TaskStatus

_PREFIX_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
_TAIL_LINES = 10


class Display(Protocol):
    """Shows a run. A context manager; thread-safe.

    Attributes:
        failure: Why the output can no longer be written; None while it can.
    """

    failure: OSError | None

    def show(self, run: Run, unfollowed: Collection[str]) -> None:
        """Show the run's new state, and the ends of the tasks that have no logs to follow."""

    def step(self, task_id: str, step: int) -> None:
        """Say that a step's log begins."""

    def line(self, task_id: str, text: str, time: str = "") -> None:
        """Show a line of a task's log, with its time."""

    def end_task(self, task: RunTask) -> None:
        """Print how a task ended, after its log."""

    def end_run(self, run: Run, tests: RunTests, option: str) -> None:
        """Print how the run ended, what failed, and which commands show more (see `summarize`)."""

    def say(self, text: str) -> None:
        """Tell the user something."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class PlainDisplay:
    """Lines, each with its task's name in front.

    Args:
        bundle: The run, for the names of its tasks.
        err: Whether the lines go to standard error.
        option: What names the service in a command, with a space in front.
    """

    def __init__(
        self,
        bundle: RunBundle,
        *,
        err: bool = False,
        option: str = "",
    ) -> None:
        self._option = option
        self.failure: OSError | None = None
        self._tasks = bundle.run_config.tasks
        self._run = bundle.run
        self._err = err
        self._lock = threading.Lock()
        self._shown: dict[str, TaskStatus] = {}
        self._asked: set[str] = set()
        self._tails: dict[tuple[str, int], deque[str]] = {}
        self._steps: dict[str, int] = {}
        ordered = sorted(self._tasks.values(), key=lambda task: (task.level, task.name))
        names = {task.id: printable(task.name) for task in ordered}
        width = max(map(len, names.values()), default=0)
        self._prefixes = {
            task.id: styled(names[task.id].ljust(width), _PREFIX_COLOURS[number % len(_PREFIX_COLOURS)])
            for number, task in enumerate(ordered)
        }

    def show(self, run: Run, unfollowed: Collection[str]) -> None:
        """Print which tasks have started, which wait for approval, and the ends of those without logs."""
        for task_id, task in run.tasks.items():
            if task.status is TaskStatus.RUNNING and task_id not in self._shown:
                self._shown[task_id] = task.status
                self._say_start(task_id, task)
            elif task_id in unfollowed:
                self.end_task(task)
            if task.waiting_approval and task_id not in self._asked:
                self._asked.add(task_id)
                name = printable(shlex.quote(self._tasks[task_id].name))
                command = f"agola-core runs approve {run.id} {name}"
                self.say(f"{self._prefixes[task_id]} ? waits for approval: {command}{self._option}")

    def step(self, task_id: str, step: int) -> None:
        """Print the name of a step."""
        self._steps[task_id] = step
        self._tails[task_id, step] = deque(maxlen=_TAIL_LINES)
        self.say(f"{self._prefixes[task_id]} > {step_name(self._tasks[task_id].steps[step])}")

    def line(self, task_id: str, text: str, time: str = "") -> None:
        """Print a line of a log, with its time."""
        self._tails[task_id, self._steps[task_id]].append(text)
        self.say(f"{self._prefixes[task_id]}{time and f' {time}'} | {text}")

    def end_task(self, task: RunTask) -> None:
        """Print how a task ended, once."""
        if self._shown.get(task.id) is not task.status:
            self._shown[task.id] = task.status
            said = describe_task(task, self._tasks[task.id])
            self.say(f"{self._prefixes[task.id]} {task_mark(task.status)} {said}")

    def end_run(self, run: Run, tests: RunTests, option: str) -> None:
        """Print the summary."""
        for line in summarize(run, self._tasks, self._tails, tests, option):
            self.say(line)

    def say(self, text: str) -> None:
        """Print a line; once the output cannot be written, nothing more."""
        with self._lock:
            if self.failure is None:
                try:
                    self._print(text)
                except OSError as error:
                    self.failure = error

    def __enter__(self) -> Self:
        """Name the run."""
        self.say(f"run {self._run.name!r} #{self._run.counter} {self._run.id}")
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def _print(self, text: str) -> None:
        click.echo(text, err=self._err)

    def _say_start(self, task_id: str, task: RunTask) -> None:
        self.say(f"{self._prefixes[task_id]} {task_mark(task.status)} {describe_task(task, self._tasks[task_id])}")


def summarize(
    run: Run, tasks: dict[str, RunConfigTask], tails: dict[tuple[str, int], deque[str]], tests: RunTests, option: str
) -> Iterator[str]:
    """Yield how a run ended: its result, the last lines of what failed, and the commands that show more.

    Args:
        run: The run.
        tasks: Its configuration's tasks, by id.
        tails: The last lines of each step, by its task's id and its number.
        tests: What the tasks reported.
        option: What names the service in a command, with a space in front.
    """
    yield describe_run(run)
    failed = [
        task for task in run.tasks.values() if task.status is TaskStatus.FAILED and not tasks[task.id].ignore_failure
    ]
    for task in failed:
        item = tasks[task.id]
        number = next((n for n, step in enumerate(task.steps) if step.phase is ExecutorPhase.FAILED), None)
        step = f", step {number} {step_name(item.steps[number])!r}" if number is not None else ""
        yield f"  {task_mark(task.status)} {printable(item.name)}{step}: {describe_task(task, item)}"
        if number is not None:
            yield from (f"      | {line}" for line in tails.get((task.id, number), ()))
            command = f"agola-core runs logs {run.id} --task {printable(shlex.quote(item.name))} --step {number}"
            yield f"      its log: {command}{option}"
    yield from result_lines(tests, f"agola-core runs show {run.id} --json{option}")
    yield f"look at it again: agola-core runs show {run.id}{option}"
    yield f"its logs:         agola-core runs logs {run.id}{option}"


def describe_task(task: RunTask, item: RunConfigTask | None = None) -> str:
    """Return a task's state in words: how it ended, why, and how long it took.

    Args:
        task: Its state.
        item: Its configuration, which says whether a failure counts.
    """
    if task.waiting_approval:
        return "waits for approval"
    if not task.status.is_finished:
        return "waiting" if task.status is TaskStatus.NOT_STARTED else task.status.value
    is_ignored = item is not None and item.ignore_failure and task.status is TaskStatus.FAILED
    words = [styled("failed", "yellow") if is_ignored else coloured(task.status.value)]
    code = next((step.exit_code for step in task.steps if step.exit_code), None)
    if task.reason:
        words.append(f"({task.reason})")
    elif task.status is TaskStatus.FAILED and code is not None:
        words.append(f"(exit code {code})")
    if is_ignored:
        words.append("ignored")
    words.append(duration(task.start_time, task.end_time))
    return " ".join(filter(None, words))


def describe_run(run: Run) -> str:
    """Return how a run ended in words."""
    result = run.result.value if run.result is not RunResult.UNKNOWN else run.phase.value
    return f"run {run.name!r} #{run.counter}: {coloured(result)} {duration(run.start_time, run.end_time)}".rstrip()


def step_name(step: object) -> str:
    """Return what users call a step, as one line for a terminal."""
    name = getattr(step, "name", "")
    if isinstance(step, RunStep):
        return printable(name or step.command.strip().split("\n")[0])
    return printable(name or type(step).__name__)
