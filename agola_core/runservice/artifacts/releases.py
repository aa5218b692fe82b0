"""What runs are to let go of, written down first: a crash leaves no logs that nobody refers to, nor loses any.

A restart writes down the tasks that it is going to share before it refers to them, and takes the note back in the
transaction that makes it a run. A deletion writes them down in the transaction that ends the run. Whoever carries a
note out claims it first, so a restart that was taken for dead cannot appear afterwards: its transaction is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import msgspec

from agola_core.coordinator.port import Compare, DeleteOp, PutOp, iterate
from agola_core.decoding import decoded
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.artifacts.references import release
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.store import RunStore

_DEAD = timedelta(seconds=60)


class Release(msgspec.Struct, frozen=True):
    """A note.

    Attributes:
        tasks: The tasks' ids.
        time: When it was written.
        claimed: Whether it is to be carried out, whatever its run becomes.
    """

    tasks: list[str]
    time: datetime
    claimed: bool = False


_decode = msgspec.json.Decoder(Release).decode


class Releases:
    """The notes in the coordinator.

    Args:
        store: Has the coordinator.
        storage: Where logs and archives lie.
        now: The time.
    """

    def __init__(self, store: RunStore, storage: ObjectStorage, now: Callable[[], datetime]) -> None:
        self._store = store
        self._storage = storage
        self._now = now

    def note(self, run_id: str, tasks: Iterable[str]) -> Compare:
        """Note what a run that is about to be refers to; return the condition of its becoming one."""
        key = run_keys.RELEASES.key(run_id)
        revision = self._store.write([Compare(key, 0)], [self._put(run_id, tasks, claimed=False)])
        return Compare(key, revision)

    def ending(self, run_id: str, tasks: Iterable[str]) -> PutOp:
        """Return the operation that notes what a run lets go of by its end."""
        return self._put(run_id, tasks, claimed=True)

    def carry_out(self, run_id: str) -> None:
        """Let go of what a note names, and forget the note."""
        key = run_keys.RELEASES.key(run_id)
        item = self._store.coordinator.get(key)
        if item is None:
            return
        noted = decoded(_decode, item.value, item.key)
        revision = item.mod_revision
        if not noted.claimed:
            revision = self._store.write([Compare(key, revision)], [self._put(run_id, noted.tasks, claimed=True)])
            if not revision:
                return  # it became a run after all, or somebody else carries it out
        for task_id in noted.tasks:
            release(self._storage, task_id, run_id)
        self._store.write([Compare(key, revision)], [DeleteOp(key)])

    def sweep(self) -> int:
        """Carry out the notes that a crash left; return how many there were."""
        left = 0
        for item in list(iterate(self._store.coordinator, run_keys.RELEASES)):
            noted = decoded(_decode, item.value, item.key)
            if noted.claimed or self._now() - noted.time > _DEAD:
                self.carry_out(run_keys.RELEASES.name(item.key))
                left += 1
        return left

    def _put(self, run_id: str, tasks: Iterable[str], *, claimed: bool) -> PutOp:
        return PutOp(run_keys.RELEASES.key(run_id), msgspec.json.encode(Release(list(tasks), self._now(), claimed)))
