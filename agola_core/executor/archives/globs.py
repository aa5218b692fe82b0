"""Glob patterns of archive paths: `*`, `?` and `[...]` within one component, `**` for any number of components."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agola_core.errors import BadRequestError

_RANGE = re.compile(r"(.)-(.)|.", re.DOTALL)


def compile_globs(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return a regular expression that fully matches the relative paths matched by any of the patterns.

    The text between two stars is matched once, at the first position where it fits, and so are components between two
    `**`: a later position could match no more, and trying them all would take exponential time.

    Raises:
        BadRequestError: A pattern is malformed.

    Example:
        >>> found = compile_globs(["**/*.o", "docs/*"])
        >>> [bool(found.fullmatch(path)) for path in ("a.o", "x/y/b.o", "docs/a", "docs/a/b")]
        [True, True, True, False]
    """
    return re.compile("|".join(f"(?:{_translated(pattern)})" for pattern in patterns) or r"(?!)", re.DOTALL)


def _translated(pattern: str) -> str:
    components = [part for part in pattern.split("/") if part not in {"", "."}]
    if ".." in components:
        raise BadRequestError(f"path {pattern!r} leaves its source directory")
    groups: list[list[str]] = [[]]
    for component in components:
        if component != "**":
            groups[-1].append(_component(component, pattern))
        elif groups[-1] or len(groups) == 1:
            groups.append([])  # of several in a row, one is enough
    first, *later = ["/".join(group) for group in groups]
    if not later:
        return first
    *middle, last = later
    found = f"{first}/" if first else ""
    found += "".join(f"(?>(?:[^/]*/)*?{group}/)" for group in middle)
    return f"{found}(?:[^/]*/)*{last}" if last else f"{found}.*"


def _component(text: str, pattern: str) -> str:
    chunks: list[list[str]] = [[]]
    index = 0
    while index < len(text):
        character = text[index]
        index += 1
        if character == "*":
            if chunks[-1] or len(chunks) == 1:
                chunks.append([])
        elif character == "?":
            chunks[-1].append("[^/]")
        elif character == "[":
            end = text.find("]", index + 1)
            if end < 0:
                raise BadRequestError(f"path {pattern!r} has a '[' without a ']'")
            chunks[-1].append(_class(text[index:end], pattern))
            index = end + 1
        elif character == "\\" and index < len(text):
            chunks[-1].append(re.escape(text[index]))
            index += 1
        else:
            chunks[-1].append(re.escape(character))
    first, *later = ["".join(chunk) for chunk in chunks]
    if not later:
        return first
    *middle, last = later
    return first + "".join(f"(?>[^/]*?{chunk})" for chunk in middle) + f"[^/]*{last}"


def _class(text: str, pattern: str) -> str:
    """Return the expression of a bracketed class; it never matches a slash."""
    negated = text[0] in "!^"
    inside = _RANGE.sub(_range, text[1:] if negated else text)
    found = f"[^/{inside}]" if negated else f"(?!/)[{inside}]"
    try:
        re.compile(found)
    except re.error as error:
        raise BadRequestError(f"path {pattern!r} has a malformed '[...]': {error}") from error
    return found


def _range(match: re.Match[str]) -> str:
    first, last = match.groups()
    return re.escape(match[0]) if first is None else f"{re.escape(first)}-{re.escape(last)}"
