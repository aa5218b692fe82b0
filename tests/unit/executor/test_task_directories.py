"""What an executor keeps of a task: found again whole, whatever an earlier executor was killed in the midst of."""

import functools
import os
import subprocess
import threading

import pytest
from msgspec.structs import replace

from agola_core import private
from agola_core.errors import BadRequestError, ConflictError
from agola_core.executor import Executor
from agola_core.executor.drivers.host import HostDriver
from agola_core.executor.tasks.directory import RunningProcess, TaskDirectories
from agola_core.runservice.model.types import ExecutorPhase, ExecutorTask, ExecutorTaskStatus

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


def test_the_place_is_cleared_and_what_others_need_stays(directories):
    directory = directories.of("a")
    directory.create()
    directory.save(TASK)
    directory.append_log(0, "x" * 50)
    directory.append_log(0, "y" * 50)
    (directory.path / "home").mkdir()
    (directory.path / "home" / "file").write_text("large")
    (directory.path / "command-0").write_text("echo")
    directory.clear()
    directory.cut_logs(80)
    assert sorted(path.name for path in directory.path.iterdir()) == ["steps", "task.jsonl"]
    assert directory.log(0).read_text() == "x" * 50 + "\n[the rest was cut: the executor's disk was full]\n"
    assert directories.of("a").load() == TASK


@pytest.mark.parametrize(("secret", "log"), [("hunter22", "x" * 76 + "hunter22"), ("abab", "x" * 76 + "abababab")])
def test_a_log_that_is_cut_ends_in_no_part_of_a_secret(directories, secret, log):
    directory = directories.of("a")
    directory.create()
    directory.save(replace(TASK, secrets=[secret]))
    directory.append_log(0, log + "y" * 50)
    directory.cut_logs(80)
    assert directory.log(0).read_text() == "x" * 76 + "[the rest was cut: the executor's disk was full]\n"


def test_a_tree_that_its_owner_made_read_only_is_deleted(directories, tmp_path, monkeypatch):
    """For root nothing is read-only, so where root runs the tests somebody else deletes."""
    directory = directories.of("a")
    inner = directory.path / "home" / "cache"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    inner.chmod(0o555)
    directories.remove(directory)
    if os.geteuid() == 0:
        for path in (tmp_path / "tasks", *(tmp_path / "tasks").rglob("*")):
            os.chown(path, 65534, 65534)
        for path in tmp_path.parents:
            path.chmod(path.stat().st_mode | 0o011)
        tmp_path.chmod(0o711)
        run = functools.partial(subprocess.run, user=65534, group=65534, extra_groups=[])
        monkeypatch.setattr(subprocess, "run", run)
    directories.sweep()
    assert list((tmp_path / "tasks" / ".removed").iterdir()) == []


def test_a_directory_is_one_process_s_at_a_time(tmp_path):
    held = private.lock_directory(tmp_path, "directory")
    with pytest.raises(ConflictError, match=f"the directory '{tmp_path}' is in use by process {os.getpid()}$"):
        private.lock_directory(tmp_path, "directory")
    held.close()
    private.lock_directory(tmp_path, "directory").close()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        private.lock_directory(tmp_path, "directory")
    assert not (tmp_path / "elsewhere").exists()


def test_a_task_that_came_again_since_it_was_seen_keeps_its_directory(tmp_path):
    executor = Executor(tmp_path, None, HostDriver())
    directory = executor.directory_of("a")
    directory.create()
    seen = executor._reconciler._here()
    executor._directories.remove(directory)
    again = executor.directory_of("a")
    again.create()
    executor._reconciler._forget_unknown(seen, [])  # the service forgot the first, not this one
    assert again.path.exists()
    executor._reconciler._forget_unknown(executor._reconciler._here(), ["a"])
    assert again.path.exists()
    executor._reconciler._forget_unknown(executor._reconciler._here(), [])
    assert not again.path.exists()
    executor.close()


def wait_for_end(executor):
    for runner in executor._pool.all():
        runner.join(30.0)


def test_a_task_told_and_found_at_the_same_time_is_taken_once(tmp_path, monkeypatch):
    """The second taker must not move away the directory in which the first one has begun the task."""
    executor = Executor(tmp_path, None, HostDriver())
    remove = TaskDirectories.remove
    second = threading.Thread(target=executor.submit, args=(TASK,))
    removed = []

    def removing(directories, directory):
        if not removed:
            removed.append(directory.inode())
            second.start()
            if not executor._reconciler._taking.locked():  # nothing holds it up: it takes the task, and begins it
                second.join()
                wait_for_end(executor)
        else:
            removed.append(directory.inode())
        remove(directories, directory)

    monkeypatch.setattr(TaskDirectories, "remove", removing)
    executor.submit(TASK)
    second.join()
    wait_for_end(executor)
    assert executor.directory_of("a").load().status.phase is ExecutorPhase.SUCCESS
    assert removed == [0]
    executor.close(stop_tasks=False)
