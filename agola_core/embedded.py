"""Opening a store by name: which backends, and who closes them."""

from __future__ import annotations

import builtins
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import overload

import msgspec

from agola_core.coordinator.factory import open_coordinator
from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.check.data_files import Finding
from agola_core.datamanager.check.repair import Repair, Repairer
from agola_core.datamanager.check.verify import verify_store
from agola_core.datamanager.format.control import read_control
from agola_core.datamanager.format.lineages import read_store
from agola_core.datamanager.identity.instance import list_instances, pin_everything
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.read.past_store import Moment, PastStore, parse_moment
from agola_core.datamanager.types import Durability, Options, as_durability
from agola_core.datamanager.validate import check_data_types
from agola_core.errors import BadRequestError, ForbiddenError, NotFoundError
from agola_core.locations import check_directory
from agola_core.objectstorage.factory import open_storage
from agola_core.objectstorage.port import ObjectStorage
from agola_core.private import warn_when_open
from agola_core.runtime.process import may_live
from agola_core.sequence import Sequence as Place

COORDINATOR_FILE = "coordinator.db"
STORAGE_DIRECTORY = "storage"


class OwnedDataManager(DataManager):
    """A datamanager that closes its backends with itself."""

    def close(self) -> None:
        """Close the datamanager and both backends."""
        super().close()
        if not self._log.origin.is_here:
            return
        self.coordinator.close()
        self.storage.close()


def open_backends(
    path: str | os.PathLike[str] | None = None,
    *,
    storage: str | None = None,
    coordinator: str | None = None,
    read_only: bool = False,
) -> tuple[Coordinator, ObjectStorage]:
    """Open the two halves of a store; the caller closes them.

    Args:
        path: A directory that holds both, embedded.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
        read_only: Whether they are only read: then nothing is made, and what would change them is refused.

    Raises:
        BadRequestError: A half is named by nothing, or by a URL that is none.
        UnavailableError: A backend cannot be reached.
    """
    if path is None and (storage is None or coordinator is None):
        raise BadRequestError("name the store by a directory, or by both a storage and a coordinator")
    directory = check_directory(path, "path") if path is not None else Path()
    if path is not None and directory.exists() and not directory.is_dir():
        raise BadRequestError(f"{str(directory)!r} is not a directory")
    if path is not None:
        warn_when_open(directory)
    opened = open_storage(storage or str(directory / STORAGE_DIRECTORY), read_only=read_only)
    try:
        return open_coordinator(coordinator or str(directory / COORDINATOR_FILE), read_only=read_only), opened
    except builtins.BaseException:
        opened.close()
        raise


@overload
def open(  # noqa: A001
    path: str | os.PathLike[str] | None = None,
    *,
    data_types: Sequence[str] | None = None,
    storage: str | None = None,
    coordinator: str | None = None,
    durability: Durability | str | None = None,
    options: Options | None = None,
    recover: bool = False,
    read_only: bool = False,
    at: None = None,
) -> DataManager: ...


@overload
def open(  # noqa: A001
    path: str | os.PathLike[str] | None = None,
    *,
    data_types: Sequence[str] | None = None,
    storage: str | None = None,
    coordinator: str | None = None,
    options: Options | None = None,
    at: Place | datetime | str,
) -> PastStore: ...


def open(  # noqa: A001 - the public name, used as agola_core.open
    path: str | os.PathLike[str] | None = None,
    *,
    data_types: Sequence[str] | None = None,
    storage: str | None = None,
    coordinator: str | None = None,
    durability: Durability | str | None = None,
    options: Options | None = None,
    recover: bool = False,
    read_only: bool = False,
    at: Place | datetime | str | None = None,
) -> DataManager | PastStore:
    """Open a store, and create it when it does not exist; or read one as it stood at a moment.

    A store knows the types of its objects. It is created only when `data_types` names them, and it refuses an
    application that names none of those that it has, since that one meant another store.

    Args:
        path: A directory: an embedded store, SQLite and files below it.
        data_types: The types of objects that the application stores; None for those that the store has.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
        durability: What `write_wal` waits for; None for what the options say.
        options: How the datamanager behaves.
        recover: Take the state of the storage even though the coordinator has another.
        read_only: Only read what is there, such as on a read-only file system: nothing is made or written, no lock is
            taken, and whatever would write raises `ForbiddenError`. Where others write and collect, files that they
            replaced are kept for their grace period (an hour) alone.
        at: A past moment: the sequence of a WAL, or a time with a zone, either also as text. What is opened is
            then read only, and writes nothing; a lost coordinator may be left out.

    Raises:
        BadRequestError: An argument is malformed, or the store has objects of other types alone.
        RecoveryError: The coordinator is behind the storage, or belongs to another store.
        CorruptionError: Stored data that must be read is damaged.
        CompactedError: The state at that moment is no longer kept.
        ForbiddenError: It cannot be written to; `read_only` reads it.
        NotFoundError: There is no store, and `data_types` or `at` asked for one that is there.
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
    chosen = options or Options()
    if durability is not None:
        chosen = msgspec.structs.replace(chosen, durability=as_durability(durability))
    if at is not None:
        return _open_past(path, storage, coordinator, data_types, chosen, parse_moment(at))
    if recover and read_only:
        raise BadRequestError("recover=True writes: leave read_only out")
    if data_types is None or read_only:
        _check_existing(path, storage)
    if data_types is not None:
        check_data_types(data_types)  # before anything is made
    if not read_only and is_read_only(path, storage=storage, coordinator=coordinator):
        raise ForbiddenError(f"the store in {os.fspath(path or '')!r} cannot be written to: read_only=True reads it")
    backends = open_backends(path, storage=storage, coordinator=coordinator, read_only=read_only)
    coordinator_backend, storage_backend = backends
    try:
        return OwnedDataManager(*backends, data_types, options=chosen, recover=recover, read_only=read_only)
    except builtins.BaseException:
        coordinator_backend.close()
        storage_backend.close()
        raise


class _OwnedPastStore(PastStore):
    """A past store that closes its backends with itself."""

    def __init__(
        self,
        coordinator: Coordinator | None,
        storage: ObjectStorage,
        data_types: Sequence[str] | None,
        options: Options,
        at: Moment,
        *,
        published: bool,
    ) -> None:
        self._owned = [backend for backend in (coordinator, storage) if backend is not None]
        name = _name(options)
        super().__init__(coordinator, storage, data_types, at, name=name, ttl=options.lock_ttl, published=published)

    def close(self) -> None:
        """Close the past store and its backends."""
        super().close()
        for backend in self._owned:
            backend.close()


def verify(
    path: str | os.PathLike[str] | None = None, *, storage: str | None = None, coordinator: str | None = None
) -> list[Finding]:
    """Read and check everything that a store has, also of one that does not open; return what does not hold.

    Args:
        path: A directory: an embedded store.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.

    Raises:
        NotFoundError: There is no store.
        UnavailableError: A backend cannot be reached.
    """
    if is_read_only(path, storage=storage, coordinator=coordinator):
        with _existing(path, storage, coordinator, read_only=True) as (log, opened):
            return list(verify_store(log, opened))
    with _existing(path, storage, coordinator) as (log, opened):
        instance = pin_everything(log, _name(Options()), Options().lock_ttl)
        try:
            return list(verify_store(log, opened))
        finally:
            instance.close()


def repair(
    path: str | os.PathLike[str] | None = None,
    *,
    storage: str | None = None,
    coordinator: str | None = None,
    options: Options | None = None,
) -> list[Repair]:
    """Repair what of a store can be repaired without losing anything; return what was done, and what was not.

    WALs that the coordinator still has are written to storage again, a damaged checkpoint is rebuilt from an
    older one and the WALs after it, and lost marks of whose storage it is are written again. Others may have the
    store open.

    Args:
        path: A directory: an embedded store.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
        options: The sizes of data files.

    Raises:
        NotFoundError: There is no store.
        RecoveryError: The coordinator has lost the store: it must be recovered by opening it instead.
        ConflictError: Another process makes a checkpoint, imports or repairs.
        UnavailableError: A backend cannot be reached.
    """
    chosen = options or Options()
    named = msgspec.structs.replace(chosen, instance=_name(chosen))
    with _existing(path, storage, coordinator) as (log, opened):
        instance = pin_everything(log, f"{named.instance}-repair", named.lock_ttl)
        try:
            return Repairer(log, opened, named, lambda: uuid.uuid4().hex, lambda: datetime.now(UTC)).repair()
        finally:
            instance.close()


@contextmanager
def _existing(
    path: str | os.PathLike[str] | None, storage: str | None, coordinator: str | None, *, read_only: bool = False
) -> Iterator[tuple[Coordinator, ObjectStorage]]:
    """Open the halves of a store that is there; create nothing in a directory that has none."""
    _check_existing(path, storage)
    log, opened = open_backends(path, storage=storage, coordinator=coordinator, read_only=read_only)
    try:
        yield log, opened
    finally:
        log.close()
        opened.close()


def exists(
    path: str | os.PathLike[str] | None = None, *, storage: str | None = None, coordinator: str | None = None
) -> bool:
    """Return whether there is a store, or what is left of one; makes none.

    Args:
        path: A directory: an embedded store.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.

    Raises:
        UnavailableError: A backend cannot be reached.
    """
    if path is not None and storage is None and not (Path(path) / STORAGE_DIRECTORY).is_dir():
        return False
    read_only = is_read_only(path, storage=storage, coordinator=coordinator)
    log, opened = open_backends(path, storage=storage, coordinator=coordinator, read_only=read_only)
    try:
        return read_control(log) is not None or read_store(opened) is not None
    finally:
        log.close()
        opened.close()


def is_read_only(
    path: str | os.PathLike[str] | None = None, *, storage: str | None = None, coordinator: str | None = None
) -> bool:
    """Return whether a store is there that this process can read, and not write to: what its files and their place say.

    Args:
        path: A directory: an embedded store.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
    """
    places = [_local(storage, "posix://", "posixflat://"), _local(coordinator, "sqlite://")]
    if path is not None:
        places += [Path(path) / STORAGE_DIRECTORY] if storage is None else []
        places += [Path(path), Path(path) / COORDINATOR_FILE] if coordinator is None else []
    return any(place.exists() and not os.access(place, os.W_OK) for place in places if place is not None)


def _local(url: str | None, *schemes: str) -> Path | None:
    """Return where a URL's backend lies on this machine; None for one elsewhere."""
    if url is None or ("://" in url and not url.startswith(schemes)):
        return None
    return Path(url.partition("://")[2] or url)


def users(
    path: str | os.PathLike[str] | None = None, *, storage: str | None = None, coordinator: str | None = None
) -> list[str]:
    """Return who has a store open, each with its process and machine; nobody for a store without a coordinator.

    Args:
        path: A directory: an embedded store.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.

    Raises:
        UnavailableError: The coordinator cannot be reached.
    """
    if coordinator is None and (path is None or not (Path(path) / COORDINATOR_FILE).is_file()):
        return []
    log, opened = open_backends(path, storage=storage, coordinator=coordinator)
    try:
        records = [record for record in list_instances(log) if may_live(record)]
        return [f"{record.name} (pid {record.pid} on {record.host})" for record in records]
    finally:
        log.close()
        opened.close()


def _check_existing(path: str | os.PathLike[str] | None, storage: str | None) -> None:
    """Refuse a directory that has no store, before anything is made in it."""
    if path is not None and storage is None and not (check_directory(path, "path") / STORAGE_DIRECTORY).is_dir():
        raise NotFoundError(f"there is no store in {os.fspath(path)!r}; to make one, name its data_types")


def _name(options: Options) -> str:
    return options.instance or f"{os.getpid()}-{uuid.uuid4().hex[:12]}"


def _open_past(
    path: str | os.PathLike[str] | None,
    storage: str | None,
    coordinator: str | None,
    data_types: Sequence[str] | None,
    options: Options,
    at: Moment,
) -> PastStore:
    """Open what is there, and create nothing."""
    _check_existing(path, storage)
    directory = check_directory(path, "path") if path is not None else Path()
    if path is not None:
        if coordinator is None and (directory / COORDINATOR_FILE).is_file():
            coordinator = str(directory / COORDINATOR_FILE)
        storage = storage or str(directory / STORAGE_DIRECTORY)
    if storage is None:
        raise BadRequestError("name the store by a directory, or by its storage")
    read_only = is_read_only(path, storage=storage, coordinator=coordinator)
    opened = open_storage(storage, read_only=read_only)
    log = None
    try:
        log = open_coordinator(coordinator, read_only=read_only) if coordinator is not None else None
        return _OwnedPastStore(log, opened, data_types, options, at, published=not read_only)
    except builtins.BaseException:
        if log is not None:
            log.close()
        opened.close()
        raise
