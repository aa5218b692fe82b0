"""A disk whose calls fail below a directory: Python's calls, and those of SQLite."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import apsw

_CALLS = ("open", "write", "fsync", "mkdir", "rmdir", "unlink", "rename", "link", "scandir", "pread")


class FailingDisk:
    """Lets calls of this process fail.

    Args:
        root: Only what concerns files below it fails.

    Attributes:
        failed: How many calls have failed.
    """

    def __init__(self, root: Path) -> None:
        self._root = f"{root}/"
        self._lock = threading.Lock()
        self._number = 0
        self._at = 0
        self._lasting = False
        self._left = 0
        self.failed = 0

    def fail(self, number: int, at: int, *, lasting: bool) -> None:
        """Let the call `at`, counted from now, fail with an errno; all from it on when it is lasting."""
        with self._lock:
            self._number, self._left, self._lasting, self._at = number, at, lasting, at

    def heal(self) -> None:
        """Let nothing fail any more."""
        with self._lock:
            self._at = 0

    def due(self) -> int:
        """Count a call, and return the errno with which it is to fail; 0 for none."""
        with self._lock:
            if not self._at:
                return 0
            self._left -= 1
            if self._left == 0 or (self._left < 0 and self._lasting):
                self.failed += 1
                return self._number
            return 0

    def concerns(self, file: Any) -> bool:
        """Return whether a path or a descriptor is one of a file below the root."""
        try:
            path = str(Path(f"/proc/self/fd/{file}").readlink()) if isinstance(file, int) else os.fsdecode(file)
        except (OSError, TypeError):
            return False
        return path.startswith(self._root)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand between this process and the disk while the block runs."""
        vfs = _VFS(self)
        with ExitStack() as stack:
            for name in _CALLS:
                stack.enter_context(patch.object(os, name, self._wrapped(getattr(os, name))))
            yield
        vfs.unregister()

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if arguments and self.concerns(arguments[0]) and (number := self.due()):
                if real.__name__ == "write" and number == errno.ENOSPC and len(arguments[1]) > 1:
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])  # the disk fills up in mid-write
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        return call


class _VFS(apsw.VFS):
    def __init__(self, disk: FailingDisk) -> None:
        self._disk = disk
        self._base = apsw.vfs_names()[0]
        super().__init__("failing", self._base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _DatabaseFile(self._disk, self._base, name, flags)


class _DatabaseFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, base: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._pass(apsw.CantOpenError)
        super().__init__(base, name, flags)  # type: ignore[arg-type] - None is a temporary file

    def xRead(self, amount: int, offset: int) -> bytes:
        self._pass(apsw.IOError)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._pass(apsw.IOError)
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._pass(apsw.IOError)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._pass(apsw.IOError)
        super().xSync(flags)

    def _pass(self, error: type[apsw.Error]) -> None:
        number = self._disk.due()
        if number:
            raise (apsw.FullError if number == errno.ENOSPC else error)(f"injected: {os.strerror(number)}")
