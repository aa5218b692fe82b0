"""pytest fixtures of agola_core, loaded by entry point. Nothing of agola_core is imported until a fixture is used."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agola_pytest.failures import agola_directory, agola_session_directory, note_failure
from agola_pytest.options import add_options, check_options, value
from agola_pytest.require import missing
from agola_pytest.runservice import (
    agola_runservice,
    agola_runservice_factory,
    agola_session_runservice,
    agola_session_runservice_factory,
)
from agola_pytest.servers import (
    agola_etcd,
    agola_etcd_factory,
    agola_s3,
    agola_s3_factory,
    agola_session_etcd,
    agola_session_etcd_factory,
    agola_session_s3,
    agola_session_s3_factory,
)
from agola_pytest.store import (
    agola_session_store,
    agola_session_store_factory,
    agola_store,
    agola_store_factory,
    agola_store_types,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agola_pytest.crash import Crash
    from agola_pytest.engine import ContainerEngine

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
    """Refuse options that cannot be."""
    check_options(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the servers that a failed test used."""
    report = yield
    note_failure(item, report)
    return report


@pytest.fixture
def agola_crash(agola_directory: Path) -> Callable[..., Crash]:  # noqa: ARG001 - the test's directory may be kept
    """Return what runs a function in a process that is killed at a fault point (see `agola_pytest.crash`)."""
    from agola_pytest.crash import crash_at  # noqa: PLC0415 - unused, the plugin costs nothing

    return crash_at


@pytest.fixture(scope="session")
def agola_container_engine(pytestconfig: pytest.Config) -> Iterator[ContainerEngine]:
    """Yield a container engine that works, with an image: the one of `--agola-container-engine`, or a podman.

    Skips with the engine's own words when there is none, or fails under `--agola-require=container`.
    """
    try:
        from agola_pytest.engine import EngineMissingError, start_engine  # noqa: PLC0415 - load what is used
    except ImportError as error:
        missing(pytestconfig, "container", f"the extra container is not installed: {error}")
    external, image = value(pytestconfig, "container-engine"), value(pytestconfig, "container-image")
    try:
        # Not below pytest's own directory: podman refuses a path of more than 50 characters.
        with (
            tempfile.TemporaryDirectory(prefix="agola-") as directory,
            start_engine(Path(directory), external, image) as engine,
        ):
            yield engine
    except EngineMissingError as error:
        missing(pytestconfig, "container", str(error))
