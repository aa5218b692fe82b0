"""The embedded coordinator: transactions, leases and watches on one SQLite database.

Group commit: concurrent transactions share one SQLite transaction and so one fsync (see `leader_queue`);
each has its own revision and its own verdict.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import apsw

from agola_core.coordinator.outcomes import Outcome
from agola_core.coordinator.port import (
    Compare,
    GetOp,
    Op,
    TxnResult,
    check_ops,
    check_reads,
)
from agola_core.coordinator.sqlite import schema as sql
from agola_core.coordinator.sqlite.database import Database, one
from agola_core.coordinator.sqlite.errors import find_row
from agola_core.coordinator.sqlite.reads import Rows, SQLiteReads
from agola_core.coordinator.sqlite.session import Session
from agola_core.coordinator.sqlite.settle import settle
from agola_core.coordinator.sqlite.watch import Change
from agola_core.errors import (
    BadRequestError,
    ClosedError,
    NotFoundError,
    RecoveryError,
    UnknownOutcomeError,
)
from agola_core.runtime.clock import boot_clock, boot_id, until_next
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.leader_queue import LeaderQueue, Waiting
from agola_core.runtime.threads.supervisor import Supervisor

_SWEEP_SECONDS = 1.0
_LEAST_SWEEP_SECONDS = 0.02


class _Work(Waiting):
    """A caller's part of a group commit, and then its result."""

    result: Any = None

    def __init__(self, work: Callable[[Session], Any]) -> None:
        self.work = work


Works = list[_Work]
Changes = list[Change]


class SQLiteCoordinator(SQLiteReads):
    """A coordinator in a single file (see `agola_core.coordinator.port.Coordinator`).

    Args:
        path: The database file; it and its directory are created if missing. Not on a network file system.
        clock: Clock for leases, in seconds: common to all processes, and monotonic within one `boot`.
        boot: Id of this boot of the machine; leases of another boot get their full time again on opening.

    Raises:
        UnavailableError: The file cannot be opened or created.
        CorruptionError: It is not a database, or a damaged one.
        FormatError: It was written by a later release, or SQLite is too old.

    If the file is deleted, moved or replaced, every call raises `RecoveryError`: writes at once, other calls within
    a second.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Callable[[], float] = boot_clock, boot: str = ""
    ) -> None:
        self._clock = clock
        self._boot = boot or boot_id()
        super().__init__(Database(path))
        self.path = self._database.path
        self._closing = fork_safe(threading.Lock())
        self._closed = False
        self._queue: LeaderQueue[_Work] = LeaderQueue(self._work, turn=self._database.writing)
        with self._database.errors():
            self._cursor = self._database.writer.cursor()
            self._session = Session(self._cursor, clock)
            self._cursor.execute(sql.LEASES_REBOOTED, (clock(), self._boot))
        self._next_end: float | None = None  # when the next lease ends, as of the last sweep
        self._supervisor = Supervisor("sqlite-coordinator")
        self._leases = self._supervisor.loop("leases", self.expire_leases, interval=self._sweep_pause)

    def __repr__(self) -> str:
        """Return the class and the file."""
        return f"SQLiteCoordinator({self.path!r})"

    # Writes

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[GetOp] = ()) -> TxnResult:
        """Run a transaction (see the port)."""
        check_ops(then, self.max_txn_ops, self.max_txn_bytes)
        if otherwise:
            check_reads(otherwise, self.max_txn_ops)

        def work(session: Session) -> TxnResult:
            for item in compare:
                if not session.holds(item):
                    return session.run(False, otherwise)
            return session.run(True, then)

        result: TxnResult = self._submit(work)
        return result

    def compact(self, revision: int) -> None:
        """Discard the history before a revision (see the port)."""

        def work(session: Session) -> None:
            if revision > session.revision:
                raise BadRequestError(f"revision {revision} lies after {session.revision}, the newest")
            if revision <= one(session.cursor.execute(sql.COMPACTED))[0]:
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
            lambda session: one(session.cursor.execute(sql.LEASE_GRANT, (ttl, self._clock() + ttl, self._boot)))[0]
        )
        if ttl < _SWEEP_SECONDS:
            self._leases.wake()  # it ends before the next sweep
        return lease

    def keep_alive(self, lease: int) -> float:
        """Renew a lease (see the port)."""
        row = self._submit(lambda session: session.cursor.execute(sql.LEASE_RENEW, (self._clock(), lease)).fetchone())
        return float(row[0]) if row else 0.0

    def revoke_lease(self, lease: int) -> None:
        """Revoke a lease (see the port)."""
        self._submit(lambda session: session.end_lease(lease))

    def expire_leases(self) -> None:
        """Revoke expired leases; called periodically by every process that has the database open."""
        try:
            self._database.look(closely=True)
        except RecoveryError:  # reported by the next call
            return
        now = self._clock()
        with self._database.reader() as connection:
            (self._next_end,) = one(connection.execute(sql.LEASES_NEXT))
        if self._next_end is None or self._next_end > now:
            return

        def work(session: Session) -> None:
            expired: Rows = session.cursor.execute(sql.LEASES_EXPIRED, (now,)).fetchall()
            for (lease,) in expired:
                session.end_lease(lease)

        self._submit(work)

    def _sweep_pause(self) -> float:
        """Return the seconds until the next sweep: a lease that ends earlier is not left to wait for it."""
        left = math.inf if self._next_end is None else self._next_end - self._clock()
        return min(max(left, _LEAST_SWEEP_SECONDS), until_next(_SWEEP_SECONDS))

    def close(self) -> None:
        """Release all resources (see the port)."""
        with self._closing:
            if self._closed or not self._database.origin.is_here:
                return
            self._closed = True
        self._hub.close()
        self._supervisor.stop()
        self._database.close()

    # Group commit

    def _submit(self, work: Callable[[Session], Any]) -> Any:
        self._database.check_open()
        wanted = _Work(work)
        self._queue.do(wanted)
        return wanted.result

    def _work(self, batch: Works) -> None:
        if self._closed:
            raise ClosedError("the coordinator was closed")
        mark = self._database.enter()
        try:
            self._commit(batch)
        finally:
            self._database.leave(mark)
        for wanted in batch:
            wanted.done = True

    def _commit(self, batch: Works) -> None:
        execute, session = self._cursor.execute, self._session
        self._database.check_found()
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
            number = self._database.writer.system_errno
            self._roll_back()
            if isinstance(error, (apsw.Error, OSError)):
                raise self._database.translated(error, number) from error
            raise
        try:
            execute("COMMIT")
        except apsw.Error as error:
            number = self._database.writer.system_errno
            batches = session.batches
            self._roll_back()
            unknown = find_row(error).at_commit is Outcome.UNKNOWN
            if not (unknown and settle(self._database.writer, batches, error, self.path)):
                raise self._database.translated(error, number) from error
            session.batches = batches
        except BaseException:
            self._roll_back()
            raise
        try:
            self._database.look()  # invariant 3: what is acknowledged is at the path
        except RecoveryError as error:
            session.forget()
            raise UnknownOutcomeError(f"{error}; the last commit went into it") from error
        session.end()
        if session.batches:
            self._hub.committed(session.batches)
        else:
            self._hub.wrote = True

    def _roll_back(self) -> None:
        self._session.forget()
        if self._database.writer.in_transaction:
            self._cursor.execute("ROLLBACK")
