"""The destination of an import: an existing store or a new one."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import agola_core
from agola_cli.connect.store import QUIET, StoreOptions
from agola_cli.options.directories import default_data_dir
from agola_core import embedded, maintenance
from agola_core.address import StoreAddress
from agola_core.datamanager import DataManager, ImportResult, peek_header
from agola_core.errors import BadRequestError, ConflictError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.archive import transfer
from agola_core.runservice.archive.projection import DATA_TYPES, is_run_service
from agola_core.runtime.progress import Progress


class Destination:
    """Where an export is imported to.

    Args:
        store: What the options name; a directory that is not named is the default one.
    """

    def __init__(self, store: StoreOptions) -> None:
        elsewhere = store.data_dir is None and store.storage and store.coordinator
        directory = None if elsewhere else store.data_dir or default_data_dir(Path.cwd())
        self._address = StoreAddress(directory, store.storage, store.coordinator)

    def exists(self) -> bool:
        """Return whether there is a store already."""
        directory = self._address.directory
        return (directory is None or directory.exists()) and embedded.exists(self._address)

    @contextmanager
    def opened_storage(self, *, make: bool = True) -> Iterator[ObjectStorage]:
        """Open the object storage for the length of a block.

        Args:
            make: Create a missing store; otherwise it is read as an empty one.
        """
        with tempfile.TemporaryDirectory(prefix="agola-import-") as nothing:
            url = (
                str(Path(nothing, "storage")) if self._address.lacks_storage and not make else self._address.storage_url
            )
            with closing(agola_core.open_storage(url)) as opened:
                yield opened

    def check(self, stream: IO[bytes], progress: Progress) -> ImportResult:
        """Check an export against the existing store, or for a new one."""
        if self.exists():
            data_types, stream = _data_types(stream)
            with self._open(data_types) as store:
                return _import(store, stream, progress, dry_run=True)
        with tempfile.TemporaryDirectory(prefix="agola-import-") as directory:
            data_types, stream = _data_types(stream)
            with agola_core.open(directory, data_types=data_types, options=QUIET) as store:
                return _import(store, stream, progress, dry_run=True)

    def check_replaceable(self, stream: IO[bytes]) -> IO[bytes]:
        """Check that an export may replace the content of the existing store now; return what to read instead of it.

        Raises:
            BadRequestError: The export is another application's, or a run service's store is not in maintenance mode.
            ConflictError: The store is a run service's, and somebody else still uses it.
        """
        data_types, stream = _data_types(stream)
        with agola_core.open(self._address, options=QUIET) as store:
            _types_of_both(store.data_types, data_types)
            if is_run_service(store.data_types):
                maintenance.barrier(store.coordinator, store.options.instance)
        return stream

    def replace(self, stream: IO[bytes], progress: Progress) -> ImportResult:
        """Replace the content of the existing store."""
        data_types, stream = _data_types(stream)
        with self._open(data_types) as store:
            return _import(store, stream, progress)

    def create(self, stream: IO[bytes], progress: Progress) -> ImportResult:
        """Make a store of an export; when that fails, what was made in the directory is removed.

        What others wrote into the new store meanwhile stays.
        """
        data_types, stream = _data_types(stream)
        with (
            _removed_on_error(self._address.directory) as kept,
            agola_core.open(self._address, data_types=data_types, options=QUIET) as store,
            _noted_when_used(store, kept),
        ):
            if store.sequence.counter:
                raise ConflictError("a store was made here meanwhile: it is not replaced unasked; nothing was imported")
            if not is_run_service(data_types):
                return _import(store, stream, progress)
            was_on = maintenance.status(store.coordinator).enabled
            if not was_on:
                maintenance.enable(store.coordinator)  # nobody begins to serve meanwhile
            try:
                return _import(store, stream, progress)
            finally:
                if not was_on:
                    maintenance.disable(store.coordinator)

    @contextmanager
    def _open(self, data_types: tuple[str, ...]) -> Iterator[DataManager]:
        """Open the existing store, for an export with these types."""
        with agola_core.open(self._address, options=QUIET) as store:
            wanted = _types_of_both(store.data_types, data_types)
        with agola_core.open(self._address, data_types=wanted, options=QUIET) as store:
            yield store


def _types_of_both(stored: tuple[str, ...], exported: tuple[str, ...]) -> tuple[str, ...]:
    both = is_run_service(stored), is_run_service(exported)
    if both == (True, True):
        return stored
    if both == (False, False) and set(stored) & set(exported):
        return tuple(dict.fromkeys((*stored, *exported)))
    raise BadRequestError(
        f"the export holds {', '.join(exported)}, the store {', '.join(stored)}: they are of different "
        "applications; nothing was imported"
    )


def _import(store: DataManager, stream: IO[bytes], progress: Progress, *, dry_run: bool = False) -> ImportResult:
    if is_run_service(store.data_types):
        return transfer.import_(store, stream, dry_run=dry_run, progress=progress)
    return store.import_(stream, dry_run=dry_run, progress=progress)


def _data_types(stream: IO[bytes]) -> tuple[tuple[str, ...], IO[bytes]]:
    """Return the data types of an export, Agola's those of a run service, and the export."""
    named, stream = peek_header(stream)
    return named or DATA_TYPES, stream


@contextmanager
def _noted_when_used(store: DataManager, kept: threading.Event) -> Iterator[None]:
    """Set an event when a block fails on a new store that others have opened, or written to, meanwhile."""
    begun = store.status()
    try:
        yield
    except BaseException:
        kept.set()  # until it is known
        now = store.status()
        alone = set(now.instances) == set(begun.instances) and len(now.instances) == 1
        if alone and (now.lineage, now.sequence) == (begun.lineage, begun.sequence):
            kept.clear()
        raise


@contextmanager
def _removed_on_error(directory: Path | None) -> Iterator[threading.Event]:
    """Remove what a block made in a directory when it fails; what was there before stays.

    Yields:
        An event; when it is set, everything stays.
    """
    kept = threading.Event()
    made = directory is not None and not directory.exists()
    before = set(directory.iterdir()) if directory is not None and directory.exists() else set()
    try:
        yield kept
    except BaseException:
        if directory is not None and directory.exists() and not kept.is_set():
            for path in set(directory.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if made:
                directory.rmdir()
        raise
