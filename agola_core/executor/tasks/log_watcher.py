"""Tells when logs grow: by the kernel (inotify), or by looking often where it cannot tell.

Commands write into their logs by themselves, so that they go on when the executor dies. One thread watches the logs of
all tasks; it begins with the first one, and sleeps while nothing is written.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

from agola_core.errors import UnavailableError
from agola_core.runtime.threads.start import start_thread

logger = logging.getLogger(__name__)

_MODIFY, _OVERFLOW, _DONT_FOLLOW = 0x2, 0x4000, 0x2000000
_HEAD = struct.Struct("iIII")
_BUFFER = 1 << 16
_REST_SECONDS = 0.004
_LOOK_SECONDS = 0.05
_BEGIN_SECONDS = 0.01

Grown = Callable[[], float]
"""Called when a log may have grown; returns the seconds after which it wants to be called again, 0 for not."""


class _Pending(NamedTuple):
    """A log that is to be watched, unless its command ends before."""

    path: Path
    grown: Grown
    due: float


class LogWatcher:
    """Watches the logs of an executor's tasks. Thread-safe.

    A watch begins after ten milliseconds: most commands of short tasks have ended by then, and cost nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count()
        self._pending: dict[int, _Pending] = {}
        self._watched: dict[int, dict[int, Grown]] = {}  # a step may have made several logs one file
        self._watches: dict[int, int] = {}
        self._looked_at: dict[int, Grown] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._sleeps = False
        self._inotify = self._woken = self._wake = -1

    def add(self, path: Path, grown: Grown) -> int:
        """Watch a log, which may not be there yet, and return the number of the watch."""
        with self._lock:
            number = next(self._numbers)
            self._pending[number] = _Pending(path, grown, time.monotonic() + _BEGIN_SECONDS)
            if self._thread is None and not self._closed.is_set():
                self._start()
            elif self._sleeps:
                self._sleeps = False
                os.write(self._wake, b".")
            return number

    def remove(self, number: int) -> None:
        """End a watch."""
        with self._lock:
            self._pending.pop(number, None)
            self._looked_at.pop(number, None)
            watch = self._watches.pop(number, None)
            if watch is None:
                return
            del self._watched[watch][number]
            if not self._watched[watch]:
                del self._watched[watch]
                if not self._closed.is_set():
                    self._remove(self._inotify, watch)

    def is_told(self, number: int) -> bool:
        """Return whether the kernel tells of a watched log's growth: from then on none is missed."""
        with self._lock:
            return number in self._watches

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            if self._closed.is_set() or thread is None:
                self._closed.set()
                return
            self._closed.set()
            os.write(self._wake, b".")
        thread.join()
        self._close_files()

    def _start(self) -> None:
        """Begin the thread; where the system gives none, the next log tries again: a time is no reason to fail."""
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._add, self._remove = libc.inotify_add_watch, libc.inotify_rm_watch
            self._inotify = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        except AttributeError:  # there is no inotify
            self._inotify = -1
        try:
            self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._thread = start_thread("log-times", self._watch)
        except (OSError, UnavailableError) as error:
            logger.warning("logs are not watched, their times are those of their steps' ends: %s", error)
            self._close_files()

    def _close_files(self) -> None:
        for file in (self._inotify, self._woken, self._wake):
            if file >= 0:
                os.close(file)
        self._inotify = self._woken = self._wake = -1

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if self._inotify >= 0:
            poll.register(self._inotify, select.POLLIN)
        due: dict[int, float] = {}
        while True:
            with self._lock:
                if self._closed.is_set():
                    return
                pause = self._pause(due)
                self._sleeps = pause is None
            poll.poll(pause)
            now = time.monotonic()
            with self._lock:
                self._sleeps = False
                called = self._begin(now) | self._looked_at
                for watch in self._read():
                    called |= self._watched.get(watch, {})
                late = [number for number, at in due.items() if at <= now]
                for number in late:
                    if (watched := self._watches.get(number)) is not None:
                        called[number] = self._watched[watched][number]
            for number in late:
                del due[number]
            for number, grown in called.items():
                if again := grown():
                    due[number] = now + again
            if called:
                self._closed.wait(_REST_SECONDS)  # meanwhile the kernel gathers what is written

    def _pause(self, due: dict[int, float]) -> float | None:
        """Return the milliseconds after which the thread wakes by itself; None for never."""
        ends = [*due.values(), *(item.due for item in islice(self._pending.values(), 1))]
        if self._looked_at:
            ends.append(time.monotonic() + _LOOK_SECONDS)
        return 1000 * max(0.001, min(ends) - time.monotonic()) if ends else None

    def _begin(self, now: float) -> dict[int, Grown]:
        """Watch the logs whose time has come, and return them."""
        begun = {}
        for number, item in list(self._pending.items()):
            if item.due > now:
                break
            del self._pending[number]
            if not os.path.lexists(item.path):  # a step may have put a link in its place, to anywhere
                self._pending[number] = item._replace(due=now + _LOOK_SECONDS)
                continue
            begun[number] = item.grown
            path = os.fsencode(item.path)
            watch = self._add(self._inotify, path, _MODIFY | _DONT_FOLLOW) if self._inotify >= 0 else -1
            if watch >= 0:
                self._watched.setdefault(watch, {})[number] = item.grown
                self._watches[number] = watch
            else:
                self._looked_at[number] = item.grown
        return begun

    def _read(self) -> set[int]:
        """Return the watches of the logs that have grown."""
        for file in (self._woken, self._inotify):
            try:
                events = os.read(file, _BUFFER) if file >= 0 else b""
            except BlockingIOError:
                events = b""
        found = dict(_events(events))
        return set(self._watched) if any(mask & _OVERFLOW for mask in found.values()) else set(found)


def _events(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the watch and the kind of each event."""
    at = 0
    while at < len(data):
        number, mask, _, length = _HEAD.unpack_from(data, at)
        yield number, mask
        at += _HEAD.size + length
