"""Entry point of the pytest plugin. Imports nothing of agola_core until a fixture is used."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agola_pytest.fixtures.failures import agola_directory, agola_session_directory, note_failure
from agola_pytest.fixtures.require import missing
from agola_pytest.fixtures.runservice import (
    agola_runservice,
    agola_runservice_factory,
    agola_session_runservice,
    agola_session_runservice_factory,
)
from agola_pytest.fixtures.servers import (
    agola_etcd,
    agola_etcd_factory,
    agola_s3,
    agola_s3_factory,
    agola_session_etcd,
    agola_session_etcd_factory,
    agola_session_s3,
    agola_session_s3_factory,
)
from agola_pytest.fixtures.store import (
    agola_session_store,
    agola_session_store_factory,
    agola_store,
    agola_store_factory,
    agola_store_types,
)
from agola_pytest.options import add_options, check_options, value

if TYPE_CHECKING:
    from collections.abc import Callable

    from agola_pytest.faults.crash import Crash
    from agola_pytest.servers.container_engine import ContainerEngine

__all__ = [
    "agola_container_engine",
    "agola_crash",
    "agola_directory",
    "agola_etcd",
    "agola_etcd_factory",
    "agola_runservice",
    "agola_runservice_factory",
    "agola_s3",
    "agola_s3_factory",
    "agola_session_directory",
    "agola_session_etcd",
    "agola_session_etcd_factory",
    "agola_session_runservice",
    "agola_session_runservice_factory",
    "agola_session_s3",
    "agola_session_s3_factory",
    "agola_session_store",
    "agola_session_store_factory",
    "agola_store",
    "agola_store_factory",
    "agola_store_types",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse invalid options."""
    check_options(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the servers that a failed test used to its report."""
    report = yield
    note_failure(item, report)
    return report


@pytest.fixture
def agola_crash(agola_directory: Path) -> Callable[..., Crash]:  # noqa: ARG001 - the test's directory may be kept
    """Return `agola_pytest.crash.crash_at`, which runs a function in a process that is killed at a fault point."""
    from agola_pytest.faults.crash import crash_at  # noqa: PLC0415 - unused, the plugin costs nothing

    return crash_at


@pytest.fixture(scope="session")
def agola_container_engine(pytestconfig: pytest.Config) -> Iterator[ContainerEngine]:
    """Yield a working container engine and an image: the one of `--agola-container-engine`, or a podman.

    Skips with the engine's message if there is none, or fails under `--agola-require=container`.
    """
    try:
        from agola_pytest.servers.container_engine import EngineMissingError, start_engine  # noqa: PLC0415 - load what is used
    except ImportError as error:
        missing(pytestconfig, "container", f"the extra container is not installed: {error}")
    external, image = value(pytestconfig, "container-engine"), value(pytestconfig, "container-image")
    try:
        # Not in pytest's own directory: podman refuses paths of more than 50 characters.
        with (
            tempfile.TemporaryDirectory(prefix="agola-") as directory,
            start_engine(Path(directory), external, image) as engine,
        ):
            yield engine
    except EngineMissingError as error:
        missing(pytestconfig, "container", str(error))
