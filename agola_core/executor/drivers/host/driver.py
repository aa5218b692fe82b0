"""The host driver: steps are processes of this machine, each task in a private directory.

Container images are not used. Without isolation nothing confines a command: run only what you trust.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from agola_core.executor.drivers.archs import go_arch
from agola_core.executor.drivers.host.bubblewrap import Isolation, check_bubblewrap
from agola_core.executor.drivers.host.pod import HostPod
from agola_core.executor.drivers.host.process import HostProcess, end_marked, find_host_process
from agola_core.runservice.model.types import ExecutorTask

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HostDriver:
    """Runs steps as processes of this machine (see `port.Driver`).

    Args:
        path: The commands' PATH; None for this process's own.
        isolation: The isolation of commands.
        network: Whether isolated commands share the machine's network; otherwise they have none.

    Raises:
        ConfigError: The isolation does not work on this machine.
    """

    def __init__(
        self, path: str | None = None, isolation: Isolation = Isolation.NONE, *, network: bool = False
    ) -> None:
        self.archs = [go_arch(platform.machine())]
        self.allow_privileged = False
        self._path = path or os.environ.get("PATH") or _DEFAULT_PATH
        self._isolation = isolation
        self._network = network
        self._closed: deque[str] = deque()
        if isolation is Isolation.BUBBLEWRAP:
            check_bubblewrap(network=network)

    def open_pod(self, task: ExecutorTask, directory: Path, log: Callable[[str], None]) -> HostPod:  # noqa: ARG002
        """Return the pod of a task (see the port)."""
        return HostPod(task, directory, self._path, self._isolation, self._network, self._closed.append)

    def find_process(self, description: Mapping[str, str | int], exit_file: Path) -> HostProcess | None:
        """Return a command that an earlier executor started (see the port)."""
        return find_host_process(description, exit_file)

    def clean(self, executor_id: str, is_known: Callable[[str], bool]) -> None:  # noqa: ARG002
        """Kill processes of ended tasks that left their control groups, as `su` does (see the port).

        All processes are searched once for all these tasks: at the end of each task it would cost more than the task.
        """
        end_marked({self._closed.popleft() for _ in range(len(self._closed))})
