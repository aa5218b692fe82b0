"""The run service: what clients, executors and adapters call."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec.structs import replace

from agola_core import faultpoints
from agola_core.context import Context
from agola_core.coordinator.lock import LeaseKeeper
from agola_core.coordinator.port import PutOp, iterate
from agola_core.datamanager import DataManager, Put
from agola_core.errors import BadRequestError, NotFoundError
from agola_core.readdb import ReadDB
from agola_core.runservice import keys
from agola_core.runservice.artifacts import Artifacts
from agola_core.runservice.creator import RunCreator
from agola_core.runservice.executorside import ExecutorSide
from agola_core.runservice.fetcher import Fetcher
from agola_core.runservice.instances import ServiceInstance, may_live, this_instance
from agola_core.runservice.logs import LogReader
from agola_core.runservice.mirror import Mirror
from agola_core.runservice.projection import RUN, RUN_CONFIG, RunProjection, find_runs, matches
from agola_core.runservice.protocol import ExecutorDirectory
from agola_core.runservice.requests import RunBundle, RunCreateRequest, RunQuery
from agola_core.runservice.scheduler import Scheduler
from agola_core.runservice.store import RunStore
from agola_core.runservice.types import (
    Run,
    RunConfig,
    RunPhase,
    RunTask,
)
from agola_core.runservice.workqueue import WorkQueue
from agola_core.supervisor import Supervisor

logger = logging.getLogger(__name__)

faultpoints.declare("create.before-run", "archive.before-wal", "archive.before-txn", "service.before-publish")

_SWEEP_SECONDS = 10.0
_KEPT_EVENTS = 10_000
_FOLLOW_SECONDS = 1.0
_INSTANCE_TTL = 10.0
_CONFLICTS = 50
_decode_run = msgspec.json.Decoder(Run).decode
_decode_config = msgspec.json.Decoder(RunConfig).decode
_encode = msgspec.json.Encoder().encode


class RunService:
    """Runs, from their creation to their archive. Thread-safe; a context manager.

    Unstarted, it answers questions about what is stored; `start` makes runs go on.

    Args:
        datamanager: A store with the data types of `projection.DATA_TYPES`.
        readdb_path: The SQLite file of the queries; it can be thrown away.
        directory: Finds executors' clients.
        workers: Threads that advance runs, and as many that fetch logs.
        clock: Seconds since 1970.
        new_id: Makes task ids.

    Attributes:
        datamanager: The store.
        artifacts: Caches, archives and sources.
        executor_side: What executors ask and report.
    """

    def __init__(
        self,
        datamanager: DataManager,
        readdb_path: str | Path,
        directory: ExecutorDirectory,
        *,
        workers: int = 4,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.datamanager = datamanager
        self.artifacts = Artifacts(datamanager.storage)
        self._coordinator = datamanager.coordinator
        self._storage = datamanager.storage
        self._clock = clock
        self._configs: dict[str, RunConfig] = {}
        self._store = RunStore(self._coordinator, datamanager.sequence.epoch)
        self._readdb = ReadDB(datamanager, readdb_path, [RunProjection()])
        self._schedule_queue = WorkQueue("runservice-schedule", self._advance, workers)
        self._fetch_queue = WorkQueue("runservice-fetch", self._fetch, workers)
        self._mirror = Mirror(self._coordinator, self._schedule_queue.add)
        self._fetcher = Fetcher(self._store, self._storage, self._mirror, directory)
        self._scheduler = Scheduler(
            self._store, self._mirror, directory, self.run_config, self._now, self._fetch_queue.add, self._archive
        )
        self._supervisor = Supervisor("runservice")
        self._keeper: LeaseKeeper | None = None
        self._creator = RunCreator(datamanager, self._store, self.find_run, self.run_config, self._now, new_id)
        self._logs = LogReader(self._storage, self._mirror, directory, self.find_run)
        self.executor_side = ExecutorSide(self._store, self._mirror, self._schedule_queue.add, self._now)
        self._started = False

    # Lifecycle

    def start(self) -> None:
        """Begin to advance runs, those that an earlier service left behind too."""
        self._started = True
        self._readdb.start()
        self._publish()
        self._schedule_queue.start()
        self._fetch_queue.start()
        self._supervisor.loop("follow", self._follow, interval=0.0)
        self._supervisor.loop("sweep", self._sweep, interval=_SWEEP_SECONDS)

    def close(self) -> None:
        """Stop everything; runs stay as they are, for the next start. Closing twice is harmless."""
        self._schedule_queue.stop()
        self._fetch_queue.stop()
        self._mirror.close()
        self._supervisor.stop()
        self._readdb.close()
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def __enter__(self) -> Self:
        """Start and return the service."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the service."""
        self.close()

    def live_instances(self) -> list[str]:
        """Return the names of the services that run on this store now, in any process."""
        return [
            item.key[len(keys.INSTANCES) :]
            for item in iterate(self._coordinator, keys.INSTANCES)
            if may_live(msgspec.json.decode(item.value, type=ServiceInstance))
        ]

    # Runs

    def create_run(self, request: RunCreateRequest) -> RunBundle:
        """Make a new run, or restart one.

        Its configuration and its number are written in one WAL; the run itself becomes active after it, so a
        crash in between leaves a number unused and nothing else.

        Raises:
            BadRequestError: The request is malformed, or the run cannot be restarted.
            ConflictError: A change group of the request's token has changed.
        """
        return self._creator.create(request)

    def get_run(self, run_id: str) -> RunBundle:
        """Return a run, active or archived, with its configuration.

        Raises:
            NotFoundError: There is no such run.
        """
        run = self.find_run(run_id)
        if run is None:
            raise NotFoundError(f'run "{run_id}" doesn\'t exist')
        return RunBundle(run, self.run_config(run_id))

    def find_run(self, run_id: str) -> Run | None:
        """Return a run, active or archived; None when there is none."""
        stored = self._store.find_run(run_id)
        if stored is not None:
            return stored.run
        try:
            return _decode_run(self.datamanager.read_object(RUN, run_id)[0])
        except (NotFoundError, BadRequestError):
            return None

    def run_config(self, run_id: str) -> RunConfig:
        """Return the configuration of a run.

        Raises:
            NotFoundError: There is no such run.
        """
        config = self._configs.get(run_id)
        if config is None:
            config = _decode_config(self.datamanager.read_object(RUN_CONFIG, run_id)[0])
            if len(self._configs) > 1000:
                self._configs.clear()
            self._configs[run_id] = config
        return config

    def list_runs(self, query: RunQuery) -> list[Run]:
        """Return runs, active and archived, ordered by id."""
        if query.limit < 0:
            raise BadRequestError("limit must be greater or equal than 0")
        if not self._started:
            self._readdb.catch_up()
        active = [run for run in self._store.runs() if matches(run, query)]
        archived = self._readdb.read(Context(), lambda tx: find_runs(tx, query))
        found = {run.id: run for run in (*active, *archived)}
        ordered = sorted(found.values(), key=lambda run: run.id, reverse=not query.ascending)
        return ordered[: query.limit]

    def change_run_phase(self, run_id: str, phase: RunPhase) -> Run:
        """Start or cancel a queued run.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: It is not queued, or the phase is another.
        """
        if phase not in {RunPhase.RUNNING, RunPhase.CANCELLED}:
            raise BadRequestError(f"a run's phase cannot be changed to {phase.value!r}")

        def change(run: Run) -> Run:
            if run.phase is not RunPhase.QUEUED:
                raise BadRequestError(f'run "{run_id}" is not queued, phase: "{run.phase}"')
            if phase is RunPhase.RUNNING:
                return replace(run, phase=phase, start_time=self._now())
            return replace(run, phase=phase, end_time=self._now())

        return self._store.change_run(run_id, change, self._store.next_sequence)

    def stop_run(self, run_id: str) -> Run:
        """Stop a running run: its tasks are killed, the others do not start.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: It is not running.
        """

        def change(run: Run) -> Run:
            if run.phase is not RunPhase.RUNNING:
                raise BadRequestError(f'run "{run_id}" is not running, phase: "{run.phase}"')
            return replace(run, stop=True)

        return self._store.change_run(run_id, change)

    def approve_task(self, run_id: str, task_id: str) -> Run:
        """Approve a task that waits for it.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: There is no such task, or it does not wait.
        """

        def change(task: RunTask) -> RunTask:
            if task.approved:
                raise BadRequestError(f'run "{run_id}", task "{task_id}" is already approved')
            if not task.waiting_approval:
                raise BadRequestError(f'run "{run_id}", task "{task_id}" is not in waiting approval state')
            return replace(task, waiting_approval=False, approved=True)

        return self._change_run_task(run_id, task_id, change)

    def set_annotations(self, run_id: str, task_id: str, annotations: dict[str, str]) -> Run:
        """Replace a task's annotations.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: There is no such task.
        """
        return self._change_run_task(run_id, task_id, lambda task: replace(task, annotations=annotations))

    def wait_change(self, run: Run, timeout: float) -> Run:
        """Return a run once it differs from what is known, or when the time is over; for a started service."""

        def current() -> Run | None:
            return self._mirror.runs.get(run.id)

        with self._mirror.condition:
            self._mirror.condition.wait_for(lambda: current() != run, timeout)
        return current() or self.find_run(run.id) or run

    def active_runs(self) -> list[Run]:
        """Return the runs that are not archived yet, oldest first."""
        return list(self._store.runs())

    def wait_archived(self, run_ids: Iterable[str], timeout: float) -> bool:
        """Wait until runs have left the active ones; return whether they have. For a started service."""
        wanted = list(run_ids)
        with self._mirror.condition:
            return self._mirror.condition.wait_for(
                lambda: not any(run_id in self._mirror.runs for run_id in wanted), timeout
            )

    # Logs and archives

    def open_log(self, run_id: str, task_id: str, step: int | None, *, follow: bool = False) -> Iterator[bytes]:
        """Yield a step's log, from storage, or from its executor while it runs (see `logs.LogReader.open`)."""
        return self._logs.open(run_id, task_id, step, follow=follow)

    def wait_step(self, run_id: str, task_id: str, step: int) -> bool:
        """Wait until a step has begun; return whether it has (see `logs.LogReader.wait_step`)."""
        return self._logs.wait_step(run_id, task_id, step)

    def end_waits(self) -> None:
        """Let everybody who waits for a log to begin go: the service is about to be closed."""
        self._logs.end_waits()

    def put_source(self, data: Iterable[bytes]) -> str:
        """Store a source archive for runs to come and return its id."""
        return self.artifacts.put_source(data)

    # Work in the background

    def _follow(self) -> None:
        self._mirror.follow(_FOLLOW_SECONDS)

    def _sweep(self) -> None:
        """Repair what lost events left: look at every active run, and at tasks of lost executors."""
        self._scheduler.fail_lost_tasks()
        self._store.trim_events(_KEPT_EVENTS)
        for run_id in list(self._mirror.runs):
            self._schedule_queue.add(run_id)
        for run_id in list(self._mirror.tasks):
            self._schedule_queue.add(run_id)
        if self._keeper is not None and not self._keeper.held:
            self._publish()

    def _advance(self, run_id: str) -> None:
        self._scheduler.advance(run_id)

    def _fetch(self, run_id: str) -> None:
        self._fetcher.fetch(run_id)

    def _archive(self, run: Run) -> None:
        """Write a finished run into the datamanager, then take it out of the active ones."""
        archived = replace(run, archived=True)
        faultpoints.reach("archive.before-wal")
        self.datamanager.write_wal([Put(RUN, run.id, _encode(archived))])
        stored = self._store.find_run(run.id)
        if stored is None or stored.run != run:
            return
        faultpoints.reach("archive.before-txn")
        self._store.archive(stored)
        self._configs.pop(run.id, None)

    def _publish(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
        self._keeper = LeaseKeeper(self._coordinator, _INSTANCE_TTL)
        name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        faultpoints.reach("service.before-publish")
        self._coordinator.txn([], [PutOp(keys.instance(name), _encode(this_instance()), self._keeper.lease)])

    # Helpers

    def _change_run_task(self, run_id: str, task_id: str, change: Callable[[RunTask], RunTask]) -> Run:
        def change_run(run: Run) -> Run:
            task = run.tasks.get(task_id)
            if task is None:
                raise BadRequestError(f'run "{run_id}" doesn\'t have task "{task_id}"')
            return replace(run, tasks={**run.tasks, task_id: change(task)})

        return self._store.change_run(run_id, change_run)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)
