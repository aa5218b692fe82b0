"""Lays out a run's task graph: columns by level, curves from each task to those that wait for it. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from agola_core.runservice.model.types import RunConfig, RunConfigTask

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
    tasks = sorted(config.tasks.values(), key=lambda task: task.name)
    graph = _graph(tasks)
    _straighten(graph)
    names = {task.id: task.name for task in tasks}
    heights = {level: sum(_height(node, names) + GAP_Y for node in column) for level, column in graph.columns.items()}
    tallest = max(heights.values(), default=HEIGHT + GAP_Y)
    places: dict[str, tuple[int, int]] = {}
    for number, level in enumerate(sorted(graph.columns)):
        y = MARGIN + (tallest - heights[level]) // 2
        for node in graph.columns[level]:
            places[node] = MARGIN + number * (WIDTH + GAP_X), y
            y += _height(node, names) + GAP_Y
    middles = {node: (x, y + _height(node, names) // 2) for node, (x, y) in places.items()}
    edges = tuple(Edge(way[0], way[-1], _curve([middles[node] for node in way])) for way in graph.ways)
    width = 2 * MARGIN + max(len(graph.columns), 1) * (WIDTH + GAP_X) - GAP_X
    boxes = tuple(Box(node, names[node], *place) for node, place in places.items() if node in names)
    return Layout(width, 2 * MARGIN + tallest - GAP_Y, boxes, edges)


class _Graph(NamedTuple):
    """Nodes in columns: tasks, and the lanes by which dependencies pass columns between their two tasks."""

    columns: dict[int, list[str]]
    parents: dict[str, list[str]]
    ways: list[list[str]]


def _graph(tasks: list[RunConfigTask]) -> _Graph:
    levels = {task.id: task.level for task in tasks}
    graph = _Graph({}, {}, [])
    for task in tasks:
        graph.columns.setdefault(task.level, []).append(task.id)
        graph.parents[task.id] = []
    for task in tasks:
        for parent in sorted(set(task.depends or {}) & set(levels)):
            way = [parent]
            for level in range(levels[parent] + 1, task.level):
                lane = f"{parent}/{level}"  # one for all that pass here from this task
                if lane not in graph.parents:
                    graph.columns.setdefault(level, []).append(lane)
                    graph.parents[lane] = [way[-1]]
                way.append(lane)
            graph.parents[task.id].append(way[-1])
            graph.ways.append([*way, task.id])
    return graph


def _height(node: str, names: dict[str, str]) -> int:
    return HEIGHT if node in names else 0


def _straighten(graph: _Graph) -> None:
    """Order each column by where its nodes' parents stand, so that fewer curves cross."""
    for _ in range(_PASSES):
        place: dict[str, float] = {}
        for level in sorted(graph.columns):
            column = graph.columns[level]
            weight = {
                node: sum(place.get(parent, 0.0) for parent in graph.parents[node]) / max(len(graph.parents[node]), 1)
                for node in column
            }
            if level:
                column.sort(key=lambda node: weight[node])
            place.update({node: row + (1 - len(column)) / 2 for row, node in enumerate(column)})


def _curve(middles: list[tuple[int, int]]) -> str:
    """Return the path from one box to another: a curve between columns, straight through those it passes."""
    path = ""
    for (x1, y1), (x2, y2) in pairwise(middles):
        start, middle = x1 + WIDTH, x1 + WIDTH + (x2 - x1 - WIDTH) // 2
        path += f"{'L' if path else 'M'}{start} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
    return path
