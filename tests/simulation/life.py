"""What the processes of a world do: they open the store, write, read, keep it up, and are checked at every answer."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import suppress

import msgspec

from agola_core import Delete, Durability, Options, Put
from agola_core.datamanager import ChangeGroupsToken, DataManager, Feed, Snapshot
from agola_core.datamanager.types import Action
from agola_core.errors import (
    ClosedError,
    CompactedError,
    ConflictError,
    CorruptionError,
    FencedError,
    NotFoundError,
    RecoveryError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.sequence import Sequence
from tests.simulation.backends import WorldCoordinator, WorldStorage
from tests.simulation.memory_coordinator import Cluster
from tests.simulation.memory_storage import Bucket
from tests.simulation.scheduler import Process, World
from tests.simulation.truth import TYPES, Intent, State, Truth
from tests.soak.trial import Violation

OPTIONS = Options(
    background=False,
    inline_limit=64,
    block_size=120,
    file_size=100,
    retain_wals=2,
    retain_manifests=2,
    checkpoint_wals=6,
    checkpoint_interval=5.0,
    grace_period=3.0,
    lock_ttl=2.0,
)
_KEYS, _GROUPS = 9, 3
_TROUBLE = (UnavailableError, UnknownOutcomeError, FencedError)
_PAUSE = 0.05
_LEAVING = 0.002


class Store:
    """What all processes of a world share.

    Attributes:
        must_recover: Whether the coordinator is an old one, so that it must be refused at first.
        was_refused: Whether it was, so that whoever opens the store now asks for a recovery.
        retries: Writes with ids whose outcome their writers do not know.
    """

    def __init__(self, world: World, options: Options) -> None:
        self.world = world
        self.options = options
        self.cluster = Cluster("first", lambda: world.now)
        self.bucket = Bucket(lambda: world.now)
        self.truth = Truth(self.cluster, self.bucket, world.fail)
        self.must_recover = self.was_refused = False
        self.retries: list[Intent] = []
        self.exports: list[tuple[bytes, State]] = []
        self.wall_offset = 0.0

    def new_uuid(self) -> str:
        return f"{self.world.rng.getrandbits(128):032x}"


class Life:
    """One process, from its start to its end.

    Args:
        store: What it opens.
        process: It.
        recovered: Called once the store was opened and found right.
    """

    def __init__(self, store: Store, process: Process, recovered: Callable[[], None]) -> None:
        self.store = store
        self.recovered = recovered
        self.process = process
        self.world = store.world
        self.truth = store.truth
        self.rng = random.Random(store.world.rng.getrandbits(64))
        self.dm: DataManager
        self.writing: list[Intent] = []

    def run(self) -> None:
        """Open the store, check it, work on it, and close it."""
        before = self.truth.current
        least = len(before.wals) if before else 0
        self._open()
        self.store.must_recover = self.store.was_refused = False
        with self.dm.snapshot() as snapshot:
            self._check(snapshot, least if before and snapshot.lineage == before.record.lineage else 0)
        self.recovered()
        if self.dm.options.background:
            works = [self._write_on, self._write_on, self._read_on]
        else:
            works = [self._write_on, self._keep_up, *self.rng.choice(([], [self._write_on], [self._read_on]))]
        tasks = [self.world.spawn(f"task{number}", work) for number, work in enumerate(works)]
        for task in tasks:
            self.world.join(task)
        self.dm.close()
        self.world.counts["closed"] += 1

    def look(self) -> None:
        """Open the store, sync and check everything that it has, and close it."""
        self._open()
        self.store.must_recover = self.store.was_refused = False
        with self.dm.snapshot() as snapshot:
            current = self.truth.current
            self._check(snapshot, len(current.wals) if current else 0)
        self.dm.sync()
        findings = self.dm.verify()
        if findings:
            raise Violation(f"verify found {[str(finding) for finding in findings]}")
        self.dm.close()

    def _open(self) -> None:
        coordinator = WorldCoordinator(self.store.cluster, self.world)
        storage = WorldStorage(self.store.bucket, self.world, self.truth.deleting)
        options = msgspec.structs.replace(self.store.options, instance=self.process.name)
        while True:
            recover = self.store.was_refused
            try:
                self.dm = DataManager(
                    coordinator,
                    storage,
                    TYPES,
                    options,
                    recover=recover,
                    clock=self.wall,
                    new_uuid=self.store.new_uuid,
                )
                if self.store.must_recover and not recover:
                    raise Violation("a coordinator that was set back is not noticed")
                return
            except _TROUBLE:
                left = [task.name for task in self.process.tasks if task is not self.world.current]
                if left:
                    raise Violation(f"a failed opening leaves {left}") from None
            except ConflictError:
                if not recover:
                    raise
            except RecoveryError:
                if not self.store.must_recover:
                    raise
                self.world.counts["old coordinators refused"] += 1
                self.store.was_refused = True
            self.world.sleep(_PAUSE)

    def wall(self) -> float:
        """Return the time of day, as this process has it."""
        return self.world.now + self.store.wall_offset

    def _check(self, snapshot: Snapshot, least: int = 0) -> None:
        try:
            self.truth.check_view(snapshot.lineage, snapshot.sequence, content(snapshot), least)
        except CorruptionError as error:
            if self.process.name not in self.truth.fallen:
                raise Violation(f"a snapshot cannot be read: {error}") from error
        except UnavailableError:
            return

    def _loop(self, step: Callable[[], None]) -> None:
        while not self.process.leaving:
            self.world.point("next")
            if self.rng.random() < _LEAVING:
                self.process.leaving = True
            try:
                step()
            except (*_TROUBLE, CompactedError):
                self.world.sleep(_PAUSE)

    # Writing

    def _write_on(self) -> None:
        tokens: list[ChangeGroupsToken] = []

        def step() -> None:
            if self.store.retries and self.rng.random() < 0.3:
                self._write(self.store.retries.pop(self.rng.randrange(len(self.store.retries))))
                return
            token = None
            if self.rng.random() < 0.5:
                if not tokens or self.rng.random() < 0.7:
                    tokens.append(self._read_with_token())
                token = tokens.pop(self.rng.randrange(len(tokens)))
            actions: list[Action] = []
            for _ in range(self.rng.randint(0, 2)):
                kind, key = self.rng.choice(TYPES), f"k{self.rng.randrange(_KEYS)}"
                if self.rng.random() < 0.3:
                    actions.append(Delete(kind, key))
                else:
                    data = b"%x" % self.rng.getrandbits(32)
                    actions.append(Put(kind, key, data * self.rng.choice((1, 1, 1, 12, 40))))
            wal_id = f"id{self.rng.getrandbits(48):x}" if self.rng.random() < 0.4 else ""
            self._write(self.truth.new_intent(actions, token, wal_id))

        self._loop(step)

    def _write(self, intent: Intent) -> None:
        truth, first = self.truth, not intent.tried
        durable = self.store.options.durability is Durability.STORAGE
        intent.tried = True
        self.writing.append(intent)
        known = True
        try:
            result = self.dm.write_wal(intent.actions, intent.token, wal_id=intent.wal_id, timeout=20.0)
            truth.check_acknowledged(intent, result, durable=durable)
            self.world.counts["writes"] += 1
        except ConflictError as error:
            truth.check_conflict(intent, error)
            self.world.counts["conflicts"] += 1
        except (UnavailableError, FencedError) as error:
            known = first and "committed" not in str(error)
            if known:  # what became of an earlier try, this one cannot tell
                truth.check_refused(intent, error)
        except (UnknownOutcomeError, ClosedError):
            known = False
        self.writing.remove(intent)
        if not known and intent.wal_id:
            self.store.retries.append(intent)

    def _read_with_token(self) -> ChangeGroupsToken:
        groups = [f"g{self.rng.randrange(_GROUPS)}" for _ in range(self.rng.randint(1, 2))]
        key = (self.rng.choice(TYPES), f"k{self.rng.randrange(_KEYS)}")
        before = self.dm.sequence
        try:
            data, token = self.dm.read_object(*key, groups)
        except NotFoundError:
            return self.dm.change_groups_token(groups)
        if self.dm.sequence.epoch == before.epoch:
            self.truth.check_object(key, data, token, before.counter)
        return token

    # Upkeep

    def _keep_up(self) -> None:
        def step() -> None:
            roll = self.rng.random()
            if roll < 0.25:
                self.dm.sync()
            elif roll < 0.5:
                self.dm.checkpoint(force=self.rng.random() < 0.3) or self.dm._store.tasks.checkpointer.try_once()
                self.dm._store.instance.publish()
            elif roll < 0.6:
                with suppress(ConflictError):  # imported meanwhile: nothing was cleaned
                    self.dm.clean_up()
            elif roll < 0.75:
                self.dm.collect_garbage()
            elif roll < 0.78:
                self._export()
            elif roll < 0.8 and self.store.exports:
                self._import()
            else:
                self._refresh()

        self._loop(step)

    def _refresh(self) -> None:
        current = self.truth.current
        least = len(current.wals) if current else 0
        sequence = self.dm.refresh()
        if current is not None and sequence.epoch == current.record.epoch and sequence.counter < least:
            raise Violation(f"refreshed to {sequence}, and there had been {least} WALs before")

    def _export(self) -> None:
        current = self.truth.current
        least = len(current.wals) if current else 0
        exported = io.BytesIO()
        result = self.dm.export(exported)
        self.world.counts["exports"] += 1
        sequence = Sequence.parse(result.sequence)
        if current is not None and sequence.epoch == current.record.epoch and sequence.counter < least:
            raise Violation(f"exported at {sequence}, and there had been {least} WALs before")
        self.store.exports.append((exported.getvalue(), self.truth.state_at(sequence)))

    def _import(self) -> None:
        """Import an export, which is refused while others have the store open."""
        stream, state = self.rng.choice(self.store.exports)
        self.truth.imported.append(state)
        before = self.dm.lineage
        try:
            self.dm.import_(io.BytesIO(stream))
        except ConflictError:
            self.world.counts["imports refused"] += 1
            return
        self.world.counts["imports"] += 1
        if self.dm.lineage == before:
            raise Violation("an import was acknowledged, and not made")

    # Reading

    def _read_on(self) -> None:
        snapshot: Snapshot | None = None
        feed: Feed | None = None
        lineage = ""

        def step() -> None:
            nonlocal snapshot, feed, lineage
            if snapshot is None:
                snapshot = self.dm.snapshot()
                if feed is None:
                    try:
                        feed, lineage = self.dm.watch(snapshot.sequence), snapshot.lineage
                    except (CompactedError, FencedError):
                        feed = None
            elif self.rng.random() < 0.2:
                held, snapshot = snapshot, None
                with held:
                    self._check(held)
            elif feed is not None:
                try:
                    self._follow(feed, lineage)
                except (CompactedError, FencedError):
                    feed = None
            else:
                self.world.sleep(_PAUSE)

        self._loop(step)

    def _follow(self, feed: Feed, lineage: str) -> None:
        try:
            event = feed.next(0.1)
        except CompactedError as error:
            history = self.truth.histories[lineage]
            if feed.position.counter >= history.checkpoint:
                raise Violation(f"the feed at {feed.position} is told that it is too slow: {error}") from error
            raise
        if event is not None:
            self.truth.check_event(lineage, event)


def content(snapshot: Snapshot) -> State:
    """Return what a snapshot holds."""
    return {(kind, key): data for kind in TYPES for key, data in snapshot.scan(kind)}


__all__ = ["OPTIONS", "Life", "Sequence", "Store", "content"]
