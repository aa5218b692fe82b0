"""A task's directory on its executor: its state, logs, archives, and the files of its commands.

::

    TASKS/TASK-ID/task.jsonl         the task, then a line for each change of its status and for each process
                  setup.log  setup.times   once the set-up has more to say than its first line (see `first_line`)
                  steps/N.log        the log of step N
                  steps/N.times      when it grew
                  steps/N.exit       its exit code, written by its shell
                  archives/N.tar     what it saved
                  home/  tmp/  ...   the files of its pod, as its driver makes them
          .removed/                  what is being deleted

Creating and deleting files is most of the cost of a short task, so there are few of them, and they are appended to, not
replaced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from agola_core import private
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError
from agola_core.executor.files import open_own
from agola_core.executor.masking import patterns_of, without_begun
from agola_core.runservice.model.types import ExecutorTask, ExecutorTaskStatus

logger = logging.getLogger(__name__)

PASSED_THROUGH: Final = 0o711
"""The mode of directories above a task's: its user may pass through, but not list them."""

_REMOVED: Final = ".removed"
_AT_ONCE = 1000
_FULL_BYTES = 1 << 20
_SHORT_SHARE = 0.1
_CUT_BYTES = 1 << 20
_KEPT: Final = frozenset(("task.jsonl", "setup.log", "setup.times", "steps", "archives"))
_CUT: Final = b"[the rest was cut: the executor's disk was full]\n"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class RunningProcess(msgspec.Struct, frozen=True):
    """The running step, and the description by which its driver finds its process."""

    step: int
    description: dict[str, str | int]


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `task.jsonl`: what has changed."""

    task: ExecutorTask | None = None
    status: ExecutorTaskStatus | None = None
    setup_error: str = ""
    fail_error: str = ""
    process: RunningProcess | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


def first_line(task: ExecutorTask) -> bytes:
    """Return the first line of a set-up's log, mostly its only one: there is no file for it alone."""
    return f"executor starts task {task.task_name!r}\n".encode(errors="surrogateescape")


class TaskDirectory:
    """One task's directory.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = f"{path}/task.jsonl"
        self._descriptor = -1
        self._holds_task = False

    def create(self) -> None:
        """Create the directories; other users may pass through, but not list them."""
        try:
            os.mkdir(self.path, PASSED_THROUGH)  # noqa: PTH102 - as below: short tasks are mostly this
        except OSError:
            self.path.mkdir(PASSED_THROUGH, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{self.path}/steps", PASSED_THROUGH)  # noqa: PTH102

    def inode(self) -> int:
        """Return the directory's inode; 0 when there is none."""
        try:
            return os.stat(self.path, follow_symlinks=False).st_ino  # noqa: PTH116
        except OSError:
            return 0

    def log(self, step: int | None) -> Path:
        """Return the path of a step's log, or of the set-up's for None."""
        return self.path / ("setup.log" if step is None else f"steps/{step}.log")

    def times(self, step: int | None) -> Path:
        """Return the path of the times of a log's lines."""
        return self.log(step).with_suffix(".times")

    def append_log(self, step: int | None, text: str, first: bytes = b"") -> None:
        """Add a line to a step's log.

        Args:
            step: The step's number; None for the set-up.
            text: The line.
            first: What a log begins with that has no file yet.

        Raises:
            OSError: It cannot be written, or the path is not a directory of this task.
        """
        descriptor = open_own(self.log(step), _APPEND)
        try:
            begin = b"" if os.fstat(descriptor).st_size else first
            os.write(descriptor, begin + f"{text}\n".encode(errors="surrogateescape"))
        finally:
            os.close(descriptor)

    def log_size(self, step: int) -> int:
        """Return the size of a step's log in bytes; 0 without one."""
        try:
            return os.stat(f"{self.path}/steps/{step}.log", follow_symlinks=False).st_size  # noqa: PTH116
        except OSError:
            return 0

    def archive(self, step: int) -> Path:
        """Return the path of a step's archive."""
        return self.path / f"archives/{step}.tar"

    def exit_file(self, step: int) -> Path:
        """Return the path of a step's exit code."""
        return self.path / f"steps/{step}.exit"

    def clear(self) -> None:
        """Delete the files of the pod; state, logs and archives stay."""
        with contextlib.suppress(OSError):
            _delete(self.path, [name for name in os.listdir(self.path) if name not in _KEPT])  # noqa: PTH208

    def cut_logs(self, keep: int) -> None:
        """Truncate logs to their first bytes, at the end of a line if there is one, with a note.

        No part of a secret is left at the end, where nothing would hide it.
        """
        task = self.load()
        patterns = patterns_of(task.secrets) if task is not None else ()
        for path in (self.path / "steps").glob("*.log"):
            with contextlib.suppress(OSError):
                descriptor = open_own(path, os.O_RDWR)
                try:
                    if os.fstat(descriptor).st_size > keep:
                        data = os.pread(descriptor, keep, 0)
                        end = data.rfind(b"\n") + 1 or without_begun(data, patterns)
                        os.ftruncate(descriptor, end)
                        os.pwrite(descriptor, _CUT, end)
                finally:
                    os.close(descriptor)

    def free_space(self) -> None:
        """If the disk is nearly full, delete at once what an ended task no longer needs."""
        try:
            found = os.statvfs(self.path)
        except OSError:
            return
        if found.f_bavail < max(_SHORT_SHARE * found.f_blocks, _FULL_BYTES / (found.f_frsize or 1)):
            self.clear()
            if self.disk_is_full():
                self.cut_logs(_CUT_BYTES)

    def disk_is_full(self) -> bool:
        """Return whether the executor's disk is full."""
        try:
            found = os.statvfs(self.path)
        except OSError:
            return False
        return found.f_bavail * found.f_frsize < _FULL_BYTES

    def save(self, task: ExecutorTask) -> None:
        """Save the task with its status; if it is interrupted, the previous status remains."""
        if self._holds_task:
            self._append(_Line(status=task.status, setup_error=task.setup_error, fail_error=task.fail_error))
        else:
            self._append(_Line(task=task))
            self._holds_task = True

    def save_process(self, process: RunningProcess) -> None:
        """Save which step runs."""
        self._append(_Line(process=process))

    def load(self) -> ExecutorTask | None:
        """Return the saved task; None without one."""
        task = None
        for line in self._lines():
            if line.task is not None:
                task = line.task
            elif line.status is not None and task is not None:
                task = replace(task, status=line.status, setup_error=line.setup_error, fail_error=line.fail_error)
        self._holds_task = task is not None
        return task

    def load_process(self) -> RunningProcess | None:
        """Return the process started last; None without one."""
        return next((line.process for line in reversed(self._lines()) if line.process is not None), None)

    def _append(self, line: _Line) -> None:
        # A newline comes first: it ends a line that an earlier process was killed while writing.
        data = memoryview(b"\n" + _encode(line))
        if self._descriptor < 0:
            self._descriptor = os.open(self._state, _APPEND, 0o600)  # it holds secrets
        while data:
            data = data[os.write(self._descriptor, data) :]

    def release(self) -> None:
        """Close the file of the state until the next change: a task that waits for its command holds no file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _lines(self) -> list[_Line]:
        try:
            descriptor = os.open(self._state, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123
            data = file.readall()
        lines = []
        for text in data.split(b"\n"):
            try:
                lines.append(_decode(text))
            except DECODE_ERRORS:
                continue  # nothing, or less than a line
        return lines


class TaskDirectories:
    """The directories of all tasks.

    Args:
        root: Where they lie; made when missing.
    """

    def __init__(self, root: Path) -> None:
        private.make_directories(root, PASSED_THROUGH)
        self._root = root
        self._removed = root / _REMOVED
        private.make_directories(self._removed)
        self._told: set[str] = set()

    def of(self, task_id: str) -> TaskDirectory:
        """Return the directory of a task.

        Raises:
            BadRequestError: The id would leave the root.
        """
        if not task_id or "/" in task_id or "\0" in task_id or len(task_id.encode()) > 255:
            raise BadRequestError(f"malformed task id {task_id[:80]!r}")
        if task_id in {".", "..", _REMOVED}:
            raise BadRequestError(f"malformed task id {task_id!r}")
        return TaskDirectory(self._root / task_id)

    def __iter__(self) -> Iterator[TaskDirectory]:
        """Yield the directories of all tasks except those that another user, such as root, has run."""
        for name in sorted(os.listdir(self._root)):  # noqa: PTH208 - plain names of many
            path = self._root / name
            if name == _REMOVED or not path.is_dir():
                continue
            if os.access(path, os.R_OK | os.W_OK | os.X_OK):
                yield TaskDirectory(path)
            elif name not in self._told and path.is_dir():
                self._told.add(name)
                logger.warning("the task in %s was run by another user: it is left as it is", path)

    def inodes(self) -> dict[str, int]:
        """Return the ids of all tasks that have a directory (see `__iter__`), each with its inode."""
        return {directory.path.name: directory.inode() for directory in self}

    def remove(self, directory: TaskDirectory) -> None:
        """Move a task's directory away at once; `sweep` deletes it."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(directory.path, f"{self._removed}/{uuid.uuid4().hex}")  # noqa: PTH104

    def sweep(self) -> None:
        """Delete removed directories in a process of its own: tasks leave many files."""
        names = os.listdir(self._removed)  # noqa: PTH208 - plain names of many
        for start in range(0, len(names), _AT_ONCE):
            _delete(self._removed, names[start : start + _AT_ONCE])


def _delete(root: Path, names: list[str]) -> None:
    """Delete trees below a directory, including read-only directories."""
    paths = [f"./{name}" for name in names]
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        done = subprocess.run([*command, *paths], cwd=root, stderr=subprocess.DEVNULL, check=False) if paths else None
        if command[0] == "rm" and (done is None or not done.returncode):
            return
