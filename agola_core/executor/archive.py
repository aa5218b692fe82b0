"""Making the archives of `save_to_workspace` and `save_cache`: tar files, streamed from the disk."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from agola_core.errors import BadRequestError
from agola_core.executor.globs import compile_globs
from agola_core.runservice.types import ArchiveContents

_EVERYTHING = ["**"]


def make_archive(
    target: Path, contents: Iterable[ArchiveContents], working_dir: Path, *, default_paths: bool = False
) -> int:
    """Write an archive of the files that its contents name and return how many it holds.

    Args:
        target: The tar file to write.
        contents: What to take; a matched directory brings only itself, `dir/**` what is in it.
        working_dir: Where relative source directories start.
        default_paths: Take everything where no paths are given.

    Raises:
        BadRequestError: A source directory is missing, or a path is malformed.
    """
    count = 0
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for item in contents:
            source = working_dir / item.source_dir
            if not source.is_dir():
                raise BadRequestError(f"source directory {item.source_dir or '.'!r} does not exist")
            paths = item.paths or (_EVERYTHING if default_paths else [])
            destination = _inside(item.dest_dir)
            for name in _matching(source, paths):
                info = archive.gettarinfo(str(source / name), arcname=str(destination / name))
                if info is None or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
                    continue
                if info.isreg():
                    with (source / name).open("rb") as file:
                        archive.addfile(info, file)
                else:
                    archive.addfile(info)
                count += 1
    return count


def _matching(source: Path, paths: list[str]) -> Iterator[str]:
    wanted = compile_globs(paths)
    for directory, directories, files in os.walk(source):
        directories.sort()
        base = Path(directory).relative_to(source)
        for name in sorted([*directories, *files]):
            path = str(base / name)
            if wanted.fullmatch(path):
                yield path


def _inside(dest_dir: str) -> PurePosixPath:
    path = PurePosixPath(dest_dir)
    if path.is_absolute():
        path = path.relative_to("/")
    if ".." in path.parts:
        raise BadRequestError(f"dest_dir {dest_dir!r} leaves the archive")
    return path
