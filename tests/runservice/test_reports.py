"""The sums of an archive's reports: made however often it takes, shared by restarts, gone with the last of them."""

import io
import tarfile

import pytest
from msgspec.structs import replace

from agola_core.errors import UnavailableError
from agola_core.runservice.artifacts import reports
from agola_core.runservice.artifacts.reports import ReportReader
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import ExecutorPhase, SaveToWorkspaceStep
from agola_core.runtime import faultpoints
from tests.support.runs import PlayedExecutor, archived, request, task

REPORT = b'<testsuite><testcase name="a"/><testcase name="b"><failure message="no"/></testcase></testsuite>'
SUMMARY = "workspacearchives/a/data/0.tar.reports"


class Saving(PlayedExecutor):
    """An executor whose tasks save a report."""

    name = "junit.xml"

    def open_archive(self, task_id, step, *, offset=0):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as packed:
            info = tarfile.TarInfo(self.name)
            info.size = len(REPORT)
            packed.addfile(info, io.BytesIO(REPORT))
        yield buffer.getvalue()[offset:]


def test_reports_are_summed_up_although_it_was_interrupted(open_service, directory, dm):
    service = open_service(sweep_interval=0.1)
    executor = Saving(service, directory)
    left = [2]

    def fail(name):
        if name == "reports.before-write" and left[0]:
            left[0] -= 1
            raise UnavailableError("no storage")

    with faultpoints.arm(fail):
        run = service.create_run(request(replace(task("a"), steps=[SaveToWorkspaceStep()]))).run
        executor.end("a")
        run = archived(service, run.id)
    assert (left, run.tasks["a"].reports, run.tasks["a"].archives_lost) == ([0], [0], [])
    found = service.run_tests(service.get_run(run.id))
    assert (found.tests.total, found.tests.failed, found.tasks[0].failed[0].message) == (2, 1, "no")


def test_a_restart_shares_them_and_the_last_run_takes_them_along(service, directory, dm):
    executor = Saving(service, directory)
    saving = replace(task("a"), steps=[SaveToWorkspaceStep()])
    run = service.create_run(request(saving, task("b", "a"))).run
    executor.end("a")
    executor.end("b", ExecutorPhase.FAILED)
    archived(service, run.id)
    second = service.create_run(RunCreateRequest(run_id=run.id)).run
    name = next(item for item in second.tasks if item != "a")
    executor.end(name)
    archived(service, second.id)
    service.delete_run(run.id)
    assert service.run_tests(service.get_run(second.id)).tests.failed == 1
    service.delete_run(second.id)
    assert SUMMARY not in {info.path for info in dm.storage.list("workspacearchives/")}


def test_a_damaged_summary_is_a_problem_of_its_task(service, directory, dm):
    executor = Saving(service, directory)
    run = service.create_run(request(replace(task("a"), steps=[SaveToWorkspaceStep()]))).run
    executor.end("a")
    archived(service, run.id)
    for damaged in (b"", b"\xff", b'{"reports": [{}]}', dm.storage.read(SUMMARY)[:-5]):
        dm.storage.write(SUMMARY, damaged)
        found = ReportReader(dm.storage).run_tests(service.get_run(run.id))
        assert found.tasks[0].problems == ("step 0: the summary of its reports is damaged",)


@pytest.mark.parametrize("name", ["junit-\udcff\n\x1b[2J.xml", "junit" + "/deep" * 90 + "/" + "x" * 240 + "junit.xml"])
def test_a_report_s_name_never_holds_up_its_run(service, directory, name):
    executor = Saving(service, directory)
    executor.name = name
    run = service.create_run(request(replace(task("a"), steps=[SaveToWorkspaceStep()]))).run
    executor.end("a")
    run = archived(service, run.id)
    assert service.run_tests(service.get_run(run.id)).tests.failed == 1


def test_a_report_that_is_read_wrongly_is_left_out(service, directory, monkeypatch):
    """A fault of the parser is the run's least trouble: it ends, and the log says what happened."""
    monkeypatch.setattr(reports, "read_reports", lambda archive: 1 / 0)
    executor = Saving(service, directory)
    run = service.create_run(request(replace(task("a"), steps=[SaveToWorkspaceStep()]))).run
    executor.end("a")
    run = archived(service, run.id)
    assert (run.tasks["a"].reports, run.tasks["a"].archives_lost) == ([], [])
