"""Lays out a run's task graph: columns by level, curves from each task to those that wait for it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from agola_core.runservice.model.types import RunConfig, RunConfigTask
from agola_http.page.views import natural

WIDTH, HEIGHT = 190, 46
GAP_X, GAP_Y, MARGIN = 56, 16, 8
_PASSES = 4


class Box(NamedTuple):
    """Where a task is drawn, or a closed fold of tasks.

    Attributes:
        id: The task's, or that of the fold and its column.
        name: The task's, or what the names of the fold's have in common.
        x: The left edge, in pixels.
        y: The upper edge.
        fold: The id of the fold; "" for a task.
        size: The number of the tasks.
    """

    id: str
    name: str
    x: int
    y: int
    fold: str = ""
    size: int = 1


class Edge(NamedTuple):
    """A dependency: the ids of both boxes and the path of the curve between them."""

    parent: str
    child: str
    path: str


class Layout(NamedTuple):
    """A drawn graph."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


class _Node(NamedTuple):
    """What becomes a box."""

    id: str
    name: str
    fold: str
    level: int


def layout(config: RunConfig, closed: Mapping[str, tuple[str, str]] = MappingProxyType({})) -> Layout:
    """Return the layout of a run's graph; the same graph is always drawn alike.

    Args:
        config: The run's configuration, its levels computed.
        closed: The closed folds that tasks are in, each with its name: what a column has of one is one box.
    """
    tasks = sorted(config.tasks.values(), key=lambda task: natural(task.name))
    nodes = {task.id: _node(task, closed) for task in tasks}
    graph = _graph(tasks, nodes)
    _straighten(graph)
    counts = Counter(nodes.values())
    boxed = {node.id: node for node in counts}
    heights = {level: sum(_height(name, boxed) + GAP_Y for name in column) for level, column in graph.columns.items()}
    tallest = max(heights.values(), default=HEIGHT + GAP_Y)
    places: dict[str, tuple[int, int]] = {}
    for number, level in enumerate(sorted(graph.columns)):
        y = MARGIN + (tallest - heights[level]) // 2
        for name in graph.columns[level]:
            places[name] = MARGIN + number * (WIDTH + GAP_X), y
            y += _height(name, boxed) + GAP_Y
    middles = {name: (x, y + _height(name, boxed) // 2) for name, (x, y) in places.items()}
    edges = tuple(Edge(way[0], way[-1], _curve([middles[name] for name in way])) for way in graph.ways)
    width = 2 * MARGIN + max(len(graph.columns), 1) * (WIDTH + GAP_X) - GAP_X
    boxes = tuple(Box(name, node.name, *places[name], node.fold, counts[node]) for name, node in boxed.items())
    return Layout(width, 2 * MARGIN + tallest - GAP_Y, boxes, edges)


def _node(task: RunConfigTask, closed: Mapping[str, tuple[str, str]]) -> _Node:
    if task.id not in closed:
        return _Node(task.id, task.name, "", task.level)
    fold, name = closed[task.id]
    return _Node(f"fold:{fold}:{task.level}", name, fold, task.level)


class _Graph(NamedTuple):
    """Names in columns: those of boxes, and of the lanes by which dependencies pass columns between their two boxes."""

    columns: dict[int, list[str]]
    parents: dict[str, list[str]]
    ways: list[list[str]]


def _graph(tasks: list[RunConfigTask], nodes: dict[str, _Node]) -> _Graph:
    graph, known = _Graph({}, {}, []), set[tuple[str, str]]()
    for node in dict.fromkeys(nodes.values()):
        graph.columns.setdefault(node.level, []).append(node.id)
        graph.parents[node.id] = []
    for task in tasks:
        child = nodes[task.id]
        for name in sorted(set(task.depends or {}) & set(nodes)):
            parent = nodes[name]
            if (parent.id, child.id) in known:
                continue
            known.add((parent.id, child.id))
            way = [parent.id]
            for level in range(parent.level + 1, child.level):
                lane = f"{parent.id}/{level}"  # one for all that pass here from this box
                if lane not in graph.parents:
                    graph.columns.setdefault(level, []).append(lane)
                    graph.parents[lane] = [way[-1]]
                way.append(lane)
            graph.parents[child.id].append(way[-1])
            graph.ways.append([*way, child.id])
    return graph


def _height(name: str, boxed: Mapping[str, _Node]) -> int:
    return HEIGHT if name in boxed else 0


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
