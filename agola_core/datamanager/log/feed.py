"""The feed: yields the WALs after a given sequence, in order, as they are committed.

It reads them from memory, then from the coordinator, then from the batches in storage, and checks that each WAL
names the one before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Items
from datetime import UTC, datetime, timedelta

from agola_core.coordinator.port import MAX_LIST
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.batches import list_batches, read_actions, read_batch
from agola_core.datamanager.format.records import WalRecord, decode_wal
from agola_core.datamanager.log.log import Log
from agola_core.datamanager.types import Action, Event
from agola_core.datamanager.validate import check_timeout
from agola_core.errors import ClosedError, CompactedError, CorruptionError, FencedError, NotFoundError
from agola_core.runtime.closing import Closing
from agola_core.sequence import Sequence

_PAGE = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Feed(Closing):
    """The WALs after a sequence. An iterator that waits for more; a context manager.

    Args:
        log: The log.
        after: The sequence.

    Attributes:
        position: The newest WAL that was returned.

    Raises:
        FencedError: The sequence belongs to another lineage: the store was imported or recovered since.
        CompactedError: The WALs after the sequence are no longer kept.
    """

    def __init__(self, log: Log, after: Sequence) -> None:
        self.position = after
        self._log = log
        self._lineage = log.lineage
        self._ready: deque[Event] = deque()
        self._closed = False
        if after.epoch != self._lineage.epoch:
            raise FencedError(
                f"{after} is of another epoch than {self._lineage.epoch}: the store was imported or recovered; "
                "read a snapshot anew and go on from there"
            )
        if after > log.view.sequence:
            log.catch_up()
            if after > log.view.sequence:
                raise CompactedError(f"{after} lies after the newest WAL", oldest=str(log.view.sequence))
        self._fill()

    def next(self, timeout: float | None = None) -> Event | None:
        """Return the next WAL; None if none comes in time.

        Args:
            timeout: Seconds to wait; None waits until one comes.

        Raises:
            ClosedError: The feed or the datamanager was closed, or opened before a fork of this process.
            FencedError: The store was imported or recovered.
            CompactedError: The feed was too slow: the next WAL is no longer kept.
        """
        if timeout is not None:
            check_timeout(timeout)
        self._log.origin.check()
        self._check_open()
        if not self._ready and not self._fill() and not self._wait(timeout):
            return None
        if not self._ready and not self._fill():
            return None
        event = self._ready.popleft()
        if event.previous != self.position:  # invariant 2: a gap is an error, never skipped
            raise CorruptionError(f"WAL {event.sequence} does not follow {self.position}", path="feed")
        self.position = event.sequence
        return event

    def close(self) -> None:
        """End the feed, even while another thread waits in `next`."""
        self._closed = True
        with self._log.lock:
            self._log.changed.notify_all()

    def __repr__(self) -> str:
        """Return how far it has come."""
        return f"<Feed at {self.position}{' (closed)' if self._closed else ''}>"

    def __iter__(self) -> Iterator[Event]:
        """Yield WALs until the feed is closed."""
        while True:
            try:
                event = self.next()
            except ClosedError:
                self._log.origin.check()
                return
            if event is not None:
                yield event

    def _wait(self, timeout: float | None) -> bool:
        def moved() -> bool:
            if self._closed:
                raise ClosedError("the feed was closed")
            return self._log.view.sequence > self.position

        return self._log.wait(moved, timeout)

    def _fill(self) -> bool:
        """Read on, but never beyond the view: data read after an event is at least as new as the event."""
        self._check_open()
        self._check_lineage()
        newest = self._log.view.sequence
        if newest <= self.position:
            return False
        recent = self._log.recent_after(self.position)
        if recent is not None:
            self._ready.extend(_event(item.record, item.actions) for item in recent)
        else:
            records = self._from_coordinator() or self._from_storage()
            self._ready.extend(self._read(record) for record in records if record.sequence <= newest)
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the feed was closed")
        if self._log.closed:
            raise ClosedError("the datamanager was closed")

    def _check_lineage(self) -> None:
        if self._log.lineage != self._lineage:
            raise FencedError("the store was imported or recovered: read a snapshot anew and go on from there")

    def _from_coordinator(self) -> list[WalRecord]:
        page = self._log.coordinator.list(keys.WALS, start_after=keys.wal(self.position), limit=min(_PAGE, MAX_LIST))
        found = [decode_wal(item.value, item.key) for item in page.items]
        return found if found and found[0].previous_sequence == self.position else []

    def _from_storage(self) -> list[WalRecord]:
        root = self._lineage.root
        for first, _, path in list_batches(self._log.storage, root, self.position):
            if first <= self.position.next():
                try:
                    records = read_batch(self._log.storage, path)
                except NotFoundError:  # collected since it was listed
                    break
                return [record for record in records if record.sequence > self.position]
        raise self._compacted()

    def _read(self, record: WalRecord) -> Event:
        try:
            return _event(record, read_actions(self._log.storage, record))
        except CorruptionError as error:
            if isinstance(error.__cause__, NotFoundError):  # a payload may have been collected since its WAL was read
                compacted = self._compacted()
                if record.sequence <= self._log.view.manifest.sequence:
                    raise compacted from error
            raise

    def _compacted(self) -> CompactedError:
        """Return the error of a feed whose WALs are gone, by the newest state."""
        self._log.catch_up()
        self._check_lineage()
        batches = list_batches(self._log.storage, self._lineage.root)
        oldest = batches[0][0] if batches else self._log.view.manifest.sequence.next()
        return CompactedError(
            f"the WALs after {self.position} are no longer kept: read a snapshot and go on from its sequence",
            oldest=str(oldest),
        )


def _event(record: WalRecord, actions: Items[Action]) -> Event:
    return Event(
        record.sequence,
        record.previous_sequence,
        record.wal_id,
        _EPOCH + timedelta(microseconds=record.time),
        tuple(actions),
    )
