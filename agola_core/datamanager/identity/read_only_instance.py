"""The instance of a read-only process, which publishes nothing, so other processes do not know of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.identity.instance import Instance
from agola_core.errors import ForbiddenError


class ReadOnlyInstance(Instance):
    """An instance that publishes nothing and takes no locks.

    Garbage collectors do not know what it reads: only their grace period (an hour) keeps it.
    """

    def __init__(self, coordinator: Coordinator, name: str) -> None:  # no lease, no record
        self.name = name
        self.coordinator = coordinator

    @contextmanager
    def pin(self, manifest: int) -> Iterator[None]:
        """Keep nothing."""
        del manifest
        yield

    def reads(self, manifest: int) -> None:
        """Do nothing."""

    def publish(self) -> None:
        """Publish nothing."""

    def try_lock(self, name: str) -> NoReturn:
        """Refuse it."""
        raise ForbiddenError(f"the store was opened to be read only: no lock {name} is taken")

    def lock(self, name: str, timeout: float) -> NoReturn:
        """Refuse it."""
        del timeout
        self.try_lock(name)

    def wait_for_collection(self) -> None:
        """Do not wait: collectors never know what is read here."""

    def close(self) -> None:
        """Withdraw nothing."""
