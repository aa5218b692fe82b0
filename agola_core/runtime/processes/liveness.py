"""Tells whether a process is still running, as opposed to a zombie or a later process with the same pid."""

from __future__ import annotations

import os
import socket
from typing import Protocol

_DEAD = {b"Z", b"X"}
_STAT_BYTES = 4096


class ProcessRecord(Protocol):
    """A process's published identity: host, pid and start time."""

    @property
    def host(self) -> str:
        """Name of the machine."""

    @property
    def pid(self) -> int:
        """Its pid there."""

    @property
    def start(self) -> int:
        """Its `start_time`; 0 if unknown."""


def start_time(pid: int) -> int | None:
    """Return the start time of a process, in ticks since boot; together with the pid it identifies a process.

    None if the process is gone or a zombie.
    """
    fields = _stat(pid)
    return None if fields is None or fields[0] in _DEAD else int(fields[19])


def is_running(pid: int, start: int) -> bool:
    """Return False if a process is certainly gone.

    Args:
        pid: Its pid.
        start: Its `start_time`; 0 if unknown.
    """
    fields = _stat(pid)
    if fields is None:  # gone, or of another user where /proc hides those
        return _exists(pid)
    return fields[0] not in _DEAD and start in {0, int(fields[19])}


def may_live(process: ProcessRecord) -> bool:
    """Return False for a process of this machine that is certainly gone, even if its lease has not expired yet."""
    return process.host != socket.gethostname() or is_running(process.pid, process.start)


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the state on; None if it cannot be read."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:  # plain calls: it is asked for at the start of every step
        return os.read(descriptor, _STAT_BYTES).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
