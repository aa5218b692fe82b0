"""Calls that may hang, made by threads of their own: whoever needs the result waits for a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from agola_core.errors import UnavailableError
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.start import start_thread

T = TypeVar("T")


class Patient:
    """Makes calls and waits for them for a bounded time. Thread-safe.

    Args:
        patience: Seconds to wait for a call; it goes on, and its result is dropped.
        most: How many calls may go on at a time.
    """

    def __init__(self, *, patience: float = 5.0, most: int = 32) -> None:
        self._patience = patience
        self._most = most
        self._lock = fork_safe(threading.Lock())
        self._running = 0

    def call(self, work: Callable[[], T]) -> T:
        """Return what a call returns, or raise what it raises.

        Raises:
            UnavailableError: It does not end in time, too many others have not ended, or there is no thread for it.
        """
        with self._lock:
            if self._running >= self._most:
                raise UnavailableError(f"{self._running} calls have not ended yet")
            self._running += 1
        future: Future[T] = Future()
        try:
            start_thread("patient", self._run, future, work)
        except UnavailableError:
            self._ended()
            raise
        try:
            return future.result(self._patience)
        except TimeoutError:
            if future.done():
                raise  # the call's own
            raise UnavailableError(f"no answer in {self._patience:g} seconds") from None

    def _run(self, future: Future[T], work: Callable[[], T]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._ended()
            future.set_exception(error)
        else:
            self._ended()
            future.set_result(result)

    def _ended(self) -> None:
        with self._lock:
            self._running -= 1
