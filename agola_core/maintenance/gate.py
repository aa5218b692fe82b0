"""Gate in front of a service: admits calls while it serves, and drains them when it stops."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from agola_core.errors import MaintenanceError
from agola_core.runtime.processes.forks import fork_safe

logger = logging.getLogger(__name__)

S = TypeVar("S")

_ABORT_SECONDS = 1.0


class Gate(Generic[S]):
    """Admits calls to a service that can be started and stopped. Thread-safe; initially closed.

    Args:
        reason: Message of the error while it is closed.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._changed = fork_safe(threading.Condition())
        self._service: S | None = None
        self._open = False
        self._inside: dict[object, Callable[[], object]] = {}

    @property
    def service(self) -> S:
        """The service, for a call that was already admitted.

        Raises:
            MaintenanceError: The gate is closed.
        """
        service = self._service
        if service is None:
            raise MaintenanceError(self._reason)
        return service

    @property
    def is_open(self) -> bool:
        """Whether calls are admitted; unbounded calls must end once it is False."""
        return self._open

    @contextmanager
    def enter(self, abort: Callable[[], object] = lambda: None) -> Iterator[S]:
        """Admit a call for the length of the block; yields the service.

        Args:
            abort: Called from another thread if the gate was closed and the block takes too long.

        Raises:
            MaintenanceError: The gate is closed.
        """
        mark = object()
        with self._changed:
            if not self._open or self._service is None:
                raise MaintenanceError(self._reason)
            service = self._service
            self._inside[mark] = abort
        try:
            yield service
        finally:
            with self._changed:
                del self._inside[mark]
                self._changed.notify_all()

    def wait_open(self, timeout: float | None = None) -> bool:
        """Wait until the gate is open; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open, timeout)

    def open(self, service: S) -> None:
        """Admit calls."""
        with self._changed:
            self._service, self._open = service, True
            self._changed.notify_all()

    def close(self, timeout: float) -> S | None:
        """Admit no more calls, wait for those inside, and return the service, which is now unused.

        Args:
            timeout: Seconds after which calls that are still inside are aborted.
        """
        with self._changed:
            self._open = False
            if not self._changed.wait_for(lambda: not self._inside, timeout):
                logger.info("%d calls have not ended in %.0f s: they are cut off", len(self._inside), timeout)
                for abort in list(self._inside.values()):
                    abort()
                if not self._changed.wait_for(lambda: not self._inside, _ABORT_SECONDS):
                    logger.warning("%d calls go on although they were cut off", len(self._inside))
            service, self._service = self._service, None
            return service
