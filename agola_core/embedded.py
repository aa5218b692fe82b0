"""Opens, verifies and repairs stores by address, and closes their backends with them."""

from __future__ import annotations

import builtins
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast, overload

import msgspec

from agola_core.address import GIVEN_STORAGE, StoreAddress
from agola_core.coordinator.factory import open_coordinator
from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.format.control import read_control
from agola_core.datamanager.format.lineages import read_store
from agola_core.datamanager.identity.instance import list_instances, pin_everything
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.types import Durability, Options, as_durability, as_options
from agola_core.datamanager.validate import check_data_types
from agola_core.errors import BadRequestError, ForbiddenError
from agola_core.objectstorage.counted import CountedStorage
from agola_core.objectstorage.factory import open_storage
from agola_core.objectstorage.port import ObjectStorage
from agola_core.objectstorage.read_only import ReadOnlyStorage
from agola_core.private import warn_when_open
from agola_core.runtime.lazy import LazyModule
from agola_core.runtime.processes.liveness import may_live
from agola_core.sequence import Sequence as Place

if TYPE_CHECKING:
    from agola_core.datamanager.check import data_files
    from agola_core.datamanager.check import repair as repair_module
    from agola_core.datamanager.read import past_store
else:
    data_files = LazyModule("agola_core.datamanager.check.data_files")
    repair_module = LazyModule("agola_core.datamanager.check.repair")
    past_store = LazyModule("agola_core.datamanager.read.past_store")

Where = str | os.PathLike[str] | StoreAddress | None
"""A directory, or a store's whole address."""


class _Borrowed:
    """A storage that its owner closes."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def close(self) -> None:
        """Do nothing."""


class OwnedDataManager(DataManager):
    """A datamanager that closes its backends with itself."""

    def close(self) -> None:
        """Close the datamanager and both backends."""
        super().close()
        if self._log.origin.is_here:
            self.coordinator.close()
            self.storage.close()


@overload
def open(  # noqa: A001
    path: Where = None,
    *,
    data_types: Sequence[str] | None = None,
    storage: str | ObjectStorage | None = None,
    coordinator: str | None = None,
    durability: Durability | str | None = None,
    options: Options | None = None,
    recover: bool = False,
    read_only: bool = False,
    at: None = None,
) -> DataManager: ...


@overload
def open(  # noqa: A001
    path: Where = None,
    *,
    data_types: Sequence[str] | None = None,
    storage: str | ObjectStorage | None = None,
    coordinator: str | None = None,
    options: Options | None = None,
    at: Place | datetime | str,
) -> past_store.PastStore: ...


def open(  # noqa: A001 - the public name, used as agola_core.open
    path: Where = None,
    *,
    data_types: Sequence[str] | None = None,
    storage: str | ObjectStorage | None = None,
    coordinator: str | None = None,
    durability: Durability | str | None = None,
    options: Options | None = None,
    recover: bool = False,
    read_only: bool = False,
    at: Place | datetime | str | None = None,
) -> DataManager | past_store.PastStore:
    """Open a store, creating it if it does not exist; or open its state at a moment in the past.

    A store records the types of its objects. It is created only if `data_types` is given, and it refuses an
    application that names none of its types, since that one must mean another store.

    Args:
        path: A directory: an embedded store of SQLite and files.
        data_types: The types of objects that the application stores; None for those of the store.
        storage: A storage URL, or an open storage (see `open_storage`), instead of the directory's storage. An open
            one stays open: its owner closes it, after the store.
        coordinator: A coordinator URL, instead of the directory's coordinator.
        durability: What `write_wal` waits for; None for the setting in the options.
        options: Behaviour of the datamanager.
        recover: Take the state of the storage even if the coordinator has a different one.
        read_only: Only read, for example on a read-only file system: nothing is created or written, no locks are
            taken, and every write raises `ForbiddenError`. If other processes write and collect garbage, files that
            they replace are kept only for their grace period (an hour).
        at: A moment in the past: the sequence of a WAL, or a time with a time zone, either also as text. The result
            is read-only, and a lost coordinator may be left out.

    Raises:
        BadRequestError: An argument is malformed, or the store has none of the data types.
        RecoveryError: The coordinator is behind the storage, or belongs to another store.
        CorruptionError: Stored data that must be read is damaged.
        CompactedError: The state at that moment is no longer kept.
        ForbiddenError: The store cannot be written to; open it with `read_only`.
        NotFoundError: There is no store, and it is not to be created.
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
    given = None if storage is None or isinstance(storage, str) else storage
    if given is not None and not hasattr(given, "open_reader"):
        raise BadRequestError(f"storage is a URL, or what `open_storage` gave, not {given!r}"[:200])
    url = storage if storage is None or isinstance(storage, str) else GIVEN_STORAGE
    address = StoreAddress.of(path, url, coordinator)
    chosen = as_options(options)
    if durability is not None:
        chosen = msgspec.structs.replace(chosen, durability=as_durability(durability))
    if at is not None:
        from agola_core.datamanager.read.past_store import parse_moment  # noqa: PLC0415 - few use it

        return _open_past(address, data_types, chosen, parse_moment(at), given)
    if recover and read_only:
        raise BadRequestError("recover=True writes: leave read_only out")
    if data_types is None or read_only:
        address.check_existing()
    if data_types is not None:
        check_data_types(data_types)  # before anything is created
    if not read_only and address.is_read_only():
        raise ForbiddenError(
            f"the store in {str(address.directory or '')!r} cannot be written to: read_only=True reads it"
        )
    backends = open_backends(address, read_only=read_only, storage=given)
    try:
        return OwnedDataManager(*backends, data_types, options=chosen, recover=recover, read_only=read_only)
    except builtins.BaseException:
        for backend in backends:
            backend.close()
        raise


def verify(
    path: Where = None,
    *,
    storage: str | None = None,
    coordinator: str | None = None,
    noted_by: str | None = None,
) -> list[data_files.Finding]:
    """Read and check everything in a store, even one that cannot be opened; return the problems found.

    Args:
        path: A directory: an embedded store.
        storage: A storage URL, instead of the directory's storage.
        coordinator: A coordinator URL, instead of the directory's coordinator.
        noted_by: Who verifies it: keep that, and what was found, in the store, where services and `status` tell it.
            By default nothing is written; nor is it if the store is read-only or its parts do not belong together.

    Raises:
        NotFoundError: There is no store.
        UnavailableError: A backend cannot be reached.
    """
    from agola_core.datamanager.check.last_verify import record_verify  # noqa: PLC0415 - few use it
    from agola_core.datamanager.check.verify import verify_store  # noqa: PLC0415 - few use it

    address = StoreAddress.of(path, storage, coordinator)
    address.check_existing()
    with _opened_backends(address) as (log, opened):
        if address.is_read_only():
            return list(verify_store(log, opened))
        counted, begun = CountedStorage(opened), time.monotonic()
        with closing(pin_everything(log, _name(Options()), Options().lock_ttl)):
            found = list(verify_store(log, counted))
        if noted_by is not None:
            record_verify(log, counted, found, noted_by, time.monotonic() - begun)
        return found


def repair(
    path: Where = None,
    *,
    storage: str | None = None,
    coordinator: str | None = None,
    options: Options | None = None,
) -> list[repair_module.Repair]:
    """Repair everything that can be repaired without data loss; return what was repaired and what was not.

    WALs that the coordinator still has are written to storage again, a damaged checkpoint is rebuilt from an
    older one and the WALs after it, and missing ownership markers of the storage are restored. Other processes may
    have the store open.

    Args:
        path: A directory: an embedded store.
        storage: A storage URL, instead of the directory's storage.
        coordinator: A coordinator URL, instead of the directory's coordinator.
        options: The sizes of data files.

    Raises:
        NotFoundError: There is no store.
        RecoveryError: The coordinator has lost the store, which must be recovered by opening it instead.
        ConflictError: Another process is making a checkpoint, importing or repairing.
        UnavailableError: A backend cannot be reached.
    """
    from agola_core.datamanager.check.repair import Repairer  # noqa: PLC0415 - few use it

    address = StoreAddress.of(path, storage, coordinator)
    address.check_existing()
    chosen = as_options(options)
    chosen = msgspec.structs.replace(chosen, instance=_name(chosen))
    with (
        _opened_backends(address, read_only=False) as (log, opened),
        closing(pin_everything(log, f"{chosen.instance}-repair", chosen.lock_ttl)),
    ):
        return Repairer(log, opened, chosen, lambda: uuid.uuid4().hex, lambda: datetime.now(UTC)).repair()


def exists(address: StoreAddress) -> bool:
    """Return whether there is a store, or what is left of one; creates nothing.

    Raises:
        UnavailableError: A backend cannot be reached.
    """
    if address.lacks_storage:
        return False
    with _opened_backends(address) as (log, opened):
        return read_control(log) is not None or read_store(opened) is not None


def users(address: StoreAddress) -> list[str]:
    """Return the processes that have a store open, with their machines; none for a store without a coordinator.

    Raises:
        UnavailableError: The coordinator cannot be reached.
    """
    url = address.known_coordinator
    if url is None:
        return []
    with closing(open_coordinator(url)) as coordinator:
        records = [record for record in list_instances(coordinator) if may_live(record)]
    return [f"{record.name} (pid {record.pid} on {record.host})" for record in records]


def open_backends(
    where: Where, *, read_only: bool = False, storage: ObjectStorage | None = None
) -> tuple[Coordinator, ObjectStorage]:
    """Open both parts of a store; the caller closes them.

    Args:
        where: The store's directory or address.
        read_only: Create nothing, and refuse every change.
        storage: The storage, if it is open already.

    Raises:
        BadRequestError: Part of the store is not specified, or its URL is invalid.
        UnavailableError: A backend cannot be reached.
    """
    address = StoreAddress.of(where)
    coordinator, directory = address.coordinator_url, address.directory
    if directory is not None:
        if directory.exists() and not directory.is_dir():
            raise BadRequestError(f"{str(directory)!r} is not a directory")
        warn_when_open(directory)
    opened = _storage(address, read_only, storage)
    try:
        return open_coordinator(coordinator, read_only=read_only), opened
    except builtins.BaseException:
        opened.close()
        raise


@contextmanager
def _opened_backends(
    address: StoreAddress, *, read_only: bool | None = None
) -> Iterator[tuple[Coordinator, ObjectStorage]]:
    """Open both parts of a store for the length of a block; read-only where it cannot be written to, by default."""
    backends = open_backends(address, read_only=address.is_read_only() if read_only is None else read_only)
    try:
        yield backends
    finally:
        for backend in backends:
            backend.close()


def _storage(address: StoreAddress, read_only: bool, given: ObjectStorage | None) -> ObjectStorage:
    if given is None:
        return open_storage(address.storage_url, read_only=read_only)
    borrowed = cast("ObjectStorage", _Borrowed(given))
    return ReadOnlyStorage(borrowed) if read_only else borrowed


def _open_past(
    address: StoreAddress,
    data_types: Sequence[str] | None,
    options: Options,
    at: past_store.Moment,
    given: ObjectStorage | None = None,
) -> past_store.PastStore:
    """Open a past state; creates nothing."""
    from agola_core.datamanager.read.owned_past_store import OwnedPastStore  # noqa: PLC0415 - few use it

    address.check_existing()
    read_only = address.is_read_only()
    storage, coordinator = _storage(address, read_only, given), None
    try:
        url = address.known_coordinator
        coordinator = None if url is None else open_coordinator(url, read_only=read_only)
        name, published = _name(options), not read_only
        return OwnedPastStore(
            coordinator, storage, data_types, at, name=name, ttl=options.lock_ttl, published=published
        )
    except builtins.BaseException:
        if coordinator is not None:
            coordinator.close()
        storage.close()
        raise


def _name(options: Options) -> str:
    return options.instance or f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
