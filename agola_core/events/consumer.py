"""Consumer groups: of all who read under one name, in whatever process, one is given events; another takes over."""

from __future__ import annotations

import time

from agola_core.coordinator.lock import Lock, try_lock
from agola_core.coordinator.port import Compare
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.events import RecordedEvent
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.validate import check_timeout
from agola_core.errors import FencedError
from agola_core.events.subscription import Subscription, marked
from agola_core.events.types import Query

_TURN_SECONDS = 0.1


class Consumer(Subscription):
    """A subscription of one member of a group: it waits for its turn, and continues from what the group acknowledged.

    Its turn ends with `close`, or when its process dies or is paused for longer than `Options.lock_ttl`. What it
    acknowledges after that is refused, and so is an append that names it (`EventStore.append(by=...)`).

    Args:
        store: The store.
        query: The query.
        name: The group's.
    """

    def __init__(self, store: DataManager, query: Query, name: str) -> None:
        super().__init__(store, query, 0, name)
        self._lock: Lock | None = None

    def next(self, timeout: float | None = None) -> RecordedEvent | None:
        """Return the next event; None when the time is over, or this one's turn did not come in it.

        Args:
            timeout: Seconds to wait; None waits until one comes.

        Raises:
            ClosedError: The subscription or the store was closed.
            FencedError: The turn was lost: another may have gone on from what was acknowledged last. Or the store
                was imported or recovered.
        """
        if timeout is not None:
            check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._lock is None:
            self._check()
            self._lock = self._take()
            if self._lock is not None:
                if self._closed:  # meanwhile, and `close` did not see the lock
                    self._lock.release()
                break
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._stopped.wait(_TURN_SECONDS if left is None else min(left, _TURN_SECONDS))
        self._check()
        return super().next(None if deadline is None else max(deadline - time.monotonic(), 0))

    def fences(self) -> tuple[Compare, ...]:
        """Return the condition that it still has its turn.

        Raises:
            FencedError: It has not.
        """
        if self._lock is None:
            raise FencedError(f"it is not the turn of this reader of group {self._name!r}")
        self._lock.check()
        return (self._lock.fence,)

    def close(self) -> None:
        """End the subscription; another member of the group may continue."""
        super().close()
        if self._lock is not None:
            self._lock.release()

    def _take(self) -> Lock | None:
        options = self._store.options
        name = keys.reader_lock(self._name)
        lock = try_lock(self._store.coordinator, name, owner=options.instance, ttl=options.lock_ttl)
        if lock is not None:
            self._store.refresh()  # what the last holder acknowledged, in its process
            self.position = self._looked = marked(self._store, self._name)
        return lock

    def _check(self) -> None:
        super()._check()
        if self._lock is not None:
            self._lock.check()
