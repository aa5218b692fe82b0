"""Settles the outcome of a transaction whose COMMIT failed (see `errors`).

Its pages, commit mark included, may lie in the write-ahead log beyond the valid end: nobody sees them, but a recovery
of the log after a crash might replay them. The next transaction overwrites them. So an empty one is written: once it
is committed, the failed one was not applied and never will be.
"""

from __future__ import annotations

import logging
import threading
import time

import apsw

from agola_core.coordinator.port import KeyValue
from agola_core.coordinator.sqlite import schema as sql
from agola_core.coordinator.sqlite.session import KeyChanges
from agola_core.errors import UnknownOutcomeError

logger = logging.getLogger(__name__)

_SETTLE_SECONDS = 10.0
_SETTLE_PAUSE = 0.05


def settle(connection: apsw.Connection, batches: list[tuple[int, KeyChanges]], cause: apsw.Error, path: str) -> bool:
    """Return whether a transaction whose COMMIT failed was applied; if not, it never will be.

    Args:
        connection: The writing connection, without an open transaction.
        batches: Changes of the transaction, by ascending revision.
        cause: The error of its COMMIT.
        path: The database.

    Raises:
        UnknownOutcomeError: The database cannot be written to, so the outcome stays unknown.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            stands = _stands(connection, batches)
            if not stands:
                connection.execute(sql.BARRIER)
            connection.execute("COMMIT")
        except apsw.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if time.monotonic() >= deadline:
                raise UnknownOutcomeError(f"{path}: the commit failed: {cause}; afterwards: {error}") from cause
            logger.warning("%s: waiting for the disk to learn a transaction's outcome: %s", path, error)
            threading.Event().wait(_SETTLE_PAUSE)
        else:
            return stands


def _stands(connection: apsw.Connection, batches: list[tuple[int, KeyChanges]]) -> bool:
    if not batches:
        return False
    rows = connection.execute(sql.CHANGES, (batches[0][0], batches[-1][0] + 1)).fetchall()
    return rows == [_row(revision, *change) for revision, changes in batches for change in changes]


def _row(revision: int, key: str, item: KeyValue | None) -> tuple[object, ...]:
    if item is None:
        return revision, key, None, 0, 0, 0
    return revision, key, item.value, item.create_revision, item.version, item.lease
