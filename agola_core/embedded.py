"""Opening a store by name: which backends, and who closes them."""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agola_core.coordinator.factory import open_coordinator
from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.types import Durability, Options
from agola_core.errors import BadRequestError
from agola_core.objectstorage.factory import open_storage
from agola_core.objectstorage.port import ObjectStorage

COORDINATOR_FILE = "coordinator.db"
STORAGE_DIRECTORY = "storage"


class OwnedDataManager(DataManager):
    """A datamanager that closes its backends with itself."""

    def close(self) -> None:
        """Close the datamanager and both backends."""
        super().close()
        self.coordinator.close()
        self.storage.close()


def open_backends(
    path: str | os.PathLike[str] | None = None, *, storage: str | None = None, coordinator: str | None = None
) -> tuple[Coordinator, ObjectStorage]:
    """Open the two halves of a store; the caller closes them.

    Args:
        path: A directory that holds both, embedded.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.

    Raises:
        BadRequestError: A half is named by nothing, or by a URL that is none.
        UnavailableError: A backend cannot be reached.
    """
    if path is None and (storage is None or coordinator is None):
        raise BadRequestError("name the store by a directory, or by both a storage and a coordinator")
    directory = Path(path) if path is not None else Path()
    if path is not None and directory.exists() and not directory.is_dir():
        raise BadRequestError(f"{str(directory)!r} is not a directory")
    opened = open_storage(storage or str(directory / STORAGE_DIRECTORY))
    try:
        return open_coordinator(coordinator or str(directory / COORDINATOR_FILE)), opened
    except builtins.BaseException:
        opened.close()
        raise


def open(  # noqa: A001 - the public name, used as agola_core.open
    path: str | os.PathLike[str] | None = None,
    *,
    data_types: Sequence[str],
    storage: str | None = None,
    coordinator: str | None = None,
    durability: Durability | str = Durability.COORDINATOR,
    options: Options | None = None,
    recover: bool = False,
) -> DataManager:
    """Open a store, and create it when it does not exist.

    Args:
        path: A directory: an embedded store, SQLite and files below it.
        data_types: The types of objects that the application stores.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
        durability: What `write_wal` waits for.
        options: How the datamanager behaves; `durability` goes over its own.
        recover: Take the state of the storage even though the coordinator has another.

    Raises:
        BadRequestError: An argument is malformed.
        RecoveryError: The coordinator is behind the storage, or belongs to another store.
        CorruptionError: Stored data that must be read is damaged.
        UnavailableError: A backend cannot be reached.

    Example:
        >>> import tempfile
        >>> from agola_core import Put
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with open(directory, data_types=["note"]) as dm:
        ...         token = dm.write_wal([Put("note", "n1", b"hello")])
        ...         dm.read_object("note", "n1")[0]
        b'hello'
    """
    try:
        level = Durability(durability)
    except ValueError as error:
        raise BadRequestError(f"durability {durability!r}: expected 'coordinator' or 'storage'") from error
    chosen = msgspec.structs.replace(options or Options(), durability=level)
    coordinator_backend, storage_backend = open_backends(path, storage=storage, coordinator=coordinator)
    try:
        return OwnedDataManager(coordinator_backend, storage_backend, data_types, options=chosen, recover=recover)
    except builtins.BaseException:
        coordinator_backend.close()
        storage_backend.close()
        raise
