"""Import: an export replaces the whole content of a store, or nothing happens.

The stream is read once and checked to its end while its entries go into data files that nothing refers to yet;
only then one switch to a new lineage makes them the store. Before it the old state stands, after it the new;
old WALs, tokens and writers belong to the old lineage and are refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from typing import IO, cast

import msgspec

from agola_core.compression import ZstdError, open_zstd
from agola_core.datamanager.datafile import FileRef, write_files
from agola_core.datamanager.entries import Entry, entry_key
from agola_core.datamanager.export import FORMAT, ExportEntry, Footer, Header
from agola_core.datamanager.manifest import Run
from agola_core.datamanager.types import MAX_ID_BYTES, Options
from agola_core.errors import BadRequestError
from agola_core.objectstorage.port import ObjectStorage

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MAX_LINE = 1 << 30
_CHUNK = 1 << 18


class ImportResult(msgspec.Struct, frozen=True):
    """What was imported.

    Attributes:
        entries: How many objects of each type.
        exported_at: The sequence that the export names; "" for Agola's format.
    """

    entries: dict[str, int]
    exported_at: str


class Importer:
    """Reads an export into data files.

    Args:
        file: The export, plain, gzip or zstd, native or Agola's.
        known_types: The types that the store accepts.
    """

    def __init__(self, file: IO[bytes], known_types: frozenset[str]) -> None:
        self._known = known_types
        self._counts: dict[str, int] = {}
        self._exported_at = ""
        self._line = 0
        self._entries = self._read(_decompressed(file))

    def stage(
        self, storage: ObjectStorage, options: Options, new_uuid: Callable[[], str]
    ) -> tuple[tuple[Run, ...], ImportResult]:
        """Write the entries into data files and return the runs that they make, and what was read.

        Raises:
            BadRequestError: Anything in the stream does not hold; names the entry and the reason.
        """
        files: list[FileRef] = []
        try:
            for _, entries in self._grouped():
                files.extend(write_files(storage, entries, options, new_uuid, with_filter=False))
        except (EOFError, OSError, ZstdError) as error:
            raise self._bad(f"the compressed stream is damaged: {error}") from error
        files.sort(key=lambda ref: entry_key(*ref.first))
        runs = (Run(tuple(files)),) if files else ()
        return runs, ImportResult(self._counts, self._exported_at)

    def check(self) -> ImportResult:
        """Read the stream to its end without writing anything, and return what it holds (see `stage`)."""
        try:
            for _, entries in self._grouped():
                for _ in entries:
                    pass
        except (EOFError, OSError, ZstdError) as error:
            raise self._bad(f"the compressed stream is damaged: {error}") from error
        return ImportResult(self._counts, self._exported_at)

    def _grouped(self) -> Iterator[tuple[str, Iterator[Entry]]]:
        """Yield each data type with its entries; they must be used up before the next."""
        held = next(self._entries, None)

        def group(data_type: str) -> Iterator[Entry]:
            nonlocal held
            last: bytes | None = None
            while held is not None and held.data_type == data_type:
                key = self._key(held)
                if last is not None and key <= last:
                    raise self._bad(f"id {held.id[:80]!r} does not sort after the one before it")
                last = key
                self._counts[data_type] += 1
                yield key, held.data
                held = next(self._entries, None)

        while held is not None:
            data_type = held.data_type
            if data_type not in self._known:
                raise self._bad(f"unknown data type {data_type[:80]!r}")
            if data_type in self._counts:
                raise self._bad(f"data type {data_type!r} comes a second time")
            self._counts[data_type] = 0
            yield data_type, group(data_type)

    def _key(self, entry: ExportEntry) -> bytes:
        try:
            size = len(entry.id.encode())
        except UnicodeEncodeError as error:
            raise self._bad("an id is not valid Unicode") from error
        if not 0 < size <= MAX_ID_BYTES:
            raise self._bad(f"an id of {size} bytes; 1 to {MAX_ID_BYTES} are allowed")
        return entry_key(entry.data_type, entry.id)

    def _bad(self, reason: str) -> BadRequestError:
        return BadRequestError(f"import: entry {self._line}: {reason}; nothing was imported")

    def _read(self, file: IO[bytes]) -> Iterator[ExportEntry]:
        start = file.readline(_CHUNK)
        if not start.strip():
            raise self._bad("the stream is empty")
        if b'"agola_export"' in start[:200] and start.endswith(b"\n"):
            return self._read_native(file, start)
        return self._read_agola(file, start)

    def _read_native(self, file: IO[bytes], first: bytes) -> Iterator[ExportEntry]:
        try:
            header = msgspec.json.decode(first, type=Header)
        except msgspec.MsgspecError as error:
            raise self._bad(f"the header is damaged: {error}") from error
        if header.agola_export > FORMAT:
            raise self._bad(f"format {header.agola_export} is newer than {FORMAT}, the newest known")
        self._exported_at = header.sequence
        decoder = msgspec.json.Decoder(ExportEntry)
        digest = hashlib.blake2b(first, digest_size=32)
        while line := file.readline(_MAX_LINE):
            self._line += 1
            if not line.endswith(b"\n"):
                raise self._bad("the stream is cut short, or a line is too long")
            if line.startswith(b'{"entries"'):
                self._check_footer(line, digest.hexdigest())
                if file.read(1):
                    raise self._bad("something follows the footer")
                return
            digest.update(line)
            try:
                entry = decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise self._bad(f"not an entry: {error}") from error
            yield entry
        raise self._bad("the stream is cut short: its footer is missing")

    def _check_footer(self, line: bytes, digest: str) -> None:
        try:
            footer = msgspec.json.decode(line, type=Footer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._bad(f"the footer is damaged: {error}") from error
        if {name: count for name, count in footer.entries.items() if count} != self._counts:
            raise self._bad(f"the footer counts {footer.entries}, the stream has {self._counts}")
        if footer.digest != digest:
            raise self._bad("the digest does not match: the stream was changed")

    def _read_agola(self, file: IO[bytes], first: bytes) -> Iterator[ExportEntry]:
        """Read objects that stand back to back, or with white space between them."""
        decoder = json.JSONDecoder()
        text = io.TextIOWrapper(cast("IO[bytes]", _Prefixed(first, file)), encoding="utf-8", errors="strict")
        buffer, wanted = "", _CHUNK
        try:
            while True:
                chunk = text.read(wanted)
                buffer = (buffer + chunk).lstrip()
                position = 0
                while position < len(buffer):
                    try:
                        value, position = decoder.raw_decode(buffer, position)
                    except json.JSONDecodeError as error:
                        if not chunk:
                            self._line += 1
                            raise self._bad(f"not an entry: {error}") from error
                        break
                    self._line += 1
                    yield msgspec.convert(value, ExportEntry)
                    while position < len(buffer) and buffer[position].isspace():
                        position += 1
                wanted = _CHUNK if position else min(2 * wanted, _MAX_LINE)  # one long entry: read on faster
                buffer = buffer[position:]
                if len(buffer) > _MAX_LINE:
                    raise self._bad("an entry is too long")
                if not chunk and not buffer:
                    return
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._line += 1
            raise self._bad(f"not an entry: {error}") from error


class _Prefixed(io.RawIOBase):
    """A file with bytes put before it."""

    def __init__(self, first: bytes, file: IO[bytes]) -> None:
        super().__init__()
        self._first = first
        self._file = file

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        return self.read(size)

    def read(self, size: int = -1) -> bytes:
        if self._first:
            cut = len(self._first) if size < 0 else size
            piece, self._first = self._first[:cut], self._first[cut:]
            return piece
        return self._file.read(size if size >= 0 else _CHUNK)


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    start = file.read(4)
    whole = cast("IO[bytes]", io.BufferedReader(_Raw(start, file), _CHUNK))
    if start.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=whole))
    if start == _ZSTD:
        return cast("IO[bytes]", open_zstd(whole, "rb"))
    return whole


class _Raw(io.RawIOBase):
    """A file, readable into a buffer, with bytes put before it."""

    def __init__(self, first: bytes, file: IO[bytes]) -> None:
        super().__init__()
        self._source = _Prefixed(first, file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        piece = self._source.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
