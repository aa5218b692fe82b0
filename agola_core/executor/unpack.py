"""Unpacking archives that nobody vouches for: nothing gets out of the target, whatever the archive says.

Python's own "data" filter has been bypassed more than once, so every path is walked by directory descriptors
that follow no links; links may not point out; devices are refused and set-user bits dropped; size, count and
depth have limits.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

import msgspec

from agola_core.compression import ZstdError, open_zstd
from agola_core.errors import BadRequestError

_ZSTD = b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Limits(msgspec.Struct, frozen=True):
    """What an archive may at most hold.

    Attributes:
        files: Members.
        size: Bytes of all files together.
        depth: Components of a path.
    """

    files: int = 1_000_000
    size: int = 64 * 1024**3
    depth: int = 100


def unpack(pieces: Iterable[bytes], target: Path, *, overwrite: bool, limits: Limits | None = None) -> int:
    """Unpack a tar, plain or zstd, below a directory, and return how many files it had.

    Args:
        pieces: The archive.
        target: The directory; created when missing.
        overwrite: Whether a file that is there is replaced, or left as it is.
        limits: What is accepted.

    Raises:
        BadRequestError: The archive is damaged, or does what is not allowed; names the member.
    """
    target.mkdir(parents=True, exist_ok=True)
    unpacker = _Unpacker(target, overwrite=overwrite, limits=limits or Limits())
    try:
        with tarfile.open(fileobj=_stream(pieces), mode="r|") as archive:
            for member in archive:
                unpacker.take(archive, member)
        return unpacker.finish()
    except (tarfile.TarError, EOFError, ZstdError, UnicodeError) as error:
        raise BadRequestError(f"not an intact archive: {error}") from error
    finally:
        unpacker.close()


class _Unpacker:
    def __init__(self, target: Path, *, overwrite: bool, limits: Limits) -> None:
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._overwrite = overwrite
        self._limits = limits
        self._count = 0
        self._size = 0
        self._times: list[tuple[list[str], int, float]] = []

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._count += 1
        self._size += max(member.size, 0)
        if self._count > self._limits.files:
            raise BadRequestError(f"the archive has more than {self._limits.files} members")
        if self._size > self._limits.size:
            raise BadRequestError(f"the archive has more than {self._limits.size} bytes")
        parts = self._parts(member.name, member)
        if member.isdir():
            with self._directory(parts):
                self._times.append((parts, member.mode & 0o777, member.mtime))
            return
        if not parts:
            raise BadRequestError(f"member {member.name!r} is no directory")
        with self._directory(parts[:-1]) as directory:
            if not self._clear(directory, parts[-1]):
                return
            if member.isreg():
                self._write(archive, member, directory, parts[-1])
            elif member.issym():
                self._check_link(member, [*parts[:-1], *member.linkname.split("/")])
                os.symlink(member.linkname, parts[-1], dir_fd=directory)
            elif member.islnk():
                source = self._parts(member.linkname, member)
                with self._directory(source[:-1]) as other:
                    os.link(source[-1], parts[-1], src_dir_fd=other, dst_dir_fd=directory, follow_symlinks=False)
            else:
                raise BadRequestError(f"member {member.name!r} is a device or of an unknown kind")

    def finish(self) -> int:
        for parts, mode, mtime in reversed(self._times):
            with self._directory(parts) as directory:
                os.fchmod(directory, mode | stat.S_IRWXU)
                os.utime(directory, (mtime, mtime))
        return self._count

    def close(self) -> None:
        os.close(self._root)

    def _parts(self, name: str, member: tarfile.TarInfo) -> list[str]:
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise BadRequestError(f"member {member.name!r} would leave the target")
        if len(parts) > self._limits.depth:
            raise BadRequestError(f"member {member.name[:80]!r} is deeper than {self._limits.depth}")
        return parts

    def _check_link(self, member: tarfile.TarInfo, parts: list[str]) -> None:
        depth = 0
        for part in parts:
            depth += -1 if part == ".." else part not in {"", "."}
            if depth < 0:
                break
        # A ".." behind a name could lead anywhere: the name may itself be a link.
        target = [part for part in member.linkname.split("/") if part not in {"", "."}]
        climbs_late = any(part == ".." and target[index - 1] != ".." for index, part in enumerate(target) if index)
        if depth < 0 or climbs_late or member.linkname.startswith("/"):
            raise BadRequestError(f"link {member.name!r} points out of the target, to {member.linkname!r}")

    @contextlib.contextmanager
    def _directory(self, parts: list[str]) -> Iterator[int]:
        """Open a directory below the root, made when missing, following no links."""
        descriptor = os.dup(self._root)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
                try:
                    inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
                except OSError as error:
                    raise BadRequestError(f"{'/'.join(parts)!r} is below something that is no directory") from error
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _clear(self, directory: int, name: str) -> bool:
        """Make room for a member; return whether it is to be written."""
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return True
        if not self._overwrite:
            return False
        if stat.S_ISDIR(found.st_mode):
            raise BadRequestError(f"{name!r} is a directory there, a file in the archive")
        os.unlink(name, dir_fd=directory)
        return True

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: str) -> None:
        source = archive.extractfile(member)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
            written = 0
            while piece := source.read(_CHUNK):
                written += file.write(piece)
            if written != member.size:
                raise BadRequestError(f"member {member.name!r} is cut short")
            os.fchmod(file.fileno(), member.mode & 0o777)
            file.flush()
            os.utime(file.fileno(), (member.mtime, member.mtime))


def _stream(pieces: Iterable[bytes]) -> IO[bytes]:
    """Return the archive as a file that can be read once, decompressed where it is zstd."""
    iterator = iter(pieces)
    first = b""
    for piece in iterator:
        first += piece
        if len(first) >= len(_ZSTD):
            break
    raw = cast("IO[bytes]", io.BufferedReader(_Pieces(first, iterator), _CHUNK))
    return cast("IO[bytes]", open_zstd(raw, "rb")) if first.startswith(_ZSTD) else raw


class _Pieces(io.RawIOBase):
    def __init__(self, first: bytes, rest: Iterator[bytes]) -> None:
        super().__init__()
        self._held = memoryview(first)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._held:
            piece = next(self._rest, None)
            if piece is None:
                return 0
            self._held = memoryview(piece)
        size = min(len(buffer), len(self._held))
        buffer[:size] = self._held[:size]
        self._held = self._held[size:]
        return size
