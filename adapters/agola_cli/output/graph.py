"""Draws the task graph of a run as text: dependencies, results, and when each task ran."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import click

from agola_cli.output.display import describe_task
from agola_cli.output.records import counted, printable, task_mark
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import RunConfigTask, RunTask

_MIN_BAR = 10
_MAX_BAR = 40


def draw_graph(bundle: RunBundle, width: int) -> Iterator[str]:
    """Yield the lines of a run's graph: a task a line, below the tasks that it waits for.

    Args:
        bundle: The run.
        width: Of the terminal, in characters; narrow ones get no time bars, and long dependencies are counted.
    """
    configured = sorted(bundle.run_config.tasks.values(), key=lambda item: (item.level, item.name))
    rows = [(item, bundle.run.tasks[item.id]) for item in configured if item.id in bundle.run.tasks]
    names = {item.id: printable(item.name) for item, _ in rows}
    states = [describe_task(task, item) for item, task in rows]
    state_width = max((len(click.unstyle(state)) for state in states), default=0)
    room = max(0, width - state_width - 2)
    labels = [_label(item, task, names, room) for item, task in rows]
    label_width = min(room, max(map(len, labels), default=0))
    lines = [(label, state, task) for label, state, (_, task) in zip(labels, states, rows, strict=True)]
    bar_width = min(_MAX_BAR, width - label_width - state_width - 5)
    span = _span([task for _, _, task in lines])
    for label, state, task in lines:
        bar = _bar(task, span, bar_width) if span and bar_width >= _MIN_BAR else ""
        padding = " " * (state_width - len(click.unstyle(state)))
        yield f"{label}:{' ' * (label_width - len(label))} {state}{padding}  {bar}".rstrip()


def _label(item: RunConfigTask, task: RunTask, names: dict[str, str], room: int) -> str:
    label = f"{'  ' * (item.level + 1)}{task_mark(task.status)} {printable(item.name)}"
    above = sorted(names[parent] for parent in item.depends or {} if parent in names)
    if not above:
        return label
    after = f"{label} (after {', '.join(above)})"
    return after if len(after) <= room else f"{label} (after {counted(above, 'task')})"


def _span(tasks: list[RunTask]) -> tuple[datetime, datetime] | None:
    starts = [task.start_time for task in tasks if task.start_time]
    if not starts:
        return None
    now = datetime.now(UTC)
    ends = [task.end_time or now for task in tasks if task.start_time]
    return min(starts), max(ends)


def _bar(task: RunTask, span: tuple[datetime, datetime], width: int) -> str:
    if task.start_time is None:
        return ""
    total = (span[1] - span[0]).total_seconds() or 1.0
    begin = int((task.start_time - span[0]).total_seconds() / total * width)
    end = int(((task.end_time or span[1]) - span[0]).total_seconds() / total * width)
    begin = min(begin, width - 1)
    return "·" * begin + "█" * max(1, end - begin)
