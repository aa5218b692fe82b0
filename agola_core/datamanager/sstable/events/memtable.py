"""The memtable's part for events: in-memory indexes of the events that no checkpoint has yet.

A commit only appends its batches; the first lookup indexes them, so writers pay nothing for it. Everything is in the
order of positions and only grows at its end, so a reader with an older view skips what follows its last position.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import dropwhile

from agola_core.datamanager.format.events import (
    HEADS,
    IDS,
    STREAMS,
    TAGS,
    Batch,
    IndexedEvent,
    QueryItem,
    decode_batch,
    decode_indexed,
    key,
)
from agola_core.runtime.processes.forks import fork_safe


class MemoryBatch:
    """A batch in memory.

    Attributes:
        position: The position of its first event.
        last: The position of its last event.
        version: The version of its first event.
        last_version: The version of its last event.
        stream: Its stream.
        events: What the indexes need of its events.
        data: Its object.
        decoded: The batch, once it was read.
    """

    __slots__ = ("data", "decoded", "events", "last", "last_version", "position", "stream", "version")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.decoded: Batch | None = None
        self.position, self.version, self.stream, self.events = decode_indexed(data)
        self.last = self.position + len(self.events) - 1
        self.last_version = self.version + len(self.events) - 1

    def batch(self) -> Batch:
        """Return the batch, decoded once."""
        decoded = self.decoded
        if decoded is None:
            decoded = self.decoded = decode_batch(self.data)
        return decoded

    def event(self, position: int) -> IndexedEvent:
        """Return what the indexes need of an event."""
        return self.events[position - self.position]


class EventMemtable:
    """The batches of a memtable. One thread at a time adds; any number read."""

    def __init__(self) -> None:
        self._lock = fork_safe(threading.Lock())
        self._pending: deque[tuple[int, bytes]] = deque()
        self._counters: list[int] = []
        self._lasts: list[int] = []
        self._batches: list[MemoryBatch] = []
        self._streams: dict[str, list[MemoryBatch]] = {}
        self._tags: dict[str, list[int]] = {}
        self._types: dict[str, list[int]] = {}
        self._ids: dict[str, int] = {}

    def add(self, counter: int, data: bytes) -> None:
        """Add a batch.

        Args:
            counter: The counter of its WAL.
            data: Its object.
        """
        self._pending.append((counter, data))

    @property
    def filled(self) -> bool:
        """Whether it has any batch."""
        return bool(self._pending or self._batches)

    def rest(self, counter: int) -> EventMemtable:
        """Return the batches of the WALs after a counter."""
        rest = EventMemtable()
        with self._lock:
            for at, batch in zip(self._counters, self._batches, strict=True):
                if at > counter:
                    rest.add(at, batch.data)
            for at, data in self._pending:
                if at > counter:
                    rest.add(at, data)
        return rest

    def bounds(self, counter: int) -> tuple[int, int]:
        """Return the positions of the first and the last event up to a WAL; (0, 0) when there are none."""
        self._index(counter)
        visible = bisect_right(self._counters, counter)
        return (self._batches[0].position, self._lasts[visible - 1]) if visible else (0, 0)

    def at(self, position: int) -> MemoryBatch:
        """Return the batch that has a position, which lies within `bounds`."""
        return self._batches[bisect_left(self._lasts, position)]

    def batches(self, first: int, last: int, *, backwards: bool) -> Iterator[MemoryBatch]:
        """Yield the batches that have positions from `first` to `last`, which lie within `bounds`."""
        if first > last:
            return
        begin, end = bisect_left(self._lasts, first), bisect_left(self._lasts, last)
        for index in range(end, begin - 1, -1) if backwards else range(begin, end + 1):
            yield self._batches[index]

    def stream(self, name: str, counter: int, last: int) -> list[MemoryBatch]:
        """Return the batches of a stream up to a WAL, which ends at a position, in order."""
        self._index(counter)
        found = self._streams.get(name)
        if found is None:
            return []
        if found[-1].last <= last:
            return found
        return [batch for batch in found if batch.last <= last]

    def positions(self, item: QueryItem, first: int, last: int, *, backwards: bool) -> Iterator[int]:
        """Yield the positions from `first` to `last`, within `bounds`, whose events match an item."""
        if item.tags:
            lists = [self._tags.get(tag, []) for tag in item.tags]
            for position in _between(min(lists, key=len), first, last, backwards=backwards):
                event = self.at(position).event(position)
                if item.matches(event.type, event.tags):
                    yield position
        elif len(item.types) == 1:
            (only,) = item.types
            yield from _between(self._types.get(only, []), first, last, backwards=backwards)
        elif item.types:
            found: list[int] = []
            for name in item.types:
                found += _between(self._types.get(name, []), first, last, backwards=False)
            yield from sorted(found, reverse=backwards)
        else:
            yield from range(last, first - 1, -1) if backwards else range(first, last + 1)

    def find_id(self, event_id: str, counter: int, last: int) -> int:
        """Return the position of the event with an id, up to a WAL, which ends at a position; 0 for none."""
        self._index(counter)
        position = self._ids.get(event_id, 0)
        return position if position <= last else 0

    def find(self, index: str, entry: str, counter: int) -> bytes | None:
        """Return the value of an entry of an index, as it is stored; None when there is none."""
        return dict(self.entries(index, counter)).get(entry)

    def count(self, index: str) -> int:
        """Return how many entries an index has."""
        self._index(None)
        if index == HEADS:
            return len(self._streams)
        if index == STREAMS:
            return sum(map(len, self._streams.values()))
        if index == IDS:
            return len(self._ids)
        return sum(map(len, (self._tags if index == TAGS else self._types).values()))

    def entries(self, index: str, counter: int, start_after: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield the entries of an index up to a WAL, in the order of their keys, as they are stored.

        Names are sorted and their numbers rise, so the entries need no sorting: a checkpoint holds nobody up.
        """
        _, last = self.bounds(counter)
        entries = self._stream_entries if index in {HEADS, STREAMS} else self._event_entries
        yield from dropwhile(lambda entry: entry[0] <= start_after, entries(index, last))

    def _stream_entries(self, index: str, last: int) -> Iterator[tuple[str, bytes]]:
        for name in sorted(self._streams):
            if not name:
                continue
            head = 0
            for batch in self._streams[name]:
                if batch.last > last:
                    break
                head = batch.last_version
                if index == STREAMS:
                    yield key(name, head), b"%d" % batch.last
            if head and index == HEADS:
                yield name, b"%d" % head

    def _event_entries(self, index: str, last: int) -> Iterator[tuple[str, bytes]]:
        if index == IDS:
            for event_id in sorted(self._ids):
                position = self._ids[event_id]
                if position <= last:
                    yield event_id, b"%d %d" % (position, self.at(position).last)
            return
        lists = self._tags if index == TAGS else self._types
        for name in sorted(lists):
            for position in lists[name]:
                if position > last:
                    break
                batch = self.at(position)
                value = b"%d" % batch.last
                yield (
                    key(name, position),
                    value + b" " + batch.event(position).type.encode() if index == TAGS else value,
                )

    def _index(self, counter: int | None) -> None:
        """Index the batches that were added, up to a WAL."""
        pending = self._pending
        if not pending:
            return
        with self._lock:
            while pending and (counter is None or pending[0][0] <= counter):
                at, data = pending[0]
                self._take(at, MemoryBatch(data))
                pending.popleft()

    def _take(self, counter: int, batch: MemoryBatch) -> None:
        position = batch.position
        for event in batch.events:
            self._types.setdefault(event.type, []).append(position)
            for tag in event.tags:
                self._tags.setdefault(tag, []).append(position)
            if event.id:
                self._ids[event.id] = position
            position += 1
        self._batches.append(batch)
        self._lasts.append(batch.last)
        self._streams.setdefault(batch.stream, []).append(batch)
        self._counters.append(counter)  # last: what is before it is complete for readers of any view


def _between(positions: list[int], first: int, last: int, *, backwards: bool) -> list[int]:
    found = positions[bisect_left(positions, first) : bisect_right(positions, last)]
    return found[::-1] if backwards else found
