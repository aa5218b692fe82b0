"""Subscriptions: the events after a position, first the existing ones, then new ones.

A subscription reads pages by position from memory or the data files, whichever has them, so there is no seam between
catching up and being live, nothing to fall out of when it is slow, and one page in memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

from agola_core.coordinator.port import Compare
from agola_core.datamanager.format.events import MARKS, RecordedEvent
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.types import Put
from agola_core.datamanager.validate import check_timeout
from agola_core.errors import BadRequestError, ClosedError, FencedError, NotFoundError
from agola_core.events.reading import PAGE, page_of
from agola_core.events.types import Query
from agola_core.runtime.closing import Closing


def mark(name: str, position: int) -> Put:
    """Return the action that notes how far a reader has come."""
    return Put(MARKS, name, b"%d" % position)


def marked(store: DataManager, name: str) -> int:
    """Return how far a reader has come; 0 for one that is not known."""
    try:
        return int(store.read_object(MARKS, name)[0])
    except NotFoundError:
        return 0


class Subscription(Closing):
    """The events that a query means after a position. An iterator that waits for more; a context manager.

    Args:
        store: The store.
        query: The query.
        after: The position.
        name: The reader's name in the store, for `ack`; "" for none.

    Attributes:
        position: Of the newest event that was returned, or where the subscription began.
    """

    def __init__(self, store: DataManager, query: Query, after: int, name: str = "") -> None:
        self.position = after
        self._store = store
        self._query = query
        self._name = name
        self._lineage = store.lineage
        self._looked = after
        self._ready: deque[RecordedEvent] = deque()
        self._closed = False
        self._stopped = threading.Event()

    def next(self, timeout: float | None = None) -> RecordedEvent | None:
        """Return the next event; None when the time is over.

        Args:
            timeout: Seconds to wait; None waits until one comes.

        Raises:
            ClosedError: The subscription or the store was closed.
            FencedError: The store was imported or recovered: its events may be others.
        """
        if timeout is not None:
            check_timeout(timeout)
        self._check()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            seen = self._store.sequence
            page, head = page_of(self._store, self._query, self._looked + 1, None, PAGE)
            self._check()
            self._ready.extend(page)
            self._looked = page[-1].position if len(page) == PAGE else max(head, self._looked)
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not page and not self._store.wait_for_change(seen, lambda: self._closed, left):
                return None
            self._check()
        event = self._ready.popleft()
        self.position = event.position
        return event

    def ack(self, event: RecordedEvent | None = None) -> None:
        """Note in the store that this reader has dealt with everything up to an event.

        Args:
            event: The event; None for the one that was returned last.

        Raises:
            BadRequestError: The subscription has no name, or `event` is no event that was read.
            ClosedError: The subscription or the store was closed.
            FencedError: As for `next`.
        """
        self._check()
        if not self._name:
            raise BadRequestError("a subscription without a name has no place to note its position at")
        if event is not None and not isinstance(event, RecordedEvent):
            raise BadRequestError(f"ack takes an event that was read, or nothing, not {event!r}"[:300])
        self._store.append_mark(mark(self._name, self.position if event is None else event.position), self.fences())

    def fences(self) -> tuple[Compare, ...]:
        """Return what must hold for what this reader writes to count; nothing, unless it is one of a group."""
        return ()

    def close(self) -> None:
        """End the subscription, also while another thread waits in `next`."""
        self._closed = True
        self._stopped.set()
        self._store.wake_waiting()

    def __iter__(self) -> Iterator[RecordedEvent]:
        """Yield events until the subscription is closed."""
        while True:
            try:
                event = self.next()
            except ClosedError:
                if self._closed:
                    return
                raise
            if event is not None:
                yield event

    def __repr__(self) -> str:
        """Return what is read, and how far it has come."""
        name = f" {self._name!r}" if self._name else ""
        return (
            f"<{type(self).__name__}{name} of {self._query!r} at {self.position}{' (closed)' if self._closed else ''}>"
        )

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("the subscription was closed")
        if self._store.closed:
            raise ClosedError("the store was closed")
        if self._store.lineage != self._lineage:
            raise FencedError("the store was imported or recovered: subscribe anew")
