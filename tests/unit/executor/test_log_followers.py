"""A follower of a quiet log sleeps until the kernel tells that it has grown, or its step has ended; its limit holds."""

import threading

import pytest
from msgspec.structs import replace

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
LIMIT = 1000


@pytest.mark.parametrize("told", [True, False])
def test_a_follower_of_a_quiet_log_is_woken_by_what_is_written_and_by_the_end(tmp_path, monkeypatch, told):
    """Without the kernel it looks by itself, and nobody would wake it."""
    monkeypatch.setattr(files, "_TOLD_SECONDS", 1000.0)
    if not told:
        monkeypatch.setattr(LogWatcher, "_start", lambda _: None)  # as where the system gives no thread
    gates = [tmp_path / "written", tmp_path / "ended"]
    waits = [f"while [ ! -e {gate} ]; do sleep 0.01; done" for gate in gates]
    steps = [RunStep(command=f"echo begun; {waits[0]}; echo written; {waits[1]}")]
    directories, watcher, pool = TaskDirectories(tmp_path / "tasks"), LogWatcher(), TaskPool(0)
    runner = _running(ExecutorTask(id="a", steps=steps), directories, watcher, pool)
    state = runner.state
    eventually_true(directories.of("a").log(0).exists)
    pieces, ended = _followed(TaskFiles(directories, pool, "e", LIMIT))
    for gate, before in zip(gates, (b"begun\n", b"begun\nwritten\n"), strict=True):
        eventually_true(lambda: b"".join(pieces) == before and (not told or _sleeps(state)))  # noqa: B023
        gate.touch()
    assert ended.wait(SECONDS)
    assert b"".join(pieces) == b"begun\nwritten\n"
    runner.join(SECONDS)
    watcher.close()
    pool.close()


@pytest.mark.parametrize("secrets", [[], ["hidden-secret"]], ids=["", "masked"])
def test_a_log_of_terabytes_is_read_to_its_limit(tmp_path, secrets):
    """A secret lies across the limit; what follows are holes."""
    gate = tmp_path / "ended"
    said = b"x" * (LIMIT - 6) + b"hidden-secret"
    (tmp_path / "said").write_bytes(said)
    directories, watcher, pool = TaskDirectories(tmp_path / "tasks"), LogWatcher(), TaskPool(0)
    huge = f"cat {tmp_path}/said; truncate -s 5T {directories.of('a').log(0)}"
    steps = [RunStep(command=f"{huge}; while [ ! -e {gate} ]; do sleep 0.01; done")]
    runner = _running(ExecutorTask(id="a", steps=steps, secrets=secrets), directories, watcher, pool)
    served = TaskFiles(directories, pool, "e", LIMIT)
    eventually_true(lambda: directories.of("a").log(0).exists() and served.log_size("a", 0) == LIMIT)
    eventually_true(lambda: directories.of("a").log_size(0) == 5 << 40)
    pieces, ended = _followed(served)
    shown = said[: LIMIT - 6] + (b"*" * 6 if secrets else b"hidden")
    eventually_true(lambda: b"".join(pieces) == shown)
    gate.touch()
    assert ended.wait(SECONDS)
    assert b"".join(pieces) == shown
    assert b"".join(served.open_log("a", 0, follow=False)) == shown
    assert b"".join(served.open_log("a", 0, follow=False, offset=LIMIT - 3)) == shown[-3:]
    assert not b"".join(served.open_log("a", 0, follow=False, offset=LIMIT + 1))
    runner.join(SECONDS)
    assert f"larger than {LIMIT} bytes" in runner.task.fail_error
    watcher.close()
    pool.close()


def _running(task, directories, watcher, pool):
    task = replace(task, status=ExecutorTaskStatus(executor_id="e", steps=[ExecutorTaskStepStatus()]))
    directory = directories.of(task.id)
    state = TaskState(task, directory, lambda _: None)
    runner = TaskRunner(state, directory, HostDriver(), None, pool.remove, TaskLimits(max_log_bytes=LIMIT), watcher)
    pool.add(runner)
    return runner


def _followed(served):
    """Return the pieces that a follower in a thread of its own has got so far, and what tells its end."""
    pieces, ended = [], threading.Event()

    def follow():
        pieces.extend(served.open_log("a", 0, follow=True))
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    return pieces, ended


def _sleeps(state):
    with state.condition:
        return bool(state._waiting)
