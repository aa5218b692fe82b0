"""Reads and writes active runs, executors and executor tasks in the coordinator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from agola_core.coordinator.port import (
    Compare,
    Coordinator,
    DeleteOp,
    GetOp,
    KeyValue,
    Op,
    PutOp,
    Target,
    iterate,
)
from agola_core.encoding.decoding import decoded
from agola_core.errors import ConflictError, NotFoundError
from agola_core.runservice.model.types import Executor, ExecutorTask, Run, RunEvent, RunTask
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.change_groups import ChangeGroups, GroupsToken
from agola_core.runservice.state.run_record import decode_header, decode_part, run_ops, with_parts
from agola_core.runtime import faultpoints
from agola_core.runtime.processes.forks import fork_safe
from agola_core.sequence import Sequence

faultpoints.declare("runservice.before-txn")

T = TypeVar("T")

_LOST_RACES = 100
_PART = 50
_decode_task = msgspec.json.Decoder(ExecutorTask).decode
_decode_executor = msgspec.json.Decoder(Executor).decode
_decode_event = msgspec.json.Decoder(RunEvent).decode
_encode = msgspec.json.Encoder().encode


class StoredRun(msgspec.Struct, frozen=True):
    """A run with the revision that it was read at."""

    run: Run
    revision: int


def decode_task(item: KeyValue) -> ExecutorTask:
    """Return the executor task at a key, its revision set."""
    return msgspec.structs.replace(decoded(_decode_task, item.value, item.key), revision=item.mod_revision)


def decode_executor(item: KeyValue) -> Executor:
    """Return the executor at a key."""
    return decoded(_decode_executor, item.value, item.key)


def decode_event(item: KeyValue, epoch: int) -> RunEvent:
    """Return the run event at a key; its sequence is the revision that wrote it, so their order is the same."""
    event = decoded(_decode_event, item.value, item.key)
    return msgspec.structs.replace(event, sequence=str(Sequence(epoch, item.mod_revision)))


def put_task(task: ExecutorTask) -> PutOp:
    """Return the operation that stores an executor task."""
    return PutOp(run_keys.TASKS.key(task.id), _encode(msgspec.structs.replace(task, revision=0)))


def start_ops(task: ExecutorTask) -> tuple[Compare, list[Op]]:
    """Return the condition and the operations that give a task to its executor, at most once."""
    held = PutOp(run_keys.held_by(task.status.executor_id).key(task.id), b"")
    return Compare(run_keys.TASKS.key(task.id), 0, Target.CREATE_REVISION), [put_task(task), held]


def forget_ops(task: ExecutorTask) -> list[Op]:
    """Return the operations that delete an executor task."""
    return [DeleteOp(run_keys.TASKS.key(task.id)), DeleteOp(run_keys.held_by(task.status.executor_id).key(task.id))]


def event_op(run: Run) -> PutOp:
    """Return the operation that stores the event of a run's change."""
    event = RunEvent(run_id=run.id, phase=run.phase, result=run.result)
    return PutOp(run_keys.event(run.id, f"{run.phase.value}-{run.result.value}"), _encode(event))


class RunStore:
    """Active runs, executors and executor tasks in the coordinator.

    Args:
        coordinator: Holds them.
        epoch: The epoch of new run ids.

    Attributes:
        groups: The change groups.
        written: The revision of this process's newest change.
    """

    def __init__(self, coordinator: Coordinator, epoch: int) -> None:
        self.coordinator = coordinator
        self.groups = ChangeGroups(coordinator)
        self.written = 0
        self.epoch = epoch
        self._id_lock = fork_safe(threading.Lock())

    def next_id(self) -> str:
        """Return a new run id: a sequence, as text, that was never returned before."""

        def change(item: KeyValue | None) -> tuple[str, list[Op]]:
            last = Sequence.parse(item.value.decode()) if item else Sequence(0, 0)
            following = str(max(last.next(), Sequence(self.epoch, 1)))
            return following, [PutOp(run_keys.COUNTER, following.encode())]

        with self._id_lock:  # the threads of one process do not race for the counter
            return self._update(run_keys.COUNTER, change)

    # Runs

    def find_run(self, run_id: str) -> StoredRun | None:
        """Return an active run; None if it is archived or unknown."""
        for _ in range(_LOST_RACES):
            item = self.coordinator.get(run_keys.RUNS.key(run_id))
            if item is None:
                return None
            run, count = decode_header(item)
            if not count:
                return StoredRun(run, item.mod_revision)
            parts = self.coordinator.list(run_keys.run_parts(run_id)).items
            if len(parts) == count and all(part.mod_revision <= item.mod_revision for part in parts):
                return StoredRun(with_parts(run, (decode_part(part) for part in parts)), item.mod_revision)
        raise ConflictError(f"run {run_id!r} changes too fast to be read")

    def has_run(self, run_id: str) -> bool:
        """Return whether a run is active."""
        return self.coordinator.get(run_keys.RUNS.key(run_id)) is not None

    def runs(self, revision: int = 0) -> Iterator[Run]:
        """Yield all active runs, oldest first, as of `revision` if given."""
        run: Run | None = None
        parts: list[list[RunTask]] = []
        for item in iterate(self.coordinator, run_keys.RUNS, revision=revision):
            if "/" in run_keys.RUNS.name(item.key):
                parts.append(decode_part(item))
                continue
            if run is not None:
                yield with_parts(run, parts) if parts else run
            run, parts = decode_header(item)[0], []
        if run is not None:
            yield with_parts(run, parts) if parts else run

    def change_run(self, run_id: str, change: Callable[[Run], Run], token: str = "") -> Run:
        """Change an active run, retrying after concurrent changes, and return it.

        A change of its phase or result creates an event. Agola's rule on tokens: a change that changes nothing ignores
        them.

        Args:
            run_id: The run.
            change: Returns the changed run; may raise; called again after a lost race.
            token: Of change groups; "" guards nothing.

        Raises:
            NotFoundError: There is no such active run.
            BadRequestError: The token is invalid.
            ConflictError: A change group of the token has changed.
        """
        GroupsToken.decode(token)  # an invalid one is refused in any case
        for _ in range(_LOST_RACES):
            stored = self.find_run(run_id)
            if stored is None:
                raise NotFoundError(f'run "{run_id}" is not active')
            changed = change(stored.run)
            if changed == stored.run:
                return changed
            compare, ops = self.groups.guards(token)
            if self.commit(stored, changed, compare, ops):
                return changed
            if token:
                self.groups.check(token)
        raise ConflictError(f"run {run_id!r} changes too fast")

    def commit(self, stored: StoredRun, changed: Run, compare: Iterable[Compare] = (), ops: Iterable[Op] = ()) -> int:
        """Store a changed run with further changes; return its revision, or 0 after a concurrent change.

        Args:
            stored: The run as it was read.
            changed: The changed run.
            compare: Further conditions.
            ops: Further changes.
        """
        return self.write(self.run_compare(stored, compare), [*self.run_changes(stored.run, changed), *ops])

    @staticmethod
    def run_compare(stored: StoredRun, compare: Iterable[Compare] = ()) -> list[Compare]:
        """Return the condition that a run is unchanged since it was read, and further ones."""
        return [Compare(run_keys.RUNS.key(stored.run.id), stored.revision), *compare]

    @staticmethod
    def run_changes(before: Run, changed: Run) -> list[Op]:
        """Return the operations that store a changed run, with the event of its change."""
        ops = run_ops(changed, before)
        if (changed.phase, changed.result) != (before.phase, before.result):
            ops.append(event_op(changed))
        return ops

    # Tasks on executors

    def task(self, task_id: str) -> ExecutorTask | None:
        """Return an executor task; None if no executor has it."""
        item = self.coordinator.get(run_keys.TASKS.key(task_id))
        return decode_task(item) if item else None

    def tasks_of(self, executor_id: str) -> list[ExecutorTask]:
        """Return the tasks of an executor."""
        prefix = run_keys.held_by(executor_id)
        found = [run_keys.TASKS.key(prefix.name(item.key)) for item in iterate(self.coordinator, prefix)]
        tasks = []
        for start in range(0, len(found), _PART):
            reads = self.coordinator.txn([], [GetOp(key) for key in found[start : start + _PART]]).reads
            tasks += [decode_task(item) for item in reads if item is not None]
        return [task for task in tasks if task.status.executor_id == executor_id]

    def replace_task(self, known: ExecutorTask, changed: ExecutorTask) -> bool:
        """Store a changed executor task unless it differs from `known` by now; return whether it was stored."""
        return bool(self.write([Compare(run_keys.TASKS.key(known.id), known.revision)], [put_task(changed)]))

    def change_task(self, task_id: str, change: Callable[[ExecutorTask], ExecutorTask]) -> ExecutorTask | None:
        """Change an executor task, retrying after concurrent changes; return it, or None if it does not exist."""

        def update(item: KeyValue | None) -> tuple[ExecutorTask | None, list[Op]]:
            if item is None:
                return None, []
            task = decode_task(item)
            changed = change(task)
            return changed, [put_task(changed)] if changed != task else []

        return self._update(run_keys.TASKS.key(task_id), update)

    def forget_tasks(self, tasks: Iterable[ExecutorTask]) -> None:
        """Delete executor tasks whose data is stored or unwanted; the executors may then remove their copies."""
        going = list(tasks)
        for start in range(0, len(going), _PART):
            part = going[start : start + _PART]
            self.write([], [op for task in part for op in forget_ops(task)])

    # Executors

    def executors(self) -> list[Executor]:
        """Return the registered executors, by id."""
        return [decode_executor(item) for item in iterate(self.coordinator, run_keys.EXECUTORS)]

    def executor(self, executor_id: str) -> Executor | None:
        """Return an executor; None if it is not registered."""
        found = self.coordinator.get(run_keys.EXECUTORS.key(executor_id))
        return None if found is None else decode_executor(found)

    def put_executor(self, executor: Executor) -> None:
        """Store an executor."""
        self.write([], [PutOp(run_keys.EXECUTORS.key(executor.id), _encode(executor))])

    def delete_executor(self, executor_id: str) -> None:
        """Delete an executor, upon which its tasks fail."""
        self.write([], [DeleteOp(run_keys.EXECUTORS.key(executor_id)), DeleteOp(run_keys.ALIVE.key(executor_id))])

    def put_alive(self, executor_id: str, ttl: float) -> None:
        """Record that an executor is alive, for `ttl` seconds."""
        lease = self.coordinator.grant_lease(ttl)
        self.write([], [PutOp(run_keys.ALIVE.key(executor_id), b"", lease)])

    # Events

    def trim_events(self, keep: int) -> int:
        """Delete all but the newest run events; return how many."""
        items = sorted(iterate(self.coordinator, run_keys.EVENTS), key=lambda item: item.mod_revision)
        going = [item.key for item in items[: max(0, len(items) - keep)]]
        for start in range(0, len(going), _PART):
            self.write([], [DeleteOp(key) for key in going[start : start + _PART]])
        return len(going)

    # Helpers

    def write(self, compare: list[Compare], ops: list[Op]) -> int:
        """Run a transaction; return its revision, or 0 if a condition failed."""
        faultpoints.reach("runservice.before-txn")
        result = self.coordinator.txn(compare, ops)
        if not result.succeeded:
            return 0
        self.note_written(result.revision)
        return result.revision

    def note_written(self, revision: int) -> None:
        """Record that this process has written at a revision."""
        self.written = max(self.written, revision)

    def _update(self, key: str, change: Callable[[KeyValue | None], tuple[T, list[Op]]]) -> T:
        for _ in range(_LOST_RACES):
            item = self.coordinator.get(key)
            result, ops = change(item)
            if not ops or self.write([Compare(key, item.mod_revision if item else 0)], ops):
                return result
        raise ConflictError(f"{key} changes too fast")
