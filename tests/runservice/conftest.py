"""Run services on stores of their own."""

import pytest

import agola_core
from agola_core import Options
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.service import RunService


@pytest.fixture
def dm(tmp_path):
    with agola_core.open(tmp_path / "store", data_types=DATA_TYPES, options=Options(background=False)) as dm:
        yield dm


@pytest.fixture
def directory():
    return InProcessDirectory()


@pytest.fixture
def open_service(dm, tmp_path, directory):
    opened = []

    def open_(**options):
        service = RunService(dm, tmp_path / f"readdb{len(opened)}.db", directory, ServiceOptions(**options))
        opened.append(service)
        service.start()
        return service

    yield open_
    for service in opened:
        service.close()


@pytest.fixture
def service(open_service):
    return open_service()
