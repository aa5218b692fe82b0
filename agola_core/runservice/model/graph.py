"""The task graph of a run: its levels, and the errors that make it invalid. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice

import msgspec

from agola_core.runservice.model.types import RunConfigTask

Tasks = Mapping[str, RunConfigTask]
MAX_TASKS = 10_000
_MAX_ERRORS = 100


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
    for task_id in _parents_first(tasks):
        levels[task_id] = 1 + max((levels[parent] for parent in parents(tasks, task_id)), default=-1)
    return {task_id: msgspec.structs.replace(task, level=levels[task_id]) for task_id, task in tasks.items()}


def graph_errors(tasks: Tasks) -> list[str]:
    """Return the errors of a graph, at most a hundred; none if it is valid.

    Agola's rules: names are unique, dependencies exist, no cycles, and a task does not depend on a task that is above
    one of its other dependencies.
    """
    errors = list(islice(_wrong_tasks(tasks), _MAX_ERRORS))
    if errors:
        return errors
    cycle = _find_cycle(tasks)
    if cycle:
        return ["circular dependency between tasks " + " -> ".join(repr(tasks[item].name) for item in cycle)]
    return list(islice(_redundant_edges(tasks), _MAX_ERRORS))


def _wrong_tasks(tasks: Tasks) -> Iterator[str]:
    if len(tasks) > MAX_TASKS:
        yield f"a run has at most {MAX_TASKS} tasks, not {len(tasks)}"
    names: set[str] = set()
    for task_id, task in tasks.items():
        if task.name in names:
            yield f"duplicate task name {task.name!r}"
        names.add(task.name)
        for parent in parents(tasks, task_id):
            if parent not in tasks:
                yield f"task {task.name!r} depends on a task that does not exist: {parent!r}"


def _redundant_edges(tasks: Tasks) -> Iterator[str]:
    # Ancestors are bit sets, one bit per task, which keeps long chains and a million edges cheap.
    bits = {task_id: 1 << number for number, task_id in enumerate(tasks)}
    above: dict[str, int] = {}
    for task_id in _parents_first(tasks):
        direct = parents(tasks, task_id)
        asked = all_above = 0
        for parent in direct:
            asked |= bits[parent]
            all_above |= above[parent]
        above[task_id] = asked | all_above
        if not asked & all_above:
            continue
        for parent in direct:
            for item in sorted(direct):
                if above[parent] & bits[item]:
                    yield (
                        f"task {tasks[task_id].name!r} and its dependency {tasks[parent].name!r} "
                        f"both depend on {tasks[item].name!r}"
                    )


def _parents_first(tasks: Tasks) -> list[str]:
    """Return the ids of an acyclic graph, each after its dependencies."""
    found: list[str] = []
    missing: dict[str, int] = {}
    below: dict[str, list[str]] = {task_id: [] for task_id in tasks}
    for task_id in tasks:
        above = parents(tasks, task_id)
        missing[task_id] = len(above)
        for parent in above:
            below[parent].append(task_id)
    ready = deque(task_id for task_id, count in missing.items() if not count)
    while ready:
        task_id = ready.popleft()
        found.append(task_id)
        for child in below[task_id]:
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    return found


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
