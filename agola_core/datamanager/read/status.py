"""The status of an open store, and of one of its WALs."""

from __future__ import annotations

import msgspec

from agola_core.datamanager.identity.instance import list_instances
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.types import WalStatus
from agola_core.errors import FencedError, NotFoundError
from agola_core.sequence import Sequence


class Status(msgspec.Struct, frozen=True):
    """The state of a store, for operators and monitoring.

    Attributes:
        store: Its id.
        lineage: Its current history.
        epoch: The epoch of its sequences.
        sequence: The newest WAL.
        synced: The newest WAL in storage.
        checkpointed: The newest WAL in the current manifest.
        manifest: The current manifest's number.
        data_files: The number of its data files.
        data_bytes: Their bytes.
        uncheckpointed_wals: The number of WALs in the memtable alone.
        uncheckpointed_bytes: About how many bytes of memory they take.
        instances: The names of the processes that have the store open.
        loops: Whether each background loop of this process runs.
    """

    store: str
    lineage: str
    epoch: int
    sequence: str
    synced: str
    checkpointed: str
    manifest: int
    data_files: int
    data_bytes: int
    uncheckpointed_wals: int
    uncheckpointed_bytes: int
    instances: tuple[str, ...]
    loops: dict[str, bool]


class Counters(msgspec.Struct, frozen=True):
    """How far a store is, as this process knows it.

    Attributes:
        epoch: The epoch of its sequences.
        wals: The number of its newest WAL in that epoch.
        unsynced: WALs that are not in storage yet.
        uncheckpointed: WALs that are in no data file yet.
        data_bytes: Bytes of data files.
    """

    epoch: int
    wals: int
    unsynced: int
    uncheckpointed: int
    data_bytes: int


def store_counters(log: Log) -> Counters:
    """Return how far a store is, as its log knows it."""
    view, synced = log.view, log.synced
    newest = view.sequence
    return Counters(
        epoch=newest.epoch,
        wals=newest.counter,
        unsynced=max(0, newest.counter - synced.counter) if newest.epoch == synced.epoch else 0,
        uncheckpointed=newest.counter - view.manifest.sequence.counter,
        data_bytes=view.manifest.size,
    )


def store_status(log: Log, loops: dict[str, bool]) -> Status:
    """Return the state of a store.

    Args:
        log: The store's log.
        loops: Whether each background loop of this process runs.
    """
    log.catch_up()
    view = log.view
    return Status(
        store=view.lineage.store,
        lineage=view.lineage.lineage,
        epoch=view.lineage.epoch,
        sequence=str(view.sequence),
        synced=str(log.synced),
        checkpointed=view.manifest.position,
        manifest=view.manifest.number,
        data_files=view.manifest.data_files,
        data_bytes=view.manifest.size,
        uncheckpointed_wals=view.sequence.counter - view.manifest.sequence.counter,
        uncheckpointed_bytes=view.memtable.size,
        instances=tuple(record.name for record in list_instances(log.coordinator)),
        loops=loops,
    )


def wal_status(log: Log, sequence: Sequence) -> WalStatus:
    """Return where a WAL is (see `DataManager.wal_status`)."""
    if sequence > log.synced:
        log.catch_up()
    view = log.view
    if sequence.epoch < view.lineage.epoch:
        raise FencedError(
            f"{sequence} is of another epoch than {view.lineage.epoch}: the store was recovered or imported"
        )
    if sequence > view.sequence or not sequence.counter:
        raise NotFoundError(f"there is no WAL {sequence}; the newest is {view.sequence}")
    if sequence <= view.manifest.sequence:
        return WalStatus.CHECKPOINTED
    return WalStatus.COMMITTED_STORAGE if sequence <= log.synced else WalStatus.COMMITTED
