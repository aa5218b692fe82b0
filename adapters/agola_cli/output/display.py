"""What a person sees of a run while it goes on: a live graph on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
import threading
from typing import Any, Protocol, Self

import click

from agola_cli.output.records import coloured, duration, task_mark
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import Run, RunStep, RunTask, TaskStatus


class Display(Protocol):
    """Shows a run. A context manager; thread-safe."""

    def show(self, run: Run) -> None:
        """Show the run's new state."""

    def step(self, task_id: str, step: int) -> None:
        """Say that a step's log begins."""

    def line(self, task_id: str, text: str) -> None:
        """Show a line of a task's log."""

    def say(self, text: str) -> None:
        """Tell the person something."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class PlainDisplay:
    """Lines, each with its task's name in front.

    Args:
        bundle: The run, for the names of its tasks.
        err: Whether the lines go to standard error.
    """

    def __init__(self, bundle: RunBundle, *, err: bool = False) -> None:
        self._tasks = bundle.run_config.tasks
        self._run = bundle.run
        self._err = err
        self._lock = threading.Lock()
        self._shown: dict[str, TaskStatus] = {}
        self._asked: set[str] = set()
        self._ended = False
        self._width = max((len(task.name) for task in self._tasks.values()), default=0)

    def show(self, run: Run) -> None:
        """Print what has changed of the run's tasks."""
        for task_id, task in run.tasks.items():
            if self._shown.get(task_id, TaskStatus.NOT_STARTED) is not task.status:
                self._shown[task_id] = task.status
                self.say(f"{self._prefix(task_id)} {task_mark(task.status)} {describe_task(task)}")
        self._say_rest(run)

    def _say_rest(self, run: Run) -> None:
        """Say which tasks wait for a person, and how the run ended, each once."""
        for task_id, task in run.tasks.items():
            if task.waiting_approval and task_id not in self._asked:
                self._asked.add(task_id)
                command = f"agola-core runs approve {run.id} {shlex.quote(self._tasks[task_id].name)}"
                self.say(f"{self._prefix(task_id)} ? waits for approval: {command}")
        if run.phase.is_finished and not self._ended:
            self._ended = True
            self.say(describe_run(run))

    def step(self, task_id: str, step: int) -> None:
        """Print the name of a step."""
        self.say(f"{self._prefix(task_id)} > {step_name(self._tasks[task_id].steps[step])}")

    def line(self, task_id: str, text: str) -> None:
        """Print a line of a log."""
        self.say(f"{self._prefix(task_id)} | {text}")

    def say(self, text: str) -> None:
        """Print a line."""
        with self._lock:
            click.echo(text, err=self._err)

    def __enter__(self) -> Self:
        """Name the run."""
        self.say(f"run {self._run.name!r} #{self._run.counter} {self._run.id}")
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def _prefix(self, task_id: str) -> str:
        return self._tasks[task_id].name.ljust(self._width)


class LiveDisplay(PlainDisplay):
    """The lines of the logs above, the state of all tasks, redrawn as it changes, below."""

    def __init__(self, bundle: RunBundle) -> None:
        from rich.console import Console  # noqa: PLC0415 - only on a terminal
        from rich.live import Live  # noqa: PLC0415

        super().__init__(bundle)
        self._state = bundle.run
        self._console = Console(highlight=False)
        self._live: Any = Live(console=self._console, refresh_per_second=8, get_renderable=self._render, transient=True)

    def show(self, run: Run) -> None:
        """Redraw the tasks, and print how the ended ones ended."""
        self._state = run
        for task_id, task in run.tasks.items():
            before = self._shown.get(task_id, TaskStatus.NOT_STARTED)
            self._shown[task_id] = task.status
            if before is not task.status and task.status.is_finished:
                self.say(f"{self._prefix(task_id)} {task_mark(task.status)} {describe_task(task)}")
        self._say_rest(run)

    def say(self, text: str) -> None:
        """Print a line above the tasks."""
        from rich.text import Text  # noqa: PLC0415 - only on a terminal

        self._console.print(Text.from_ansi(text))

    def __enter__(self) -> Self:
        """Begin to draw."""
        super().__enter__()
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._live.stop()

    def _render(self) -> Any:
        from rich.text import Text  # noqa: PLC0415 - only on a terminal

        text = Text()
        configured = sorted(self._tasks.values(), key=lambda task: (task.level, task.name))
        for item in configured:
            task = self._state.tasks.get(item.id)
            if task is not None:
                took = duration(task.start_time, task.end_time)
                mark = "?" if task.waiting_approval else task_mark(task.status)
                line = f"{'  ' * item.level}{mark} {item.name} {took}\n"
                text.append(line, style=_STYLES.get(task.status, "dim"))
        return text


_STYLES = {
    TaskStatus.RUNNING: "cyan",
    TaskStatus.SUCCESS: "green",
    TaskStatus.FAILED: "bold red",
    TaskStatus.STOPPED: "yellow",
}


def describe_task(task: RunTask) -> str:
    """Return a task's state in words: how it ended, why, and how long it took."""
    if not task.status.is_finished:
        return task.status.value
    words = [coloured(task.status.value)]
    code = next((step.exit_code for step in task.steps if step.exit_code), None)
    if task.reason:
        words.append(f"({task.reason})")
    elif task.status is TaskStatus.FAILED and code is not None:
        words.append(f"(exit code {code})")
    words.append(duration(task.start_time, task.end_time))
    return " ".join(filter(None, words))


def describe_run(run: Run) -> str:
    """Return how a run ended in words."""
    result = run.result.value if run.result.is_set else run.phase.value
    return f"run {run.name!r} #{run.counter}: {coloured(result)} {duration(run.start_time, run.end_time)}".rstrip()


def step_name(step: object) -> str:
    """Return what people call a step."""
    name = getattr(step, "name", "")
    if isinstance(step, RunStep):
        return name or step.command.strip().split("\n")[0]
    return name or type(step).__name__
