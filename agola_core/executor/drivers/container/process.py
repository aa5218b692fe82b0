"""The process of a step in a container."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from agola_core.errors import AgolaError, NotFoundError, UnavailableError
from agola_core.executor.drivers.container.engine import Engine
from agola_core.executor.drivers.exitfile import has_begun, read_exit_code

_GRACE_SECONDS, _POLL_SECONDS = 2.0, 0.1
_BY_SIGNAL = 128


class ContainerProcess:
    """A command in a container (see `port.StepProcess`).

    Args:
        engine: A connection that only this command uses.
        container: The container in which it runs.
        exec_id: Its id at the engine.
        exit_file: The file to which its shell writes the exit code.
        output: Ends with the command, if this process started it.
    """

    def __init__(
        self, engine: Engine, container: str, exec_id: str, exit_file: Path, output: Iterator[object] | None
    ) -> None:
        self._engine = engine
        self._container = container
        self._exec_id = exec_id
        self._exit_file = exit_file
        self._output = output
        self._ended = threading.Event()

    def wait(self) -> int | None:
        """Wait for the command's end (see the port)."""
        code: int | None = None
        try:
            for _ in self._output or ():
                pass
        except AgolaError:
            pass  # the connection broke off: the engine is asked
        while True:
            try:
                running, code = self._engine.exec_state(self._exec_id)
            except NotFoundError:
                running = False
            except UnavailableError:  # the engine is away: it may come back, and the command with it
                running = True
            if not running:
                break
            self._ended.wait(_POLL_SECONDS)
        self._ended.set()
        self._engine.close()
        written = read_exit_code(self._exit_file)
        if written is None and code is not None and code < _BY_SIGNAL and has_begun(self._exit_file):
            return code  # it could not be written: the disk is full
        return written

    def kill(self) -> None:
        """Kill the container with everything in it (see the port), first with SIGTERM."""
        try:
            if self._ended.is_set() or not self._engine.exec_state(self._exec_id)[0]:
                return
            self._engine.run(self._container, ["/bin/sh", "-c", "kill -TERM -1"], "0")
            deadline = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < deadline and self._engine.exec_state(self._exec_id)[0]:
                self._ended.wait(_POLL_SECONDS)
        except AgolaError:
            pass
        self._engine.kill(self._container)

    def kill_now(self) -> None:
        """Kill the container with everything in it at once (see the port)."""
        self._engine.kill(self._container)
