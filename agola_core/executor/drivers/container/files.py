"""Copies files into and out of containers as tar archives, checked in both directions."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
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
    packer = _Repacker(write)
    for item in contents:
        wanted, destination = compile_globs(item.paths), inside(item.dest_dir)
        source = os.path.normpath(os.path.join(working_dir, item.source_dir))  # noqa: PTH118 - the container's
        others: dict[str, list[str]] = {}  # by the name under which a file came, unwanted: its other names, wanted
        for raw, pieces in _raw_members(opened(source)):
            name = _name(raw.name)
            if not name or not wanted.fullmatch(name):
                continue
            target = _name(raw.linkname) if raw.islnk() else ""
            if target and not wanted.fullmatch(target):
                others.setdefault(target, []).append(name)
            else:
                packer.add(raw, pieces, destination, name, target)
        for raw, pieces in _raw_members(opened(source)) if others else ():
            target = ""
            for name in others.get(_name(raw.name), ()):
                packer.add(raw, pieces, destination, name, target)
                target = target or name
    return packer.finish()


class _Repacker:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._writer = TarWriter(write)
        self._left_out = LeftOut()

    def add(
        self, raw: tarfile.TarInfo, pieces: Iterable[bytes], destination: PurePosixPath, name: str, target: str
    ) -> None:
        """Add a member under a name; a hard link if it has a target."""
        info = tarfile.TarInfo(str(destination / name))
        info.mode, info.mtime = kept_mode(raw.mode, is_directory=raw.isdir()), raw.mtime
        info.type, info.size = raw.type, raw.size
        if raw.mode & (stat.S_ISUID | stat.S_ISGID):
            self._left_out.add(SET_BITS, name)
        if target:
            info.type, info.size, info.linkname = tarfile.LNKTYPE, 0, str(destination / target)
        elif raw.issym():
            info.linkname = raw.linkname
        elif not (raw.isreg() or raw.isdir()):
            self._left_out.add(NO_FILE, name)
            return
        self._writer.add(info, pieces)

    def finish(self) -> Packed:
        """Write the archive's end."""
        self._writer.finish()
        return Packed(self._writer.count, self._left_out.lines())


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


def _name(name: str) -> str:
    """Return a member's name, relative to the archive's root."""
    return "/".join(split_name(name, Limits()))


def _raw_members(pieces: Iterator[bytes]) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Yield the members that an engine packed, including links and devices, which are not taken along."""
    for member in read_members(pieces, everything=True):
        yield member.info, member.pieces() if member.info.isreg() else iter(())
