"""A task's own directory on its executor: its state, logs, archives, and the place of its commands.

::

    TASKS/TASK-ID/task.json          the task with its status, as last reported or to be reported
                  process.json       the step that runs and what finds its process again
                  exit/N             the exit code of step N, written by its shell
                  logs/setup.log  logs/steps/N.log
                  archives/N.tar
                  commands/N         the script of step N
                  home/  tmp/        the place of a host task's commands
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agola_core.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError
from agola_core.executor.files import open_own
from agola_core.runservice.types import ExecutorTask

_decode_task = msgspec.json.Decoder(ExecutorTask).decode


class RunningProcess(msgspec.Struct, frozen=True):
    """The step that runs, and what its driver finds its process by."""

    step: int
    description: dict[str, str | int]


class TaskDirectory:
    """One task's directory.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the directory and those inside it; others may pass through to what is theirs, and list nothing."""
        self.path.mkdir(0o711, parents=True, exist_ok=True)
        for name in ("logs", "logs/steps", "archives", "exit"):
            (self.path / name).mkdir(0o711, exist_ok=True)

    def log(self, step: int | None) -> Path:
        """Return the path of a step's log, or of the set-up's for None."""
        return self.path / "logs/setup.log" if step is None else self.path / f"logs/steps/{step}.log"

    def append_log(self, step: int | None, text: str) -> None:
        """Add a line to a step's log.

        Raises:
            OSError: It cannot be written, or something else lies there.
        """
        descriptor = open_own(self.log(step), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(descriptor, f"{text}\n".encode(errors="surrogateescape"))
        finally:
            os.close(descriptor)

    def log_size(self, step: int) -> int:
        """Return how large a step's log is; 0 when there is none."""
        try:
            return self.log(step).lstat().st_size
        except OSError:
            return 0

    def archive(self, step: int) -> Path:
        """Return the path of a step's archive."""
        return self.path / f"archives/{step}.tar"

    def exit_file(self, step: int) -> Path:
        """Return the path of a step's exit code."""
        return self.path / f"exit/{step}"

    def save(self, task: ExecutorTask) -> None:
        """Write the task down, whole or not at all."""
        _replace(self.path / "task.json", msgspec.json.encode(task))

    def load(self) -> ExecutorTask | None:
        """Return the task as it was written down; None when it was not."""
        try:
            return _decode_task((self.path / "task.json").read_bytes())
        except (FileNotFoundError, *DECODE_ERRORS):
            return None

    def save_process(self, process: RunningProcess) -> None:
        """Write down which step runs."""
        _replace(self.path / "process.json", msgspec.json.encode(process))

    def load_process(self) -> RunningProcess | None:
        """Return which step was running; None when none was."""
        try:
            return msgspec.json.decode((self.path / "process.json").read_bytes(), type=RunningProcess)
        except (FileNotFoundError, *DECODE_ERRORS):
            return None

    def forget_process(self) -> None:
        """Note that no step runs."""
        (self.path / "process.json").unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the directory with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def task_directory(root: Path, task_id: str) -> TaskDirectory:
    """Return the directory of a task.

    Raises:
        BadRequestError: The id would leave the root.
    """
    if not task_id or "/" in task_id or "\0" in task_id or task_id in {".", ".."} or len(task_id.encode()) > 255:
        raise BadRequestError(f"malformed task id {task_id[:80]!r}")
    return TaskDirectory(root / task_id)


def list_task_directories(root: Path) -> Iterator[TaskDirectory]:
    """Yield the directories of all tasks."""
    for path in sorted(root.iterdir()):
        if path.is_dir():
            yield TaskDirectory(path)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)  # it holds secrets
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, path)  # noqa: PTH105 - hot: once a step
