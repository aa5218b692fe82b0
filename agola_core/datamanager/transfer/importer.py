"""Reads an export into data files that nothing refers to yet, and checks it to its end.

Only then does one switch to a new lineage make these files the store (see `store_import`). Until then the old state
stands; afterwards the new one. WALs, tokens and writers of the old lineage are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from typing import IO, Protocol

import msgspec

from agola_core.coordinator.port import Compare, Op
from agola_core.datamanager.format.events import RESERVED
from agola_core.datamanager.sstable.file_lists import make_run
from agola_core.datamanager.sstable.files.datafile import FileRef, write_files
from agola_core.datamanager.sstable.files.entries import Entry, entry_key
from agola_core.datamanager.sstable.manifest import Imported, Run
from agola_core.datamanager.transfer.event_check import EventsCheck
from agola_core.datamanager.transfer.export_format import ExportEntry
from agola_core.datamanager.transfer.export_reader import ExportReader
from agola_core.datamanager.types import Options, Put
from agola_core.errors import BadRequestError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.progress import Meter, Progress, ignore

_TOLD_ENTRIES = 256
_TOLD_BYTES = 1 << 20


class ImportParts(Protocol):
    """The caller's part in an import, such as the run service's.

    Attributes:
        sections: The sections that it takes.
    """

    sections: frozenset[str]

    def barrier(self) -> Items[Compare]:
        """Return the conditions of the switch, or raise if the import must not happen now.

        Called before anything is read, and again directly before the switch.
        """

    def check(self, data_type: str, object_id: str, data: bytes) -> None:
        """Check an object.

        Raises:
            BadRequestError: The application does not accept it; the whole import is refused.
        """

    def take(self, section: str, item: str, pieces: Iterator[bytes], *, dry_run: bool) -> Put | None:
        """Take an item of a section and read all of its pieces; return an object that the import adds for it.

        Raises:
            BadRequestError: It cannot be taken; the whole import is refused.
        """

    def operations(self) -> Items[Op]:
        """Return the operations that the switch's transaction includes."""

    def undo(self) -> None:
        """Undo everything that `take` did, because the import failed."""


class ImportResult(msgspec.Struct, frozen=True):
    """The result of an import.

    Attributes:
        entries: The number of objects of each type.
        sections: The number of items of each section.
        exported_at: The sequence that the export names; "" for Agola's format.
        size: Bytes of the stream, decompressed.
    """

    entries: dict[str, int]
    sections: dict[str, int]
    exported_at: str
    size: int


class Importer:
    """Reads an export into data files.

    Args:
        file: The export, plain, gzip or zstd, native or Agola's.
        known_types: The types that the store accepts.
        options: The sizes of data files, and of the largest object.
        parts: The caller's part in the import.
        progress: Told of entries and bytes.
    """

    def __init__(
        self,
        file: IO[bytes],
        known_types: frozenset[str],
        options: Options,
        *,
        parts: ImportParts | None = None,
        progress: Progress = ignore,
    ) -> None:
        self._options = options
        self._parts = parts
        self._meter = Meter("import", progress)
        sections = parts.sections if parts is not None else frozenset[str]()
        self._reader = ExportReader(file, known_types, sections, options.max_wal_bytes)
        self._added: list[Entry] = []
        self._events = EventsCheck()

    @property
    def imported(self) -> Imported | None:
        """The store and WAL that the export says it comes from; None for Agola's format."""
        header = self._reader.header
        return Imported(header.store, header.sequence) if header is not None else None

    def stage(self, storage: ObjectStorage, new_uuid: Callable[[], str]) -> tuple[tuple[Run, ...], ImportResult]:
        """Write the entries into data files; return their sorted runs, and the result.

        Raises:
            BadRequestError: Something in the stream is wrong; names the place and the reason.
        """

        def write(entries: Iterator[Entry], *, with_filter: bool) -> list[FileRef]:
            return write_files(storage, entries, self._options, new_uuid, with_filter=with_filter)

        groups = {
            data_type: write(self._keyed(data_type, entries), with_filter=False)
            for data_type, entries in self._reader.groups()
        }
        self._check_events()
        files = [file for data_type in sorted(groups, key=str.encode) for file in groups[data_type]]
        runs = (make_run(storage, files, self._options, new_uuid),) if files else ()
        self._take_items(dry_run=False)
        if self._added:
            added = write(iter(sorted(self._added)), with_filter=True)
            runs = (make_run(storage, added, self._options, new_uuid), *runs)
        return runs, self._result()

    def check(self) -> ImportResult:
        """Read the stream to its end without writing anything, and return the result (see `stage`)."""
        for data_type, entries in self._reader.groups():
            for _ in self._keyed(data_type, entries):
                pass
        self._check_events()
        self._take_items(dry_run=True)
        return self._result()

    def _keyed(self, data_type: str, entries: Iterator[ExportEntry]) -> Iterator[Entry]:
        check = self._parts.check if self._parts is not None else None
        if data_type in RESERVED:
            check = self._events.entry
        count, size, reader = 0, self._reader.size, self._reader
        for entry in entries:
            if check is not None:
                try:
                    check(data_type, entry.id, entry.data)
                except BadRequestError as error:
                    raise reader.bad(f"{data_type} {entry.id[:80]!r}: {error}") from error
            yield entry_key(data_type, entry.id), entry.data
            count += 1
            if count == _TOLD_ENTRIES or reader.size - size >= _TOLD_BYTES:
                self._meter.add(count, reader.size - size)
                count, size = 0, reader.size
        self._meter.add(count, reader.size - size)

    def _check_events(self) -> None:
        try:
            self._events.end()
        except BadRequestError as error:
            raise self._reader.bad(str(error)) from error

    def _take_items(self, *, dry_run: bool) -> None:
        if self._parts is None:
            for _ in self._reader.items():  # the first one is refused: no section is known
                pass
            return
        for section, item, pieces in self._reader.items():
            try:
                added = self._parts.take(section, item, self._metered(pieces), dry_run=dry_run)
            except BadRequestError as error:
                if str(error).startswith("import: "):
                    raise
                raise self._reader.bad(f"{section} {item[:80]!r}: {error}") from error
            if added is not None:
                self._added.append((entry_key(added.data_type, added.id), added.data))
            self._meter.add(1)

    def _metered(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        size = self._reader.size
        for piece in pieces:
            self._meter.add(0, self._reader.size - size)
            size = self._reader.size
            yield piece

    def _result(self) -> ImportResult:
        self._meter.add(0, self._reader.size - self._meter.size)
        self._meter.end()
        header = self._reader.header
        exported_at = header.sequence if header is not None else ""
        return ImportResult(self._reader.entries, self._reader.sections, exported_at, self._reader.size)
