"""What an executor keeps of a task: found again whole, whatever an earlier executor was killed in the midst of."""

import pytest
from msgspec.structs import replace

from agola_core.errors import BadRequestError
from agola_core.executor.taskdir import RunningProcess, TaskDirectories
from agola_core.runservice.types import ExecutorPhase, ExecutorTask, ExecutorTaskStatus

TASK = ExecutorTask(id="a", environment={"SECRET": "x"}, status=ExecutorTaskStatus(executor_id="e"))


def with_phase(phase, **fields):
    return replace(TASK, status=replace(TASK.status, phase=phase), **fields)


@pytest.fixture
def directories(tmp_path):
    return TaskDirectories(tmp_path / "tasks")


def test_a_kill_at_any_byte_leaves_the_state_before_or_after(directories):
    directory = directories.of("a")
    directory.create()
    file = directory.path / "task.jsonl"
    sizes, states = [0], [(None, None)]
    for step in (
        lambda: directory.save(TASK),
        lambda: directory.save(with_phase(ExecutorPhase.RUNNING)),
        lambda: directory.save_process(RunningProcess(0, {"pid": 7})),
        lambda: directory.save(with_phase(ExecutorPhase.FAILED, fail_error="why")),
    ):
        step()
        sizes.append(file.stat().st_size)
        states.append((directories.of("a").load(), directories.of("a").load_process()))
    assert states[-1] == (with_phase(ExecutorPhase.FAILED, fail_error="why"), RunningProcess(0, {"pid": 7}))
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        again = directories.of("a")
        found = again.load(), again.load_process()
        written = sum(size <= length for size in sizes)
        assert found in states[written - 1 : written + 1]
        again.save(with_phase(ExecutorPhase.STOPPED))  # the next executor goes on behind what was torn
        assert directories.of("a").load() == with_phase(ExecutorPhase.STOPPED)


def test_what_is_removed_is_gone_at_once_and_deleted_by_a_sweep(directories, tmp_path):
    for _ in range(2):
        directory = directories.of("a")
        directory.create()
        directory.save(TASK)
        (directory.path / "home").mkdir()
        directories.remove(directory)
        assert directories.of("a").load() is None
        assert list(directories) == []
    directories.remove(directories.of("never"))
    directories.sweep()
    assert list((tmp_path / "tasks" / ".removed").iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", ".removed", "a/b", "a\0b", "x" * 256])
def test_no_task_leaves_the_root(directories, name):
    with pytest.raises(BadRequestError):
        directories.of(name)
