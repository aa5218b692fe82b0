"""Copies files into and out of containers as tar archives, checked in both directions."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO

import msgspec

from agola_core.executor.archives.globs import compile_globs
from agola_core.executor.archives.pack import NO_FILE, SET_BITS, LeftOut, Packed, inside
from agola_core.runservice.model.types import ArchiveContents
from agola_core.tar_stream import Limits, TarWriter, kept_mode, read_members, split_name

_CHUNK = 1 << 20


class Checked(msgspec.Struct, frozen=True):
    """The content of an archive, by names relative to its target.

    Attributes:
        count: How many members it has.
        directories: Its directories, including those that only contain members.
        files: All others.
    """

    count: int
    directories: list[str]
    files: list[str]


def repack(
    write: Callable[[bytes], object],
    contents: Iterable[ArchiveContents],
    working_dir: str,
    opened: Callable[[str], Iterator[bytes]],
) -> Packed:
    """Write an archive of selected files from streams of whole directories.

    Args:
        write: Takes the archive's bytes.
        contents: Which files.
        working_dir: Where relative source directories start.
        opened: Yields a tar of a directory's content.
    """
    writer, left_out = TarWriter(write), LeftOut()
    for item in contents:
        wanted, destination = compile_globs(item.paths), inside(item.dest_dir)
        source = os.path.normpath(os.path.join(working_dir, item.source_dir))  # noqa: PTH118 - the container's
        for raw, pieces in _raw_members(opened(source)):
            parts = split_name(raw.name, Limits())
            if not parts or not wanted.fullmatch("/".join(parts)):
                continue
            info = tarfile.TarInfo(str(destination / "/".join(parts)))
            info.mode, info.mtime = kept_mode(raw.mode, is_directory=raw.isdir()), raw.mtime
            info.type, info.size = raw.type, raw.size
            if raw.mode & (stat.S_ISUID | stat.S_ISGID):
                left_out.add(SET_BITS, "/".join(parts))
            if raw.issym():
                info.linkname = raw.linkname
            elif raw.islnk():
                info.linkname = str(destination / "/".join(split_name(raw.linkname, Limits())))
            elif not (raw.isreg() or raw.isdir()):
                left_out.add(NO_FILE, "/".join(parts))
                continue
            writer.add(info, pieces)
    writer.finish()
    return Packed(writer.count, left_out.lines())


def check(pieces: Iterable[bytes], spool: IO[bytes]) -> Checked:
    """Copy an archive to a spool file and check every member.

    Raises:
        BadRequestError: It is damaged, or has a forbidden member.
    """

    def copied() -> Iterator[bytes]:
        for piece in pieces:
            spool.write(piece)
            yield piece

    count = 0
    directories: dict[str, None] = {}
    files = []
    for member in read_members(copied()):
        count += 1
        if member.info.isreg():
            for _ in member.pieces():
                pass
        name = "/".join(member.parts)
        if member.info.isdir():
            directories[name] = None
        else:
            files.append(name)
            directories["/".join(member.parts[:-1])] = None
    directories.pop("", None)
    return Checked(
        count, [name for name in directories if "\n" not in name], [name for name in files if "\n" not in name]
    )


def clean(spool: IO[bytes], uid: int, gid: int, skipped: frozenset[str]) -> Iterator[bytes]:
    """Yield a checked archive again: owned by a user, without set-user bits, and without skipped files."""
    spool.seek(0)
    buffer = io.BytesIO()
    writer = TarWriter(buffer.write)
    for member in read_members(iter(lambda: spool.read(_CHUNK), b"")):
        name = "/".join(member.parts)
        if not member.parts or name in skipped:
            continue
        info = tarfile.TarInfo(name)
        info.type, info.mtime = member.info.type, member.mtime
        info.mode = kept_mode(member.info.mode, is_directory=member.info.isdir())
        info.uid, info.gid, info.linkname = uid, gid, member.info.linkname
        if member.info.isreg():
            info.size = member.info.size
            yield info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
            yield from member.pieces()
            yield bytes(-info.size % tarfile.BLOCKSIZE)
            continue
        writer.add(info)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield bytes(2 * tarfile.BLOCKSIZE)


def _raw_members(pieces: Iterator[bytes]) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Yield the members that an engine packed, including links and devices, which are not taken along."""
    for member in read_members(pieces, everything=True):
        yield member.info, member.pieces() if member.info.isreg() else iter(())
