"""A configuration file as nodes that know their line and place, for errors and warnings.

Values are taken as Go's decoder takes them, which Agola 0.2 reads with: a key is known in any case, an unknown one is
ignored, and null is as good as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from agola_core.encoding.suggestions import did_you_mean
from agola_core.errors import ConfigError
from agola_core.runconfig.findings import Finding, FindingKind, Report
from agola_core.runconfig.yaml.scalars import as_text
from agola_core.runconfig.yaml.tree import Document, Tree, read_tree

_MAX_STATES = 25_000
_MAX_FILLED = 4 * 1024 * 1024

T = TypeVar("T")

Known = Mapping[str, str]
"""The keys that a mapping may have; those that nothing reads here have the reason, the others ""."""


class Reading:
    """One reading of a file, which collects its findings."""

    def __init__(self, source: str, report: Report, document: Document, *, lines: bool) -> None:
        self.source = source
        self.lines = lines
        self._report = report
        self._reported: set[Finding] = set()
        self._document = document
        self.states = 0  # of all automata of conditions
        self.filled = 0  # characters of the texts of all matrices
        self._taken_as_text: set[int] = set()

    def report(self, finding: Finding) -> None:
        """Report a finding, once only."""
        if finding not in self._reported:
            self._reported.add(finding)
            self._report(finding)

    def take_as_text(self, tree: Tree) -> None:
        """Record that a number is used as a text, so it need not be finite."""
        self._taken_as_text.add(id(tree))

    def finish(self) -> None:
        """Refuse numbers that JSON cannot represent, and report a second document.

        Raises:
            ConfigError: A number is not finite.
        """
        for tree in self._document.infinite():
            if id(tree) not in self._taken_as_text:
                raise ConfigError(f"{tree.text} is no number of JSON", source=self.source, line=self.line_of(tree))
        if self._document.second is not None:
            message = "this document is ignored: only the first one is read"
            self.report(Finding(FindingKind.WARNING, message, self.source, self._document.second))

    def line_of(self, tree: Tree) -> int | None:
        """Return the line of a tree; None if lines mean nothing."""
        return tree.line if self.lines else None


class Node:
    """A value of a document.

    Attributes:
        tree: The value.
        place: Such as `runs[0].tasks[2]`.
    """

    __slots__ = ("_reading", "place", "tree")

    def __init__(self, tree: Tree, place: str, reading: Reading) -> None:
        self.tree = tree
        self.place = place
        self._reading = reading

    @property
    def is_null(self) -> bool:
        """Whether it is null."""
        return self.tree.value is None

    @property
    def is_text(self) -> bool:
        """Whether it is a string."""
        return isinstance(self.tree.value, str)

    @property
    def is_scalar(self) -> bool:
        """Whether it is a string, a number or a boolean."""
        return isinstance(self.tree.value, str | bool | int | float)

    @property
    def is_number(self) -> bool:
        """Whether it is a number."""
        return isinstance(self.tree.value, int | float) and not isinstance(self.tree.value, bool)

    @property
    def is_list(self) -> bool:
        """Whether it is a list."""
        return isinstance(self.tree.value, list)

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.tree.value, dict)

    def count_filled(self, characters: int) -> None:
        """Count what a matrix writes.

        Raises:
            ConfigError: It is too much for one file.
        """
        self._reading.filled += characters
        if self._reading.filled > _MAX_FILLED:
            raise self.error(f"the matrices of this file make more than {_MAX_FILLED} characters of text")

    def blank(self) -> Node:
        """Return a null node at the same place."""
        return Node(Tree(None, self.tree.line), self.place, self._reading)

    def with_tree(self, tree: Tree) -> Node:
        """Return a node with another value at the same place."""
        return Node(tree, self.place, self._reading)

    def error(self, message: str) -> ConfigError:
        """Return an error at this place."""
        line = self._reading.line_of(self.tree)
        return ConfigError(message, source=self._reading.source, line=line, place=self.place)

    def own_error(self, message: str, in_agola: str) -> ConfigError:
        """Return an error that Agola 0.2 does not raise, and report what it does instead."""
        self.note(f"Agola 0.2 {in_agola}", FindingKind.OWN_ERROR)
        return self.error(message)

    def count_states(self, states: int) -> None:
        """Count the states of a condition's automaton.

        Raises:
            ConfigError: The document's automata have too many in total.
        """
        self._reading.states += states
        if self._reading.states > _MAX_STATES:
            message = f"the regular expressions are too large together: more than {_MAX_STATES} states"
            raise self.own_error(message, "has no such limit")

    def note(self, message: str, kind: FindingKind = FindingKind.WARNING) -> None:
        """Report a finding at this place."""
        line = self._reading.line_of(self.tree)
        self._reading.report(Finding(kind, message, self._reading.source, line, self.place))

    def mapping(self) -> dict[str, Node]:
        """Return all values of a mapping, including nulls; none for null."""
        if self.is_null:
            return {}
        if not isinstance(self.tree.value, dict):
            raise self.error(f"expected a mapping, not {self.kind()}")
        for line, key in self.tree.lost:
            self._note_at(line, f"key {key!r} stands twice: the last one counts, the others are ignored")
        prefix = f"{self.place}." if self.place else ""
        return {key: Node(tree, prefix + key, self._reading) for key, tree in self.tree.value.items()}

    def written(self, key: str) -> str:
        """Return how a key of this mapping is written, which may differ from how it is read."""
        return self.tree.written.get(key, key)

    def fields(self, known: Known, *, not_null: Collection[str] = ()) -> Fields:
        """Return the non-null values of known keys; none for null.

        Args:
            known: The keys; others are reported.
            not_null: The keys whose nulls are errors.
        """
        found = Fields()
        for key, node in sorted(self.mapping().items()):
            name = key if key in known else _folded(key, known)
            if name is None:
                node.note(_unknown(key, known))
            elif known[name]:
                node.note(known[name])
            elif node.is_null and name in not_null:
                raise node.error("expected a string or from_variable, not nothing")
            elif not node.is_null:
                if name in found:
                    found[name].note(f"key {name!r} stands twice: the last one counts, the others are ignored")
                found[name] = node
        return found

    def items(self) -> list[Node]:
        """Return the nodes of a list; none for null."""
        if self.is_null:
            return []
        if not isinstance(self.tree.value, list):
            raise self.error(f"expected a list, not {self.kind()}")
        return [Node(tree, f"{self.place}[{index}]", self._reading) for index, tree in enumerate(self.tree.value)]

    def text(self) -> str:
        """Return a string; "" for null."""
        if self.is_null:
            return ""
        if not isinstance(self.tree.value, str):
            hint = "; put it in quotes" if isinstance(self.tree.value, bool | int | float) else ""
            raise self.error(f"expected a string, not {self.kind()}{hint}")
        return self.tree.value

    def loose_text(self) -> str:
        """Return a string; a number or a boolean is converted."""
        if not isinstance(self.tree.value, bool | int | float):
            return self.text()
        text = as_text(self.tree.value)
        self._reading.take_as_text(self.tree)
        if text != self.tree.text:
            self.note(f"{self.tree.text} is read as {text!r}; put it in quotes to keep it as it is written")
        return text

    def written_text(self) -> str:
        """Return a number or a boolean as it is written."""
        self._reading.take_as_text(self.tree)
        return self.tree.text

    def boolean(self) -> bool:
        """Return a boolean; false for null."""
        if self.is_null:
            return False
        if not isinstance(self.tree.value, bool):
            raise self.error(f"expected true or false, not {self.kind()}")
        return self.tree.value

    def number(self) -> float:
        """Return a number."""
        if not self.is_number:
            raise self.error(f"expected a number, not {self.kind()}")
        return float(self.tree.value)  # type: ignore[arg-type]

    def texts(self) -> list[str]:
        """Return a list of strings."""
        return [node.text() for node in self.items()]

    def kind(self) -> str:
        """Return its kind, for messages."""
        value = self.tree.value
        if value is None:
            return "nothing"
        if isinstance(value, dict):
            return "a mapping"
        if isinstance(value, list):
            return "a list"
        if isinstance(value, bool) and self.tree.text.lower() not in {"true", "false"}:
            return f"{'true' if value else 'false'}, as {self.tree.text!r} is read"
        return repr(value)[:40]

    def _note_at(self, line: int, message: str) -> None:
        shown = line if self._reading.lines else None
        self._reading.report(Finding(FindingKind.WARNING, message, self._reading.source, shown, self.place))


class Fields(dict[str, Node]):
    """The values of a mapping's known keys."""

    def parse(self, key: str, parse: Callable[[Node], T]) -> T | None:
        """Return the parsed value of a key; None without one."""
        return parse(self[key]) if key in self else None

    def items_of(self, key: str) -> list[Node]:
        """Return the nodes of a key's list; none without one."""
        return self[key].items() if key in self else []

    def text(self, key: str) -> str:
        """Return the string of a key, also of a number or a boolean; "" without one."""
        return self[key].loose_text() if key in self else ""

    def flag(self, key: str) -> bool:
        """Return the boolean of a key; false without one."""
        return key in self and self[key].boolean()


def load_document(data: bytes, source: str, report: Report, *, lines: bool = True) -> tuple[Node, Reading]:
    """Return the root of a document, and its reading, to be finished once the whole document was visited.

    Args:
        data: YAML, which includes JSON.
        source: The file, for errors.
        report: Gets the warnings.
        lines: Whether nodes know their lines.

    Raises:
        ConfigError: It is not YAML, empty, or too large.
    """
    document = read_tree(data, source, report)
    if document.root is None:
        raise ConfigError("the file is empty", source=source)
    reading = Reading(source, report, document, lines=lines)
    return Node(document.root, "", reading), reading


def _unknown(key: str, known: Known) -> str:
    read = sorted(name for name, reason in known.items() if not reason)
    hint = did_you_mean(key, read) or f"; known are {', '.join(read)}"
    return f"unknown key {key!r} is ignored{hint}"


def _folded(key: str, known: Known) -> str | None:
    folded = key.replace("\N{LATIN SMALL LETTER LONG S}", "s").lower()
    return folded if folded in known else None
