"""Binds a lineage to its coordinator: records in storage which coordinator it is in, and a revision that it reached.

A process that opens the store recognises by this record another coordinator (another cluster at the same address, a
copy of its keys), and one that was set back further than the log alone shows. A lineage never leaves its coordinator,
so the record is kept with the lineage. It is written when the lineage begins, and now and then with a higher revision,
never by commits.
"""

from __future__ import annotations

import logging

import msgspec

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.format import layout
from agola_core.datamanager.format.checksummed import decode_checksummed, encode_checksummed
from agola_core.datamanager.format.control import RECOVERY_ADVICE, Control, require_control
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import AgolaError, CorruptionError, NotFoundError, RecoveryError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("lineage.before-binding")


class BindingRecord(msgspec.Struct, frozen=True):
    """`coordinator.json` of a lineage.

    Attributes:
        coordinator: The identity of the coordinator that the lineage is in.
        revision: A revision that it had reached.
    """

    coordinator: str
    revision: int


class Binder:
    """Records the revision that a store's coordinator has reached, and detects one that went back."""

    def __init__(self, coordinator: Coordinator, storage: ObjectStorage) -> None:
        self._coordinator = coordinator
        self._storage = storage
        self._marked = ("", 0)

    def mark(self) -> None:
        """Record the coordinator's revision if it has risen.

        Raises:
            RecoveryError: The coordinator went back in time, or is another one.
        """
        control = require_control(self._coordinator)
        root = control.lineage.root
        if (root, control.revision) == self._marked:
            return
        found = read_binding(self._storage, root)
        control = require_control(self._coordinator)  # after the storage: others mark, too
        if control.lineage.root != root:
            return  # imported or recovered meanwhile
        if found is not None:
            check_binding(self._coordinator, control, found)
        if found is None or control.revision > found.revision:
            write_binding(self._coordinator, self._storage, control)
        self._marked = (root, control.revision)

    def try_mark(self) -> None:
        """Call `mark`; only log an error of the storage, because a later mark says more.

        Raises:
            RecoveryError: The coordinator went back in time, or is another one.
        """
        try:
            self.mark()
        except RecoveryError:
            raise
        except AgolaError:
            logger.warning("the coordinator's revision was not recorded; a later record will include it", exc_info=True)


def read_binding(storage: ObjectStorage, root: str) -> BindingRecord | None:
    """Return which coordinator a lineage is in; None if an older release, or a crash, left no record.

    Raises:
        CorruptionError: The record is damaged.
    """
    path = layout.binding(root)
    try:
        data = storage.read(path)
    except NotFoundError:
        return None
    try:
        return msgspec.json.decode(decode_checksummed(data, path), type=BindingRecord)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not a coordinator's record: {error}", path=path) from error


def write_binding(coordinator: Coordinator, storage: ObjectStorage, control: Control) -> None:
    """Record that the current lineage is in this coordinator."""
    record = BindingRecord(coordinator.identity(), control.revision)
    faultpoints.reach("lineage.before-binding")
    storage.write(layout.binding(control.lineage.root), encode_checksummed(record))


def check_binding(coordinator: Coordinator, control: Control, found: BindingRecord) -> None:
    """Check that a coordinator is the recorded one, and has not gone back.

    Args:
        coordinator: The coordinator.
        control: Its control keys, read after `found`.
        found: The record in storage.

    Raises:
        RecoveryError: It is another one, or was set back.
    """
    identity = coordinator.identity()
    if identity != found.coordinator:
        raise RecoveryError(
            f"the coordinator is another one ({identity}) than the store's ({found.coordinator}), with its keys: "
            f"open the store with its own; if that is lost for good, {RECOVERY_ADVICE}"
        )
    if control.revision < found.revision:
        raise RecoveryError(
            f"the coordinator went back from revision {found.revision} to {control.revision} (a restored backup?): "
            f"{RECOVERY_ADVICE}"
        )
