"""Helpers shared by the backends that reach their objects over a network."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Protocol

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0


class RangeSource(Protocol):
    """A storage that reads ranges of one version of an object."""

    def read_range(self, path: str, offset: int, length: int | None, etag: str = "") -> tuple[bytes, str]:
        """Return bytes of an object and the ETag of the version they belong to.

        Args:
            path: The key.
            offset: The first byte.
            length: The most bytes; None for all.
            etag: Only of this version of it; "" for any.

        Raises:
            NotFoundError: There is no such object, or no longer in this version.
        """


class RangeReader:
    """Reads ranges of one object, one request each; the first read pins the object's version.

    Args:
        storage: The storage that holds the object.
        path: The object's key.
        etag: The version to read, if already known.
    """

    remote = True

    def __init__(self, storage: RangeSource, path: str, etag: str = "") -> None:
        self._storage = storage
        self._path = path
        self._etag = etag

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the object; fewer at its end."""
        body, self._etag = self._storage.read_range(self._path, offset, length, self._etag)
        return body

    def close(self) -> None:
        """Do nothing: a reader holds no connection."""


def named(path: str) -> str:
    """Return how messages refer to an object."""
    return f"object {path[:200]!r}"


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    """Split bytes into chunks of one size; the last may be shorter."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def backoff(attempt: int) -> float:
    """Return how many seconds to wait after an attempt: exponential, with jitter."""
    longest: float = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
