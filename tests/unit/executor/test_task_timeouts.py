"""A task's timeout counts from the start of its first step, by a clock that is never set, over restarts."""

from datetime import UTC, datetime

import pytest

from agola_core.executor.drivers.host import HostDriver
from agola_core.executor.tasks.directory import TaskDirectories
from agola_core.executor.tasks.log_watcher import LogWatcher
from agola_core.executor.tasks.pool import TaskPool
from agola_core.executor.tasks.runner import TaskLimits, TaskRunner
from agola_core.executor.tasks.state import TaskState
from agola_core.runservice.model.types import (
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStatus,
    ExecutorTaskStepStatus,
    RunStep,
)

SECONDS = 30.0


class Bench:
    """A task of two steps on a driver; the test says how late it is."""

    def __init__(self, root, *done, wall=0.0, step_timeout=0.0):
        self.ticks, self.wall = 0.0, wall
        gate = root / "gate"
        steps = [RunStep(command=f"while [ ! -e {gate} ]; do sleep 0.02; done", timeout=step_timeout)] * 2
        states = [*done, *[ExecutorTaskStepStatus() for _ in steps]][: len(steps)]
        self.task = ExecutorTask(
            id="a", timeout=100.0, steps=steps, status=ExecutorTaskStatus(executor_id="e", steps=states)
        )
        self.reports = []
        directory = TaskDirectories(root / "tasks").of("a")
        state = TaskState(self.task, directory, self.reports.append, lambda: self.wall, lambda: self.ticks)
        self.runner = TaskRunner(state, directory, HostDriver(), None, lambda _: None, TaskLimits(), LogWatcher())

    def start(self, step):
        TaskPool(0).add(self.runner)
        with self.runner.state.condition:
            assert self.runner.state.condition.wait_for(lambda: self._phase(step) is ExecutorPhase.RUNNING, SECONDS)

    def after(self, seconds):
        """Let time pass, and the executor look at its tasks; return whether the task goes on."""
        self.ticks += seconds
        self.runner.check_limits()
        return not self.runner._ended.is_set()

    def end(self):
        self.runner.stop()
        self.runner.join(SECONDS)
        return self.runner.task

    def _phase(self, step):
        return self.runner.task.status.steps[step].phase


@pytest.fixture
def make(tmp_path):
    made = []

    def make_(*done, **options):
        made.append(Bench(tmp_path, *done, **options))
        return made[-1]

    yield make_
    for bench in made:
        bench.end()


def test_waiting_for_a_slot_is_not_running(make):
    bench = make()
    assert bench.after(1000)
    bench.start(0)
    assert bench.after(99)
    assert not bench.after(2)
    ended = bench.end()
    assert (ended.status.phase, ended.fail_error) == (
        ExecutorPhase.FAILED,
        "the task ran longer than its timeout of 100 s",
    )


def test_a_clock_that_is_set_changes_nothing(make):
    bench = make()
    bench.start(0)
    bench.wall += 1e9
    assert bench.after(99)
    bench.wall -= 2e9
    assert not bench.after(2)


def test_a_restart_of_the_executor_gives_no_more_time(make):
    first = ExecutorTaskStepStatus(
        phase=ExecutorPhase.SUCCESS, start_time=datetime.fromtimestamp(1000.0, UTC), exit_code=0
    )
    bench = make(first, wall=1060.0)
    bench.start(1)
    assert bench.after(39)
    assert not bench.after(2)


def test_a_step_has_its_own_timeout(make):
    bench = make(step_timeout=10.0)
    bench.start(0)
    assert bench.after(9)
    assert not bench.after(2)
    assert bench.end().fail_error == "step 0 ran longer than its timeout of 10 s"
