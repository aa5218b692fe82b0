"""What several fault tests use."""

import pytest

from agola_core.coordinator import open_coordinator
from agola_pytest.faults.tcp_proxy import BreakableProxy
from agola_pytest.fixtures import require
from agola_pytest.servers.etcd import EtcdMissingError, control, program, start_etcd


@pytest.fixture(scope="session")
def etcd_programs(pytestconfig):
    """Skips, or fails where etcd was required, on a machine that cannot start one."""
    try:
        program()
        control("version")
    except EtcdMissingError as error:
        require.missing(pytestconfig, "etcd", str(error))


@pytest.fixture
def own_etcd(tmp_path, etcd_programs):
    """An etcd of this test alone."""
    with start_etcd(tmp_path / "etcd") as server:
        yield server


@pytest.fixture
def proxy(agola_etcd):
    with BreakableProxy(agola_etcd.endpoint) as proxy:
        yield proxy


@pytest.fixture
def opened():
    """Opens coordinators and closes them, the newest first."""
    coordinators = []

    def open_one(url):
        coordinators.append(open_coordinator(url))
        return coordinators[-1]

    yield open_one
    for coordinator in reversed(coordinators):
        coordinator.close()
