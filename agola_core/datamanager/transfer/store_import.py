"""Imports an export into an open store: reads it into data files, then switches the store to a lineage of them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from datetime import datetime
from typing import IO

from agola_core.coordinator.port import Compare
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.control import require_control
from agola_core.datamanager.format.events import RESERVED
from agola_core.datamanager.identity.instance import Instance, list_instances
from agola_core.datamanager.identity.lineage import NewLineage, switch
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.sstable.manifest import Origin
from agola_core.datamanager.transfer.importer import Importer, ImportParts, ImportResult
from agola_core.datamanager.types import Options
from agola_core.errors import AgolaError, ConflictError
from agola_core.runtime.process import may_live
from agola_core.runtime.progress import Progress

_LOCK_SECONDS = 60.0


class StoreImport:
    """Replaces the whole content of an open store.

    Args:
        log: The store's log.
        instance: This process among the others.
        known_types: The types that the store accepts.
        options: The sizes of data files, and of the largest object.
        new_uuid: Makes ids of 32 hexadecimal digits.
        now: Returns the current time.
    """

    def __init__(
        self,
        log: Log,
        instance: Instance,
        known_types: frozenset[str],
        options: Options,
        new_uuid: Callable[[], str],
        now: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._instance = instance
        self._known_types = known_types
        self._options = options
        self._new_uuid = new_uuid
        self._now = now

    def check(self, file: IO[bytes], parts: ImportParts | None, progress: Progress) -> ImportResult:
        """Read an export to its end, and write nothing (see `DataManager.import_`)."""
        return self._importer(file, parts, progress).check()

    def run(self, file: IO[bytes], parts: ImportParts | None, progress: Progress) -> ImportResult:
        """Replace the store's content by an export, or change nothing (see `DataManager.import_`)."""
        check = parts.barrier if parts is not None else self._check_alone
        check()
        lineage = self._new_uuid()[:16]
        try:
            return self._run(file, parts, progress, check, lineage)
        except BaseException:
            if not self._may_have_switched(lineage) and parts is not None:
                parts.undo()
            raise

    def _importer(self, file: IO[bytes], parts: ImportParts | None, progress: Progress) -> Importer:
        return Importer(file, self._known_types | RESERVED, self._options, parts=parts, progress=progress)

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
        with self._instance.lock(keys.CHECKPOINT_LOCK, _LOCK_SECONDS) as lock:
            runs, result = importer.stage(self._log.storage, self._new_uuid)
            control = require_control(self._log.coordinator)
            new = NewLineage(
                store=control.lineage.store,
                epoch=control.lineage.epoch + 1,
                lineage=lineage,
                origin=Origin.IMPORT,
                number=control.checkpoint.number + 1,
                nonce=self._new_uuid()[:16],
                created=self._now(),
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
        self._instance.reads(self._log.view.manifest.number)
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
            if record.name != self._instance.name and may_live(record)
        ]
        if others:
            names = ", ".join(f"{record.name} (pid {record.pid} on {record.host})" for record in others)
            raise ConflictError(f"cannot import while others have the store open: {names}")
        return ()
