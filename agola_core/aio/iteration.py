"""Asynchronous iteration over what the core reads: pages of what is there, and a stream of what is to come."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Generic, Protocol, Self, TypeVar

import anyio
from anyio import from_thread, to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from agola_core.aio.threads import Threads

_PAGE = 256
_Item = TypeVar("_Item")
_Item_co = TypeVar("_Item_co", covariant=True)


class AsyncItems(Generic[_Item]):
    """Items that are read a page at a time, in a worker thread. An asynchronous iterator for one task.

    Args:
        threads: Where they are read.
        items: The items, which may block.
    """

    def __init__(self, threads: Threads, items: Iterable[_Item]) -> None:
        self._threads = threads
        self._items = iter(items)
        self._ready: Iterator[_Item] = iter(())

    def __aiter__(self) -> Self:
        """Return the items."""
        return self

    async def __anext__(self) -> _Item:
        """Return the next item."""
        for item in self._ready:
            return item
        page = await self._threads.run(lambda: list(itertools.islice(self._items, _PAGE)))
        if not page:
            raise StopAsyncIteration
        self._ready = iter(page)
        return next(self._ready)

    async def to_list(self) -> list[_Item]:
        """Return all items that are left."""
        return [item async for item in self]


class Endless(Protocol[_Item_co]):
    """What the core returns for things to come: it waits for the next one until it is closed."""

    def __iter__(self) -> Iterator[_Item_co]: ...

    def close(self) -> None:
        """End the iteration, also while another thread waits in it."""


@asynccontextmanager
async def arriving(source: Endless[_Item]) -> AsyncIterator[AsyncIterator[_Item]]:
    """Give what a feed or a subscription returns as an asynchronous iterator, and close it in the end.

    Its thread is ahead by one item; then it waits for the reader. A reader that is cancelled while it waits loses
    nothing: the next one gets the item.

    Args:
        source: The feed or the subscription.
    """
    send, receive = anyio.create_memory_object_stream[_Item | _Failure](0)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_pump_in_thread, source, send)
            try:
                yield _Received(receive)
            finally:
                receive.close()
                with anyio.CancelScope(shield=True):  # whoever is cancelled closes the source nevertheless
                    await to_thread.run_sync(source.close, limiter=anyio.CapacityLimiter(1))
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.error = error


async def _pump_in_thread(source: Endless[_Item], send: MemoryObjectSendStream[_Item | _Failure]) -> None:
    def pump() -> None:
        try:
            for item in source:
                from_thread.run(send.send, item)
        except anyio.BrokenResourceError:
            pass  # the reader has gone
        except Exception as error:  # noqa: BLE001 - it is the reader's
            with suppress(anyio.BrokenResourceError):
                from_thread.run(send.send, _Failure(error))

    async with send:
        await to_thread.run_sync(pump, limiter=anyio.CapacityLimiter(1))  # one that waits takes nobody's turn


class _Received(Generic[_Item]):
    """What the thread sends; not a generator, which would end when its reader is cancelled."""

    def __init__(self, receive: MemoryObjectReceiveStream[_Item | _Failure]) -> None:
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        try:
            item = await self._receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError) as error:
            raise StopAsyncIteration from error
        if isinstance(item, _Failure):
            raise item.error
        return item
