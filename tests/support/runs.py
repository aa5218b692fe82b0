"""Runs for tests of the run service, and executors that the tests play."""

import threading

from msgspec.structs import replace

from agola_core.runservice.model.line_times import LineClock
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import (
    Depend,
    Executor,
    ExecutorPhase,
    ExecutorTaskStepStatus,
    RunConfigTask,
    RunStep,
)

SECONDS = 20.0
WRITTEN = 1_700_000_000_042
"""When the logs of a played executor were written, in milliseconds since 1970."""


class PlayedExecutor:
    """An executor whose tasks do what the test says. Its logs are the names of what they are of, and have times."""

    def __init__(self, service, directory, name="e1", **fields):
        self.id = name
        self.side = service.executor_side
        self.fields = {"archs": ["amd64"], **fields}
        self.submitted = []
        self.arrived = threading.Condition()
        directory.add(name, self)
        self.report()

    def report(self):
        self.side.take_executor_status(Executor(id=self.id, **self.fields))

    def submit(self, task):
        with self.arrived:
            self.submitted.append(task)
            self.arrived.notify_all()

    def open_log(self, task_id, step, *, follow, offset=0):
        yield f"log {step} of {task_id}".encode()[offset:]

    def open_times(self, task_id, step, *, offset=0):
        size = len(f"log {step} of {task_id}")
        yield LineClock().take(size, WRITTEN)[offset:]

    def open_archive(self, task_id, step, *, offset=0):
        yield f"archive {step} of {task_id}".encode()[offset:]

    def wait_task(self, task_id):
        with self.arrived:
            assert self.arrived.wait_for(lambda: any(t.id == task_id for t in self.submitted), SECONDS)
        return self.side.task(task_id)

    def end(self, task_id, phase=ExecutorPhase.SUCCESS, **fields):
        task = self.wait_task(task_id)
        steps = [ExecutorTaskStepStatus(phase=phase) for _ in task.steps]
        status = replace(task.status, phase=phase, steps=steps, setup_step=ExecutorTaskStepStatus(phase=phase))
        self.side.take_task_status(self.id, replace(task, status=status, **fields))


def task(name, *depends, **fields):
    return RunConfigTask(
        id=name,
        name=name,
        depends={other: Depend(task_id=other) for other in depends},
        steps=[RunStep(command="true")],
        **fields,
    )


def request(*tasks, group="/project/p/branch/main", **fields):
    return RunCreateRequest(run_config_tasks={item.id: item for item in tasks}, name="r", group=group, **fields)


def settled(service, run_id, wanted):
    """Return the run once a condition holds."""
    run = service.find_run(run_id)
    while not wanted(run):
        changed = service.wait_change(run, SECONDS)
        assert changed != run, f"nothing happens any more: {run}"
        run = changed
    return run


def archived(service, run_id):
    assert service.wait_archived([run_id], SECONDS)
    return service.find_run(run_id)
