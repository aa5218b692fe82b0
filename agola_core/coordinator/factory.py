"""Chooses a coordinator's backend by its URL; nothing else does."""

from __future__ import annotations

from agola_core.coordinator.port import Coordinator
from agola_core.errors import BadRequestError


def open_coordinator(url: str) -> Coordinator:
    """Open the coordinator at a URL.

    Args:
        url: A path, or `sqlite:///PATH`, for the embedded one.

    Raises:
        BadRequestError: The URL names no backend.
        UnavailableError: The backend cannot be reached.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "sqlite", url
    if scheme == "sqlite" and rest:
        from agola_core.coordinator.sqlite import SQLiteCoordinator  # noqa: PLC0415 - load what is used

        return SQLiteCoordinator(rest)
    raise BadRequestError(f"coordinator {url!r}: expected a path or sqlite:///PATH")
