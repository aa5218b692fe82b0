"""Control groups, if this process may create them: a process cannot leave one, whatever it forks or clears.

One hierarchy is enough, version 2 or any of version 1: only membership is used. The executor makes a step's shell a
member before the step begins, so a step that runs as another user needs no right of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from functools import cache
from pathlib import Path

from agola_core.runtime.processes.liveness import start_time

_MOUNT = Path("/sys/fs/cgroup")
_PREFERRED = ("", "pids", "freezer", "name=systemd")
_POLL_SECONDS = 0.01
_KILL_SECONDS = 10.0


class Cgroup:
    """One group of processes.

    Args:
        path: Its directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int) -> None:
        """Add a process, and all that it forks from then on.

        Raises:
            OSError: The group refuses it.
        """
        descriptor = os.open(
            self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC
        )  # where it is no group, none is made
        try:
            os.write(descriptor, str(pid).encode())
        finally:
            os.close(descriptor)

    def members(self) -> list[int]:
        """Return the processes of the group."""
        try:
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def kill(self) -> None:
        """Kill all members, including those forked meanwhile."""
        if not self.members():
            return
        deadline = time.monotonic() + _KILL_SECONDS
        with contextlib.suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")
        while self._kill_members() and time.monotonic() < deadline:
            threading.Event().wait(_POLL_SECONDS)

    def end(self) -> None:
        """Kill all members (see `kill`), and remove the group; harmless if it is gone."""
        if not self.remove():  # it has members
            self.kill()
            self.remove()

    def remove(self) -> bool:
        """Remove the group unless it has members; return whether it is gone."""
        try:
            os.rmdir(self.path)  # noqa: PTH106 - hot
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return True

    def _kill_members(self) -> bool:
        """Kill all members; return whether one of them was alive."""
        found = False
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                found = found or start_time(pid) is not None
        return found


def make_cgroup(name: str) -> Cgroup | None:
    """Return a group below this process's own, created if missing; None if it cannot be created."""
    parent = _own_directory()
    if parent is None:
        return None
    path = parent / f"agola-{name}"
    with contextlib.suppress(OSError):
        path.mkdir(exist_ok=True)
        return Cgroup(path)
    return None


@cache
def _own_directory() -> Path | None:
    """Return this process's group in a hierarchy where it may create groups and add processes to them."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    own = {controllers: path.lstrip("/") for _, controllers, path in (line.split(":", 2) for line in lines)}
    for controllers in _PREFERRED:
        if controllers not in own:
            continue
        mount = _MOUNT / controllers.removeprefix("name=") if controllers else _MOUNT
        directory = mount / own[controllers]
        probe = Cgroup(directory / f"agola-probe-{os.getpid()}")
        try:
            probe.path.mkdir()
            _try_join(probe)
        except (OSError, subprocess.SubprocessError):
            continue
        finally:
            probe.remove()
        return directory
    return None


def _try_join(group: Cgroup) -> None:
    """Add a process as steps are added: a group that can be created may still refuse members."""
    with subprocess.Popen(["/bin/sh", "-c", "read -r _"], stdin=subprocess.PIPE) as process:
        group.add(process.pid)
