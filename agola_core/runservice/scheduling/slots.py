"""The free slots of executors, and the runs that wait for one: no two starts take the same slot, in any process.

Within a process, starts on executors with a task limit take turns, and started tasks that the mirror does not have yet
count. Between processes, each such start compares and writes a key of the executor.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from threading import Lock
from typing import Self

from agola_core.coordinator.port import Compare, Op, PutOp
from agola_core.runservice.model.types import Executor, RunConfigTask
from agola_core.runservice.rules.placement import choose_executor, fits, has_free_slot
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.memory.mirror import Mirror
from agola_core.runtime.processes.forks import fork_safe


class ExecutorSlots:
    """The free slots of executors."""

    def __init__(self, mirror: Mirror) -> None:
        self.turn = fork_safe(Lock())
        self._mirror = mirror
        self._started: dict[str, tuple[str, int]] = {}
        self._revisions: dict[str, int] = {}

    def assignment(self) -> SlotAssignment:
        """Return an assignment of slots in one transaction, a context manager."""
        return SlotAssignment(self)

    def look(self) -> tuple[list[Executor], Counter[str]]:
        """Return the live executors, ordered by id, and how many unfinished tasks each has."""
        with self._mirror.condition:
            load = self._mirror.tasks.load.copy()
            alive = sorted(self._mirror.executors.keys() & self._mirror.alive.keys())
            executors = [self._mirror.executors[name] for name in alive]
            seen = self._mirror.revision
        for task_id, (executor_id, revision) in list(self._started.items()):
            if revision <= seen:
                del self._started[task_id]
            else:
                load[executor_id] += 1
        return executors, load

    def slot(self, executor_id: str) -> int:
        """Return the newest known revision of an executor's slots."""
        return max(self._mirror.slots.get(executor_id, 0), self._revisions.get(executor_id, 0))

    def started(self, taken: dict[str, str], revision: int) -> None:
        """Record starts that the mirror may not have yet: task ids and their executors."""
        for task_id, executor_id in taken.items():
            self._started[task_id] = (executor_id, revision)
            self._revisions[executor_id] = revision


class SlotAssignment:
    """Assigns the tasks of one transaction to executors. A context manager; its turn begins with the first task."""

    def __init__(self, slots: ExecutorSlots) -> None:
        self._slots = slots
        self._looked = False
        self._has_turn = False
        self._executors: list[Executor] = []
        self._load: Counter[str] = Counter()
        self._taken: dict[str, str] = {}

    @property
    def full(self) -> bool:
        """Whether no executor has a free slot; known after the first `choose`."""
        return not any(has_free_slot(executor, self._load) for executor in self._executors)

    def choose(self, task: RunConfigTask) -> Executor | None:
        """Return the executor for a task, its slot taken; None when no suitable one has a free slot."""
        if not self._looked:
            self._looked = self._has_turn = self._slots.turn.acquire()
            self._executors, self._load = self._slots.look()
            if not any(executor.active_tasks_limit for executor in self._executors):
                self._end_turn()
        executor = choose_executor(task, self._executors, self._load)
        if executor is not None:
            self._load[executor.id] += 1
            if executor.active_tasks_limit:
                self._taken[task.id] = executor.id
        return executor

    def guards(self) -> tuple[list[Compare], list[Op]]:
        """Return the conditions and operations that keep other processes from taking the same slots."""
        limited = sorted(set(self._taken.values()))
        compare = [Compare(run_keys.SLOTS.key(name), self._slots.slot(name)) for name in limited]
        return compare, [PutOp(run_keys.SLOTS.key(name), b"") for name in limited]

    def committed(self, revision: int) -> None:
        """Record that the transaction was committed."""
        self._slots.started(self._taken, revision)

    def __enter__(self) -> Self:
        """Return the assignment."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the turn."""
        self._end_turn()

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._slots.turn.release()


class WaitingRuns:
    """Runs with tasks that no executor had a free slot for, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = fork_safe(Lock())
        self._order: list[str] = []
        self._tasks: dict[str, list[RunConfigTask]] = {}

    def put(self, run_id: str, tasks: list[RunConfigTask]) -> None:
        """Record the tasks of a run that wait; none removes the run."""
        with self._lock:
            known = self._tasks.pop(run_id, None)
            if tasks:
                self._tasks[run_id] = tasks
                if known is None:
                    insort(self._order, run_id)
            elif known is not None:
                self._order.remove(run_id)

    def first(self, executor: Executor, most: int | None) -> list[str]:
        """Return the first `most` runs, None for all, with a waiting task that suits an executor."""
        found: list[str] = []
        with self._lock:
            for run_id in self._order:
                if most is not None and len(found) >= most:
                    break
                if any(fits(task, executor) for task in self._tasks[run_id]):
                    found.append(run_id)
        return found
