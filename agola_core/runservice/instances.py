"""Running services, as others see them: each publishes its process under a lease."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec


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
    return ServiceInstance(socket.gethostname(), pid, _start_time(pid) or 0)


def may_live(instance: ServiceInstance) -> bool:
    """Return False for a process of this machine that is certainly gone, before its lease ends."""
    if instance.host != socket.gethostname():
        return True
    return _start_time(instance.pid) == (instance.start or None)


def _start_time(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
