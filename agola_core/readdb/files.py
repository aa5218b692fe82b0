"""The files of a readdb: each build makes a new file, and a link names the one in use.

The path that the user gave is a symbolic link to the file of the newest build. A new build replaces the link by one
rename, so whoever opens the path finds either the old file or the new one, and whoever has the old one open keeps
using it. SQLite names its side files after the file, never after the link.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from agola_core import private
from agola_core.address import check_directory
from agola_core.errors import BadRequestError, disk_error
from agola_core.runtime.clock import boot_id
from agola_core.runtime.processes.liveness import is_running, start_time

_SQLITE = b"SQLite format 3\0"
_HEAD_BYTES = 1 << 16
_SIDES = ("", "-wal", "-shm", "-journal")


class ReadDBFiles:
    """The files of one readdb.

    Args:
        path: The link; its directory is created when missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_directory(path, "readdb").absolute()
        self._made = re.compile(re.escape(self.path.name) + r"\.(\d+)-(?:(\d+)-)?[0-9a-f]{8}(?:-wal|-shm|-journal)?")
        try:
            private.make_directories(self.path.parent)
        except OSError as error:
            raise disk_error(error, str(self.path.parent)) from error
        self._check_ours()

    def exists(self) -> bool:
        """Return whether there is a file to open."""
        return self.path.exists()

    def new(self) -> Path:
        """Create an empty file named after this process, and return its path; delete leftovers of dead processes."""
        for entry in self.path.parent.iterdir():
            match = self._made.fullmatch(entry.name)
            if match and not self._in_use(entry, int(match[1]), int(match[2] or 0)):
                entry.unlink(missing_ok=True)
        pid = os.getpid()
        file = self.path.with_name(f"{self.path.name}.{pid}-{start_time(pid) or 0}-{uuid.uuid4().hex[:8]}")
        try:
            private.create_file(file)
        except OSError as error:
            raise disk_error(error, str(file)) from error
        return file

    def publish(self, file: Path) -> None:
        """Point the link to a new file, and delete the old one."""
        old = self.path.resolve() if self.path.exists() else None
        link = file.with_name(f"{file.name}-link")
        link.symlink_to(file.name)
        link.replace(self.path)
        if old is not None and old != self.path:
            discard(old)
        for side in _SIDES[1:]:  # of a file that stood at the path itself
            self.path.with_name(self.path.name + side).unlink(missing_ok=True)

    def _check_ours(self) -> None:
        """Refuse a path where something else stands: a build would take its place.

        Raises:
            BadRequestError: It is no readdb.
        """
        if self.path.is_symlink():
            ours = self._made.fullmatch(self.path.readlink().name) is not None
        elif self.path.is_file():
            with self.path.open("rb") as file:
                beginning = file.read(_HEAD_BYTES)
            ours = not beginning or (beginning.startswith(_SQLITE) and b"readdb_position" in beginning)
        else:
            ours = not self.path.exists()
        if not ours:
            raise BadRequestError(f"{self.path} is no readdb: name a path where nothing is yet, or delete it")

    def _in_use(self, entry: Path, pid: int, start: int) -> bool:
        current = self.path.resolve() if self.path.is_symlink() else None
        if current is not None and entry.name.startswith(current.name):
            return True
        return is_running(pid, start)


def discard(file: Path) -> None:
    """Delete a file with its side files; processes that have it open can keep using it."""
    for side in _SIDES:
        file.with_name(file.name + side).unlink(missing_ok=True)


def this_boot() -> str:
    """Return an id of this boot of the machine."""
    return boot_id()
