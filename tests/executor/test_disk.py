"""A disk that is full: the task fails and says why, and the executor lives. A directory that cannot be used."""

import contextlib
import errno
import os
import subprocess
import sys

import pytest
from msgspec.structs import replace

from agola_core.errors import UnavailableError
from agola_core.executor.tasks.directory import TaskDirectory
from agola_core.runservice.model.types import ExecutorPhase, RunResult, RunStep
from agola_core.standalone import Standalone
from tests.support.runs import request, task

SIZE = "12m"


@pytest.fixture
def small_disk(tmp_path):
    """Yield a directory on a disk of a few megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    options = f"size={SIZE},mode=755"
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this process may not mount a small disk")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def crowded(installation, small_disk):
    installation.start_service()
    installation.start_executor("--directory", small_disk, "--stop-tasks")
    return installation


def test_a_task_that_fills_the_disk_fails_and_says_why(crowded, make_task):
    run = crowded.finished(crowded.create(make_task("a", "yes >file", "echo never")))
    assert run["result"] == "failed"
    assert "disk was full" in run["tasks"]["a"]["reason"]
    assert crowded.executor.alive


def test_a_log_that_fills_the_disk_fails_its_task(crowded, make_task):
    run = crowded.finished(crowded.create(make_task("a", "yes", "echo never")))
    assert run["result"] == "failed"
    assert "disk was full" in run["tasks"]["a"]["reason"]
    assert crowded.executor.alive


@pytest.mark.parametrize("filler", ["yes >file", "yes", "mkdir d; yes >d/file; chmod 555 d"])
def test_the_task_behind_one_that_filled_the_disk_finds_room(crowded, make_task, filler):
    after = make_task("b", "head -c 4000000 /dev/zero >file; echo done")
    after["depends"] = {"a": {"task_id": "a", "conditions": ["on_failure"]}}
    run_id = crowded.create(make_task("a", filler), after)
    run = crowded.finished(run_id)
    assert [run["tasks"][name]["status"] for name in "ab"] == ["failed", "success"], run
    assert crowded.log(run_id, "b") == "done\n"
    if filler == "yes":
        log = crowded.log(run_id, "a")
        assert log.startswith("y\ny\n")
        assert log.endswith("y\n[the rest was cut: the executor's disk was full]\n")


def test_an_archive_that_fills_the_disk_fails_its_task(crowded, make_task):
    save = {"type": "save_to_workspace", "contents": [{"source_dir": ".", "paths": ["file"]}]}
    run = crowded.finished(crowded.create(make_task("a", "head -c 8000000 /dev/zero >file", save)))
    assert run["result"] == "failed"
    assert "No space left" in run["tasks"]["a"]["reason"]
    assert crowded.executor.alive


def test_what_comes_after_a_full_disk_runs_again(crowded, make_task, small_disk):
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    run = crowded.finished(crowded.create(make_task("a", "true")))
    assert run["result"] == "failed"
    assert crowded.executor.alive
    filler.unlink()
    assert crowded.finished(crowded.create(make_task("b", "true")))["result"] == "success"


def test_a_step_whose_start_cannot_be_written_down_is_not_started(tmp_path, monkeypatch):
    """A later executor would start it again."""
    save = TaskDirectory.save

    def full(self, state):
        if state.status.steps[0].phase is ExecutorPhase.RUNNING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, state)

    monkeypatch.setattr(TaskDirectory, "save", full)
    started = tmp_path / "started"
    with Standalone(tmp_path / "data") as standalone:
        run = standalone.service.create_run(
            request(replace(task("a"), steps=[RunStep(command=f"touch {started}")]))
        ).run
        while not run.phase.is_finished:
            run = standalone.service.wait_change(run, 60)
    assert run.result is RunResult.FAILED
    assert "step 0 was not started" in run.tasks["a"].reason
    assert not started.exists()


def test_a_run_whose_data_directory_stays_full_ends_with_the_reason(small_disk, tmp_path):
    """The step fills the disk through a file that outlives it, so that nothing of the run can be written down."""
    (tmp_path / "config.yml").write_text(
        f"runs: [{{name: r, tasks: [{{name: t, steps: [{{run: 'cat /dev/zero > {small_disk}/filler || true'}}]}}]}}]"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "agola_cli",
            "run",
            str(tmp_path / "config.yml"),
            "--data-dir",
            str(small_disk / "data"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr[-2000:]
    assert f"the disk of the data directory '{small_disk}/data' is full" in done.stderr
    left = subprocess.run(["pgrep", "-f", str(small_disk)], capture_output=True, text=True, check=False).stdout
    assert not left


def test_a_service_whose_executor_cannot_be_made_holds_nothing(tmp_path):
    broken = tmp_path / "data/executor/id"
    broken.mkdir(parents=True)
    with pytest.raises(UnavailableError, match="cannot be used"):
        Standalone(tmp_path / "data")
    broken.rmdir()
    with Standalone(tmp_path / "data") as standalone:  # while the error is still known, and what it refers to
        assert standalone.service.active_runs() == []
