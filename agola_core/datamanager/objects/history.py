"""The changes of objects that the log still keeps, oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from agola_core.datamanager.log.feed import Feed
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.types import Event, Put
from agola_core.errors import CompactedError
from agola_core.sequence import Sequence


class ObjectChange(msgspec.Struct, frozen=True):
    """A change of one object.

    Attributes:
        sequence: The WAL that made it.
        time: When that was committed, by its process's clock; for information, it orders nothing.
        wal_id: The id that its writer gave, or a generated one.
        data_type: The object's type.
        id: The object's id.
        data: What it became; None if it was deleted.
    """

    sequence: Sequence
    time: datetime
    wal_id: str
    data_type: str
    id: str
    data: bytes | None


class History:
    """The kept changes of some objects, up to the newest WAL when it was asked for. An iterator for one thread.

    Args:
        log: The log.
        data_type: Only objects of this type; "" for all.
        object_id: Only the object with this id; "" for all.

    Attributes:
        after: The changes begin after this WAL: the store as it was there can be read with `agola_core.open(at=...)`
            if a checkpoint was retained.
    """

    def __init__(self, log: Log, data_type: str, object_id: str) -> None:
        self._type = data_type
        self._id = object_id
        self._newest = log.view.sequence
        self._feed = _oldest(log)
        self.after = self._feed.position
        self._changes = self._read()

    def __iter__(self) -> Iterator[ObjectChange]:
        """Return the changes."""
        return self

    def __next__(self) -> ObjectChange:
        """Return the next change.

        Raises:
            CompactedError: It was collected meanwhile.
        """
        return next(self._changes)

    def __repr__(self) -> str:
        """Return the WALs that are read."""
        return f"<History of {self._type or 'all types'} {self._id!r} after {self.after} up to {self._newest}>"

    def _read(self) -> Iterator[ObjectChange]:
        with self._feed as feed:
            while feed.position < self._newest and (event := feed.next()) is not None:
                yield from changes_of(event, self._type, self._id)


def changes_of(event: Event, data_type: str = "", object_id: str = "") -> Iterator[ObjectChange]:
    """Yield the changes of some objects in one WAL.

    Args:
        event: The WAL, as a feed or a subscriber has it.
        data_type: Only objects of this type; "" for all.
        object_id: Only objects with this id; "" for all.
    """
    for action in event.actions:
        if (data_type or action.data_type, object_id or action.id) == (action.data_type, action.id):
            data = action.data if isinstance(action, Put) else None
            yield ObjectChange(event.sequence, event.time, event.wal_id, action.data_type, action.id, data)


def _oldest(log: Log) -> Feed:
    try:
        return Feed(log, log.lineage.start)
    except CompactedError as error:
        oldest = Sequence.parse(str(error.oldest))
        return Feed(log, Sequence(oldest.epoch, oldest.counter - 1))
