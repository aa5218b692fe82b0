"""Callers that wait at the same time work together: one leads, in its own thread, for everybody who waits.

The first to arrive leads. When its work is done it hands the lead to the first of those who came meanwhile, so
nobody works for others for ever, and a lone caller pays no change of threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from agola_core.errors import DeadlineError


class Waiting:
    """What a caller wants done.

    Attributes:
        done: Whether its outcome is known.
        error: What to raise for it.
        turn: Held until the caller may go on, or is to lead; None for whoever leads at once.
    """

    __slots__ = ("done", "error", "turn")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None
        self.turn: threading.Lock | None = None


W = TypeVar("W", bound=Waiting)


class LeaderQueue(Generic[W]):
    """Gathers callers and lets one of them work for all.

    Args:
        take: Takes from the queue what is done together: the first, and any number behind it.
        work: Does it, and sets each one's outcome; what it raises is the error of those that have none.
    """

    def __init__(self, take: Callable[[deque[W]], list[W]], work: Callable[[list[W]], None]) -> None:
        self._take = take
        self._work = work
        self._queue: deque[W] = deque()
        self._lock = threading.Lock()
        self._leading = False

    def do(self, wanted: W, timeout: float | None = None) -> None:
        """Have something done, by this thread or another, and raise its error.

        Args:
            wanted: What.
            timeout: Seconds to wait for its turn; once it is taken, its outcome is waited for.

        Raises:
            DeadlineError: Its turn did not come in time; it was not begun.
        """
        with self._lock:
            self._queue.append(wanted)
            if self._leading:
                wanted.turn = threading.Lock()
                wanted.turn.acquire()
            self._leading = True
        if wanted.turn is not None and not wanted.turn.acquire(timeout=-1 if timeout is None else timeout):
            self._withdraw(wanted, wanted.turn)
        if not wanted.done:
            self._lead()
        if wanted.error is not None:
            raise wanted.error

    def _withdraw(self, wanted: W, turn: threading.Lock) -> None:
        with self._lock:
            if wanted in self._queue and self._queue[0] is not wanted:
                self._queue.remove(wanted)
                raise DeadlineError("the turn did not come in time; nothing was written")
        turn.acquire()  # it is being done, or this thread is to lead: the outcome is near

    def _lead(self) -> None:
        with self._lock:
            batch = self._take(self._queue)
        error: Exception = DeadlineError("whoever led the commit was interrupted; its outcome is not known")
        try:
            self._work(batch)
        except Exception as raised:  # noqa: BLE001 - everybody who waited must hear of it
            error = raised
        finally:
            self._finish(batch, error)

    def _finish(self, batch: list[W], error: Exception) -> None:
        with self._lock:
            following = self._queue[0].turn if self._queue else None
            if following is None:
                self._leading = False
            else:
                following.release()
        for one in batch:
            if not one.done:
                one.error = one.error or error
                one.done = True
            if one is not batch[0] and one.turn is not None:
                one.turn.release()
