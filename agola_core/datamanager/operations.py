"""Operations on an open store other than reads and writes."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.format.control import read_control
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.open_store import OpenStore
from agola_core.datamanager.read.reader import Reader
from agola_core.datamanager.read.status import Counters, Status, store_counters, store_status, wal_status
from agola_core.datamanager.types import WalStatus
from agola_core.datamanager.validate import as_sequence, check_binary
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.lazy import LazyModule
from agola_core.runtime.progress import Progress, ignore
from agola_core.sequence import Sequence

if TYPE_CHECKING:
    from agola_core.datamanager.background import checkpoint as checkpoint_module
    from agola_core.datamanager.background import garbage_collector
    from agola_core.datamanager.check import data_files
    from agola_core.datamanager.read import past_store
    from agola_core.datamanager.transfer import importer
else:
    checkpoint_module = LazyModule("agola_core.datamanager.background.checkpoint")
    garbage_collector = LazyModule("agola_core.datamanager.background.garbage_collector")
    data_files = LazyModule("agola_core.datamanager.check.data_files")
    past_store = LazyModule("agola_core.datamanager.read.past_store")
    importer = LazyModule("agola_core.datamanager.transfer.importer")


class Operations(Reader):
    """The upkeep, the state and the import of a store that is open for writing (see `DataManager`).

    Attributes:
        coordinator: The store's coordinator.
        storage: The store's object storage.
    """

    coordinator: Coordinator
    storage: ObjectStorage
    _store: OpenStore
    _log: Log

    def start_background_tasks(self) -> None:
        """Start the loops that sync, checkpoint, clean up and collect garbage; harmless while they run."""
        self._store.check_open()
        self._store.tasks.start()

    def stop_background_tasks(self) -> None:
        """Sync what was committed and stop the loops, until `start_background_tasks`; the store stays open."""
        self._store.check_open()
        self._store.tasks.stop()

    def sync(self) -> Sequence:
        """Copy everything committed to storage now, and return the newest WAL in storage."""
        self._store.check_open()
        return self._store.tasks.syncer.sync()

    def checkpoint(self, force: bool = False) -> bool:
        """Make a checkpoint if one is due; return whether one was made or nothing was left to do.

        Args:
            force: Make one even if few changes wait, and wait for another process's to end first.
        """
        self._store.check_open()
        return self._store.tasks.checkpointer.checkpoint(force=force)

    def compact(self, progress: Progress = ignore) -> checkpoint_module.Compacted:
        """Make a checkpoint that rewrites the whole store, without deleted and replaced objects.

        Ordinary checkpoints do this bit by bit, when enough has changed; this one writes as much as the store holds.
        The old files stay as long as a retained checkpoint, a reader or the grace period needs them
        (`collect_garbage`).

        Args:
            progress: Told of the written entries and bytes; raising an error aborts the work.

        Raises:
            DeadlineError: Another process's checkpoint did not end.
            FencedError: The store was imported or recovered meanwhile; nothing was changed.
        """
        self._store.check_open()
        return self._store.tasks.checkpointer.compact(progress)

    def clean_up(self) -> int:
        """Delete from the coordinator what checkpoints made superfluous; return how many keys were deleted."""
        self._store.check_open()
        return self._store.tasks.wal_cleanup.clean_up()

    def collect_garbage(self, dry_run: bool = False) -> list[garbage_collector.Garbage]:
        """Delete objects in storage that nothing refers to; return them, each with the reason.

        Args:
            dry_run: Only return them.
        """
        self._store.check_open()
        return self._store.tasks.garbage_collector.collect(dry_run=dry_run)

    def verify(self) -> list[data_files.Finding]:
        """Read and check everything in the store; return what is wrong. Changes nothing.

        `agola_core.verify` checks a store that does not open.
        """
        from agola_core.datamanager.check.verify import verify_store  # noqa: PLC0415 - few use it

        self._store.check_open()
        with self._store.instance.pin(0):  # no collection deletes what is about to be read
            self._store.instance.publish()
            self._store.instance.wait_for_collection()
            return list(verify_store(self.coordinator, self.storage))

    def checkpoints(self) -> list[past_store.Checkpoint]:
        """Return the retained checkpoints, oldest first: `agola_core.open(at=...)` reads them.

        It reads the states between two of them, too.
        """
        from agola_core.datamanager.read.past_store import list_checkpoints  # noqa: PLC0415 - few use it

        self._store.check_open()
        return list_checkpoints(self.storage, read_control(self.coordinator))

    def wal_status(self, sequence: Sequence | str) -> WalStatus:
        """Return where a WAL is: in the coordinator alone, in storage too, or in a checkpoint.

        Args:
            sequence: A sequence, or its text, as tokens have it.

        Raises:
            NotFoundError: There is no such WAL yet.
            FencedError: It belongs to a history that a recovery or an import has ended.
        """
        self._store.check_open()
        return wal_status(self._log, as_sequence(sequence))

    def status(self) -> Status:
        """Return the state of the store."""
        self._store.check_open()
        return store_status(self._log, self._store.tasks.loops())

    def counters(self) -> Counters:
        """Return how far the store is, as this process knows it: nothing is asked for, so it may be called often."""
        return store_counters(self._log)

    def import_(
        self,
        file: IO[bytes],
        *,
        dry_run: bool = False,
        parts: importer.ImportParts | None = None,
        progress: Progress = ignore,
    ) -> importer.ImportResult:
        """Replace the whole content of the store by an export, native or Agola 0.2's, or change nothing.

        Afterwards the store is another lineage: older tokens, feeds and writers are refused.

        Args:
            file: A binary file, plain, gzip or zstd.
            dry_run: Only check it.
            parts: The caller's part in the import and its conditions. Without it, nobody else may have the store open.
            progress: Told of the entries and bytes; raising an error aborts the import, and changes nothing.

        Raises:
            BadRequestError: Something in the stream is wrong; nothing was changed.
            ConflictError: Another process has the store open, or imported at the same time.
            UnavailableError: A backend failed: nothing was changed, unless it was the last write, of the mark that the
                store was switched; then reads return what was imported.
        """
        from agola_core.datamanager.transfer.store_import import StoreImport  # noqa: PLC0415 - few use it

        self._store.check_open()
        check_binary(file, "read", "import_ reads")
        store_import = StoreImport(self._store)
        return (store_import.check if dry_run else store_import.run)(file, parts, progress)
