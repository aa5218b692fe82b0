"""Conditions on branch, tag and ref, which decide whether a run is created or a task skipped. Pure."""

from __future__ import annotations

import msgspec

from agola_core.runconfig.yaml.document import Node

_KEYS = {"branch": "", "tag": "", "ref": ""}
_LISTS = ("include", "exclude")


class Pattern(msgspec.Struct, frozen=True):
    """An exact text, or an unanchored regular expression in Go's syntax."""

    text: str
    regular_expression: bool = False

    def matches(self, value: str) -> bool:
        """Return whether a value matches, in time linear in its length."""
        if not self.regular_expression:
            return self.text == value
        from agola_core.runconfig.regexp.matching import compile_regexp  # noqa: PLC0415 - few use it

        return compile_regexp(self.text).matches(value)


class Condition(msgspec.Struct, frozen=True):
    """Patterns that a value must match, and others that it must not."""

    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()


class When(msgspec.Struct, frozen=True):
    """Conditions on branch, tag and reference."""

    branch: Condition | None = None
    tag: Condition | None = None
    ref: Condition | None = None


def matches(when: When | None, *, branch: str, tag: str, ref: str) -> bool:
    """Return whether conditions hold, by Agola's rules: an include of any kind counts, its exclude overrides it.

    Args:
        when: The conditions; None always holds.
        branch: The branch; "" for none.
        tag: The tag; "" for none.
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
    """Parse a `when` node."""
    when = When(**{key: _condition(value) for key, value in node.fields(_KEYS).items()})
    if when == When():
        node.note("this condition never holds: it has no branch, tag or ref")
    return when


def _condition(node: Node) -> Condition:
    if node.is_text:
        return Condition(include=(_pattern(node),))
    if node.is_list:
        return Condition(include=_patterns(node))
    if not node.is_mapping:
        raise node.error(f"expected a string, a list or include and exclude, not {node.kind()}")
    parts = node.mapping()
    for key, inner in parts.items():
        if key not in _LISTS:
            raise inner.error(f"expected include or exclude, not {key!r}")
    return Condition(**{key: _string_or_list(inner) for key, inner in parts.items()})


def _string_or_list(node: Node) -> tuple[Pattern, ...]:
    if node.is_text:
        return (_pattern(node),)
    if node.is_list:
        return _patterns(node)
    if not node.is_null:
        node.note(f"{node.kind()} is ignored: expected a string, or a list of strings")
    return ()


def _patterns(node: Node) -> tuple[Pattern, ...]:
    for item in node.items():
        if item.is_null:
            raise item.error("expected a string, not nothing")
    return tuple(_pattern(item) for item in node.items())


def _pattern(node: Node) -> Pattern:
    text = node.text()
    if len(text.encode()) > 2 and text[0] in "/#" and text[-1] == text[0]:  # "//" is an exact text
        return _regular_expression(node, text)
    return Pattern(text)


def _regular_expression(node: Node, text: str) -> Pattern:
    from agola_core.runconfig.regexp.matching import (  # noqa: PLC0415 - few use it
        RegexpError,
        RegexpLimitError,
        compile_regexp,
    )

    try:
        node.count_states(compile_regexp(text[1:-1]).size)
    except RegexpLimitError as error:
        in_agola = "reads it, unless it names a script that does not exist, or repeats too often"
        raise node.own_error(f"not a regular expression: {text[:100]!r}: {error}", in_agola) from error
    except RegexpError as error:
        raise node.error(f"not a regular expression: {text[:100]!r}: {error}") from error
    return Pattern(text[1:-1], regular_expression=True)
