"""The last verify of a store, kept in its storage for people: when it ran, what it read, what it found."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.check.data_files import Finding
from agola_core.datamanager.format import layout
from agola_core.datamanager.format.checksummed import decode_checksummed, encode_checksummed
from agola_core.datamanager.format.control import Control, read_control
from agola_core.datamanager.format.lineages import read_store, stored_lineages
from agola_core.datamanager.identity.binding import check_binding, read_binding
from agola_core.errors import AgolaError, CorruptionError, NotFoundError, RecoveryError
from agola_core.objectstorage.counted import CountedStorage
from agola_core.objectstorage.port import ObjectStorage

logger = logging.getLogger(__name__)

MAX_KEPT = 50
_MAX_TEXT = 500


class LastVerify(msgspec.Struct, frozen=True):
    """A verify of a store.

    Attributes:
        time: When it ended.
        seconds: How long it took.
        by: Who ran it, and on which machine; "" if unknown.
        lineage: The lineage that the store had.
        sequence: The newest WAL that it had.
        objects: How many objects of the storage were read.
        size: How many bytes were read of them.
        found: How many problems were found.
        findings: The first ones, at most `MAX_KEPT`; long messages are cut.
    """

    time: datetime
    seconds: float
    by: str
    lineage: str
    sequence: str
    objects: int
    size: int
    found: int
    findings: tuple[Finding, ...]


def record_verify(
    coordinator: Coordinator, storage: CountedStorage, findings: list[Finding], by: str, seconds: float
) -> None:
    """Keep what a verify found, if both parts of the store are sure to belong together: else nothing is written.

    It is for people, so nothing else fails with it: why it is not kept is logged.

    Args:
        coordinator: The coordinator.
        storage: The storage, through which everything was read.
        findings: What was found.
        by: Who ran it.
        seconds: How long it took.
    """
    objects, size = storage.objects, storage.size
    try:
        control = _own_control(coordinator, storage)
        kept = tuple(msgspec.structs.replace(item, message=item.message[:_MAX_TEXT]) for item in findings[:MAX_KEPT])
        record = LastVerify(
            time=datetime.now(UTC),
            seconds=round(seconds, 3),
            by=by[:_MAX_TEXT],
            lineage=control.lineage.lineage,
            sequence=str(control.head),
            objects=objects,
            size=size,
            found=len(findings),
            findings=kept,
        )
        storage.write(layout.LAST_VERIFY, encode_checksummed(record))
    except AgolaError as error:
        logger.warning("the verify is not noted in the store: %s", error)


def read_verify(storage: ObjectStorage) -> LastVerify | None:
    """Return the last verify; None if none is known.

    Raises:
        UnavailableError: The storage cannot be reached.
    """
    path = layout.LAST_VERIFY
    try:
        return msgspec.json.decode(decode_checksummed(storage.read(path), path), type=LastVerify)
    except (NotFoundError, CorruptionError, msgspec.MsgspecError):
        return None


def _own_control(coordinator: Coordinator, storage: ObjectStorage) -> Control:
    """Return the coordinator's control keys.

    Raises:
        RecoveryError: The storage is not the coordinator's, or one of them went back: nothing may be written.
        CorruptionError: That cannot be told, because a record is damaged.
    """
    store = read_store(storage)
    newest = max((lineage.epoch for lineage in stored_lineages(storage) if lineage.active), default=0)
    control = read_control(coordinator)
    if control is None or store is None or store.store != control.lineage.store or newest > control.lineage.epoch:
        raise RecoveryError("the coordinator and the storage do not belong together")
    binding = read_binding(storage, control.lineage.root)
    if binding is not None:
        newer = read_control(coordinator)  # after the storage: marks rise
        if newer is not None and newer.lineage == control.lineage:
            check_binding(coordinator, newer, binding)
    return control
