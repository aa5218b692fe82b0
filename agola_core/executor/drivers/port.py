"""The driver port: a driver creates a task's environment, runs commands in it, and moves files in and out.

The contract suite `tests/contract/test_drivers.py` runs on every driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agola_core.runservice.model.types import ArchiveContents, ExecutorTask


class StepProcess(Protocol):
    """A command that runs, or has run."""

    def wait(self) -> int | None:
        """Wait for its end and return its exit code.

        Returns:
            128 + N when signal N ended it; None when it was killed in a way that left no exit code.
        """

    def kill(self) -> None:
        """End it and everything that it started, after some time to end by itself; harmless when it has ended."""

    def kill_now(self) -> None:
        """End it and everything that it started, at once; harmless when it has ended."""


class Place(Protocol):
    """Where one task's commands run, and its files lie. Paths are those that its commands see."""

    def variables(self, user: str) -> Mapping[str, str]:
        """Return what a user's commands find in their environment before the task's own; `HOME` is among it.

        Raises:
            ConfigError: The user does not exist, or may not be switched to.
        """

    def start(
        self,
        argv: Sequence[str],
        script: str,
        *,
        environment: Mapping[str, str],
        working_dir: str,
        user: str,
        output: Path,
        exit_file: Path,
        note: Callable[[Mapping[str, str | int]], None] = ...,
    ) -> StepProcess:
        """Start a command; its output and errors go to one file, in order.

        Args:
            argv: The command.
            script: Written to an executable file, whose path becomes the last argument; "" for none.
            environment: The task's own.
            working_dir: Absolute; created when missing.
            user: Who runs it; "" for the driver's choice.
            output: Appended to; on the executor.
            exit_file: Gets the exit code, also when the executor has gone meanwhile; on the executor.
            note: Called with what finds the command again after a restart of the executor (see
                `Driver.find_process`), before the command begins; what it raises stops the start.

        Raises:
            ConfigError: The user does not exist, or may not be switched to.
            UnavailableError: It cannot be started.
        """

    def read(self, path: str, user: str) -> Iterator[bytes]:
        """Yield a file.

        Raises:
            NotFoundError: It is missing, or may not be read.
        """

    def pack(self, target: Path, contents: Iterable[ArchiveContents], working_dir: str, user: str) -> int:
        """Write a tar archive of files of the place and return how many entries it holds.

        Args:
            target: The archive; on the executor.
            contents: Which files.
            working_dir: Where relative source directories start.
            user: Who reads them.

        Raises:
            BadRequestError: A source directory is missing, or a path is malformed.
        """

    def unpack(self, pieces: Iterable[bytes], directory: str, user: str, *, overwrite: bool) -> int:
        """Unpack an archive that nobody vouches for, and return how many entries it had.

        Args:
            pieces: A tar, plain or zstd.
            directory: Created when missing.
            user: Who owns what is written.
            overwrite: Whether a file that is there is replaced, or left as it is.

        Raises:
            BadRequestError: The archive is damaged, or does what is not allowed.
        """

    def close(self) -> None:
        """End what still runs and remove the place."""


class Driver(Protocol):
    """Gives tasks their places.

    Attributes:
        archs: The architectures that it runs, by Go's names.
        allow_privileged: Whether it runs privileged containers.
    """

    archs: list[str]
    allow_privileged: bool

    def open_place(self, task: ExecutorTask, directory: Path, log: Callable[[str], None]) -> Place:
        """Return the place of a task, made new unless it is there.

        Args:
            task: The task; one whose set-up has succeeded finds its place again.
            directory: The task's own directory on the executor.
            log: Takes lines for the log of the set-up.

        Raises:
            AgolaError: It cannot be made, or is gone; the message says why.
        """

    def find_process(self, description: Mapping[str, str | int], exit_file: Path) -> StepProcess | None:
        """Return a command that an earlier executor noted, also when it has ended since.

        Returns:
            None when it has not begun, and will not: it may be started.
        """

    def clean(self, executor_id: str, is_known: Callable[[str], bool]) -> None:
        """Remove what tasks of this executor have left.

        Args:
            executor_id: The executor.
            is_known: Tells by its id whether a task still needs its place; asked after what is there was listed.
        """
