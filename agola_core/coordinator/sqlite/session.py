"""Runs the transactions of a group commit on the SQLite database, each at its own revision, with a cache of keys.

One `Session` lives as long as the writing connection. It caches the newest state of the keys that it has seen: the
cache is valid while nobody else writes to the database. It also keeps track of the rows that are not yet in the index
by key, and indexes them when there are many. A key that sorts after all others of its directory, as the next WAL's
does, is known not to exist: to write it, nothing is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw

from agola_core.coordinator.port import (
    Compare,
    DeleteOp,
    DeleteRangeOp,
    GetOp,
    KeyValue,
    Op,
    PutOp,
    Target,
    TxnResult,
    prefix_end,
)
from agola_core.coordinator.sqlite import schema as sql
from agola_core.coordinator.sqlite.database import one
from agola_core.errors import BadRequestError, NotFoundError

Row = tuple[Any, ...]
KeyChanges = list[tuple[str, KeyValue | None]]

_KNOWN_KEYS = 4096
_KNOWN_BYTES = 4 * 1024 * 1024
_ALL_REVISIONS = (1 << 43) - 2
"""Later than any revision, and still valid as a part of a row number."""


class Session:
    """The shared transactions of one connection, one at a time: `begin`, any number of `run`, then `end` or `forget`.

    Args:
        cursor: A cursor of the writing connection.
        clock: Clock for leases, in seconds.

    Attributes:
        cursor: The cursor; call `flush` before reading through it.
        revision: The newest revision, including those of the running transaction.
        batches: Changes of the running transaction by ascending revision, for the watches.
    """

    def __init__(self, cursor: apsw.Cursor, clock: Callable[[], float]) -> None:
        self.cursor = cursor
        self._clock = clock
        self.revision = 0
        self.batches: list[tuple[int, KeyChanges]] = []
        self._rows: list[Row] = []
        self._waiting: dict[str, int] = {}
        self._waiting_rows = 0
        self._known: dict[str, KeyValue | None] = {}
        self._last: dict[str, str] = {}
        self._bytes = 0
        self._data_version = -1

    def begin(self) -> None:
        """Begin; the caller has started a writing transaction of the database."""
        self.batches = []
        if self.cursor.connection.data_version() == self._data_version:
            return  # nobody else has written since `end`
        row: Row | None = self.cursor.execute(sql.REVISION).fetchone()
        revision = row[0] if row else 1
        if revision != self.revision:
            self._forget_keys()
            waiting: list[Row] = self.cursor.execute(sql.WAITING).fetchall()
            self._waiting, self._waiting_rows = {row[0]: row[1] for row in waiting}, len(waiting)
            self.revision = revision

    def flush(self) -> None:
        """Hand the database what was written so far."""
        rows = self._rows
        if rows:
            self._rows = []
            self.cursor.executemany(sql.INSERT, rows)
            self._waiting_rows += len(rows)
            if self._waiting_rows > sql.UNINDEXED:
                self.index()

    def index(self) -> None:
        """Take the rows that wait for the index into it."""
        self.cursor.execute(sql.INDEX)
        self.cursor.execute(sql.INDEX_DONE)
        self._waiting, self._waiting_rows = {}, 0

    def end(self) -> None:
        """Note that the transaction was committed."""
        if self.revision:
            self._data_version = self.cursor.connection.data_version()
        if self._bytes > _KNOWN_BYTES or len(self._known) > _KNOWN_KEYS:
            self._forget_keys()

    def forget(self) -> None:
        """Note that the transaction was rolled back, or may have been."""
        self._forget_keys()
        self._data_version = -1
        self.revision = 0
        self.batches = []
        self._rows = []

    def newest(self, key: str) -> KeyValue | None:
        """Return a key as the transactions before leave it."""
        if key in self._known:
            return self._known[key]
        if self._is_last(key):
            return None
        row: Row | None = None
        if key in self._waiting:
            row = self.cursor.execute(sql.NUMBERED, (self._waiting[key],)).fetchone()
        elif self.cursor.execute(sql.INDEXED, (key,)).fetchone() is not None:
            row = self.cursor.execute(sql.NEWEST_INDEXED, (key,)).fetchone()
        item = self._known[key] = None if row is None or row[0] is None else KeyValue(key, *row)
        return item

    def holds(self, compare: Compare) -> bool:
        """Return whether a condition holds."""
        key, expected = compare.key, compare.expected
        item = self._known[key] if key in self._known else self.newest(key)
        match compare.target:
            case Target.MOD_REVISION:
                return (item.mod_revision if item else 0) == expected
            case Target.CREATE_REVISION:
                return (item.create_revision if item else 0) == expected
            case Target.VERSION:
                return (item.version if item else 0) == expected
            case Target.VALUE:
                return item is not None and item.value == expected

    def run(self, succeeded: bool, ops: Sequence[Op]) -> TxnResult:
        """Run a caller's operations at a new revision, unless they change nothing.

        Args:
            succeeded: Whether its conditions held.
            ops: What that leads to.

        Raises:
            NotFoundError: A put names a lease that does not exist; nothing was written.
            BadRequestError: A range has too many keys; nothing was written.
        """
        revision = self.revision + 1
        number = revision * sql.PLACES
        reads: list[KeyValue | None] = []
        rows: list[Row] = []
        known, size, deleted = self._known, 0, 0
        written: dict[str, KeyValue | None] = {}
        for op in ops:
            key = op.key
            existing = written[key] if key in written else known[key] if key in known else self.newest(key)
            if type(op) is PutOp:
                value, lease = op.value, op.lease
                if lease:
                    self._check_lease(lease)
                created, version = revision, 1
                if existing is not None:
                    created, version = existing.create_revision, existing.version + 1
                rows.append((number, key, created, version, lease, value))
                written[key] = KeyValue(key, value, created, revision, version, lease)
                size += len(value)
                number += 1
            elif type(op) is GetOp:
                reads.append(existing)
            else:
                if type(op) is DeleteRangeOp:
                    going = self._living(key, op.end)
                else:
                    going = [key] if existing is not None else []
                for key in going:
                    rows.append((number, key, 0, 0, 0, None))
                    written[key] = None
                    number += 1
                deleted += len(going)
        if rows:
            self.revision = revision
            self._rows += rows
            self._waiting.update([(row[1], row[0]) for row in rows])
            self._bytes += size
            known.update(written)
            self.batches.append((revision, [*written.items()]))
        return TxnResult(succeeded, self.revision, tuple(reads), deleted)

    def end_lease(self, lease: int) -> None:
        """Delete a lease with its keys."""
        self.flush()
        rows: list[Row] = self.cursor.execute(sql.LEASE_KEYS, (lease,)).fetchall()
        self.cursor.execute(sql.LEASE_DELETE, (lease,))
        attached = [key for key, revision in rows if (item := self.newest(key)) and item.mod_revision == revision]
        self.run(True, [DeleteOp(key) for key in attached])

    def _living(self, start: str, end: str) -> list[str]:
        """Return the keys that exist in a range, in order."""
        self.flush()
        rows: list[Row] = self.cursor.execute(sql.LIVING, (start, end, _ALL_REVISIONS, -1)).fetchall()
        waiting = {key for key in self._waiting if start <= key < end}
        living = {row[0] for row in rows} - waiting | {key for key in waiting if self.newest(key) is not None}
        if len(living) > sql.PLACES // 2:
            raise BadRequestError(f"{len(living)} keys from {start!r} to {end!r} are more than a transaction deletes")
        return sorted(living)

    def _is_last(self, key: str) -> bool:
        """Return whether a key sorts after all of its directory that exist or were asked for: then it is a new one."""
        directory = key[: key.rfind("/") + 1]
        last = self._last.get(directory)
        if last is None:
            if not directory:
                return False
            row: Row = one(self.cursor.execute(sql.LAST_INDEXED, (directory, prefix_end(directory))))
            last = max([row[0] or "", *(waiting for waiting in self._waiting if waiting.startswith(directory))])
            self._last[directory] = last
        if key <= last:
            return False
        self._last[directory] = key
        return True

    def _check_lease(self, lease: int) -> None:
        if self.cursor.execute(sql.LEASE_EXISTS, (lease, self._clock())).fetchone() is None:
            raise NotFoundError(f"lease {lease} does not exist or has ended")

    def _forget_keys(self) -> None:
        self._known = {}
        self._last = {}
        self._bytes = 0
