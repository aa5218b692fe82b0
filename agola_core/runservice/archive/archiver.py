"""Moves finished runs from the active ones into the store: in one transaction, so they are never in both or none."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from agola_core.datamanager import CoordinatorOps, DataManager, Put
from agola_core.errors import ConflictError
from agola_core.runservice.archive.projection import RUN
from agola_core.runservice.state.run_record import delete_ops
from agola_core.runservice.state.store import RunStore, Stored
from agola_core.runtime import faultpoints

faultpoints.declare("archive.before-wal")

_encode = msgspec.json.Encoder().encode


class Archiver:
    """Archives runs.

    Args:
        datamanager: Where they go.
        store: Where they are.
        forget: Called with the id of each.
    """

    def __init__(self, datamanager: DataManager, store: RunStore, forget: Callable[[str], None]) -> None:
        self._datamanager = datamanager
        self._store = store
        self._forget = forget

    def archive(self, stored: Stored) -> None:
        """Archive a run whose logs and archives are all settled; not when it has changed since it was read."""
        run = stored.run
        coordinator_ops = CoordinatorOps(tuple(delete_ops(run)), tuple(self._store.run_compare(stored)))
        faultpoints.reach("archive.before-wal")
        try:
            put = Put(RUN, run.id, _encode(replace(run, archived=True)))
            self._datamanager.write_wal([put], coordinator_ops=coordinator_ops)
        except ConflictError:  # it changed or was archived by another service: its event brings it back
            return
        self._forget(run.id)
