"""The task graph of a run: levels, and what makes it no graph. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agola_core.runservice.types import RunConfigTask

Tasks = Mapping[str, RunConfigTask]


def parents(tasks: Tasks, task_id: str) -> list[str]:
    """Return the ids of the tasks that a task depends on directly."""
    return list(tasks[task_id].depends or {})


def ancestors(tasks: Tasks, task_id: str) -> list[str]:
    """Return all tasks above a task, ordered by level, then name: the order in which workspaces are unpacked."""
    found: set[str] = set()
    waiting = parents(tasks, task_id)
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(parents(tasks, current))
    return sorted(found, key=lambda item: (tasks[item].level, tasks[item].name))


def with_levels(tasks: Tasks) -> dict[str, RunConfigTask]:
    """Return the tasks with their levels: 0 without parents, else one more than the deepest parent.

    The graph must have no errors (see `graph_errors`).
    """
    levels: dict[str, int] = {}
    remaining = dict(tasks)
    while remaining:
        for task_id in list(remaining):
            above = parents(tasks, task_id)
            if all(parent in levels for parent in above):
                levels[task_id] = 1 + max((levels[parent] for parent in above), default=-1)
                del remaining[task_id]
    return {task_id: msgspec.structs.replace(task, level=levels[task_id]) for task_id, task in tasks.items()}


def graph_errors(tasks: Tasks) -> list[str]:
    """Return what is wrong with a graph; nothing when it is sound.

    Agola's rules: names are unique, dependencies exist, no cycles, and a task does not depend on a task that is above
    one of its other dependencies.
    """
    errors = []
    names: dict[str, str] = {}
    for task_id, task in tasks.items():
        if task.name in names:
            errors.append(f"duplicate task name {task.name!r}")
        names[task.name] = task_id
        errors.extend(
            f"task {task.name!r} depends on a task that does not exist: {parent!r}"
            for parent in parents(tasks, task_id)
            if parent not in tasks
        )
    if errors:
        return errors
    cycle = _find_cycle(tasks)
    if cycle:
        return ["circular dependency between tasks " + " -> ".join(repr(tasks[item].name) for item in cycle)]
    return _redundant_edges(tasks)


def _redundant_edges(tasks: Tasks) -> list[str]:
    # What is above a task is a set of bits, one a task, so that a long chain stays cheap.
    bits = {task_id: 1 << number for number, task_id in enumerate(tasks)}
    above: dict[str, int] = {}
    errors = []
    for task_id in _parents_first(tasks):
        direct = parents(tasks, task_id)
        above[task_id] = 0
        for parent in direct:
            above[task_id] |= above[parent] | bits[parent]
        for parent in direct:
            errors += [
                f"task {tasks[task_id].name!r} and its dependency {tasks[parent].name!r} "
                f"both depend on {tasks[item].name!r}"
                for item in sorted(direct)
                if above[parent] & bits[item]
            ]
    return errors


def _parents_first(tasks: Tasks) -> list[str]:
    """Return the ids of a graph without cycles, each after all that it depends on."""
    found: dict[str, None] = {}
    for root in tasks:
        waiting = [root]
        while waiting:
            current = waiting[-1]
            missing = [parent for parent in parents(tasks, current) if parent not in found]
            if missing and current not in found:
                waiting += missing
            else:
                found[current] = None
                waiting.pop()
    return list(found)


def _find_cycle(tasks: Tasks) -> list[str]:
    done: set[str] = set()
    for root in tasks:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            current, leaving = stack.pop()
            if leaving:
                on_path.discard(path.pop())
                done.add(current)
            elif current in on_path:
                return [*path[path.index(current) :], current]
            elif current not in done:
                path.append(current)
                on_path.add(current)
                stack.append((current, True))
                stack.extend((parent, False) for parent in parents(tasks, current))
    return []
