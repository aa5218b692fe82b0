"""Table of SQLite's errors: the outcome of the transaction, and the error that its caller gets.

After a failed statement the transaction is still open and is rolled back: nothing was applied. A COMMIT appends
the transaction's pages to the write-ahead log, marks the last one as a commit, syncs, and only then makes it visible
to readers (`wal.c`, `pager.c`). A failure before that is seen by nobody; but if the commit mark may have reached the
disk, a recovery of the log after a crash would replay it. So the outcome is unknown until the same place in the log is
overwritten (see `outcome`). `TABLE` tells these cases apart.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

import apsw

from agola_core.coordinator.outcomes import Outcome
from agola_core.errors import (
    AgolaError,
    ClosedError,
    CorruptionError,
    OutOfSpaceError,
    UnavailableError,
)


class Row(NamedTuple):
    """A kind of error; the first row whose class matches an error applies.

    Attributes:
        kind: apsw's class.
        name: SQLite's name.
        at_statement: Outcome of the transaction if a statement fails with it.
        at_commit: Outcome of the transaction if COMMIT fails with it.
        error: The class of error that the caller gets.
        source: The evidence in SQLite's source.
    """

    kind: type[apsw.Error]
    name: str
    at_statement: Outcome
    at_commit: Outcome
    error: type[AgolaError]
    source: str


_NO, _UNKNOWN = Outcome.NOT_APPLIED, Outcome.UNKNOWN
_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}

TABLE = (
    Row(
        apsw.FullError,
        "SQLITE_FULL",
        _NO,
        _NO,
        OutOfSpaceError,
        "os_unix.c seekAndWrite: a write met ENOSPC, so the mark of the commit, which is written last, is not whole",
    ),
    Row(
        apsw.IOError,
        "SQLITE_IOERR, each kind",
        _NO,
        _UNKNOWN,
        UnavailableError,
        "os_unix.c: a write or a sync failed, perhaps after the mark was written; EDQUOT is one, told as no space",
    ),
    Row(
        apsw.BusyError,
        "SQLITE_BUSY, each kind",
        _NO,
        _NO,
        UnavailableError,
        "wal.c sqlite3WalBeginWriteTransaction: the lock is taken, or not, before the first page",
    ),
    Row(
        apsw.InterruptError,
        "SQLITE_INTERRUPT",
        _NO,
        _UNKNOWN,
        UnavailableError,
        "vdbe.c: looked at between steps; nobody here interrupts a COMMIT",
    ),
    Row(
        apsw.CorruptError,
        "SQLITE_CORRUPT",
        _NO,
        _UNKNOWN,
        CorruptionError,
        "btree.c: met while pages are read; at COMMIT nobody says when",
    ),
    Row(apsw.NotADBError, "SQLITE_NOTADB", _NO, _UNKNOWN, CorruptionError, "pager.c: met while the header is read"),
    Row(
        apsw.CantOpenError,
        "SQLITE_CANTOPEN",
        _NO,
        _UNKNOWN,
        UnavailableError,
        "os_unix.c: a file cannot be opened or made",
    ),
    Row(
        apsw.ConnectionClosedError,
        "(the connection was closed)",
        _NO,
        _NO,
        ClosedError,
        "apsw: it refuses before SQLite is called",
    ),
    Row(apsw.Error, "any other", _NO, _UNKNOWN, UnavailableError, "none"),
)


def find_row(error: apsw.Error) -> Row:
    """Return the row of the table for an error."""
    return next(row for row in TABLE if isinstance(error, row.kind))


def explain(error: apsw.Error, path: str, number: int, *, has_room: bool) -> AgolaError:
    """Return the error that a caller gets.

    Args:
        error: The error that apsw raised.
        path: The database.
        number: The errno of the last failure; 0 if unknown.
        has_room: Whether the file system has free space.
    """
    row = find_row(error)
    if row.error is OutOfSpaceError or (
        isinstance(error, apsw.IOError | apsw.CantOpenError) and (number in _FULL_ERRNOS or not has_room)
    ):
        return OutOfSpaceError(f"{path}: the disk is full: {error}")
    if row.error is CorruptionError:
        return CorruptionError(f"not an intact database: {error}", path=path)
    if row.error is ClosedError:
        return ClosedError("the coordinator was closed")
    return row.error(f"{path}: {error}")
