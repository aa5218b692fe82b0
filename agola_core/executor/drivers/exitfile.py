"""The file in which a command's shell records that the command begins, and its exit code; it outlives the executor.

The first line is there before the command is, so a command that has run is never taken for one that has not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agola_core.encoding.numerals import whole_number
from agola_core.executor.files import read_own

BEGUN: Final = "begun"
_MAX_BYTES = 64
_MAX_CODE = 255


def has_begun(path: Path) -> bool:
    """Return whether a command has begun, however it ended."""
    return bool(_lines(path))


def read_exit_code(path: Path) -> int | None:
    """Return the exit code that a command's shell has written; None if it is missing, incomplete or none.

    The command may write to the file itself: what is no exit code must not reach the run service.
    """
    lines = _lines(path)
    code = whole_number(lines[-1]) if lines else None
    return code if code is None or code <= _MAX_CODE else None


def _lines(path: Path) -> list[str]:
    """Return the complete lines."""
    return read_own(path, _MAX_BYTES).decode(errors="replace").split("\n")[:-1]
