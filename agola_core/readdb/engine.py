"""Builds a readdb from a snapshot, then follows the log; discards and rebuilds it when anything is wrong.

Each transaction stores the rows together with the position in the log, so a crash never applies a WAL twice or skips
one. A rebuild writes a new file, and readers use the old one until the new one replaces it (see `files`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

from agola_core.datamanager import Action, ChangeGroupsToken, Event, Feed, Put
from agola_core.db import Database, Purpose, Tx
from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ClosedError,
    CompactedError,
    CorruptionError,
    DeadlineError,
    FencedError,
    FormatError,
    UnavailableError,
)
from agola_core.readdb.files import ReadDBFiles, discard, this_boot
from agola_core.readdb.projection import Projection, SnapshotSource, Source, check_types
from agola_core.readdb.tables import Place, Tables
from agola_core.runtime.closing import Closing
from agola_core.runtime.context import Context, check_call, check_context
from agola_core.runtime.processes.forks import Origin, fork_safe
from agola_core.runtime.progress import Meter, Progress, ignore
from agola_core.runtime.threads.supervisor import Loop, Supervisor
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BUILD_ROWS = 10_000
_FOLLOW_WALS = 200
_FOLLOW_SECONDS = 10.0


class ReadDB(Closing):
    """A query copy of a store. Thread-safe; a context manager.

    Args:
        source: The datamanager.
        path: A link to the SQLite file in use; it may be deleted at any time while the readdb is closed.
        projections: The tables to keep.
        progress: Told of the rows of a build.

    Raises:
        BadRequestError: The projections are none, not of one name each, or one wants a type that the store cannot have.
    """

    def __init__(
        self, source: Source, path: str | Path, projections: Items[Projection], *, progress: Progress = ignore
    ) -> None:
        if not callable(getattr(source, "watch", None)):
            raise BadRequestError(f"a readdb follows an open datamanager, not a {type(source).__name__}")
        self._source = source
        self._origin = Origin("the readdb")
        self._tables = Tables(projections, str(path))
        check_types(self._tables.projections, source)
        self._files = ReadDBFiles(path)
        self._progress = progress
        self._changed = fork_safe(threading.Condition())
        self._database: Database | None = None
        self._place = Place(Sequence(0, 0), "", "")
        self._set_aside = 0
        self._feed: Feed | None = None
        self._damaged = False
        self._closed = False
        self._context = Context()
        self._supervisor = Supervisor("readdb")
        self._loop: Loop | None = None

    def start(self, context: Context | None = None) -> None:
        """Open or build the file, and follow the log from then on.

        Args:
            context: Cancelling it aborts a build.
        """
        self._open_or_build(context)
        self._loop = self._supervisor.loop("follow", self._follow, interval=0.0)

    def catch_up(self) -> None:
        """Apply everything that the source has now, in the calling thread: for use without `start`."""
        if self._database is None:
            self._open_or_build(None)
        while self._follow_once(0.0):
            pass

    def read(self, context: Context, function: Callable[[Tx], T]) -> T:
        """Run a function in one reading transaction of the newest file (see `Database.read`).

        If the file turns out to be damaged, it is rebuilt, and the function runs on the new one.
        """
        check_call(context, function)
        while True:
            database = self._current(context)
            try:
                return database.read(context, function)
            except ClosedError:
                if self._closed or database is self._database:
                    raise
            except CorruptionError:
                if self._loop is None:  # nobody rebuilds it behind the caller's back
                    raise
                self._report_damage(database, context)

    def __repr__(self) -> str:
        """Return the file, how far it has come, and how many actions its projections refused."""
        refused = f", {self._set_aside} actions set aside" if self._set_aside else ""
        closed = " (closed)" if self._closed else ""
        return f"<ReadDB {str(self._files.path)!r} at {self._place.sequence}{refused}{closed}>"

    @property
    def position(self) -> Sequence:
        """The newest WAL that readers see."""
        return self._place.sequence

    def wait_for(self, place: ChangeGroupsToken | Sequence | str, timeout: float | None = None) -> None:
        """Wait until readers see a WAL, to read your own writes.

        Args:
            place: A token that `write_wal` returned, or a sequence.
            timeout: Seconds to wait; None waits without limit.

        Raises:
            DeadlineError: The time was over first.
        """
        self._origin.check()
        if isinstance(place, ChangeGroupsToken):
            place = place.sequence
        wanted = Sequence.parse(place) if isinstance(place, str) else place
        if not isinstance(wanted, Sequence):
            raise BadRequestError(f"a place is a token, a Sequence or its text, not {place!r}"[:200])
        if timeout is not None and not isinstance(timeout, int | float):
            raise BadRequestError(f"a timeout is a number of seconds, or None, not {timeout!r}"[:200])
        with self._changed:
            reached = self._changed.wait_for(lambda: self._closed or self._place.sequence >= wanted, timeout)
        if self._closed:
            raise ClosedError("the readdb was closed")
        if not reached:
            raise DeadlineError(f"the readdb stands at {self._place.sequence}, before {wanted}")

    def rebuild(self, context: Context | None = None) -> None:
        """Build a new file and replace the old one with it; readers use the old one until then.

        Args:
            context: Cancelling it aborts the build.
        """
        context = self._context if context is None else context
        check_context(context)
        file = self._files.new()
        started = time.monotonic()
        try:
            with self._source.snapshot() as snapshot:
                place = Place(snapshot.sequence, snapshot.lineage, this_boot())
                database = Database(file, [self._tables.schema], Purpose.BUILD)
                try:
                    rows = self._build(database, snapshot, context)
                    database.do(context, lambda tx: self._tables.finish(tx, place))
                    set_aside = database.do(context, self._tables.set_aside)
                finally:
                    database.close()
            fresh = Database(file, [self._tables.schema], Purpose.COPY)
        except BaseException:
            discard(file)
            raise
        self._files.publish(file)
        self._use(fresh, place, set_aside)
        logger.info("readdb built: rows=%d sequence=%s seconds=%.2f", rows, place.sequence, time.monotonic() - started)

    def close(self) -> None:
        """Stop following and close the file; closing twice is harmless."""
        if not self._origin.is_here:
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._context.cancel()
        if self._feed is not None:
            self._feed.close()
        self._supervisor.stop()
        if self._database is not None:
            try:
                self._database.do(Context(timeout=1), lambda tx: self._tables.set_boot(tx, ""))
            except AgolaError:
                logger.info("the readdb will be rebuilt after the next boot of the machine", exc_info=True)
            self._database.close()

    def __enter__(self) -> Self:
        """Start and return the readdb."""
        self.start()
        return self

    # Opening

    def _open_or_build(self, context: Context | None) -> None:
        if self._closed:
            raise ClosedError("the readdb was closed")
        if not self._is_opened():
            self.rebuild(context)  # outside of the handler: what it logs has causes of its own

    def _is_opened(self) -> bool:
        if not self._files.exists():
            return False
        try:
            self._open()
        except (CorruptionError, FormatError, UnavailableError) as error:
            logger.info("readdb is rebuilt: %s", error)
            return False
        return True

    def _open(self) -> None:
        database = Database(self._files.path, [self._tables.schema], Purpose.COPY)
        try:
            place = database.read(Context(), self._tables.check)
            if place.lineage != self._source.lineage:
                raise FormatError("the readdb is of another lineage of the store")
            if place.boot not in {"", this_boot()}:
                raise FormatError("the machine was restarted while the readdb was open")
            database.do(Context(), lambda tx: self._tables.set_boot(tx, this_boot()))
            set_aside = database.read(Context(), self._tables.set_aside)
        except BaseException:
            database.close()
            raise
        self._use(database, place, set_aside)

    def _use(self, database: Database, place: Place, set_aside: int) -> None:
        with self._changed:
            self._set_aside = set_aside
            old, self._database, self._place, self._damaged = self._database, database, place, False
            self._changed.notify_all()
        if old is not None:
            old.close()
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _current(self, context: Context) -> Database:
        self._origin.check()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._damaged, context.remaining)
            context.check()
            if self._closed or self._database is None:
                raise ClosedError("the readdb was closed, or not started")
            return self._database

    def _report_damage(self, database: Database, context: Context) -> None:
        """Make the follower rebuild a damaged file; readers wait for the new one."""
        context.check()
        with self._changed:
            if database is not self._database or self._damaged:
                return
            self._damaged = True
        if self._feed is not None:
            self._feed.close()  # it ends its waiting

    # Building

    def _build(self, database: Database, snapshot: SnapshotSource, context: Context) -> int:
        meter = Meter("readdb", self._progress, snapshot.count(self._tables.data_types))
        for data_type in self._tables.data_types:
            wanted = [p for p in self._tables.projections if data_type in p.data_types]
            puts = (Put(data_type, object_id, data) for object_id, data in snapshot.scan(data_type))
            while part := list(islice(puts, _BUILD_ROWS)):
                context.check()
                database.do(context, partial(self._apply_all, wanted, part))
                meter.add(len(part), sum(len(put.data) for put in part))
        meter.end()
        return meter.done

    def _apply_all(self, projections: Items[Projection], part: Items[Action], tx: Tx) -> None:
        self._tables.apply(tx, projections, part, "")

    # Following

    def _follow(self) -> None:
        while not self._closed:
            try:
                self._follow_once(_FOLLOW_SECONDS)
            except ClosedError:
                if not self._closed and not self._damaged:
                    raise

    def _follow_once(self, timeout: float) -> bool:
        """Apply the waiting WALs; return whether there were any."""
        database = self._database
        assert database is not None
        try:
            if self._damaged:
                raise CorruptionError("a reader found damage", path=database.path)
            if self._feed is None:
                self._feed = self._source.watch(after=self._place.sequence)
                if self._must_stop():  # whoever said so may not have seen this feed, and not have closed it
                    return False
            first = self._feed.next(timeout)
            if first is None:
                return False
            events = [first, *self._waiting(self._feed)]
            set_aside = database.do(self._context, lambda tx: self._take(tx, events))
        except (CompactedError, FencedError, CorruptionError, FormatError) as error:
            logger.warning("readdb is rebuilt: %s", error)
            self._end_feed()
            self.rebuild()
            return True
        except ClosedError:
            self._end_feed()
            raise
        except AgolaError:
            self._end_feed()  # events that were read but not stored are read again
            raise
        with self._changed:
            self._place = self._place._replace(sequence=events[-1].sequence)
            self._set_aside = set_aside
            self._changed.notify_all()
        return True

    def _must_stop(self) -> bool:
        return self._closed or self._damaged

    def _take(self, tx: Tx, events: Items[Event]) -> int:
        self._tables.take(tx, events)
        return self._tables.set_aside(tx)

    def _end_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _waiting(self, feed: Feed) -> Iterator[Event]:
        for _ in range(_FOLLOW_WALS):
            event = feed.next(0.0)
            if event is None:
                return
            yield event
