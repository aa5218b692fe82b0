"""A transaction of a database, bound to its caller's context, and the translation of SQLite's errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import apsw
import msgspec

from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ClosedError,
    CorruptionError,
    NotFoundError,
    OutOfSpaceError,
    UnavailableError,
)
from agola_core.runtime.context import Context
from agola_core.runtime.processes.forks import Origin

R = TypeVar("R")

Params = Mapping[str, Any] | Sequence[Any]

_UNAVAILABLE = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.InterruptError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.NoMemError,
)


class Tx:
    """One transaction. Its context interrupts its statements; do not keep it after the function that received it."""

    def __init__(self, connection: apsw.Connection, context: Context, path: str) -> None:
        self._connection = connection
        self._path = path
        self.context = context
        self._origin = Origin("the transaction")

    def execute(self, sql: str, params: Params = ()) -> int:
        """Run a statement and return how many rows it changed."""
        self._check()
        connection = self._connection
        before = connection.total_changes()
        try:
            connection.execute(sql, params)
        except apsw.Error as error:
            self._raise(error)
        return connection.total_changes() - before

    def executemany(self, sql: str, rows: Iterable[Params]) -> None:
        """Run a statement once for each row of parameters; much faster than separate calls."""
        self._check()
        try:
            self._connection.executemany(sql, rows)
        except apsw.Error as error:
            self._raise(error)

    def rows(self, sql: str, params: Params = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query as tuples."""
        self._check()
        try:
            yield from self._connection.execute(sql, params)
        except apsw.Error as error:
            self._raise(error)

    def _check(self) -> None:
        self._origin.check()
        self.context.check()

    def _raise(self, error: apsw.Error) -> NoReturn:
        """Raise a translated SQLite error; what a constraint refuses is raised unchanged."""
        if isinstance(error, apsw.InterruptError):
            self.context.check()
        known = translated(error, self._path)
        if known is None:
            raise error
        raise known from error

    def query(self, record: type[R], sql: str, params: Params = ()) -> list[R]:
        """Return the rows of a query as records, whose fields have the names of the columns.

        Args:
            record: A class that msgspec supports: a Struct, a dataclass or a NamedTuple.
            sql: The query.
            params: Its parameters.

        Raises:
            BadRequestError: The query is wrong, or a row is no such record.
        """
        self._check()
        try:
            cursor = self._connection.execute(sql, params)
            first = cursor.fetchone()
            if first is None:
                return []
            names = [column[0] for column in cursor.get_description()]
            found = [dict(zip(names, row, strict=True)) for row in (first, *cursor)]
        except apsw.Error as error:
            self._raise(error)
        return [_record(record, values) for values in found]

    def query_one(self, record: type[R], sql: str, params: Params = ()) -> R:
        """Return the first row of a query as a record.

        Raises:
            NotFoundError: The query returned no rows.
        """
        found = self.query(record, sql, params)
        if not found:
            raise NotFoundError("no such row")
        return found[0]


class Reading(Tx):
    """A transaction that only reads."""

    def _raise(self, error: apsw.Error) -> NoReturn:
        code = getattr(error, "extendedresult", 0)  # the file being replaced, or lost locks, have codes of their own
        if isinstance(error, apsw.ReadOnlyError) and code == apsw.SQLITE_READONLY:
            raise BadRequestError("a reading transaction cannot write: use `Database.do`") from error
        super()._raise(error)


def translated(error: apsw.Error, path: str) -> AgolaError | None:
    """Return the error that a SQLite error means to users; None for what a constraint refuses."""
    if isinstance(error, apsw.SQLError | apsw.BindingsError):
        return BadRequestError(f"a statement is wrong: {error}")
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return CorruptionError(f"not an intact database: {error}", path=path)
    if isinstance(error, apsw.ConnectionClosedError | apsw.CursorClosedError):
        return ClosedError("the database was closed")
    if isinstance(error, apsw.FullError):
        return OutOfSpaceError(f"{path}: the disk is full: {error}")
    if isinstance(error, _UNAVAILABLE):
        return UnavailableError(f"{path}: {error}")
    return None


def _record(record: type[R], values: dict[str, Any]) -> R:
    try:
        if issubclass(record, tuple):  # msgspec takes named tuples by position alone
            return record(**values)
        return msgspec.convert(values, record, strict=False)
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"a row with {', '.join(values)} is no {record!r}: {error}") from error
