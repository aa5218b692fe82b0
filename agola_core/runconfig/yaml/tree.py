"""Composes a YAML document as Agola 0.2 does: the first document, the last of equal keys, merges in order.

Nothing here calls itself, so that a document's depth costs no stack, and an alias is the node that it names.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any

import yaml

from agola_core.errors import ConfigError
from agola_core.runconfig.findings import Finding, FindingKind, Report
from agola_core.runconfig.yaml.scalars import Scalar, as_text, resolve

MAX_BYTES = 1024 * 1024
MAX_NODES = 100_000
MAX_DEPTH = 500  # libyaml itself ends at twice that
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE_TAG = "tag:yaml.org,2002:merge"
_MAX_KEY = 1 << 63
_NO_LIMIT = "Agola 0.2 has no limit of size or depth, other than its memory"
_INFINITE_KEYS = {"+Inf": ".inf", "-Inf": "-.inf", "NaN": ".nan"}


class Tree:
    """A node of a document.

    Attributes:
        value: A dict of trees by key, a list of trees, or a scalar.
        line: From 1.
        text: A scalar as it is written.
        is_merge: Whether it is a merge key.
        size: How many nodes it has with all aliases expanded.
        depth: How many levels it has.
        lost: Lines and keys of values that later keys replaced.
        written: Keys that are not read as written, with their written form.
    """

    __slots__ = ("depth", "is_merge", "line", "lost", "size", "text", "value", "written")

    def __init__(self, value: Scalar | list[Tree] | dict[str, Tree], line: int, text: str = "") -> None:
        self.value = value
        self.line = line
        self.text = text
        self.is_merge = False
        self.size = 1
        self.depth = 1
        self.lost: list[tuple[int, str]] = []
        self.written: dict[str, str] = {}


class Document:
    """A stream that was read.

    Attributes:
        root: The first document; None for an empty stream.
        second: The line where another document begins.
    """

    __slots__ = ("_has_infinite", "root", "second")

    def __init__(self, root: Tree | None, second: int | None, *, has_infinite: bool) -> None:
        self.root = root
        self.second = second
        self._has_infinite = has_infinite

    def infinite(self) -> Iterator[Tree]:
        """Yield its infinite and NaN numbers."""
        waiting = [self.root] if self.root is not None and self._has_infinite else []
        while waiting:
            tree = waiting.pop()
            if isinstance(tree.value, dict):
                waiting += tree.value.values()
            elif isinstance(tree.value, list):
                waiting += tree.value
            elif isinstance(tree.value, float) and not math.isfinite(tree.value):
                yield tree


class _Open:
    def __init__(self, event: Any) -> None:
        self.mapping = isinstance(event, yaml.MappingStartEvent)
        self.line = _line(event)
        self.anchor: str | None = event.anchor
        self.children: list[Tree] = []
        self.aliases: set[int] = set()


def read_tree(data: bytes, source: str, report: Report) -> Document:
    """Return the first document of a stream.

    Args:
        data: The stream.
        source: The file, for errors.
        report: Gets findings about what Agola does on errors here.

    Raises:
        ConfigError: It is not YAML, too large, or too deep.
    """
    if len(data) > MAX_BYTES:
        report(Finding(FindingKind.OWN_ERROR, _NO_LIMIT, source))
        raise ConfigError(f"larger than {MAX_BYTES} bytes", source=source)
    builder = _Builder(source, report)
    events = _events(data)
    try:
        root = builder.build(events)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        if "nesting depth" in (error.problem or ""):
            raise builder.too_large(line) from error
        raise ConfigError(f"not YAML: {error.problem or error.context}", source=source, line=line) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise _unreadable(data, source, error) from error
    second = _second_document(events) if root is not None else None
    events.close()
    return Document(root, second, has_infinite=builder.has_infinite)


def _unreadable(data: bytes, source: str, error: Exception) -> ConfigError:
    try:
        data.decode()
    except UnicodeDecodeError as found:
        return ConfigError("not UTF-8", source=source, line=data[: found.start].count(b"\n") + 1)
    return ConfigError(f"not YAML: {str(error).splitlines()[0]}", source=source)


def _events(data: bytes) -> Generator[Any]:
    loader = _LOADER(data or b"\n")
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _second_document(events: Generator[Any]) -> int | None:
    try:
        following = next(events, None)
    except (yaml.YAMLError, UnicodeDecodeError):  # nobody reads it
        return None
    return _line(following) if isinstance(following, yaml.DocumentStartEvent) else None


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Builder:
    def __init__(self, source: str, report: Report) -> None:
        self._source = source
        self._report = report
        self._anchors: dict[str, Tree | None] = {}
        self.has_infinite = False

    def build(self, events: Generator[Any]) -> Tree | None:
        waiting: list[_Open] = []
        for event in events:
            if isinstance(event, yaml.CollectionStartEvent):
                waiting.append(_Open(event))
                if event.anchor:
                    self._anchors[event.anchor] = None
                if len(waiting) > MAX_DEPTH:
                    raise self.too_large(_line(event))
                continue
            done = self._complete(event, waiting)
            if done is None:
                continue
            if done.size > MAX_NODES or done.depth > MAX_DEPTH:
                raise self.too_large(done.line)
            if waiting:
                if isinstance(event, yaml.AliasEvent):
                    waiting[-1].aliases.add(len(waiting[-1].children))
                waiting[-1].children.append(done)
                continue
            next(events, None)  # the document's end
            return done
        return None

    def _complete(self, event: Any, waiting: list[_Open]) -> Tree | None:
        if isinstance(event, yaml.ScalarEvent):
            found, anchor = self._scalar(event), event.anchor
        elif isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            opened = waiting.pop()
            found, anchor = self._mapping(opened) if opened.mapping else _sequence(opened), opened.anchor
        else:
            return None
        if anchor:
            self._anchors[anchor] = found
        return found

    def _scalar(self, event: Any) -> Tree:
        plain = bool(event.implicit[0])
        try:
            value = event.value if event.tag is None and not plain else resolve(event.tag or "", event.value)
        except ValueError as error:
            raise self._error(str(error), _line(event)) from error
        tree = Tree(value, _line(event), event.value)
        tree.is_merge = event.value == "<<" and (plain or event.tag == _MERGE_TAG)
        if isinstance(value, float) and not math.isfinite(value):
            self.has_infinite = True
        return tree

    def _alias(self, event: Any) -> Tree:
        if event.anchor not in self._anchors:
            raise self._error(f"not YAML: unknown anchor {event.anchor!r}", _line(event))
        found = self._anchors[event.anchor]
        if found is None:
            raise self._error(f"the value of anchor {event.anchor!r} contains itself", _line(event))
        if found.is_merge:  # an alias merges nothing
            return Tree(found.value, found.line, found.text)
        return found

    def _mapping(self, opened: _Open) -> Tree:
        entries: dict[str, Tree] = {}
        tree = Tree(entries, opened.line)
        own: set[str] = set()
        for index in range(0, len(opened.children), 2):
            key_tree, value = opened.children[index : index + 2]
            if key_tree.is_merge:
                merged = self._merged(value, is_alias=index + 1 in opened.aliases)
                tree.lost += [(key_tree.line, key) for key in merged if key in own]
                entries.update(merged)
                continue
            key = self._key(key_tree)
            if key != key_tree.text and not isinstance(key_tree.value, str):
                tree.written[key] = key_tree.text
            if key in own:
                tree.lost.append((key_tree.line, key))
            own.add(key)
            entries[key] = _at(value, key_tree.line)
        return _measured(tree, opened.children)

    def _merged(self, value: Tree, *, is_alias: bool) -> dict[str, Tree]:
        # An alias must be of a mapping: one of a list is refused, the list itself is not.
        sources = value.value if isinstance(value.value, list) and not is_alias else [value]
        found: dict[str, Tree] = {}
        for source in reversed(sources):
            if not isinstance(source.value, dict):
                raise self._error("a merge needs a mapping, or a list of them", source.line)
            found.update(source.value)
        return found

    def _key(self, tree: Tree) -> str:
        value = tree.value
        if isinstance(value, dict | list) or value is None:
            raise self._error("a key must be a string", tree.line)
        if isinstance(value, str):
            return value
        if isinstance(value, int) and value >= _MAX_KEY:
            raise self._error("a key that is a number must fit 64 bits", tree.line)
        return _INFINITE_KEYS.get(as_text(value), as_text(value))

    def too_large(self, line: int | None) -> ConfigError:
        self._report(Finding(FindingKind.OWN_ERROR, _NO_LIMIT, self._source, line))
        return self._error("the document is too large or too deep", line)

    def _error(self, message: str, line: int | None) -> ConfigError:
        return ConfigError(message, source=self._source, line=line)


def _sequence(opened: _Open) -> Tree:
    return _measured(Tree(opened.children, opened.line), opened.children)


def _measured(tree: Tree, children: list[Tree]) -> Tree:
    tree.size = 1 + sum(child.size for child in children)
    tree.depth = 1 + max((child.depth for child in children), default=0)
    return tree


def _at(tree: Tree, line: int) -> Tree:
    # What spans lines, or is not there at all, is where its key is.
    if tree.line == line or not (isinstance(tree.value, dict | list) or tree.value is None):
        return tree
    moved = Tree(tree.value, line, tree.text)
    moved.size, moved.depth, moved.lost, moved.written = tree.size, tree.depth, tree.lost, tree.written
    return moved
