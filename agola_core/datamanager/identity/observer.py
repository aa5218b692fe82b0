"""A process that reads a store and cannot be seen by the others: where it may not write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.identity.instance import Instance
from agola_core.errors import ForbiddenError


class ReadOnlyInstance(Instance):
    """An instance that publishes nothing and gets no lock.

    Collections of others do not know what it reads: only their grace period (an hour) keeps that.

    Args:
        coordinator: The store's.
        name: Its name.
    """

    def __init__(self, coordinator: Coordinator, name: str) -> None:  # nothing of an instance's own
        self.name = name
        self.coordinator = coordinator

    @contextmanager
    def pin(self, manifest: int) -> Iterator[None]:
        """Keep nothing."""
        del manifest
        yield

    def reads(self, manifest: int) -> None:
        """Note nothing."""

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
        """Wait for nothing: a collector does not know what is read here, before or after."""

    def close(self) -> None:
        """Withdraw nothing."""
