"""The run service's interface for clients, executors and adapters."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from agola_core.datamanager import DataManager
from agola_core.errors import NotFoundError
from agola_core.readdb import ReadDB
from agola_core.runservice.archive.archiver import Archiver
from agola_core.runservice.archive.deletion import RunDeleter
from agola_core.runservice.archive.projection import RunProjection
from agola_core.runservice.archive.queries import RunQueries
from agola_core.runservice.archive.recent_samples import RecentSamples
from agola_core.runservice.artifacts.artifact_store import ArtifactStore
from agola_core.runservice.artifacts.fetcher import Fetcher
from agola_core.runservice.artifacts.releases import Releases
from agola_core.runservice.artifacts.reports import ReportReader
from agola_core.runservice.logs.log_reader import LogReader
from agola_core.runservice.logs.log_view import LogView
from agola_core.runservice.model.line_times import GrowingTimes
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.model.protocol import ExecutorDirectory
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import WHOLE_LOG, LogPart, RunBundle, RunCreateRequest, RunQuery
from agola_core.runservice.model.types import Executor, Run, RunConfig, RunPhase
from agola_core.runservice.rules import actions
from agola_core.runservice.scheduling.dispatch import Dispatcher
from agola_core.runservice.scheduling.executor_reports import ExecutorSide
from agola_core.runservice.scheduling.run_creation import RunCreator
from agola_core.runservice.scheduling.run_ownership import RunOwnership
from agola_core.runservice.scheduling.scheduler import Scheduler
from agola_core.runservice.scheduling.sweeps import Sweeps
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.events import EventFeed
from agola_core.runservice.state.instances import InstanceLease
from agola_core.runservice.state.memory.pending import PendingRuns
from agola_core.runservice.state.run_state import RunState
from agola_core.runservice.state.secrets import SecretStore
from agola_core.runtime.context import Context
from agola_core.runtime.progress import Progress, ignore
from agola_core.runtime.threads.supervisor import Supervisor

_FOLLOW_SECONDS = 10.0


class RunService:
    """Runs, from creation to archive. Thread-safe; a context manager.

    Before `start` it answers queries; `start` begins to advance runs. A closed service cannot be started again: create
    another one on the same store.

    Args:
        datamanager: A store with the data types of `projection.DATA_TYPES`.
        readdb_path: The SQLite file for queries; disposable.
        directory: Finds the clients of executors; their calls have deadlines.
        options: How it behaves.
        clock: Seconds since 1970.
        new_id: Makes task ids.
        progress: Told of the rows of a build of the readdb.

    Attributes:
        datamanager: The store.
        artifacts: Caches, archives and sources.
        executor_side: Handles executors' calls.
        recent: The store's last hour, as samples.
        options: How it behaves.
    """

    def __init__(
        self,
        datamanager: DataManager,
        readdb_path: str | Path,
        directory: ExecutorDirectory,
        options: ServiceOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        progress: Progress = ignore,
    ) -> None:
        self.datamanager = datamanager
        self.options = options = options or ServiceOptions()
        storage = datamanager.storage
        if datamanager.coordinator.get(run_keys.RESET) is not None:
            from agola_core.runservice.archive.transfer import finish_import  # noqa: PLC0415 - few use it

            finish_import(datamanager.coordinator)
        self._state = state = RunState(datamanager.coordinator, datamanager.sequence.epoch, clock)
        self._readdb = ReadDB(datamanager, readdb_path, [RunProjection()], progress=progress)
        self._queries = queries = RunQueries(datamanager, state, self._readdb)
        self._secrets = secrets = SecretStore(storage, queries.config)
        releases = Releases(state, storage)
        pending = PendingRuns(options.workers)
        self._instance = instance = InstanceLease(state.store)
        self._ownership = RunOwnership(pending.queue, instance.name, state.mirror.instances)
        dispatcher = Dispatcher(state.mirror, directory)
        fetcher = Fetcher(storage, state.mirror, directory, pending, queries.exists, options)
        archiver = Archiver(datamanager, state.store, queries)
        self._scheduler = Scheduler(state, pending, self._ownership, secrets, dispatcher, fetcher, archiver, options)
        self._queues = (
            (pending.queue, self._scheduler.advance),
            (dispatcher.queue, dispatcher.tell_all),
            (fetcher.queue, fetcher.fetch),
        )
        self._creator = RunCreator(datamanager, state, releases, queries, secrets, new_id)
        self._deleter = RunDeleter(datamanager, state.store, releases, queries, secrets)
        self._logs = LogReader(storage, state.mirror, directory, queries.find)
        self._reports = ReportReader(storage)
        self.artifacts = ArtifactStore(storage)
        self.executor_side = ExecutorSide(state, options.executor_ttl)
        self.recent = RecentSamples(datamanager.counters, time.monotonic)
        self._sweeps = Sweeps(
            datamanager,
            state,
            self._scheduler,
            instance,
            queries,
            self._deleter,
            releases,
            self.artifacts,
            secrets,
            self.recent,
            options,
        )
        self._supervisor = Supervisor("runservice")

    # Lifecycle

    def start(self, context: Context | None = None) -> None:
        """Begin to advance runs, including those of earlier services.

        Args:
            context: Cancelling it aborts the build of the readdb.
        """
        self._readdb.start(context)
        self._queries.following = True
        self._scheduler.start()
        for queue, work in reversed(self._queues):
            queue.start(work)
        self._supervisor.loop("follow", self._follow, interval=0.0)
        self._ownership.wake = self._supervisor.loop("share", self._ownership.tick, interval=self._ownership.pause).wake
        self._instance.publish()
        self._sweeps.start(self._supervisor)

    def close(self) -> None:
        """Stop everything; runs stay as they are, for the next service. Can be called twice."""
        self._queries.following = False
        for queue, _ in self._queues:
            queue.stop()
        self._state.mirror.close()
        self._supervisor.stop()
        self._readdb.close()
        self._instance.withdraw()

    def __enter__(self) -> Self:
        """Start and return the service."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the service."""
        self.close()

    def live_instances(self) -> list[str]:
        """Return the names of the services that run on this store now, in any process."""
        return self._instance.live()

    # Runs

    def create_run(self, request: RunCreateRequest) -> RunBundle:
        """Create a run, or restart one: its configuration, number, state and event are written in one transaction.

        Raises:
            BadRequestError: The request is malformed, or the run cannot be restarted.
            ConflictError: A change group of the request's token has changed, or a run has one of the task ids already.
        """
        return self._creator.create(request)

    def get_run(self, run_id: str) -> RunBundle:
        """Return a run, active or archived, with its configuration.

        Raises:
            NotFoundError: There is no such run.
        """
        return self._queries.get(run_id)

    def find_run(self, run_id: str) -> Run | None:
        """Return a run, active or archived; None if there is none."""
        return self._queries.find(run_id)

    def known_run(self, run_id: str) -> Run | None:
        """Return a run as memory or the readdb has it, without storage or the coordinator; None for nothing."""
        return self._queries.known(run_id)

    def run_config(self, run_id: str) -> RunConfig:
        """Return the configuration of a run.

        Raises:
            NotFoundError: There is no such run.
        """
        return self._queries.config(run_id)

    def list_runs(self, query: RunQuery) -> list[Run]:
        """Return active and archived runs, ordered by id, including everything that this service wrote before.

        Raises:
            BadRequestError: The limit is negative.
        """
        return self._queries.list(query)

    def delete_run(self, run_id: str) -> None:
        """Delete a finished run, and its logs and archives unless a restart shares them.

        Raises:
            NotFoundError: There is no such run.
            BadRequestError: It is not finished.
        """
        self._deleter.delete(run_id)

    # Actions. With a token of change groups they raise `ConflictError` if one of the groups has changed since.

    def change_groups_token(self, groups: Iterable[str]) -> str:
        """Return a token of change groups; everything read afterwards is at least as new.

        Raises:
            BadRequestError: A name is empty, longer than 256 bytes, or has a "/".
        """
        return self._state.store.groups.token(groups)

    def change_run_phase(self, run_id: str, phase: RunPhase, token: str = "") -> Run:
        """Start or cancel a queued run.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: It is not queued, or the phase is another.
        """
        return self._change(run_id, actions.change_phase(phase, self._state.now()), token)

    def stop_run(self, run_id: str, token: str = "") -> Run:
        """Stop a running run: its running tasks are killed, no others start.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: It is not running.
        """
        return self._change(run_id, actions.stop, token)

    def approve_task(self, run_id: str, task_id: str, token: str = "") -> Run:
        """Approve a task that waits for approval.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: There is no such task, or it does not wait.
        """
        return self._change(run_id, actions.approve(task_id), token)

    def set_annotations(self, run_id: str, task_id: str, annotations: dict[str, str], token: str = "") -> Run:
        """Replace a task's annotations.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: There is no such task.
        """
        return self._change(run_id, actions.annotate(task_id, annotations), token)

    def _change(self, run_id: str, change: actions.Change, token: str) -> Run:
        return self._state.store.change_run(run_id, change, token)

    # Waiting for changes
    def watch_events(self, after: str = "") -> EventFeed:
        """Return a feed of the run events after a sequence; for a started service. Close it after use.

        Args:
            after: The sequence of the last event seen; "" for events from now on.

        Raises:
            BadRequestError: `after` is no sequence.
        """
        return EventFeed(self._state.mirror, after)

    def wait_change(self, run: Run, timeout: float) -> Run:
        """Return a run once it differs from `run`, or after `timeout` seconds; for a started service."""
        return self._state.wait_change(run, timeout) or self.find_run(run.id) or run

    def active_runs(self) -> list[Run]:
        """Return the runs that are not archived yet, oldest first."""
        return list(self._state.store.runs())

    def wait_archived(self, run_ids: Iterable[str], timeout: float) -> bool:
        """Wait until runs are archived or deleted; return whether they are. For a started service."""
        return self._state.wait_archived(list(run_ids), timeout)

    # Executors

    def executors(self) -> list[Executor]:
        """Return the registered executors, by id."""
        return self.executor_side.executors()

    def delete_executor(self, executor_id: str) -> None:
        """Remove an executor: its unfinished tasks fail or are retried elsewhere. An unknown id is no error."""
        self.executor_side.delete_executor(executor_id)

    # Logs and sources

    def open_log(
        self, run_id: str, task_id: str, step: int | None, *, follow: bool = False, part: LogPart = WHOLE_LOG
    ) -> Iterator[bytes]:
        """Yield a step's log, from storage, or from its executor while it runs (see `logs.LogReader.open`)."""
        return self._logs.open(run_id, task_id, step, follow=follow, part=part)

    def log_begin(self, run_id: str, task_id: str, step: int | None, part: LogPart) -> int:
        """Return the byte of a step's log at which a part of it begins; 0 for a log that is not there."""
        return self._logs.begin(run_id, task_id, step, part)

    def log_times(self, run_id: str, task_id: str, step: int | None) -> GrowingTimes:
        """Return when the lines of a step's log were written (see `logs.LogReader.times`)."""
        return self._logs.times(run_id, task_id, step)

    def open_archive(self, run_id: str, task_id: str, step: int) -> Iterator[bytes]:
        """Yield the archive of the files that a step saved to the workspace.

        Raises:
            NotFoundError: There is no such run or task, the step saves none, or its archive is not stored.
        """
        run = self._queries.find(run_id)
        task = run.tasks.get(task_id) if run is not None else None
        if task is None:
            raise NotFoundError(f"no run {run_id!r} with task {task_id!r}")
        if step not in task.workspace_archives:
            raise NotFoundError(f"step {step} saves nothing to the workspace")
        try:
            return self.artifacts.open_archive(task_id, step)
        except NotFoundError as error:
            raise NotFoundError("what it saved is not stored") from error

    def run_tests(self, bundle: RunBundle) -> RunTests:
        """Return what the tasks of a run reported about tests and coverage, as far as their archives are stored."""
        return self._reports.run_tests(bundle)

    def log_view(
        self, run_id: str, task_id: str, step: int | None, context: Context
    ) -> AbstractContextManager[LogView]:
        """Open a step's log to look into it, wherever it is (see `logs.LogReader.view`)."""
        return self._logs.view(run_id, task_id, step, context)

    def wait_step(self, run_id: str, task_id: str, step: int) -> bool:
        """Wait until a step has begun; return whether it has (see `logs.LogReader.wait_step`)."""
        return self._logs.wait_step(run_id, task_id, step)

    def end_waits(self) -> None:
        """Wake everybody who waits for a log to begin: the service is about to close."""
        self._logs.end_waits()

    def put_source(self, data: Iterable[bytes]) -> str:
        """Store a source archive for later runs and return its id."""
        return self.artifacts.put_source(data)

    # Background work

    def run_pending(self) -> None:
        """Do everything that can be done now, in the calling thread: for a service that is not started."""
        while self._take_changes(0.0) or any(queue.run_one(work) for queue, work in self._queues):
            pass

    def _follow(self) -> None:
        self._take_changes(_FOLLOW_SECONDS)

    def _take_changes(self, timeout: float) -> bool:
        changes = self._state.mirror.follow(timeout)
        if changes is not None:
            self._scheduler.take(changes)
        return changes is not None
