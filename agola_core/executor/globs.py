"""Globs of archives: `*`, `?` and `[...]` within a component, `**` for any number of components."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agola_core.errors import BadRequestError


def compile_globs(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return an expression that fully matches the relative paths that any of the patterns names.

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
    pieces: list[str] = []
    for index, component in enumerate(components):
        last = index == len(components) - 1
        if component == "**":
            pieces.append(".*" if last else "(?:.*/)?")
        else:
            pieces.append(_component(component, pattern) + ("" if last else "/"))
    return "".join(pieces)


def _component(text: str, pattern: str) -> str:
    pieces: list[str] = []
    index = 0
    while index < len(text):
        character = text[index]
        index += 1
        if character == "*":
            pieces.append("[^/]*")
        elif character == "?":
            pieces.append("[^/]")
        elif character == "[":
            end = text.find("]", index + 1)
            if end < 0:
                raise BadRequestError(f"path {pattern!r} has a '[' without a ']'")
            inside = text[index:end].replace("\\", "\\\\")
            inside = "^" + inside[1:] if inside[0] in "!^" else inside
            pieces.append(f"[{inside}]")
            index = end + 1
        elif character == "\\" and index < len(text):
            pieces.append(re.escape(text[index]))
            index += 1
        else:
            pieces.append(re.escape(character))
    return "".join(pieces)
