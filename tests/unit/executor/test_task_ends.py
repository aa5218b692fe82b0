"""What holds at a task's end, however it came: its result; its logs have times, and are watched no more."""

from datetime import UTC, datetime

import pytest

from agola_core.errors import UnavailableError
from agola_core.executor.drivers.host import HostDriver
from agola_core.executor.drivers.host.pod import HostPod
from agola_core.executor.tasks.directory import TaskDirectories
from agola_core.executor.tasks.log_watcher import LogWatcher
from agola_core.executor.tasks.runner import TaskLimits, TaskRunner
from agola_core.executor.tasks.state import TaskState
from agola_core.runservice.model.line_times import parse
from agola_core.runservice.model.types import (
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStatus,
    ExecutorTaskStepStatus,
    RunStep,
)


def refuse(error):
    def refused(*_):
        raise error

    return refused


@pytest.fixture
def run(tmp_path):
    """Returns a function that runs a task of one step to its end, and returns its runner."""
    watcher = LogWatcher()

    def run_(**status):
        task = ExecutorTask(
            id="a",
            steps=[RunStep(command="echo said")],
            status=ExecutorTaskStatus(executor_id="e", **{"steps": [ExecutorTaskStepStatus()], **status}),
        )
        directory = TaskDirectories(tmp_path / "tasks").of("a")
        if status:
            directory.create()
            directory.log(0).write_bytes(b"said\n")
        state = TaskState(task, directory, lambda _: None)
        runner = TaskRunner(state, directory, HostDriver(), None, lambda _: None, TaskLimits(), watcher)
        runner.run()
        assert parse(directory.times(0).read_bytes()).size == 5
        assert not watcher._pending
        assert not watcher._watches
        return runner

    yield run_
    watcher.close()


@pytest.mark.parametrize("error", [OSError("no such file"), UnavailableError("the engine is away")])
def test_a_pod_that_cannot_be_removed_does_not_concern_the_result(run, monkeypatch, error):
    monkeypatch.setattr(HostPod, "close", refuse(error))
    assert run().task.status.phase is ExecutorPhase.SUCCESS


def test_a_task_whose_pod_an_executor_does_not_find_again_keeps_the_times_of_its_logs(run, monkeypatch):
    monkeypatch.setattr(HostDriver, "open_pod", refuse(UnavailableError("the engine is away")))
    begun = datetime(2030, 1, 1, tzinfo=UTC)
    ended = ExecutorTaskStepStatus(phase=ExecutorPhase.SUCCESS, start_time=begun)
    step = ExecutorTaskStepStatus(phase=ExecutorPhase.RUNNING, start_time=begun)
    runner = run(phase=ExecutorPhase.RUNNING, setup_step=ended, steps=[step])
    assert (runner.task.status.phase, runner.task.fail_error) == (ExecutorPhase.FAILED, "the engine is away")
