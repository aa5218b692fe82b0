"""What a datamanager hands out of its state: snapshots to read, a status to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

import msgspec

from agola_core.datamanager.sstable.view import View


class Compacted(msgspec.Struct, frozen=True):
    """What a compaction did to the data files of the newest checkpoint.

    Attributes:
        files_before: How many there were.
        bytes_before: Their bytes.
        files: How many there are.
        bytes: Their bytes.
    """

    files_before: int
    bytes_before: int
    files: int
    bytes: int


class Status(msgspec.Struct, frozen=True):
    """The state of a store, for people and monitoring.

    Attributes:
        store: Its id.
        lineage: Its current history.
        epoch: The epoch of its sequences.
        sequence: The newest WAL.
        synced: The newest WAL in storage.
        checkpointed: The newest WAL in the current manifest.
        manifest: The current manifest's number.
        data_files: How many data files it names.
        data_bytes: Their bytes.
        uncheckpointed_wals: How many WALs are in the memtable alone.
        uncheckpointed_bytes: About how many bytes of memory they take.
        instances: The names of the processes that have the store open.
        loops: For each background loop of this process whether it runs.
    """

    store: str
    lineage: str
    epoch: int
    sequence: str
    synced: str
    checkpointed: str
    manifest: int
    data_files: int
    data_bytes: int
    uncheckpointed_wals: int
    uncheckpointed_bytes: int
    instances: tuple[str, ...]
    loops: dict[str, bool]


class Snapshot:
    """One consistent state of a store, kept readable while it is open. A context manager.

    Args:
        pinned: Gives the state, and keeps its files until it is left.

    Attributes:
        sequence: The newest WAL that it sees.
        lineage: The id of the history that it belongs to.
    """

    def __init__(self, pinned: AbstractContextManager[View]) -> None:
        self._pinned = pinned
        self._view = pinned.__enter__()
        self.sequence = self._view.sequence
        self.lineage = self._view.lineage.lineage
        self._open = True

    def get(self, data_type: str, object_id: str) -> bytes | None:
        """Return an object; None when it does not exist."""
        return self._view.get(data_type, object_id)

    def count(self, data_types: Iterable[str]) -> int:
        """Return about how many objects some types have."""
        return self._view.size(data_types)

    def scan(self, data_type: str, start_after: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield a type's objects in the byte order of their ids, from after an id on."""
        return self._view.scan(data_type, start_after)

    def close(self) -> None:
        """Let the data that only this snapshot needs be collected; closing twice is harmless."""
        if self._open:
            self._open = False
            self._pinned.__exit__(None, None, None)

    def __enter__(self) -> Self:
        """Return the snapshot."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the snapshot."""
        self.close()
