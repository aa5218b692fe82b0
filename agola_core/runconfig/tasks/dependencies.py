"""Parses the dependencies of tasks, and checks that the tasks of a run form an acyclic graph."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from agola_core.runconfig.findings import FindingKind
from agola_core.runconfig.model import Dependency, TaskDefinition
from agola_core.runconfig.yaml.document import Known, Node
from agola_core.runservice.model.graph import graph_errors
from agola_core.runservice.model.types import Depend, DependCondition, RunConfigTask

_DEPENDENCY: Known = {"task": "", "conditions": ""}


def parse_depends(node: Node) -> tuple[Dependency, ...]:
    """Parse the dependencies of a task."""
    return tuple(_dependency(item) for item in node.items())


def _dependency(node: Node) -> Dependency:
    if node.is_text:
        return Dependency(node.text())
    if not node.is_mapping:
        raise node.error(_EXPECTED)
    found = node.mapping()
    if len(found) == 1:
        ((name, inner),) = found.items()
        if inner.is_list:
            return _with_conditions(name, inner)
        if not inner.is_text:
            raise node.error(_EXPECTED)
    fields = node.fields(_DEPENDENCY)
    if "task" not in fields:
        raise node.error(_EXPECTED)
    name = fields["task"].text()
    return _with_conditions(name, fields["conditions"]) if "conditions" in fields else Dependency(name)


_EXPECTED = "a dependency is a task's name, or a mapping from one name to a list of its conditions"


def _with_conditions(name: str, node: Node) -> Dependency:
    items = node.items()
    conditions = tuple(condition for item in items if (condition := _condition(item)) is not None)
    if not items:
        return Dependency(name)
    return Dependency(name, conditions, never=not conditions)


def _condition(node: Node) -> DependCondition | None:
    text = node.text()
    try:
        condition = DependCondition(text)
    except ValueError:
        node.note(f"unknown condition {text!r} never holds; known are {', '.join(DependCondition)}")
        return None
    if condition is DependCondition.ON_SKIPPED:
        node.note("Agola before 0.7 takes on_skipped for a condition that never holds", FindingKind.DIFFERENT)
    return condition


def expand_depends(depends: tuple[Dependency, ...], groups: Mapping[str, list[str]]) -> tuple[Dependency, ...]:
    """Return dependencies with the name of a matrix replaced by the names of all its tasks.

    Args:
        depends: The dependencies.
        groups: By the name of each matrix the names of its tasks.
    """
    return tuple(
        replace(dependency, task=name)
        for dependency in depends
        for name in groups.get(dependency.task, [dependency.task])
    )


def check_graph(tasks: tuple[TaskDefinition, ...], nodes: list[Node]) -> None:
    """Check that tasks form a valid graph.

    Raises:
        ConfigError: They do not; the error names the first invalid task.
    """
    known = {task.name for task in tasks}
    for task, node in zip(tasks, nodes, strict=True):
        seen: set[str] = set()
        for dependency in task.depends:
            name = dependency.task
            if name not in known:
                raise _depends(node).error(f"task {task.name!r} depends on unknown task {name!r}")
            if name in seen:
                raise _depends(node).error(f"task {task.name!r} depends on {name!r} twice")
            seen.add(name)
    graph = {
        task.name: RunConfigTask(
            id=task.name,
            name=task.name,
            depends={dependency.task: Depend(task_id=dependency.task) for dependency in task.depends},
        )
        for task in tasks
    }
    for problem in graph_errors(graph):
        concerned = [node for task, node in zip(tasks, nodes, strict=True) if repr(task.name) in problem]
        raise (concerned or nodes)[0].error(problem)


def _depends(task: Node) -> Node:
    return next((node for key, node in task.mapping().items() if key.lower() == "depends"), task)
