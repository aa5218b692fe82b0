"""A queue of keys, each processed by one thread at a time; a key added during its own processing is processed again.

Keys added with low priority wait until nothing else does, so that a sweep over thousands of them delays nobody.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from agola_core.runtime.failures import log_failure
from agola_core.runtime.processes.forks import fork_safe

logger = logging.getLogger(__name__)

Work = Callable[[str], None]
"""Called with a key; an exception is logged, and the key waits for its next `add`."""


class WorkQueue:
    """Keys for a few threads, never the same key in two of them.

    Args:
        name: The threads' name.
        threads: How many.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._count = threads
        self._condition = fork_safe(threading.Condition())
        self._waiting: deque[str] = deque()
        self._low_priority: dict[str, None] = {}  # in their order, each once
        self._queued: set[str] = set()
        self._running: set[str] = set()
        self._stopping = False
        self._threads: list[threading.Thread] = []

    def start(self, work: Work) -> None:
        """Start the threads."""
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"{self._name}-{number}", daemon=True)
            for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, key: str) -> None:
        """Add a key; one that waits already is not added twice."""
        with self._condition:
            if key not in self._queued:
                self._queued.add(key)
                if key not in self._running:
                    self._waiting.append(key)
                    self._condition.notify()

    def add_low_priority(self, key: str) -> None:
        """Add a key that waits for all others; one that waits already is not added twice."""
        with self._condition:
            if key not in self._queued and key not in self._running:
                self._low_priority[key] = None
                self._condition.notify()

    def run_one(self, work: Work) -> bool:
        """Process one key in the calling thread; return whether there was any. For a queue that is not started."""
        with self._condition:
            key = self._take()
        if key is None:
            return False
        self._do(work, key)
        return True

    def stop(self, timeout: float = 10.0) -> None:
        """Drop the waiting keys and end the threads after their current ones."""
        with self._condition:
            self._stopping = True
            self._waiting.clear()
            self._low_priority.clear()
            self._condition.notify_all()
        for thread in self._threads:
            thread.join(timeout)

    def _take(self) -> str | None:
        """Take the next key; None when none waits. The caller holds the condition."""
        if self._waiting:
            key = self._waiting.popleft()
            self._queued.discard(key)
            self._running.add(key)
            return key
        while self._low_priority:
            key = next(iter(self._low_priority))
            del self._low_priority[key]
            if key not in self._queued and key not in self._running:
                self._running.add(key)
                return key
        return None

    def _do(self, work: Work, key: str) -> None:
        try:
            work(key)
        except Exception as error:  # noqa: BLE001 - it is logged, and the next sweep tries again
            if not self._stopping:
                log_failure(logger, error, "work on %s failed; the next sweep tries again", key)
        with self._condition:
            self._running.discard(key)
            if key in self._queued and not self._stopping:
                self._waiting.append(key)
                self._condition.notify()

    def _run(self, work: Work) -> None:
        while True:
            with self._condition:
                while not self._stopping and (key := self._take()) is None:
                    self._condition.wait()
                if self._stopping:
                    return
            assert key is not None
            self._do(work, key)
