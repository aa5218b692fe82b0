"""A view, which is what a reader sees: one manifest's data files under one memtable, up to one WAL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from itertools import takewhile
from typing import NamedTuple

from agola_core.datamanager.format import keys
from agola_core.datamanager.format.records import LineageRecord, Wal
from agola_core.datamanager.format.versions import Version, name_digest, object_digest
from agola_core.datamanager.sstable.manifest import Manifest
from agola_core.datamanager.sstable.memtable import Memtable
from agola_core.datamanager.sstable.table import Table
from agola_core.datamanager.types import Entry
from agola_core.errors import CorruptionError
from agola_core.sequence import Sequence


class View(NamedTuple):
    """One consistent state of the store; it never changes.

    Attributes:
        lineage: The history it belongs to.
        manifest: The newest checkpoint that this process knows.
        table: The manifest's data files.
        memtable: The changes after the manifest; it may hold newer ones, which the view skips.
        sequence: The newest WAL that the view sees.
        revision: The coordinator's revision at which the log's head stood there.
    """

    lineage: LineageRecord
    manifest: Manifest
    table: Table
    memtable: Memtable
    sequence: Sequence
    revision: int

    def extended(self, wals: Items[Wal], revision: int) -> View:
        """Return a view that includes some more WALs; for one writer at a time.

        Args:
            wals: Those that follow, committed in one transaction.
            revision: The transaction's.

        Raises:
            CorruptionError: They do not follow the newest.
        """
        epoch, newest = self.sequence
        apply = self.memtable.apply
        for wal in wals:
            record = wal.record
            if record.previous != newest or record.epoch != epoch:
                raise CorruptionError(
                    f"WAL {record.sequence} follows {record.previous_sequence}, not {Sequence(epoch, newest)}",
                    path=keys.wal(record.sequence),
                )
            newest = record.counter
            apply(newest, wal.actions)
        return View(self.lineage, self.manifest, self.table, self.memtable, Sequence(epoch, newest), revision)

    def get(self, data_type: str, object_id: str) -> bytes | None:
        """Return an object; None when it does not exist."""
        change = self.memtable.find(data_type, object_id, self.sequence.counter)
        if change is not None:
            return change.data
        return self.table.get(data_type, object_id)

    def entry(self, data_type: str, object_id: str) -> Entry | None:
        """Return an object with its version; None when it does not exist."""
        data = self.get(data_type, object_id)
        if data is None:
            return None
        name = name_digest(data_type, object_id)
        return Entry(data, str(Version(self.lineage.lineage, self.sequence, name, object_digest(data))))

    def scan(self, data_type: str, start_after: str = "", prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the id and the bytes of a type's objects, in the byte order of their ids.

        Args:
            data_type: The type to scan.
            start_after: Only ids that sort after it.
            prefix: Only ids that begin with it.
        """
        counter = self.sequence.counter
        if start_after >= prefix:
            changes = self.memtable.scan(data_type, start_after, counter)
            stored = self.table.scan(data_type, start_after)
        else:
            changes = self.memtable.scan(data_type, prefix, counter, included=True)
            stored = self.table.scan_range(data_type, prefix)
        found = _merge(changes, stored)
        return found if not prefix else takewhile(lambda item: item[0].startswith(prefix), found)

    def scan_back(self, data_type: str, start_before: str = "", prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the id and the bytes of a type's objects, in the reverse byte order of their ids.

        Args:
            data_type: The type to scan.
            start_before: Only ids that sort before it; "" for all.
            prefix: Only ids that begin with it.
        """
        end = min((bound for bound in (start_before, after_prefix(prefix)) if bound), default="")
        changes = self.memtable.scan_back(data_type, end, self.sequence.counter)
        stored = self.table.scan_back(data_type, prefix, end)
        found = _merge(changes, (item for item in stored if item[0] != end), backwards=True)
        return found if not prefix else takewhile(lambda item: item[0].startswith(prefix), found)

    def data_types(self) -> list[str]:
        """Return every type that the view may hold objects of, sorted."""
        return sorted({*self.manifest.data_types, *self.memtable.data_types()})

    def size(self, data_types: Iterable[str] | None = None) -> int:
        """Return about how many objects of some types, or of all, the view has."""
        if data_types is None:
            stored = sum(run.entries - 2 * run.tombstones for run in self.manifest.runs)
            return stored + self.memtable.count(set(self.data_types()))
        wanted = set(data_types)
        return self.table.count(wanted) + self.memtable.count(wanted)

    def provenance(self) -> tuple[str, str]:
        """Return the store whose state this is, and the newest WAL of that state in it.

        A store that was imported and not written to since still has the state of another store.
        """
        imported = self.manifest.imported
        if imported is not None and self.sequence == self.lineage.start:
            return imported.store, imported.sequence
        return self.lineage.store, str(self.sequence)


def after_prefix(prefix: str) -> str:
    """Return the first text that sorts after all that begin with a prefix; "" if there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < 0x10FFFF:
            return prefix[:index] + chr(0xE000 if code == 0xD7FF else code + 1)  # no surrogates
    return ""


def _merge(
    changes: Iterator[tuple[str, bytes | None]], stored: Iterator[tuple[str, bytes]], *, backwards: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Lay changes over stored objects; both are in the order of their ids, or in the reverse one."""
    change = next(changes, None)
    if change is None:
        yield from stored
        return
    for entry in stored:
        while change is not None and (change[0] > entry[0] if backwards else change[0] < entry[0]):
            if change[1] is not None:
                yield change[0], change[1]
            change = next(changes, None)
        if change is not None and change[0] == entry[0]:
            if change[1] is not None:
                yield change[0], change[1]
            change = next(changes, None)
        else:
            yield entry
    while change is not None:
        if change[1] is not None:
            yield change[0], change[1]
        change = next(changes, None)
