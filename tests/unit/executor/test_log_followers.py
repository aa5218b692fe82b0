"""Who follows a quiet log sleeps until the kernel tells that it has grown, or its step has ended."""

import threading

import pytest

from agola_core.executor.drivers.host import HostDriver
from agola_core.executor.tasks import files
from agola_core.executor.tasks.directory import TaskDirectories
from agola_core.executor.tasks.files import TaskFiles
from agola_core.executor.tasks.log_watcher import LogWatcher
from agola_core.executor.tasks.pool import TaskPool
from agola_core.executor.tasks.runner import TaskLimits, TaskRunner
from agola_core.executor.tasks.state import TaskState
from agola_core.runservice.model.types import ExecutorTask, ExecutorTaskStatus, ExecutorTaskStepStatus, RunStep
from tests.support.etcd import eventually_true

SECONDS = 30.0


@pytest.mark.parametrize("told", [True, False])
def test_a_follower_of_a_quiet_log_is_woken_by_what_is_written_and_by_the_end(tmp_path, monkeypatch, told):
    """Without the kernel it looks by itself, and nobody would wake it."""
    monkeypatch.setattr(files, "_TOLD_SECONDS", 1000.0)
    if not told:
        monkeypatch.setattr(LogWatcher, "_start", lambda _: None)  # as where the system gives no thread
    gates = [tmp_path / "written", tmp_path / "ended"]
    waits = [f"while [ ! -e {gate} ]; do sleep 0.01; done" for gate in gates]
    steps = [RunStep(command=f"echo begun; {waits[0]}; echo written; {waits[1]}")]
    status = ExecutorTaskStatus(executor_id="e", steps=[ExecutorTaskStepStatus()])
    directories, watcher, pool = TaskDirectories(tmp_path / "tasks"), LogWatcher(), TaskPool(0)
    directory = directories.of("a")
    state = TaskState(ExecutorTask(id="a", steps=steps, status=status), directory, lambda _: None)
    runner = TaskRunner(state, directory, HostDriver(), None, pool.remove, TaskLimits(), watcher)
    pool.add(runner)
    eventually_true(directory.log(0).exists)
    pieces, ended = [], threading.Event()

    def follow():
        pieces.extend(TaskFiles(directories, pool, "e").open_log("a", 0, follow=True))
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    for gate, before in zip(gates, (b"begun\n", b"begun\nwritten\n"), strict=True):
        eventually_true(lambda: b"".join(pieces) == before and (not told or _sleeps(state)))  # noqa: B023
        gate.touch()
    assert ended.wait(SECONDS)
    assert b"".join(pieces) == b"begun\nwritten\n"
    runner.join(SECONDS)
    watcher.close()
    pool.close()


def _sleeps(state):
    with state.condition:
        return bool(state._waiting)
