"""Read operations of the SQLite coordinator, shared by the writable and the read-only one."""

from __future__ import annotations

import apsw

from agola_core.coordinator.port import MAX_LIST, KeyValue, Page, prefix_end
from agola_core.coordinator.sqlite import schema as sql
from agola_core.coordinator.sqlite.database import Database, Row, newest_revision, one
from agola_core.coordinator.sqlite.session import KeyChanges
from agola_core.coordinator.sqlite.watch import Change, SQLiteWatch, WatchHub
from agola_core.errors import BadRequestError, CompactedError

Rows = list[Row]
Changes = list[Change]


class SQLiteReads:
    """The read operations of a coordinator (see `agola_core.coordinator.port.Coordinator`).

    Args:
        database: The coordinator's database.
    """

    max_txn_ops = 100_000
    max_txn_bytes = 256 * 1024 * 1024

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.reader() as connection:
            newest = newest_revision(connection)
        self._hub = WatchHub(
            newest,
            self.changes,
            database.foreign_revision,
            database.is_being_written,
            database.origin,
            database.path,
        )

    def watch(self, prefix: str, from_revision: int) -> SQLiteWatch:
        """Start a watch (see the port)."""
        self._database.check_open()
        return self._hub.open(prefix, from_revision)

    def close(self) -> None:
        """Release all resources (see the port)."""
        if self._database.origin.is_here:
            self._hub.close()
            self._database.close()

    def identity(self) -> str:
        """Return the database's id (see the port); copies of the file have the same one."""
        with self._database.reader() as connection:
            return f"sqlite {one(connection.execute(sql.IDENTITY))[0]}"

    def get(self, key: str) -> KeyValue | None:
        """Return the newest state of a key (see the port)."""
        with self._database.reader() as connection:
            row: Row | None = connection.execute(sql.NEWEST, (key,)).fetchone()
        return None if row is None or row[0] is None else KeyValue(key, *row)

    def list(self, prefix: str, *, start_after: str = "", limit: int = MAX_LIST, revision: int = 0) -> Page:
        """Return keys that begin with a prefix (see the port)."""
        limit = min(limit, MAX_LIST)
        if limit < 1:
            raise BadRequestError(f"a list's limit must be at least 1, not {limit}")
        with self._database.reader() as connection, connection:
            newest = newest_revision(connection)
            if revision > newest:
                raise BadRequestError(f"revision {revision} lies after {newest}, the newest")
            at = revision or newest
            self._check_kept(connection, at)
            # The smallest text after `start_after` is `start_after` followed by a NUL.
            start, end = max(prefix, f"{start_after}\0" if start_after else "", key=str.encode), prefix_end(prefix)
            waiting: Rows = connection.execute(sql.LIST_WAITING, (start, end, at)).fetchall()
            rows: Rows = connection.execute(sql.LIST, (start, end, at, limit + 1 + len(waiting))).fetchall()
        more = len(rows) > limit
        if waiting:
            newest_rows = {row[0]: row for row in (*rows, *waiting)}
            rows = sorted((row for row in newest_rows.values() if row[1] is not None), key=_key_bytes)
            more = len(rows) > limit
        return Page(tuple(KeyValue(*row) for row in rows[:limit]), at, more)

    def _check_kept(self, connection: apsw.Connection, revision: int) -> None:
        (oldest,) = one(connection.execute(sql.COMPACTED))
        if revision < oldest:
            raise CompactedError(f"revision {revision} was compacted; the oldest kept is {oldest}", oldest=oldest)

    def changes(self, start: int, end: int) -> Changes:
        """Return the changes of the revisions from `start` (inclusive) to `end` (exclusive), by revision."""
        with self._database.reader() as connection, connection:
            self._check_kept(connection, start)
            rows = connection.execute(sql.CHANGES, (start, end)).fetchall()
        changes: dict[int, KeyChanges] = {}
        row: Row
        for row in rows:
            mod, key, value, created, version, lease = row
            item = None if value is None else KeyValue(key, value, created, mod, version, lease)
            changes.setdefault(mod, []).append((key, item))
        return [*changes.items()]


def _key_bytes(row: Row) -> bytes:
    key: str = row[0]
    return key.encode()
