"""Marks of a log's lines: which look like errors or warnings, and which begin and end groups. Pure.

A group is what GitHub Actions makes of `::group::NAME` and `::endgroup::`. Groups do not nest: one that begins ends the
one before it, and one without an end goes on to the log's end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from agola_core.runtime.byte_search import find

_MARKED_BYTES = 400
_ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_WORD = b"abcdefghijklmnopqrstuvwxyz0123456789_"
_HEAD = rb"[^\S\n]*+(?!0 )(?:\S{0,40}+ )?(?:(?:error|fatal|panic|fail(?:ed|ure)?)\b|traceback \(most|e   )"
_ERROR_HEAD = re.compile(_HEAD)
_ERROR_WITHIN = re.compile(rb"\b(?:error|fatal|panic|critical)\b ?[:!\]]|::error")
_HEAD_AFTER = {end: re.compile(end + _HEAD) for end in (rb"\n", rb"[\r\n]")}
_WITHIN = {
    word: re.compile(b"%s(?<!\\w.{%d})\\b ?[:!\\]]" % (word, len(word))) for word in (b"fatal", b"panic", b"critical")
}
_WITHIN[b"error"] = re.compile(rb"error(?:(?<!\w.{5})\b ?[:!\]]|(?<=::.{5}))")
"""`_ERROR_WITHIN` once more: what begins with letters is found much sooner."""
_WARNING_HEAD = re.compile(rb"\s*(?!0 )(?:\S{0,40} )?warn(?:ing)?s?\b")
_WARNING_WITHIN = re.compile(rb"\bwarn(?:ing)?\b ?[:!\]]|::warning")
_ERROR_WORDS = (b"error", b"fatal", b"panic", b"critical", b"fail", b"traceback (most", b"e   ")
"""A line without any of these, as it is shown, is no error."""
_MOST_BY_WORDS = 64
"""So many lines of a block are found by their words; of one with more the others are by patterns."""
_BEGIN, _GROUP, _GROUP_HEADS = b"::group::", b"group::", {b"::": True, b"::end": False}
_MAX_HEAD = 40
"""The most bytes before `group::` in a line that begins or ends a group, blanks included."""


class GroupMark(NamedTuple):
    """A line that begins a group or ends one: where it begins in its bytes, and whether it begins the group."""

    place: int
    begins: bool


class LikelyError(NamedTuple):
    """A line that has a word for an error: where it begins, and whether it looks like one."""

    place: int
    is_error: bool


def shown(data: bytes) -> bytes:
    """Return lines as a terminal shows them, in lower case: without what colours them; as many lines as they are."""
    return (_ESCAPE.sub(b"", data) if b"\x1b" in data else data).lower()


def is_error(line: bytes) -> bool:
    """Return whether a line looks like an error, by what a terminal shows at its beginning."""
    text = shown(line)
    return _matches(_ERROR_HEAD, _ERROR_WITHIN, text, 0, len(text))


def is_warning(line: bytes) -> bool:
    """Return whether a line looks like a warning, by what a terminal shows at its beginning."""
    text = shown(line)
    return _matches(_WARNING_HEAD, _WARNING_WITHIN, text, 0, len(text))


def likely_errors(text: bytes, begin: int = 0) -> Iterator[LikelyError]:
    """Yield the lines of a text that may be errors, in their order: all that look like errors, and some others.

    Args:
        text: Lines as they are shown (see `shown`).
        begin: Where the first line begins that is looked at.
    """
    places = {word: find(text, word, begin) for word in _ERROR_WORDS}
    for _ in range(_MOST_BY_WORDS):
        places = {word: place for word, place in places.items() if place >= 0}
        if not places:
            return
        line, end = _line_at(text, begin, min(places.values()))
        yield LikelyError(line, _matches(_ERROR_HEAD, _ERROR_WITHIN, text, line, end))
        begin = end
        places = {word: place if place >= end else find(text, word, end) for word, place in places.items()}
    patterns = [_WITHIN[word] for word in places if word in _WITHIN]
    patterns.append(_HEAD_AFTER[rb"[\r\n]" if b"\r" in text else rb"\n"])
    last = begin - 1
    matches = {pattern: pattern.search(text, last) for pattern in patterns}
    while ends := {pattern: match.end() - 1 for pattern, match in matches.items() if match}:
        line, end = _line_at(text, begin, min(ends.values()))
        yield LikelyError(line, _matches(_ERROR_HEAD, _ERROR_WITHIN, text, line, end))
        matches = {
            pattern: matches[pattern] if place >= end else pattern.search(text, end - 1)
            for pattern, place in ends.items()
        }


def _line_at(text: bytes, begin: int, place: int) -> tuple[int, int]:
    """Return where the line begins and ends that a place is in; no line begins before `begin`."""
    return text.rfind(b"\n", begin, place) + 1 or begin, text.find(b"\n", place) + 1 or len(text)


def _matches(head: re.Pattern[bytes], within: re.Pattern[bytes], text: bytes, begin: int, end: int) -> bool:
    while end > begin and text[end - 1] in b"\r\n":
        end -= 1
    begin = text.rfind(b"\r", begin, end) + 1 or begin  # what was written over is gone
    if end - begin > _MARKED_BYTES:
        end = begin + _MARKED_BYTES
        if text[end] in _WORD:  # no word is cut
            end = begin + len(text[begin:end].rstrip(_WORD))
    return (head.match(text, begin, end) or within.search(text, begin, end)) is not None


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
