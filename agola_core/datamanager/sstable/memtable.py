"""The memtable: the uncheckpointed changes, in memory, that lie over the newest manifest's data files.

For each id it keeps the changes since the checkpoint, newest first, as a chain of immutable links, so that a reader
with an older view walks on to the links that it may see while writers add newer ones. One thread at a time may write;
any number of threads read, without locks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items

import msgspec

from agola_core.datamanager.format.events import EVENTS, INDEXES
from agola_core.datamanager.sstable.events.memtable import EventMemtable
from agola_core.datamanager.types import Action, Put

_ENTRY_OVERHEAD = 200
"""Bytes of memory that one change costs beside its id and data, about."""


class Change(msgspec.Struct, frozen=True):
    """One change of one object. Not `gc=False`: letting go of a long chain of such would recurse too deep.

    Attributes:
        counter: The counter of its WAL.
        data: The new bytes; None after a delete.
        older: The change before it, if that is uncheckpointed too.
    """

    counter: int
    data: bytes | None
    older: Change | None


class Memtable:
    """Uncheckpointed changes of all data types.

    Attributes:
        size: Bytes of memory that the changes take, about.
        wals: How many WALs they came from.
        events: The indexes of the events among them: read as if they were objects, too.
    """

    def __init__(self) -> None:
        self.size = 0
        self.wals = 0
        self.events = EventMemtable()
        self._newest = 0
        self._types: dict[str, dict[str, Change]] = {}
        self._sorted: dict[str, list[str]] = {}

    def apply(self, counter: int, actions: Items[Action]) -> None:
        """Add a WAL's actions; the last action on an id wins.

        Args:
            counter: The WAL's counter, greater than all before.
            actions: In their order.
        """
        self.wals += 1
        self._newest = counter
        size = 0
        data_type = ""
        changes: dict[str, Change] = {}
        for action in actions:
            if action.data_type != data_type:
                data_type = action.data_type
                changes = self._types.setdefault(data_type, {})
            object_id = action.id
            older = changes.get(object_id)
            if older is not None and older.counter == counter:
                older = older.older
            if type(action) is Put:
                changes[object_id] = Change(counter, action.data, older)
                size += len(action.data) + len(object_id)
                if data_type == EVENTS:
                    self.events.add(counter, action.data)
                    size += 2 * len(action.data) + _ENTRY_OVERHEAD  # its indexes, and its events once they are read
            else:
                changes[object_id] = Change(counter, None, older)
                size += len(object_id)
        size += len(actions) * _ENTRY_OVERHEAD
        self.size += size

    def find(self, data_type: str, object_id: str, counter: int) -> Change | None:
        """Return the newest change of an object up to a counter, inclusive; None when there is none."""
        changes = self._types.get(data_type)
        if changes is None:
            if data_type in INDEXES and (data := self.events.find(data_type, object_id, counter)) is not None:
                return Change(counter, data, None)
            return None
        change = changes.get(object_id)
        while change is not None and change.counter > counter:
            change = change.older
        return change

    def scan(
        self, data_type: str, start_after: str, counter: int, *, included: bool = False
    ) -> Iterator[tuple[str, bytes | None]]:
        """Yield the id and the newest data (None after a delete) of changed objects, in the order of their ids.

        Args:
            data_type: The type to scan.
            start_after: Only ids that sort after it.
            counter: The newest WAL to see.
            included: Whether `start_after` itself is among them.
        """
        if data_type in INDEXES:
            if included and (data := self.events.find(data_type, start_after, counter)) is not None:
                yield start_after, data
            yield from self.events.entries(data_type, counter, start_after)
            return
        changes = self._types.get(data_type)
        if not changes:
            return
        ids = self._sorted_ids(data_type, changes)
        start = (bisect_left if included else bisect_right)(ids, start_after) if start_after else 0
        yield from _seen(ids, range(start, len(ids)), changes, counter)

    def scan_back(self, data_type: str, start_before: str, counter: int) -> Iterator[tuple[str, bytes | None]]:
        """Yield the same in the reverse order, from before an id; "" for all."""
        if data_type in INDEXES:
            entries = [
                item for item in self.events.entries(data_type, counter) if not start_before or item[0] < start_before
            ]
            yield from reversed(entries)
            return
        changes = self._types.get(data_type)
        if not changes:
            return
        ids = self._sorted_ids(data_type, changes)
        end = bisect_left(ids, start_before) if start_before else len(ids)
        yield from _seen(ids, range(end - 1, -1, -1), changes, counter)

    def data_types(self) -> list[str]:
        """Return the types that have changes, sorted."""
        return sorted([*self._types, *INDEXES]) if self.events.filled else sorted(self._types)

    def count(self, data_types: Iterable[str]) -> int:
        """Return how many objects of some types have changes."""
        return sum(
            self.events.count(name) if name in INDEXES else len(self._types.get(name, ())) for name in data_types
        )

    def deletes(self) -> int:
        """Return how many objects are deleted by their newest change."""
        # `list` copies in one step of the interpreter: a writer may add keys at any other moment
        return sum(change.data is None for changes in list(self._types.values()) for change in list(changes.values()))

    def after(self, counter: int) -> Memtable:
        """Return a memtable of the changes after a counter: those that a checkpoint has left."""
        rest = Memtable()
        rest.events = self.events.rest(counter)
        rest.wals, rest._newest = max(self._newest - counter, 0), self._newest
        for data_type, changes in self._types.items():
            kept = {}
            for object_id, change in changes.items():
                if change.counter > counter:
                    kept[object_id] = _cut(change, counter)
                    rest.size += len(object_id) + _ENTRY_OVERHEAD + len(change.data or b"")
            if kept:
                rest._types[data_type] = kept
        return rest

    def _sorted_ids(self, data_type: str, changes: dict[str, Change]) -> list[str]:
        ids = self._sorted.get(data_type)
        if ids is None or len(ids) != len(changes):  # ids are never removed, so an equal count is the same set
            ids = list(changes)
            ids.sort()
            self._sorted[data_type] = ids
        return ids


def _seen(
    ids: list[str], indexes: range, changes: dict[str, Change], counter: int
) -> Iterator[tuple[str, bytes | None]]:
    """Yield the ids at some indexes, with the newest data up to a counter."""
    for index in indexes:
        change: Change | None = changes[ids[index]]
        while change is not None and change.counter > counter:
            change = change.older
        if change is not None:
            yield ids[index], change.data


def _cut(change: Change, counter: int) -> Change:
    newer = []
    link: Change | None = change
    while link is not None and link.counter > counter:
        newer.append(link)
        link = link.older
    cut: Change | None = None
    for link in reversed(newer):
        cut = Change(link.counter, link.data, cut)
    assert cut is not None
    return cut
