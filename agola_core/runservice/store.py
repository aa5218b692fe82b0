"""Active runs, their tasks on executors, and executors, as the coordinator holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from agola_core import faultpoints
from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, KeyValue, Op, PutOp, iterate
from agola_core.errors import ConflictError, NotFoundError
from agola_core.runservice import keys
from agola_core.runservice.types import Executor, ExecutorTask, Run, RunEvent
from agola_core.sequence import Sequence

faultpoints.declare("runservice.before-txn")

T = TypeVar("T")

_LOST_RACES = 100
_PART = 100
_decode_run = msgspec.json.Decoder(Run).decode
_decode_task = msgspec.json.Decoder(ExecutorTask).decode
_decode_executor = msgspec.json.Decoder(Executor).decode
_encode = msgspec.json.Encoder().encode


class Stored(msgspec.Struct, frozen=True):
    """A run with the revision that it was read at."""

    run: Run
    revision: int


def decode_task(item: KeyValue) -> ExecutorTask:
    """Return the executor task at a key, its revision set."""
    return msgspec.structs.replace(_decode_task(item.value), revision=item.mod_revision)


def decode_run(item: KeyValue) -> Run:
    """Return the run at a key."""
    return _decode_run(item.value)


def decode_executor(item: KeyValue) -> Executor:
    """Return the executor at a key."""
    return _decode_executor(item.value)


def put_run(run: Run) -> PutOp:
    """Return the operation that stores an active run."""
    return PutOp(keys.run(run.id), _encode(run))


def put_task(task: ExecutorTask) -> PutOp:
    """Return the operation that stores a task of an executor."""
    return PutOp(keys.task(task.run_id, task.id), _encode(msgspec.structs.replace(task, revision=0)))


class RunStore:
    """The active part of the run service's state.

    Args:
        coordinator: Where it lies.
        epoch: The epoch of the sequences that are given out.
    """

    def __init__(self, coordinator: Coordinator, epoch: int) -> None:
        self.coordinator = coordinator
        self._epoch = epoch

    def next_sequence(self) -> str:
        """Return a sequence, as text, that was never given out before: an id of a run or of an event."""

        def change(item: KeyValue | None) -> tuple[str, list[Op]]:
            last = Sequence.parse(item.value.decode()) if item else Sequence(0, 0)
            following = str(max(last.next(), Sequence(self._epoch, 1)))
            return following, [PutOp(keys.COUNTER, following.encode())]

        return self._update(keys.COUNTER, change)

    def find_run(self, run_id: str) -> Stored | None:
        """Return an active run; None when it is archived or unknown."""
        item = self.coordinator.get(keys.run(run_id))
        return Stored(decode_run(item), item.mod_revision) if item else None

    def runs(self) -> Iterator[Run]:
        """Yield all active runs, oldest first."""
        return (decode_run(item) for item in iterate(self.coordinator, keys.RUNS))

    def tasks(self, run_id: str) -> dict[str, ExecutorTask]:
        """Return the tasks of a run that executors have, by id."""
        found = (decode_task(item) for item in iterate(self.coordinator, keys.tasks(run_id)))
        return {task.id: task for task in found}

    def all_tasks(self) -> Iterator[ExecutorTask]:
        """Yield the tasks that executors have, of all runs."""
        return (decode_task(item) for item in iterate(self.coordinator, keys.TASKS))

    def executors(self) -> list[Executor]:
        """Return the executors that have reported themselves."""
        return [decode_executor(item) for item in iterate(self.coordinator, keys.EXECUTORS)]

    def put_executor(self, executor: Executor) -> None:
        """Store an executor."""
        faultpoints.reach("runservice.before-txn")
        self.coordinator.txn([], [PutOp(keys.executor(executor.id), _encode(executor))])

    def change_run(self, run_id: str, change: Callable[[Run], Run], event: Callable[[], str] | None = None) -> Run:
        """Change an active run, again when another change came first, and return it.

        Args:
            run_id: The run.
            change: Returns the changed run; may raise; called again after a lost race.
            event: Gives a sequence for the event that a change of the phase or the result makes.

        Raises:
            NotFoundError: There is no such active run.
        """
        for _ in range(_LOST_RACES):
            stored = self.find_run(run_id)
            if stored is None:
                raise NotFoundError(f"run {run_id!r} is not active")
            changed = change(stored.run)
            if changed == stored.run or self.commit(stored, changed, [], event=event):
                return changed
        raise ConflictError(f"run {run_id!r} changes too fast")

    def commit(
        self,
        stored: Stored,
        changed: Run,
        compare: list[Compare],
        ops: list[Op] | None = None,
        event: Callable[[], str] | None = None,
    ) -> bool:
        """Store a changed run with further changes; return whether it did, or somebody else was first.

        Args:
            stored: The run as it was read.
            changed: The run as it is to be.
            compare: Further conditions.
            ops: Further changes.
            event: Gives a sequence for the event that a change of the phase or the result makes.
        """
        writes: list[Op] = [put_run(changed)] if changed != stored.run else []
        if event is not None and (changed.phase, changed.result) != (stored.run.phase, stored.run.result):
            writes.append(event_op(changed, event()))
        faultpoints.reach("runservice.before-txn")
        guarded = [Compare(keys.run(changed.id), stored.revision), *compare]
        return self.coordinator.txn(guarded, [*writes, *(ops or [])]).succeeded

    def archive(self, stored: Stored) -> bool:
        """Take a run out of the active ones, unless it changed; return whether it did."""
        key = keys.run(stored.run.id)
        faultpoints.reach("runservice.before-txn")
        return self.coordinator.txn([Compare(key, stored.revision)], [DeleteOp(key)]).succeeded

    def change_task(
        self, run_id: str, task_id: str, change: Callable[[ExecutorTask], ExecutorTask]
    ) -> ExecutorTask | None:
        """Change an executor's task, again after lost races; return it, or None when it does not exist."""

        def update(item: KeyValue | None) -> tuple[ExecutorTask | None, list[Op]]:
            if item is None:
                return None, []
            task = decode_task(item)
            changed = change(task)
            return changed, [put_task(changed)] if changed != task else []

        return self._update(keys.task(run_id, task_id), update)

    def delete_task(self, run_id: str, task_id: str) -> None:
        """Forget an executor's task: its data is stored, the executor may remove its own."""
        faultpoints.reach("runservice.before-txn")
        self.coordinator.txn([], [DeleteOp(keys.task(run_id, task_id))])

    def trim_events(self, keep: int) -> int:
        """Forget all run events but the newest ones; return how many went."""
        going = [item.key for item in iterate(self.coordinator, keys.EVENTS)][:-keep]
        for start in range(0, len(going), _PART):
            faultpoints.reach("runservice.before-txn")
            self.coordinator.txn([], [DeleteOp(key) for key in going[start : start + _PART]])
        return len(going)

    def _update(self, key: str, change: Callable[[KeyValue | None], tuple[T, list[Op]]]) -> T:
        for _ in range(_LOST_RACES):
            item = self.coordinator.get(key)
            result, ops = change(item)
            if not ops:
                return result
            faultpoints.reach("runservice.before-txn")
            if self.coordinator.txn([Compare(key, item.mod_revision if item else 0)], ops).succeeded:
                return result
        raise ConflictError(f"{key} changes too fast")


def event_op(run: Run, sequence: str) -> PutOp:
    """Return the operation that stores the event of a run's change."""
    event = RunEvent(sequence=sequence, run_id=run.id, phase=run.phase, result=run.result)
    return PutOp(keys.event(sequence), _encode(event))
