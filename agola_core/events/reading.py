"""Reading events page by page: what a read sees is fixed by a position, not by a state that must be kept for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

from msgspec import structs

from agola_core.datamanager.format.events import Batch, RecordedEvent
from agola_core.datamanager.read.reader import Reader
from agola_core.events.types import Query

PAGE = 256
"""Events that are read at once."""

Page = Callable[[int, int, int], list[RecordedEvent]]
"""Reads at most so many events between two places, both included, from one end."""


class Events:
    """Events that were asked for, read as they are iterated. An iterator, to be used by one thread.

    Args:
        page: Reads a page.
        first: The first version or position.
        last: The last.
        limit: The most events; None for all.
        place: What the places are of an event.
        backwards: Whether the newest comes first.
        head: The last position of the store that the read sees.
        version: The last version of the stream, for the read of one.

    Attributes:
        version: The version of the stream that was read: what to expect of it in an append. 0 for a query.
    """

    def __init__(
        self,
        page: Page,
        first: int,
        last: int,
        limit: int | None,
        place: Callable[[RecordedEvent], int],
        *,
        backwards: bool,
        head: int,
        version: int = 0,
    ) -> None:
        self.version = version
        self._page = page
        self._first = first
        self._last = last
        self._left = limit
        self._limited = limit is not None
        self._place = place
        self._backwards = backwards
        self._head = head
        self._reached = first - 1
        self._ready: list[RecordedEvent] = []  # the next one last

    @property
    def head(self) -> int:
        """The position up to which the read has seen everything: where an append condition begins.

        That of a read with a limit is known once all of it was read, which this does.
        """
        if self._limited and not self._backwards:
            rest = list(self)
            self._ready = rest[::-1]
            if self._left == 0:
                return self._reached
        return self._head

    def __iter__(self) -> Iterator[RecordedEvent]:
        """Return the events."""
        return self

    def __next__(self) -> RecordedEvent:
        """Return the next event."""
        if not self._ready:
            self._ready = self._next_page()
            if not self._ready:
                raise StopIteration
        return self._ready.pop()

    def __repr__(self) -> str:
        """Return what is left to be read."""
        order = "backwards" if self._backwards else "forwards"
        return f"<Events {self._first} to {self._last}, {order}>"

    def _next_page(self) -> list[RecordedEvent]:
        wanted = PAGE if self._left is None else min(PAGE, self._left)
        if self._first > self._last or not wanted:
            return []
        found = self._page(self._first, self._last, wanted)
        if len(found) < wanted:
            self._first = self._last + 1
        elif self._backwards:
            self._last = self._place(found[-1]) - 1
        else:
            self._first = self._place(found[-1]) + 1
        if self._left is not None:
            self._left -= len(found)
        if found:
            self._reached = found[-1].position
        found.reverse()
        return found


def read_stream(
    store: Reader, stream: str, after: int, until: int | None, limit: int | None, *, backwards: bool
) -> Events:
    """Return the events of a stream whose versions are greater than `after` and at most `until`."""
    with store.event_index() as index:
        version, head = index.version(stream), index.head
    last = version if until is None else min(until, version)

    def page(first: int, last: int, count: int) -> list[RecordedEvent]:
        found: list[RecordedEvent] = []
        with store.event_index() as index:
            for batch in index.stream(stream, first, last, backwards=backwards):
                places = range(max(first - batch.version, 0), min(last - batch.version, len(batch.events) - 1) + 1)
                _take(found, batch, places, count, backwards=backwards)
                if len(found) == count:
                    break
        return found

    return Events(page, after + 1, last, limit, _version, backwards=backwards, head=head, version=version)


def read_query(
    store: Reader, query: Query, after: int, until: int | None, limit: int | None, *, backwards: bool
) -> Events:
    """Return the events that a query means whose positions are greater than `after` and at most `until`."""
    with store.event_index() as index:
        head = index.head
    last = head if until is None else min(until, head)

    def page(first: int, last: int, count: int) -> list[RecordedEvent]:
        return page_of(store, query, first, last, count, backwards=backwards)[0]

    return Events(page, after + 1, last, limit, _position, backwards=backwards, head=last)


def page_of(
    store: Reader, query: Query, first: int, last: int | None, count: int, *, backwards: bool = False
) -> tuple[list[RecordedEvent], int]:
    """Return some events that a query means, and the position of the newest event of the store.

    Args:
        store: The store.
        query: The query.
        first: The first position.
        last: The last position; None for the newest.
        count: The most events.
        backwards: Whether to begin at the end.
    """
    found: list[RecordedEvent] = []
    with store.event_index() as index:
        end = index.head if last is None else min(last, index.head)
        if not query.items:
            for batch in index.all(first, end, backwards=backwards):
                places = range(max(first - batch.position, 0), min(end - batch.position, len(batch.events) - 1) + 1)
                _take(found, batch, places, count, backwards=backwards)
                if len(found) == count:
                    break
        else:
            for batch, position in index.events(query.items, first, end, backwards=backwards):
                found.append(_own(batch.events[position - batch.position]))
                if len(found) == count:
                    break
        return found, index.head


def _take(found: list[RecordedEvent], batch: Batch, places: range, count: int, *, backwards: bool) -> None:
    """Add a batch's events at some places, as long as there are not too many."""
    if len(batch.events) == 1:
        found.append(_own(batch.events[0]))
        return
    wanted = count - len(found)
    chosen = places[::-1][:wanted] if backwards else places[:wanted]
    found += [_own(batch.events[place]) for place in chosen]


def _own(event: RecordedEvent) -> RecordedEvent:
    """Return an event for the caller alone: what is held in memory must not change with its metadata."""
    return structs.replace(event, metadata=deepcopy(event.metadata)) if event.metadata else event


def _version(event: RecordedEvent) -> int:
    return event.version


def _position(event: RecordedEvent) -> int:
    return event.position
