"""Ends a run if the disk of its data directory stays full, because nothing about the run can be stored any more."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from agola_cli.runs.interruption import Interruption
from agola_core.errors import OutOfSpaceError

_LEAST_BYTES = 16 * 1024
_PATIENCE_SECONDS = 10.0
_UNAVAILABLE = 3


class DiskCheck:
    """Called regularly while a run is running.

    A task that fills the disk fails, and its files go: the disk may be full for a moment.

    Args:
        directory: The data directory.
        interruption: Ends the process when it hangs.
    """

    def __init__(self, directory: Path, interruption: Interruption) -> None:
        self._directory = directory
        self._interruption = interruption
        self._full_since: float | None = None

    def __call__(self) -> None:
        """Look at the disk.

        Raises:
            OutOfSpaceError: It has been full for ten seconds.
        """
        if shutil.disk_usage(self._directory).free >= _LEAST_BYTES:
            self._full_since = None
            return
        now = time.monotonic()
        self._full_since = self._full_since or now
        if now - self._full_since > _PATIENCE_SECONDS:
            reason = f"the disk of the data directory {str(self._directory)!r} is full: the run was given up"
            self._interruption.give_up(reason, _UNAVAILABLE)
            raise OutOfSpaceError(reason)
