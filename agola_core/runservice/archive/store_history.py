"""What is kept of a store in its storage: samples of its size and lag over days, and when it was last exported."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec

from agola_core.datamanager import Counters, decode_checksummed, encode_checksummed
from agola_core.errors import CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.model import object_paths

MAX_SAMPLES = 400
T = TypeVar("T")
_UNCHANGED_SECONDS = 86400.0


class StoreSample(msgspec.Struct, frozen=True):
    """A store at one moment.

    Attributes:
        time: Seconds since 1970.
        epoch: The epoch of its sequences.
        wals: The number of its newest WAL in that epoch.
        unsynced: WALs that are not in storage yet.
        uncheckpointed: WALs that are in no data file yet.
        data_bytes: Bytes of data files.
    """

    time: float
    epoch: int
    wals: int
    unsynced: int
    uncheckpointed: int
    data_bytes: int


class StoreHistory(msgspec.Struct, frozen=True):
    """Samples of a store, oldest first; at most `MAX_SAMPLES`."""

    samples: tuple[StoreSample, ...] = ()


class LastExport(msgspec.Struct, frozen=True):
    """The last export of the newest state that was whole.

    Attributes:
        time: When it ended.
        form: Its format.
        size: Its bytes as they were sent.
        by: Who exported, and on which machine, by a command on the store itself; "" for a service.
    """

    time: datetime
    form: str
    size: int
    by: str = ""


def sample_of(counters: Counters, time: float) -> StoreSample:
    """Return the sample of a store.

    Args:
        counters: How far it is.
        time: When that was, in seconds.
    """
    return StoreSample(time, **msgspec.structs.asdict(counters))


def with_sample(history: StoreHistory, sample: StoreSample) -> StoreHistory:
    """Return a history with one more sample; the same one if nothing has changed for less than a day.

    After the clock was set back by more than a day, samples of what is now the future are dropped.

    A full history loses every other one of its older half, so that what is long ago is told more coarsely.
    """
    samples = history.samples
    if not samples and not sample.wals:
        return history
    if samples and 0 < samples[-1].time - sample.time < _UNCHANGED_SECONDS:
        return history  # the clock was set back a little
    samples = tuple(item for item in samples if item.time <= sample.time)
    is_same = bool(samples) and msgspec.structs.replace(sample, time=samples[-1].time) == samples[-1]
    if is_same and sample.time - samples[-1].time < _UNCHANGED_SECONDS:
        return history
    if len(samples) >= MAX_SAMPLES:
        half = len(samples) // 2
        samples = samples[:half:2] + samples[half:]
    return StoreHistory((*samples, sample))


def record_sample(storage: ObjectStorage, sample: StoreSample) -> None:
    """Add a sample to the stored history, unless nothing has changed; a damaged history begins anew.

    Raises:
        AgolaError: It could not be read or written.
    """
    history = read_history(storage)
    grown = with_sample(history, sample)
    if grown is not history:
        storage.write(object_paths.STORE_HISTORY, encode_checksummed(grown))


def read_history(storage: ObjectStorage) -> StoreHistory:
    """Return the stored history; an empty one if there is none, or a damaged one."""
    return _read(storage, object_paths.STORE_HISTORY, StoreHistory) or StoreHistory()


def record_export(storage: ObjectStorage, export: LastExport) -> None:
    """Keep when the store was last exported.

    Raises:
        AgolaError: It could not be written.
    """
    storage.write(object_paths.LAST_EXPORT, encode_checksummed(export))


def read_export(storage: ObjectStorage) -> LastExport | None:
    """Return the last export; None if none is known."""
    return _read(storage, object_paths.LAST_EXPORT, LastExport)


def _read(storage: ObjectStorage, path: str, record: type[T]) -> T | None:
    try:
        return msgspec.json.decode(decode_checksummed(storage.read(path), path), type=record)
    except (NotFoundError, CorruptionError, msgspec.MsgspecError):
        return None
