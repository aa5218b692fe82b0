"""A snapshot: one consistent state of a store, readable for as long as it is open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.types import Entry
from agola_core.runtime.closing import Closing


class Snapshot(Closing):
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

    def entry(self, data_type: str, object_id: str) -> Entry | None:
        """Return an object with its version, for `Put(..., expected=...)`; None when it does not exist."""
        return self._view.entry(data_type, object_id)

    def count(self, data_types: Iterable[str]) -> int:
        """Return about how many objects some types have."""
        return self._view.size(data_types)

    def scan(
        self, data_type: str, start_after: str = "", *, prefix: str = "", backwards: bool = False
    ) -> Iterator[tuple[str, bytes]]:
        """Yield a type's objects in the byte order of their ids, or backwards, from after an id on."""
        return (self._view.scan_back if backwards else self._view.scan)(data_type, start_after, prefix)

    def __repr__(self) -> str:
        """Return the state that it sees."""
        return f"<Snapshot at {self.sequence}{'' if self._open else ' (closed)'}>"

    def close(self) -> None:
        """Let the data that only this snapshot needs be collected; closing twice is harmless."""
        if self._open:
            self._open = False
            self._pinned.__exit__(None, None, None)
