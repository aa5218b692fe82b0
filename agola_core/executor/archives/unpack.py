"""Unpacks untrusted archives: nothing is written outside the target, whatever the archive says.

Python's own "data" filter has been bypassed more than once, so every path is walked by directory descriptors
that follow no links; links may point anywhere, and nothing is written through them; devices are refused and set-user
bits dropped; size, count, depth and ratio have limits. Long runs of zeros become holes, so that sparse files come back
sparse.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from agola_core.errors import BadRequestError
from agola_core.tar_stream import Limits, Member, kept_mode, read_members, shown, split_name

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLE = bytes(64 * 1024)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(pieces: Iterable[bytes], target: Path, *, overwrite: bool, limits: Limits | None = None) -> int:
    """Unpack a tar, plain or zstd, below a directory, and return how many members it had.

    Args:
        pieces: The archive.
        target: The directory; created when missing.
        overwrite: Whether existing files are replaced.
        limits: What is accepted.

    Raises:
        BadRequestError: The archive is damaged, or has a forbidden member, which is named.
    """
    target.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return unpack_into(pieces, descriptor, overwrite=overwrite, limits=limits)
    finally:
        os.close(descriptor)


def unpack_into(pieces: Iterable[bytes], root: int, *, overwrite: bool, limits: Limits | None = None) -> int:
    """Unpack below an open directory (see `unpack`).

    Args:
        pieces: The archive.
        root: The directory's descriptor; stays open.
        overwrite: Whether existing files are replaced.
        limits: What is accepted.
    """
    unpacker = _Unpacker(root, overwrite=overwrite, limits=limits or Limits())
    count = 0
    for member in read_members(pieces, limits):
        unpacker.take(member)
        count += 1
    unpacker.finish()
    return count


class _Unpacker:
    def __init__(self, root: int, *, overwrite: bool, limits: Limits) -> None:
        self._root = root
        self._overwrite = overwrite
        self._limits = limits
        self._directories: dict[tuple[str, ...], tuple[int, float]] = {}

    def take(self, member: Member) -> None:
        info, parts = member.info, member.parts
        if info.isdir():
            with self._directory(parts, info.name):
                self._directories[tuple(parts)] = kept_mode(info.mode, is_directory=True), member.mtime
            return
        with self._directory(parts[:-1], info.name) as directory:
            if not self._clear(directory, parts[-1], info.name):
                return
            if info.isreg():
                self._write(member, directory, parts[-1])
            elif info.issym():
                os.symlink(info.linkname, parts[-1], dir_fd=directory)
                os.utime(parts[-1], (member.mtime, member.mtime), dir_fd=directory, follow_symlinks=False)
            else:
                self._link(member, directory, parts[-1])

    def finish(self) -> None:
        """Set the modes and times of directories, deepest first, since writing into a directory changes its time."""
        for parts, (mode, mtime) in sorted(self._directories.items(), key=lambda item: -len(item[0])):
            if not parts:
                continue  # the target itself is not the archive's
            with self._directory(list(parts), "/".join(parts)) as directory:
                os.fchmod(directory, mode)
                os.utime(directory, (mtime, mtime))

    @contextlib.contextmanager
    def _directory(self, parts: list[str], name: str) -> Iterator[int]:
        """Open a directory below the root, created if missing, without following links."""
        descriptor = os.dup(self._root)
        try:
            for number, part in enumerate(parts):
                try:
                    self._make_directory(part, descriptor)
                except PermissionError:
                    self._make_writable(descriptor, tuple(parts[:number]))
                    self._make_directory(part, descriptor)
                try:
                    inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
                except NotADirectoryError as error:
                    raise BadRequestError(f"member {shown(name)} is below something that is no directory") from error
                os.close(descriptor)
                descriptor = inner
            self._make_writable(descriptor, tuple(parts))
            yield descriptor
        finally:
            os.close(descriptor)

    @staticmethod
    def _make_directory(name: str, parent: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)

    def _make_writable(self, descriptor: int, parts: tuple[str, ...]) -> None:
        """Open a directory that an earlier archive left read-only for its owner; `finish` closes it again."""
        found = os.fstat(descriptor)
        if parts and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            with contextlib.suppress(PermissionError):  # somebody else's
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)
                self._directories.setdefault(parts, (stat.S_IMODE(found.st_mode), found.st_mtime))

    def _clear(self, directory: int, name: str, full_name: str) -> bool:
        """Remove what a member replaces; return whether the member is to be written."""
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return True
        if not self._overwrite:
            return False
        if stat.S_ISDIR(found.st_mode):
            raise BadRequestError(f"{shown(full_name)} is a directory there, and none in the archive")
        os.unlink(name, dir_fd=directory)
        return True

    def _write(self, member: Member, directory: int, name: str) -> None:
        """Write a file completely or not at all: a retry would take a part for the whole."""
        try:
            with os.fdopen(os.open(name, _NEW_FILE, 0o600, dir_fd=directory), "wb") as file:
                for piece in member.pieces():
                    for start in range(0, len(piece), len(_HOLE)):
                        block = piece[start : start + len(_HOLE)]
                        if block == _HOLE:
                            file.seek(len(_HOLE), os.SEEK_CUR)
                        else:
                            file.write(block)
                file.truncate()
                os.fchmod(file.fileno(), kept_mode(member.info.mode, is_directory=False))
                os.utime(file.fileno(), (member.mtime, member.mtime))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
            raise

    def _link(self, member: Member, directory: int, name: str) -> None:
        source = split_name(member.info.linkname, self._limits)
        with self._directory(source[:-1], member.info.linkname) as other:
            try:
                if not stat.S_ISREG(os.stat(source[-1], dir_fd=other, follow_symlinks=False).st_mode):
                    raise BadRequestError(f"link {shown(member.info.name)} is to something that is no file")
                os.link(source[-1], name, src_dir_fd=other, dst_dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError as error:
                raise BadRequestError(f"link {shown(member.info.name)} is to a file that is not there") from error
