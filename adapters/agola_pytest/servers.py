"""Fixtures of real servers: S3 and etcd, one of each for a session, in which each test has a place of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from agola_pytest.failures import attach_log
from agola_pytest.options import value
from agola_pytest.require import missing, need_extra

if TYPE_CHECKING:
    from agola_pytest.etcd import EtcdServer, SharedEtcd
    from agola_pytest.s3 import S3Program, S3Server


class EtcdFactory(Protocol):
    """Starts etcd processes; `agola_etcd_factory` is one."""

    def __call__(self, name: str = ..., *, arguments: Sequence[str] = ...) -> EtcdServer:
        """Start an etcd: to be killed, paused, wiped at will.

        Args:
            name: Its directory below the test's temporary one.
            arguments: Further arguments of the program.
        """


class S3Factory(Protocol):
    """Starts S3 servers; `agola_s3_factory` is one."""

    def __call__(self, name: str = ..., *, program: S3Program | None = ...) -> S3Server:
        """Start an S3 server.

        Args:
            name: Its directory below the test's temporary one.
            program: Which one; by default the first that is installed.
        """


@contextmanager
def _etcd_factory(request: pytest.FixtureRequest, directory: Path) -> Iterator[EtcdFactory]:
    from agola_pytest.etcd import EtcdMissingError, start_etcd  # noqa: PLC0415 - load what is used

    need_extra(request.config, "etcd", "etcd", "etcd3", "grpc")

    level = ["--log-level=debug"] if value(request.config, "log-level") == "debug" else []
    with ExitStack() as stack:

        def start(name: str = "etcd", *, arguments: Sequence[str] = ()) -> EtcdServer:
            try:
                server = stack.enter_context(start_etcd(directory / name, arguments=[*level, *arguments]))
            except EtcdMissingError as error:
                missing(request.config, "etcd", str(error))
            attach_log(request, server.log)
            return server

        yield start


@contextmanager
def _s3_factory(request: pytest.FixtureRequest, directory: Path) -> Iterator[S3Factory]:
    from agola_pytest.s3 import S3MissingError, S3Program, log_file, missing_reason, start_s3  # noqa: PLC0415

    need_extra(request.config, "s3", "s3", "s3fs")

    with ExitStack() as stack:

        def start(name: str = "s3", *, program: S3Program | None = None) -> S3Server:
            if program is None:
                choices = (S3Program.MINISTACK, S3Program.RCLONE)
                program = next((one for one in choices if missing_reason(one) is None), choices[0])
            attach_log(request, log_file(directory / name))
            level = value(request.config, "log-level")
            try:
                return stack.enter_context(start_s3(directory / name, program, log_level=level))
            except S3MissingError as error:
                missing(request.config, "s3", str(error))

        yield start


@pytest.fixture
def agola_etcd_factory(request: pytest.FixtureRequest, agola_directory: Path) -> Iterator[EtcdFactory]:
    """Yield what starts etcd processes of the test's own; all end with it, and their logs are shown when it fails."""
    with _etcd_factory(request, agola_directory / "agola-etcd") as factory:
        yield factory


@pytest.fixture(scope="session")
def agola_session_etcd_factory(request: pytest.FixtureRequest, agola_session_directory: Path) -> Iterator[EtcdFactory]:
    """Yield what starts etcd processes that live as long as the session (of one worker, under xdist)."""
    with _etcd_factory(request, agola_session_directory) as factory:
        yield factory


@pytest.fixture(scope="session")
def agola_session_etcd(request: pytest.FixtureRequest) -> Iterator[EtcdServer | SharedEtcd]:
    """Yield the session's etcd: one of its own, or a place in the one of `--agola-etcd`, emptied at the end.

    Skips when there is no etcd program, or fails under `--agola-require=etcd`.
    """
    from agola_pytest.etcd import SharedEtcd  # noqa: PLC0415 - load what is used

    need_extra(request.config, "etcd", "etcd", "etcd3", "grpc")
    external = value(request.config, "etcd")
    if not external:
        yield request.getfixturevalue("agola_session_etcd_factory")("session-etcd")
        return
    shared = SharedEtcd(external, _place("session"))
    yield shared
    shared.empty()


@pytest.fixture
def agola_etcd(agola_session_etcd: EtcdServer | SharedEtcd) -> SharedEtcd:
    """Return a place of this test's own in the session's etcd; `agola_etcd.url(PREFIX)` names a store in it."""
    return agola_session_etcd.below(_place("test"))


@pytest.fixture
def agola_s3_factory(request: pytest.FixtureRequest, agola_directory: Path) -> Iterator[S3Factory]:
    """Yield what starts S3 servers of the test's own; all end with it, and their logs are shown when it fails."""
    with _s3_factory(request, agola_directory / "agola-s3") as factory:
        yield factory


@pytest.fixture(scope="session")
def agola_session_s3_factory(request: pytest.FixtureRequest, agola_session_directory: Path) -> Iterator[S3Factory]:
    """Yield what starts S3 servers that live as long as the session (of one worker, under xdist)."""
    with _s3_factory(request, agola_session_directory) as factory:
        yield factory


@pytest.fixture(scope="session")
def agola_session_s3(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """Yield the session's S3 server: one of its own, or a place in the one of `--agola-s3`, emptied at the end.

    The credentials of that one stand in `AGOLA_S3_ACCESS_KEY_ID` and `AGOLA_S3_SECRET_ACCESS_KEY`. Skips when no
    program is there, or fails under `--agola-require=s3`.
    """
    from agola_pytest.s3 import S3Server  # noqa: PLC0415 - load what is used

    need_extra(request.config, "s3", "s3", "s3fs")
    external = value(request.config, "s3")
    if not external:
        yield request.getfixturevalue("agola_session_s3_factory")("session-s3")
        return
    server = S3Server.external(external, _place("session"))
    yield server
    server.empty()


@pytest.fixture
def agola_s3(agola_session_s3: S3Server) -> S3Server:
    """Return a place of this test's own in the session's S3 server; `agola_s3.url(PREFIX)` names a storage in it."""
    return agola_session_s3.below(_place("test"))


def _place(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"
