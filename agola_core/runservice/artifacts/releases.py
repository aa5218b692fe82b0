"""Records of references about to be released, written first: a crash neither leaks logs and archives nor loses any.

A restart records the tasks that it will share before it writes its references, and deletes the record in the
transaction that creates the run. A deletion writes the record in the transaction that deletes the run. Whoever carries
a record out claims it first, so a restart that was considered dead cannot appear afterwards: its transaction fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from agola_core.coordinator.port import Compare, DeleteOp, PutOp, iterate
from agola_core.encoding.decoding import decoded
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.artifacts.references import release
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.run_state import RunState

_DEAD = timedelta(seconds=60)


class Release(msgspec.Struct, frozen=True):
    """A record.

    Attributes:
        tasks: The tasks' ids.
        time: When it was written.
        claimed: Whether it will be carried out in any case.
    """

    tasks: list[str]
    time: datetime
    claimed: bool = False


_decode = msgspec.json.Decoder(Release).decode


class Releases:
    """The records in the coordinator."""

    def __init__(self, state: RunState, storage: ObjectStorage) -> None:
        self._store = state.store
        self._storage = storage
        self._now = state.now

    def note(self, run_id: str, tasks: Iterable[str]) -> Compare:
        """Record what a run that is about to be created refers to; return the condition for creating it."""
        key = run_keys.RELEASES.key(run_id)
        revision = self._store.write([Compare(key, 0)], [self._put(run_id, tasks, claimed=False)])
        return Compare(key, revision)

    def op(self, run_id: str, tasks: Iterable[str]) -> PutOp:
        """Return the operation that records, with a run's deletion, what it releases."""
        return self._put(run_id, tasks, claimed=True)

    def carry_out(self, run_id: str) -> None:
        """Release what a record names, and delete the record."""
        key = run_keys.RELEASES.key(run_id)
        item = self._store.coordinator.get(key)
        if item is None:
            return
        noted = decoded(_decode, item.value, item.key)
        revision = item.mod_revision
        if not noted.claimed:
            revision = self._store.write([Compare(key, revision)], [self._put(run_id, noted.tasks, claimed=True)])
            if not revision:
                return  # the run was created after all, or another service carries it out
        for task_id in noted.tasks:
            release(self._storage, task_id, run_id)
        self._store.write([Compare(key, revision)], [DeleteOp(key)])

    def sweep(self) -> int:
        """Carry out the records that a crash left; return how many there were."""
        left = 0
        for item in list(iterate(self._store.coordinator, run_keys.RELEASES)):
            noted = decoded(_decode, item.value, item.key)
            if noted.claimed or self._now() - noted.time > _DEAD:
                self.carry_out(run_keys.RELEASES.name(item.key))
                left += 1
        return left

    def _put(self, run_id: str, tasks: Iterable[str], *, claimed: bool) -> PutOp:
        return PutOp(run_keys.RELEASES.key(run_id), msgspec.json.encode(Release(list(tasks), self._now(), claimed)))
