"""The run service's state in memory, kept up to date by a watch on the coordinator.

It is the state at one revision, slightly behind the coordinator. The scheduler decides on it and commits with
compares of the revisions it saw; a decision that was overtaken is refused and made again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from agola_core.coordinator.port import Coordinator, KeyValue, WatchBatch, WatchEvent, iterate
from agola_core.errors import ClosedError, CompactedError, UnavailableError
from agola_core.runservice.model.types import ZERO_TIME, Executor, ExecutorTask, Run, RunEvent, RunTask
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.memory.active_runs import ActiveRuns
from agola_core.runservice.state.memory.held_tasks import HeldTasks
from agola_core.runservice.state.run_record import decode_header, decode_part
from agola_core.runservice.state.store import StoredRun, decode_event, decode_executor, decode_task
from agola_core.runtime.processes.forks import Origin, fork_safe

logger = logging.getLogger(__name__)

V = TypeVar("V")

_KEPT_EVENTS = 10_000


class Changes(msgspec.Struct, frozen=True):
    """What one batch of the watch changed.

    Attributes:
        runs: The runs that changed.
        executors: The executors that appeared, changed, have freed a slot, or are gone.
        ended: By run, the tasks that have ended.
    """

    runs: set[str] = set()
    executors: set[str] = set()
    ended: dict[str, list[str]] = {}


class Mirror:
    """Runs, tasks, executors and events, as of the last `follow`. Thread-safe.

    Args:
        coordinator: What is mirrored.
        epoch: The epoch of event sequences.

    Attributes:
        condition: Notified after every change; hold it to read more than one attribute.
        runs: The active runs.
        tasks: The tasks on executors.
        executors: The executors, by id.
        alive: The leases of the live executors, by id.
        instances: The running services, by name.
        slots: The revisions of executors' slots (see `run_keys.SLOTS`).
        events: The newest run events, oldest first.
        revision: The mirrored revision.
        closed: Whether `close` was called.
    """

    def __init__(self, coordinator: Coordinator, epoch: int) -> None:
        self.origin = Origin("the run service")
        self.condition = fork_safe(threading.Condition())
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
        self._ended: dict[str, list[str]] = {}
        self._executors: set[str] = set()
        self._parts: dict[str, dict[int, list[RunTask]]] = {}
        self._loaded: set[str] = set()  # runs that the next `follow` returns
        self._watch = coordinator.watch(run_keys.PREFIX, self._load() + 1)

    # Reading

    def run(self, run_id: str) -> Run | None:
        """Return an active run; None when it is not active as of `revision`."""
        stored = self.runs.get(run_id)
        return stored.run if stored else None

    def held(self, run_id: str, task_id: str) -> ExecutorTask | None:
        """Return an executor task of a run; None when no executor has it."""
        task = self.tasks.by_id.get(task_id)
        return task if task is not None and task.run_id == run_id else None

    def wait_for(self, revision: int, timeout: float) -> bool:
        """Wait until the mirror has reached a revision; return whether it has."""
        with self.condition:
            return self.condition.wait_for(lambda: self.revision >= revision, timeout)

    # Following

    def _load(self) -> int:
        """Read everything again and return the revision of what was read; the next `follow` returns the runs."""
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
            self._loaded |= self._take([WatchEvent(item.key, item) for item in items])
            self._executors.clear()
            self.revision = revision
            self.condition.notify_all()
        return revision

    def follow(self, timeout: float) -> Changes | None:
        """Wait for the next change and apply it; return what changed, or None when the time is over."""
        if not self._loaded:
            try:
                batch = self._watch.next(timeout)
                return self._apply(batch) if batch is not None else None
            except ClosedError:
                if self.closed:
                    return None
                raise
            except (CompactedError, UnavailableError):
                old = self._watch  # stays if the next line fails: whoever follows again tries again
                self._watch = self._coordinator.watch(run_keys.PREFIX, self._load() + 1)
                old.close()
                if self.closed:  # `close` may not have seen it
                    self._watch.close()
        runs, self._loaded = self._loaded, set()
        return Changes(runs)

    def close(self) -> None:
        """End the watch, and wake everybody who waits for a change."""
        with self.condition:
            self.closed = True
            self.condition.notify_all()
        self._watch.close()

    def _read(self) -> tuple[int, list[KeyValue]]:
        page = self._coordinator.list(run_keys.PREFIX, limit=1)
        return page.revision, list(iterate(self._coordinator, run_keys.PREFIX, revision=page.revision))

    def _apply(self, batch: WatchBatch) -> Changes:
        with self.condition:
            changes = Changes(self._take(batch.events), self._executors, self._ended)
            self._executors, self._ended = set(), {}
            self.revision = batch.revision
            self.condition.notify_all()
        return changes

    def _take(self, events: Iterable[WatchEvent]) -> set[str]:
        """Apply changes and return the ids of the runs that they affect."""
        touched: set[str] = set()
        headers: dict[str, KeyValue] = {}
        changed_parts: dict[str, list[int]] = {}
        for event in events:
            key, item = event.key, event.item
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
                self._executors.add(run_keys.ALIVE.name(key))
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
        self.runs.put(StoredRun(run, item.mod_revision))

    def _take_task(self, task_id: str, item: KeyValue | None) -> str:
        before = self.tasks.by_id.get(task_id)
        if item is None:
            self.tasks.remove(task_id)
        else:
            self.tasks.put(decode_task(item))
        if before is not None and not before.status.phase.is_finished:
            now = self.tasks.by_id.get(task_id)
            if now is None or now.status.phase.is_finished or now.status.executor_id != before.status.executor_id:
                self._executors.add(before.status.executor_id)
        found = self.tasks.by_id.get(task_id) or before
        return found.run_id if found else ""

    def _take_executor(self, executor_id: str, item: KeyValue | None) -> None:
        executor = decode_executor(item) if item else None
        before = self.executors.get(executor_id)
        _put(self.executors, executor_id, executor)
        if executor is None or before is None or _offers(before) != _offers(executor):
            self._executors.add(executor_id)


def _offers(executor: Executor) -> Executor:
    """Return an executor without what each of its reports changes."""
    return replace(executor, active_tasks=0, last_status_update_time=ZERO_TIME)


def _put(known: dict[str, V], key: str, value: V | None) -> None:
    if value is None:
        known.pop(key, None)
    else:
        known[key] = value
