"""Builds a readdb from a snapshot, then follows the log; throws it away and builds anew when anything is off.

The place in the log is stored in the same transaction as the rows, so a crash never applies a WAL twice or
skips one. A rebuild happens beside the old file, which readers use until the new one takes its place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Items
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from agola_core.context import Context
from agola_core.datamanager.feed import Feed
from agola_core.datamanager.types import Action, ChangeGroupsToken, Event, Put
from agola_core.db import Database, Tx
from agola_core.errors import (
    AgolaError,
    ClosedError,
    CompactedError,
    CorruptionError,
    DeadlineError,
    FencedError,
    FormatError,
    UnavailableError,
)
from agola_core.readdb.projection import Projection, SnapshotSource, Source
from agola_core.sequence import Sequence
from agola_core.supervisor import Supervisor

logger = logging.getLogger(__name__)

T = TypeVar("T")

_POSITION = """
CREATE TABLE readdb_position (sequence TEXT NOT NULL, lineage TEXT NOT NULL);
CREATE TABLE readdb_projection (name TEXT PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE readdb_quarantine (projection TEXT, sequence TEXT, data_type TEXT, id TEXT, error TEXT);
"""
_READ_POSITION = "SELECT sequence, lineage FROM readdb_position"
_BUILD_ROWS = 5_000
_FOLLOW_WALS = 200
_FOLLOW_SECONDS = 0.5

Progress = Callable[[int], None]


class ReadDB:
    """A query copy of a store. Thread-safe; a context manager.

    Args:
        source: The datamanager.
        path: The SQLite file; it may be deleted at any time while it is closed.
        projections: What to keep.
        progress: Called during a build with the number of objects so far.
    """

    def __init__(
        self,
        source: Source,
        path: str | Path,
        projections: Items[Projection],
        *,
        progress: Progress = lambda _: None,
    ) -> None:
        self._source = source
        self._path = Path(path)
        self._projections = tuple(projections)
        self._progress = progress
        self._changed = threading.Condition()
        self._database: Database | None = None
        self._position = Sequence(0, 0)
        self._lineage = ""
        self._feed: Feed | None = None
        self._closed = False
        self._supervisor = Supervisor("readdb")

    def start(self) -> None:
        """Open the file, or build it, and follow the log from then on."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open_or_build()
        self._supervisor.loop("follow", self._follow, interval=0.0)

    def catch_up(self) -> None:
        """Take in everything that the source has now, in the calling thread: for use without `start`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open_or_build()
        while self._follow_once(0.0):
            pass

    def read(self, context: Context, function: Callable[[Tx], T]) -> T:
        """Run a function in one reading transaction of the newest file (see `Database.read`)."""
        while True:
            with self._changed:  # for a moment, while a new file takes the old one's place, there is none
                self._changed.wait_for(lambda: self._closed or self._database is not None, context.remaining)
                database = self._database
            if database is None or self._closed:
                context.check()
                raise ClosedError("the readdb was closed")
            try:
                return database.read(context, function)
            except ClosedError:
                if self._closed or database is self._database:
                    raise

    @property
    def position(self) -> Sequence:
        """The newest WAL that readers see."""
        return self._position

    def wait_for(self, place: ChangeGroupsToken | Sequence | str, timeout: float | None = None) -> None:
        """Wait until readers see a WAL: read your writes.

        Args:
            place: The token that `write_wal` returned, or a sequence.
            timeout: Seconds to wait; None waits without limit.

        Raises:
            DeadlineError: The time was over first.
        """
        if isinstance(place, ChangeGroupsToken):
            place = place.sequence
        wanted = Sequence.parse(place) if isinstance(place, str) else place
        with self._changed:
            reached = self._changed.wait_for(lambda: self._closed or self._position >= wanted, timeout)
        if self._closed:
            raise ClosedError("the readdb was closed")
        if not reached:
            raise DeadlineError(f"the readdb stands at {self._position}, before {wanted}")

    def rebuild(self) -> None:
        """Build the file anew beside the old one and put it in its place."""
        fresh = self._path.with_name(self._path.name + ".new")
        _remove(fresh)
        started = time.monotonic()
        with self._source.snapshot() as snapshot:
            position, lineage = snapshot.sequence, snapshot.lineage
            database = Database(fresh, [_POSITION, *(p.schema for p in self._projections)], durable=False)
            try:
                rows = self._build(database, snapshot)
                database.do(Context(), lambda tx: self._finish(tx, position, lineage))
            finally:
                database.close()
        old, self._database = self._database, None
        if old is not None:
            old.close()
        _remove(self._path)
        fresh.replace(self._path)
        self._use(self._open_file(), position, lineage)
        logger.info("readdb built: rows=%d sequence=%s seconds=%.2f", rows, position, time.monotonic() - started)

    def close(self) -> None:
        """Stop following and close the file; closing twice is harmless."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._feed is not None:
            self._feed.close()
        self._supervisor.stop()
        if self._database is not None:
            self._database.close()

    def __enter__(self) -> Self:
        """Start and return the readdb."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the readdb."""
        self.close()

    # Opening

    def _open_or_build(self) -> None:
        try:
            database = self._open_file()
            position, lineage = database.read(Context(), self._check)
            if lineage != self._source.lineage:
                raise FormatError("the readdb is of another lineage of the store")
            self._use(database, position, lineage)
        except (CorruptionError, FormatError, UnavailableError) as error:
            logger.info("readdb is built anew: %s", error)
            self.rebuild()

    def _open_file(self) -> Database:
        if not self._path.exists():
            raise FormatError(f"{self._path} does not exist")
        return Database(self._path, [_POSITION, *(p.schema for p in self._projections)], durable=False)

    def _check(self, tx: Tx) -> tuple[Sequence, str]:
        row = next(tx.rows(_READ_POSITION), None)
        versions = dict(tx.rows("SELECT name, version FROM readdb_projection"))
        if row is None or versions != {p.name: p.version for p in self._projections}:
            raise FormatError("the readdb is unfinished or has other projections")
        return Sequence.parse(row[0]), row[1]

    def _use(self, database: Database, position: Sequence, lineage: str) -> None:
        with self._changed:
            self._database, self._position, self._lineage = database, position, lineage
            self._changed.notify_all()
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    # Building

    def _build(self, database: Database, snapshot: SnapshotSource) -> int:
        done = 0
        for data_type in sorted({name for p in self._projections for name in p.data_types}):
            wanted = [p for p in self._projections if data_type in p.data_types]
            puts = (Put(data_type, object_id, data) for object_id, data in snapshot.scan(data_type))
            while part := list(islice(puts, _BUILD_ROWS)):
                database.do(Context(), partial(self._apply_all, wanted, part))
                done += len(part)
                self._progress(done)
        return done

    def _apply_all(self, projections: Items[Projection], part: Items[Action], tx: Tx) -> None:
        self._apply(tx, projections, part, "")

    def _finish(self, tx: Tx, position: Sequence, lineage: str) -> None:
        tx.execute("INSERT INTO readdb_position VALUES (?, ?)", (str(position), lineage))
        tx.executemany("INSERT INTO readdb_projection VALUES (?, ?)", [(p.name, p.version) for p in self._projections])

    # Following

    def _follow(self) -> None:
        try:
            while not self._closed:
                self._follow_once(_FOLLOW_SECONDS)
        except ClosedError:
            if not self._closed:
                raise

    def _follow_once(self, timeout: float) -> bool:
        """Take in the WALs that wait; return whether there were any."""
        try:
            if self._feed is None:
                self._feed = self._source.watch(after=self._position)
            first = self._feed.next(timeout)
            if first is None:
                return False
            events = [first, *self._waiting(self._feed)]
            database = self._database
            assert database is not None
            database.do(Context(), lambda tx: self._take(tx, events))
        except (CompactedError, FencedError, CorruptionError) as error:
            logger.warning("readdb is built anew: %s", error)
            if self._feed is not None:
                self._feed.close()
                self._feed = None
            self.rebuild()
            return True
        except ClosedError:
            raise
        except AgolaError:
            self._feed = None  # what was read and not stored is read again
            raise
        with self._changed:
            self._position = events[-1].sequence
            self._changed.notify_all()
        return True

    def _waiting(self, feed: Feed) -> Iterator[Event]:
        for _ in range(_FOLLOW_WALS):
            event = feed.next(0.0)
            if event is None:
                return
            yield event

    def _take(self, tx: Tx, events: Items[Event]) -> None:
        stored = Sequence.parse(next(tx.rows(_READ_POSITION))[0])
        events = [event for event in events if event.sequence > stored]  # another process may share the file
        if not events:
            return
        if events[0].previous != stored:
            raise CorruptionError(f"WAL {events[0].sequence} does not follow {stored}", path=str(self._path))
        for event in events:
            for projection in self._projections:
                actions = [action for action in event.actions if action.data_type in projection.data_types]
                if actions:
                    self._apply(tx, [projection], actions, str(event.sequence))
        tx.execute("UPDATE readdb_position SET sequence = ?", (str(events[-1].sequence),))

    def _apply(self, tx: Tx, projections: Iterable[Projection], actions: Items[Action], sequence: str) -> None:
        for projection in projections:
            if self._try(tx, projection, actions, sequence, report=len(actions) == 1):
                continue
            for action in actions:  # one of them is bad: find it, keep the others
                self._try(tx, projection, [action], sequence, report=True)

    def _try(self, tx: Tx, projection: Projection, actions: Items[Action], sequence: str, *, report: bool) -> bool:
        tx.execute("SAVEPOINT projection")
        try:
            projection.apply(tx, actions)
        except (AgolaError, ClosedError):
            raise
        except Exception as error:  # noqa: BLE001 - a projection is the user's code: what it refuses is set aside
            tx.execute("ROLLBACK TO projection")
            tx.execute("RELEASE projection")
            if report:
                self._quarantine(tx, projection, actions[0], sequence, error)
            return False
        tx.execute("RELEASE projection")
        return True

    def _quarantine(self, tx: Tx, projection: Projection, action: Action, sequence: str, error: Exception) -> None:
        logger.error("projection %s refused %s %s", projection.name, action.data_type, action.id, exc_info=error)
        row: tuple[Any, ...] = (projection.name, sequence, action.data_type, action.id, str(error))
        tx.execute("INSERT INTO readdb_quarantine VALUES (?, ?, ?, ?, ?)", row)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
