"""Imports an export into an open store: reads it into data files, then switches the store to a lineage of them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import IO

from agola_core.coordinator.port import Compare
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.control import require_control
from agola_core.datamanager.format.events import RESERVED
from agola_core.datamanager.identity.instance import list_instances
from agola_core.datamanager.identity.lineage import NewLineage, switch
from agola_core.datamanager.open_store import OpenStore
from agola_core.datamanager.sstable.manifest import Origin
from agola_core.datamanager.transfer.importer import Importer, ImportParts, ImportResult
from agola_core.errors import AgolaError, ConflictError
from agola_core.runtime.processes.liveness import may_live
from agola_core.runtime.progress import Progress

_LOCK_SECONDS = 60.0


class StoreImport:
    """Replaces the whole content of an open store."""

    def __init__(self, store: OpenStore) -> None:
        self._store = store
        self._log = store.log
        self._known_types = frozenset(store.data_types)

    def check(self, file: IO[bytes], parts: ImportParts | None, progress: Progress) -> ImportResult:
        """Read an export to its end, and write nothing (see `DataManager.import_`)."""
        return self._importer(file, parts, progress).check()

    def run(self, file: IO[bytes], parts: ImportParts | None, progress: Progress) -> ImportResult:
        """Replace the store's content by an export, or change nothing (see `DataManager.import_`)."""
        check = parts.barrier if parts is not None else self._check_alone
        check()
        lineage = self._store.new_uuid()[:16]
        try:
            return self._run(file, parts, progress, check, lineage)
        except BaseException:
            if not self._may_have_switched(lineage) and parts is not None:
                parts.undo()
            raise

    def _importer(self, file: IO[bytes], parts: ImportParts | None, progress: Progress) -> Importer:
        return Importer(file, self._known_types | RESERVED, self._store.options, parts=parts, progress=progress)

    def _run(
        self,
        file: IO[bytes],
        parts: ImportParts | None,
        progress: Progress,
        check: Callable[[], Items[Compare]],
        lineage: str,
    ) -> ImportResult:
        importer = self._importer(file, parts, progress)
        # However long the import takes, collectors that see the lock spare the data files that it has written.
        with self._store.instance.lock(keys.CHECKPOINT_LOCK, _LOCK_SECONDS) as lock:
            runs, result = importer.stage(self._log.storage, self._store.new_uuid)
            control = require_control(self._log.coordinator)
            new = NewLineage(
                store=control.lineage.store,
                epoch=control.lineage.epoch + 1,
                lineage=lineage,
                origin=Origin.IMPORT,
                number=control.checkpoint.number + 1,
                nonce=self._store.new_uuid()[:16],
                created=self._store.now(),
                data_types=tuple(sorted({*result.entries, *self._known_types})),
                runs=runs,
                imported=importer.imported,
            )
            switch(
                self._log.coordinator,
                self._log.storage,
                new,
                conditions=[Compare(keys.LINEAGE, control.lineage_revision), *check(), lock.fence],
                operations=parts.operations() if parts is not None else (),
                check=check,
            )
        self._log.catch_up()
        self._store.instance.reads(self._log.view.manifest.number)
        return result

    def _may_have_switched(self, lineage: str) -> bool:
        """Return whether a failed import may have taken effect all the same; from now on readers find out."""
        self._log.may_be_behind = True
        try:
            self._log.check_current()
        except AgolaError:
            return True
        return self._log.lineage.lineage == lineage

    def _check_alone(self) -> Items[Compare]:
        others = [
            record
            for record in list_instances(self._log.coordinator)
            if record.name != self._store.instance.name and may_live(record)
        ]
        if others:
            names = ", ".join(f"{record.name} (pid {record.pid} on {record.host})" for record in others)
            raise ConflictError(f"cannot import while others have the store open: {names}")
        return ()
