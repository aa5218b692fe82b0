"""One SQLite transaction that several callers' transactions share, each at a revision of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from agola_core.coordinator import sqlite_schema as sql
from agola_core.coordinator.port import (
    Compare,
    DeleteOp,
    KeyValue,
    Op,
    PutOp,
    Target,
    TxnResult,
    WatchBatch,
    WatchEvent,
)
from agola_core.errors import NotFoundError

Row = tuple[Any, ...]
Change = tuple[str, bytes | None, int]


class Session:
    """A shared transaction while it runs.

    Args:
        cursor: Of the writing connection, in a transaction.

    Attributes:
        cursor: The cursor.
        revision: The newest revision, those of this transaction included.
        batches: What the transaction changed, for the watches.
    """

    def __init__(self, cursor: apsw.Cursor) -> None:
        self.cursor = cursor
        row: Row | None = cursor.execute(sql.REVISION).fetchone()
        self.revision: int = row[0] if row else 1
        self.batches: list[WatchBatch] = []
        self._known: dict[str, KeyValue | None] = {}

    def newest(self, key: str) -> KeyValue | None:
        """Return a key as the transactions before leave it."""
        if key in self._known:
            return self._known[key]
        row: Row | None = self.cursor.execute(sql.NEWEST, (key,)).fetchone()
        item = self._known[key] = None if row is None or row[0] is None else KeyValue(key, *row)
        return item

    def holds(self, compare: Compare) -> bool:
        """Return whether a condition holds."""
        item = self.newest(compare.key)
        match compare.target:
            case Target.MOD_REVISION:
                return (item.mod_revision if item else 0) == compare.expected
            case Target.CREATE_REVISION:
                return (item.create_revision if item else 0) == compare.expected
            case Target.VERSION:
                return (item.version if item else 0) == compare.expected
            case Target.VALUE:
                return item is not None and item.value == compare.expected

    def run(self, succeeded: bool, ops: Sequence[Op], now: float) -> TxnResult:
        """Run a caller's operations.

        Args:
            succeeded: Whether its conditions held.
            ops: What that leads to.
            now: The time, for the leases that puts name.

        Raises:
            NotFoundError: A put names a lease that does not exist; nothing was written.
        """
        for op in ops:
            if type(op) is PutOp and op.lease:
                self._check_lease(op.lease, now)
        reads: list[KeyValue | None] = []
        changes: list[Change] = []
        for op in ops:
            if type(op) is PutOp:
                changes.append((op.key, op.value, op.lease))
            elif type(op) is DeleteOp:
                changes.append((op.key, None, 0))
            else:
                reads.append(self._inside(op.key, changes))
        self.write(changes)
        return TxnResult(succeeded, self.revision, tuple(reads))

    def write(self, changes: Sequence[Change]) -> None:
        """Write keys at a new revision, unless nothing changes."""
        revision = self.revision + 1
        number = revision * sql.PLACES
        events: list[WatchEvent] = []
        for key, value, lease in changes:
            existing = self.newest(key)
            item: KeyValue | None = None
            if value is not None:
                item = _written(existing, key, value, lease, revision)
                self.cursor.execute(
                    sql.INSERT, (number + len(events), key, item.create_revision, item.version, lease, value)
                )
            elif existing is not None:
                self.cursor.execute(sql.INSERT, (number + len(events), key, 0, 0, 0, None))
            else:
                continue
            self._known[key] = item
            events.append(WatchEvent(key, item))
        if events:
            self.revision = revision
            self.batches.append(WatchBatch(revision, tuple(events)))

    def end_lease(self, lease: int) -> None:
        """Delete a lease with its keys."""
        rows: list[Row] = self.cursor.execute(sql.LEASE_KEYS, (lease,)).fetchall()
        self.cursor.execute(sql.LEASE_DELETE, (lease,))
        self.write([(row[0], None, 0) for row in rows])

    def _check_lease(self, lease: int, now: float) -> None:
        if self.cursor.execute(sql.LEASE_EXISTS, (lease, now)).fetchone() is None:
            raise NotFoundError(f"lease {lease} does not exist or has ended")

    def _inside(self, key: str, changes: Sequence[Change]) -> KeyValue | None:
        """Read a key as the changes before, which are written only at the end, leave it."""
        existing = self.newest(key)
        for changed, value, lease in changes:
            if changed == key:
                return None if value is None else _written(existing, key, value, lease, self.revision + 1)
        return existing


def _written(existing: KeyValue | None, key: str, value: bytes, lease: int, revision: int) -> KeyValue:
    if existing is None:
        return KeyValue(key, value, revision, revision, 1, lease)
    return KeyValue(key, value, existing.create_revision, revision, existing.version + 1, lease)
