"""Deletes finished runs: first the run, then its references to logs and archives, which go with the last reference."""

from __future__ import annotations

from agola_core.coordinator.port import Compare, Op
from agola_core.datamanager import CoordinatorOps, DataManager, Delete
from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.runservice.archive.projection import RUN, RUN_CONFIG
from agola_core.runservice.archive.queries import RunQueries
from agola_core.runservice.artifacts.releases import Releases
from agola_core.runservice.state.run_record import delete_ops
from agola_core.runservice.state.secrets import SecretStore
from agola_core.runservice.state.store import RunStore
from agola_core.runtime import faultpoints

faultpoints.declare("delete.before-wal", "delete.before-release")

_CONFLICTS = 50


def run_group(run_id: str) -> str:
    """Return the change group that a run's deletion and restarts share, so that one of them comes first.

    Raises:
        BadRequestError: No run has this id.
    """
    if "/" in run_id or len(run_id) > 100:
        raise BadRequestError(f'run "{run_id[:100]}" doesn\'t exist')
    return f"run-{run_id}"


class RunDeleter:
    """Deletes runs."""

    def __init__(
        self,
        datamanager: DataManager,
        store: RunStore,
        releases: Releases,
        queries: RunQueries,
        secrets: SecretStore,
    ) -> None:
        self._datamanager = datamanager
        self._store = store
        self._releases = releases
        self._queries = queries
        self._secrets = secrets

    def delete(self, run_id: str) -> None:
        """Delete a run (see `RunService.delete_run`)."""
        for _ in range(_CONFLICTS):
            try:
                self._delete(run_id)
            except ConflictError:  # it was restarted or archived meanwhile
                continue
            self._queries.forget_config(run_id)
            self._secrets.delete(run_id)
            faultpoints.reach("delete.before-release")
            self._releases.carry_out(run_id)
            return
        raise ConflictError(f'run "{run_id}" changes too fast')

    def _delete(self, run_id: str) -> None:
        try:
            group = run_group(run_id)
        except BadRequestError as error:
            raise NotFoundError(str(error)) from None
        token = self._datamanager.change_groups_token([group])
        stored = self._store.find_run(run_id)
        run = stored.run if stored else self._queries.find_archived(run_id)
        if run is None:
            raise NotFoundError(f'run "{run_id}" doesn\'t exist')
        if not run.phase.is_finished:
            raise BadRequestError(f'run "{run_id}" is not finished, phase: "{run.phase}"')
        ops: list[Op] = [self._releases.op(run_id, run.tasks)]
        guards: list[Compare] = []
        if stored is not None:
            ops += delete_ops(run)
            guards = self._store.run_compare(stored)
        faultpoints.reach("delete.before-wal")
        actions = [Delete(RUN, run_id), Delete(RUN_CONFIG, run_id)]
        written = self._datamanager.write_wal(actions, token, coordinator_ops=CoordinatorOps(tuple(ops), tuple(guards)))
        self._store.note_written(written.revision)
