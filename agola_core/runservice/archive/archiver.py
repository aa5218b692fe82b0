"""Moves finished runs from the coordinator into the store, in one transaction: never in both, never in neither."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from agola_core.datamanager import CoordinatorOps, DataManager, Put
from agola_core.errors import ConflictError
from agola_core.runservice.archive.projection import RUN
from agola_core.runservice.archive.queries import RunQueries
from agola_core.runservice.state.run_record import delete_ops
from agola_core.runservice.state.store import RunStore, StoredRun
from agola_core.runtime import faultpoints

faultpoints.declare("archive.before-wal")

_encode = msgspec.json.Encoder().encode


class Archiver:
    """Archives runs."""

    def __init__(self, datamanager: DataManager, store: RunStore, queries: RunQueries) -> None:
        self._datamanager = datamanager
        self._store = store
        self._queries = queries

    def archive(self, stored: StoredRun) -> None:
        """Archive a run whose logs and archives are all in storage or lost, unless it has changed since."""
        run = stored.run
        coordinator_ops = CoordinatorOps(tuple(delete_ops(run)), tuple(self._store.run_compare(stored)))
        faultpoints.reach("archive.before-wal")
        try:
            put = Put(RUN, run.id, _encode(replace(run, archived=True)))
            self._datamanager.write_wal([put], coordinator_ops=coordinator_ops)
        except ConflictError:  # it was changed or archived by another service: its event queues it again
            return
        self._queries.forget_config(run.id)
