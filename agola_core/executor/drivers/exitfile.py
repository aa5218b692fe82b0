"""The file in which a command's shell writes its exit code, so that it outlives the executor that started it."""

from __future__ import annotations

from pathlib import Path

from agola_core.executor.files import read_own

_MAX_BYTES = 16


def read_exit_code(path: Path) -> int | None:
    """Return the exit code that a command's shell wrote down; None when it did not, or not whole."""
    text = read_own(path, _MAX_BYTES).decode(errors="replace")
    return int(text) if text.endswith("\n") and text.strip().isdecimal() else None


class EndedProcess:
    """A command of which nothing is left but its exit code (see `port.StepProcess`)."""

    def __init__(self, code: int) -> None:
        self._code = code

    def wait(self) -> int:
        """Return the exit code."""
        return self._code

    def kill(self) -> None:
        """Do nothing: it has ended, and what it left behind ends with its place."""

    def describe(self) -> dict[str, str | int]:
        """Return nothing: there is no process to find."""
        return {}
