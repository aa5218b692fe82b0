"""What the coordinator holds of the run service, kept in memory by a watch: who must be looked at, and why."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from agola_core.coordinator.port import Coordinator, WatchEvent, iterate
from agola_core.errors import CompactedError
from agola_core.runservice import keys
from agola_core.runservice.store import decode_executor, decode_run, decode_task
from agola_core.runservice.types import Executor, ExecutorTask, Run


class Mirror:
    """Runs, tasks and executors as the watch last told. Thread-safe.

    Args:
        coordinator: What is mirrored.
        changed: Called with the id of each run that changed, after the mirror has the change.

    Attributes:
        condition: Notified after every change.
        runs: The active runs.
        tasks: For each run its tasks on executors.
        executors: The executors.
    """

    def __init__(self, coordinator: Coordinator, changed: Callable[[str], None] = lambda _: None) -> None:
        self.condition = threading.Condition()
        self.runs: dict[str, Run] = {}
        self.tasks: dict[str, dict[str, ExecutorTask]] = {}
        self.executors: dict[str, Executor] = {}
        self._coordinator = coordinator
        self._changed = changed
        self._watch = coordinator.watch(keys.PREFIX, self.load() + 1)

    def load(self) -> int:
        """Read everything anew and return the revision of what was read."""
        revision = self._coordinator.list(keys.PREFIX, limit=1).revision
        with self.condition:
            self.runs.clear()
            self.tasks.clear()
            self.executors.clear()
            for item in iterate(self._coordinator, keys.PREFIX, revision=revision):
                self._take(WatchEvent(item.key, item))
            self.condition.notify_all()
            runs = list(self.runs)
        for run_id in runs:
            self._changed(run_id)
        return revision

    def follow(self, timeout: float) -> None:
        """Wait for the next change and take it in."""
        try:
            batch = self._watch.next(timeout)
        except CompactedError:
            self._watch.close()
            self._watch = self._coordinator.watch(keys.PREFIX, self.load() + 1)
            return
        if batch is None:
            return
        with self.condition:
            touched = {self._take(event) for event in batch.events}
            self.condition.notify_all()
        for run_id in touched:
            if run_id:
                self._changed(run_id)

    def load_by_executor(self) -> Counter[str]:
        """Return how many unfinished tasks each executor has."""
        with self.condition:
            return Counter(
                task.status.executor_id
                for tasks in self.tasks.values()
                for task in tasks.values()
                if not task.status.phase.is_finished
            )

    def close(self) -> None:
        """End the watch."""
        self._watch.close()

    def _take(self, event: WatchEvent) -> str:
        """Take a change in and return the id of the run that it concerns."""
        key, item = event
        if key.startswith(keys.RUNS):
            run_id = key[len(keys.RUNS) :]
            if item is None:
                self.runs.pop(run_id, None)
            else:
                self.runs[run_id] = decode_run(item)
            return run_id
        if key.startswith(keys.TASKS):
            run_id, _, task_id = key[len(keys.TASKS) :].partition("/")
            tasks = self.tasks.setdefault(run_id, {})
            if item is None:
                tasks.pop(task_id, None)
                if not tasks:
                    del self.tasks[run_id]
            else:
                tasks[task_id] = decode_task(item)
            return run_id
        if key.startswith(keys.EXECUTORS):
            if item is None:
                self.executors.pop(key[len(keys.EXECUTORS) :], None)
            else:
                self.executors[key[len(keys.EXECUTORS) :]] = decode_executor(item)
        return ""
