"""Logs as numbered lines of a page. Pure."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable, Iterable, Iterator

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_MAX_LINE = 16 * 1024


class Beginning:
    """The first pieces of a log: so many bytes, and what comes in so many seconds. An iterable, for once.

    Args:
        pieces: The log.
        most: The most bytes.
        seconds: How long it may take to come, in all.
        clock: Seconds.

    Attributes:
        cut: Whether the log has more.
    """

    def __init__(
        self, pieces: Iterable[bytes], most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pieces = pieces
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self.cut = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces."""
        left, end = self._most, self._clock() + self._seconds
        for piece in self._pieces:
            yield piece[:left]
            left -= len(piece)
            if left < 0 or self._clock() > end:
                self.cut = True
                return


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
