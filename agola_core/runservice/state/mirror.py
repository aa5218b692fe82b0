"""What the coordinator holds of the run service, kept in memory by a watch.

What is here is the state at one revision, a little behind the coordinator. The scheduler decides on it and commits
behind compares of the revisions, so what was overtaken is refused and decided anew.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from msgspec.structs import replace

from agola_core.coordinator.port import Coordinator, KeyValue, WatchBatch, WatchEvent, iterate
from agola_core.errors import ClosedError, CompactedError, UnavailableError
from agola_core.runservice.model.types import ZERO_TIME, Executor, ExecutorTask, Run, RunEvent, RunTask
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.active_runs import ActiveRuns
from agola_core.runservice.state.run_record import decode_header, decode_part
from agola_core.runservice.state.store import Stored, decode_event, decode_executor, decode_task
from agola_core.runtime.forks import Origin, renewed

logger = logging.getLogger(__name__)

V = TypeVar("V")

_KEPT_EVENTS = 10_000


class HeldTasks:
    """Tasks on executors by id, by run and by executor. Not thread-safe."""

    def __init__(self) -> None:
        self.by_id: dict[str, ExecutorTask] = {}
        self.by_run: dict[str, dict[str, ExecutorTask]] = {}
        self.by_executor: dict[str, set[str]] = {}
        self.load: Counter[str] = Counter()

    def put(self, task: ExecutorTask) -> None:
        """Take a new or changed task in."""
        self.remove(task.id)
        self.by_id[task.id] = task
        self.by_run.setdefault(task.run_id, {})[task.id] = task
        self.by_executor.setdefault(task.status.executor_id, set()).add(task.id)
        if not task.status.phase.is_finished:
            self.load[task.status.executor_id] += 1

    def remove(self, task_id: str) -> ExecutorTask | None:
        """Forget a task and return it as it was."""
        task = self.by_id.pop(task_id, None)
        if task is None:
            return None
        of_run = self.by_run[task.run_id]
        del of_run[task_id]
        if not of_run:
            del self.by_run[task.run_id]
        executor_id = task.status.executor_id
        of_executor = self.by_executor[executor_id]
        of_executor.discard(task_id)
        if not of_executor:
            del self.by_executor[executor_id]
        if not task.status.phase.is_finished:
            self.load[executor_id] -= 1
        return task


class Mirror:
    """Runs, tasks, executors and events as the watch last told. Thread-safe.

    Args:
        coordinator: What is mirrored.
        epoch: The epoch of events' sequences.
        changed: Called with the id of each run that changed, after the mirror has the change.
        moved: Called with the id of each executor that came, changed, has more room, or is gone.
        ended: Called with a run and those of its tasks that have ended now, before `changed`.

    Attributes:
        condition: Notified after every change; held by whoever reads more than one thing.
        runs: The active runs.
        tasks: The tasks on executors.
        executors: The executors, by id.
        alive: The leases of the executors that live, by id.
        instances: The names of the services that run.
        slots: The revisions of executors' slots (see `run_keys.SLOTS`).
        events: The newest run events, oldest first.
        revision: The state that is mirrored.
        closed: Whether it ended.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        epoch: int,
        changed: Callable[[str], None] = lambda _: None,
        moved: Callable[[str], None] = lambda _: None,
        ended: Callable[[str, list[str]], None] = lambda _run, _tasks: None,
    ) -> None:
        self.origin = Origin("the run service")
        self.condition = renewed(threading.Condition())
        self.runs = ActiveRuns()
        self.tasks = HeldTasks()
        self.executors: dict[str, Executor] = {}
        self.alive: dict[str, int] = {}
        self.slots: dict[str, int] = {}
        self.instances: dict[str, int] = {}
        self.events: deque[RunEvent] = deque(maxlen=_KEPT_EVENTS)
        self.revision = 0
        self.closed = False
        self._epoch = epoch
        self._coordinator = coordinator
        self._changed = changed
        self._tell_moved = moved
        self._tell_ended = ended
        self._ended: dict[str, list[str]] = {}
        self._moved: set[str] = set()
        self._parts: dict[str, dict[int, list[RunTask]]] = {}
        self._untold: set[str] = set()  # whom it tells may not be made yet: the first `follow` does it
        self._watch = coordinator.watch(run_keys.PREFIX, self._load() + 1)

    # Reading

    def run(self, run_id: str) -> Run | None:
        """Return an active run; None when it is not active, as far as is known here."""
        stored = self.runs.get(run_id)
        return stored.run if stored else None

    def held(self, run_id: str, task_id: str) -> ExecutorTask | None:
        """Return a task of a run that an executor has."""
        task = self.tasks.by_id.get(task_id)
        return task if task is not None and task.run_id == run_id else None

    def wait_for(self, revision: int, timeout: float) -> bool:
        """Wait until the mirror has seen one of this service's own writes; return whether it has."""
        with self.condition:
            return self.condition.wait_for(lambda: self.revision >= revision, timeout)

    # Following

    def _load(self) -> int:
        """Read everything anew, for the next `follow` to tell of, and return the revision of what was read."""
        while True:
            try:
                revision, items = self._read()
                break
            except CompactedError:  # it took longer than the history is kept
                continue
        items.sort(key=lambda item: item.mod_revision if item.key.startswith(run_keys.EVENTS) else 0)  # in their order
        with self.condition:
            self.runs.clear()
            self.tasks = HeldTasks()
            self.executors.clear()
            self.alive.clear()
            self.slots.clear()
            self.instances.clear()
            self.events.clear()
            self._parts.clear()
            self._untold |= self._take([WatchEvent(item.key, item) for item in items])
            self._moved.clear()
            self.revision = revision
            self.condition.notify_all()
        return revision

    def follow(self, timeout: float) -> bool:
        """Wait for the next change and take it in; return whether there was one."""
        if self._untold:
            runs, self._untold = self._untold, set()
            for run_id in runs:
                self._changed(run_id)
            return True
        try:
            batch = self._watch.next(timeout)
        except ClosedError:
            if self.closed:
                return False
            raise
        except (CompactedError, UnavailableError):
            self._watch.close()
            self._watch = self._coordinator.watch(run_keys.PREFIX, self._load() + 1)
            return True
        if batch is None:
            return False
        self._apply(batch)
        return True

    def close(self) -> None:
        """End the watch, and whoever waits for a change that will not come."""
        with self.condition:
            self.closed = True
            self.condition.notify_all()
        self._watch.close()

    def _read(self) -> tuple[int, list[KeyValue]]:
        page = self._coordinator.list(run_keys.PREFIX, limit=1)
        return page.revision, list(iterate(self._coordinator, run_keys.PREFIX, revision=page.revision))

    def _apply(self, batch: WatchBatch) -> None:
        with self.condition:
            runs = self._take(batch.events)
            moved, self._moved = self._moved, set()
            ended, self._ended = self._ended, {}
            self.revision = batch.revision
            self.condition.notify_all()
        for run_id, tasks in ended.items():
            self._tell_ended(run_id, tasks)
        for run_id in runs:
            self._changed(run_id)
        for executor_id in moved:
            self._tell_moved(executor_id)

    def _take(self, events: Iterable[WatchEvent]) -> set[str]:
        """Take changes in and return the ids of the runs that they concern."""
        touched: set[str] = set()
        headers: dict[str, KeyValue] = {}
        changed_parts: dict[str, list[int]] = {}
        for key, item in events:
            if key.startswith(run_keys.RUNS):
                run_id, _, part = run_keys.RUNS.name(key).partition("/")
                touched.add(run_id)
                if part and item is not None:
                    self._parts.setdefault(run_id, {})[int(part)] = decode_part(item)
                    changed_parts.setdefault(run_id, []).append(int(part))
                elif not part and item is not None:
                    headers[run_id] = item
                elif not part:
                    self.runs.remove(run_id)
                    self._parts.pop(run_id, None)
                    headers.pop(run_id, None)
            elif key.startswith(run_keys.TASKS):
                touched.add(self._take_task(run_keys.TASKS.name(key), item))
            elif key.startswith(run_keys.EXECUTORS):
                self._take_executor(run_keys.EXECUTORS.name(key), item)
            elif key.startswith(run_keys.ALIVE):
                _put(self.alive, run_keys.ALIVE.name(key), item.lease if item else None)
                self._moved.add(run_keys.ALIVE.name(key))
            elif key.startswith(run_keys.SLOTS):
                _put(self.slots, run_keys.SLOTS.name(key), item.mod_revision if item else None)
            elif key.startswith(run_keys.INSTANCES):
                _put(self.instances, run_keys.INSTANCES.name(key), item.mod_revision if item else None)
            elif key.startswith(run_keys.EVENTS) and item is not None:
                self.events.append(decode_event(item, self._epoch))
        for run_id, item in headers.items():
            self._take_run(run_id, item, changed_parts.get(run_id, []))
        touched.discard("")
        return touched

    def _take_run(self, run_id: str, item: KeyValue, changed: list[int]) -> None:
        run, count = decode_header(item)
        before = self.runs.get(run_id)
        touched = run.tasks
        if count:
            parts = self._parts[run_id]
            touched = {task.id: task for number in changed for task in parts[number]}
            tasks = dict(before.run.tasks) if before else {}
            for number in sorted(parts) if before is None else changed:
                tasks.update((task.id, task) for task in parts[number])
            run = replace(run, tasks=tasks)
        if before is not None:
            known = before.run.tasks
            ended = [name for name, task in touched.items() if task.status.is_finished]
            ended = [name for name in ended if not known[name].status.is_finished]
            if ended:
                self._ended[run_id] = ended
        self.runs.put(Stored(run, item.mod_revision))

    def _take_task(self, task_id: str, item: KeyValue | None) -> str:
        before = self.tasks.by_id.get(task_id)
        if item is None:
            self.tasks.remove(task_id)
        else:
            self.tasks.put(decode_task(item))
        if before is not None and not before.status.phase.is_finished:
            now = self.tasks.by_id.get(task_id)
            if now is None or now.status.phase.is_finished or now.status.executor_id != before.status.executor_id:
                self._moved.add(before.status.executor_id)
        found = self.tasks.by_id.get(task_id) or before
        return found.run_id if found else ""

    def _take_executor(self, executor_id: str, item: KeyValue | None) -> None:
        executor = decode_executor(item) if item else None
        before = self.executors.get(executor_id)
        _put(self.executors, executor_id, executor)
        if executor is None or before is None or _offers(before) != _offers(executor):
            self._moved.add(executor_id)


def _offers(executor: Executor) -> Executor:
    """Return an executor without what each of its reports changes."""
    return replace(executor, active_tasks=0, last_status_update_time=ZERO_TIME)


def _put(known: dict[str, V], key: str, value: V | None) -> None:
    if value is None:
        known.pop(key, None)
    else:
        known[key] = value
