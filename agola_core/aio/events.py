"""The event store for asynchronous callers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

from agola_core.aio.iteration import AsyncItems, arriving
from agola_core.aio.threads import THREADS, Threads, in_thread
from agola_core.errors import BadRequestError
from agola_core.events import Consumer, Events, EventStore, Query, RecordedEvent

_EVERYTHING = Query()


class AsyncEvents(AsyncItems[RecordedEvent]):
    """Events that were asked for, read as they are iterated. An asynchronous iterator for one task.

    Attributes:
        version: The version of the stream that was read; 0 for a query.
    """

    def __init__(self, threads: Threads, events: Events) -> None:
        super().__init__(threads, events)
        self._events = events
        self.version = events.version

    async def head(self) -> int:
        """Return the position up to which the read has seen everything: where an append condition begins."""
        return await self._threads.run(lambda: self._events.head)


class AsyncConsumer:
    """The events that a reader of a group is given (`AsyncEventStore.consume`). An asynchronous iterator for one task.

    Attributes:
        wrapped: The consumer, for `append(..., by=events.wrapped)`.
    """

    def __init__(self, threads: Threads, consumer: Consumer, events: AsyncIterator[RecordedEvent]) -> None:
        self.wrapped = consumer
        self._threads = threads
        self._events = events
        self._last: RecordedEvent | None = None

    def __aiter__(self) -> Self:
        """Return the events."""
        return self

    async def __anext__(self) -> RecordedEvent:
        """Return the next event, once it is this reader's turn.

        Raises:
            FencedError: The turn was lost, or the store was imported or recovered.
        """
        self._last = await anext(self._events)
        return self._last

    async def ack(self, event: RecordedEvent | None = None) -> None:
        """Note in the store that the group has dealt with everything up to an event; None for the last one returned.

        Raises:
            BadRequestError: None was returned yet, or `event` is none.
            FencedError: The turn was lost.
        """
        event = self._last if event is None else event
        if event is None:
            raise BadRequestError("there is nothing to acknowledge: no event was returned yet")
        await self._threads.run(lambda: self.wrapped.ack(event))


class AsyncEventStore:
    """An event store whose methods are awaited; see `EventStore` for what each does and raises.

    Args:
        store: An event store, which stays its owner's to close.
        threads: The most calls at a time.

    Attributes:
        wrapped: The event store.
    """

    def __init__(self, store: EventStore, threads: int = THREADS) -> None:
        self.wrapped = store
        self.threads = Threads(threads)

    append = in_thread(EventStore.append)
    append_all = in_thread(EventStore.append_all)
    version = in_thread(EventStore.version)
    find = in_thread(EventStore.find)
    mark = in_thread(EventStore.mark)
    marked = in_thread(EventStore.marked)

    async def head(self) -> int:
        """Return the position of the newest event that this process knows; 0 for none."""
        return await self.threads.run(lambda: self.wrapped.head)

    async def read_stream(
        self,
        stream: str,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncEvents:
        """Return the events of a stream, none for one that is not there."""
        events = await self.threads.run(
            lambda: self.wrapped.read_stream(stream, after=after, until=until, limit=limit, backwards=backwards)
        )
        return AsyncEvents(self.threads, events)

    async def read(
        self,
        query: Query = _EVERYTHING,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncEvents:
        """Return the events that a query means, in the order of their positions."""
        events = await self.threads.run(
            lambda: self.wrapped.read(query, after=after, until=until, limit=limit, backwards=backwards)
        )
        return AsyncEvents(self.threads, events)

    def subscribe(
        self, query: Query = _EVERYTHING, after: int | None = None, *, name: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[RecordedEvent]]:
        """Return the events after a position, those that are there and those to come: `async with` gives the iterator.

        Without `after` and `name` it begins at the newest event (see `EventStore.subscribe`).
        A named reader notes its position with the events that it writes (`EventStore.mark`), for the iterator is ahead
        of the reader by one event.
        """
        return arriving(self.wrapped.subscribe(query, after, name=name))

    @asynccontextmanager
    async def consume(self, name: str, query: Query = _EVERYTHING) -> AsyncGenerator[AsyncConsumer]:
        """Return a reader of a group: of all with its name, in all processes, one at a time is given events.

        `async with` gives the iterator; leaving it ends the reader's turn, and another reader of the group goes on from
        what was acknowledged.

        Args:
            name: The group's.
            query: The query; all events by default.
        """
        consumer = self.wrapped.consume(name, query)
        async with arriving(consumer) as events:
            yield AsyncConsumer(self.threads, consumer, events)
