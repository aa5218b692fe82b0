"""Run services for tests: real `agola-core serve` processes with a host executor, on free loopback ports.

Outside of pytest, `running_service` is the same as a context manager.
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
from typing import TYPE_CHECKING, Protocol

import pytest

from agola_pytest.failures import attach_log
from agola_pytest.options import value
from agola_pytest.require import need_extra

if TYPE_CHECKING:
    from agola_http.client import Client

_READY = "serving on "
_STOP_SECONDS = 30.0
_VERBOSITY = {"error": [], "info": ["-v"], "debug": ["-vv"]}


class ServiceProcess:
    """A service that runs, or can be started again on the same data.

    Args:
        data_dir: Its data.
        arguments: Further arguments of `agola-core serve`.
        environment: Over this process's own.
        timeout: Seconds to wait for its start.
        log_level: How much it logs: error, info or debug.

    Attributes:
        data_dir: Its data.
        log: The file that has what it printed.
        url: Where it listens; another one after each start.
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
            RuntimeError: It ended, or did not answer in time.
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

    def client(self, token: str = "") -> Client:
        """Return a client of the service, closed with it.

        Args:
            token: What it presents; "" for none.
        """
        from agola_http.client import Client  # noqa: PLC0415 - an extra

        return self._clients.enter_context(Client(self.url, token=token))

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it in order and return its exit code."""
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
    """Run a service for the length of a block.

    Args:
        data_dir: Its data.
        arguments: Further arguments of `agola-core serve`.
        environment: Over this process's own.
        timeout: Seconds to wait for its start.
        log_level: How much it logs: error, info or debug.
    """
    service = ServiceProcess(data_dir, arguments, environment, timeout, log_level)
    try:
        service.start()
        yield service
    finally:
        service.stop()


class ServiceFactory(Protocol):
    """Starts services; `agola_runservice_factory` is one."""

    def __call__(
        self, name: str = ..., *, arguments: Sequence[str] = ..., environment: Mapping[str, str] | None = ...
    ) -> ServiceProcess:
        """Start a service.

        Args:
            name: The directory below the test's temporary one.
            arguments: Further arguments of `agola-core serve`.
            environment: Over the test's own.
        """


@contextmanager
def _factory(request: pytest.FixtureRequest, directory: Path) -> Iterator[ServiceFactory]:
    need_extra(request.config, "runservice", "cli,http", "click", "rich", "starlette", "uvicorn", "httpx2")
    log_level = value(request.config, "log-level")
    with ExitStack() as stack:

        def start(
            name: str = "service", *, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
        ) -> ServiceProcess:
            attach_log(request, directory / f"{name}.log")
            service = running_service(
                directory / name, arguments=arguments, environment=environment, log_level=log_level
            )
            return stack.enter_context(service)

        yield start


@pytest.fixture
def agola_runservice_factory(request: pytest.FixtureRequest, agola_directory: Path) -> Iterator[ServiceFactory]:
    """Yield what starts services; all are stopped at the test's end, and their logs shown when it fails."""
    with _factory(request, agola_directory / "agola-runservices") as factory:
        yield factory


@pytest.fixture
def agola_runservice(agola_runservice_factory: ServiceFactory) -> ServiceProcess:
    """Return a fresh service with a host executor."""
    return agola_runservice_factory()


@pytest.fixture(scope="session")
def agola_session_runservice_factory(
    request: pytest.FixtureRequest, agola_session_directory: Path
) -> Iterator[ServiceFactory]:
    """Yield what starts services that live as long as the session (of one worker, under xdist)."""
    with _factory(request, agola_session_directory) as factory:
        yield factory


@pytest.fixture(scope="session")
def agola_session_runservice(agola_session_runservice_factory: ServiceFactory) -> ServiceProcess:
    """Return one service for all tests of a session (of one worker, under xdist)."""
    return agola_session_runservice_factory("session-runservice")
