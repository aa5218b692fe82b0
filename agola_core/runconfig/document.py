"""A configuration file as a tree of nodes that know their line and their place, for errors that say both."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any

import yaml

from agola_core.errors import ConfigError

_MAX_BYTES = 1024 * 1024
_MAX_NODES = 100_000
_MAX_DEPTH = 50
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Node:
    """A value of a document.

    Attributes:
        value: A dict of nodes by key, a list of nodes, or a scalar: text, number, boolean or None.
        line: From 1; None where lines mean nothing.
        place: Such as `runs[0].tasks[2]`.
        source: The file, as the user named it.
    """

    __slots__ = ("line", "place", "source", "value")

    def __init__(self, value: Any, line: int | None, place: str, source: str) -> None:
        self.value = value
        self.line = line
        self.place = place
        self.source = source

    def error(self, message: str) -> ConfigError:
        """Return an error at this place."""
        return ConfigError(message, source=self.source, line=self.line, place=self.place)

    def mapping(self, known: Collection[str] | None = None) -> dict[str, Node]:
        """Return the nodes of a mapping.

        Args:
            known: The keys that are allowed; None for any.

        Raises:
            ConfigError: It is no mapping, or has another key.
        """
        if not isinstance(self.value, dict):
            raise self.error(f"expected a mapping, not {self.kind()}")
        if known is not None:
            for key, node in self.value.items():
                if key not in known:
                    close = get_close_matches(key, known, 1)
                    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"
                    raise node.error(f"unknown key {key!r}{hint}")
        found: dict[str, Node] = self.value
        return found

    def items(self) -> list[Node]:
        """Return the nodes of a list."""
        if not isinstance(self.value, list):
            raise self.error(f"expected a list, not {self.kind()}")
        return self.value

    def text(self) -> str:
        """Return a text; numbers and booleans are taken as they are written in YAML."""
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, int | float):
            return str(self.value)
        if not isinstance(self.value, str):
            raise self.error(f"expected a string, not {self.kind()}")
        return self.value

    def boolean(self) -> bool:
        """Return a boolean."""
        if not isinstance(self.value, bool):
            raise self.error(f"expected true or false, not {self.kind()}")
        return self.value

    def number(self) -> float:
        """Return a number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.error(f"expected a number, not {self.kind()}")
        return float(self.value)

    def texts(self) -> list[str]:
        """Return a list of texts."""
        return [node.text() for node in self.items()]

    def kind(self) -> str:
        """Return what it is, for people."""
        if self.value is None:
            return "nothing"
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        return repr(self.value)[:40]


def load_document(data: bytes, source: str, *, strict_json: bool = False, lines: bool = True) -> Node:
    """Return the tree of a document.

    Args:
        data: YAML, or JSON.
        source: The file, for errors.
        strict_json: The document must be JSON.
        lines: Whether nodes know their lines.

    Raises:
        ConfigError: It is not, is too large, or has a key twice.
    """
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"larger than {_MAX_BYTES} bytes", source=source)
    try:
        text = data.decode()
        if strict_json:
            json.loads(text)
        root = yaml.compose(text, Loader=_LOADER)
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8", source=source, line=data[: error.start].count(b"\n") + 1) from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", source=source, line=error.lineno) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError(f"not YAML: {error.problem or error.context}", source=source, line=line) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}", source=source) from error
    if root is None:
        raise ConfigError("the file is empty", source=source)
    return _Builder(source, lines=lines).build(root, "", 0)


class _Builder:
    def __init__(self, source: str, *, lines: bool) -> None:
        self._source = source
        self._lines = lines
        self._count = 0
        self._scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, place: str, depth: int) -> Node:
        line = self._line(node)
        self._count += 1
        if self._count > _MAX_NODES or depth > _MAX_DEPTH:
            raise ConfigError("the document is too large or too deep", source=self._source, line=line, place=place)
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = dict(self._pairs(node, place, depth))
        elif isinstance(node, yaml.SequenceNode):
            value = [self.build(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        else:
            value = self._scalar(node, place)
        return Node(value, line, place, self._source)

    def _pairs(self, node: yaml.MappingNode, place: str, depth: int) -> Iterator[tuple[str, Node]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            line = self._line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a string", source=self._source, line=line, place=place)
            key = key_node.value
            if key in seen:
                raise ConfigError(f"key {key!r} stands twice", source=self._source, line=line, place=place)
            seen.add(key)
            inner = self.build(value_node, f"{place}.{key}" if place else key, depth + 1)
            inner.line = line if isinstance(inner.value, dict | list) or inner.value is None else inner.line
            yield key, inner

    def _scalar(self, node: yaml.Node, place: str) -> str | int | float | bool | None:
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            line = self._line(node)
            raise ConfigError("a value that cannot be read", source=self._source, line=line, place=place) from error
        # Dates and the like stay as they are written.
        return value if value is None or isinstance(value, str | int | float | bool) else str(node.value)

    def _line(self, node: yaml.Node) -> int | None:
        return int(node.start_mark.line) + 1 if self._lines else None
