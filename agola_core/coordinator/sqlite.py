"""The embedded coordinator: one SQLite database in WAL mode, shared by several processes of one machine.

Concurrent transactions share one SQLite transaction and so one fsync (see `leaderqueue`); each keeps its own
revision and verdict.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from agola_core.clock import boot_clock
from agola_core.coordinator import sqlite_schema as sql
from agola_core.coordinator.port import (
    MAX_LIST,
    Compare,
    KeyValue,
    Op,
    Page,
    TxnResult,
    check_ops,
    prefix_end,
)
from agola_core.coordinator.sqlite_session import KeyChanges, Session
from agola_core.coordinator.sqlite_watch import Change, SQLiteWatch, WatchHub
from agola_core.decoding import newer
from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ClosedError,
    CompactedError,
    CorruptionError,
    FormatError,
    NotFoundError,
    OutOfSpaceError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.leaderqueue import LeaderQueue, Waiting
from agola_core.supervisor import Supervisor

MINIMUM_SQLITE = (3, 51, 3)
"""Older ones can lose data when their write-ahead log is reset."""

_BUSY_MILLISECONDS = 10_000
_SWEEP_SECONDS = 0.5
_LAST_LIST_REVISION = (1 << 63) - 1
_IDLE_READERS = 16

Row = tuple[Any, ...]
Rows = list[Row]


class _Work(Waiting):
    """Work that waits for a place in a shared transaction, and then its result."""

    __slots__ = ("result", "work")

    def __init__(self, work: Callable[[Session], Any]) -> None:
        super().__init__()
        self.work = work
        self.result: Any = None


Works = list[_Work]
Changes = list[Change]


def boot_id() -> str:
    """Return what tells this start of the machine from others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


class SQLiteCoordinator:
    """A coordinator in one file (see `agola_core.coordinator.port.Coordinator`).

    Args:
        path: The database; it and its directory are created when missing. Not on a network file system.
        clock: Seconds for leases: the same in all processes, never set back while `boot` stays.
        boot: Leases of another boot start their time anew when the database is opened.

    Raises:
        UnavailableError: The file cannot be opened or created.
        CorruptionError: It is not a database, or a damaged one.
        FormatError: A later release made it, or SQLite is too old.
    """

    max_txn_ops = 100_000
    max_txn_bytes = 256 * 1024 * 1024

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Callable[[], float] = boot_clock, boot: str = ""
    ) -> None:
        if tuple(map(int, apsw.sqlite_lib_version().split("."))) < MINIMUM_SQLITE:
            raise FormatError(f"SQLite {apsw.sqlite_lib_version()} is too old: 3.51.3 is the oldest safe one")
        self.path = str(Path(path).absolute())
        self._clock = clock
        self._pid = os.getpid()
        self._closed = False
        self._queue: LeaderQueue[_Work] = LeaderQueue(self._work)
        self._closing = threading.Lock()
        self._readers: deque[apsw.Connection] = deque()
        self._readers_lock = threading.Lock()
        self._writer_lock = threading.Lock()
        with self._errors():
            _create_directory(Path(self.path).parent)
            self._writer = self._connect()
            self._cursor = self._writer.cursor()
            self._session = Session(self._cursor, clock)
            self._migrate()
            # Always: a process that was killed may have made the files, and SQLite syncs only the names of its own.
            _sync_directory(Path(self.path).parent)
            self._cursor.execute(sql.LEASES_REBOOTED, (clock(), boot or boot_id()))
            self._poll_reader = self._connect()
            self._data_version = -1
            self._boot = boot or boot_id()
            self._hub = WatchHub(self._newest_revision(self._writer), self._changes, self._poll_revision)
        self._supervisor = Supervisor("sqlite-coordinator")
        self._supervisor.loop("leases", self.expire_leases, interval=_SWEEP_SECONDS)

    # Reads

    def get(self, key: str) -> KeyValue | None:
        """Return the newest state of a key (see the port)."""
        with self._reader() as connection:
            row: Row | None = connection.execute(sql.NEWEST, (key,)).fetchone()
        return None if row is None or row[0] is None else KeyValue(key, *row)

    def list(self, prefix: str, *, start_after: str = "", limit: int = MAX_LIST, revision: int = 0) -> Page:
        """Return keys that begin with a prefix (see the port)."""
        limit = min(limit, MAX_LIST)
        if limit < 1:
            raise BadRequestError(f"a list's limit must be at least 1, not {limit}")
        with self._reader() as connection, connection:
            newest = self._newest_revision(connection)
            if revision > newest:
                raise BadRequestError(f"revision {revision} lies after {newest}, the newest")
            at = revision or newest
            self._check_kept(connection, at)
            # The smallest text after `start_after` is it with a NUL behind.
            start, end = max(prefix, f"{start_after}\0" if start_after else "", key=str.encode), prefix_end(prefix)
            waiting: Rows = connection.execute(sql.LIST_WAITING, (start, end, at)).fetchall()
            rows: Rows = connection.execute(sql.LIST, (start, end, at, limit + 1 + len(waiting))).fetchall()
        more = len(rows) > limit
        if waiting:
            newest_rows = {row[0]: row for row in (*rows, *waiting)}
            rows = sorted((row for row in newest_rows.values() if row[1] is not None), key=_key_bytes)
            more = len(rows) > limit
        return Page(tuple(KeyValue(*row) for row in rows[:limit]), at, more)

    def watch(self, prefix: str, from_revision: int) -> SQLiteWatch:
        """Start a watch (see the port)."""
        self._check_open()
        return self._hub.open(prefix, from_revision)

    # Writes

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        """Run a transaction (see the port)."""
        check_ops(then, self.max_txn_ops, self.max_txn_bytes)
        if otherwise:
            check_ops(otherwise, self.max_txn_ops, self.max_txn_bytes)

        def work(session: Session) -> TxnResult:
            for item in compare:
                if not session.holds(item):
                    return session.run(False, otherwise)
            return session.run(True, then)

        result: TxnResult = self._submit(work)
        return result

    def compact(self, revision: int) -> None:
        """Forget the history before a revision (see the port)."""

        def work(session: Session) -> None:
            if revision > session.revision:
                raise BadRequestError(f"revision {revision} lies after {session.revision}, the newest")
            if revision <= _one(session.cursor.execute(sql.COMPACTED))[0]:
                return
            session.flush()
            session.index()
            session.cursor.execute(sql.COMPACT, (revision,))
            session.cursor.execute(sql.COMPACT_ENTRIES, (revision,))
            session.cursor.execute(sql.COMPACT_KEYED, (revision,))

        self._submit(work)

    # Leases

    def grant_lease(self, ttl: float) -> int:
        """Create a lease (see the port)."""
        if ttl <= 0:
            raise BadRequestError(f"a lease's time must be positive, not {ttl}")
        lease: int = self._submit(
            lambda session: _one(session.cursor.execute(sql.LEASE_GRANT, (ttl, self._clock() + ttl, self._boot)))[0]
        )
        return lease

    def keep_alive(self, lease: int) -> float:
        """Renew a lease (see the port)."""
        row = self._submit(lambda session: session.cursor.execute(sql.LEASE_RENEW, (self._clock(), lease)).fetchone())
        return float(row[0]) if row else 0.0

    def revoke_lease(self, lease: int) -> None:
        """End a lease (see the port)."""
        self._submit(lambda session: session.end_lease(lease))

    def expire_leases(self) -> None:
        """End the leases whose time is over; a loop of every process that has the database open calls it."""
        now = self._clock()
        with self._reader() as connection:
            if connection.execute(sql.LEASES_EXPIRED, (now,)).fetchone() is None:
                return

        def work(session: Session) -> None:
            expired: Rows = session.cursor.execute(sql.LEASES_EXPIRED, (now,)).fetchall()
            for (lease,) in expired:
                session.end_lease(lease)

        self._submit(work)

    def close(self) -> None:
        """Release everything (see the port)."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._hub.close()
        self._supervisor.stop()
        with self._writer_lock, self._readers_lock:
            for connection in (*self._readers, self._poll_reader, self._writer):
                connection.close()
            self._readers.clear()

    # The shared transaction

    def _submit(self, work: Callable[[Session], Any]) -> Any:
        self._check_open()
        wanted = _Work(work)
        self._queue.do(wanted)
        return wanted.result

    def _work(self, batch: Works) -> None:
        with self._writer_lock:
            if self._closed:
                raise ClosedError("the coordinator was closed")
            self._commit(batch)
        for wanted in batch:
            wanted.done = True

    def _commit(self, batch: Works) -> None:
        execute, session = self._cursor.execute, self._session
        try:
            execute("BEGIN IMMEDIATE")
            session.begin()
            for wanted in batch:
                try:
                    wanted.result = wanted.work(session)
                except (BadRequestError, NotFoundError) as error:
                    wanted.error = error
            session.flush()
        except BaseException as error:
            self._roll_back()
            if isinstance(error, (apsw.Error, OSError)):
                raise self._translated(error) from error
            raise
        try:
            execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, apsw.FullError):  # the transaction's end never reached the disk
                raise self._translated(error) from error
            if isinstance(error, apsw.Error):
                raise UnknownOutcomeError(f"{self.path}: the commit failed: {error}") from error
            raise
        session.end()
        if session.batches:
            self._hub.committed(session.batches)

    def _roll_back(self) -> None:
        self._session.forget()
        if self._writer.in_transaction:
            self._cursor.execute("ROLLBACK")

    # Connections

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(self.path)
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _migrate(self) -> None:
        cursor = self._cursor
        cursor.execute("BEGIN IMMEDIATE")
        try:
            (version,) = _one(cursor.execute("PRAGMA user_version"))
            if version > sql.VERSION:
                raise newer(self.path, version, sql.VERSION)
            if version == 0:
                cursor.execute(sql.SCHEMA)
            elif version == 1:
                cursor.execute(sql.FROM_VERSION_1)
            if version < sql.VERSION:
                cursor.execute(f"PRAGMA user_version = {sql.VERSION}")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")

    @contextmanager
    def _reader(self) -> Iterator[apsw.Connection]:
        self._check_open()
        with self._errors():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
        with self._readers_lock:
            if not self._closed and len(self._readers) < _IDLE_READERS:
                self._readers.append(connection)
                return
        connection.close()

    def _newest_revision(self, connection: apsw.Connection) -> int:
        row: Row | None = connection.execute(sql.REVISION).fetchone()
        return row[0] if row else 1

    def _check_kept(self, connection: apsw.Connection, revision: int) -> None:
        (oldest,) = _one(connection.execute(sql.COMPACTED))
        if revision < oldest:
            raise CompactedError(f"revision {revision} was compacted; the oldest kept is {oldest}", oldest=oldest)

    def _changes(self, start: int, end: int) -> Changes:
        with self._reader() as connection, connection:
            self._check_kept(connection, start)
            rows = connection.execute(sql.CHANGES, (start, end)).fetchall()
        changes: dict[int, KeyChanges] = {}
        row: Row
        for row in rows:
            mod, key, value, created, version, lease = row
            item = None if value is None else KeyValue(key, value, created, mod, version, lease)
            changes.setdefault(mod, []).append((key, item))
        return [*changes.items()]

    def _poll_revision(self) -> int | None:
        with self._errors():
            (version,) = _one(self._poll_reader.execute("PRAGMA data_version"))
            if version == self._data_version:
                return None
            self._data_version = version
            return self._newest_revision(self._poll_reader)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the coordinator was closed")
        if os.getpid() != self._pid:
            raise ClosedError("the coordinator was opened before a fork: open it again in the child")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (apsw.Error, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> AgolaError:
        match error:
            case apsw.NotADBError() | apsw.CorruptError():
                return CorruptionError(f"not an intact database: {error}", path=self.path)
            case apsw.FullError():
                return OutOfSpaceError(f"{self.path}: the disk is full: {error}")
            case apsw.ConnectionClosedError():
                return ClosedError("the coordinator was closed")
            case _:
                return UnavailableError(f"{self.path}: {error}")


def _one(cursor: apsw.Cursor) -> Row:
    row: Row | None = cursor.fetchone()
    assert row is not None
    return row


def _key_bytes(row: Row) -> bytes:
    key: str = row[0]
    return key.encode()


def _create_directory(path: Path) -> None:
    if path.is_dir():
        return
    _create_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
