"""Logs and archives that an executor opened are read to their end, also when they are removed meanwhile."""

import shutil
import threading
from types import SimpleNamespace

import pytest

from agola_core.errors import NotFoundError
from agola_core.executor import Executor
from agola_core.executor.drivers.host import HostDriver
from agola_core.executor.tasks.directory import TaskDirectories
from agola_core.runservice.model.types import ExecutorPhase, ExecutorTask, ExecutorTaskStatus, ExecutorTaskStepStatus


@pytest.fixture
def executor(tmp_path):
    made = Executor(tmp_path, None, HostDriver())
    yield made
    made._lock_file.close()


@pytest.mark.parametrize("kind", ["log", "archive"])
def test_what_was_opened_is_whole_and_what_is_gone_is_not_empty(executor, tmp_path, kind):
    directory = TaskDirectories(tmp_path / "tasks").of("a")
    directory.create()
    directory.save(ExecutorTask(id="a"))
    path = directory.log(0) if kind == "log" else directory.archive(0)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"0123456789")

    def opened(offset=0):
        if kind == "log":
            return executor.open_log("a", 0, follow=False, offset=offset)
        return executor.open_archive("a", 0, offset=offset)

    first, second = opened(), opened(4)
    shutil.rmtree(directory.path)
    assert (b"".join(first), b"".join(second)) == (b"0123456789", b"456789")
    with pytest.raises(NotFoundError, match="'a' step 0"):
        opened()


@pytest.mark.parametrize(
    ("phase", "shown"), [(ExecutorPhase.RUNNING, b"so *****"), (ExecutorPhase.SUCCESS, b"so corre")]
)
def test_half_a_secret_is_not_shown_of_a_step_that_runs(executor, tmp_path, phase, shown):
    status = ExecutorTaskStatus(phase=ExecutorPhase.RUNNING, steps=[ExecutorTaskStepStatus(phase=phase)])
    task = ExecutorTask(id="a", secrets=["correct horse"], status=status, steps=[None])
    directory = TaskDirectories(tmp_path / "tasks").of("a")
    directory.create()
    directory.save(task)
    directory.log(0).parent.mkdir(exist_ok=True)
    directory.log(0).write_bytes(b"so corre")
    executor._pool._runners["a"] = SimpleNamespace(
        task=task, state=SimpleNamespace(condition=threading.Condition(), growths=0)
    )
    assert b"".join(executor.open_log("a", 0, follow=False)) == shown
