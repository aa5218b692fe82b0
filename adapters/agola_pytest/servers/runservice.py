"""Real run services: `agola-core serve` processes with a host executor, on free loopback ports.

Also usable outside pytest::

    with running_service(directory / "data") as service:
        service.client().list_runs(...)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agola_core.runtime.lazy import LazyModule

if TYPE_CHECKING:
    from agola_http import client as client_module
else:
    client_module = LazyModule("agola_http.client")

_READY = "serving on "
_STOP_SECONDS = 30.0
_VERBOSITY = {"error": [], "info": ["-v"], "debug": ["-vv"]}


class ServiceProcess:
    """A run service, which can be stopped and started again on the same data.

    Args:
        data_dir: Its data directory.
        arguments: Further arguments of `agola-core serve`.
        environment: Environment variables, in addition to this process's own.
        timeout: Seconds to wait for its start.
        log_level: Its log level: error, info or debug.

    Attributes:
        data_dir: Its data directory.
        log: File with its output.
        url: Its URL; a different one after each start.
    """

    def __init__(
        self,
        data_dir: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None,
        timeout: float,
        log_level: str = "error",
    ) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.url = ""
        self._arguments = arguments
        self._environment = {**os.environ, **(environment or {})}
        self._timeout = timeout
        self._verbosity = _VERBOSITY[log_level]
        self._process: subprocess.Popen[str] | None = None
        self._clients = ExitStack()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: It exited, or did not answer in time.
        """
        program = [sys.executable, "-m", "agola_cli.main", *self._verbosity]
        command = [*program, "serve", "--no-tokens", "--port", "0", "--data-dir", str(self.data_dir)]
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [*command, *self._arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        self._process = process
        timer = threading.Timer(self._timeout, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_READY):
                self.url = line.removeprefix(_READY).strip()
                break
        timer.cancel()
        if not self.url:
            raise RuntimeError(f"agola-core serve did not start: {self.log.read_text()}")

    def client(self, token: str = "") -> client_module.Client:
        """Return a client of the service, closed with it.

        Args:
            token: Its access token; "" for none.
        """
        from agola_http.client import Client  # noqa: PLC0415 - an extra

        return self._clients.enter_context(Client(self.url, token=token))

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Shut it down cleanly and return its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self._process, self.url = self._process, None, ""
        self._clients.close()
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def running_service(
    data_dir: Path,
    *,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    log_level: str = "error",
) -> Iterator[ServiceProcess]:
    """Run a service for the length of the block.

    Args:
        data_dir: Its data directory.
        arguments: Further arguments of `agola-core serve`.
        environment: Environment variables, in addition to this process's own.
        timeout: Seconds to wait for its start.
        log_level: Its log level: error, info or debug.
    """
    service = ServiceProcess(data_dir, arguments, environment, timeout, log_level)
    try:
        service.start()
        yield service
    finally:
        service.stop()
