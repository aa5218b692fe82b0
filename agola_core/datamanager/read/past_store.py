"""Point-in-time reads: a store as it was at a sequence or a time, from a retained manifest and the WALs after it.

It writes nothing but the record of an instance under a lease, which keeps garbage collectors from what is read. If the
coordinator is lost, it reads the storage alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from collections.abc import Sequence as Items
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.format.batches import list_batches, read_actions
from agola_core.datamanager.format.control import Control, read_control
from agola_core.datamanager.format.lineages import past_lineages, read_store
from agola_core.datamanager.format.records import LineageRecord, WalRecord
from agola_core.datamanager.format.wal_reader import wals_after
from agola_core.datamanager.identity.instance import Instance, pin_everything
from agola_core.datamanager.identity.manifest_history import StoredManifest, newest_first, stored_manifests
from agola_core.datamanager.read.reader import Reader
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.manifest import Manifest, read_manifest
from agola_core.datamanager.sstable.memtable import Memtable
from agola_core.datamanager.sstable.table import Table, missing_files
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.datamanager.validate import check_data_types
from agola_core.errors import (
    BadRequestError,
    ClosedError,
    CompactedError,
    CorruptionError,
    NotFoundError,
)
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.processes.forks import Origin
from agola_core.runtime.threads.parallel import parallel_map
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

Moment = Sequence | datetime
"""Names a past state: its newest WAL, or the time up to which WALs count."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_moment(at: Sequence | datetime | str) -> Moment:
    """Return the moment that `at` names: a sequence, or a time with a zone, either also as text (ISO 8601).

    Raises:
        BadRequestError: It is neither.
    """
    if isinstance(at, str):
        try:
            return Sequence.parse(at)
        except BadRequestError:
            return parse_moment(_parse_time(at))
    if isinstance(at, Sequence):
        return at
    if not isinstance(at, datetime):
        raise BadRequestError(f"at={at!r}: expected a sequence or a time")
    if at.tzinfo is None:
        raise BadRequestError(f"at={at.isoformat()}: a time needs its zone, such as {at.isoformat()}+00:00")
    return at


def _parse_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRequestError(f"at={text[:80]!r}: expected a sequence, or a time in ISO 8601") from error


class Checkpoint(msgspec.Struct, frozen=True):
    """A retained state of a store.

    Attributes:
        sequence: The newest WAL that it includes, as text.
        created: When it was made; for information.
        number: Its manifest's number.
        origin: Why it was made.
        files: How many data files it has.
        size: Their bytes.
    """

    sequence: str
    created: datetime
    number: int
    origin: str
    files: int
    size: int


def list_checkpoints(storage: ObjectStorage, control: Control | None) -> list[Checkpoint]:
    """Return the checkpoints that a store retains, oldest first; the states between two of them can be read, too.

    Damaged ones are left out; `verify` reports them.
    """

    def read(stored: StoredManifest) -> Manifest | None:
        try:
            return read_manifest(storage, stored.path)
        except CorruptionError as error:
            logger.warning("a retained checkpoint is skipped: %s", error)
            return None

    stored = stored_manifests(storage, past_lineages(storage, control))
    return [
        Checkpoint(
            manifest.position,
            manifest.created,
            manifest.number,
            manifest.origin.value,
            manifest.data_files,
            manifest.size,
        )
        for manifest in parallel_map(read, stored)
        if manifest is not None and (control is None or manifest.number <= control.checkpoint.number)
    ]


class PastStore(Reader):
    """A store as it was at one moment; read-only. Thread-safe; a context manager.

    Use `agola_core.open(..., at=...)` to make one.

    Args:
        coordinator: The store's coordinator; None if it is lost, then nothing keeps others from collecting garbage.
        storage: Its object storage.
        data_types: More types to read than the store had then; None for no others.
        at: The moment: the newest WAL to see, or the time up to which WALs count, by their leaders' clocks.
        name: This reader's name among the store's instances.
        ttl: Seconds after which other processes consider a crashed reader gone.
        published: Whether other processes learn of it; otherwise only their grace period keeps what it reads.

    Raises:
        NotFoundError: There is no store.
        BadRequestError: No WAL has that sequence.
        CompactedError: That state is no longer kept; the error names the oldest one that is.
        CorruptionError: Stored data that must be read is damaged.

    Attributes:
        sequence: The newest WAL that it sees.
        lineage: The id of the history that it belongs to.
    """

    def __init__(
        self,
        coordinator: Coordinator | None,
        storage: ObjectStorage,
        data_types: Items[str] | None,
        at: Moment,
        *,
        name: str,
        ttl: float = 10.0,
        published: bool = True,
    ) -> None:
        given = check_data_types(data_types) if data_types is not None else ()
        self.storage = storage
        self._closed = False
        self._origin = Origin("the past store")
        self._instance: Instance | None = None
        control = read_control(coordinator) if coordinator is not None else None
        if control is not None and coordinator is not None and published:
            self._instance = pin_everything(coordinator, name, ttl)
        try:
            self._view = _Finder(coordinator, storage, control).find(at)
            if self._instance is not None:
                self._instance.reads(self._view.manifest.number)
                self._instance.publish()
        except BaseException:
            self.close()
            raise
        self.data_types = (*given, *(name for name in self._view.data_types() if name not in given))
        self.sequence = self._view.sequence
        self.lineage = self._view.lineage.lineage

    def read_object(self, data_type: str, object_id: str) -> tuple[bytes, ChangeGroupsToken]:
        """Return an object, and a token that names the state and no change groups.

        Raises:
            NotFoundError: There was no such object.
        """
        self._check_open()
        data = self._view.get(self._known(data_type), object_id)
        if data is None:
            raise NotFoundError(f"{data_type} {object_id!r} did not exist at {self.sequence}")
        return data, ChangeGroupsToken(lineage=self.lineage, sequence=str(self.sequence))

    def close(self) -> None:
        """Withdraw from the store; closing twice is harmless. The backends stay open."""
        self._closed = True
        if self._instance is not None and self._origin.is_here:
            self._instance.close()
            self._instance = None

    def __repr__(self) -> str:
        """Return the types and the state that is read."""
        state = " (closed)" if self._closed else ""
        return f"<PastStore of {', '.join(self.data_types)} at {self.sequence}{state} in {self.storage!r}>"

    @contextmanager
    def _pinned_view(self) -> Iterator[View]:
        self._check_open()
        yield self._view

    def _check_open(self) -> None:
        self._origin.check()
        if self._closed:
            raise ClosedError("the past store was closed")


class _Finder:
    """Finds the state at a moment."""

    def __init__(self, coordinator: Coordinator | None, storage: ObjectStorage, control: Control | None) -> None:
        self._coordinator = coordinator
        self._storage = storage
        self._control = control

    def find(self, at: Moment) -> View:
        store = read_store(self._storage)
        found = stored_manifests(self._storage, past_lineages(self._storage, self._control))
        if store is None or not found:
            raise NotFoundError("there is no store whose past could be read")
        if isinstance(at, Sequence):
            self._check_exists(at, found)
        stored, manifest = self._choose(at, found)
        memtable, reached = Memtable(), manifest.sequence
        for record in wals_after(self._coordinator, self._storage, self._control, stored.root, manifest.sequence):
            if record.sequence > at if isinstance(at, Sequence) else _time(record) > at:
                break
            memtable.apply(record.counter, read_actions(self._storage, record))
            reached = record.sequence
        if isinstance(at, Sequence) and reached != at:
            raise CompactedError(
                f"the WALs from {reached.next()} to {at} are not in storage: the states that can be read are "
                f"those up to {reached}, and the later checkpoints",
                oldest=str(reached),
            )
        table = Table(self._storage, manifest, BlockCache())
        return View(LineageRecord(store.store, manifest.lineage, manifest.epoch), manifest, table, memtable, reached, 0)

    def _check_exists(self, at: Sequence, found: list[StoredManifest]) -> None:
        if self._control is not None and at.epoch == self._control.lineage.epoch:
            newest = self._control.head
        else:
            roots = {stored.root for stored in found if stored.epoch == at.epoch}
            lasts = [last for root in roots for _, last, _ in list_batches(self._storage, root)]
            lasts += [read_manifest(self._storage, item.path).sequence for item in found if item.epoch == at.epoch]
            newest = max(lasts, default=Sequence(found[-1].epoch, 0))
        if at > newest and at.epoch >= found[0].epoch:
            raise BadRequestError(f"no WAL has the sequence {at}; the newest of its history is {newest}")

    def _choose(self, at: Moment, found: list[StoredManifest]) -> tuple[StoredManifest, Manifest]:
        """Return the newest manifest that is not after the moment."""
        oldest: Manifest | None = None
        damage: CorruptionError | None = None
        for stored, manifest in newest_first(self._storage, found):
            try:
                if isinstance(manifest, CorruptionError):
                    raise manifest
                before = manifest.sequence <= at if isinstance(at, Sequence) else manifest.created <= at
                if not before or (isinstance(at, Sequence) and stored.epoch != at.epoch):
                    oldest = manifest
                    continue
                missing = missing_files(self._storage, manifest.runs)
                if not missing:
                    return stored, manifest
                raise CorruptionError("a data file of a retained checkpoint is missing", path=missing[0])
            except CorruptionError as error:  # an older one and the WALs after it give the same state
                logger.warning("a retained checkpoint is skipped: %s", error)
                damage = damage or error
        if damage is not None or oldest is None:
            raise damage or CorruptionError("no manifest is left", path=found[-1].path)
        raise CompactedError(
            f"the state at {at} is no longer kept; the oldest is {oldest.position} of {oldest.created.isoformat()}",
            oldest=oldest.position,
        )


def _time(record: WalRecord) -> datetime:
    return _EPOCH + timedelta(microseconds=record.time)
