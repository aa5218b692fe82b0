"""Marks of a log's lines: which look like errors or warnings, and which begin and end groups. Pure.

A group is what GitHub Actions makes of `::group::NAME` and `::endgroup::`. Groups do not nest: one that begins ends the
one before it, and one without an end goes on to the log's end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD_BYTES, _MARKED_BYTES = 2000, 400
_ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_ERROR = re.compile(
    rb"^\s*(?!0 )(?:\S{0,40} )?(?:(?:error|fatal|panic|fail(?:ed|ure)?)\b|traceback \(most|e   )"
    rb"|\b(?:error|fatal|panic|critical)\b ?[:!\]]|::error",
    re.IGNORECASE,
)
_WARNING = re.compile(rb"^\s*(?!0 )(?:\S{0,40} )?warn(?:ing)?s?\b|\bwarn(?:ing)?\b ?[:!\]]|::warning", re.IGNORECASE)
_ERROR_WORDS = (b"error", b"fatal", b"panic", b"critical", b"fail", b"traceback (most", b"e   ")
"""A line without any of these, in lower case, is no error."""
_BEGIN, _GROUP, _GROUP_HEADS = b"::group::", b"group::", {b"::": True, b"::end": False}
_MAX_HEAD = 40
"""The most bytes before `group::` in a line that begins or ends a group, blanks included."""


class GroupMark(NamedTuple):
    """A line that begins a group or ends one: where it begins in its bytes, and whether it begins the group."""

    place: int
    begins: bool


def is_error(line: bytes) -> bool:
    """Return whether a line looks like an error, by what a terminal shows at its beginning."""
    return _ERROR.search(_shown(line)) is not None


def is_warning(line: bytes) -> bool:
    """Return whether a line looks like a warning, by what a terminal shows at its beginning."""
    return _WARNING.search(_shown(line)) is not None


def error_places(lower: bytes, begin: int, end: int) -> Iterator[int]:
    """Yield a place within each line that may be an error, ascending.

    Args:
        lower: Lines in lower case.
        begin: Where the first line begins that is looked at.
        end: Where the last one ends.
    """
    places = {word: lower.find(word, begin, end) for word in _ERROR_WORDS}
    while places := {word: place for word, place in places.items() if place >= 0}:
        yield (first := min(places.values()))
        line_end = lower.find(b"\n", first, end)
        if line_end < 0:
            return
        for word, place in places.items():
            if place < line_end:
                places[word] = lower.find(word, line_end, end)


def error_places_backwards(lower: bytes, begin: int, end: int) -> Iterator[int]:
    """Yield the places of `error_places` from the last one to the first."""
    places = {word: lower.rfind(word, begin, end) for word in _ERROR_WORDS}
    while places := {word: place for word, place in places.items() if place >= 0}:
        yield (last := max(places.values()))
        line = lower.rfind(b"\n", begin, last) + 1
        if line <= begin:
            return
        for word, place in places.items():
            if place >= line:
                places[word] = lower.rfind(word, begin, line)


def may_begin_groups(data: bytes, begin: int = 0) -> bool:
    """Return whether bytes may have lines that begin groups, by a word that ends behind a place; quick."""
    begin = max(0, begin - len(_BEGIN) + 1)
    return data.find(b":", begin) >= 0 and data.find(_BEGIN, begin) >= 0  # one byte is found in a tenth of the time


def group_marks(lines: bytes, *, is_cut: bool = False) -> Iterator[GroupMark]:
    """Yield the lines that begin or end groups.

    Args:
        lines: Lines.
        is_cut: Whether the first of them is the rest of a line that began before.
    """
    place = lines.find(_GROUP)
    while place >= 0:
        begin = lines.rfind(b"\n", max(0, place - _MAX_HEAD - 1), place) + 1
        if place - begin <= _MAX_HEAD and not (is_cut and not begin):
            begins = _GROUP_HEADS.get(lines[begin:place].lstrip(b" \t"))
            if begins is not None:
                yield GroupMark(begin, begins)
        place = lines.find(_GROUP, place + len(_GROUP))


def group_name(line: bytes) -> bytes | None:
    """Return the name of the group that a line begins; None for a line that begins none."""
    return line.partition(_GROUP)[2].strip() if _marks(line) is True else None


def ends_group(line: bytes) -> bool:
    """Return whether a line ends a group."""
    return _marks(line) is False


def _marks(line: bytes) -> bool | None:
    """Return whether a line begins a group; False for one that ends a group, None for one that does neither."""
    place = line.find(_GROUP, 0, _MAX_HEAD + len(_GROUP))
    return _GROUP_HEADS.get(line[:place].lstrip(b" \t")) if place >= 0 else None


def _shown(line: bytes) -> bytes:
    text = line[:_HEAD_BYTES].rstrip(b"\r\n")
    if b"\x1b" in text:
        text = _ESCAPE.sub(b"", text)
    if b"\r" in text:  # what was written over is gone
        text = text.rpartition(b"\r")[2]
    return text[:_MARKED_BYTES]
