"""The matrix of a task: one task for each combination of values, an addition to Agola.

It stands as the first of the task's steps, because Agola ignores unknown keys, and would run the task once. It refuses
a step of an unknown type by name. `{{ matrix.NAME }}` in any text of the task is a value of the combination.
"""

from __future__ import annotations

import itertools
import math
import re

import msgspec

from agola_core.runconfig.findings import FindingKind
from agola_core.runconfig.yaml.document import Node
from agola_core.runconfig.yaml.tree import Tree

MAX_CELLS = 256
_NODE_CHARACTERS = 16  # what a value counts beside its text
_STEP = "matrix"
_AXIS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_TEMPLATE = re.compile(r"\{\{\s*matrix\.([A-Za-z0-9_-]+)\s*\}\}")

Cell = tuple[str, ...]


class TaskCell(msgspec.Struct, frozen=True):
    """A task as it is written, or for one combination of its matrix.

    Attributes:
        node: The task, the values filled in.
        suffix: What is added to the task's name: ` (3.11, linux)`; "" without a matrix.
        steps: Its steps without the matrix.
    """

    node: Node
    suffix: str
    steps: list[Node]


def expand_task(node: Node) -> list[TaskCell]:
    """Return a task once, or for each combination of the matrix that is its first step.

    Raises:
        ConfigError: The matrix is wrong, or a text of the task names a value that it does not have.
    """
    steps = _steps(node)
    matrix = _matrix(steps[0]) if steps else None
    if matrix is None:
        return [TaskCell(node, "", steps)]
    matrix.note("Agola refuses a matrix: it knows no such step", FindingKind.REFUSED)
    axes, cells = _cells(matrix)
    filled = [node.with_tree(_filled(node, dict(zip(axes, cell, strict=True)))) for cell in cells]
    return [TaskCell(task, f" ({', '.join(cell)})", _steps(task)[1:]) for cell, task in zip(cells, filled, strict=True)]


def _steps(node: Node) -> list[Node]:
    if not node.is_mapping:
        return []
    found = [child for key, child in node.mapping().items() if key.lower() == "steps"]
    return found[-1].items() if found else []


def _matrix(step: Node) -> Node | None:
    """Return the matrix that a step is; None if it is another step."""
    if step.is_text and step.text() == _STEP:
        raise step.error("a matrix has lists of values, such as {python: ['3.11', '3.12']}")
    found = step.mapping() if step.is_mapping else {}
    if "type" in found:
        return step if found["type"].is_text and found["type"].text() == _STEP else None
    return found.get(_STEP) if len(found) == 1 else None


def _cells(node: Node) -> tuple[list[str], list[Cell]]:
    """Return the names of a matrix's axes, and its combinations."""
    found = {key: child for key, child in node.mapping().items() if key != "type"}
    included = found["include"].items() if "include" in found else []
    excluded = found["exclude"].items() if "exclude" in found else []
    lists = {key: _values(child) for key, child in found.items() if key not in {"include", "exclude"}}
    axes = list(lists) or (list(included[0].mapping()) if included else [])
    if not axes:
        raise node.error("a matrix has lists of values, such as {python: ['3.11', '3.12']}")
    for axis in axes:
        if _AXIS.fullmatch(axis) is None:
            raise node.error(f"not a name of a matrix's values: {axis!r}; letters, digits, '_' and '-'")
    if math.prod(map(len, lists.values())) + len(included) > MAX_CELLS:
        raise node.error(f"the matrix has more than {MAX_CELLS} combinations")
    cells = list(itertools.product(*lists.values())) if lists else []
    for entry in excluded:
        chosen = _entry(entry, axes)
        left = [cell for cell in cells if any(cell[axes.index(axis)] != value for axis, value in chosen.items())]
        if len(left) == len(cells):
            raise entry.error("no combination of the matrix is excluded by this")
        cells = left
    for entry in included:
        chosen = _entry(entry, axes)
        if missing := [axis for axis in axes if axis not in chosen]:
            raise entry.error(f"what is included has a value for everything: {', '.join(missing)} is missing")
        cell = tuple(chosen[axis] for axis in axes)
        if cell in cells:
            raise entry.error("the matrix has this combination already")
        cells.append(cell)
    if not cells:
        raise node.error("every combination of the matrix is excluded")
    return axes, cells


def _values(node: Node) -> list[str]:
    values = [_value(item) for item in node.items()]
    if not values:
        raise node.error("expected a list of values")
    if len(set(values)) < len(values):
        raise node.error("a value stands twice")
    return values


def _entry(node: Node, axes: list[str]) -> dict[str, str]:
    """Return the values that an entry of `include` or `exclude` names."""
    found = {}
    for axis, value in node.mapping().items():
        if axis not in axes:
            raise value.error(f"the matrix has no {axis!r}; it has {', '.join(axes)}")
        found[axis] = _value(value)
    if not found:
        raise node.error(f"expected a mapping from {', '.join(axes)} to values")
    return found


def _value(node: Node) -> str:
    """Return a value; a number or a boolean as it is written."""
    if not node.is_scalar:
        raise node.error(f"expected a string, not {node.kind()}")
    text = node.text() if node.is_text else node.written_text()
    if not text or not text.isprintable():
        raise node.error("a value of a matrix is printable, and not empty")
    return text


def _filled(node: Node, values: dict[str, str]) -> Tree:
    """Return a tree with the values filled into its texts."""
    tree = node.tree
    node.count_filled(_NODE_CHARACTERS)
    if node.is_text:

        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise node.error(f"the matrix has no {match[1]!r}; it has {', '.join(values)}")
            return values[match[1]]

        text = node.text()
        filled = _TEMPLATE.sub(value, text)
        node.count_filled(len(filled))
        return tree if filled == text else Tree(filled, tree.line, filled)
    if node.is_list:
        return _copied(tree, [_filled(item, values) for item in node.items()])
    if node.is_mapping:
        return _copied(tree, {key: _filled(child, values) for key, child in node.mapping().items()})
    return tree


def _copied(tree: Tree, value: list[Tree] | dict[str, Tree]) -> Tree:
    made = Tree(value, tree.line, tree.text)
    made.lost, made.written = tree.lost, tree.written
    return made
