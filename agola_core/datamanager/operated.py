"""What is done to an open store besides reading and writing it: upkeep, status, checks, import."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO

from agola_core.coordinator.port import Compare, Coordinator
from agola_core.datamanager.background.gc import Garbage
from agola_core.datamanager.background.maintenance_tasks import Upkeep
from agola_core.datamanager.check.data_files import Finding
from agola_core.datamanager.check.verify import verify_store
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.control import read_control
from agola_core.datamanager.identity.instance import Instance, list_instances
from agola_core.datamanager.identity.lineage import switch
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.read.past_store import Checkpoint, list_checkpoints
from agola_core.datamanager.read.reader import Reader
from agola_core.datamanager.read.snapshot import Compacted, Status
from agola_core.datamanager.sstable.manifest import Origin
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.transfer.export import Export, ExportParts
from agola_core.datamanager.transfer.export_format import ExportFormat
from agola_core.datamanager.transfer.importer import Importer, ImportParts, ImportResult
from agola_core.datamanager.types import Options, WalStatus
from agola_core.errors import AgolaError, ClosedError, ConflictError, FencedError, NotFoundError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.process import may_live
from agola_core.runtime.progress import Progress, ignore
from agola_core.sequence import Sequence

_IMPORT_LOCK_SECONDS = 60.0


class OperatedStore(Reader):
    """The part of a datamanager that operators and their tools use; `DataManager` makes it."""

    coordinator: Coordinator
    storage: ObjectStorage
    options: Options
    _known_types: frozenset[str]
    _clock: Callable[[], float]
    _new_uuid: Callable[[], str]
    _closed: threading.Event
    _log: Log
    _instance: Instance
    _upkeep: Upkeep
    _may_be_behind: bool = False  # an import's outcome is not known: look before anything else is done

    # Upkeep

    def start_upkeep(self) -> None:
        """Start the loops that sync, checkpoint, clean and collect; harmless while they run."""
        self._check_open()
        self._upkeep.start()

    def stop_upkeep(self) -> None:
        """Sync what was committed and stop the loops, until `start_upkeep`; the store stays open."""
        self._check_open()
        self._upkeep.stop()

    def sync(self) -> Sequence:
        """Copy what was committed to storage now, and return the newest WAL that storage has."""
        self._check_open()
        return self._upkeep.sync()

    def checkpoint(self, force: bool = False) -> bool:
        """Make a checkpoint when one is due; return whether one was made or nothing was left to do.

        Args:
            force: Make one even when few changes wait, and wait for another process's to end first.
        """
        self._check_open()
        return self._upkeep.checkpoint(force=force)

    def compact(self, progress: Progress = ignore) -> Compacted:
        """Make a checkpoint that writes the whole store anew, without what is deleted or replaced.

        Checkpoints do so bit by bit when enough has changed; this does it now, and writes as much as the store holds.
        The old files stay as long as a retained checkpoint, a reader or the grace period needs them
        (`collect_garbage`).

        Args:
            progress: Told of the entries and bytes that were written; what it raises gives the work up.

        Raises:
            DeadlineError: Another process's checkpoint did not end.
            FencedError: The store was imported or recovered meanwhile; nothing was changed.
        """
        self._check_open()
        before = self._log.view.manifest.files()
        self._upkeep.compact(progress)
        after = self._log.view.manifest.files()
        return Compacted(len(before), sum(ref.size for ref in before), len(after), sum(ref.size for ref in after))

    def clean(self) -> int:
        """Remove from the coordinator what checkpoints made superfluous; return how many keys went."""
        self._check_open()
        return self._upkeep.cleaner.clean()

    def collect_garbage(self, dry_run: bool = False) -> list[Garbage]:
        """Delete objects in storage that nothing refers to; return them with the reason of each.

        Args:
            dry_run: Only return them.
        """
        self._check_open()
        return self._upkeep.collector.collect(dry_run=dry_run)

    def verify(self) -> list[Finding]:
        """Read and check everything that the store has; return what does not hold. Changes nothing.

        A store that does not open is verified by `agola_core.verify`.
        """
        self._check_open()
        with self._instance.pin(0):  # no collection takes away what is about to be read
            self._instance.publish()
            self._instance.wait_for_collection()
            return list(verify_store(self.coordinator, self.storage))

    def checkpoints(self) -> list[Checkpoint]:
        """Return the states that the store retains, oldest first: what `agola_core.open(at=...)` can read.

        The states between two of them can be read, too.
        """
        self._check_open()
        return list_checkpoints(self.storage, read_control(self.coordinator))

    def wal_status(self, sequence: Sequence | str) -> WalStatus:
        """Return where a WAL stands: in the coordinator alone, in storage too, or in a checkpoint.

        Args:
            sequence: A sequence, or its text as tokens have it.

        Raises:
            NotFoundError: There is no such WAL yet.
            FencedError: It is of a history that a recovery or an import has ended.
        """
        self._check_open()
        wanted = Sequence.parse(sequence) if isinstance(sequence, str) else sequence
        if wanted > self._log.synced:
            self._log.catch_up()
        view = self._log.view
        if wanted.epoch < view.lineage.epoch:
            raise FencedError(
                f"{wanted} is of another epoch than {view.lineage.epoch}: the store was recovered or imported"
            )
        if wanted > view.sequence or not wanted.counter:
            raise NotFoundError(f"there is no WAL {wanted}; the newest is {view.sequence}")
        if wanted <= view.manifest.sequence:
            return WalStatus.CHECKPOINTED
        return WalStatus.COMMITTED_STORAGE if wanted <= self._log.synced else WalStatus.COMMITTED

    def status(self) -> Status:
        """Return the state of the store."""
        self._check_open()
        self._log.catch_up()
        view = self._log.view
        return Status(
            store=view.lineage.store,
            lineage=view.lineage.lineage,
            epoch=view.lineage.epoch,
            sequence=str(view.sequence),
            synced=str(self._log.synced),
            checkpointed=view.manifest.position,
            manifest=view.manifest.number,
            data_files=len(view.manifest.files()),
            data_bytes=sum(ref.size for ref in view.manifest.files()),
            uncheckpointed_wals=view.sequence.counter - view.manifest.sequence.counter,
            uncheckpointed_bytes=view.memtable.size,
            instances=tuple(record.name for record in list_instances(self.coordinator)),
            loops=self._upkeep.loops(),
        )

    # Import

    def import_(
        self,
        file: IO[bytes],
        *,
        dry_run: bool = False,
        parts: ImportParts | None = None,
        progress: Progress = ignore,
    ) -> ImportResult:
        """Replace the whole content of the store by an export, native or Agola 0.2's, or change nothing.

        Afterwards the store is another lineage: older tokens, feeds and writers are refused.

        Args:
            file: A binary file, plain, gzip or zstd.
            dry_run: Only check it.
            parts: What whoever stands on the datamanager takes of it, and under which conditions. Without it,
                nobody else may have the store open.
            progress: Told of entries and bytes; what it raises gives the import up, and changes nothing.

        Raises:
            BadRequestError: Anything in the stream does not hold; nothing was changed.
            ConflictError: Another process has the store open, or imported at the same time.
            UnavailableError: A backend failed: nothing was changed, unless it was the last write, of the mark that the
                store was switched; then what is read is what was imported.
        """
        self._check_open()
        if dry_run:
            return Importer(file, self._known_types, self.options, parts=parts, progress=progress).check()
        check = parts.barrier if parts is not None else self._check_alone
        check()
        lineage = self._new_uuid()[:16]
        try:
            return self._import(file, parts, progress, check, lineage)
        except BaseException:
            if not self._may_have_switched(lineage) and parts is not None:
                parts.undo()
            raise

    def _may_have_switched(self, lineage: str) -> bool:
        """Return whether an import that failed may be made all the same; then what is read from now on says so."""
        self._may_be_behind = True
        try:
            self._check_open()
        except AgolaError:
            return True
        return self._log.lineage.lineage == lineage

    def _import(
        self,
        file: IO[bytes],
        parts: ImportParts | None,
        progress: Progress,
        check: Callable[[], Items[Compare]],
        lineage: str,
    ) -> ImportResult:
        importer = Importer(file, self._known_types, self.options, parts=parts, progress=progress)
        # The lock keeps collections, however long the import takes, from the data files that it has written.
        with self._instance.lock(keys.CHECKPOINT_LOCK, _IMPORT_LOCK_SECONDS) as lock:
            runs, result = importer.stage(self.storage, self._new_uuid)
            control = read_control(self.coordinator)
            if control is None:
                raise RecoveryError("the coordinator was emptied: recover the store from its storage")
            switch(
                self.coordinator,
                self.storage,
                store=control.lineage.store,
                epoch=control.lineage.epoch + 1,
                lineage=lineage,
                origin=Origin.IMPORT,
                data_types=sorted({*result.entries, *self.data_types}),
                runs=runs,
                number=control.checkpoint.number + 1,
                now=self._now(),
                nonce=self._new_uuid()[:16],
                seen=control.lineage_revision,
                imported=importer.imported,
                fences=[*check(), lock.fence],
                operations=parts.operations() if parts is not None else (),
                check=check,
            )
        self._log.catch_up()
        self._instance.reads(self._log.view.manifest.number)
        return result

    # Helpers

    def _check_alone(self) -> Items[Compare]:
        others = [
            record
            for record in list_instances(self.coordinator)
            if record.name != self._instance.name and may_live(record)
        ]
        if others:
            names = ", ".join(f"{record.name} (pid {record.pid} on {record.host})" for record in others)
            raise ConflictError(f"cannot import while others have the store open: {names}")
        return ()

    @contextmanager
    def _pinned_view(self) -> Iterator[View]:
        self._check_open()
        while True:
            view = self._log.view
            with self._instance.pin(view.manifest.number):
                # Still the newest one: whoever publishes from now on that this instance went on sees the pin.
                if self._log.view.manifest.number == view.manifest.number:
                    yield view
                    return

    @contextmanager
    def _exported(self, form: ExportFormat, parts: ExportParts | None, progress: Progress) -> Iterator[Export]:
        """Yield an export of the newest state that the coordinator has, at one of its revisions."""
        while True:
            self._check_open()
            control = read_control(self.coordinator)
            if control is None:
                raise RecoveryError("the coordinator was emptied: recover the store from its storage")
            self._log.catch_up()
            with self._pinned_view() as view:
                if view.lineage == control.lineage and view.manifest.sequence <= control.head <= view.sequence:
                    state = view._replace(sequence=control.head, revision=control.head_revision)
                    yield Export(state, control.revision, self.data_types, form, parts=parts, progress=progress)
                    return
            # A checkpoint or an import came in between.

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _check_open(self) -> None:
        self._log.origin.check()
        if self._closed.is_set():
            raise ClosedError("the datamanager was closed")
        if self._log.lost is not None:
            self._log.check_followed()
        if self._may_be_behind:
            self._log.catch_up()
            self._may_be_behind = False
