"""What the calling thread waits for: a total deadline, and a context whose cancellation ends its reads.

It is apart from the transport that obeys it, so that a server without remote executors does not import an HTTP client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agola_core.runtime.context import Context


class Waiting(threading.local):
    """The deadline and the context of each thread."""

    until: float | None = None
    context: Context | None = None


waiting = Waiting()


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Limit the total time of what this thread reads and writes inside the block.

    Args:
        seconds: The time; None for no limit.
    """
    before = waiting.until
    waiting.until = None if seconds is None else time.monotonic() + seconds
    try:
        yield
    finally:
        waiting.until = before


@contextmanager
def waiting_for(context: Context) -> Iterator[None]:
    """Interrupt what this thread reads inside the block when a context is cancelled."""
    before = waiting.context
    waiting.context = context
    try:
        yield
    finally:
        waiting.context = before
