"""Logs as numbered lines of a page. Pure."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_MAX_LINE = 16 * 1024


def log_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a log, without terminal escapes; very long ones are cut into several.

    Args:
        pieces: The log.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held = ""
    for piece in pieces:
        *lines, held = (held + decoder.decode(piece)).split("\n")
        for line in lines:
            yield from _cut(line)
        while len(held) > _MAX_LINE:
            yield plain(held[:_MAX_LINE])
            held = held[_MAX_LINE:]
    held += decoder.decode(b"", final=True)
    if held:
        yield from _cut(held)


def plain(line: str) -> str:
    """Return a line as a terminal would leave it: without escapes, and after its last carriage return."""
    return _ESCAPE.sub("", line).rstrip("\r").rpartition("\r")[2]


def _cut(line: str) -> Iterator[str]:
    if len(line) <= _MAX_LINE:
        yield plain(line)
        return
    for start in range(0, len(line), _MAX_LINE):
        yield plain(line[start : start + _MAX_LINE])
