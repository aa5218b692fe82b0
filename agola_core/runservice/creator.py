"""Writes new runs: configuration and number in one WAL, then the run among the active ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from agola_core import faultpoints
from agola_core.coordinator.port import Compare
from agola_core.datamanager import DataManager, Put
from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.runservice import create, keys, layout
from agola_core.runservice.projection import RUN_CONFIG, RUN_COUNTER
from agola_core.runservice.requests import RunBundle, RunCreateRequest
from agola_core.runservice.store import RunStore, event_op, put_run
from agola_core.runservice.types import Run, RunConfig, TaskStatus

faultpoints.declare("create.before-reference", "create.before-run")

_CONFLICTS = 50
_encode = msgspec.json.Encoder().encode

Make = Callable[[str, int], RunBundle]


class RunCreator:
    """Makes runs.

    Args:
        datamanager: Keeps configurations and counters.
        store: Active runs.
        find_run: Returns a run, active or archived.
        read_config: Returns a run's configuration.
        now: The time.
        new_id: Makes task ids.
    """

    def __init__(
        self,
        datamanager: DataManager,
        store: RunStore,
        find_run: Callable[[str], Run | None],
        read_config: Callable[[str], RunConfig],
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._datamanager = datamanager
        self._store = store
        self._find_run = find_run
        self._read_config = read_config
        self._now = now
        self._new_id = new_id

    def create(self, request: RunCreateRequest) -> RunBundle:
        """Make a new run, or restart one (see `RunService.create_run`)."""
        if request.run_id:
            make, group = self._restart(request)
        else:
            make, group = self._new(request), request.group
        for _ in range(_CONFLICTS):
            bundle = self._write(make, create.counter_group(group))
            if bundle is not None:
                return bundle
        raise ConflictError("the run counter changes too fast")

    def _new(self, request: RunCreateRequest) -> Make:
        create.check_request(request)
        return lambda run_id, counter: create.new_run(request, run_id, counter, self._now())

    def _restart(self, request: RunCreateRequest) -> tuple[Make, str]:
        run = self._find_run(request.run_id)
        if run is None:
            raise BadRequestError(f'run "{request.run_id}" doesn\'t exist')
        old = RunBundle(run, self._read_config(run.id))
        refusal = create.restart_refusal(run, old.run_config, from_start=request.from_start)
        if refusal is not None:
            raise BadRequestError(f"run cannot be restarted: {refusal}")
        environment = request.environment or {}

        def make(run_id: str, counter: int) -> RunBundle:
            return create.restarted(
                old, run_id, counter, self._now(), self._new_id, from_start=request.from_start, environment=environment
            )

        return make, run.group

    def _write(self, make: Make, root: str) -> RunBundle | None:
        """Write a run with the next number; None when another run took it first."""
        token = self._datamanager.change_groups_token([f"counter-{root}"])
        counter = self._read_counter(root) + 1
        bundle = make(self._store.next_sequence(), counter)
        run = bundle.run
        try:
            self._datamanager.write_wal(
                [Put(RUN_CONFIG, run.id, _encode(bundle.run_config)), Put(RUN_COUNTER, root, str(counter).encode())],
                token,
            )
        except ConflictError:
            return None
        self._refer(run)
        event = event_op(run, self._store.next_sequence())
        faultpoints.reach("create.before-run")
        self._datamanager.coordinator.txn([Compare(keys.run(run.id), 0)], [put_run(run), event])
        return bundle

    def _refer(self, run: Run) -> None:
        """Hold on to the logs and archives of a restart's kept tasks, before the run is seen."""
        for task in run.tasks.values():
            if task.status is TaskStatus.SUCCESS:
                for path in (layout.logs_reference(task.id, run.id), layout.archives_reference(task.id, run.id)):
                    faultpoints.reach("create.before-reference")
                    self._datamanager.storage.write(path, b"")

    def _read_counter(self, root: str) -> int:
        try:
            return int(self._datamanager.read_object(RUN_COUNTER, root)[0])
        except NotFoundError:
            return 0
