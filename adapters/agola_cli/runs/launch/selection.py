"""Selects the tasks of a configuration that are run: all of them, or those that options name."""

from __future__ import annotations

import click
import msgspec
from msgspec.structs import replace

from agola_cli.options.common import bundled
from agola_core.encoding.suggestions import did_you_mean
from agola_core.errors import BadRequestError
from agola_core.runservice.model.types import RunConfigTask


class Selection(msgspec.Struct, frozen=True):
    """Which tasks are run.

    Attributes:
        names: Only these, and what they depend on.
        starts: Only these, and what depends on them.
        alone: Leave out what `names` depend on.
    """

    names: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    alone: bool = False

    def check(self, known: set[str]) -> None:
        """Check that every task exists.

        Raises:
            BadRequestError: One does not, or `alone` has nothing to refer to.
        """
        for name in (*self.names, *self.starts):
            if not any(is_called(task, name) for task in known):
                hint = did_you_mean(name, known) or f"; there are {', '.join(map(repr, sorted(known)))}"
                raise BadRequestError(f"no task {name!r}{hint}")
        if self.alone and not self.names:
            raise BadRequestError("--alone goes with --task")

    def of(self, tasks: dict[str, RunConfigTask]) -> dict[str, RunConfigTask]:
        """Return the selected tasks of a run, by their ids; they depend only on each other."""
        if not self.names and not self.starts:
            return tasks
        parents = {task_id: set(task.depends or {}) for task_id, task in tasks.items()}
        children = {task_id: {other for other in tasks if task_id in parents[other]} for task_id in tasks}
        named = _called(tasks, self.names)
        kept = named if self.alone else _reached(named, parents)
        kept |= _reached(_called(tasks, self.starts), children)
        return {
            task_id: replace(task, depends={key: item for key, item in (task.depends or {}).items() if key in kept})
            for task_id, task in tasks.items()
            if task_id in kept
        }


selection_options = bundled(
    "selection",
    Selection,
    click.option(
        "--task",
        "names",
        multiple=True,
        metavar="NAME",
        help="Only this task, or tasks of this matrix, and those it depends on; repeatable.",
    ),
    click.option("--alone", is_flag=True, help="With --task: without those it depends on."),
    click.option(
        "--from",
        "starts",
        multiple=True,
        metavar="NAME",
        help="Only this task and what depends on it; repeatable.",
    ),
)


def _called(tasks: dict[str, RunConfigTask], names: tuple[str, ...]) -> set[str]:
    return {task_id for task_id, task in tasks.items() if any(is_called(task.name, name) for name in names)}


def is_called(task: str, name: str) -> bool:
    """Return whether a task has a name, or is one of the matrix of that name."""
    return task == name or (task.startswith(f"{name} (") and task.endswith(")"))


def _reached(start: set[str], edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = set(start)
    while waiting:
        task_id = waiting.pop()
        found.add(task_id)
        waiting |= edges[task_id] - found
    return found
