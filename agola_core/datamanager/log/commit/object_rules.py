"""The conflict check of objects: decides whether an object is still what a writer read, by what the log knows.

A decision holds while the log's head stands, which the transaction compares: nothing is read before a write. What this
process's view would refuse is checked once more after catching up, because another process may have changed it back.
"""

from __future__ import annotations

from agola_core.datamanager.format.versions import Condition, object_digest
from agola_core.datamanager.log.commit.pending_wal import PendingWal
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.sstable.view import View
from agola_core.errors import AgolaError, ConflictError


class ObjectRules:
    """Checks conditions on a log's objects; the caller holds the log's lock."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def refusal(self, pending: PendingWal) -> Exception | None:
        """Return why a WAL's conditions do not hold in the log's view; None if they do."""
        view = self._log.view
        try:
            for condition in pending.conditions:
                if not _holds(condition, view):
                    return _conflict(condition)
        except AgolaError as error:  # an object that cannot be read is this writer's matter, not the others'
            return error
        return None

    def is_behind(self, pending: PendingWal) -> bool:
        """Return whether a WAL's writer has seen more than the log's view."""
        view = self._log.view
        return any(
            version is not None and version.lineage == view.lineage.lineage and version.seen > view.sequence
            for _, _, version in pending.conditions
        )


def _holds(condition: Condition, view: View) -> bool:
    data_type, object_id, version = condition
    if version is None:
        return view.get(data_type, object_id) is None
    if version.lineage == view.lineage.lineage and version.seen <= view.sequence:
        change = view.memtable.find(data_type, object_id, view.sequence.counter)
        if change is not None:
            return change.counter <= version.seen.counter
        if view.manifest.sequence <= version.seen:
            return True
    data = view.get(data_type, object_id)
    return data is not None and object_digest(data) == version.digest


def _conflict(condition: Condition) -> ConflictError:
    if condition.version is None:
        return ConflictError(f"{condition.data_type} {condition.id!r} exists already")
    return ConflictError(f"{condition.data_type} {condition.id!r} was changed by another writer: read again")
