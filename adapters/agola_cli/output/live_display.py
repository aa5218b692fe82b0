"""Shows a run live on a terminal: log lines above, a panel with the state of its tasks below."""

from __future__ import annotations

from typing import Any, Self

from agola_cli.output.display import PlainDisplay
from agola_cli.output.records import duration, printable, task_mark
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import Run, RunConfigTask, RunTask, TaskStatus

_SHARE = 3
"""The panel takes at most one in so many lines of the terminal."""

_STYLES = {
    TaskStatus.RUNNING: "cyan",
    TaskStatus.SUCCESS: "green",
    TaskStatus.FAILED: "bold red",
    TaskStatus.STOPPED: "yellow",
}
_FIRST = (TaskStatus.RUNNING, TaskStatus.FAILED)


class LiveDisplay(PlainDisplay):
    """Shows a run on a terminal, redrawing the panel as it changes."""

    def __init__(self, bundle: RunBundle, *, option: str = "") -> None:
        from rich.console import Console  # noqa: PLC0415 - only on a terminal
        from rich.live import Live  # noqa: PLC0415

        super().__init__(bundle, option=option)
        self._state = bundle.run
        self._console = Console(highlight=False)
        self._live: Any = Live(console=self._console, refresh_per_second=8, get_renderable=self._render, transient=True)

    def show(self, run: Run, unfollowed: Any) -> None:
        """Redraw the panel, and print the ends of the tasks without logs."""
        self._state = run
        super().show(run, unfollowed)

    def __enter__(self) -> Self:
        """Begin to draw."""
        super().__enter__()
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the panel."""
        self._live.stop()

    def _print(self, text: str) -> None:
        """Print a line above the panel; the terminal itself wraps it, so that it can be copied whole."""
        from rich.text import Text  # noqa: PLC0415 - only on a terminal

        self._console.print(Text.from_ansi(text), soft_wrap=True)

    def _say_start(self, task_id: str, task: RunTask) -> None:
        """Say nothing: the panel shows it."""

    def _render(self) -> Any:
        from rich.text import Text  # noqa: PLC0415 - only on a terminal

        text = Text(no_wrap=True, overflow="ellipsis")
        for line, style in panel(self._state, self._tasks, self._console.height // _SHARE):
            text.append(f"{line}\n", style=style)
        return text


def panel(run: Run, tasks: dict[str, RunConfigTask], height: int) -> list[tuple[str, str]]:
    """Return the lines of the panel with their styles: what runs and what failed first, the rest counted.

    Args:
        run: The run.
        tasks: Its configuration's tasks, by id.
        height: The most lines; at least two are used.
    """
    rows = [
        (item, run.tasks[item.id])
        for item in sorted(tasks.values(), key=lambda task: (task.level, task.name))
        if item.id in run.tasks
    ]
    height = max(2, height)
    if len(rows) <= height:
        return [_line(item, task) for item, task in rows]
    shown = [row for status in _FIRST for row in rows if row[1].status is status][: height - 1]
    hidden: dict[str, int] = {}
    for item, task in rows:
        if all(item is not other for other, _ in shown):
            word = "waiting" if task.status is TaskStatus.NOT_STARTED else task.status.value
            hidden[word] = hidden.get(word, 0) + 1
    counts = ", ".join(f"{count} {word}" for word, count in hidden.items())
    return [*(_line(item, task) for item, task in shown), (f"… {counts}", "dim")]


def _line(item: RunConfigTask, task: RunTask) -> tuple[str, str]:
    mark = "?" if task.waiting_approval else task_mark(task.status)
    took = duration(task.start_time, task.end_time)
    style = "yellow" if item.ignore_failure and task.status is TaskStatus.FAILED else _STYLES.get(task.status, "dim")
    return f"{'  ' * item.level}{mark} {printable(item.name)} {took}", style
