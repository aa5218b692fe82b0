"""Handles Ctrl-C in commands that follow runs: once stops the run, twice kills everything at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ROUND_SECONDS = 0.1
_GRACE_SECONDS = 3.0
_INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h"


class Interruption:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a request to stop. A context manager.

    The second signal kills what runs; the process ends soon after, even when something in it hangs.

    Attributes:
        asked: Whether somebody asked to stop.
        kill: Kills what runs here.
    """

    def __init__(self) -> None:
        self.asked = False
        self.kill: Callable[[], object] = lambda: None
        self._killing = False
        self._reason, self._code = "killed", _INTERRUPTED
        self._over = threading.Event()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Take the signals."""
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        self._over.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler if callable(handler) else signal.SIG_DFL)

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's
        if not self.asked:
            self.asked = True
        elif not self._killing:
            self._killing = True
            threading.Thread(target=self._end_at_once, name="end-at-once", daemon=True).start()

    def give_up(self, reason: str, code: int) -> None:
        """Kill running tasks and end this process soon, because it cannot continue.

        Args:
            reason: The message to the user if the process hangs.
            code: Its exit code then.
        """
        self._reason, self._code = reason, code
        if not self._killing:
            self._killing = True
            threading.Thread(target=self._end_at_once, name="end-at-once", daemon=True).start()

    def _end_at_once(self) -> None:
        """Kill what runs until this command has ended; end the process when it hangs."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while True:
            self.kill()
            if self._over.wait(_ROUND_SECONDS):
                return
            if time.monotonic() > deadline:
                self.kill()
                os.write(2, (_SHOW_CURSOR if sys.stderr.isatty() else b"") + f"agola-core: {self._reason}\n".encode())
                os._exit(self._code)
