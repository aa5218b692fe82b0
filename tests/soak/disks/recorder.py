"""Records what a process asks of the disk below a directory, in order: Python's calls and those of SQLite.

Each call becomes a record that `disk.Disk.apply` takes. It is told once it was made, and before the next is.
"""

from __future__ import annotations

import base64
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import apsw

from tests.soak.trial import Say

_DIRECTORY_SYNCED_FLAGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
"""SQLite syncs the directory of such a file when it first syncs the file, if it has made it."""


class Recorder:
    """Tells the calls of this process.

    Args:
        root: The directory; paths are told below it.
        say: Is told `["call", [...]]`.
        last: The number of the call after which the process kills itself; 0 for none.
    """

    def __init__(self, root: Path, say: Say, last: int = 0) -> None:
        self._root = f"{root}/"
        self._say = say
        self._last = last
        self._count = 0
        self._files: dict[int, str] = {}
        self.lock = threading.RLock()

    def below(self, path: Any) -> str | None:
        """Return a path below the root; None for another one."""
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return text[len(self._root) :] if f"{text}/".startswith(self._root) else None

    def note(self, *call: Any) -> None:
        """Tell a call that was made; the caller holds `lock`."""
        self._say(["call", call])
        self._count += 1
        if self._count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record while the block runs; database connections opened in it go on recording."""
        vfs = _VFS(self)
        with ExitStack() as stack:
            for name in ("open", "close", "write", "fsync"):
                stack.enter_context(patch.object(os, name, getattr(self, f"_{name}")(getattr(os, name))))
            for name in ("mkdir", "rmdir", "unlink", "rename", "link"):
                stack.enter_context(patch.object(os, name, self._named(name, getattr(os, name))))
            yield
        vfs.unregister()

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            with self.lock:
                below = self.below(path)
                created = below is not None and flags & os.O_CREAT and not Path(path).exists()
                descriptor = real(path, flags, mode, dir_fd=dir_fd)
                if below is not None:
                    self._files[descriptor] = below
                    if created:
                        self.note("create", below)
                return descriptor

        return call

    def _close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            with self.lock:
                self._files.pop(descriptor, None)
                real(descriptor)

        return call

    def _write(self, real: Callable[[int, Any], int]) -> Callable[[int, Any], int]:
        def call(descriptor: int, data: Any) -> int:
            below = self._files.get(descriptor)
            if below is None:
                return real(descriptor, data)
            with self.lock:
                offset = os.lseek(descriptor, 0, os.SEEK_CUR)
                written = real(descriptor, data)
                self.note("write", below, offset, _text(bytes(data)[:written]))
                return written

        return call

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            with self.lock:
                real(descriptor)
                below = self._files.get(descriptor)
                if below is not None and os.fstat(descriptor).st_nlink:
                    self.note("sync", below)

        return call

    def _named(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            with self.lock:
                real(*arguments, **options)
                paths = [below for path in arguments if (below := self.below(path)) is not None]
                if paths:
                    self.note(name, *paths)

        return call


class _VFS(apsw.VFS):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._base = apsw.vfs_names()[0]
        super().__init__("recording", self._base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _DatabaseFile(self._recorder, self._base, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        recorder = self._recorder
        with recorder.lock:
            super().xDelete(filename, syncdir)
            below = recorder.below(filename)
            if below is not None:
                recorder.note("unlink", below)
                if syncdir:
                    recorder.note("sync", str(Path(below).parent))


class _DatabaseFile(apsw.VFSFile):
    def __init__(self, recorder: Recorder, base: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._recorder = recorder
        self._below = recorder.below(path)
        with recorder.lock:
            created = path is not None and not Path(path).exists()
            super().__init__(base, name, flags)  # type: ignore[arg-type] - None is a temporary file
            self._sync_directory = created and bool(flags[0] & _DIRECTORY_SYNCED_FLAGS)
            if created and self._below is not None:
                recorder.note("create", self._below)

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._recorder.lock:
            super().xWrite(data, offset)
            if self._below is not None:
                self._recorder.note("write", self._below, offset, _text(bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self._recorder.lock:
            super().xTruncate(newsize)
            if self._below is not None:
                self._recorder.note("truncate", self._below, newsize)

    def xSync(self, flags: int) -> None:
        with self._recorder.lock:
            super().xSync(flags)
            if self._below is None:
                return
            self._recorder.note("sync", self._below)
            if self._sync_directory:
                self._sync_directory = False
                self._recorder.note("sync", str(Path(self._below).parent))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
