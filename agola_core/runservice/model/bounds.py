"""Limits the size of what an executor sends, and the time it may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Self

from agola_core.errors import BadRequestError, DeadlineError

GRACE_SECONDS = 60.0
LEAST_RATE = 4096.0


class Bounded:
    """The pieces of one log or archive, with limits on their size and rate. An iterator.

    Args:
        pieces: What an executor sends.
        most: The maximum size in bytes.
        clock: Seconds, for the rate; only time spent waiting for the executor counts.

    Attributes:
        too_large: Whether the maximum was exceeded.

    Raises:
        BadRequestError: The maximum is exceeded.
        DeadlineError: After a minute the average rate is below 4 KiB/s.
    """

    def __init__(self, pieces: Iterator[bytes], most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pieces = pieces
        self._most = most
        self._clock = clock
        self._size, self._waited = 0, 0.0
        self.too_large = False

    def __iter__(self) -> Self:
        """Return the iterator."""
        return self

    def __next__(self) -> bytes:
        """Return the next piece."""
        began = self._clock()
        piece = next(self._pieces)
        self._waited += self._clock() - began
        self._size += len(piece)
        if self._size > self._most:
            self.too_large = True
            raise BadRequestError(f"it has more than {self._most} bytes")
        if self._size < LEAST_RATE * (self._waited - GRACE_SECONDS):
            raise DeadlineError(f"it brought {self._size} bytes in {self._waited:.0f} s")
        return piece
