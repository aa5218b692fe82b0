"""Matches untrusted regular expressions of Go's syntax in time linear in the text. Pure.

An expression becomes a nondeterministic automaton, and a text is read once, a character at a time, with the set of the
states that it may be in: no expression can backtrack, for none goes back. `syntax` parses the expression.
"""

from __future__ import annotations

from functools import lru_cache

from agola_core.runconfig.regexp.classes import CharacterSet, RegexpError, RegexpLimitError
from agola_core.runconfig.regexp.expressions import (
    Alternation,
    Assertion,
    Concatenation,
    Expression,
    Position,
    Repetition,
)
from agola_core.runconfig.regexp.syntax import parse_regexp

__all__ = ["Automaton", "RegexpError", "RegexpLimitError", "compile_regexp"]

MAX_STATES = 2_500
"""The most states of an automaton: what a repetition repeats counts each time."""


class Automaton:
    """A compiled expression.

    States are numbers. A state has a set of characters and one successor, an assertion and one successor, or neither
    and any number of successors.
    """

    def __init__(self, expression: Expression) -> None:
        self._labels: list[CharacterSet | Assertion | None] = []
        self._next: list[list[int]] = []
        self._built = 0
        self._accepting = self._state(None)
        self._start = self._build(expression, self._accepting)

    @property
    def size(self) -> int:
        """How many states it has."""
        return len(self._labels)

    def matches(self, text: str) -> bool:
        """Return whether the expression matches anywhere in a text."""
        states: set[int] = set()
        for index in range(len(text) + 1):
            states.add(self._start)
            states = self._closure(states, Position(text, index))
            if self._accepting in states:
                return True
            if index < len(text):
                states = self._step(states, text[index])
        return False

    def _step(self, states: set[int], char: str) -> set[int]:
        found = set()
        for state in states:
            label = self._labels[state]
            if isinstance(label, CharacterSet) and label.holds(char):
                found.add(self._next[state][0])
        return found

    def _closure(self, states: set[int], position: Position) -> set[int]:
        found: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in found:
                continue
            found.add(state)
            label = self._labels[state]
            if label is None or (isinstance(label, Assertion) and label.holds(position)):
                waiting.extend(self._next[state])
        return found

    def _state(self, label: CharacterSet | Assertion | None, *following: int) -> int:
        if len(self._labels) >= MAX_STATES:
            raise RegexpLimitError("it is too large")
        self._labels.append(label)
        self._next.append(list(following))
        return len(self._labels) - 1

    def _build(self, expression: Expression, following: int) -> int:
        self._built += 1  # what has no state, such as an empty group, may be repeated as well
        if self._built > 4 * MAX_STATES:
            raise RegexpLimitError("it is too large")
        match expression:
            case Concatenation(parts):
                for part in reversed(parts):
                    following = self._build(part, following)
                return following
            case Alternation(choices):
                return self._state(None, *[self._build(choice, following) for choice in choices])
            case Repetition(inner, least, most):
                return self._repeat(inner, least, most, following)
            case _:
                return self._state(expression, following)

    def _repeat(self, inner: Expression, least: int, most: int | None, following: int) -> int:
        if most is None:
            again = self._state(None, following)
            self._next[again].insert(0, self._build(inner, again))
            following = again
        else:
            end = following
            for _ in range(most - least):
                following = self._state(None, self._build(inner, following), end)
        for _ in range(least):
            following = self._build(inner, following)
        return following


@lru_cache(256)
def compile_regexp(text: str) -> Automaton:
    """Return the automaton of an expression.

    Raises:
        RegexpError: It is malformed or too large.
    """
    return Automaton(parse_regexp(text))
