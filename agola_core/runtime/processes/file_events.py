"""Tells when somebody writes to a file: by the kernel (inotify), where it can."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from agola_core.runtime.processes.forks import fork_safe

_MODIFY, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE, _OVERFLOW = 0x2, 0x40, 0x80, 0x100, 0x200, 0x4000
_MASK = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_HEAD = struct.Struct("iIII")
_BUFFER = 1 << 16


class FileEvents:
    """Waits for writes to some files of a directory, and for their coming and going. For one waiting thread.

    Args:
        directory: The directory.
        names: The files' names; they need not exist.

    Attributes:
        deaf: Whether the kernel refused to go on telling after a time of silence (see `muted`): look often instead.

    Raises:
        OSError: There is no inotify here, or the user has used up its instances or watches.
    """

    def __init__(self, directory: str | os.PathLike[str], names: Collection[str]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            start, self._add, self._remove = libc.inotify_init1, libc.inotify_add_watch, libc.inotify_rm_watch
        except AttributeError as error:
            raise OSError("there is no inotify") from error
        self._directory = os.fsencode(directory)
        self._names = frozenset(os.fsencode(name) for name in names)
        self._lock = fork_safe(threading.Lock())
        self._closed = False
        self.deaf = False
        self._file = start(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        try:
            if not self._watch_directory():
                raise OSError(ctypes.get_errno(), "inotify_add_watch")
            self._ended, self._end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(self._file)
            raise
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)
        self._poll.register(self._ended, select.POLLIN)

    @classmethod
    def of(cls, directory: str | os.PathLike[str], names: Collection[str]) -> Self | None:
        """Return the events of some files; None where the kernel cannot tell of them."""
        with suppress(OSError):
            return cls(directory, names)
        return None

    def wait(self, timeout: float) -> bool:
        """Wait until something has happened since the last call; return whether it has.

        Args:
            timeout: Seconds to wait at most.
        """
        deadline = time.monotonic() + timeout
        while True:
            ready = self._poll.poll(max(0.0, 1000 * (deadline - time.monotonic())))
            if not ready or any(file == self._ended for file, _ in ready):
                return False
            if self._read():
                return True

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Let the kernel tell of nothing during the block: each event costs whoever writes a few microseconds.

        Afterwards look for what happened meanwhile.
        """
        self._remove(self._file, self._watch)
        try:
            yield
        finally:
            self.deaf = not self._watch_directory()

    def interrupt(self) -> None:
        """End a wait, from another thread; no later one waits either."""
        with self._lock:
            if not self._closed:
                os.write(self._end, b".")

    def close(self) -> None:
        """Release the files. Called by the thread that waits, or after its end."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for file in (self._file, self._ended, self._end):
                    os.close(file)

    def _watch_directory(self) -> bool:
        self._watch = self._add(self._file, self._directory, _MASK)
        return bool(self._watch >= 0)

    def _read(self) -> bool:
        """Read the pending events; return whether one concerns the files."""
        try:
            events = os.read(self._file, _BUFFER)
        except BlockingIOError:
            return False
        at, found = 0, False
        while at < len(events):
            _, mask, _, length = _HEAD.unpack_from(events, at)
            name = events[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            found = found or name in self._names or bool(mask & _OVERFLOW)
            at += _HEAD.size + length
        return found
