"""R1: a store's process is killed at a named fault point, then opened, perhaps killed again, and looked at.

A trial is a store's life of some cycles. In each, a child does a random sequence of operations and tells the parent
what it is about to do and what was acknowledged; it dies at a random point. What the next child finds must be what
was acknowledged, with the one operation in flight done or not done, whole.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from agola_core import Delete, Durability, Options, Put
from agola_core.coordinator.port import Coordinator
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.datamanager import DataManager
from agola_core.errors import ConflictError
from agola_core.objectstorage import ObjectStorage
from agola_core.objectstorage.posix.storage import PosixStorage
from agola_core.runtime import faultpoints
from agola_core.runtime.clock import boot_clock
from tests.soak.trial import Campaign, Say, Violation, run_child

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A killed process loses nothing that it wrote, so these stores need no disk."""

TYPES = ("a", "b")
CYCLES = 20
_OPERATIONS = 14
_HITS = (1, 1, 1, 2, 3)
_PROCEDURES = ("commit", "sync", "checkpoint", "clean", "collect", "instance", "lineage", "export", "import")

State = dict[str, str]
"""What a store holds: "type/id" to the data."""

OPTIONS = Options(
    background=False,
    inline_limit=48,
    block_size=120,
    file_size=100,
    retain_wals=2,
    retain_wal_ids=3,
    retain_manifests=2,
    retain_groups=2,
    grace_period=0.0,
    lock_ttl=10.0,
)


@cache
def points() -> tuple[str, ...]:
    """Return the fault points of the datamanager, sorted."""
    return tuple(sorted(point for point in faultpoints.declared() if point.split(".")[0] in _PROCEDURES))


class Store(Protocol):
    """Where a trial's store lies."""

    def open(self, durability: Durability, age: int) -> AbstractContextManager[DataManager]:
        """Open it for the length of a block, as the process number `age` of its life."""

    def lose_coordinator(self) -> None:
        """Empty the coordinator."""


class EmbeddedStore:
    """A store on SQLite and posix below a directory. Each process sees the leases of those before it ended.

    Args:
        directory: Where it lies.
        make_storage: Opens its storage.
        clock: The time of day.
        new_uuid: Makes ids.
        options: The store's.
        hours: How much later each process of its life comes.
    """

    def __init__(
        self,
        directory: Path,
        make_storage: Callable[[Path], ObjectStorage] = PosixStorage,
        *,
        clock: Callable[[], float] = time.time,
        new_uuid: Callable[[], str] = lambda: uuid.uuid4().hex,
        options: Options = OPTIONS,
        hours: int = 1,
    ) -> None:
        self._make_storage = make_storage
        self._clock = clock
        self._new_uuid = new_uuid
        self._options = options
        self._hours = hours
        self._storage = directory / "storage"
        self._coordinator = directory / "coordinator.db"

    @contextmanager
    def open(self, durability: Durability, age: int, name: str = "") -> Iterator[DataManager]:
        """Open it for the length of a block."""
        coordinator = self._open_coordinator(age)
        try:
            storage = self._make_storage(self._storage)
        except BaseException:
            coordinator.close()
            raise
        options = msgspec.structs.replace(self._options, durability=durability, instance=name)
        try:
            with DataManager(coordinator, storage, TYPES, options, clock=self._clock, new_uuid=self._new_uuid) as dm:
                yield dm
        finally:
            coordinator.close()
            storage.close()

    def _open_coordinator(self, age: int) -> Coordinator:
        coordinator = SQLiteCoordinator(self._coordinator, clock=lambda: boot_clock() + age * self._hours * 3600)
        try:
            coordinator.expire_leases()
        except BaseException:
            coordinator.close()
            raise
        return coordinator

    def lose_coordinator(self) -> None:
        """Delete the database."""
        for file in self._coordinator.parent.glob("coordinator.db*"):
            file.unlink()


def trial(seed: int, make_store: Callable[[Path], Store] = EmbeddedStore, cycles: int = CYCLES) -> Counter[str]:
    """Run one store's life.

    Args:
        seed: What it is made from.
        make_store: Makes the store below a fresh directory.
        cycles: How often its process is killed.

    Raises:
        Violation: Something acknowledged was lost, something refused was seen, or a repair was needed.
    """
    rng = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY))
    counts: Counter[str] = Counter()
    try:
        store = make_store(directory)
        durability = rng.choice([Durability.COORDINATOR, Durability.STORAGE])
        state: State = {}
        for cycle in range(cycles):
            where = f"seed {seed}, cycle {cycle}"
            point, hit, work_seed = _choose(rng), rng.choice(_HITS), rng.randrange(1 << 60)
            task = partial(work, store, durability, 3 * cycle, state, work_seed)
            ended = _child(task, point, hit)
            counts["cycles"] += 1
            counts[f"killed at {point}" if ended.killed else "not killed"] += 1
            state, pending = _acknowledged(state, ended.said, where)
            if durability is Durability.STORAGE and rng.random() < 0.2:
                store.lose_coordinator()
                counts["coordinators lost"] += 1
            state = _look(store, durability, 3 * cycle + 1, rng, state, pending, where, counts)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return counts


class _Child:
    def __init__(self, killed: bool, said: list[Any]) -> None:
        self.killed = killed
        self.said = said


def _child(task: Callable[[Say], None], point: str, hit: int) -> _Child:
    def armed(say: Say) -> None:
        with faultpoints.arm(faultpoints.trigger(f"{point}:{hit}:kill")):
            task(say)

    ended = run_child(armed)
    if ended.status not in {0, -signal.SIGKILL}:
        raise Violation(f"{point}:{hit}: a process ended with {ended.status}: {ended.said[-1:]}")
    return _Child(ended.status == -signal.SIGKILL, ended.said)


def _acknowledged(state: State, said: list[Any], where: str) -> tuple[State, State | None]:
    """Return the state that was acknowledged, and what the operation in flight would make of it."""
    pending: State | None = None
    for record in said:
        match record:
            case ["begin", after]:
                pending = after
            case ["done"]:
                assert pending is not None
                state, pending = pending, None
            case ["refused"]:
                pending = None
            case _:
                raise Violation(f"{where}: {record}")
    return state, pending


def _choose(rng: random.Random) -> str:
    """Return a fault point; procedures are chosen alike, however many points they have."""
    procedure = rng.choice(_PROCEDURES)
    return rng.choice([point for point in points() if point.startswith(f"{procedure}.")] or list(points()))


def _look(
    store: Store,
    durability: Durability,
    age: int,
    rng: random.Random,
    state: State,
    pending: State | None,
    where: str,
    counts: Counter[str],
) -> State:
    """Open the store, which may be killed on the way, and compare what it holds."""

    def look(age: int, say: Say) -> None:
        with store.open(durability, age) as dm:
            found = content(dm)
            dm.sync()  # an unacknowledged WAL that is seen here might go with the coordinator later
            say(["found", found, [str(finding) for finding in dm.verify()]])

    if rng.random() < 0.4:
        counts["recoveries killed"] += _child(partial(look, age), _choose(rng), 1).killed
    ended = run_child(partial(look, age + 1))
    if ended.status != 0:
        raise Violation(f"{where}: the store does not open: {ended.said}")
    ((_, found, findings),) = ended.said
    if findings:
        raise Violation(f"{where}: verify found {findings}")
    if found != state and found != pending:
        raise Violation(f"{where}: found {difference(found, state)} beside what was acknowledged; in flight: {pending}")
    result: State = found
    return result


def content(dm: DataManager) -> State:
    """Return what a store holds."""
    return {f"{kind}/{key}": data.decode() for kind in TYPES for key, data in dm.list_objects(kind)}


def difference(found: State, wanted: State) -> dict[str, tuple[str | None, str | None]]:
    """Return what is found and what is wanted of each key where they differ."""
    keys = found.keys() | wanted.keys()
    return {key: (found.get(key), wanted.get(key)) for key in keys if found.get(key) != wanted.get(key)}


def work(store: Store, durability: Durability, age: int, state: State, seed: int, say: Say) -> None:
    """Do random operations on a store, and tell before each what it will make, after it that it is done."""
    rng = random.Random(seed)
    state = dict(state)
    for opening in _openings(rng):
        with store.open(durability, age) as dm:
            for _ in range(opening):
                state = operation(dm, rng, state, say)


def _openings(rng: random.Random) -> Iterator[int]:
    left = _OPERATIONS
    while left > 0:
        part = rng.randint(1, left)
        left -= part
        yield part


def operation(dm: DataManager, rng: random.Random, state: State, say: Say) -> State:
    """Do a random operation, tell what it makes, and return what the store then holds."""
    kind = rng.random()
    if kind < 0.6:
        return _write(dm, rng, state, say)
    if kind < 0.64:
        return _replace(dm, rng, say)
    if kind < 0.74:
        dm.checkpoint(force=True)
    elif kind < 0.84:
        dm.sync()
    elif kind < 0.92:
        dm.clean_up()
    else:
        dm.collect_garbage()
    return state


def _write(dm: DataManager, rng: random.Random, state: State, say: Say) -> State:
    after = dict(state)
    actions: list[Put | Delete] = []
    for _ in range(rng.randint(1, 4)):
        data_type, key = rng.choice(TYPES), f"k{rng.randrange(12)}"
        if rng.random() < 0.25:
            actions.append(Delete(data_type, key))
            after.pop(f"{data_type}/{key}", None)
        else:
            data = f"{rng.randrange(1 << 40):x}" * rng.choice([0, 1, 1, 9])
            actions.append(Put(data_type, key, data.encode()))
            after[f"{data_type}/{key}"] = data
    wal_id = f"id-{rng.randrange(1 << 40)}" if rng.random() < 0.3 else ""
    group = f"g{rng.randrange(4)}"
    token = dm.change_groups_token([group]) if rng.random() < 0.5 else None
    if token is not None and rng.random() < 0.2:  # somebody else is first
        say(["begin", state])
        dm.write_wal([Delete("b", "never written")], dm.change_groups_token([group]))
        say(["done"])
    say(["begin", after])
    try:
        dm.write_wal(actions, token, wal_id=wal_id)
    except ConflictError:
        say(["refused"])
        return state
    say(["done"])
    return after


def _replace(dm: DataManager, rng: random.Random, say: Say) -> State:
    """Export the store, and import the export with one object changed by the side."""
    exported = io.BytesIO()
    dm.export(exported)
    exported.seek(0)
    found = content(dm)
    extra = f"x{rng.randrange(1 << 40):x}"
    say(["begin", {**found, "a/k0": extra}])
    dm.write_wal([Put("a", "k0", extra.encode())])
    say(["done"])
    say(["begin", found])
    dm.import_(exported)
    say(["done"])
    return found


CAMPAIGN = Campaign("kill", "cycles of kill and recovery at named fault points, SQLite and posix", trial)
