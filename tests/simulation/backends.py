"""The backends of a world: at each call the scheduler decides who goes on, and whether the call fails, and how."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence

from agola_core.coordinator.port import MAX_LIST, Compare, GetOp, KeyValue, Op, Page, TxnResult
from agola_core.errors import AgolaError, NoLeaderError, OutOfSpaceError, UnavailableError, UnknownOutcomeError
from agola_core.objectstorage.port import ObjectInfo, Payload
from tests.simulation.memory_coordinator import Cluster, MemoryCoordinator, MemoryWatch
from tests.simulation.memory_storage import Bucket, MemoryReader, MemoryStorage
from tests.simulation.scheduler import World
from tests.simulation.threads import Event

_LATEST = 4.0


class Fate(enum.Enum):
    """What becomes of a call that changes something."""

    DONE = enum.auto()
    REFUSED = enum.auto()
    LOST = enum.auto()
    LOST_BUT_DONE = enum.auto()
    LOST_AND_DONE_LATER = enum.auto()


_FAILURES = (Fate.REFUSED, Fate.LOST, Fate.LOST_BUT_DONE, Fate.LOST_BUT_DONE, Fate.LOST_AND_DONE_LATER)


class _Calls:
    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, label: str) -> None:
        """Begin a call that changes nothing."""
        world = self.world
        world.point(label)
        if world.rates.fail and world.rng.random() < world.rates.fail / 2:
            world.counts["calls failed"] += 1
            world.trace.append(f"{label} fails")
            raise UnavailableError(f"{label}: no connection")

    def change(self, label: str) -> Fate:
        """Begin a call that changes something."""
        world = self.world
        world.point(label)
        if not world.rates.fail or world.rng.random() >= world.rates.fail:
            return Fate.DONE
        fate = world.rng.choice(_FAILURES)
        world.counts["calls failed"] += 1
        world.trace.append(f"{label}: {fate.name}")
        return fate

    def later(self, work: Callable[[], object]) -> None:
        """Do something within the next seconds, whoever asked for it lives or not."""
        world = self.world

        def arrive() -> None:
            world.sleep(world.rng.random() * _LATEST)
            world.trace.append("what was lost arrives")
            try:
                work()
            except AgolaError:
                return

        world.immortal("network", arrive)


class WorldCoordinator(MemoryCoordinator):
    """A process's client of the world's cluster."""

    def __init__(self, cluster: Cluster, world: World) -> None:
        super().__init__(cluster, Event)  # type: ignore[arg-type]
        self._calls = _Calls(world)

    def get(self, key: str) -> KeyValue | None:
        self._calls.read(f"get {key}")
        return super().get(key)

    def list(self, prefix: str, *, start_after: str = "", limit: int = MAX_LIST, revision: int = 0) -> Page:
        self._calls.read(f"list {prefix}")
        return super().list(prefix, start_after=start_after, limit=limit, revision=revision)

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[GetOp] = ()) -> TxnResult:
        calls = self._calls
        label = f"txn {then[-1].key}" if then else "txn"
        fate = calls.change(label)
        if fate is Fate.REFUSED:
            raise calls.world.rng.choice((UnavailableError, NoLeaderError, OutOfSpaceError))(f"{label}: refused")
        if fate is Fate.LOST_AND_DONE_LATER:
            cluster = self.cluster
            calls.later(lambda: MemoryCoordinator(cluster).txn(compare, then, otherwise))
        if fate in {Fate.LOST, Fate.LOST_AND_DONE_LATER}:
            raise UnknownOutcomeError(f"{label}: the answer was lost")
        result = super().txn(compare, then, otherwise)
        calls.world.point("done")
        if fate is Fate.LOST_BUT_DONE:
            raise UnknownOutcomeError(f"{label}: the answer was lost")
        return result

    def watch(self, prefix: str, from_revision: int) -> MemoryWatch:
        self._calls.read(f"watch {prefix}")
        return super().watch(prefix, from_revision)

    def grant_lease(self, ttl: float) -> int:
        fate = self._calls.change("grant")
        lease = super().grant_lease(ttl) if fate in {Fate.DONE, Fate.LOST_BUT_DONE} else 0
        if fate is not Fate.DONE:
            raise UnavailableError("grant: no answer")
        return lease

    def keep_alive(self, lease: int) -> float:
        fate = self._calls.change("keep alive")
        left = super().keep_alive(lease) if fate in {Fate.DONE, Fate.LOST_BUT_DONE} else 0
        if fate is not Fate.DONE:
            raise UnavailableError("keep alive: no answer")
        return left

    def revoke_lease(self, lease: int) -> None:
        fate = self._calls.change("revoke")
        if fate in {Fate.DONE, Fate.LOST_BUT_DONE}:
            super().revoke_lease(lease)
        if fate is not Fate.DONE:
            raise UnavailableError("revoke: no answer")

    def compact(self, revision: int) -> None:
        self._calls.read("compact")
        super().compact(revision)


class WorldStorage(MemoryStorage):
    """A process's client of the world's bucket.

    Args:
        bucket: The objects.
        world: Decides.
        deleting: Told of each object before it goes.
    """

    def __init__(self, bucket: Bucket, world: World, deleting: Callable[[str], None]) -> None:
        super().__init__(bucket)
        self._calls = _Calls(world)
        self._deleting = deleting

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        self._calls.read(f"read {path}")
        return super().read(path, offset, length)

    def open_reader(self, path: str) -> MemoryReader:
        self._calls.read(f"open {path}")
        return super().open_reader(path)

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        whole = data if isinstance(data, bytes) else b"".join(data)
        calls = self._calls
        fate = calls.change(f"write {path}")
        if fate is Fate.LOST_AND_DONE_LATER:
            calls.later(lambda: self.bucket.put(path, whole, if_absent=if_absent))
        elif fate in {Fate.DONE, Fate.LOST_BUT_DONE}:
            super().write(path, whole, if_absent=if_absent)
            calls.world.point("written")
        if fate is Fate.REFUSED:
            raise calls.world.rng.choice((UnavailableError, OutOfSpaceError))(f"write {path}: refused")
        if fate is not Fate.DONE:
            raise UnavailableError(f"write {path}: no answer")
        return len(whole)

    def stat(self, path: str) -> ObjectInfo:
        self._calls.read(f"stat {path}")
        return super().stat(path)

    def delete(self, path: str) -> None:
        calls = self._calls
        fate = calls.change(f"delete {path}")
        if fate is Fate.LOST_AND_DONE_LATER:
            calls.later(lambda: self.bucket.remove(path))
        elif fate in {Fate.DONE, Fate.LOST_BUT_DONE}:
            self._deleting(path)
            super().delete(path)
        if fate is not Fate.DONE:
            raise UnavailableError(f"delete {path}: no answer")

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        self._calls.read(f"list {prefix}")
        return MemoryStorage(self.bucket).list(prefix, start_after, recursive)
