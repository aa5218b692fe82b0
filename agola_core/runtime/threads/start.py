"""Threads that begin when they are first needed, which may be when the system has none left."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agola_core.errors import UnavailableError


def start_thread(name: str, work: Callable[..., None], *arguments: object) -> threading.Thread:
    """Start a thread that does not keep the process alive.

    Args:
        name: Its name.
        work: What it does.
        arguments: What that is called with.

    Raises:
        UnavailableError: The system gives no thread now; later it may.
    """
    thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise UnavailableError(f"no thread can be started for {name}: {error}") from error
    return thread
