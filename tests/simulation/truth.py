"""What really happened, seen in the coordinator and in the storage where it is decided, and compared with what is told.

Everything here looks at the backends directly, between two steps of the world, so nothing of it fails or hands over.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import NamedTuple

from agola_core import Put
from agola_core.datamanager import ChangeGroupsToken
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.batches import list_batches, read_actions, read_batch
from agola_core.datamanager.format.lineages import stored_lineages
from agola_core.datamanager.format.records import CheckpointRecord, InstanceRecord, LineageRecord, SyncRecord, WalRecord
from agola_core.datamanager.identity.idempotency_keys import read_inherited_keys
from agola_core.datamanager.sstable.file_lists import paths
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.manifest import Manifest, read_manifest
from agola_core.datamanager.sstable.table import Table
from agola_core.datamanager.types import Action, Event
from agola_core.errors import AgolaError
from agola_core.sequence import Sequence
from tests.simulation.memory_coordinator import Changes, Cluster
from tests.simulation.memory_storage import Bucket, MemoryStorage
from tests.soak.trial import Violation

TYPES = ("a", "b")

State = dict[tuple[str, str], bytes]
"""What a store holds: of each type and id."""


class Intent:
    """A WAL that somebody wants written.

    Attributes:
        number: Its own; the data of its first action.
        tried: Whether somebody tried to write it.
        refused: Whether its writer was told that it was not written.
        applied: Where it was written; None when it was not, or the store was replaced since.
        replaced: Where it was written in a history that has ended.
    """

    def __init__(self, number: int, actions: Items[Action], token: ChangeGroupsToken | None, wal_id: str) -> None:
        self.number = number
        self.actions = tuple(actions)
        self.token = token
        self.wal_id = wal_id
        self.tried = False
        self.refused = False
        self.applied: Applied | None = None
        self.replaced: Applied | None = None


class Applied(NamedTuple):
    """A WAL that the coordinator has committed."""

    record: WalRecord
    intent: Intent
    revision: int


class History:
    """A lineage: what it began with, its WALs, and the state after each.

    Attributes:
        durable: The newest WAL that no loss of the coordinator may lose.
        checkpoint: The newest WAL of the current checkpoint.
    """

    def __init__(self, record: LineageRecord, base: State) -> None:
        self.record = record
        self.states = [base]
        self.wals: list[Applied] = []
        self.groups: dict[str, int] = {}
        self.durable = 0
        self.checkpoint = 0

    def counter_at(self, revision: int) -> int:
        """Return the newest WAL that had been committed at a revision."""
        return max((wal.record.counter for wal in self.wals if wal.revision <= revision), default=0)


class Published(NamedTuple):
    """A checkpoint that was the current one."""

    number: int
    paths: frozenset[str]


class Truth:
    """Follows a cluster and a bucket.

    Args:
        cluster: The coordinator's state.
        bucket: The storage's.
        fail: Told of what does not hold.

    Attributes:
        intents: By their numbers.
        histories: Every lineage that was the current one, by its id.
        live: The instances that are open, and the oldest checkpoint that each one reads.
        imported: What somebody has tried to import.
        fallen: Those whose leases ended once.
        current: The newest one; None before the store is made, and when the coordinator was lost.
    """

    def __init__(self, cluster: Cluster, bucket: Bucket, fail: Callable[[BaseException], None]) -> None:
        self.intents: list[Intent] = []
        self.histories: dict[str, History] = {}
        self.current: History | None = None
        self.live: dict[str, int] = {}
        self.fallen: set[str] = set()
        self.imported: list[State] = []
        self._published: list[Published] = []
        self._cluster = cluster
        self._storage = MemoryStorage(bucket)
        self._fail = fail
        cluster.committed = self._committed

    def new_intent(self, actions: Items[Action], token: ChangeGroupsToken | None, wal_id: str) -> Intent:
        """Note what is about to be written, marked with the intent's number."""
        number = len(self.intents)
        intent = Intent(number, [Put("a", "newest", b"%d" % number), *actions], token, wal_id)
        self.intents.append(intent)
        return intent

    # What the backends tell

    def _committed(self, revision: int, changes: Changes) -> None:
        try:
            written = {change.key: change for change in changes}
            lineage = written.get(keys.LINEAGE)
            if lineage is not None and lineage.item is not None:
                self._switched(
                    records.decode(LineageRecord, lineage.item.value, lineage.key),
                    written[keys.CHECKPOINT].item.value,  # type: ignore[union-attr]
                )
                return
            for change in changes:
                if change.key.startswith(keys.WALS) and change.item is not None:
                    self._wal(records.decode_wal(change.item.value, change.key), revision)
                elif change.key.startswith(keys.INSTANCES):
                    name = change.key.removeprefix(keys.INSTANCES)
                    if change.item is None:
                        self.live.pop(name, None)
                        self.fallen.add(name)  # its lease ended: nobody waits for its reads any more
                    elif name not in self.fallen:  # one that goes back waits for collections
                        reads = records.decode(InstanceRecord, change.item.value, change.key).manifest
                        self.live[name] = max(reads, self.live.get(name, 0))
                elif change.key == keys.CHECKPOINT and change.item is not None:
                    self._checkpoint(records.decode(CheckpointRecord, change.item.value, change.key))
                elif change.key == keys.SYNC and change.item is not None:
                    self._synced(Sequence.parse(records.decode(SyncRecord, change.item.value, change.key).sequence))
        except Violation as violation:
            self._fail(violation)

    def _switched(self, record: LineageRecord, checkpoint: bytes) -> None:
        named = records.decode(CheckpointRecord, checkpoint, keys.CHECKPOINT)
        manifest = self._manifest(named.path)
        base = self._content(manifest)
        match manifest.origin.value:
            case "create":
                if any(lineage.active for lineage in stored_lineages(self._storage)):
                    raise Violation("a new store was made although storage had one")
                self._forget(set())
            case "recovery":
                self._recovered(base)
                self._published = []  # of a recovery that was not finished nothing is kept
            case _:
                if base not in self.imported:
                    raise Violation(f"an import made {difference(base, self.imported[-1])}")
                self._forget(set())
        if any(record.epoch <= history.record.epoch for history in self.histories.values() if history.durable):
            raise Violation(f"epoch {record.epoch} does not lie after those before")
        self.current = self.histories[record.lineage] = History(record, base)
        self._published.append(self._needs(named, manifest))

    def _recovered(self, base: State) -> None:
        """Find where a recovery goes on, and forget what was lost with the coordinator."""
        histories = [*self.histories.values()]
        for index in range(len(histories) - 1, -1, -1):
            history = histories[index]
            if base in history.states:
                reached = history.states.index(base)  # each WAL makes another state
                if reached < history.durable:
                    raise Violation(
                        f"a recovery goes on after WAL {reached}: storage has those up to {history.durable}"
                    )
                if any(later.durable for later in histories[index + 1 :]):
                    raise Violation("a recovery goes on from a lineage that is not the newest in storage")
                told = self._told_ids(history.record.root)
                before = [wal for kept in histories[:index] for wal in kept.wals]
                self._forget({id(wal) for wal in (*before, *history.wals[:reached]) if wal.intent.wal_id in told})
                return
        newest = histories[-1].states[-1] if histories else {}
        raise Violation(f"a recovery made what never was; beside the newest state: {difference(base, newest)}")

    def _told_ids(self, root: str) -> set[str]:
        """Return the ids of WALs that the storage of a lineage tells."""
        batches = [read_batch(self._storage, path) for _, _, path in list_batches(self._storage, root)]
        given = {wal.wal_id for batch in batches for wal in batch if wal.given}
        return given.union(wal_id for wal_id, _ in read_inherited_keys(self._storage, root))

    def _forget(self, kept: set[int]) -> None:
        """Take the WALs whose ids the new lineage does not know as not written: a retry may write them again."""
        for intent in self.intents:
            if intent.applied is not None and id(intent.applied) not in kept:
                intent.applied, intent.replaced = None, intent.applied

    def _wal(self, record: WalRecord, revision: int) -> None:
        history = self._now()
        try:
            actions = read_actions(self._storage, record)
        except AgolaError as error:
            raise Violation(f"WAL {record.sequence} was committed, and cannot be read: {error}") from error
        intent = self.intents[int(actions[0].data)]  # type: ignore[union-attr]
        if tuple(actions) != intent.actions:
            raise Violation(f"WAL {record.sequence} is not what its writer wrote")
        if intent.refused:
            raise Violation(f"WAL {record.sequence} was committed after its writer was told that it was not")
        if intent.applied is not None:
            raise Violation(f"one write was committed twice, as {intent.applied.record.sequence} and {record.sequence}")
        if record.sequence != Sequence(history.record.epoch, len(history.wals) + 1):
            raise Violation(f"WAL {record.sequence} follows {len(history.wals)} in epoch {history.record.epoch}")
        if intent.token is not None:
            self._check_token(history, record, intent.token)
        for group in record.groups:
            history.groups[group] = revision
        applied = intent.applied = Applied(record, intent, revision)
        history.wals.append(applied)
        history.states.append(apply(history.states[-1], actions))

    def _check_token(self, history: History, record: WalRecord, token: ChangeGroupsToken) -> None:
        if token.lineage != history.record.lineage:
            raise Violation(f"WAL {record.sequence} was committed with a token of another lineage")
        for group, seen in token.groups.items():
            if history.groups.get(group, seen) != seen:
                raise Violation(
                    f"WAL {record.sequence} was committed although group {group} had changed at revision "
                    f"{history.groups[group]}, its writer saw {seen}"
                )

    def _checkpoint(self, named: CheckpointRecord) -> None:
        history = self._now()
        manifest = self._manifest(named.path)
        if manifest.lineage != history.record.lineage or str(manifest.sequence) != named.sequence:
            raise Violation(f"checkpoint {named.number} was published of another lineage or place")
        if manifest.sequence.counter < history.checkpoint:
            raise Violation(f"checkpoint {named.number} goes back to {named.sequence} from {history.checkpoint}")
        content, state = self._content(manifest), history.states[manifest.sequence.counter]
        if content != state:
            raise Violation(f"checkpoint {named.number} at {named.sequence} holds {difference(content, state)}")
        history.checkpoint = manifest.sequence.counter
        self._published.append(self._needs(named, manifest))

    def _synced(self, synced: Sequence) -> None:
        history = self._now()
        if synced.counter < history.durable or synced.epoch != history.record.epoch:
            raise Violation(f"the sync record goes back from {history.durable} to {synced}")
        self._check_batches(history, Sequence(synced.epoch, history.durable), synced)
        history.durable = synced.counter

    def _check_batches(self, history: History, after: Sequence, upto: Sequence) -> None:
        root = history.record.root
        if not any(lineage.root == root and lineage.active for lineage in stored_lineages(self._storage)):
            raise Violation("WALs are in storage before their lineage's marker")
        reached = after
        for first, last, _ in list_batches(self._storage, root, after):
            if first <= reached.next():
                reached = max(reached, last)
        if reached < upto:
            raise Violation(f"storage has the WALs up to {reached}, and {upto} is noted")

    def deleting(self, path: str) -> None:
        """Check that nobody needs an object any more."""
        history = self.current
        if history is None or not self._published:
            return
        oldest = min([*self.live.values(), self._published[-1].number])
        for published in self._published:
            if published.number >= oldest and path in published.paths:
                self._fail(Violation(f"{path} goes, and checkpoint {published.number} is read: {self.live}"))
        if any(
            wal.record.payload is not None and wal.record.payload.path == path
            for wal in history.wals[history.checkpoint :]
        ):
            self._fail(Violation(f"{path} goes, and is the payload of a WAL that is not checkpointed"))

    # What is told to processes

    def check_view(self, lineage: str, sequence: Sequence, content: State, least: int = 0) -> None:
        """Check what a process sees of a lineage at a place."""
        history = self.histories.get(lineage)
        if history is None or sequence.counter >= len(history.states) or sequence.counter < least:
            raise Violation(f"{sequence} of lineage {lineage} is read, which is not there, or lies behind {least}")
        state = history.states[sequence.counter]
        if content != state:
            raise Violation(f"at {sequence} is read {difference(content, state)}")

    def check_object(self, key: tuple[str, str], data: bytes | None, token: ChangeGroupsToken, first: int) -> None:
        """Check what was read of an object together with a token, at a WAL from `first` on."""
        history = self.histories.get(token.lineage)
        if history is None:
            raise Violation(f"a token of lineage {token.lineage}, which never was")
        oldest = max([first, *(history.counter_at(revision) for revision in token.groups.values())])
        if all(state.get(key) != data for state in history.states[oldest:]):
            raise Violation(f"{key} is read as {data!r} after WAL {oldest}, with a token of {token.groups}")

    def check_event(self, lineage: str, event: Event) -> None:
        """Check an event of a feed."""
        history = self.histories[lineage]
        wal = history.wals[event.sequence.counter - 1]
        if wal.intent.actions != event.actions or wal.record.wal_id != event.wal_id:
            raise Violation(f"the feed tells something else at {event.sequence}")

    def check_acknowledged(self, intent: Intent, result: ChangeGroupsToken, *, durable: bool) -> None:
        """Check the answer to a write that was acknowledged."""
        applied = intent.applied or intent.replaced
        if applied is None:
            raise Violation(f"write {intent.number} was acknowledged as {result.sequence}, and is not there")
        record = applied.record
        if str(record.sequence) != result.sequence:
            raise Violation(f"write {intent.number} is {record.sequence}, and was acknowledged as {result.sequence}")
        history = self._now()
        if durable and record.epoch == history.record.epoch and record.counter > history.durable:
            raise Violation(f"{record.sequence} was acknowledged as durable, and storage ends at {history.durable}")

    def check_refused(self, intent: Intent, error: Exception) -> None:
        """Note that a write was refused; it must not have been made, nor be made later."""
        if intent.applied is not None:
            raise Violation(f"write {intent.number} is {intent.applied.record.sequence}, and was refused: {error!r}")
        intent.refused = True

    def check_conflict(self, intent: Intent, error: Exception) -> None:
        """Check that a conflict is real (invariant 5)."""
        self.check_refused(intent, error)
        token, current = intent.token, self.current
        if token is None or current is None or token.lineage != current.record.lineage:
            return
        if all(current.groups.get(group, seen) == seen for group, seen in token.groups.items()):
            raise Violation(
                f"write {intent.number} with {token} was refused, and groups are {current.groups}: {error!r}"
            )

    # What is done to the coordinator

    def lost_coordinator(self, cluster: Cluster) -> None:
        """The keys are gone, or an older state of them is back: what storage has decides how it goes on."""
        self._cluster.committed = lambda revision, changes: None
        cluster.committed = self._committed
        self._cluster, self.current = cluster, None
        self.live = {}
        self._published = []

    def state_at(self, sequence: Sequence) -> State:
        """Return the state at a place."""
        (history,) = [found for found in self.histories.values() if found.record.epoch == sequence.epoch]
        return history.states[sequence.counter]

    def _now(self) -> History:
        if self.current is None:
            raise Violation("something is committed to a coordinator that was lost")
        return self.current

    def _manifest(self, path: str) -> Manifest:
        try:
            return read_manifest(self._storage, path)
        except AgolaError as error:
            raise Violation(f"a manifest was published that cannot be read: {error}") from error

    def _needs(self, named: CheckpointRecord, manifest: Manifest) -> Published:
        found = {named.path}
        for run in manifest.runs:
            found.update(paths(self._storage, BlockCache(), run))
        return Published(named.number, frozenset(found))

    def _content(self, manifest: Manifest) -> State:
        table = Table(self._storage, manifest, BlockCache())
        try:
            return {(kind, key): data for kind in TYPES for key, data in table.scan(kind, "")}
        except AgolaError as error:
            raise Violation(f"a manifest was published whose files cannot be read: {error}") from error


def apply(state: State, actions: Items[Action]) -> State:
    """Return the state after some actions."""
    after = dict(state)
    for action in actions:
        if isinstance(action, Put):
            after[action.data_type, action.id] = action.data
        else:
            after.pop((action.data_type, action.id), None)
    return after


def difference(found: State, wanted: State) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Return what is found and what is wanted of each key where they differ."""
    return {
        "/".join(key): (found.get(key), wanted.get(key))
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    }
