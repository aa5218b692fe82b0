"""What a driver is: it gives a task a place, and runs commands there.

The contract suite `tests/contract/test_drivers.py` runs on every driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agola_core.runservice.types import ExecutorTask


class StepProcess(Protocol):
    """A command that runs, or has run."""

    def wait(self) -> int:
        """Wait for its end and return its exit code; 128 + N when signal N ended it."""

    def kill(self) -> None:
        """End it and everything that it started; harmless when it has ended."""

    def describe(self) -> dict[str, str | int]:
        """Return what finds it again after a restart of the executor."""


class Place(Protocol):
    """Where one task's commands run, and its files lie.

    Attributes:
        home: The task's home directory, as its commands see it.
    """

    home: str

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        working_dir: str,
        user: str,
        output: Path,
        exit_file: Path,
    ) -> StepProcess:
        """Start a command; its output and errors go to one file, in order.

        Args:
            argv: The command.
            environment: All of its environment that the driver does not set itself.
            working_dir: As the commands see it; created when missing.
            user: Who runs it; "" for the driver's choice.
            output: Appended to.
            exit_file: Gets the exit code, also when the executor has gone meanwhile.

        Raises:
            ConfigError: The user does not exist, or may not be switched to.
            UnavailableError: It cannot be started.
        """

    def local_path(self, path: str) -> Path:
        """Return where a path, as the commands see it, lies for the executor."""

    def close(self) -> None:
        """End what still runs and remove the place."""


class Driver(Protocol):
    """Gives tasks their places.

    Attributes:
        archs: The architectures that it runs, by Go's names.
    """

    archs: list[str]

    def open_place(self, task: ExecutorTask, directory: Path) -> Place:
        """Return the place of a task, made new unless it is there.

        Args:
            task: The task.
            directory: The task's own directory on the executor.
        """

    def find_process(self, description: Mapping[str, str | int], exit_file: Path) -> StepProcess | None:
        """Return a command that an earlier executor started, also when it has ended since.

        Returns:
            None when nothing can be known of it: it neither runs nor left an exit code.
        """
