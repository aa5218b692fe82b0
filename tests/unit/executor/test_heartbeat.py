"""What an executor tells of its service: each failure once, and once that it answers again."""

from contextlib import closing

from agola_core.errors import ForbiddenError, UnavailableError
from agola_core.executor import Executor
from agola_core.executor.drivers.host import HostDriver


class Service:
    """A run service that fails as it is told to."""

    failure = None

    def send_executor_status(self, status):
        if self.failure is not None:
            raise self.failure

    def executor_tasks(self, executor_id):
        return []


def test_a_service_that_is_away_is_told_once_and_once_when_it_is_back(tmp_path, caplog):
    service = Service()
    beats = [UnavailableError("it is away")] * 3 + [ForbiddenError("a wrong token")] * 2 + [None] * 2
    with closing(Executor(tmp_path, service, HostDriver())) as executor:
        for service.failure in beats:
            executor._heartbeat()
    assert [record.message for record in caplog.records] == [
        "it is away; it is tried again until it answers",
        "a wrong token; it is tried again until it answers",
        "the run service answers again",
    ]
