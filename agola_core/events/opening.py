"""Opens a store for its events, or its events of a moment in the past."""

from __future__ import annotations

import os
from collections.abc import Sequence as Items
from datetime import datetime

from agola_core.datamanager.format.events import EVENTS
from agola_core.datamanager.types import Durability, Options
from agola_core.embedded import open as open_store
from agola_core.errors import BadRequestError, NotFoundError
from agola_core.events.store import EventStore
from agola_core.objectstorage.port import ObjectStorage
from agola_core.sequence import Sequence


class OwnedEventStore(EventStore):
    """An event store that closes its datamanager with itself."""

    def close(self) -> None:
        """Close the store."""
        super().close()
        self.store.close()


def open_events(
    path: str | os.PathLike[str] | None = None,
    *,
    data_types: Items[str] | None = None,
    storage: str | ObjectStorage | None = None,
    coordinator: str | None = None,
    durability: Durability | str | None = None,
    options: Options | None = None,
    recover: bool = False,
    at: Sequence | datetime | str | None = None,
) -> EventStore:
    """Open a store for its events, and create it when it does not exist; or open its events of a moment in the past.

    Args:
        path: A directory: an embedded store, SQLite and files below it.
        data_types: The types of objects that are stored beside the events (`along`); None for those of the store.
        storage: A storage URL, or an open storage, instead of the directory's storage.
        coordinator: A coordinator URL, instead of the directory's coordinator.
        durability: What an append waits for; None for what the options say.
        options: How the datamanager behaves.
        recover: Take the state of the storage even though the coordinator has another.
        at: A moment in the past, as for `agola_core.open`: the events up to it, to be read only.

    Raises:
        BadRequestError: As for `agola_core.open`, and so all other errors.
    """

    def opened(types: Items[str] | None) -> EventStore:
        return OwnedEventStore(
            open_store(
                path,
                data_types=types,
                storage=storage,
                coordinator=coordinator,
                durability=durability,
                options=options,
                recover=recover,
            )
        )

    if at is not None:
        past = open_store(path, data_types=data_types, storage=storage, coordinator=coordinator, options=options, at=at)
        return OwnedEventStore(past)
    if isinstance(data_types, str):
        raise BadRequestError(f"data_types must be a list of data types, not {data_types!r}")
    if data_types is not None:
        return opened([*data_types, EVENTS])
    try:
        return opened(None)
    except NotFoundError:
        return opened([EVENTS])
