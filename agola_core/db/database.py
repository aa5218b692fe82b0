"""A SQLite database: writers one after the other, readers never blocked, each bound to its caller's context."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from agola_core.context import Context
from agola_core.errors import (
    BadRequestError,
    ClosedError,
    CorruptionError,
    FormatError,
    NotFoundError,
    UnavailableError,
)

T = TypeVar("T")
R = TypeVar("R")

Params = Mapping[str, Any] | Sequence[Any]

_BUSY_TRIES = 20
"""How often a locked database is tried again: Agola's number."""

_BUSY_MILLISECONDS = 250
_STEPS = 1000
_IDLE_READERS = 8


class Tx:
    """One transaction. Its statements end with its context; do not keep it after the function it was given to."""

    def __init__(self, connection: apsw.Connection, context: Context) -> None:
        self._connection = connection
        self.context = context

    def execute(self, sql: str, params: Params = ()) -> int:
        """Run a statement and return how many rows it changed."""
        self.context.check()
        before = self._connection.total_changes()
        self._connection.execute(sql, params)
        return self._connection.total_changes() - before

    def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        """Run a statement once for each row of parameters."""
        self.context.check()
        self._connection.executemany(sql, rows)

    def rows(self, sql: str, params: Params = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query as they are."""
        self.context.check()
        yield from self._connection.execute(sql, params)

    def query(self, record: type[R], sql: str, params: Params = ()) -> list[R]:
        """Return the rows of a query as records: the columns' names are the fields' names.

        Args:
            record: A class whose fields msgspec knows: a Struct, a dataclass, a NamedTuple.
            sql: The query.
            params: Its parameters.
        """
        self.context.check()
        cursor = self._connection.execute(sql, params)
        first = cursor.fetchone()
        if first is None:
            return []
        names = [column[0] for column in cursor.get_description()]
        return [_record(record, dict(zip(names, row, strict=True))) for row in (first, *cursor)]

    def query_one(self, record: type[R], sql: str, params: Params = ()) -> R:
        """Return the first row of a query as a record.

        Raises:
            NotFoundError: There is none.
        """
        found = self.query(record, sql, params)
        if not found:
            raise NotFoundError("no such row")
        return found[0]


class Database:
    """A SQLite file in WAL mode. Thread-safe; several processes may share it.

    Args:
        path: The file; created when missing.
        migrations: Scripts; the n-th brings a database of version n to version n + 1.
        durable: Whether a commit waits for the disk. A database that can be thrown away need not.

    Raises:
        CorruptionError: The file is damaged, or no database.
        FormatError: It has a version that the migrations do not reach.
        UnavailableError: It cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], migrations: Sequence[str] = (), *, durable: bool = True) -> None:
        self.path = str(Path(path).absolute())
        self._durable = durable
        self._closed = False
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._readers: deque[apsw.Connection] = deque()
        self._active = threading.local()
        with self._errors():
            self._writer = self._connect()
            self._migrate(migrations)

    def do(self, context: Context, function: Callable[[Tx], T]) -> T:
        """Run a function in one writing transaction, and commit unless it raises.

        Args:
            context: Its deadline or cancellation interrupts even a statement that runs, and rolls back.
            function: Gets the transaction.

        Raises:
            DeadlineError: The context ended first; nothing was written.
            UnavailableError: Another process kept the database locked, 20 tries long; or the disk is full.
            BadRequestError: The calling thread is in a transaction of this database already.
        """
        with self._turn(context), self._bound(self._writer, context) as transaction:
            self._begin("BEGIN IMMEDIATE")
            try:
                result = function(transaction)
                context.check()
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            return result

    def read(self, context: Context, function: Callable[[Tx], T]) -> T:
        """Run a function in one reading transaction; writers do not block it (see `do`)."""
        with self._errors():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._connect()
        try:
            with self._bound(connection, context) as transaction, connection:
                result = function(transaction)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if not self._closed and len(self._readers) < _IDLE_READERS:
                self._readers.append(connection)
                return result
        connection.close()
        return result

    def close(self) -> None:
        """Close every connection; closing twice is harmless."""
        with self._write_lock, self._lock:
            if self._closed:
                return
            self._closed = True
            for connection in (*self._readers, self._writer):
                connection.close()
            self._readers.clear()

    def _connect(self) -> apsw.Connection:
        if self._closed:
            raise ClosedError("the database was closed")
        connection = apsw.Connection(self.path)
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _migrate(self, migrations: Sequence[str]) -> None:
        self._begin("BEGIN IMMEDIATE")
        try:
            row: tuple[Any, ...] | None = self._writer.execute("PRAGMA user_version").fetchone()
            version = row[0] if row else 0
            if version > len(migrations):
                raise FormatError(f"{self.path}: version {version} is newer than {len(migrations)}, the newest known")
            for script in migrations[version:]:
                self._writer.execute(script)
            self._writer.execute(f"PRAGMA user_version = {len(migrations)}")
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def _begin(self, statement: str) -> None:
        for attempt in range(_BUSY_TRIES):
            try:
                self._writer.execute(statement)
                return
            except apsw.BusyError as error:
                if attempt == _BUSY_TRIES - 1:
                    raise UnavailableError(f"{self.path}: locked by another process") from error

    @contextmanager
    def _turn(self, context: Context) -> Iterator[None]:
        if getattr(self._active, "writing", False):
            raise BadRequestError("a transaction of this database runs in this thread already")
        remaining = context.remaining
        if not self._write_lock.acquire(timeout=-1 if remaining is None else remaining):
            context.check()
        self._active.writing = True
        try:
            if self._closed:
                raise ClosedError("the database was closed")
            yield
        finally:
            self._active.writing = False
            self._write_lock.release()

    @contextmanager
    def _bound(self, connection: apsw.Connection, context: Context) -> Iterator[Tx]:
        context.check()
        forget = context.on_cancel(connection.interrupt)
        if context.deadline is not None:
            connection.set_progress_handler(lambda: context.ended, _STEPS)
        try:
            with self._errors():
                yield Tx(connection, context)
        except UnavailableError as error:
            if isinstance(error.__cause__, apsw.InterruptError):
                context.check()
            raise
        finally:
            forget()
            connection.set_progress_handler(None)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise CorruptionError(f"not an intact database: {error}", path=self.path) from error
        except (apsw.ConnectionClosedError, apsw.CursorClosedError) as error:
            raise ClosedError("the database was closed") from error
        except (apsw.BusyError, apsw.LockedError, apsw.InterruptError, apsw.FullError, apsw.IOError) as error:
            raise UnavailableError(f"{self.path}: {error}") from error
        except apsw.CantOpenError as error:
            raise UnavailableError(f"{self.path}: {error}") from error


def _record(record: type[R], values: dict[str, Any]) -> R:
    if issubclass(record, tuple):  # msgspec takes named tuples by position alone
        return record(**values)
    return msgspec.convert(values, record, strict=False)
