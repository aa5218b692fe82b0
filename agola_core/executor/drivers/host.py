"""The host driver: steps are processes of this machine, each task in a private directory.

Every command runs in a session of its own under a small shell that writes down its exit code, with its output
going straight to a file: it goes on when the executor dies, and is found again by the next one. The images of
containers are not used. Nothing here confines a command: run what you trust.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agola_core.errors import ConfigError, UnavailableError
from agola_core.runservice.types import ExecutorTask

_WRAPPER = 'f=$1; shift; "$@"; c=$?; echo "$c" >"$f"; exit "$c"'
_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.02
_MARKER = "AGOLA_TASK_MARKER"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHS = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv7l": "arm"}


def host_arch() -> str:
    """Return this machine's architecture by its Go name."""
    return _ARCHS.get(platform.machine(), platform.machine())


class HostProcess:
    """A command in a session of its own (see `port.StepProcess`)."""

    def __init__(
        self, pid: int, start: int, marker: str, exit_file: Path, child: subprocess.Popen[bytes] | None
    ) -> None:
        self._pid = pid
        self._start = start
        self._marker = marker
        self._exit_file = exit_file
        self._child = child
        self._ended = threading.Event()

    def wait(self) -> int:
        """Wait for the command's end (see the port)."""
        if self._child is not None:
            code = self._child.wait()
        else:
            _wait_for_stranger(self._pid, self._start)
            code = -signal.SIGKILL
        self._ended.set()
        written = read_exit_code(self._exit_file)
        if written is not None:
            return written
        return 128 - code if code < 0 else code

    def kill(self) -> None:
        """End the command's whole session and whatever else bears its mark (see the port)."""
        if self._signal(signal.SIGTERM):
            deadline = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < deadline and self._signal(0):
                self._ended.wait(_POLL_SECONDS)
            self._signal(signal.SIGKILL)

    def describe(self) -> dict[str, str | int]:
        """Return what finds the command again (see the port)."""
        return {"pid": self._pid, "start": self._start, "marker": self._marker}

    def _signal(self, number: int) -> bool:
        """Send a signal to all that is left of the command; return whether there was anything."""
        found = False
        for pid in _marked(self._marker, self._pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
                found = True
        return found


class HostPlace:
    """A task's private directory (see `port.Place`)."""

    def __init__(self, task: ExecutorTask, directory: Path, path: str) -> None:
        self._task = task
        self._directory = directory
        self._path = path
        self._temporary = directory / "tmp"
        self.home = str(directory / "home")
        Path(self.home).mkdir(parents=True, exist_ok=True)
        self._temporary.mkdir(exist_ok=True)

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        working_dir: str,
        user: str,
        output: Path,
        exit_file: Path,
    ) -> HostProcess:
        """Start a command (see the port)."""
        account = _account(user)
        marker = f"{self._task.id}-{self._task.attempt}"
        full = {
            "PATH": self._path,
            "LANG": "C.UTF-8",
            "TMPDIR": str(self._temporary),
            "USER": account.pw_name if account else _own_name(),
            "SHELL": "/bin/sh",
            "CI": "true",
            **environment,
            "HOME": self.home,
            _MARKER: marker,
        }
        try:
            Path(working_dir).mkdir(parents=True, exist_ok=True)
            with output.open("ab") as log:
                child = subprocess.Popen(
                    ["/bin/sh", "-c", _WRAPPER, "agola-step", str(exit_file), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=working_dir,
                    env=full,
                    start_new_session=True,
                    user=account.pw_uid if account else None,
                    group=account.pw_gid if account else None,
                )
        except (OSError, ValueError) as error:
            raise UnavailableError(f"the step could not be started: {error}") from error
        return HostProcess(child.pid, _start_time(child.pid) or 0, marker, exit_file, child)

    def local_path(self, path: str) -> Path:
        """Return the path as it is: commands and executor see the same files."""
        return Path(path)

    def close(self) -> None:
        """End what still bears the task's mark (see the port); its directory belongs to the executor."""
        for pid in _marked(f"{self._task.id}-{self._task.attempt}", 0):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


class HostDriver:
    """Runs steps as processes of this machine (see `port.Driver`).

    Args:
        path: The commands' PATH; None for this process's own.
    """

    def __init__(self, path: str | None = None) -> None:
        self.archs = [host_arch()]
        self._path = path or os.environ.get("PATH") or _DEFAULT_PATH

    def open_place(self, task: ExecutorTask, directory: Path) -> HostPlace:
        """Return the place of a task (see the port)."""
        return HostPlace(task, directory, self._path)

    def find_process(self, description: Mapping[str, str | int], exit_file: Path) -> HostProcess | None:
        """Return a command that an earlier executor started (see the port)."""
        pid, start = int(description["pid"]), int(description["start"])
        if _start_time(pid) != start and read_exit_code(exit_file) is None:
            return None
        return HostProcess(pid, start, str(description["marker"]), exit_file, None)


def read_exit_code(path: Path) -> int | None:
    """Return the exit code that a command's shell wrote down; None when it did not, or not whole."""
    try:
        text = path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return int(text) if text.endswith("\n") and text.strip().isdigit() else None


def _wait_for_stranger(pid: int, start: int) -> None:
    """Wait for the end of a process that is no child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _start_time(pid) == start:
            select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def _start_time(pid: int) -> int | None:
    """Return when a process was started, in ticks since boot: with the pid it names one process for ever."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _marked(marker: str, leader: int) -> list[int]:
    """Return the processes of a command: those of its session, and those with its mark in their environment."""
    wanted = f"{_MARKER}={marker}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - many short names, hot when a task is stopped
        if not name.isdigit():
            continue
        pid = int(name)
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                fields = file.read().rpartition(b")")[2].split()
            if fields[0] == b"Z":
                continue
            if leader and int(fields[3]) == leader:
                found.append(pid)
                continue
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                if wanted in file.read().split(b"\0"):
                    found.append(pid)
        except (OSError, IndexError):
            continue
    return found


def _account(user: str) -> pwd.struct_passwd | None:
    """Return who a step is to run as; None for whoever runs the executor."""
    if not user or user == _own_name():
        return None
    try:
        account = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError as error:
        raise ConfigError(f"user {user!r} does not exist on this machine") from error
    if os.geteuid() != 0 and account.pw_uid != os.geteuid():
        raise ConfigError(f"only root can run a step as user {user!r}")
    return account


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
