"""Running services, as others see them: each publishes its process under a lease."""

from __future__ import annotations

import os
import socket

import msgspec

from agola_core.runtime.process import start_time


class ServiceInstance(msgspec.Struct, frozen=True):
    """A running service: a process, told from a later one with its number by its start.

    Attributes:
        host: The machine.
        pid: The process there.
        start: When it was started, in ticks since the machine's boot; 0 where that is not known.
    """

    host: str
    pid: int
    start: int = 0


def this_instance() -> ServiceInstance:
    """Return this process."""
    pid = os.getpid()
    return ServiceInstance(socket.gethostname(), pid, start_time(pid) or 0)
