"""Opens a store: creates it, recovers it from its storage, or checks that coordinator and storage belong together.

If the coordinator is empty, the storage decides: an empty one makes a new store; otherwise the store is recovered from
the newest manifest of its newest lineage and the WALs after it. If neither is empty, the storage must not be ahead: a
coordinator that was restored from an older backup is refused until somebody asks for a recovery.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from datetime import datetime
from typing import NamedTuple

from agola_core.coordinator.lock import try_lock
from agola_core.coordinator.port import Compare, Coordinator
from agola_core.datamanager.format import keys, layout
from agola_core.datamanager.format.batches import list_batches, read_chain
from agola_core.datamanager.format.control import RECOVERY_ADVICE, Control, read_control
from agola_core.datamanager.format.lineages import StoredLineage, mark_active, read_store, stored_lineages
from agola_core.datamanager.identity.binding import check_binding, read_binding, write_binding
from agola_core.datamanager.identity.idempotency_keys import InheritedKeys
from agola_core.datamanager.identity.lineage import NewLineage, switch
from agola_core.datamanager.identity.manifest_history import newest_first, stored_manifests
from agola_core.datamanager.sstable.compaction import Compactor, Flushed
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.manifest import Manifest, Origin, Run
from agola_core.datamanager.sstable.table import missing_files
from agola_core.datamanager.types import Options
from agola_core.errors import (
    ConflictError,
    CorruptionError,
    FencedError,
    NotFoundError,
    RecoveryError,
    UnavailableError,
)
from agola_core.objectstorage.port import ObjectStorage

logger = logging.getLogger(__name__)

_OPEN_SECONDS = 60.0
_OPEN_TRIES = 5


class _Found(NamedTuple):
    """What an open store's storage records already.

    Attributes:
        bound: Which coordinator the lineage is in.
        marked: Which store it belongs to, and that its lineage was switched to.
    """

    bound: bool
    marked: bool


class StoreOpener:
    """Brings a store into a state in which its log can be opened.

    Args:
        coordinator: The store's coordinator.
        storage: The store's object storage.
        options: The sizes of data files.
        data_types: The types of a new store; none if no store may be created.
        new_uuid: Makes ids of 32 hexadecimal digits.
        now: Returns the current time.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        storage: ObjectStorage,
        options: Options,
        data_types: Items[str],
        new_uuid: Callable[[], str],
        now: Callable[[], datetime],
    ) -> None:
        self._coordinator = coordinator
        self._storage = storage
        self._options = options
        self._data_types = tuple(data_types)
        self._new_uuid = new_uuid
        self._now = now

    def look(self) -> None:
        """Check the store without writing anything.

        Raises:
            NotFoundError: There is no store, or it must be recovered first.
            RecoveryError: The coordinator is behind the storage, or belongs to another store.
        """
        control = read_control(self._coordinator)
        if control is None:
            raise NotFoundError(
                "the coordinator holds no store: read what is in storage with at=, or open it where it can be written"
            )
        self._check(control)

    def prepare(self, *, recover: bool = False) -> None:
        """Create, recover or check the store; only one process at a time creates or recovers it.

        Args:
            recover: Take the state of the storage even though the coordinator has another.

        Raises:
            NotFoundError: There is no store, and none may be created.
            RecoveryError: The coordinator is behind the storage, or belongs to another store.
            CorruptionError: Stored data that must be read is damaged.
            UnavailableError: Another process takes too long to prepare the store, or a backend refuses each
                attempt of this one.
        """
        deadline = time.monotonic() + _OPEN_SECONDS
        tries = 0
        while True:
            control = read_control(self._coordinator)
            if control is not None and not recover:
                found = self._check(control)
                if not found.marked:
                    mark_active(self._storage, control.lineage)
                if not found.bound:
                    write_binding(self._coordinator, self._storage, control)
                return
            lock = try_lock(
                self._coordinator,
                keys.INITIALISE_LOCK,
                owner=self._options.instance,
                ttl=self._options.lock_ttl,
            )
            if lock is None:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"another process has been opening the store for {_OPEN_SECONDS:.0f} s")
                threading.Event().wait(0.05)
                continue
            with lock:
                control = read_control(self._coordinator)
                try:
                    if control is None or recover:
                        self._begin(control, lock.fence, lock.check)
                        recover = False
                except (ConflictError, FencedError) as error:
                    if recover:
                        raise
                    # After a long pause of this process, another one did it: open the result. If nobody did, the
                    # storage refuses what this process asks of it.
                    tries += 1
                    if tries == _OPEN_TRIES:
                        raise UnavailableError(
                            f"the store could not be begun or recovered in {_OPEN_TRIES} attempts: {error}"
                        ) from error
                    logger.warning("the lock was lost while the store was opened; trying again", exc_info=True)

    def _begin(self, control: Control | None, fence: Compare, check: Callable[[], None]) -> None:
        store = read_store(self._storage)
        lineages = stored_lineages(self._storage)
        epoch = max([control.lineage.epoch if control else 0, *(stored.epoch for stored in lineages)]) + 1
        active = [stored for stored in lineages if stored.active]
        lineage = self._new_uuid()[:16]
        conditions = [Compare(keys.LINEAGE, control.lineage_revision if control else 0), fence]
        if store is None or not active:
            if control is not None:
                raise RecoveryError("the storage holds no store to recover")
            if not self._data_types:
                raise NotFoundError("there is no store")
            runs: tuple[Run, ...] = ()
            number, data_types, origin = 1, self._data_types, Origin.CREATE
        else:
            manifest = self._newest_manifest(active[-1])
            inherited = InheritedKeys(self._storage, active[-1], lineage, self._options.retain_wal_ids)
            flushed = self._flush(active[-1], manifest, inherited, check)
            inherited.look_back(manifest.sequence)
            root = layout.lineage_root(epoch, lineage)
            inherited.write(self._coordinator, root, conditions, check)
            runs, data_types = flushed.runs, flushed.data_types
            number, origin = manifest.number + 1, Origin.RECOVERY
        new = NewLineage(
            store=store.store if store else self._new_uuid(),
            epoch=epoch,
            lineage=lineage,
            origin=origin,
            number=number,
            nonce=self._new_uuid()[:16],
            created=self._now(),
            data_types=data_types,
            runs=runs,
        )
        switch(self._coordinator, self._storage, new, conditions=conditions, check=check)

    def _newest_manifest(self, lineage: StoredLineage) -> Manifest:
        """Return the newest intact manifest of a lineage.

        Skip a damaged one, and one that was never published and lost its files: the WALs after an older manifest
        give the same state, and a gap in them is an error.
        """
        for stored, manifest in newest_first(self._storage, stored_manifests(self._storage, [lineage])):
            if isinstance(manifest, CorruptionError):
                logger.warning("recovery skips a damaged manifest: %s", manifest)
                continue
            try:
                missing = missing_files(self._storage, manifest.runs)
            except CorruptionError as error:
                logger.warning("recovery skips manifest %s: %s", stored.path, error)
                continue
            if not missing:
                return manifest
            logger.warning("recovery skips manifest %s: %s is missing", stored.path, missing[0])
        raise CorruptionError("no manifest of the newest lineage is whole", path=layout.manifests(lineage.root))

    def _flush(
        self, lineage: StoredLineage, manifest: Manifest, inherited: InheritedKeys, check: Callable[[], None]
    ) -> Flushed:
        """Return the manifest's content with the WALs that storage has after it, flushed part by part."""
        compactor = Compactor(self._storage, BlockCache(), self._options, self._new_uuid)
        wals = inherited.collect(read_chain(self._storage, lineage.root, manifest.sequence))
        flushed = compactor.flush_wals(manifest, wals, check)
        logger.info("recovery: manifest=%d up to %s lineage=%s", manifest.number, flushed.reached, lineage.lineage)
        return flushed

    def _check(self, control: Control) -> _Found:
        """Raise `RecoveryError` if the storage shows that the coordinator does not have the newest state."""
        store = read_store(self._storage)
        if store is not None and store.store != control.lineage.store:
            raise RecoveryError(
                f"the storage belongs to store {store.store}, the coordinator to {control.lineage.store}: "
                "they were mixed up; open each with its own"
            )
        advice = f"the coordinator is older than the storage (a restored backup?); {RECOVERY_ADVICE}"
        # Others may be writing: the coordinator is read after the storage, which is never ahead of it by itself.
        lineages = stored_lineages(self._storage)
        root = control.lineage.root
        batches = list_batches(self._storage, root, control.head)
        binding = read_binding(self._storage, root)
        control = read_control(self._coordinator) or control
        for lineage in lineages:
            if lineage.active and lineage.epoch > control.lineage.epoch:
                raise RecoveryError(
                    f"storage has epoch {lineage.epoch}, the coordinator {control.lineage.epoch}: {advice}"
                )
            if lineage.active and lineage.epoch == control.lineage.epoch and lineage.lineage != control.lineage.lineage:
                raise RecoveryError(
                    f"storage has lineage {lineage.lineage}, the coordinator {control.lineage.lineage} of the same "
                    f"epoch: two coordinators have taken this storage; open the store with the right one, or "
                    + RECOVERY_ADVICE
                )
        if batches and max(last for _, last, _ in batches) > control.head:
            raise RecoveryError(f"storage has WALs after {control.head}, the coordinator's newest: {advice}")
        if binding is not None:
            check_binding(self._coordinator, control, binding)
        marked = store is not None and any(lineage.active and lineage.root == root for lineage in lineages)
        return _Found(binding is not None, marked)
