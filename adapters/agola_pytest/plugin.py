"""pytest fixtures of agola_core, loaded by entry point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agola_pytest import require

if TYPE_CHECKING:
    from agola_core import DataManager
    from agola_pytest.etcd import EtcdServer
    from agola_pytest.s3 import S3Server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    require.add_option(parser)


@pytest.fixture
def agola_store_types() -> list[str]:
    """Return the data types of `agola_store`; override it to choose your own."""
    return ["object"]


@pytest.fixture
def agola_store(tmp_path: Path, agola_store_types: list[str]) -> Iterator[DataManager]:
    """Yield a fresh embedded store below the test's temporary directory."""
    import agola_core  # noqa: PLC0415 - unused, the plugin costs nothing

    with agola_core.open(tmp_path / "agola_store", data_types=agola_store_types) as datamanager:
        yield datamanager


@pytest.fixture(scope="session")
def agola_etcd(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[EtcdServer]:
    """Yield a running etcd of this session's own; `agola_etcd.url(PREFIX)` names a store in it.

    Skips when there is no etcd program, or fails under `--agola-require=etcd`.
    """
    from agola_pytest.etcd import EtcdMissingError, program, start_etcd  # noqa: PLC0415 - load what is used

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
