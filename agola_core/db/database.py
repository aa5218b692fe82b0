"""A SQLite database that runs one writer at a time and never blocks readers, each bound to its caller's context."""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from agola_core.db.tx import Reading, Tx, translated
from agola_core.encoding.decoding import newer
from agola_core.errors import BadRequestError, ClosedError, UnavailableError
from agola_core.runtime.context import Context, check_call
from agola_core.runtime.processes.connections import Connections, switch_to_wal
from agola_core.runtime.processes.forks import Origin, fork_safe

T = TypeVar("T")

_BUSY_TRIES = 20
"""How often to retry on a locked database; the number is Agola's."""

_BUSY_MILLISECONDS = 250
_STEPS = 1000
_IDLE_READERS = 8


class Purpose(enum.Enum):
    """How durable a database must be."""

    KEEP = "keep"
    """Keep the content: every commit waits for the disk."""
    COPY = "copy"
    """It can be rebuilt: a crash of a process loses nothing; a crash of the machine may damage it."""
    BUILD = "build"
    """It is being filled by one connection: a crash leaves it useless. Close it, then reopen it to use it."""


_PRAGMAS = {
    Purpose.KEEP: ("PRAGMA synchronous = FULL",),
    Purpose.COPY: ("PRAGMA synchronous = OFF",),
    Purpose.BUILD: (
        "PRAGMA locking_mode = EXCLUSIVE",
        "PRAGMA journal_mode = MEMORY",
        "PRAGMA synchronous = OFF",
        "PRAGMA cache_size = -32768",
    ),
}


class Database:
    """A SQLite file in WAL mode. Thread-safe; several processes may share it.

    Args:
        path: The file; created if missing.
        migrations: Scripts; the n-th one migrates a database from version n to version n + 1.
        purpose: How durable it must be.

    Raises:
        CorruptionError: The file is damaged, or no database.
        FormatError: Its version is newer than the migrations.
        UnavailableError: It cannot be opened.
    """

    def __init__(
        self, path: str | os.PathLike[str], migrations: Sequence[str] = (), purpose: Purpose = Purpose.KEEP
    ) -> None:
        self.path = str(Path(path).absolute())
        self._in_wal_mode = purpose is not Purpose.BUILD
        self._pragmas = (*_PRAGMAS[purpose], "PRAGMA foreign_keys = ON")
        self.origin = Origin("the database")
        self._closed = False
        self._turns = fork_safe(threading.Condition())
        self._writing = False
        self._connections = Connections(self.path, lambda: self._connect(read_only=True), _IDLE_READERS)
        self._active = threading.local()
        with self._errors(), self._connections.inside():
            self._writer = self._connections.keep(self._connect())
            self._migrate(migrations)

    def do(self, context: Context, function: Callable[[Tx], T]) -> T:
        """Run a function in one writing transaction, and commit unless it raises.

        Args:
            context: Its deadline or cancellation rolls back, and interrupts even a running statement.
            function: Called with the transaction.

        Raises:
            DeadlineError: The context ended first; nothing was written.
            UnavailableError: Another process kept the database locked, 20 tries long; or the disk is full.
            BadRequestError: The calling thread is in a transaction of this database already.
        """
        check_call(context, function)
        self.origin.check()
        with self._turn(context), self._connections.inside(), self._bound(self._writer, context) as transaction:
            self._begin(context)
            try:
                result = function(transaction)
                context.check()
                self.origin.check()  # the function may have forked
                self._writer.execute("COMMIT")
            except BaseException:
                if self.origin.is_here and self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            return result

    def read(self, context: Context, function: Callable[[Tx], T]) -> T:
        """Run a function in one reading transaction; writers do not block it (see `do`).

        Raises:
            BadRequestError: The function writes: nothing was written.
        """
        check_call(context, function)
        self.origin.check()
        with (
            self._connections.inside(),
            self._errors(),
            self._connections.lend() as connection,
            self._bound(connection, context, Reading) as transaction,
            connection,
        ):
            result = function(transaction)
        return result  # noqa: RET504 - for mypy, the block may swallow an error

    def close(self) -> None:
        """Close every connection; closing twice is harmless."""
        if not self.origin.is_here:
            return
        with self._turns:
            self._turns.wait_for(lambda: not self._writing)
            self._closed = True
            self._connections.close()

    def _connect(self, *, read_only: bool = False) -> apsw.Connection:
        if self._closed:
            raise ClosedError("the database was closed")
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(self.path, flags)
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        if self._in_wal_mode:
            self._retried(partial(switch_to_wal, connection, _BUSY_MILLISECONDS / 1000))
        for pragma in self._pragmas:
            self._retried(partial(connection.execute, pragma))
        return connection

    def _migrate(self, migrations: Sequence[str]) -> None:
        self._begin(Context())
        try:
            row: tuple[Any, ...] | None = self._writer.execute("PRAGMA user_version").fetchone()
            version = row[0] if row else 0
            if version > len(migrations):
                raise newer(str(self.path), version, len(migrations))
            for script in migrations[version:]:
                try:
                    self._writer.execute(script)
                except apsw.SQLError as error:
                    raise BadRequestError(f"a statement that creates the tables is wrong: {error}") from error
            self._writer.execute(f"PRAGMA user_version = {len(migrations)}")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def _begin(self, context: Context) -> None:
        self._retried(lambda: self._writer.execute("BEGIN IMMEDIATE"), context)

    def _retried(self, work: Callable[[], object], context: Context | None = None) -> None:
        """Retry work while another process has the database locked: up to a bound, until the context ends."""
        for attempt in range(_BUSY_TRIES):
            if context is not None:
                context.check()
            try:
                work()
                return
            except (apsw.BusyError, apsw.LockedError) as error:
                if attempt == _BUSY_TRIES - 1:
                    raise UnavailableError(
                        f"{self.path}: locked by another process, {_BUSY_TRIES} tries long"
                    ) from error

    @contextmanager
    def _turn(self, context: Context) -> Iterator[None]:
        if getattr(self._active, "writing", False):
            raise BadRequestError("a transaction of this database runs in this thread already")
        forget = context.on_cancel(self._wake)
        try:
            with self._turns:
                self._turns.wait_for(lambda: not self._writing or context.ended, context.remaining)
                context.check()
                if self._closed:
                    raise ClosedError("the database was closed")
                self._writing = True
        finally:
            forget()
        self._active.writing = True
        try:
            yield
        finally:
            self._active.writing = False
            with self._turns:
                self._writing = False
                self._turns.notify()

    def _wake(self) -> None:
        with self._turns:
            self._turns.notify_all()

    @contextmanager
    def _bound(self, connection: apsw.Connection, context: Context, kind: type[Tx] = Tx) -> Iterator[Tx]:
        context.check()
        forget = context.on_cancel(connection.interrupt)
        connection.set_progress_handler(lambda: context.ended, _STEPS)  # an interrupt may come before its statement
        try:
            with self._errors(context):
                yield kind(connection, context, self.path)
        finally:
            forget()
            connection.set_progress_handler(None)

    @contextmanager
    def _errors(self, context: Context | None = None) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            if context is not None and isinstance(error, apsw.InterruptError):
                context.check()
            known = translated(error, self.path)
            if known is None:
                raise
            raise known from error
