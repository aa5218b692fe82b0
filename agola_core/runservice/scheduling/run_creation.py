"""Creates and restarts runs: configuration, number, active run and event are written in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple
from zlib import crc32

import msgspec

from agola_core.coordinator.port import Compare, DeleteOp, Op
from agola_core.datamanager import ChangeGroupsToken, CoordinatorOps, DataManager, Put
from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.runservice.archive.deletion import run_group
from agola_core.runservice.archive.projection import RUN_CONFIG, RUN_COUNTER
from agola_core.runservice.archive.queries import RunQueries
from agola_core.runservice.artifacts.references import refer
from agola_core.runservice.artifacts.releases import Releases
from agola_core.runservice.model.requests import RunBundle, RunCreateRequest
from agola_core.runservice.model.types import TaskStatus
from agola_core.runservice.rules import new_run
from agola_core.runservice.state.run_record import run_ops
from agola_core.runservice.state.run_state import RunState
from agola_core.runservice.state.secrets import SecretStore, checked
from agola_core.runservice.state.store import event_op
from agola_core.runtime import faultpoints
from agola_core.runtime.processes.forks import fork_safe

faultpoints.declare("create.before-commit")

_CONFLICTS = 100
_LOCKS = 64
_encode = msgspec.json.Encoder().encode

Make = Callable[[str, int], RunBundle]


class _Draft(NamedTuple):
    """A run about to be written: its factory, its root group, the change group of the restarted run, its secrets."""

    make: Make
    root: str
    source: str | None
    secrets: tuple[str, ...]
    new_tasks: tuple[str, ...] = ()  # that no other run may have


class RunCreator:
    """Creates runs."""

    def __init__(
        self,
        datamanager: DataManager,
        state: RunState,
        releases: Releases,
        queries: RunQueries,
        secrets: SecretStore,
        new_id: Callable[[], str],
    ) -> None:
        self._datamanager = datamanager
        self._store = state.store
        self._releases = releases
        self._queries = queries
        self._secrets = secrets
        self._now = state.now
        self._new_id = new_id
        self._locks = [fork_safe(Lock()) for _ in range(_LOCKS)]
        self._claims_lock = fork_safe(Lock())
        self._claims: set[str] = set()

    def create(self, request: RunCreateRequest) -> RunBundle:
        """Create a run, or restart one (see `RunService.create_run`)."""
        source = run_group(request.run_id) if request.run_id else None
        for _ in range(_CONFLICTS):
            seen = self._datamanager.change_groups_token([source] if source else [])
            draft = self._restart(request, source) if source else self._new(request)
            with (
                self._claimed(draft.new_tasks),
                self._locks[crc32(draft.root.encode()) % _LOCKS],  # threads of one process do not race for a number
            ):
                bundle = self._write(draft, seen, request.change_groups_update_tokens)
            if bundle is not None:
                return bundle
        raise ConflictError("the run counter changes too fast")

    def _new(self, request: RunCreateRequest) -> _Draft:
        new_run.check_request(request)
        root, values = new_run.counter_group(request.group), checked(request.secrets or ())

        def make(run_id: str, counter: int) -> RunBundle:
            return new_run.new_run(request, run_id, counter, self._now())

        return _Draft(make, root, None, values, tuple(request.run_config_tasks or ()))

    @contextmanager
    def _claimed(self, task_ids: Collection[str]) -> Iterator[None]:
        """Keep other threads from creating a run with the same task ids in the block.

        Raises:
            ConflictError: Another thread is creating such a run.
        """
        with self._claims_lock:
            for task_id in task_ids:
                if task_id in self._claims:
                    raise ConflictError(f"task id {task_id!r} is being used by another new run")
            self._claims.update(task_ids)
        try:
            yield
        finally:
            with self._claims_lock:
                self._claims.difference_update(task_ids)

    def _check_unused(self, task_ids: Collection[str], place: ChangeGroupsToken) -> None:
        """Refuse used task ids: logs and archives, which belong to task ids, would be another task's.

        Raises:
            ConflictError: One of them was used.
        """
        if task_ids:
            for task_id, run_id in self._queries.used_tasks(task_ids, place).items():
                raise ConflictError(f"task id {task_id!r} was used before, by run {run_id!r}: a task id is used once")

    def _restart(self, request: RunCreateRequest, source: str) -> _Draft:
        try:
            definition = self._secrets.find(request.run_id)
        except (NotFoundError, BadRequestError):  # from None: clients see the innermost error
            raise BadRequestError(f'runconfig "{request.run_id}" doesn\'t exist') from None
        config = definition.config
        run = self._queries.find(request.run_id)
        if run is None:
            raise BadRequestError(f'run "{request.run_id}" doesn\'t exist')
        old = RunBundle(run, config)
        refusal = new_run.restart_refusal(run, config, from_start=request.from_start)
        if refusal is not None:
            raise BadRequestError(f"run cannot be restarted: {refusal}")
        environment = request.environment or {}

        def make(run_id: str, counter: int) -> RunBundle:
            return new_run.restarted(
                old, run_id, counter, self._now(), self._new_id, from_start=request.from_start, environment=environment
            )

        values = checked((*definition.values, *(request.secrets or ())))
        return _Draft(make, new_run.counter_group(run.group), source, values)

    def _write(self, draft: _Draft, seen: ChangeGroupsToken, asked: str) -> RunBundle | None:
        """Write a run with the next number; return None, to try again, if something has changed meanwhile."""
        guards, ops = self._store.groups.guards(asked)
        counted = self._datamanager.change_groups_token([f"counter-{draft.root}"])
        token = msgspec.structs.replace(seen, groups={**seen.groups, **counted.groups})
        self._check_unused(draft.new_tasks, counted)
        counter = self._read_counter(draft.root) + 1
        bundle = draft.make(self._store.next_id(), counter)
        bundle = RunBundle(bundle.run, self._secrets.write(bundle.run_config, draft.secrets))
        run = bundle.run
        kept = [task for task in run.tasks.values() if task.status is TaskStatus.SUCCESS]
        if kept:
            noted = self._releases.note(run.id, [task.id for task in kept])
            guards = [*guards, noted]
            ops = [*ops, DeleteOp(noted.key)]
            for task in kept:
                refer(self._datamanager.storage, task, run.id)
        try:
            self._commit(bundle, draft.root, token, guards, ops)
        except ConflictError:
            if draft.secrets:
                self._secrets.delete(run.id)
            if kept:
                self._releases.carry_out(run.id)
            self._store.groups.check(asked)
            return None
        return bundle

    def _commit(
        self, bundle: RunBundle, root: str, token: ChangeGroupsToken, guards: list[Compare], ops: list[Op]
    ) -> None:
        run = bundle.run
        actions = [
            Put(RUN_CONFIG, run.id, _encode(bundle.run_config)),
            Put(RUN_COUNTER, root, str(run.counter).encode()),
        ]
        coordinator_ops = CoordinatorOps((*run_ops(run), event_op(run), *ops), tuple(guards))
        faultpoints.reach("create.before-commit")
        written = self._datamanager.write_wal(actions, token, coordinator_ops=coordinator_ops)
        self._store.note_written(written.revision)

    def _read_counter(self, root: str) -> int:
        try:
            return int(self._datamanager.read_object(RUN_COUNTER, root)[0])
        except NotFoundError:
            return 0
