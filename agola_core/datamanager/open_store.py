"""An open store: its log, this process's instance and its maintenance tasks, opened and closed together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.background.maintenance_tasks import MaintenanceTasks
from agola_core.datamanager.format.control import require_control
from agola_core.datamanager.identity.instance import Instance
from agola_core.datamanager.identity.opening import StoreOpener
from agola_core.datamanager.identity.read_only_instance import ReadOnlyInstance
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.types import Options
from agola_core.datamanager.validate import check_data_types
from agola_core.errors import BadRequestError, ClosedError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.processes.forks import fork_safe


class OpenStore:
    """What one process holds of a store (see `DataManager` for the parameters and the errors).

    Attributes:
        options: The options, with the instance's name.
        data_types: The types that the store was opened with, or those that it has.
        clock: Seconds since 1970.
        new_uuid: Makes unique ids of 32 hexadecimal digits.
        log: The log.
        instance: This process among those that have the store open.
        tasks: The maintenance tasks.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        storage: ObjectStorage,
        data_types: Items[str] | None,
        options: Options,
        clock: Callable[[], float],
        new_uuid: Callable[[], str],
        *,
        recover: bool,
        read_only: bool,
    ) -> None:
        name = options.instance or f"{os.getpid()}-{new_uuid()[:12]}"
        self.options = options = msgspec.structs.replace(options, instance=name)
        self.new_uuid = new_uuid
        self.clock = clock
        self._closed = fork_safe(threading.Event())
        given = check_data_types(data_types) if data_types is not None else ()
        opener = StoreOpener(coordinator, storage, options, given, new_uuid, self.now)
        if read_only:
            opener.look()
        else:
            opener.prepare(recover=recover)
        cache = BlockCache()
        self.log = Log(coordinator, storage, cache)
        stored = self.log.view.data_types()
        self.data_types = given or tuple(stored)
        if not set(self.data_types).intersection(stored):
            self.log.close()
            raise BadRequestError(
                f"the store holds objects of the types {', '.join(stored)}, none of which is among "
                f"{', '.join(given)}: it belongs to another application; to add types, name those that it has, too"
            )
        self.instance = (
            ReadOnlyInstance(coordinator, name)
            if read_only
            else Instance(coordinator, name, options.lock_ttl, self.log.view.manifest.number)
        )
        self.tasks = MaintenanceTasks(self.log, self.instance, cache, options, new_uuid, self.now)
        try:
            # A collection may have deleted what was read before this instance was published.
            self.log.catch_up()
            self.instance.reads(self.log.view.manifest.number)
            if options.background and not read_only:
                self.tasks.start()
        except BaseException:  # nobody else would end the lease and the running loops
            self.close()
            raise

    def now(self) -> datetime:
        """Return the current time."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def check_open(self) -> None:
        """Raise `ClosedError` once the store was closed, `RecoveryError` while its coordinator cannot be followed."""
        log = self.log
        log.origin.check()
        if self._closed.is_set():
            raise ClosedError("the datamanager was closed")
        if log.lost is not None or log.may_be_behind:
            log.check_current()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed.is_set()

    @contextmanager
    def pinned_view(self) -> Iterator[View]:
        """Yield the newest view; garbage collection spares its files while the block runs."""
        self.check_open()
        while True:
            view = self.log.view
            with self.instance.pin(view.manifest.number):
                # If it is still the newest one, whoever publishes from now on that this instance moved on sees the pin.
                if self.log.view.manifest.number == view.manifest.number:
                    yield view
                    return

    @contextmanager
    def newest_view(self) -> Iterator[tuple[View, int]]:
        """Yield the newest state that the coordinator has, pinned, and the coordinator's revision of that state."""
        while True:
            self.check_open()
            control = require_control(self.log.coordinator)
            self.log.catch_up()
            with self.pinned_view() as view:
                if view.lineage == control.lineage and view.manifest.sequence <= control.head <= view.sequence:
                    yield view._replace(sequence=control.head, revision=control.head_revision), control.revision
                    return
            # A checkpoint or an import came in between.

    def close(self) -> None:
        """Stop the tasks, sync what was committed, and withdraw from the store. Closing twice is harmless."""
        if self._closed.is_set() or not self.log.origin.is_here:  # a forked child's copy belongs to the parent
            return
        self._closed.set()
        self.tasks.stop()
        self.log.close()
        self.instance.close()
