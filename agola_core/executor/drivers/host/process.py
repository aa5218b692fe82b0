"""A command of the host driver: waits for it, finds it after a restart, and kills it with everything it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from agola_core.executor.drivers.exitfile import has_begun, read_exit_code
from agola_core.executor.drivers.host.cgroup import Cgroup
from agola_core.executor.drivers.host.process_table import ProcessTable
from agola_core.runtime.processes.liveness import start_time

LAUNCHER = "AGOLA_TASK_LAUNCHER"
"""In the environment of a sandbox's launcher: it ends with the command, and gets no SIGTERM before."""

_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.02
_TABLE = ProcessTable()


class HostProcess:
    """A command in a session of its own (see `port.StepProcess`).

    Args:
        pid: The process id of its shell, the session leader.
        start: When the shell started, in ticks since boot.
        marker: The task's marker.
        exit_file: The file to which the shell writes that the command begins, and its exit code.
        cgroup: The task's control group, if any.
        child: The shell, if it is a child of this process.
    """

    def __init__(
        self,
        pid: int,
        start: int,
        marker: str,
        exit_file: Path,
        cgroup: Cgroup | None,
        child: subprocess.Popen[bytes] | None,
    ) -> None:
        self._pid = pid
        self._start = start
        self._marker = marker
        self._exit_file = exit_file
        self._cgroup = cgroup
        self._child = child
        self._killing = threading.Lock()

    def wait(self) -> int | None:
        """Wait for the command's end (see the port)."""
        code = None
        if self._child is not None:
            code = self._child.wait()
        else:
            _wait_for_stranger(self._pid, self._start)
        with self._killing:  # what else was asked to end has its time for it, too
            pass
        written = read_exit_code(self._exit_file)
        if written is None and code is not None and code >= 0 and has_begun(self._exit_file):
            return code  # it could not be written: the disk is full
        return written

    def kill(self) -> None:
        """Kill everything of the task (see the port), first with SIGTERM."""
        with self._killing:
            deadline = time.monotonic() + _GRACE_SECONDS
            left = self._ask_to_end()
            while left and _wait_for_ends(left, deadline):
                left = list(self._left())
            end_task(self._marker, self._cgroup, self._pid)

    def kill_now(self) -> None:
        """Kill everything of the task at once (see the port), even during the grace period of `kill`."""
        end_task(self._marker, self._cgroup, self._pid)

    def describe(self) -> dict[str, str | int]:
        """Return the description by which `find_host_process` finds the command."""
        cgroup = str(self._cgroup.path) if self._cgroup else ""
        return {"pid": self._pid, "start": self._start, "marker": self._marker, "cgroup": cgroup, "begins": "noted"}

    def _ask_to_end(self) -> list[int]:
        """Send SIGTERM to all that is left of the command, and return it."""
        left = list(self._left())  # at once: what the first ones start to clean up with is left alone
        for pid in left:
            if not _is_launcher(pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGTERM)
        return left

    def _left(self) -> Iterator[int]:
        members = self._cgroup.members() if self._cgroup else []
        yield from (pid for pid in members if start_time(pid) is not None)
        yield from (pid for pid in _marked(self._marker, self._pid) if pid not in members)


def find_host_process(description: Mapping[str, str | int], exit_file: Path) -> HostProcess | None:
    """Return a command that an earlier executor started (see `port.Driver.find_process`).

    Its shell has begun the command if the earlier executor could tell it to, and has ended otherwise.
    """
    pid, start = int(description["pid"]), int(description["start"])
    known = "begins" in description  # older versions began a command first and noted it then
    while known and not has_begun(exit_file):
        if start_time(pid) != start:
            if has_begun(exit_file):
                break
            return None
        time.sleep(_POLL_SECONDS)
    cgroup = Cgroup(Path(str(description["cgroup"]))) if description.get("cgroup") else None
    return HostProcess(pid, start, str(description["marker"]), exit_file, cgroup, None)


def end_task(marker: str, cgroup: Cgroup | None, leader: int = 0) -> None:
    """Kill what still runs of a task: members of its control group and session, and processes with its marker."""
    if cgroup is not None:
        cgroup.kill()
    for _ in range(5):  # what is forked while it is looked for is found the next time
        if not _kill_marked(marker, leader):
            return


def end_marked(markers: Collection[str]) -> None:
    """Kill what still runs of tasks, by their markers alone."""
    if markers:
        for marker in {process.marker for process in _TABLE.look()} & set(markers):
            end_task(marker, None)


def _wait_for_stranger(pid: int, start: int) -> None:
    """Wait for the end of a process that is not a child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if start_time(pid) == start:
            select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def _wait_for_ends(pids: Collection[int], deadline: float) -> bool:
    """Wait until processes have ended; return whether there is time left.

    Only then the caller looks through all processes of the machine again: of hundreds of tasks that are stopped at
    once each would do so all the time.
    """
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        except OSError:  # too many open files
            time.sleep(_POLL_SECONDS)
            continue
        try:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(descriptor)
    return time.monotonic() < deadline


def _is_launcher(pid: int) -> bool:
    prefix = f"{LAUNCHER}=".encode()
    try:
        return any(entry.startswith(prefix) for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return False


def _kill_marked(marker: str, leader: int) -> bool:
    found = False
    for pid in _marked(marker, leader):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            found = True
    return found


def _marked(marker: str, leader: int) -> list[int]:
    """Return the processes of a command: those of its session, and those with its marker in their environment."""
    return [
        process.pid
        for process in _TABLE.look()
        if (marker and process.marker == marker) or (leader and process.session == leader)
    ]
