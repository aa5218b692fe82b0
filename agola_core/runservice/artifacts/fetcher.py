"""Copies the logs and archives of ended tasks from their executors into object storage.

The run's references are written first, then each log and archive, durably and as a whole. Only then is it recorded in
the run, and the executor task deleted, upon which the executor may remove its own copies.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from agola_core.errors import AgolaError, APIError, NotFoundError, UnavailableError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.artifacts.references import refer, release
from agola_core.runservice.artifacts.reports import ReportSpotter, summarize
from agola_core.runservice.logs.log_lines import write_log
from agola_core.runservice.logs.log_times import write_times
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.bounds import Bounded
from agola_core.runservice.model.line_times import MAX_BYTES
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.model.protocol import ExecutorClient, ExecutorDirectory
from agola_core.runservice.model.types import Executor, ExecutorTask, RunTask
from agola_core.runservice.rules import advance
from agola_core.runservice.rules.advance import Fetched
from agola_core.runservice.state.memory.mirror import Mirror
from agola_core.runservice.state.memory.pending import PendingRuns
from agola_core.runtime import faultpoints
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.work_queue import WorkQueue

logger = logging.getLogger(__name__)

faultpoints.declare("fetch.before-log", "fetch.before-archive")

_RESUMES = 10


class Fetcher:
    """Fetches a few logs and archives at a time, and fewer from one executor.

    Attributes:
        queue: The tasks whose logs and archives are to be fetched, as `RUN/TASK`.
    """

    def __init__(
        self,
        storage: ObjectStorage,
        mirror: Mirror,
        directory: ExecutorDirectory,
        pending: PendingRuns,
        run_exists: Callable[[str], bool],
        options: ServiceOptions,
    ) -> None:
        self._storage = storage
        self._mirror = mirror
        self._directory = directory
        self._pending = pending
        self._run_exists = run_exists
        self._patience = options.fetch_patience
        self._most = {"log": options.max_log_bytes, "archive": options.max_archive_bytes}
        self._lock = fork_safe(threading.Lock())
        self._busy: Counter[str] = Counter()
        self._deferred: dict[str, dict[str, None]] = {}
        self._silent_since: dict[str, float] = {}
        self._most_of_one = max(1, options.fetchers * 3 // 8)  # two that hang leave threads for others
        self.queue = WorkQueue("runservice-fetch", options.fetchers)

    def add(self, run_id: str, task_id: str) -> None:
        """Queue a task's logs and archives."""
        self.queue.add(f"{run_id}/{task_id}")

    def fetch(self, key: str) -> None:
        """Fetch a task's logs and archives, unless its executor is busy with as many as it may be."""
        with self._mirror.condition:
            held = self._mirror.held(*key.split("/", 1))
        executor_id = held.status.executor_id if held else ""
        if not self._enter(executor_id, key):
            return  # the thread that has the executor's last slot takes it over
        following: str | None = key
        try:
            while following is not None:
                self._fetch_task(following)
                following = self._next(executor_id)
        except BaseException:
            self._leave(executor_id)
            raise

    def _fetch_task(self, key: str) -> None:
        run_id, task_id = key.split("/", 1)
        with self._mirror.condition:  # both at one revision: a task is deleted only when the run records its fetch
            run = self._mirror.run(run_id)
            held = self._mirror.held(run_id, task_id)
            executor = self._mirror.executors.get(held.status.executor_id) if held else None
        task = run.tasks.get(task_id) if run else None
        wanted = advance.to_fetch(task) if task is not None else []
        if task is None or not wanted:
            return
        refer(self._storage, task, run_id)  # invariant 10: referred to before it is there
        done = [fetched for kind, step in wanted if (fetched := self._fetch(task, kind, step, held, executor))]
        if not self._run_exists(run_id):  # deleted meanwhile: nothing else refers to what was just stored
            release(self._storage, task_id, run_id)
        elif done:
            self._pending.add_fetched(run_id, done)

    # A limit for each executor

    def _enter(self, executor_id: str, key: str) -> bool:
        with self._lock:
            if executor_id and self._busy[executor_id] >= self._most_of_one:
                self._deferred.setdefault(executor_id, {})[key] = None
                return False
            self._busy[executor_id] += 1
        return True

    def _next(self, executor_id: str) -> str | None:
        """Return the next key that waits for an executor, or free its slot."""
        with self._lock:
            deferred = self._deferred.get(executor_id)
            if deferred:
                key = next(iter(deferred))
                del deferred[key]
                return key
            self._deferred.pop(executor_id, None)
            self._busy[executor_id] -= 1
        return None

    def _leave(self, executor_id: str) -> None:
        """Free a slot after a failure; what waited is queued again."""
        with self._lock:
            self._busy[executor_id] -= 1
            deferred = self._deferred.pop(executor_id, {})
        for key in deferred:
            self.queue.add(key)

    # One log or archive

    def _fetch(
        self, task: RunTask, kind: str, step: int | None, held: ExecutorTask | None, executor: Executor | None
    ) -> Fetched | None:
        """Copy one log or archive; return it when it is stored or permanently lost, None to try again."""
        path = object_paths.log(task.id, step) if kind == "log" else object_paths.archive(task.id, step or 0)
        if (size := self._stored_size(path)) is not None:  # by a service that did not come to record it
            if kind == "log" and not self._fetch_times(task, step, size, executor if held else None):
                return None
            return self._stored(task, kind, step)
        if held is None or executor is None:
            return self._lost(task, kind, step, "its executor is gone")
        pieces = Bounded(self._opened(executor, task.id, kind, step), self._most[kind])
        try:
            faultpoints.reach("fetch.before-log" if kind == "log" else "fetch.before-archive")
            if kind == "log":
                index = write_log(self._storage, task.id, step, pieces)
            else:
                spotter = ReportSpotter(pieces)
                self._storage.write(path, spotter)
                return self._stored(task, kind, step) if spotter.spotted else Fetched(task.id, kind, step)
        except NotFoundError:
            return self._lost(task, kind, step, "its executor has none")
        except AgolaError as error:
            if pieces.too_large:
                return self._lost(task, kind, step, str(error))
            if self._is_silent(executor):
                return self._lost(task, kind, step, "its executor is silent")
            logger.warning("not fetched, tried again: task=%s kind=%s step=%s: %s", task.id, kind, step, error)
            return None
        only_line = step is None and index.lines <= 1  # it was written when the set-up began
        is_done = only_line or self._fetch_times(task, step, index.size, executor)
        return Fetched(task.id, kind, step) if is_done else None

    def _fetch_times(self, task: RunTask, step: int | None, size: int, executor: Executor | None) -> bool:
        """Store the times of a stored log if its executor has any; return False to try again."""
        if not size or executor is None:
            return True
        try:
            pieces = self._directory.client(executor).open_times(task.id, step)
            write_times(self._storage, task.id, step, b"".join(Bounded(pieces, MAX_BYTES)), size)
        except APIError as error:
            logger.info("a log has no times: task=%s step=%s: %s", task.id, step, error)
        except AgolaError as error:
            if self._is_silent(executor):
                return True
            logger.warning("times not fetched, tried again: task=%s step=%s: %s", task.id, step, error)
            return False
        return True

    def _stored(self, task: RunTask, kind: str, step: int | None) -> Fetched | None:
        """Return what is stored, with what its reports say; None to try again."""
        if kind == "log":
            return Fetched(task.id, kind, step)
        try:
            return Fetched(task.id, kind, step, reports=summarize(self._storage, task.id, step or 0))
        except NotFoundError:  # its run was deleted meanwhile
            return Fetched(task.id, kind, step)
        except AgolaError as error:
            logger.warning("reports not read, tried again: task=%s step=%s: %s", task.id, step, error)
            return None
        except Exception:  # a step wrote them: whatever they are, they do not hold up the run
            logger.exception("reports not read: task=%s step=%s", task.id, step)
            return Fetched(task.id, kind, step)

    def _opened(self, executor: Executor, task_id: str, kind: str, step: int | None) -> Iterator[bytes]:
        yield from _resumed(self._directory.client(executor), task_id, kind, step)

    def _stored_size(self, path: str) -> int | None:
        try:
            return self._storage.stat(path).size
        except NotFoundError:
            return None

    def _is_silent(self, executor: Executor) -> bool:
        if executor.id in self._mirror.alive:
            self._silent_since.pop(executor.id, None)
            return False
        since = self._silent_since.setdefault(executor.id, time.monotonic())
        return time.monotonic() - since > self._patience

    def _lost(self, task: RunTask, kind: str, step: int | None, why: str) -> Fetched:
        logger.warning("lost: task=%s kind=%s step=%s: %s", task.id, kind, step, why)
        return Fetched(task.id, kind, step, lost=True)


def _resumed(client: ExecutorClient, task_id: str, kind: str, step: int | None) -> Iterator[bytes]:
    """Yield a log or an archive, resumed where the connection broke."""
    offset = 0
    for attempt in range(1 + _RESUMES):
        before = offset
        try:
            if kind == "log":
                pieces = client.open_log(task_id, step, follow=False, offset=offset)
            else:
                pieces = client.open_archive(task_id, step or 0, offset=offset)
            for piece in pieces:
                offset += len(piece)
                yield piece
        except UnavailableError:
            if offset == before or attempt == _RESUMES:  # no progress
                raise
        else:
            return
