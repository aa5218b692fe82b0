"""Reads an export, native or Agola's, and checks it on the way; the first problem ends the reading with one error.

The error names the line (native) or the entry (Agola's format has no lines), and the reason.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, cast

import msgspec

from agola_core.datamanager.transfer.compression import DAMAGE, Prefixed, decompress_stream
from agola_core.datamanager.transfer.export_format import (
    DIGEST_BYTES,
    FORMAT,
    ExportEntry,
    ExportFormat,
    Footer,
    Header,
    SectionEntry,
)
from agola_core.datamanager.types import MAX_ID_BYTES
from agola_core.errors import BadRequestError

_CHUNK = 1 << 20
_HEADER = b'{"agola_export"'
_TRIES = 64
_MOST_BLANK = 1 << 20
_PLAIN_START = re.compile(rb'\{"id":"(?:[^"\\]|\\.)*","data_type":"[A-Za-z0-9._-]*","data":"[A-Za-z0-9+/=]*')
_BLANK = re.compile(rb"\s*")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="


class _Version(msgspec.Struct):
    agola_export: int


_decode_entry = msgspec.json.Decoder(ExportEntry).decode
_decode_section = msgspec.json.Decoder(SectionEntry).decode

_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


def _plain_entry(buffer: bytes, position: int) -> tuple[ExportEntry, int] | None:
    """Return an entry that is written as Agola does, and the place behind it; None when there is none."""
    end = buffer.find(b'"}', position)
    for _ in range(_TRIES):  # an id may hold these characters, too
        if end < 0:
            return None
        try:
            return _decode_entry(buffer[position : end + 2]), end + 2
        except _MALFORMED:
            end = buffer.find(b'"}', end + 1)
    return None


def peek(file: IO[bytes]) -> tuple[tuple[str, ...] | None, IO[bytes]]:
    """Return the data types that the header of an export names, and the export as if it had not been begun.

    Args:
        file: The export, plain or compressed.

    Returns:
        The types, None for Agola's format, which has no header; and what to read in the place of the file.

    Raises:
        BadRequestError: Its header, or its compression, is damaged.
    """
    plain = decompress_stream(file)
    try:
        start = plain.readline(_CHUNK)
    except DAMAGE as error:
        raise _bad("line 1", f"the compressed stream is damaged: {error}") from error
    whole = cast("IO[bytes]", io.BufferedReader(Prefixed(start, plain), _CHUNK))
    return (_parse_header(start).data_types if start.startswith(_HEADER) else None), whole


def _parse_header(line: bytes) -> Header:
    if not line.endswith(b"\n"):
        raise _bad("line 1", "the header is cut short, or too long")
    try:
        version = msgspec.json.decode(line, type=_Version).agola_export
        if version > FORMAT:
            raise _bad(
                "line 1",
                f"format {version} is newer than {FORMAT}, the newest known: use a later release of agola-core",
            )
        return msgspec.json.decode(line, type=Header)
    except _MALFORMED as error:
        raise _bad("line 1", f"the header is damaged: {error}") from error


def _bad(place: str, reason: str) -> BadRequestError:
    return BadRequestError(f"import: {place}: {reason}; nothing was imported")


class ExportReader:
    """One export, read once and in order: `groups` to its end, then `items` to its end.

    Args:
        file: The export, plain or compressed.
        known_types: The data types that may be in it.
        known_sections: The sections that may be in it.
        max_object: The most bytes of one object.

    Attributes:
        form: The format it is in.
        header: Of a native export.
        entries: How many objects of each type were read.
        sections: How many items of each section were read.
        size: Bytes read, decompressed.

    Raises:
        BadRequestError: It is empty, or its beginning is no export's.
    """

    def __init__(
        self, file: IO[bytes], known_types: frozenset[str], known_sections: frozenset[str], max_object: int
    ) -> None:
        self.form = ExportFormat.AGOLA
        self.header: Header | None = None
        self.entries: dict[str, int] = {}
        self.sections: dict[str, int] = {}
        self.size = 0
        self._file = decompress_stream(file)
        self._known_types = known_types
        self._known_sections = known_sections
        self._max_entry = max_object * 4 // 3 + 8 * MAX_ID_BYTES
        self._place = 0
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._line = b""
        self._ended = False
        self._start = self._read(lambda: self._file.readline(_CHUNK))
        if self._start.startswith(_HEADER):
            self.form = ExportFormat.NATIVE
            self._place = 1
            self.header = _parse_header(self._start)
            self._digest.update(self._start)
            self.size = len(self._start)
        self._stream = self._native_entries() if self.form is ExportFormat.NATIVE else self._agola_entries()

    def bad(self, reason: str) -> BadRequestError:
        """Return the error for the place where the reader is."""
        unit = "line" if self.form is ExportFormat.NATIVE else "entry"
        return _bad(f"{unit} {self._place}", reason)

    def groups(self) -> Iterator[tuple[str, Iterator[ExportEntry]]]:
        """Yield each data type with its entries, their ids rising; they must be used up before the next."""
        entries, counts = self._stream, self.entries
        held = next(entries, None)

        def group(data_type: str) -> Iterator[ExportEntry]:
            nonlocal held
            last, count = b"", 0
            while held is not None and held.data_type == data_type:
                key = self._id(held.id)
                if count and key <= last:
                    raise self.bad(f"id {held.id[:80]!r} does not sort after the one before it")
                last = key
                count += 1
                counts[data_type] = count
                yield held
                held = next(entries, None)

        while held is not None:
            data_type = held.data_type
            if data_type not in self._known_types:
                raise self.bad(
                    f"unknown data type {data_type[:80]!r}: the store has {', '.join(sorted(self._known_types))}"
                )
            if data_type in counts:
                raise self.bad(f"data type {data_type!r} comes a second time")
            counts[data_type] = 0
            yield data_type, group(data_type)

    def items(self) -> Iterator[tuple[str, str, Iterator[bytes]]]:
        """Yield the section, the id and the pieces of each item; the pieces must be used up before the next."""
        if self.form is ExportFormat.AGOLA:
            return
        section, last = "", b""
        while not self._ended:
            entry = self._section_entry()
            if entry.section != section:
                if entry.section not in self._known_sections:
                    raise self.bad(f"unknown section {entry.section[:80]!r}")
                if entry.section in self.sections:
                    raise self.bad(f"section {entry.section!r} comes a second time")
                section, last = entry.section, b""
                self.sections[section] = 0
            key = self._id(entry.id)
            if key <= last:
                raise self.bad(f"item {entry.id[:80]!r} does not sort after the one before it")
            last = key
            self.sections[section] += 1
            yield section, entry.id, self._pieces(entry)

    def _pieces(self, entry: SectionEntry) -> Iterator[bytes]:
        yield entry.data
        while entry.more:
            self._next_line()
            following = None if self._ended else self._section_entry()
            if following is None or (following.section, following.id) != (entry.section, entry.id):
                raise self.bad(f"item {entry.id[:80]!r} is cut short")
            entry = following
            yield entry.data
        self._next_line()

    def _id(self, text: str) -> bytes:
        try:
            key = text.encode()
        except UnicodeEncodeError as error:
            raise self.bad("an id is not valid Unicode") from error
        if not 0 < len(key) <= MAX_ID_BYTES:
            raise self.bad(f"an id of {len(key)} bytes; 1 to {MAX_ID_BYTES} are allowed")
        return key

    # The native format

    def _native_entries(self) -> Iterator[ExportEntry]:
        readline, digest = self._file.readline, self._digest
        try:
            while line := readline(_CHUNK):
                self._place += 1
                if line[-1] != 10:
                    line = self._long_line(line)
                self.size += len(line)
                if line.startswith((b'{"section"', b'{"entries"')):
                    self._take_line(line)
                    return
                digest.update(line)
                yield _decode_entry(line)
        except DAMAGE as error:
            raise self._damaged(error) from error
        except _MALFORMED as error:
            raise self.bad(f"not an entry: {error}") from error
        raise self.bad("the stream is cut short: its footer is missing")

    def _long_line(self, start: bytes) -> bytes:
        """Return a line longer than a chunk, read no further than its shape and the limit allow."""
        if len(start) < _CHUNK:
            raise self.bad("the stream is cut short in the middle of a line")
        if not _PLAIN_START.fullmatch(start):
            raise self.bad("not an entry, and too long for anything else")
        parts, size = [start], len(start)
        while not parts[-1].endswith(b"\n"):
            if size > self._max_entry:
                raise self.bad(f"the line is longer than {self._max_entry} bytes")
            part = self._file.readline(_CHUNK)
            if not part:
                raise self.bad("the stream is cut short in the middle of a line")
            if part.translate(None, _BASE64) not in {b"", b'"}\n', b"}\n", b"\n", b'"', b'"}'}:
                raise self.bad("the data of a long entry is not base64")
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _next_line(self) -> None:
        line = self._read(lambda: self._file.readline(_CHUNK))
        self._place += 1
        self.size += len(line)
        self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        """Make a line behind the entries the current one; the footer ends the stream."""
        if not line.endswith(b"\n"):
            reason = "the line is too long" if len(line) == _CHUNK else "the stream is cut short"
            raise self.bad(reason if line else "the stream is cut short: its footer is missing")
        self._line = line
        if line.startswith(b'{"entries"'):
            self._check_footer(line)
            self._ended = True
            if self._read(lambda: self._file.read(1)):
                raise self.bad("something follows the footer")
            return
        self._digest.update(line)

    def _section_entry(self) -> SectionEntry:
        try:
            return _decode_section(self._line)
        except _MALFORMED as error:
            raise self.bad(f"neither an entry, nor a section's, nor a footer: {error}") from error

    def _check_footer(self, line: bytes) -> None:
        try:
            footer = msgspec.json.decode(line, type=Footer)
        except _MALFORMED as error:
            raise self.bad(f"the footer is damaged: {error}") from error
        for what, stated, found in (
            ("entries", footer.entries, self.entries),
            ("items", footer.sections, self.sections),
        ):
            if {name: count for name, count in stated.items() if count} != found:
                raise self.bad(f"the footer counts {what} {stated}, the stream has {found}")
        if footer.digest != self._digest.hexdigest():
            raise self.bad("the digest does not match: the stream was changed")

    # Agola's format

    def _agola_entries(self) -> Iterator[ExportEntry]:
        """Read objects that stand back to back, or with white space between them."""
        buffer, ended = self._start, False
        self.size = len(buffer)
        wanted = _CHUNK
        try:
            while True:
                position = 0
                for found in self._whole_entries(buffer, ended=ended):
                    position = found[1]
                    yield found[0]
                if ended:
                    if not self._place:
                        raise self.bad("the stream is empty")
                    return
                buffer = buffer[position:]
                wanted = _CHUNK if position else min(2 * wanted, 1 << 26)
                if len(buffer) > self._max_entry:
                    self._place += 1
                    raise self.bad(f"the entry is longer than {self._max_entry} bytes")
                more = self._file.read(wanted)
                ended = not more
                self.size += len(more)
                buffer += more
        except DAMAGE as error:
            raise self._damaged(error) from error

    def _whole_entries(self, buffer: bytes, *, ended: bool) -> Iterator[tuple[ExportEntry, int]]:
        """Yield the entries that lie whole in a buffer, each with the place behind it."""
        position = 0
        while True:
            blank = _BLANK.match(buffer, position)
            assert blank is not None
            position = blank.end()
            if position - blank.start() > _MOST_BLANK:
                raise self.bad(f"more than {_MOST_BLANK} bytes of white space before an entry")
            if position == len(buffer):
                return
            self._place += 1
            if buffer[position] != 0x7B:
                raise self.bad(f"not an entry: it begins with {buffer[position : position + 20]!r}")
            found = _plain_entry(buffer, position)
            if found is None:
                rest = len(buffer) - position
                if rest > _CHUNK:
                    start = _PLAIN_START.match(buffer, position)
                    if start is None or start.end() < len(buffer) - 2:
                        raise self.bad("not an entry, or too long for one that Agola does not write so")
                elif ended or b"}" in buffer[position:]:
                    found = self._other_entry(buffer, position, ended=ended)
            if found is None:
                if ended:
                    raise self.bad("the stream is cut short in the middle of an entry")
                self._place -= 1
                return
            position = found[1]
            yield found

    def _other_entry(self, buffer: bytes, position: int, *, ended: bool) -> tuple[ExportEntry, int] | None:
        """Return an entry that is written otherwise than Agola does; None when it is not whole yet."""
        try:
            text = buffer[position:].decode()
            value, length = json.JSONDecoder().raw_decode(text)
            entry = msgspec.convert(value, ExportEntry)
        except _MALFORMED as error:
            if isinstance(error, json.JSONDecodeError):
                cut = error.pos >= len(error.doc) or error.msg.startswith("Unterminated")
                if cut and ended:
                    raise self.bad("the stream is cut short in the middle of an entry") from error
                if cut:
                    return None
            elif isinstance(error, UnicodeDecodeError) and not ended and error.end == len(buffer) - position:
                return None
            raise self.bad(f"not an entry: {error}") from error
        return entry, position + len(text[:length].encode())

    # Reading

    def _read(self, read: Callable[[], bytes]) -> bytes:
        try:
            data = read()
        except DAMAGE as error:
            raise self._damaged(error) from error
        return data

    def _damaged(self, error: Exception) -> BadRequestError:
        return self.bad(f"the compressed stream is damaged: {error}")
