"""Export: one consistent snapshot of a store as a stream of JSON.

The native format is lines: a header, one entry a line, grouped by data type with rising ids, and a footer with
the counts and the blake2b-32 of every byte before it, so that a cut stream is always noticed. Agola 0.2's
format is the entries alone, back to back.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import IO

import msgspec

from agola_core.datamanager.view import View

FORMAT = 1
_PIECE = 256 * 1024


class ExportFormat(enum.StrEnum):
    """What an export looks like."""

    NATIVE = "native"
    AGOLA = "agola"


class Header(msgspec.Struct, frozen=True):
    """The first line of a native export.

    Attributes:
        agola_export: The version of the format.
        store: The id of the store that was exported.
        sequence: The newest WAL that the export holds.
        data_types: The types, in the order of the export.
    """

    agola_export: int
    store: str
    sequence: str
    data_types: tuple[str, ...]


class ExportEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object, as Agola writes it; `data` is base64 in JSON."""

    id: str = ""
    data_type: str = ""
    data: bytes = b""


class Footer(msgspec.Struct, frozen=True):
    """The last line of a native export.

    Attributes:
        entries: How many objects of each type the export holds.
        digest: blake2b-32 of everything before this line, in hexadecimal.
    """

    entries: dict[str, int]
    digest: str


class ExportResult(msgspec.Struct, frozen=True):
    """What was exported.

    Attributes:
        sequence: The newest WAL that the export holds, as text.
        entries: How many objects of each type.
        size: Bytes of the stream.
    """

    sequence: str
    entries: dict[str, int]
    size: int


def export_pieces(view: View, data_types: Items[str], form: ExportFormat) -> Iterator[bytes]:
    """Yield the bytes of an export, in pieces of a moderate size.

    Args:
        view: What to export.
        data_types: The types to export first, in this order; those that the store has beside them follow.
        form: The format.
    """
    ordered = [*data_types, *(name for name in view.data_types() if name not in data_types)]
    if form is ExportFormat.AGOLA:
        yield from _joined(line for line, _ in _entries(view, ordered, b""))
        return
    digest = hashlib.blake2b(digest_size=32)
    counts = dict.fromkeys(ordered, 0)
    encode = msgspec.json.encode

    def lines() -> Iterator[bytes]:
        yield encode(Header(FORMAT, view.lineage.store, str(view.sequence), tuple(ordered))) + b"\n"
        for line, data_type in _entries(view, ordered, b"\n"):
            counts[data_type] += 1
            yield line

    for piece in _joined(lines()):
        digest.update(piece)
        yield piece
    yield encode(Footer(counts, digest.hexdigest())) + b"\n"


def _entries(view: View, data_types: Items[str], end: bytes) -> Iterator[tuple[bytes, str]]:
    encode = msgspec.json.Encoder().encode
    for data_type in data_types:
        for object_id, data in view.scan(data_type):
            yield encode(ExportEntry(object_id, data_type, data)) + end, data_type


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def write_export(view: View, data_types: Items[str], form: ExportFormat, file: IO[bytes]) -> ExportResult:
    """Write an export to a file and return what it holds (see `export_pieces`)."""
    size, last = 0, b""
    for piece in export_pieces(view, data_types, form):
        file.write(piece)
        size, last = size + len(piece), piece
    entries = msgspec.json.decode(last, type=Footer).entries if form is ExportFormat.NATIVE else {}
    return ExportResult(str(view.sequence), entries, size)
