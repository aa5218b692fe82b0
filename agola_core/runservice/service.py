"""The run service: what clients, executors and adapters call."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from agola_core.datamanager import DataManager
from agola_core.readdb import ReadDB
from agola_core.runservice.archive.archiver import Archiver
from agola_core.runservice.archive.deletion import RunDeleter
from agola_core.runservice.archive.projection import RunProjection, find_ended
from agola_core.runservice.archive.queries import RunQueries
from agola_core.runservice.archive.transfer import finish_import
from agola_core.runservice.artifacts.fetcher import Fetcher
from agola_core.runservice.artifacts.logs import LogReader
from agola_core.runservice.artifacts.releases import Releases
from agola_core.runservice.artifacts.stored import Artifacts
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.model.protocol import ExecutorDirectory
from agola_core.runservice.model.requests import RunBundle, RunCreateRequest, RunQuery
from agola_core.runservice.model.types import Executor, Run, RunConfig, RunPhase
from agola_core.runservice.rules.advance import Fetched
from agola_core.runservice.scheduling.actions import RunActions
from agola_core.runservice.scheduling.dispatch import Dispatcher
from agola_core.runservice.scheduling.executor_reports import ExecutorSide
from agola_core.runservice.scheduling.run_creation import RunCreator
from agola_core.runservice.scheduling.run_ownership import TICK_SECONDS, Sharing
from agola_core.runservice.scheduling.scheduler import Scheduler
from agola_core.runservice.scheduling.sweeps import Upkeep
from agola_core.runservice.state.events import EventFeed
from agola_core.runservice.state.mirror import Mirror
from agola_core.runservice.state.secrets import SecretStore
from agola_core.runservice.state.store import RunStore
from agola_core.runtime.context import Context
from agola_core.runtime.supervisor import Supervisor
from agola_core.runtime.work_queue import WorkQueue

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 1.0


class RunService:
    """Runs, from their creation to their archive. Thread-safe; a context manager.

    Unstarted, it answers questions about what is stored; `start` makes runs go on. Closed, it is not started again:
    make another one on the same store.

    Args:
        datamanager: A store with the data types of `projection.DATA_TYPES`.
        readdb_path: The SQLite file of the queries; it can be thrown away.
        directory: Finds executors' clients, whose calls have deadlines of their own.
        options: How it behaves.
        clock: Seconds since 1970.
        new_id: Makes task ids.

    Attributes:
        datamanager: The store.
        artifacts: Caches, archives and sources.
        executor_side: What executors ask and report.
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
    ) -> None:
        self.datamanager = datamanager
        self.options = options = options or ServiceOptions()
        self.artifacts = Artifacts(datamanager.storage)
        finish_import(datamanager.coordinator)
        self._clock = clock
        self._supervisor = Supervisor("runservice")
        self._queue = WorkQueue("runservice-schedule", self._advance, options.workers)
        self._sharing = sharing = Sharing(self._queue.add)
        epoch = datamanager.sequence.epoch
        self._store = store = RunStore(datamanager.coordinator, epoch)
        self._mirror = mirror = Mirror(
            datamanager.coordinator, epoch, sharing.changed, self._executor_moved, self._tasks_ended
        )
        sharing.instances = mirror.instances
        self._readdb = ReadDB(datamanager, readdb_path, [RunProjection()])
        self._queries = queries = RunQueries(datamanager, store, mirror, self._readdb)
        self._actions = RunActions(store, self._now)
        self._secrets = secrets = SecretStore(datamanager.storage, queries.config)
        releases = Releases(store, datamanager.storage, self._now)
        self._creator = RunCreator(
            datamanager, store, releases, queries.find, queries.used_tasks, secrets, self._now, new_id
        )
        self._deleter = RunDeleter(datamanager, store, releases, queries.find_archived, self._forget_run)
        self._dispatcher = Dispatcher(mirror, directory)
        self._fetcher = Fetcher(
            datamanager.storage,
            mirror,
            directory,
            settle=self._settle,
            run_exists=self._has_run,
            threads=options.fetchers,
            patience=options.fetch_patience,
            log_bytes=options.max_log_bytes,
            archive_bytes=options.max_archive_bytes,
        )
        self._upkeep = Upkeep(
            store,
            mirror,
            releases,
            self.artifacts,
            options,
            again=self._look_over,
            executor_moved=self._executor_moved,
            find_ended=lambda group: self._readdb.read(Context(), lambda tx: find_ended(tx, group)),
            delete_run=self._deleter.delete,
            sweep_secrets=lambda before: secrets.sweep(self._has_run, before),
            now=self._now,
        )
        sharing.name = self._upkeep.name
        self._scheduler = Scheduler(
            store,
            mirror,
            secrets.find,
            self._now,
            is_lost=self._upkeep.is_lost,
            again=self._queue.add,
            share=sharing.changed,
            tell=self._dispatcher.tell,
            fetch=self._fetcher.add,
            archive=Archiver(datamanager, store, queries.forget_config).archive,
            start_queued=options.start_queued,
        )
        self._logs = LogReader(datamanager.storage, mirror, directory, queries.find)
        self.executor_side = ExecutorSide(store, mirror, options.executor_ttl, self._now)

    # Lifecycle

    def start(self, context: Context | None = None) -> None:
        """Begin to advance runs, those that an earlier service left behind too.

        Args:
            context: Its end gives up a readdb's long build.
        """
        self._readdb.start(context)
        self._queries.following = True
        self._dispatcher.start()
        self._fetcher.start()
        self._queue.start()
        self._supervisor.loop("follow", self._follow, interval=0.0)
        self._supervisor.loop("share", self._sharing.tick, interval=TICK_SECONDS)
        self._upkeep.start(self._supervisor)

    def close(self) -> None:
        """Stop everything; runs stay as they are, for the next service. Closing twice is harmless."""
        self._queries.following = False
        self._queue.stop()
        self._fetcher.stop()
        self._dispatcher.stop()
        self._mirror.close()
        self._supervisor.stop()
        self._readdb.close()
        self._upkeep.stop()

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
        return self._upkeep.live_instances()

    # Runs

    def create_run(self, request: RunCreateRequest) -> RunBundle:
        """Make a new run, or restart one; its configuration, its number, itself and its event in one transaction.

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
        """Return a run, active or archived; None when there is none."""
        return self._queries.find(run_id)

    def run_config(self, run_id: str) -> RunConfig:
        """Return the configuration of a run.

        Raises:
            NotFoundError: There is no such run.
        """
        return self._queries.config(run_id)

    def list_runs(self, query: RunQuery) -> list[Run]:
        """Return runs, active and archived, ordered by id; what this service wrote before is seen.

        Raises:
            BadRequestError: The limit is negative.
        """
        return self._queries.list(query)

    def delete_run(self, run_id: str) -> None:
        """Delete a finished run, with its logs and archives unless a restart shares them.

        Raises:
            NotFoundError: There is no such run.
            BadRequestError: It is not finished.
        """
        self._deleter.delete(run_id)

    # Actions. A token of change groups refuses them, with `ConflictError`, when a group has changed since.

    def change_groups_token(self, groups: Iterable[str]) -> str:
        """Return the token of change groups; what is read afterwards is at least as new.

        Raises:
            BadRequestError: A name is empty, longer than 256 bytes, or has a "/".
        """
        return self._store.groups.token(groups)

    def change_run_phase(self, run_id: str, phase: RunPhase, token: str = "") -> Run:
        """Start or cancel a queued run.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: It is not queued, or the phase is another.
        """
        return self._actions.change_phase(run_id, phase, token)

    def stop_run(self, run_id: str, token: str = "") -> Run:
        """Stop a running run: its tasks are killed, the others do not start.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: It is not running.
        """
        return self._actions.stop(run_id, token)

    def approve_task(self, run_id: str, task_id: str, token: str = "") -> Run:
        """Approve a task that waits for it.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: There is no such task, or it does not wait.
        """
        return self._actions.approve(run_id, task_id, token)

    def set_annotations(self, run_id: str, task_id: str, annotations: dict[str, str], token: str = "") -> Run:
        """Replace a task's annotations.

        Raises:
            NotFoundError: The run is not active.
            BadRequestError: There is no such task.
        """
        return self._actions.set_annotations(run_id, task_id, annotations, token)

    # Following

    def watch_events(self, after: str = "") -> EventFeed:
        """Return the run events after a place; for a started service. Close it after use.

        Args:
            after: The sequence of the last event that was seen; "" for events from now on.

        Raises:
            BadRequestError: `after` is no sequence.
        """
        return EventFeed(self._mirror, after)

    def wait_change(self, run: Run, timeout: float) -> Run:
        """Return a run once it differs from what is known, or when the time is over; for a started service."""
        self._mirror.wait_for(self._store.written, timeout)  # it may have been made just now

        def has_changed() -> bool:
            current = self._mirror.run(run.id)
            return current is not run and current != run  # most changes are others', and a run may be large

        with self._mirror.condition:
            self._mirror.condition.wait_for(has_changed, timeout)
        return self._mirror.run(run.id) or self.find_run(run.id) or run

    def active_runs(self) -> list[Run]:
        """Return the runs that are not archived yet, oldest first."""
        return list(self._store.runs())

    def wait_archived(self, run_ids: Iterable[str], timeout: float) -> bool:
        """Wait until runs have left the active ones; return whether they have. For a started service."""
        wanted = list(run_ids)
        self._mirror.wait_for(self._store.written, timeout)
        with self._mirror.condition:
            return self._mirror.condition.wait_for(
                lambda: not any(run_id in self._mirror.runs for run_id in wanted), timeout
            )

    # Executors

    def executors(self) -> list[Executor]:
        """Return the executors that have reported themselves, by id."""
        return self.executor_side.executors()

    def delete_executor(self, executor_id: str) -> None:
        """Forget an executor: its unfinished tasks fail, or are tried elsewhere. Unknown ones are no error."""
        self.executor_side.delete_executor(executor_id)

    # Logs and sources

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

    def run_pending(self) -> None:
        """Do everything that is to be done now, in the calling thread: for a service that is not started."""
        queues = (self._queue, self._dispatcher, self._fetcher)
        while self._mirror.follow(0.0) or any(queue.run_one() for queue in queues):
            pass

    def _follow(self) -> None:
        self._mirror.follow(_FOLLOW_SECONDS)

    def _advance(self, run_id: str) -> None:
        self._scheduler.advance(run_id)

    def _look_over(self, run_id: str) -> None:
        self._scheduler.look_over(run_id)
        self._queue.add_at_leisure(run_id)

    def _has_run(self, run_id: str) -> bool:
        return self._store.has_run(run_id) or self._queries.find_archived(run_id) is not None

    def _forget_run(self, run_id: str) -> None:
        self._queries.forget_config(run_id)
        self._secrets.delete(run_id)

    def _settle(self, run_id: str, fetched: list[Fetched]) -> None:
        self._scheduler.settle(run_id, fetched)

    def _tasks_ended(self, run_id: str, tasks: list[str]) -> None:
        self._scheduler.tasks_ended(run_id, tasks)

    def _executor_moved(self, executor_id: str) -> None:
        self._scheduler.executor_moved(executor_id)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)
