"""A shell where a failed step ran: in its directory, with its environment, as its user. Host driver only."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import msgspec

from agola_core.errors import NotFoundError
from agola_core.executor.drivers.host import HostDriver, script_file
from agola_core.executor.paths import working_directory
from agola_core.executor.tasks.directory import TaskDirectory
from agola_core.runservice.model.types import ExecutorPhase, ExecutorTask, RunStep

_SHELL = "/bin/sh"
_TERMINAL = ("TERM", "COLORTERM", "NO_COLOR")


class FailedStep(msgspec.Struct, frozen=True):
    """A step that failed, and whose files are still there.

    Attributes:
        number: From 0.
        working_dir: Where it ran.
        script: The file with its command; "" for a step that has none.
    """

    number: int
    working_dir: str
    script: str
    _shell: str
    _user: str
    _environment: dict[str, str]
    _task: ExecutorTask
    _directory: TaskDirectory

    def open_shell(self, driver: HostDriver, terminal: Mapping[str, str]) -> int:
        """Run a shell on this process's standard streams, and return its exit code.

        What it leaves running is killed.

        Args:
            driver: Ran the step.
            terminal: This process's environment, for what describes its terminal.

        Raises:
            UnavailableError: It cannot be started.
        """
        described = {name: terminal[name] for name in _TERMINAL if name in terminal}
        pod = driver.open_pod(self._task, self._directory.path, lambda _: None)
        try:
            return pod.interact([self._shell], {**described, **self._environment}, self.working_dir, self._user)
        finally:
            pod.close()


def failed_step(directory: TaskDirectory, driver: HostDriver) -> FailedStep:
    """Return the step that failed a task.

    Args:
        directory: The task's.
        driver: Ran it.

    Raises:
        NotFoundError: The task did not run here, none of its steps failed, or its files are gone.
    """
    task = directory.load()
    phases = [step.phase for step in task.status.steps] if task else []
    if task is None or ExecutorPhase.FAILED not in phases:
        raise NotFoundError("no step of the task failed here")
    number = phases.index(ExecutorPhase.FAILED)
    step = task.steps[number]
    command = step if isinstance(step, RunStep) else None
    user = (command.user if command else "") or task.user
    environment = {**task.environment, **(command.environment if command else {})}
    pod = driver.open_pod(task, directory.path, lambda _: None)
    try:
        found = pod.variables(user)
    finally:
        pod.close()
    script = script_file(directory.path, directory.exit_file(number))
    return FailedStep(
        number,
        working_directory((command.working_dir if command else "") or task.working_dir, found, environment),
        str(script) if script.exists() else "",
        _interactive((command.shell if command else "") or task.shell),
        user,
        environment,
        task,
        directory,
    )


def _interactive(shell: str) -> str:
    """Return the program of a step's shell without its options: with -e the first failure would end it."""
    program = next(iter(shlex.split(shell)), _SHELL)
    return program if program.endswith("sh") else _SHELL
