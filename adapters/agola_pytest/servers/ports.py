"""Free ports of the loopback interface; another process may take one before its server does."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

_TRIES = 5

T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def retry_taken_ports(start: Callable[[], T], error: type[Exception]) -> T:
    """Return what starts a server, with other ports if another process has taken one meanwhile.

    Args:
        start: Starts it on ports of its choice, or leaves nothing behind and raises.
        error: Raised when the server did not start, with the end of its log.
    """
    for _ in range(_TRIES - 1):
        try:
            return start()
        except error as failure:
            if "in use" not in str(failure):
                raise
    return start()
