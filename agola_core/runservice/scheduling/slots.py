"""How much room executors have, and who waits for it: no two starts take the same slot, here or elsewhere.

Within a process, starts on executors with a limit come one after the other, and what was started but is not in the
mirror yet counts. Between processes, each such start compares and writes a key of the executor.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from threading import Lock
from types import TracebackType
from typing import Self

from agola_core.coordinator.port import Compare, Op, PutOp
from agola_core.runservice.model.types import Executor, RunConfigTask
from agola_core.runservice.rules.placement import choose_executor, fits, has_room
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.mirror import Mirror
from agola_core.runtime.forks import renewed


class Room:
    """The executors' free slots.

    Args:
        mirror: The executors and their load.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.turn = renewed(Lock())
        self._mirror = mirror
        self._started: dict[str, tuple[str, int]] = {}
        self._slots: dict[str, int] = {}

    def placing(self) -> Placing:
        """Return what places the tasks of one transaction, as a context manager."""
        return Placing(self)

    def look(self) -> tuple[list[Executor], Counter[str]]:
        """Return the executors that are alive, by id, and the load of each."""
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
        return max(self._mirror.slots.get(executor_id, 0), self._slots.get(executor_id, 0))

    def started(self, taken: dict[str, str], revision: int) -> None:
        """Count starts that the mirror may not have yet: the executors by the tasks' ids."""
        for task_id, executor_id in taken.items():
            self._started[task_id] = (executor_id, revision)
            self._slots[executor_id] = revision


class Placing:
    """Places the tasks of one transaction. A context manager; it takes its turn when the first slot is taken.

    Args:
        room: The executors' room.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._looked = False
        self._has_turn = False
        self._executors: list[Executor] = []
        self._load: Counter[str] = Counter()
        self._taken: dict[str, str] = {}

    @property
    def full(self) -> bool:
        """Whether no executor has room for any task; known after the first choice."""
        return not any(has_room(executor, self._load) for executor in self._executors)

    def choose(self, task: RunConfigTask) -> Executor | None:
        """Return the executor for a task, and take its slot; None when none has room."""
        if not self._looked:
            self._looked = self._has_turn = self._room.turn.acquire()
            self._executors, self._load = self._room.look()
            if not any(executor.active_tasks_limit for executor in self._executors):
                self._end_turn()
        executor = choose_executor(task, self._executors, self._load)
        if executor is not None:
            self._load[executor.id] += 1
            if executor.active_tasks_limit:
                self._taken[task.id] = executor.id
        return executor

    def guards(self) -> tuple[list[Compare], list[Op]]:
        """Return the conditions and operations that take the slots between processes."""
        limited = sorted(set(self._taken.values()))
        compare = [Compare(run_keys.SLOTS.key(name), self._room.slot(name)) for name in limited]
        return compare, [PutOp(run_keys.SLOTS.key(name), b"") for name in limited]

    def committed(self, revision: int) -> None:
        """Note that the transaction was committed."""
        self._room.started(self._taken, revision)

    def __enter__(self) -> Self:
        """Return what places."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the turn."""
        self._end_turn()

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._room.turn.release()


class WaitingRuns:
    """Runs with tasks for which no executor had room, the oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = renewed(Lock())
        self._order: list[str] = []
        self._tasks: dict[str, list[RunConfigTask]] = {}

    def put(self, run_id: str, tasks: list[RunConfigTask]) -> None:
        """Note what a run waits for; nothing ends its waiting."""
        with self._lock:
            known = self._tasks.pop(run_id, None)
            if tasks:
                self._tasks[run_id] = tasks
                if known is None:
                    insort(self._order, run_id)
            elif known is not None:
                self._order.remove(run_id)

    def first(self, executor: Executor, most: int | None) -> list[str]:
        """Return the first runs that wait for an executor like this; None for all of them."""
        found: list[str] = []
        with self._lock:
            for run_id in self._order:
                if most is not None and len(found) >= most:
                    break
                if any(fits(task, executor) for task in self._tasks[run_id]):
                    found.append(run_id)
        return found
