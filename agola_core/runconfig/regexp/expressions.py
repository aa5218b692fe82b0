"""The parts of a parsed regular expression. Pure.

Groups and greed say what is captured, and nothing is captured here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from agola_core.runconfig.regexp.classes import CharacterSet


class Position(NamedTuple):
    """A position between two characters of a text."""

    text: str
    at: int

    def is_at_word(self) -> bool:
        """Return whether a word begins or ends here."""
        before = self.at > 0 and _is_word(self.text[self.at - 1])
        return before != (self.at < len(self.text) and _is_word(self.text[self.at]))


def _is_word(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char == "_")


class Assertion(NamedTuple):
    """A condition on a position."""

    holds: Callable[[Position], bool]


class Concatenation(NamedTuple):
    """A sequence."""

    parts: tuple[Expression, ...]


class Alternation(NamedTuple):
    """A choice."""

    choices: tuple[Expression, ...]


class Repetition(NamedTuple):
    """A repetition.

    Attributes:
        inner: What is repeated.
        least: The minimum number.
        most: The maximum number; None for no limit.
    """

    inner: Expression
    least: int
    most: int | None


Expression = CharacterSet | Assertion | Concatenation | Alternation | Repetition
