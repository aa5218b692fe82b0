"""Whether a process still runs: what tells it from a later one with its number, and from what is left of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Protocol

_DEAD = {b"Z", b"X"}


class ProcessRecord(Protocol):
    """What a process publishes of itself: its machine, its number there, and when it was started."""

    @property
    def host(self) -> str:
        """The machine."""

    @property
    def pid(self) -> int:
        """The process there."""

    @property
    def start(self) -> int:
        """What `start_time` says of it; 0 where that is not known."""


def start_time(pid: int) -> int | None:
    """Return when a process was started, in ticks since boot: with the pid it names one process for ever.

    None for one that is gone, also when its parent has not taken note of that yet (a zombie).
    """
    fields = _stat(pid)
    return None if fields is None or fields[0] in _DEAD else int(fields[19])


def is_running(pid: int, start: int) -> bool:
    """Return False when a process is certainly gone.

    Args:
        pid: Its number.
        start: What `start_time` said of it; 0 where that is not known.
    """
    fields = _stat(pid)
    if fields is None:  # gone, or another user's where /proc shows only one's own
        return _exists(pid)
    return fields[0] not in _DEAD and start in {0, int(fields[19])}


def may_live(process: ProcessRecord) -> bool:
    """Return False for a process of this machine that is certainly gone, before its lease ends."""
    return process.host != socket.gethostname() or is_running(process.pid, process.start)


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of a process from its state on; None when they cannot be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
