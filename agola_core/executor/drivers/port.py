"""The driver port: a driver creates a task's pod, runs commands in it, and moves files in and out.

The contract suite `tests/contract/test_drivers.py` runs on every driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from agola_core.runservice.model.types import ArchiveContents, ExecutorTask
from agola_core.runtime.lazy import LazyModule

if TYPE_CHECKING:
    from agola_core.executor.archives import pack as pack_module
else:
    pack_module = LazyModule("agola_core.executor.archives.pack")

Note = Callable[[Mapping[str, str | int]], None]
"""Takes a description that finds a command again after a restart of the executor (see `Driver.find_process`)."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command of a step.

    Attributes:
        argv: The program and its arguments.
        script: Written to an executable file, whose path becomes the last argument; "" for none.
        environment: The task's own variables.
        working_dir: Absolute; created if missing.
        user: The user to run it; "" for the driver's choice.
        output: Appended to; on the executor.
        exit_file: Gets the exit code, even if the executor has gone meanwhile; on the executor.
    """

    argv: Sequence[str]
    script: str
    environment: Mapping[str, str]
    working_dir: str
    user: str
    output: Path
    exit_file: Path


class StepProcess(Protocol):
    """A command that is running or has run."""

    def wait(self) -> int | None:
        """Wait for the command to end and return its exit code.

        Returns:
            128 + N if signal N ended it; None if it was killed without leaving an exit code.
        """

    def kill(self) -> None:
        """Kill it and everything that it started, after a grace period; harmless if it has ended."""

    def kill_now(self) -> None:
        """End it and everything that it started, at once; harmless when it has ended."""


class Pod(Protocol):
    """The environment of one task, with its commands and files. Paths are those that commands see."""

    def variables(self, user: str) -> Mapping[str, str]:
        """Return a user's environment, which the task's own overrides; it includes `HOME`.

        Raises:
            ConfigError: The user does not exist, or may not be switched to.
        """

    def start(self, command: Command, note: Note = ...) -> StepProcess:
        """Start a command; its output and errors go to one file, in order.

        Args:
            command: The command.
            note: Called before the command begins; if it raises, the command is not started.

        Raises:
            ConfigError: The user does not exist, or may not be switched to.
            UnavailableError: It cannot be started.
        """

    def read(self, path: str, user: str) -> Iterator[bytes]:
        """Yield a file.

        Raises:
            NotFoundError: It is missing, or may not be read.
        """

    def pack(
        self, target: Path, contents: Iterable[ArchiveContents], working_dir: str, user: str
    ) -> pack_module.Packed:
        """Write a tar archive of files of the pod.

        Args:
            target: The archive; on the executor.
            contents: Which files.
            working_dir: Where relative source directories start.
            user: Who reads them.

        Raises:
            BadRequestError: A source directory is missing, or a path is malformed.
        """

    def unpack(self, pieces: Iterable[bytes], directory: str, user: str, *, overwrite: bool) -> int:
        """Unpack an untrusted archive, and return how many entries it had.

        Args:
            pieces: A tar, plain or zstd.
            directory: Created when missing.
            user: Who owns what is written.
            overwrite: Whether existing files are replaced.

        Raises:
            BadRequestError: The archive is damaged, or has a forbidden member.
        """

    def close(self) -> None:
        """Kill what still runs and remove the pod."""


class Driver(Protocol):
    """Creates the pods of tasks.

    Attributes:
        archs: The architectures that it runs, by Go's names.
        allow_privileged: Whether it runs privileged containers.
    """

    archs: list[str]
    allow_privileged: bool

    def open_pod(self, task: ExecutorTask, directory: Path, log: Callable[[str], None]) -> Pod:
        """Return the pod of a task, created if it does not exist.

        Args:
            task: The task; one whose set-up has succeeded finds its pod again.
            directory: The task's own directory on the executor.
            log: Takes lines for the log of the set-up.

        Raises:
            AgolaError: It cannot be created, or is gone; the message says why.
        """

    def find_process(self, description: Mapping[str, str | int], exit_file: Path) -> StepProcess | None:
        """Return a command that an earlier executor started, even if it has ended since.

        Returns:
            None if it has not begun, and never will: it can be started.
        """

    def clean(self, executor_id: str, is_known: Callable[[str], bool]) -> None:
        """Remove leftovers of this executor's tasks.

        Args:
            executor_id: The executor.
            is_known: Returns whether the task of an id still needs its pod; called after existing ones were listed.
        """
