"""The datamanager for asynchronous callers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar, overload

from agola_core.aio.iteration import AsyncItems, arriving
from agola_core.aio.threads import THREADS, Threads, in_thread
from agola_core.datamanager import DataManager, Event, ObjectChange
from agola_core.sequence import Sequence

D = TypeVar("D")


class AsyncDataManager:
    """A datamanager whose methods are awaited; see `DataManager` for what each does and raises.

    Args:
        store: An open datamanager, which stays its owner's to close.
        threads: The most calls at a time.

    Attributes:
        wrapped: The datamanager.
    """

    def __init__(self, store: DataManager, threads: int = THREADS) -> None:
        self.wrapped = store
        self.threads = Threads(threads)

    write_wal = in_thread(DataManager.write_wal)
    write_wals = in_thread(DataManager.write_wals)
    change_groups_token = in_thread(DataManager.change_groups_token)
    read_object = in_thread(DataManager.read_object)
    entry = in_thread(DataManager.entry)
    exists = in_thread(DataManager.exists)
    knows = in_thread(DataManager.knows)
    update = in_thread(DataManager.update)
    refresh = in_thread(DataManager.refresh)
    sync = in_thread(DataManager.sync)
    checkpoint = in_thread(DataManager.checkpoint)
    compact = in_thread(DataManager.compact)
    collect_garbage = in_thread(DataManager.collect_garbage)
    verify = in_thread(DataManager.verify)
    checkpoints = in_thread(DataManager.checkpoints)
    wal_status = in_thread(DataManager.wal_status)
    status = in_thread(DataManager.status)
    export = in_thread(DataManager.export)
    import_ = in_thread(DataManager.import_)

    @overload
    async def get(self, data_type: str, object_id: str) -> bytes | None: ...
    @overload
    async def get(self, data_type: str, object_id: str, default: D) -> bytes | D: ...
    async def get(self, data_type: str, object_id: str, default: D | None = None) -> bytes | D | None:
        """Return an object; the default when it does not exist."""
        return await self.threads.run(lambda: self.wrapped.get(data_type, object_id, default))

    def list_objects(
        self,
        data_type: str,
        start_after: str = "",
        limit: int | None = None,
        *,
        prefix: str = "",
        backwards: bool = False,
    ) -> AsyncItems[tuple[str, bytes]]:
        """Return the objects of a type by rising ids, or falling ones, as an asynchronous iterator."""
        found = self.wrapped.list_objects(data_type, start_after, limit, prefix=prefix, backwards=backwards)
        return AsyncItems(self.threads, found)

    def history(self, data_type: str = "", object_id: str = "") -> AsyncItems[ObjectChange]:
        """Return the changes that are kept, oldest first, as an asynchronous iterator."""
        return AsyncItems(self.threads, self.wrapped.history(data_type, object_id))

    def watch(self, after: Sequence | str | None = None) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Return the WALs after a sequence, those that are there and those to come: `async with` gives the iterator."""
        return arriving(self.wrapped.watch(after))

    def __repr__(self) -> str:
        """Return the name of the store."""
        return f"AsyncDataManager({self.wrapped!r})"
