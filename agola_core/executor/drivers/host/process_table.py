"""The processes of this machine with what tells whose they are; threads that look at the same time share one look."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

MARKER = "AGOLA_TASK_MARKER"
"""In the environment of every command, so that what has left its session is found without control groups."""

_PREFIX = f"{MARKER}=".encode()
_LISTS = 5
_LOOKS_AT_AN_EXEC = 20


class Process(NamedTuple):
    """A process that has not ended.

    Attributes:
        pid: Its id.
        session: The id of its session's leader.
        marker: The marker of the task that it belongs to, or "".
    """

    pid: int
    session: int
    marker: str


class ProcessTable:
    """Looks at all processes. A look costs about 20 us for each, and hundreds of tasks may be stopped at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = -1.0
        self._found: Sequence[Process] = ()

    def look(self) -> Sequence[Process]:
        """Return the processes, by a look that began after this call."""
        asked = time.monotonic()
        with self._lock:
            if self._begun <= asked:
                self._begun = time.monotonic()
                self._found = _look()
            return self._found


def _look() -> list[Process]:
    found: list[Process] = []
    seen: set[str] = set()
    # Whoever forks and ends between the list and the look at him leaves somebody whom only a later list names.
    for _ in range(_LISTS):
        new = [name for name in os.listdir("/proc") if name.isdigit() and name not in seen]  # noqa: PTH208 - hot
        if not new:
            break
        seen.update(new)
        found.extend(process for name in new if (process := _read(name)) is not None)
    return found


def _read(pid: str) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
        session = int(fields[3])
    except (OSError, IndexError):  # it has gone
        return None
    return None if fields[0] == b"Z" else Process(int(pid), session, _marker(pid) if session else "")


def _marker(pid: str) -> str:
    try:
        for look in range(_LOOKS_AT_AN_EXEC):
            entries = _entries(pid, "environ")
            if any(entries):
                return next((os.fsdecode(entry[len(_PREFIX) :]) for entry in entries if entry.startswith(_PREFIX)), "")
            # During execve a process has neither, and what was opened before it is empty afterwards.
            if look > 1 and any(_entries(pid, "cmdline")):
                return ""
            time.sleep(0.0005)
    except OSError:  # it has gone, or is another user's
        pass
    return ""


def _entries(pid: str, file: str) -> list[bytes]:
    with open(f"/proc/{pid}/{file}", "rb") as opened:  # noqa: PTH123
        return opened.read().split(b"\0")
