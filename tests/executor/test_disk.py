"""A disk that is full: the task fails and says why, and the executor lives."""

import contextlib
import os
import subprocess

import pytest

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
