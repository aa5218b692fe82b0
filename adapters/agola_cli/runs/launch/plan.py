"""Lists what a configuration would run: its tasks, their dependencies, and why some are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
import msgspec

from agola_cli.output.records import print_table, printable
from agola_core.errors import ConfigError
from agola_core.runservice.model.graph import graph_errors, with_levels
from agola_core.runservice.model.types import DependCondition, RunConfigTask


class PlannedTask(msgspec.Struct, frozen=True):
    """A task that would be run, or skipped.

    Attributes:
        depends: The names of the tasks that it waits for.
        skipped: Why it is skipped; "" when it runs.
        approval: Whether it waits for approval.
    """

    name: str
    level: int
    depends: list[str]
    skipped: str
    approval: bool


def plan(tasks: dict[str, RunConfigTask]) -> list[PlannedTask]:
    """Return the tasks of a run in the order in which they may start.

    Raises:
        ConfigError: Their graph is wrong.
    """
    if errors := graph_errors(tasks):
        raise ConfigError("; ".join(errors))
    skipped: dict[str, str] = {}
    planned = []
    for task in sorted(with_levels(tasks).values(), key=lambda task: (task.level, task.name)):
        depends = {tasks[task_id].name: item.conditions for task_id, item in (task.depends or {}).items()}
        reason = "its `when` does not hold" if task.skip else ""
        for name, conditions in depends.items():
            if not reason and skipped.get(name) and DependCondition.ON_SKIPPED not in conditions:
                reason = f"{name} is skipped"
        skipped[task.name] = reason
        planned.append(PlannedTask(task.name, task.level, sorted(depends), reason, task.needs_approval))
    return planned


def print_plan(name: str, tasks: Iterable[PlannedTask]) -> None:
    """Print a run's tasks as a table."""
    click.echo(f"run {name!r}:")
    rows = [(task.name, ", ".join(task.depends), _fate(task)) for task in tasks]
    print_table(("TASK", "AFTER", "WOULD"), rows)


def graph_lines(name: str, tasks: list[PlannedTask], form: str) -> Iterator[str]:
    """Yield a run's graph.

    Args:
        name: The run's name.
        tasks: Its tasks.
        form: `text`, `dot` or `mermaid`.
    """
    edges = [(parent, task.name) for task in tasks for parent in task.depends]
    if form == "dot":
        yield f"digraph {_quoted(name)} {{"
        yield from (f"  {_quoted(task.name)};" for task in tasks)
        yield from (f"  {_quoted(parent)} -> {_quoted(child)};" for parent, child in edges)
        yield "}"
    elif form == "mermaid":
        numbers = {task.name: f"t{number}" for number, task in enumerate(tasks)}
        yield "flowchart TD"
        yield from (f'  {numbers[task.name]}["{_escaped(task.name)}"]' for task in tasks)
        yield from (f"  {numbers[parent]} --> {numbers[child]}" for parent, child in edges)
    else:
        yield f"run {name!r}:"
        for task in tasks:
            after = f" (after {', '.join(task.depends)})" if task.depends else ""
            skipped = f": skipped, {task.skipped}" if task.skipped else ""
            yield printable(f"{'  ' * (task.level + 1)}{task.name}{after}{skipped}")


def _fate(task: PlannedTask) -> str:
    if task.skipped:
        return f"be skipped: {task.skipped}"
    return "wait for approval" if task.approval else "run"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;")
