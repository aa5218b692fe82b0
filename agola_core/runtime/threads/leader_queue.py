"""Group commit: concurrent callers form a batch, and one of them, the leader, does the work for all of it.

Callers form rounds. The first of a round leads it, in its own thread: once the previous round has ended, it closes its
round and works for all callers that have joined. A lone caller pays no thread switch, and no thread leads
indefinitely. The followers of a round wait at one gate and pass it one by one: a crowd that wakes at once would only
compete for the interpreter.

If the work is slow (a commit on another machine), a leader briefly waits for the callers that the previous round has
just released: otherwise the callers split into two halves that alternate, and each waits for two rounds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from agola_core.errors import DeadlineError, UnknownOutcomeError
from agola_core.runtime.processes.forks import fork_safe

_SLOW_SECONDS = 0.001
_GATHER_PART = 0.5
_GATHER_SECONDS = 0.005
_LOOK_SECONDS = 0.0004

_INTERRUPTED = "whoever led the commit was interrupted; its outcome is not known"


class Waiting:
    """A caller's request.

    Attributes:
        done: Whether its outcome is known.
        error: The error to raise, if it failed.
    """

    done = False
    error: Exception | None = None


W = TypeVar("W", bound=Waiting)


class _Round(Generic[W]):
    """Callers that wait together.

    Attributes:
        waiting: Their requests, in order of arrival; the first is the leader's.
        gate: Held until the round has ended; None while the leader has no followers.
    """

    __slots__ = ("gate", "waiting")

    def __init__(self, leader: W) -> None:
        self.waiting = [leader]
        self.gate: threading.Lock | None = None


class LeaderQueue(Generic[W]):
    """Batches concurrent requests, and has one caller process the batch.

    Args:
        work: Processes a batch and sets the outcome of each request; an error that it raises is the outcome of the
            requests that have none.
        parts: Splits a round into batches; None makes a round one batch.
        turn: The lock that is held during `work`; None for one of its own.
    """

    def __init__(
        self,
        work: Callable[[list[W]], None],
        parts: Callable[[list[W]], Iterable[list[W]]] | None = None,
        turn: threading.Lock | None = None,
    ) -> None:
        self._work = work
        self._parts = parts
        self._lock = fork_safe(threading.Lock())
        self._turn = turn if turn is not None else fork_safe(threading.Lock())
        self._open: _Round[W] | None = None
        self._served = 1
        self._took = 0.0

    def do(self, wanted: W, timeout: float | None = None) -> None:
        """Process a request, in this thread or the leader's, and raise its error.

        Args:
            wanted: The request.
            timeout: Seconds to wait for its turn; once it has begun, its outcome is waited for.

        Raises:
            DeadlineError: Its turn did not come in time; it was not begun.
            UnknownOutcomeError: The leader was interrupted at work.
        """
        crowded = self._served > 1 and self._took > _SLOW_SECONDS
        if not crowded and self._open is None and self._turn.acquire(False):  # alone: needs no round
            try:
                self._do([wanted])
            finally:
                self._turn.release()
        elif timeout is None:
            self._do_together(wanted, None)
        else:
            self._do_together(wanted, time.monotonic() + timeout)
        if wanted.error is not None:
            raise wanted.error

    def do_all(self, wanted: list[W], timeout: float | None = None) -> None:
        """Process several requests of one caller in this thread, in their order; each gets its own outcome.

        Args:
            wanted: The requests.
            timeout: Seconds to wait for their turn.

        Raises:
            DeadlineError: The turn did not come in time; nothing was begun.
        """
        if not self._turn.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            raise DeadlineError("the turn did not come in time; nothing was written")
        try:
            for part in [wanted] if self._parts is None else self._parts(wanted):
                self._do(part)
        finally:
            self._turn.release()

    def _do_together(self, wanted: W, deadline: float | None) -> None:
        while not wanted.done:  # a leader that gave up leaves its round undone: start over
            own = _Round(wanted)
            try:
                self._join(own, wanted, deadline)
            finally:
                self._end(own)

    def _join(self, own: _Round[W], wanted: W, deadline: float | None) -> None:
        gate = None
        with self._lock:
            joined = self._open
            if joined is None:
                self._open = own
            else:
                joined.waiting.append(wanted)
                gate = joined.gate
                if gate is None:
                    gate = joined.gate = threading.Lock()
                    gate.acquire()
        if joined is not None and gate is not None:
            self._follow(wanted, joined, gate, deadline)
        elif deadline is None:
            with self._turn:
                self._lead(own)
        elif self._turn.acquire(timeout=max(deadline - time.monotonic(), 0)):
            try:
                self._lead(own)
            finally:
                self._turn.release()
        else:
            raise DeadlineError("the turn did not come in time; nothing was written")

    def _lead(self, own: _Round[W]) -> None:
        if self._took > _SLOW_SECONDS:
            self._gather(own)
        with self._lock:
            self._open = None
        started = time.monotonic()
        self._work_for(own)
        self._served, self._took = len(own.waiting), time.monotonic() - started

    def _gather(self, own: _Round[W]) -> None:
        """Wait for the previous round's callers to return: while they keep coming, and only a fraction of a round."""
        deadline = time.monotonic() + min(self._took * _GATHER_PART, _GATHER_SECONDS)
        expected, seen = len(own.waiting) + self._served, 0
        while seen < len(own.waiting) < expected and time.monotonic() < deadline:
            seen = len(own.waiting)
            time.sleep(_LOOK_SECONDS)

    def _work_for(self, own: _Round[W]) -> None:
        if self._parts is None or own.gate is None:
            self._do(own.waiting)
        else:
            for part in self._parts(own.waiting):
                self._do(part)

    def _do(self, part: list[W]) -> None:
        error: Exception | None = None
        try:
            self._work(part)
        except Exception as raised:  # noqa: BLE001 - every caller of the batch must get it
            error = raised
        finally:
            for one in part:
                if not one.done:
                    one.error = one.error or error or UnknownOutcomeError(_INTERRUPTED)
                    one.done = True

    def _follow(self, wanted: W, joined: _Round[W], gate: threading.Lock, deadline: float | None) -> None:
        if not gate.acquire(timeout=-1 if deadline is None else max(deadline - time.monotonic(), 0)):
            with self._lock:
                if self._open is joined:  # not yet begun
                    joined.waiting.remove(wanted)
                    raise DeadlineError("the turn did not come in time; nothing was written")
            gate.acquire()  # it is being processed: the outcome is near
        gate.release()  # lets the next through

    def _end(self, own: _Round[W]) -> None:
        """Release the followers of a round, even if its leader was interrupted or gave up before it began."""
        if self._open is own:
            with self._lock:
                self._open = None
        if own.gate is not None:
            own.gate.release()
