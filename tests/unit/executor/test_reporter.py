"""What an executor reports of its tasks: ends at once, what happens before them together after a while."""

import threading

import pytest
from msgspec.structs import replace

from agola_core.errors import InternalError, NotFoundError, UnavailableError
from agola_core.executor.reporter import Reporter
from agola_core.runservice.model.types import ExecutorPhase, ExecutorTask, ExecutorTaskStatus

SECONDS = 30.0


class Service:
    """Takes reports, and refuses some first."""

    def __init__(self, refused=0, never=""):
        self.refused = refused
        self.never = never
        self.taken = []
        self._condition = threading.Condition()

    def take(self, task):
        with self._condition:
            if task.id == self.never:
                raise InternalError("the service has a defect")
            if self.refused:
                self.refused -= 1
                raise UnavailableError("not now")
            self.taken.append(f"{task.id} {task.status.phase.value}")
            self._condition.notify_all()

    def has(self, *taken):
        with self._condition:
            return self._condition.wait_for(lambda: self.taken == list(taken), SECONDS)


def task(name, phase):
    return replace(ExecutorTask(id=name), status=ExecutorTaskStatus(phase=ExecutorPhase(phase)))


def test_an_end_is_reported_at_once_and_replaces_what_came_before_it():
    service, now = Service(), [100.0]
    reporter = Reporter(service.take, lambda: now[0])
    reporter.start()
    reporter.report(task("a", "running"))
    assert service.has("a running")
    reporter.report(task("b", "running"))  # a moment later, by a clock that stands
    reporter.report(task("c", "running"))
    reporter.report(task("a", "success"))
    assert service.has("a running", "a success")
    reporter.report(task("b", "failed"))
    assert service.has("a running", "a success", "b failed")
    now[0] += 1.0
    assert service.has("a running", "a success", "b failed", "c running")
    reporter.report(task("d", "running"))
    assert reporter.stop(SECONDS)
    assert service.has("a running", "a success", "b failed", "c running", "d running")


def test_a_report_that_was_refused_gives_way_to_a_newer_one():
    service = Service(refused=1)
    reporter = Reporter(service.take)
    reporter.report(task("a", "running"))
    reporter.start()
    while service.refused:
        pass
    reporter.report(task("a", "success"))
    assert service.has("a success")
    assert reporter.stop(SECONDS)


def test_a_report_that_is_always_refused_keeps_no_other_one():
    service = Service(never="a")
    reporter = Reporter(service.take)
    reporter.report(task("a", "success"))
    reporter.report(task("b", "running"))
    reporter.start()
    assert service.has("b running")
    assert not reporter.stop(SECONDS)


def test_a_status_that_is_being_sent_is_not_sent_twice_and_may_be_sent_again_later():
    service, ended = Service(), task("a", "success")

    def send(sent):
        reporter.report(ended)  # as a heartbeat does that does not know of the end yet
        service.take(sent)

    reporter = Reporter(send)
    reporter.start()
    reporter.report(ended)
    assert service.has("a success")
    reporter.report(task("b", "success"))  # while it is sent, "a" is not being sent any more
    assert service.has("a success", "b success", "a success")
    assert reporter.stop(SECONDS)


@pytest.mark.parametrize(("phase", "told"), [("success", 0), ("running", 1)])
def test_an_end_whose_task_the_service_has_forgotten_is_told_to_nobody(caplog, phase, told):
    def forgotten(task):
        raise NotFoundError(f"task {task.id!r} does not exist")

    reporter = Reporter(forgotten)
    reporter.start()
    reporter.report(task("a", phase))
    assert reporter.stop(SECONDS)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == told
