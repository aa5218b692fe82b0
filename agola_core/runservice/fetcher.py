"""Copies the logs and archives of ended tasks from their executors into object storage."""

from __future__ import annotations

import logging

from msgspec.structs import replace

from agola_core import faultpoints
from agola_core.errors import AgolaError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice import advance, layout
from agola_core.runservice.mirror import Mirror
from agola_core.runservice.protocol import ExecutorDirectory
from agola_core.runservice.store import RunStore
from agola_core.runservice.types import ExecutorTask, FetchPhase, Run, RunTask

logger = logging.getLogger(__name__)

faultpoints.declare("fetch.before-log", "fetch.before-archive", "fetch.before-reference")

_Fetched = list[tuple[str, str, int | None]]


class Fetcher:
    """Fetches what a run's ended tasks left on their executors.

    Args:
        store: Active runs and their tasks.
        storage: Where logs and archives go.
        mirror: Knows the executors.
        directory: Finds executors' clients.
    """

    def __init__(self, store: RunStore, storage: ObjectStorage, mirror: Mirror, directory: ExecutorDirectory) -> None:
        self._store = store
        self._storage = storage
        self._mirror = mirror
        self._directory = directory

    def fetch(self, run_id: str) -> None:
        """Fetch everything of a run that has ended by now, then note it in the run; what fails is tried again."""
        stored = self._store.find_run(run_id)
        if stored is None:
            return
        tasks = self._store.tasks(run_id)
        fetched: _Fetched = []
        for task in stored.run.tasks.values():
            wanted = advance.to_fetch(task)
            if wanted:
                fetched += self._fetch_task(stored.run, task, tasks.get(task.id), wanted)
        if fetched:
            self._store.change_run(run_id, lambda run: _noted(run, fetched))
        self._forget_fetched(run_id)

    def _fetch_task(
        self, run: Run, task: RunTask, held: ExecutorTask | None, wanted: list[tuple[str, int | None]]
    ) -> _Fetched:
        done: _Fetched = []
        for path in (layout.logs_reference(task.id, run.id), layout.archives_reference(task.id, run.id)):
            faultpoints.reach("fetch.before-reference")
            self._storage.write(path, b"")  # invariant 10: referred to before it is there
        for kind, step in wanted:
            if self._fetch_one(task.id, kind, step, held):
                done.append((task.id, kind, step))
        return done

    def _fetch_one(self, task_id: str, kind: str, step: int | None, held: ExecutorTask | None) -> bool:
        """Copy one log or archive; return whether it is settled, stored or lost for good."""
        executor = self._mirror.executors.get(held.status.executor_id) if held else None
        if executor is None:
            logger.warning("the executor is gone; lost: task=%s kind=%s step=%s", task_id, kind, step)
            return True
        client = self._directory.client(executor)
        try:
            if kind == "archive":
                assert step is not None
                faultpoints.reach("fetch.before-archive")
                self._storage.write(layout.archive(task_id, step), client.open_archive(task_id, step))
            else:
                faultpoints.reach("fetch.before-log")
                self._storage.write(layout.log(task_id, step), client.open_log(task_id, step, follow=False))
        except NotFoundError:
            logger.info("the executor has none: task=%s kind=%s step=%s", task_id, kind, step)
        except AgolaError:
            logger.warning("not fetched, tried again: task=%s kind=%s step=%s", task_id, kind, step, exc_info=True)
            return False
        return True

    def _forget_fetched(self, run_id: str) -> None:
        stored = self._store.find_run(run_id)
        if stored is None:
            return
        for task_id, held in self._store.tasks(run_id).items():
            task = stored.run.tasks.get(task_id)
            if task is None or (
                held.status.phase.is_finished and task.status.is_finished and not advance.to_fetch(task)
            ):
                self._store.delete_task(run_id, task_id)


def _noted(run: Run, fetched: _Fetched) -> Run:
    tasks = dict(run.tasks)
    for task_id, kind, step in fetched:
        tasks[task_id] = advance.mark_fetched(tasks[task_id], kind, step)
    return replace(run, tasks=tasks)


def is_stored(task: RunTask, step: int | None) -> bool:
    """Return whether a log is in object storage."""
    state = task.setup_step if step is None else task.steps[step]
    return state.log_phase is FetchPhase.FINISHED
