"""Packs files of this machine into the archives of `save_to_workspace` and `save_cache`.

Directories are walked by descriptors and no link is followed below a source directory, so that a step in the
background cannot make the walk leave it. What an archive cannot keep is left out and told (see `Packed`).
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import msgspec

from agola_core.errors import BadRequestError
from agola_core.executor.archives.globs import compile_globs
from agola_core.runservice.model.types import ArchiveContents
from agola_core.tar_stream import TarWriter, kept_mode, shown

_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

NO_FILE = "neither file, directory nor link"
SET_BITS = "set-user and set-group bits"
UNREADABLE = "the content of directories that cannot be read"
_EXAMPLES = 3

OpenDirectory = Callable[[str], int]
"""Returns a descriptor of a directory; raises `OSError` when there is none."""


class Packed(msgspec.Struct, frozen=True):
    """What was archived.

    Attributes:
        count: How many entries the archive has.
        left_out: What it does not have, for a log: one line for each reason.
    """

    count: int
    left_out: tuple[str, ...] = ()


class LeftOut:
    """Collects what an archive leaves out: for each reason how much, and a few names."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, reason: str, name: str) -> None:
        """Take a name."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        names = self._found.setdefault(reason, [])
        if len(names) < _EXAMPLES:
            names.append(shown(name))

    def lines(self) -> tuple[str, ...]:
        """Return a line for each reason."""
        return tuple(
            f"left out, {reason}: {', '.join(names)}"
            + (f" and {more} more" if (more := self._counts[reason] - len(names)) else "")
            for reason, names in self._found.items()
        )


def open_directory(path: str) -> int:
    """Return a descriptor of a directory."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def write_archive(
    write: Callable[[bytes], object],
    contents: Iterable[ArchiveContents],
    working_dir: str | Path,
    opened: OpenDirectory = open_directory,
) -> Packed:
    """Write an archive of the selected files.

    Args:
        write: Takes the bytes of the tar archive.
        contents: Which files; a matched directory adds only itself, `dir/**` its content.
        working_dir: Where relative source directories start.
        opened: Opens the source directories.

    Raises:
        BadRequestError: A source directory is missing, or a path is malformed.
    """
    packer = _Packer(TarWriter(write))
    for item in contents:
        wanted, destination = compile_globs(item.paths), inside(item.dest_dir)
        try:
            root = opened(os.path.join(working_dir, item.source_dir))  # noqa: PTH118 - kept as it was written
        except FileNotFoundError as error:
            raise BadRequestError(f"source directory {item.source_dir or '.'!r} does not exist") from error
        except OSError as error:
            raise BadRequestError(f"source directory {item.source_dir or '.'!r}: {error.strerror}") from error
        try:
            packer.add_matching(root, wanted, destination)
        finally:
            os.close(root)
    return packer.finish()


def inside(dest_dir: str) -> PurePosixPath:
    """Return a directory inside an archive.

    Raises:
        BadRequestError: It would leave the archive.
    """
    path = PurePosixPath(dest_dir)
    if path.is_absolute():
        path = path.relative_to("/")
    if ".." in path.parts:
        raise BadRequestError(f"dest_dir {dest_dir!r} leaves the archive")
    return path


class _Packer:
    def __init__(self, writer: TarWriter) -> None:
        self._writer = writer
        self._links: dict[tuple[int, int], str] = {}
        self._left_out = LeftOut()

    def finish(self) -> Packed:
        self._writer.finish()
        return Packed(self._writer.count, self._left_out.lines())

    def add_matching(self, root: int, wanted: re.Pattern[str], destination: PurePosixPath) -> None:
        """Add what matches below a directory."""
        for base, directories, files, descriptor in os.fwalk(
            ".", dir_fd=root, follow_symlinks=False, onerror=self._skip
        ):
            directories.sort()
            for name in sorted([*directories, *files]):
                path = os.path.normpath(os.path.join(base, name))  # noqa: PTH118 - hot: once a file
                if wanted.fullmatch(path):
                    self._add(path, descriptor, destination)

    def _skip(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # deleted since it was listed
            self._left_out.add(UNREADABLE, os.path.normpath(str(error.filename)))

    def _add(self, path: str, directory: int, destination: PurePosixPath) -> None:
        name = path.rpartition("/")[2]
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            info = tarfile.TarInfo(str(destination / path))
            info.mode, info.mtime = kept_mode(found.st_mode, is_directory=stat.S_ISDIR(found.st_mode)), found.st_mtime
            if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
                self._left_out.add(SET_BITS, path)
            if stat.S_ISDIR(found.st_mode):
                info.type = tarfile.DIRTYPE
                self._writer.add(info)
            elif stat.S_ISLNK(found.st_mode):
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)
                self._writer.add(info)
            elif stat.S_ISREG(found.st_mode):
                first = self._links.get((found.st_dev, found.st_ino), info.name)
                if first != info.name:
                    info.type, info.linkname = tarfile.LNKTYPE, first
                    self._writer.add(info)
                else:
                    self._add_file(info, path, name, directory)
            else:
                self._left_out.add(NO_FILE, path)
        except FileNotFoundError:  # deleted since it was listed
            return
        except OSError as error:
            raise BadRequestError(f"cannot archive {shown(path)}: {error.strerror}") from error

    def _add_file(self, info: tarfile.TarInfo, path: str, name: str, directory: int) -> None:
        descriptor = os.open(name, _READ, dir_fd=directory)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                self._left_out.add(NO_FILE, path)
                return
            info.size = found.st_size
            self._writer.add(info, iter(lambda: os.read(descriptor, _CHUNK), b""))
            if found.st_nlink > 1:  # only now: what was deleted before it was read can be no link's file
                self._links.setdefault((found.st_dev, found.st_ino), info.name)
        finally:
            os.close(descriptor)
