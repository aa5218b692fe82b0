"""Reads the entries of an export in Agola 0.2's format, and keeps the position in an export for its errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO

import msgspec

from agola_core.datamanager.transfer.export_format import ExportEntry
from agola_core.datamanager.transfer.parallel_compression import DAMAGE
from agola_core.errors import BadRequestError

CHUNK = 1 << 20
"""How many bytes of an export are read at once."""

PLAIN_START = re.compile(rb'\{"id":"(?:[^"\\]|\\.)*","data_type":"[A-Za-z0-9._-]*","data":"[A-Za-z0-9+/=]*')
"""The beginning of a long entry that is written as Agola writes it."""

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
"""What decoding an entry raises."""

_TRIES = 64
_MOST_BLANK = 1 << 20
_BLANK = re.compile(rb"\s*")

decode_entry = msgspec.json.Decoder(ExportEntry).decode


class Position:
    """Where a reader is in an export.

    Attributes:
        unit: What it counts: lines, or entries.
        number: The number of the line or entry that it reads.
        size: Bytes read, decompressed.
    """

    def __init__(self, unit: str, number: int = 0) -> None:
        self.unit = unit
        self.number = number
        self.size = 0

    def bad(self, reason: str) -> BadRequestError:
        """Return the error for a problem at this position."""
        return BadRequestError(f"import: {self.unit} {self.number}: {reason}; nothing was imported")

    def damaged(self, error: Exception) -> BadRequestError:
        """Return the error for a damaged compressed stream."""
        return self.bad(f"the compressed stream is damaged: {error}")


def agola_entries(file: IO[bytes], start: bytes, at: Position, max_entry: int) -> Iterator[ExportEntry]:
    """Yield the entries of an export in Agola's format: objects back to back, or with white space between them.

    Args:
        file: The export, decompressed.
        start: What was read of it already.
        at: Moved along with each entry.
        max_entry: The most bytes of one entry.

    Raises:
        BadRequestError: Something in the stream is wrong.
    """
    buffer, ended = start, False
    at.size = len(buffer)
    wanted = CHUNK
    try:
        while True:
            position = 0
            for found in _whole_entries(buffer, at, ended=ended):
                position = found[1]
                yield found[0]
            if ended:
                if not at.number:
                    raise at.bad("the stream is empty")
                return
            buffer = buffer[position:]
            wanted = CHUNK if position else min(2 * wanted, 1 << 26)
            if len(buffer) > max_entry:
                at.number += 1
                raise at.bad(f"the entry is longer than {max_entry} bytes")
            more = file.read(wanted)
            ended = not more
            at.size += len(more)
            buffer += more
    except DAMAGE as error:
        raise at.damaged(error) from error


def _whole_entries(buffer: bytes, at: Position, *, ended: bool) -> Iterator[tuple[ExportEntry, int]]:
    """Yield the complete entries of a buffer, each with the offset after it."""
    position = 0
    while True:
        blank = _BLANK.match(buffer, position)
        assert blank is not None
        position = blank.end()
        if position - blank.start() > _MOST_BLANK:
            raise at.bad(f"more than {_MOST_BLANK} bytes of white space before an entry")
        if position == len(buffer):
            return
        at.number += 1
        if buffer[position] != 0x7B:
            raise at.bad(f"not an entry: it begins with {buffer[position : position + 20]!r}")
        found = _plain_entry(buffer, position)
        if found is None:
            rest = len(buffer) - position
            if rest > CHUNK:
                start = PLAIN_START.match(buffer, position)
                if start is None or start.end() < len(buffer) - 2:
                    raise at.bad("not an entry, or too long for one that Agola does not write so")
            elif ended or b"}" in buffer[position:]:
                found = _other_entry(buffer, position, at, ended=ended)
        if found is None:
            if ended:
                raise at.bad("the stream is cut short in the middle of an entry")
            at.number -= 1
            return
        position = found[1]
        yield found


def _other_entry(buffer: bytes, position: int, at: Position, *, ended: bool) -> tuple[ExportEntry, int] | None:
    """Return an entry that is written in another way than Agola's; None if it is not complete yet."""
    try:
        text = buffer[position:].decode()
        value, length = json.JSONDecoder().raw_decode(text)
        entry = msgspec.convert(value, ExportEntry)
    except MALFORMED as error:
        if isinstance(error, json.JSONDecodeError):
            cut = error.pos >= len(error.doc) or error.msg.startswith("Unterminated")
            if cut and ended:
                raise at.bad("the stream is cut short in the middle of an entry") from error
            if cut:
                return None
        elif isinstance(error, UnicodeDecodeError) and not ended and error.end == len(buffer) - position:
            return None
        raise at.bad(f"not an entry: {error}") from error
    return entry, position + len(text[:length].encode())


def _plain_entry(buffer: bytes, position: int) -> tuple[ExportEntry, int] | None:
    """Return an entry that is written as Agola writes it, and the offset after it; None if there is none."""
    end = buffer.find(b'"}', position)
    for _ in range(_TRIES):  # an id may hold these characters, too
        if end < 0:
            return None
        try:
            return decode_entry(buffer[position : end + 2]), end + 2
        except MALFORMED:
            end = buffer.find(b'"}', end + 1)
    return None
