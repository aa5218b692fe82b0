"""Deletes finished runs: the run first, then its hold on logs and archives, which go when nobody else needs them."""

from __future__ import annotations

from collections.abc import Callable

from agola_core.coordinator.port import Compare, Op
from agola_core.datamanager import CoordinatorOps, DataManager, Delete
from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.runservice.archive.projection import RUN, RUN_CONFIG
from agola_core.runservice.artifacts.releases import Releases
from agola_core.runservice.model.types import Run
from agola_core.runservice.state.run_record import delete_ops
from agola_core.runservice.state.store import RunStore
from agola_core.runtime import faultpoints

faultpoints.declare("delete.before-wal", "delete.before-release")

_CONFLICTS = 50


def run_group(run_id: str) -> str:
    """Return the change group that a run's deletion and its restarts name, so that one of them comes first.

    Raises:
        BadRequestError: No run has this id.
    """
    if "/" in run_id or len(run_id) > 100:
        raise BadRequestError(f'run "{run_id[:100]}" doesn\'t exist')
    return f"run-{run_id}"


class RunDeleter:
    """Deletes runs.

    Args:
        datamanager: Archived runs and configurations.
        store: Active runs.
        releases: What deleted runs let go of.
        find_archived: Returns an archived run.
        forget: Called with the id of each deleted run.
    """

    def __init__(
        self,
        datamanager: DataManager,
        store: RunStore,
        releases: Releases,
        find_archived: Callable[[str], Run | None],
        forget: Callable[[str], None],
    ) -> None:
        self._datamanager = datamanager
        self._store = store
        self._releases = releases
        self._find_archived = find_archived
        self._forget = forget

    def delete(self, run_id: str) -> None:
        """Delete a run (see `RunService.delete_run`)."""
        for _ in range(_CONFLICTS):
            try:
                self._delete(run_id)
            except ConflictError:  # it was restarted or archived meanwhile
                continue
            self._forget(run_id)
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
        run = stored.run if stored else self._find_archived(run_id)
        if run is None:
            raise NotFoundError(f'run "{run_id}" doesn\'t exist')
        if not run.phase.is_finished:
            raise BadRequestError(f'run "{run_id}" is not finished, phase: "{run.phase}"')
        ops: list[Op] = [self._releases.ending(run_id, run.tasks)]
        guards: list[Compare] = []
        if stored is not None:
            ops += delete_ops(run)
            guards = self._store.run_compare(stored)
        faultpoints.reach("delete.before-wal")
        actions = [Delete(RUN, run_id), Delete(RUN_CONFIG, run_id)]
        written = self._datamanager.write_wal(actions, token, coordinator_ops=CoordinatorOps(tuple(ops), tuple(guards)))
        self._store.written = max(self._store.written, written.revision)
