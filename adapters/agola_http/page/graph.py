"""Lays out a run's task graph: columns by level, curves from each task to those that wait for it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from agola_core.runservice.types import RunConfig

WIDTH, HEIGHT = 190, 46
GAP_X, GAP_Y, MARGIN = 56, 16, 8
_PASSES = 4


class Box(NamedTuple):
    """Where a task is drawn: the upper left corner, in pixels."""

    id: str
    name: str
    x: int
    y: int


class Edge(NamedTuple):
    """A dependency: the ids of both tasks and the path of the curve between them."""

    parent: str
    child: str
    path: str


class Layout(NamedTuple):
    """A drawn graph."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def layout(config: RunConfig) -> Layout:
    """Return the layout of a run's graph; the same graph is always drawn alike.

    Args:
        config: The run's configuration, its levels computed.
    """
    columns: dict[int, list[str]] = {}
    names = {task.id: task.name for task in config.tasks.values()}
    parents = {task.id: [p for p in task.depends or {} if p in names] for task in config.tasks.values()}
    for task in sorted(config.tasks.values(), key=lambda task: task.name):
        columns.setdefault(task.level, []).append(task.id)
    _straighten(columns, parents)
    rows = max((len(column) for column in columns.values()), default=0)
    boxes: dict[str, Box] = {}
    for number, level in enumerate(sorted(columns)):
        column = columns[level]
        top = MARGIN + (rows - len(column)) * (HEIGHT + GAP_Y) // 2
        for row, task_id in enumerate(column):
            x, y = MARGIN + number * (WIDTH + GAP_X), top + row * (HEIGHT + GAP_Y)
            boxes[task_id] = Box(task_id, names[task_id], x, y)
    edges = tuple(
        Edge(parent, child, _curve(boxes[parent], boxes[child])) for child in boxes for parent in sorted(parents[child])
    )
    width = 2 * MARGIN + max(len(columns), 1) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + max(rows, 1) * (HEIGHT + GAP_Y) - GAP_Y
    return Layout(width, height, tuple(boxes.values()), edges)


def _straighten(columns: dict[int, list[str]], parents: dict[str, list[str]]) -> None:
    """Order each column by where its tasks' parents stand, so that fewer curves cross."""
    for _ in range(_PASSES):
        place: dict[str, float] = {}
        for level in sorted(columns):
            column = columns[level]
            weight = {
                task_id: sum(place.get(parent, 0.0) for parent in parents[task_id]) / max(len(parents[task_id]), 1)
                for task_id in column
            }
            if level:
                column.sort(key=lambda task_id: weight[task_id])
            place.update({task_id: row + (1 - len(column)) / 2 for row, task_id in enumerate(column)})


def _curve(parent: Box, child: Box) -> str:
    x1, y1 = parent.x + WIDTH, parent.y + HEIGHT // 2
    x2, y2 = child.x, child.y + HEIGHT // 2
    middle = (x1 + x2) // 2
    return f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
