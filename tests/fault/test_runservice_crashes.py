"""Several services and executors on one store, one of them really killed on its way: no task starts twice."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

import agola_core
from agola_core import Options
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.model.requests import RunCreateRequest, RunQuery
from agola_core.runservice.model.types import Depend, RunConfigTask, RunResult, RunStep, TaskStatus
from agola_core.runservice.service import RunService

SECONDS = 120.0
RUNS, MOST_RUNS, TASKS = 4, 20, 3
ITS_TURN = 3.0

# A service and a host executor in one process; says when it serves, and ends with its input.
WORKER = textwrap.dedent("""
    import sys
    from pathlib import Path
    import agola_core
    from agola_core.executor import Executor, ExecutorOptions
    from agola_core.executor.drivers.host import HostDriver
    from agola_core.maintenance import Gate
    from agola_core.runservice.inprocess import InProcessClient, InProcessDirectory
    from agola_core.runservice.archive.projection import DATA_TYPES
    from agola_core.runservice.service import RunService

    root, name = Path(sys.argv[1]), sys.argv[2]
    directory = InProcessDirectory()
    with agola_core.open(root / "store", data_types=DATA_TYPES) as dm:
        with RunService(dm, root / f"{name}.db", directory) as service:
            gate = Gate("closed")
            gate.open(service)
            options = ExecutorOptions(active_tasks_limit=2)
            with Executor(root / name, InProcessClient(gate), HostDriver(), options) as executor:
                directory.add(executor.id, executor)
                print("serving", flush=True)
                sys.stdin.read()
""")

POINTS = [
    "runservice.before-txn:3",
    "runservice.before-txn:9",
    "runservice.before-txn:14",
    "fetch.before-log:1",
    "references.before-write:2",
    "archive.before-wal:1",
]


class Worker:
    """A worker process, which may die at a fault point."""

    def __init__(self, root, name, point=""):
        environment = {**os.environ, **({"AGOLA_FAULTPOINT": point} if point else {})}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def wait_serving(self):
        assert self.process.stdout.readline() in {b"serving\n", b""}

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start_worker(tmp_path):
    workers = []

    def start(name, point=""):
        workers.append(Worker(tmp_path, name, point))
        return workers[-1]

    yield start
    for worker in workers:
        worker.end()


def chain(number, marks):
    tasks = {}
    for position in range(TASKS):
        name = f"r{number}-{position}"
        depends = {f"r{number}-{position - 1}": Depend(f"r{number}-{position - 1}")} if position else {}
        step = RunStep(command=f"echo {name} | tee -a {marks}")  # it leaves a log to fetch
        tasks[name] = RunConfigTask(id=name, name=name, depends=depends, steps=[step])
    return RunCreateRequest(run_config_tasks=tasks, name="r", group=f"/project/p/branch/{number}")


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_service_or_executor_starts_no_task_twice(tmp_path, start_worker, point):
    doomed = start_worker("a", point)
    healthy = start_worker("b")
    healthy.wait_serving()
    marks = tmp_path / "marks"
    with (
        agola_core.open(tmp_path / "store", data_types=DATA_TYPES, options=Options(background=False)) as dm,
        RunService(dm, tmp_path / "own.db", InProcessDirectory()) as service,
    ):
        made = [service.create_run(chain(number, marks)).run.id for number in range(RUNS)]
        while doomed.process.poll() is None and len(made) < MOST_RUNS:  # others may have been first with these
            with contextlib.suppress(subprocess.TimeoutExpired):
                doomed.process.wait(ITS_TURN)
                break
            made.append(service.create_run(chain(len(made), marks)).run.id)
        assert doomed.process.wait(SECONDS) == -signal.SIGKILL
        start_worker("a")
        assert service.wait_archived(made, SECONDS)
        runs = service.list_runs(RunQuery())
    assert sorted(run.id for run in runs) == made
    started = marks.read_text().split()
    assert len(started) == len(set(started)), "a task was started twice"
    for run in runs:
        # An executor that died between the start of a command and its note cannot know whether it ran: it says so.
        failed = [task for task in run.tasks.values() if task.status is TaskStatus.FAILED]
        assert all("the executor was restarted" in task.reason for task in failed)
        assert run.result is (RunResult.FAILED if failed else RunResult.SUCCESS)
        assert {task.id for task in run.tasks.values() if task.status is TaskStatus.SUCCESS} <= set(started)
