"""Exports one consistent state of a store as a stream, without stopping writers (see `export_format`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from typing import IO, Protocol

import msgspec

from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.transfer.export_format import (
    DIGEST_BYTES,
    FORMAT,
    SECTION_PIECE,
    ExportFormat,
    Footer,
    Header,
    SectionEntry,
    encode_entry,
)
from agola_core.datamanager.transfer.parallel_compression import Compression, compress_stream, gathered
from agola_core.runtime.progress import Meter, Progress, ignore

_PIECE = 256 * 1024
_encode = msgspec.json.Encoder().encode

ExportItem = tuple[str, Iterator[bytes]]
"""An item of a section: its id and its bytes."""


class ExportParts(Protocol):
    """What the caller, such as the run service, adds to an export."""

    def agola_data(self, data_type: str, data: bytes) -> bytes:
        """Return an object's bytes as Agola 0.2 would have stored them."""

    def sections(self, revision: int) -> Iterator[tuple[str, Iterator[ExportItem]]]:
        """Yield the sections that follow the objects: each one's name, and its items in the byte order of their ids.

        Args:
            revision: The coordinator's revision at which the exported state was the newest one.
        """


class ExportResult(msgspec.Struct, frozen=True):
    """The result of an export.

    Attributes:
        sequence: The newest WAL that the export includes, as text.
        entries: The number of objects of each type.
        sections: The number of items of each section.
        size: Bytes of the stream, before compression.
    """

    sequence: str
    entries: dict[str, int]
    sections: dict[str, int]
    size: int


class Export:
    """One export; its pieces can be read once.

    Args:
        view: The state to export.
        revision: The coordinator's revision at which the view was the newest state.
        data_types: The types to export first, in this order; the store's other types follow.
        form: The format.
        parts: What the caller adds.
        progress: Told of entries and bytes.
    """

    def __init__(
        self,
        view: View,
        revision: int,
        data_types: Items[str],
        form: ExportFormat,
        *,
        parts: ExportParts | None = None,
        progress: Progress = ignore,
    ) -> None:
        self._view = view
        self._revision = revision
        self._data_types = (*data_types, *(name for name in view.data_types() if name not in data_types))
        self._form = form
        self._parts = parts
        self._meter = Meter("export", progress, view.size())
        self._entries = dict.fromkeys(self._data_types, 0)
        self._sections: dict[str, int] = {}

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes, in pieces of a moderate size."""
        if self._form is ExportFormat.AGOLA:
            convert = self._parts.agola_data if self._parts is not None else None
            yield from self._joined(self._lines(b"", convert))
        else:
            digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
            for piece in self._joined(self._native()):
                digest.update(piece)
                yield piece
            footer = _encode(Footer(self._entries, self._sections, digest.hexdigest())) + b"\n"
            self._meter.add(0, len(footer))
            yield footer
        self._meter.end()

    def result(self) -> ExportResult:
        """Return the result, once all pieces were read."""
        return ExportResult(str(self._view.sequence), self._entries, self._sections, self._meter.size)

    def _native(self) -> Iterator[bytes]:
        store, sequence = self._view.provenance()
        yield _encode(Header(FORMAT, store, sequence, self._data_types)) + b"\n"
        yield from self._lines(b"\n")
        if self._parts is not None:
            for name, items in self._parts.sections(self._revision):
                self._sections[name] = 0
                for item_id, data in items:
                    self._sections[name] += 1
                    yield from _item(name, item_id, data)

    def _lines(self, end: bytes, convert: Callable[[str, bytes], bytes] | None = None) -> Iterator[bytes]:
        for data_type in self._data_types:
            count = 0
            for object_id, data in self._view.scan(data_type):
                count += 1
                if convert is not None:
                    data = convert(data_type, data)  # noqa: PLW2901 - the same object in another form
                yield encode_entry(object_id, data_type, data) + end
            self._entries[data_type] = count

    def _joined(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for group in gathered(lines, _PIECE):
            piece = b"".join(group)
            self._meter.add(len(group), len(piece))
            yield piece


def _item(section: str, item_id: str, data: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of one item."""
    held = b""
    for piece in data:
        held += piece
        while len(held) > SECTION_PIECE:
            yield _encode(SectionEntry(section, item_id, held[:SECTION_PIECE], more=True)) + b"\n"
            held = held[SECTION_PIECE:]
    yield _encode(SectionEntry(section, item_id, held)) + b"\n"


def write_export(export: Export, compression: Compression, file: IO[bytes]) -> ExportResult:
    """Write an export to a file and return the result."""
    for piece in compress_stream(export.pieces(), compression):
        file.write(piece)
    return export.result()
