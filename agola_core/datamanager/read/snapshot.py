"""A snapshot: one consistent state of a store, readable for as long as it is open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.types import Entry
from agola_core.datamanager.validate import check_id, check_listing
from agola_core.errors import ClosedError
from agola_core.runtime.closing import Closing


class Snapshot(Closing):
    """One consistent state of a store, kept readable while it is open. A context manager.

    Args:
        pinned: Gives the state, and keeps its files until it is left.
        check_type: Raises if the store was not opened with a data type; what it holds nevertheless can be read, too.

    Attributes:
        sequence: The newest WAL that it sees.
        lineage: The id of the history that it belongs to.
    """

    def __init__(self, pinned: AbstractContextManager[View], check_type: Callable[[str], object]) -> None:
        self._pinned = pinned
        self._check_type = check_type
        self._view = pinned.__enter__()
        self._types = frozenset(self._view.data_types())
        self.sequence = self._view.sequence
        self.lineage = self._view.lineage.lineage
        self._open = True

    def get(self, data_type: str, object_id: str) -> bytes | None:
        """Return an object; None when it does not exist.

        Raises:
            BadRequestError: The type is unknown.
            ClosedError: The snapshot was closed.
        """
        check_id(object_id)
        return self._state(data_type).get(data_type, object_id)

    def entry(self, data_type: str, object_id: str) -> Entry | None:
        """Return an object with its version, for `Put(..., expected=...)`; None when it does not exist.

        Raises:
            BadRequestError: The type is unknown.
            ClosedError: The snapshot was closed.
        """
        check_id(object_id)
        return self._state(data_type).entry(data_type, object_id)

    def count(self, data_types: Iterable[str]) -> int:
        """Return about how many objects some types have.

        Raises:
            BadRequestError: A type is unknown.
            ClosedError: The snapshot was closed.
        """
        return self._state(*(types := [*data_types])).size(types)

    def scan(
        self, data_type: str, start_after: str = "", *, prefix: str = "", backwards: bool = False
    ) -> Iterator[tuple[str, bytes]]:
        """Yield a type's objects in the byte order of their ids, or backwards, from after an id on.

        Raises:
            BadRequestError: The type is unknown.
            ClosedError: The snapshot was closed.
        """
        view = self._state(data_type)
        check_listing(start_after, None, prefix)
        return (view.scan_back if backwards else view.scan)(data_type, start_after, prefix)

    def __repr__(self) -> str:
        """Return the state that it sees."""
        return f"<Snapshot at {self.sequence}{'' if self._open else ' (closed)'}>"

    def close(self) -> None:
        """Let the data that only this snapshot needs be collected; closing twice is harmless."""
        if self._open:
            self._open = False
            self._pinned.__exit__(None, None, None)

    def _state(self, *data_types: str) -> View:
        if not self._open:
            raise ClosedError("the snapshot was closed")
        for data_type in data_types:
            if not (isinstance(data_type, str) and data_type in self._types):
                self._check_type(data_type)
        return self._view
