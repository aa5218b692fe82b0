"""A queue of keys, each worked on by one thread at a time: what is asked for meanwhile is done once more.

What is asked for at leisure comes after everything else, so that a sweep over thousands delays nobody.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from agola_core.runtime.forks import renewed

logger = logging.getLogger(__name__)


class WorkQueue:
    """Runs a function for keys, in a few threads, never twice at once for one key.

    Args:
        name: The threads' name.
        work: Called with a key; what it raises is logged, and the key is left to the next `add`.
        threads: How many.
    """

    def __init__(self, name: str, work: Callable[[str], None], threads: int) -> None:
        self._work = work
        self._condition = renewed(threading.Condition())
        self._waiting: deque[str] = deque()
        self._leisurely: dict[str, None] = {}  # in their order, each once
        self._queued: set[str] = set()
        self._running: set[str] = set()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def add(self, key: str) -> None:
        """Ask for a key's work; asking again before it begins changes nothing."""
        with self._condition:
            if key not in self._queued:
                self._queued.add(key)
                if key not in self._running:
                    self._waiting.append(key)
                    self._condition.notify()

    def add_at_leisure(self, key: str) -> None:
        """Ask for a key's work when there is nothing else to do; asking again before it begins changes nothing."""
        with self._condition:
            if key not in self._queued and key not in self._running:
                self._leisurely[key] = None
                self._condition.notify()

    def run_one(self) -> bool:
        """Work on one key in the calling thread; return whether there was any. For a queue that is not started."""
        with self._condition:
            key = self._take()
        if key is None:
            return False
        self._do(key)
        return True

    def stop(self, timeout: float = 10.0) -> None:
        """Drop what waits and end the threads after what they do now."""
        with self._condition:
            self._stopping = True
            self._waiting.clear()
            self._leisurely.clear()
            self._condition.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout)

    def _take(self) -> str | None:
        """Take the next key; None when none waits. The caller holds the condition."""
        if self._waiting:
            key = self._waiting.popleft()
            self._queued.discard(key)
            self._running.add(key)
            return key
        while self._leisurely:
            key = next(iter(self._leisurely))
            del self._leisurely[key]
            if key not in self._queued and key not in self._running:
                self._running.add(key)
                return key
        return None

    def _do(self, key: str) -> None:
        try:
            self._work(key)
        except Exception:
            if not self._stopping:
                logger.exception("work on %s failed; the next sweep tries again", key)
        with self._condition:
            self._running.discard(key)
            if key in self._queued and not self._stopping:
                self._waiting.append(key)
                self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._stopping and (key := self._take()) is None:
                    self._condition.wait()
                if self._stopping:
                    return
            assert key is not None
            self._do(key)
