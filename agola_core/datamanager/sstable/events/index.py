"""Finds events in a view by position, stream, type, tag and id; first in the data files, then in memory.

Memory has the newest events and the files all before them, so nothing is merged: one follows the other. A lookup in
the files costs a range request for each run that may have the index entries, and one at most for each batch.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from operator import itemgetter

from agola_core.datamanager.format.events import (
    EVENTS,
    FIRST,
    HEADS,
    IDS,
    STREAMS,
    TAGS,
    TYPES,
    Batch,
    QueryItem,
    decode_batch,
    key,
    key_number,
    number,
)
from agola_core.datamanager.sstable.events.memtable import MemoryBatch
from agola_core.datamanager.sstable.view import View
from agola_core.errors import CorruptionError

_LAST = 10**16 - 1

Found = tuple[int, int, str]
"""An event that an index leads to: its position, the last position of its batch, its type where the index has it."""


class EventIndex:
    """The events of a view.

    Args:
        view: The view, whose files must be kept while this is used.

    Attributes:
        head: The position of the last event; 0 if there is none.
    """

    def __init__(self, view: View) -> None:
        self._memory = view.memtable.events
        self._counter = view.sequence.counter
        self._table = view.table
        first, last = self._memory.bounds(self._counter) if self._memory.filled else (0, 0)
        if last:
            self.head = last
            self._stored = first - 1
        else:
            self.head = self._stored = int(self._table.last(EVENTS) or 0)
        self._cache = view.table.events

    def version(self, stream: str) -> int:
        """Return the last version of a stream; 0 when it has no events."""
        batches = self._memory.stream(stream, self._counter, self.head)
        if batches:
            return batches[-1].last_version
        value = self._table.get(HEADS, stream)
        return int(value) if value is not None else 0

    def find_id(self, event_id: str) -> int:
        """Return the position of the event with an id; 0 when there is none."""
        position = self._memory.find_id(event_id, self._counter, self.head)
        if not position and self._stored and (value := self._table.get(IDS, event_id)) is not None:
            position = int(value.split(b" ")[0])
        return position

    def batch(self, position: int) -> Batch:
        """Return the batch that has a position, which lies from 1 to `head`."""
        if position > self._stored:
            return self._memory.at(position).batch()
        for _, data in self._table.scan_range(EVENTS, number(position), number(_LAST)):
            return decode_batch(data)
        raise CorruptionError(f"there is no event at position {position}", path=EVENTS)

    def stream(self, stream: str, first: int, last: int, *, backwards: bool) -> Iterator[Batch]:
        """Yield the batches of a stream that have versions from `first` to `last`.

        Args:
            stream: Its name.
            first: At least 1.
            last: At most its last version.
            backwards: Whether the newest comes first.
        """
        if first > last:
            return
        memory = self._memory.stream(stream, self._counter, self.head)
        stored = memory[0].version - 1 if memory else last
        parts: list[Callable[[], Iterator[Batch]]] = []
        if self._stored and first <= stored:
            parts.append(lambda: self._stored_stream(stream, first, min(last, stored), backwards=backwards))
        if memory and last > stored:
            parts.append(lambda: self._memory_stream(memory, first, last, backwards=backwards))
        for part in reversed(parts) if backwards else parts:
            yield from part()

    def all(self, first: int, last: int, *, backwards: bool) -> Iterator[Batch]:
        """Yield the batches that have positions from `first` to `last`, which is at most `head`."""
        if not backwards:
            yield from self._stored_batches(first, min(last, self._stored))
        if last > self._stored:
            for batch in self._memory.batches(max(first, self._stored + 1), last, backwards=backwards):
                yield batch.batch()
        if backwards:
            yield from self._stored_batches_back(first, min(last, self._stored))

    def matching(self, items: Items[QueryItem], first: int, last: int, *, backwards: bool) -> Iterator[int]:
        """Yield the positions from `first` to `last`, at most `head`, of the events that match one of some items."""
        return map(itemgetter(0), self._matching(items, first, last, backwards=backwards))

    def events(self, items: Items[QueryItem], first: int, last: int, *, backwards: bool) -> Iterator[tuple[Batch, int]]:
        """Yield the same events: the batch of each, and its position."""
        for position, end, _ in self._matching(items, first, last, backwards=backwards):
            yield self._batch(position, end), position

    def _matching(self, items: Items[QueryItem], first: int, last: int, *, backwards: bool) -> Iterator[Found]:
        parts: list[Callable[[], Iterator[Found]]] = []
        stored = min(last, self._stored)
        if first <= stored:
            parts.append(lambda: self._stored_matches(items, first, stored, backwards=backwards))
        if last > self._stored:
            begin = max(first, self._stored + 1)
            parts.append(lambda: self._memory_matches(items, begin, last, backwards=backwards))
        for part in reversed(parts) if backwards else parts:
            yield from part()

    # In memory

    def _memory_stream(self, memory: list[MemoryBatch], first: int, last: int, *, backwards: bool) -> Iterator[Batch]:
        begin = bisect_left(memory, first, key=_last_version)
        end = min(bisect_left(memory, last, key=_last_version) + 1, len(memory))
        for index in range(end - 1, begin - 1, -1) if backwards else range(begin, end):
            yield memory[index].batch()

    def _memory_matches(self, items: Items[QueryItem], first: int, last: int, *, backwards: bool) -> Iterator[Found]:
        lists = [self._memory.positions(item, first, last, backwards=backwards) for item in items]
        for position in lists[0] if len(lists) == 1 else _once(heapq.merge(*lists, reverse=backwards)):
            yield position, 0, ""

    # In the data files

    def _batch(self, position: int, end: int) -> Batch:
        if position > self._stored:
            return self._memory.at(position).batch()
        return self._stored_batch(end)

    def _stored_batch(self, last: int) -> Batch:
        batch = self._cache.batch(last)
        if batch is None:
            batch = self._read_batch(last)
            self._cache.keep(last, batch)
        return batch

    def _read_batch(self, last: int) -> Batch:
        data = self._table.get(EVENTS, number(last))
        if data is None:
            raise CorruptionError(f"there is no batch of events at position {last}", path=EVENTS)
        return decode_batch(data)

    def _stored_stream(self, stream: str, first: int, last: int, *, backwards: bool) -> Iterator[Batch]:
        places = self._cache.places(stream)
        if places is not None:
            begin = bisect_left(places, (first, 0))
            found = places[begin : bisect_left(places, (last, 0)) + 1]
            for _, position in reversed(found) if backwards else found:
                yield self._stored_batch(position)
            return
        end = key(stream, _LAST)
        if not backwards:
            seen = []
            for entry, value in self._table.scan_range(STREAMS, key(stream, first), end):
                seen.append((key_number(entry), int(value)))
                yield self._stored_batch(int(value))
                if seen[-1][0] >= last:
                    break
            if first == FIRST and seen and seen[-1][0] == int(self._table.get(HEADS, stream) or 0):
                self._cache.keep_places(stream, seen)
            return
        if last == int(self._table.get(HEADS, stream) or 0):
            end = key(stream, last)
        else:
            for entry, _ in self._table.scan_range(STREAMS, key(stream, last), end):
                end = entry
                break
        for _, value in self._table.scan_back(STREAMS, key(stream, first), end):
            yield self._stored_batch(int(value))

    def _stored_batches(self, first: int, last: int) -> Iterator[Batch]:
        if first > last:
            return
        for entry, data in self._table.scan_range(EVENTS, number(first), number(self._stored)):
            yield decode_batch(data)
            if int(entry) >= last:
                return

    def _stored_batches_back(self, first: int, last: int) -> Iterator[Batch]:
        if first > last:
            return
        end = number(last)
        for entry, _ in self._table.scan_range(EVENTS, end, number(_LAST)):
            end = entry
            break
        for _, data in self._table.scan_back(EVENTS, number(first), end):
            yield decode_batch(data)

    def _stored_matches(self, items: Items[QueryItem], first: int, last: int, *, backwards: bool) -> Iterator[Found]:
        lists = [self._stored_item(item, first, last, backwards=backwards) for item in items]
        if len(lists) == 1:
            return lists[0]
        return _once_found(heapq.merge(*lists, key=itemgetter(0), reverse=backwards))

    def _stored_item(self, item: QueryItem, first: int, last: int, *, backwards: bool) -> Iterator[Found]:
        if item.tags:
            lists = [self._postings(TAGS, tag, first, last, backwards=backwards) for tag in sorted(item.tags)]
            found = lists[0] if len(lists) == 1 else _in_all(lists, backwards=backwards)
            return (entry for entry in found if not item.types or entry[2] in item.types)
        if item.types:
            lists = [self._postings(TYPES, name, first, last, backwards=backwards) for name in sorted(item.types)]
            return lists[0] if len(lists) == 1 else heapq.merge(*lists, key=itemgetter(0), reverse=backwards)
        return self._everything(first, last, backwards=backwards)

    def _everything(self, first: int, last: int, *, backwards: bool) -> Iterator[Found]:
        for batch in self.all(first, last, backwards=backwards):
            positions = range(max(first, batch.position), min(last, batch.last) + 1)
            for position in reversed(positions) if backwards else positions:
                yield position, batch.last, batch.events[position - batch.position].type

    def _postings(self, index: str, name: str, first: int, last: int, *, backwards: bool) -> Iterator[Found]:
        scan = self._table.scan_back if backwards else self._table.scan_range
        for entry, value in scan(index, key(name, first), key(name, last)):
            end, _, event_type = value.partition(b" ")
            yield key_number(entry), int(end), event_type.decode()


def _last_version(batch: MemoryBatch) -> int:
    return batch.last_version


def _once(positions: Iterator[int]) -> Iterator[int]:
    """Yield sorted positions without repetition."""
    last = 0
    for position in positions:
        if position != last:
            last = position
            yield position


def _once_found(found: Iterator[Found]) -> Iterator[Found]:
    last = 0
    for entry in found:
        if entry[0] != last:
            last = entry[0]
            yield entry


def _in_all(lists: list[Iterator[Found]], *, backwards: bool) -> Iterator[Found]:
    """Yield the entries whose positions are in every one of some sorted lists."""
    count, last, seen = len(lists), 0, 0
    for entry in heapq.merge(*lists, key=itemgetter(0), reverse=backwards):
        seen = seen + 1 if entry[0] == last else 1
        last = entry[0]
        if seen == count:
            yield entry
