"""Calls a function with every WAL, in a thread that its datamanager owns."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agola_core.datamanager.log.feed import Feed
from agola_core.datamanager.types import Event
from agola_core.errors import ClosedError, CompactedError, FencedError
from agola_core.runtime.closing import Closing
from agola_core.runtime.threads.supervisor import Loop, Supervisor
from agola_core.sequence import Sequence

logger = logging.getLogger(__name__)


class Subscriber(Closing):
    """Calls a function with every WAL after a sequence, one after another. A context manager.

    A function that raises is called again with the same WAL, after a pause that grows to 5 seconds; the error is
    logged. The function may close the subscriber.

    Args:
        feed: The WALs.
        callback: Called with each.
        supervisor: Owns the thread.
        ended: Called once it has ended.

    Attributes:
        position: The newest WAL that the function has dealt with.
        error: Why it ended by itself: the store was imported or recovered (`FencedError`), or the WALs that were to
            come next are no longer kept (`CompactedError`); None while it runs, and when it was closed.
    """

    def __init__(
        self,
        feed: Feed,
        callback: Callable[[Event], object],
        supervisor: Supervisor,
        ended: Callable[[Subscriber], None],
    ) -> None:
        self.position: Sequence = feed.position
        self.error: FencedError | CompactedError | None = None
        self._feed = feed
        self._callback = callback
        self._ended = ended
        self._next: Event | None = None
        self._closed = threading.Event()
        self._thread = 0
        self._loop: Loop = supervisor.loop("subscribe", self._work, interval=0.0)

    @property
    def failures(self) -> int:
        """How often the function has failed on the WAL that it is to deal with next."""
        return self._loop.failures

    def close(self) -> None:
        """End it: the function is not called again once this returns. Closing twice is harmless."""
        self._closed.set()
        self._feed.close()
        self._loop.signal_stop()
        if threading.get_ident() != self._thread:
            self._loop.join()
        self._ended(self)

    def __repr__(self) -> str:
        """Return how far it has come."""
        state = "closed" if self._closed.is_set() else f"ended by {self.error!r}" if self.error else "running"
        return f"<Subscriber at {self.position}, {state}>"

    def _work(self) -> None:
        self._thread = threading.get_ident()
        try:
            while not self._closed.is_set():
                if self._next is None:
                    self._next = self._feed.next()
                if self._next is not None:
                    self._callback(self._next)
                    self.position, self._next = self._next.sequence, None
        except (ClosedError, FencedError, CompactedError) as error:
            if self._next is not None and not self._closed.is_set():
                raise  # the function's own
            self._loop.signal_stop()
            if isinstance(error, ClosedError):
                return
            logger.error("a subscriber has ended at %s: %s", self.position, error)
            self.error = error
