"""pytest fixtures of agola_core, loaded by entry point. Nothing of agola_core is imported until a fixture is used."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agola_pytest import require
from agola_pytest.logs import add_sections
from agola_pytest.runservice import agola_runservice, agola_runservice_factory, agola_session_runservice
from agola_pytest.store import agola_session_store, agola_store, agola_store_factory, agola_store_types

if TYPE_CHECKING:
    from collections.abc import Callable

    from agola_pytest.crash import Crash
    from agola_pytest.engine import ContainerEngine
    from agola_pytest.etcd import EtcdServer, ExternalEtcd
    from agola_pytest.s3 import S3Server

__all__ = [
    "agola_container_engine",
    "agola_crash",
    "agola_etcd",
    "agola_runservice",
    "agola_runservice_factory",
    "agola_session_runservice",
    "agola_session_store",
    "agola_store",
    "agola_store_factory",
    "agola_store_types",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    require.add_option(parser)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the servers that a failed test used."""
    report = yield
    add_sections(item, report)
    return report


@pytest.fixture
def agola_crash() -> Callable[..., Crash]:
    """Return what runs a function in a process that is killed at a fault point (see `agola_pytest.crash`)."""
    from agola_pytest.crash import crash_at  # noqa: PLC0415 - unused, the plugin costs nothing

    return crash_at


@pytest.fixture(scope="session")
def agola_etcd(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[EtcdServer | ExternalEtcd]:
    """Yield a running etcd of this session's own; `agola_etcd.url(PREFIX)` names a store in it.

    The environment variable `AGOLA_ETCD` (`HOST:PORT,HOST:PORT`) names one to use instead. Skips when there is no
    etcd program, or fails under `--agola-require=etcd`.
    """
    import os  # noqa: PLC0415 - unused, the plugin costs nothing

    from agola_pytest.etcd import (  # noqa: PLC0415 - load what is used
        EXTERNAL_VARIABLE,
        EtcdMissingError,
        ExternalEtcd,
        program,
        start_etcd,
    )

    if external := os.environ.get(EXTERNAL_VARIABLE):
        yield ExternalEtcd(external)
        return
    try:
        program()
    except EtcdMissingError as error:
        require.missing(pytestconfig, "etcd", str(error))
    with start_etcd(tmp_path_factory.mktemp("agola_etcd")) as server:
        yield server


@pytest.fixture(scope="session")
def agola_s3(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[S3Server]:
    """Yield a running S3 server of this session's own; `agola_s3.url(PREFIX)` names a storage in it.

    The server is the one that the environment variable `AGOLA_S3` names, or else ministack. Skips when neither is
    there, or fails under `--agola-require=s3`.
    """
    from agola_pytest.s3 import S3MissingError, S3Program, missing_reason, start_s3  # noqa: PLC0415

    program = S3Program.MINISTACK if missing_reason(S3Program.EXTERNAL) else S3Program.EXTERNAL
    try:
        with start_s3(tmp_path_factory.mktemp("agola_s3"), program) as server:
            yield server
    except S3MissingError as error:
        require.missing(pytestconfig, "s3", str(error))


@pytest.fixture(scope="session")
def agola_container_engine(pytestconfig: pytest.Config) -> Iterator[ContainerEngine]:
    """Yield a container engine that works, with an image: the one of `AGOLA_CONTAINER_ENGINE`, or a podman.

    Skips with the engine's own words when there is none, or fails under `--agola-require=container`.
    """
    try:
        from agola_pytest.engine import EngineMissingError, start_engine  # noqa: PLC0415 - load what is used
    except ImportError as error:
        require.missing(pytestconfig, "container", f"the extra container is not installed: {error}")
    try:
        # Not below pytest's own directory: podman refuses a path of more than 50 characters.
        with tempfile.TemporaryDirectory(prefix="agola-") as directory, start_engine(Path(directory)) as engine:
            yield engine
    except EngineMissingError as error:
        require.missing(pytestconfig, "container", str(error))
