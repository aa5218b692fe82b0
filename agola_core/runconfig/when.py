"""Conditions on branch, tag and ref: whether a run is made, whether a task is skipped. Pure."""

from __future__ import annotations

import re

import msgspec

from agola_core.runconfig.document import Node


class Pattern(msgspec.Struct, frozen=True):
    """An exact text, or an unanchored regular expression."""

    text: str
    regular_expression: bool = False

    def matches(self, value: str) -> bool:
        """Return whether a value matches."""
        return bool(re.search(self.text, value)) if self.regular_expression else self.text == value


class Condition(msgspec.Struct, frozen=True):
    """What a value must match, and must not."""

    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()


class When(msgspec.Struct, frozen=True):
    """Conditions on the three kinds of names."""

    branch: Condition | None = None
    tag: Condition | None = None
    ref: Condition | None = None


def matches(when: When | None, *, branch: str, tag: str, ref: str) -> bool:
    """Return whether conditions hold; Agola's rules: any kind's include counts, its exclude overrules it.

    Args:
        when: The conditions; None always holds.
        branch: "" where there is none.
        tag: "" where there is none.
        ref: The git reference.
    """
    if when is None:
        return True
    included = False
    for condition, value in ((when.branch, branch), (when.tag, tag), (when.ref, ref)):
        if condition is None or (not value and condition is not when.ref):
            continue
        if any(pattern.matches(value) for pattern in condition.include):
            included = True
        if any(pattern.matches(value) for pattern in condition.exclude):
            included = False
    return included


def parse_when(node: Node) -> When:
    """Return the conditions of a `when` node."""
    found = {key: _condition(value) for key, value in node.mapping(("branch", "tag", "ref")).items()}
    return When(**found)


def _condition(node: Node) -> Condition:
    if isinstance(node.value, dict):
        parts = {key: _patterns(value) for key, value in node.mapping(("include", "exclude")).items()}
        return Condition(**parts)
    return Condition(include=_patterns(node))


def _patterns(node: Node) -> tuple[Pattern, ...]:
    nodes = node.items() if isinstance(node.value, list) else [node]
    return tuple(_pattern(item) for item in nodes)


def _pattern(node: Node) -> Pattern:
    text = node.text()
    if len(text) > 1 and text[0] in "/#" and text[-1] == text[0]:
        try:
            re.compile(text[1:-1])
        except (re.error, OverflowError, RecursionError) as error:
            raise node.error(f"not a regular expression: {text!r}: {error}") from error
        return Pattern(text[1:-1], regular_expression=True)
    return Pattern(text)
