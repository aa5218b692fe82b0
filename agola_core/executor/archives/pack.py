"""Packs files of this machine into the archives of `save_to_workspace` and `save_cache`.

Directories are walked by descriptors and no link is followed below a source directory, so that a step in the
background cannot make the walk leave it.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from agola_core.errors import BadRequestError
from agola_core.executor.archives.globs import compile_globs
from agola_core.executor.archives.tar_stream import TarWriter, shown
from agola_core.runservice.model.types import ArchiveContents

_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

OpenDirectory = Callable[[str], int]
"""Returns a descriptor of a directory; raises `OSError` when there is none."""


def open_directory(path: str) -> int:
    """Return a descriptor of a directory."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def make_archive(
    target: Path, contents: Iterable[ArchiveContents], working_dir: str | Path, opened: OpenDirectory = open_directory
) -> int:
    """Write an archive of the selected files and return how many entries it has.

    Args:
        target: The tar file to write.
        contents: Which files; a matched directory adds only itself, `dir/**` its content.
        working_dir: Where relative source directories start.
        opened: Opens the source directories.

    Raises:
        BadRequestError: A source directory is missing, or a path is malformed.
    """
    with target.open("wb") as file:
        return write_archive(file.write, contents, working_dir, opened)


def write_archive(
    write: Callable[[bytes], object],
    contents: Iterable[ArchiveContents],
    working_dir: str | Path,
    opened: OpenDirectory = open_directory,
) -> int:
    """Write an archive through a function that takes its bytes (see `make_archive`)."""
    writer = TarWriter(write)
    links: dict[tuple[int, int], str] = {}
    for item in contents:
        wanted, destination = compile_globs(item.paths), inside(item.dest_dir)
        try:
            root = opened(os.path.join(working_dir, item.source_dir))  # noqa: PTH118 - kept as it was written
        except FileNotFoundError as error:
            raise BadRequestError(f"source directory {item.source_dir or '.'!r} does not exist") from error
        except OSError as error:
            raise BadRequestError(f"source directory {item.source_dir or '.'!r}: {error.strerror}") from error
        try:
            for name, directory in _matching(root, wanted):
                _add(writer, name, directory, destination, links)
        finally:
            os.close(root)
    writer.finish()
    return writer.count


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


def _matching(root: int, wanted: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    """Yield the wanted names below a directory, each with the descriptor of its parent directory."""
    for base, directories, files, descriptor in os.fwalk(".", dir_fd=root, follow_symlinks=False):
        directories.sort()
        for name in sorted([*directories, *files]):
            path = os.path.normpath(os.path.join(base, name))  # noqa: PTH118 - hot: once a file
            if wanted.fullmatch(path):
                yield path, descriptor


def _add(
    writer: TarWriter, path: str, directory: int, destination: PurePosixPath, links: dict[tuple[int, int], str]
) -> None:
    name = path.rpartition("/")[2]
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        info = tarfile.TarInfo(str(destination / path))
        info.mode, info.mtime = stat.S_IMODE(found.st_mode) & 0o777, found.st_mtime
        if stat.S_ISDIR(found.st_mode):
            info.type = tarfile.DIRTYPE
            writer.add(info)
        elif stat.S_ISLNK(found.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)
            writer.add(info)
        elif stat.S_ISREG(found.st_mode):
            first = links.setdefault((found.st_dev, found.st_ino), info.name) if found.st_nlink > 1 else info.name
            if first != info.name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                writer.add(info)
            else:
                _add_file(writer, info, name, directory)
    except FileNotFoundError:  # deleted since it was listed
        return
    except OSError as error:
        raise BadRequestError(f"cannot archive {shown(path)}: {error.strerror}") from error


def _add_file(writer: TarWriter, info: tarfile.TarInfo, name: str, directory: int) -> None:
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return
        info.size = found.st_size
        writer.add(info, iter(lambda: os.read(descriptor, _CHUNK), b""))
    finally:
        os.close(descriptor)
