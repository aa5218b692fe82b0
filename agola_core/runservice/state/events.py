"""A resumable stream of run events: every change of a run's phase or result, in order."""

from __future__ import annotations

import time
from collections import deque
from typing import Self

from agola_core.errors import BadRequestError, ClosedError
from agola_core.runservice.model.types import RunEvent
from agola_core.runservice.state.memory.mirror import Mirror

NOTHING = "0000000000000-0000000000000"
"""A sequence before every event."""


class EventFeed:
    """Run events after a sequence. A context manager.

    Args:
        mirror: Has the newest events.
        after: The sequence of an event; "" for events from now on. Events that are no longer kept are skipped.

    Raises:
        BadRequestError: `after` is no sequence.
    """

    def __init__(self, mirror: Mirror, after: str = "") -> None:
        self._mirror = mirror
        self._closed = False
        self._pending: deque[RunEvent] = deque()
        with mirror.condition:
            newest = mirror.events[-1].sequence if mirror.events else NOTHING
        self._after = after or newest
        if len(self._after) != len(NOTHING) or self._after[13] != "-":
            raise BadRequestError(f"not the sequence of an event: {after[:64]!r}")

    @property
    def after(self) -> str:
        """The sequence of the last event returned: where to resume."""
        return self._after

    def next(self, timeout: float | None = None) -> RunEvent | None:
        """Return the next event; None after the timeout.

        Args:
            timeout: Seconds to wait; None for no limit.

        Raises:
            ClosedError: The feed was closed, or the service was.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._mirror.origin.check()
        with self._mirror.condition:
            while True:
                if self._closed or self._mirror.closed:
                    raise ClosedError("the run events were closed")
                event = self._following()
                if event is not None:
                    self._after = event.sequence
                    return event
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._mirror.condition.wait(left)

    def close(self) -> None:
        """End the feed and wake the threads that wait in `next`. Can be called twice."""
        with self._mirror.condition:
            self._closed = True
            self._mirror.condition.notify_all()

    def __enter__(self) -> Self:
        """Return the feed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the feed."""
        self.close()

    def _following(self) -> RunEvent | None:
        if not self._pending:
            for event in reversed(self._mirror.events):  # newest first: a feed is nearly always at the end
                if event.sequence <= self._after:
                    break
                self._pending.appendleft(event)
        return self._pending.popleft() if self._pending else None
