"""A past store that closes its backends with itself: what `agola_core.open(at=...)` returns."""

from __future__ import annotations

from typing import Any

from agola_core.coordinator.port import Coordinator
from agola_core.datamanager.read.past_store import PastStore
from agola_core.objectstorage.port import ObjectStorage


class OwnedPastStore(PastStore):
    """A past store that closes its backends with itself."""

    def __init__(
        self, coordinator: Coordinator | None, storage: ObjectStorage, *arguments: Any, **options: Any
    ) -> None:
        self._backends = [backend for backend in (coordinator, storage) if backend is not None]
        super().__init__(coordinator, storage, *arguments, **options)

    def close(self) -> None:
        """Close the past store and its backends."""
        super().close()
        for backend in self._backends:
            backend.close()
