"""Contexts: deadline and cancellation of a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from agola_core.errors import BadRequestError, DeadlineError
from agola_core.runtime.clock import is_duration


class Context:
    """A deadline and a cancellation, passed to everything that works for a caller.

    Args:
        timeout: Seconds until the deadline; None for no deadline.

    Raises:
        BadRequestError: The timeout is no number of seconds, or longer than a hundred years.

    Example:
        >>> context = Context(timeout=5)
        >>> context.cancel()
        >>> context.ended
        True
    """

    def __init__(self, timeout: float | None = None) -> None:
        if timeout is not None and not is_duration(timeout):
            raise BadRequestError(f"a timeout is a number of seconds, a hundred years at most, not {timeout!r}"[:200])
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self._cancelled = False
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def ended(self) -> bool:
        """Whether the deadline has passed or the caller has cancelled."""
        return self._cancelled or (self.deadline is not None and time.monotonic() >= self.deadline)

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None for no deadline."""
        if self._cancelled:
            return 0.0
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def cancel(self) -> None:
        """Cancel the work; may be called from any thread."""
        with self._lock:
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Register a callback for the cancellation; return a function that unregisters it."""
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return lambda: None

    def check(self) -> None:
        """Raise `DeadlineError` if the context has ended."""
        if self.ended:
            raise DeadlineError("the caller cancelled" if self._cancelled else "the caller's deadline passed")

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


def check_context(context: object) -> None:
    """Accept a context.

    Raises:
        BadRequestError: It is something else.
    """
    if not isinstance(context, Context):
        raise BadRequestError(f"a context is a Context, such as Context(timeout=5), not {context!r}"[:200])


def check_call(context: object, function: object) -> None:
    """Accept a context, and a function of a transaction to call in it.

    Raises:
        BadRequestError: One of them is something else.
    """
    check_context(context)
    if not callable(function):
        raise BadRequestError(f"a function of a transaction is needed, not {function!r}"[:200])
