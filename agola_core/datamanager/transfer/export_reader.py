"""Reads an export, native or Agola's, and checks it on the way; the first problem ends the reading with one error.

The error names the line (native) or the entry (Agola's format has no lines), and the reason.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import IO, cast

import msgspec

from agola_core.datamanager.transfer.agola_entries import (
    CHUNK,
    MALFORMED,
    PLAIN_START,
    Position,
    agola_entries,
    decode_entry,
)
from agola_core.datamanager.transfer.export_format import (
    DIGEST_BYTES,
    FORMAT,
    ExportEntry,
    ExportFormat,
    Footer,
    Header,
    SectionEntry,
)
from agola_core.datamanager.transfer.parallel_compression import DAMAGE, Prefixed, decompress_stream
from agola_core.datamanager.types import MAX_ID_BYTES
from agola_core.errors import BadRequestError

_HEADER = b'{"agola_export"'
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="


class _Version(msgspec.Struct):
    agola_export: int


_decode_section = msgspec.json.Decoder(SectionEntry).decode


def peek_header(file: IO[bytes]) -> tuple[tuple[str, ...] | None, IO[bytes]]:
    """Return the data types that the header of an export names, and the export from its beginning.

    Args:
        file: The export, plain or compressed.

    Returns:
        The types, or None for Agola's format, which has no header; and the file to read instead of `file`.

    Raises:
        BadRequestError: Its header, or its compression, is damaged.
    """
    plain = decompress_stream(file)
    try:
        start = plain.readline(CHUNK)
    except DAMAGE as error:
        raise Position("line", 1).damaged(error) from error
    whole = cast("IO[bytes]", io.BufferedReader(Prefixed(start, plain), CHUNK))
    return (_parse_header(start).data_types if start.startswith(_HEADER) else None), whole


def _parse_header(line: bytes) -> Header:
    if not line.endswith(b"\n"):
        raise Position("line", 1).bad("the header is cut short, or too long")
    try:
        version = msgspec.json.decode(line, type=_Version).agola_export
        if version > FORMAT:
            raise Position("line", 1).bad(
                f"format {version} is newer than {FORMAT}, the newest known: use a later release of agola-core"
            )
        return msgspec.json.decode(line, type=Header)
    except MALFORMED as error:
        raise Position("line", 1).bad(f"the header is damaged: {error}") from error


class ExportReader:
    """One export, which is read once and in order: all of `groups`, then all of `items`.

    Args:
        file: The export, plain or compressed.
        known_types: The data types that may be in it.
        known_sections: The sections that may be in it.
        max_object: The most bytes of one object.

    Attributes:
        form: Its format.
        header: The header of a native export.
        entries: The number of objects read of each type.
        sections: The number of items read of each section.

    Raises:
        BadRequestError: It is empty, or does not begin as an export does.
    """

    def __init__(
        self, file: IO[bytes], known_types: frozenset[str], known_sections: frozenset[str], max_object: int
    ) -> None:
        self.form = ExportFormat.AGOLA
        self.header: Header | None = None
        self.entries: dict[str, int] = {}
        self.sections: dict[str, int] = {}
        self._file = decompress_stream(file)
        self._known_types = known_types
        self._known_sections = known_sections
        self._max_entry = max_object * 4 // 3 + 8 * MAX_ID_BYTES
        self._at = Position("entry")
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._line = b""
        self._ended = False
        self._start = self._read(lambda: self._file.readline(CHUNK))
        if self._start.startswith(_HEADER):
            self.form = ExportFormat.NATIVE
            self._at = Position("line", 1)
            self.header = _parse_header(self._start)
            self._digest.update(self._start)
            self._at.size = len(self._start)
        self._stream = (
            self._native_entries()
            if self.form is ExportFormat.NATIVE
            else agola_entries(self._file, self._start, self._at, self._max_entry)
        )

    @property
    def size(self) -> int:
        """Bytes read, decompressed."""
        return self._at.size

    def bad(self, reason: str) -> BadRequestError:
        """Return the error for a problem at the reader's position."""
        return self._at.bad(reason)

    def groups(self) -> Iterator[tuple[str, Iterator[ExportEntry]]]:
        """Yield each data type with its entries, in the order of their ids; use them up before the next."""
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
        """Yield the section, the id and the pieces of each item; use the pieces up before the next."""
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
            while line := readline(CHUNK):
                self._at.number += 1
                if line[-1] != 10:
                    line = self._long_line(line)
                self._at.size += len(line)
                if line.startswith((b'{"section"', b'{"entries"')):
                    self._take_line(line)
                    return
                digest.update(line)
                yield decode_entry(line)
        except DAMAGE as error:
            raise self._at.damaged(error) from error
        except MALFORMED as error:
            raise self.bad(f"not an entry: {error}") from error
        raise self.bad("the stream is cut short: its footer is missing")

    def _long_line(self, start: bytes) -> bytes:
        """Return a line longer than a chunk, read no further than its shape and the limit allow."""
        if len(start) < CHUNK:
            raise self.bad("the stream is cut short in the middle of a line")
        if not PLAIN_START.fullmatch(start):
            raise self.bad("not an entry, and too long for anything else")
        parts, size = [start], len(start)
        while not parts[-1].endswith(b"\n"):
            if size > self._max_entry:
                raise self.bad(f"the line is longer than {self._max_entry} bytes")
            part = self._file.readline(CHUNK)
            if not part:
                raise self.bad("the stream is cut short in the middle of a line")
            if part.translate(None, _BASE64) not in {b"", b'"}\n', b"}\n", b"\n", b'"', b'"}'}:
                raise self.bad("the data of a long entry is not base64")
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _next_line(self) -> None:
        line = self._read(lambda: self._file.readline(CHUNK))
        self._at.number += 1
        self._at.size += len(line)
        self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        """Make a line after the entries the current one; the footer ends the stream."""
        if not line.endswith(b"\n"):
            reason = "the line is too long" if len(line) == CHUNK else "the stream is cut short"
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
        except MALFORMED as error:
            raise self.bad(f"neither an entry, nor a section's, nor a footer: {error}") from error

    def _check_footer(self, line: bytes) -> None:
        try:
            footer = msgspec.json.decode(line, type=Footer)
        except MALFORMED as error:
            raise self.bad(f"the footer is damaged: {error}") from error
        for what, stated, found in (
            ("entries", footer.entries, self.entries),
            ("items", footer.sections, self.sections),
        ):
            if {name: count for name, count in stated.items() if count} != found:
                raise self.bad(f"the footer counts {what} {stated}, the stream has {found}")
        if footer.digest != self._digest.hexdigest():
            raise self.bad("the digest does not match: the stream was changed")

    # Reading

    def _read(self, read: Callable[[], bytes]) -> bytes:
        try:
            data = read()
        except DAMAGE as error:
            raise self._at.damaged(error) from error
        return data
