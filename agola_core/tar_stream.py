"""Reads and writes tar archives as streams, member by member, trusting nothing in them.

`tarfile` parses; what it would pass over in silence (a damaged header, a missing end) or hold in memory without
bound (extension headers) is an error here.
"""

from __future__ import annotations

import io
import math
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Self, cast

import msgspec

from agola_core.encoding.compression import ZstdError, open_zstd
from agola_core.errors import BadRequestError

_ZSTD = b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 20
_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_MAX_EXTENSION_BYTES = 64 * 1024
_MAX_EXTENSION_TOTAL = 64 * 1024 * 1024
_RATIO_FREE_BYTES = 64 * 1024 * 1024
_DAMAGE = (tarfile.TarError, EOFError, ZstdError, ValueError, OverflowError, IndexError, RecursionError)


class Limits(msgspec.Struct, frozen=True):
    """Limits on the content of an archive.

    Attributes:
        files: How many members.
        size: Bytes of all files in total.
        depth: Components of one path.
        ratio: Decompressed bytes per compressed byte; checked after the first 64 MiB.
    """

    files: int = 1_000_000
    size: int = 64 * 1024**3
    depth: int = 100
    ratio: int = 1000


class Member:
    """One member of an archive being read.

    Attributes:
        info: Its header.
        parts: The components of its name, without `..`; none for the archive's root.
    """

    def __init__(self, info: tarfile.TarInfo, parts: list[str], source: IO[bytes] | None) -> None:
        self.info = info
        self.parts = parts
        self._source = source

    @property
    def mtime(self) -> float:
        """The modification time; one that no file system accepts becomes 1970."""
        mtime = float(self.info.mtime)
        return mtime if math.isfinite(mtime) and 0 <= mtime < 1 << 33 else 0.0

    def pieces(self) -> Iterator[bytes]:
        """Yield a file's content; it must be read before the next member."""
        assert self._source is not None
        count = 0
        while piece := self._read(self._source):
            count += len(piece)
            yield piece
        if count != self.info.size:
            raise BadRequestError(f"member {shown(self.info.name)} is cut short")

    @staticmethod
    def _read(source: IO[bytes]) -> bytes:
        try:
            return source.read(_CHUNK)
        except _DAMAGE as error:
            raise BadRequestError(f"not an intact archive: {error}") from error


def read_members(
    pieces: Iterable[bytes], limits: Limits | None = None, *, everything: bool = False
) -> Iterator[Member]:
    """Yield the members of an archive, plain or zstd: directories, files and links.

    A symbolic link may lead anywhere, as in Python environments; no member may be below one.

    Args:
        pieces: The archive.
        limits: What is accepted.
        everything: Also yield members of other kinds and below links, for a reader that ignores them.

    Raises:
        BadRequestError: The archive is damaged, or has a forbidden member, which is named.
    """
    limits = limits or Limits()
    count = size = 0
    links: set[tuple[str, ...]] = set()
    try:
        counted = _Counted(pieces)
        stream, compressed = _opened(counted)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_header_class()) as archive:
            for info in archive:
                count += 1
                size += info.size if info.isreg() else 0
                if count > limits.files:
                    raise BadRequestError(f"the archive has more than {limits.files} members")
                if size > limits.size:
                    raise BadRequestError(f"the archive has more than {limits.size} bytes")
                if compressed and size > _RATIO_FREE_BYTES and size > limits.ratio * counted.count:
                    raise BadRequestError(f"the archive unpacks to more than {limits.ratio} times its size")
                parts = split_name(info.name, limits) if everything else _checked(info, limits)
                if not everything:
                    _check_not_through(links, parts, info, limits)
                yield Member(info, parts, archive.extractfile(info) if info.isreg() else None)
    except _DAMAGE as error:
        raise BadRequestError(f"not an intact archive: {error}") from error


class TarWriter:
    """Writes an archive member by member.

    Args:
        write: Takes the archive's bytes, in order.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.count = 0

    def add(self, info: tarfile.TarInfo, pieces: Iterable[bytes] = ()) -> None:
        """Write a member; a file's pieces must be as long as its header says.

        Raises:
            BadRequestError: They are not, since the file has changed meanwhile.
        """
        self._write(info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape"))
        if info.isreg():
            written = 0
            for piece in pieces:
                written += len(piece)
                if written > info.size:
                    break
                self._write(piece)
            if written != info.size:
                raise BadRequestError(f"{shown(info.name)} changed while it was archived")
            self._write(bytes(-written % tarfile.BLOCKSIZE))
        self.count += 1

    def finish(self) -> None:
        """Write the archive's end."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))


def split_name(name: str, limits: Limits) -> list[str]:
    """Return the components of a member's name.

    Raises:
        BadRequestError: It would leave the archive's root.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadRequestError(f"member {shown(name)} would leave the target")
    if len(parts) > limits.depth:
        raise BadRequestError(f"member {shown(name)} is deeper than {limits.depth}")
    if any(len(part.encode(errors="surrogateescape")) > 255 for part in parts):
        raise BadRequestError(f"member {shown(name)} has a name of more than 255 bytes")
    return parts


def kept_mode(mode: int, *, is_directory: bool) -> int:
    """Return the permissions that an archive keeps: never set-user or set-group bits, whose owner would be another."""
    return stat.S_IMODE(mode) & (0o1777 if is_directory else 0o777)


def shown(name: str) -> str:
    """Return a member's name for a message: shortened, and without control characters."""
    return ascii(name[:200])


def _checked(info: tarfile.TarInfo, limits: Limits) -> list[str]:
    parts = split_name(info.name, limits)
    if info.size < 0:
        raise BadRequestError(f"member {shown(info.name)} has a negative size")
    if not parts and not info.isdir():
        raise BadRequestError(f"member {shown(info.name)} is no directory")
    if info.issym():
        if not info.linkname or "\0" in info.linkname:
            raise BadRequestError(f"link {shown(info.name)} points to nothing")
    elif info.islnk():
        if not split_name(info.linkname, limits):
            raise BadRequestError(f"link {shown(info.name)} is one to a directory")
    elif not (info.isdir() or info.isreg()) or info.issparse():
        raise BadRequestError(f"member {shown(info.name)} is a device or of an unknown kind")
    return parts


def _check_not_through(links: set[tuple[str, ...]], parts: list[str], info: tarfile.TarInfo, limits: Limits) -> None:
    """Record links, and refuse a member below a link of the same archive."""
    for path in (parts, split_name(info.linkname, limits) if info.islnk() else []):
        if links and any(tuple(path[:length]) in links for length in range(1, len(path))):
            raise BadRequestError(f"member {shown(info.name)} is below something that is no directory")
    if info.issym():
        links.add(tuple(parts))


def _header_class() -> type[tarfile.TarInfo]:
    """Return a header class for one archive, which refuses headers that `tarfile` accepts."""
    total = 0

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            nonlocal total
            if len(buf) != tarfile.BLOCKSIZE:
                raise BadRequestError("not an intact archive: it is cut short")
            try:
                header = super().frombuf(buf, encoding, errors)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                raise
            except tarfile.HeaderError as error:
                raise BadRequestError(f"not an intact archive: {error}") from error
            if header.type in _EXTENSIONS:
                total += max(header.size, 0)
                if not 0 <= header.size <= _MAX_EXTENSION_BYTES or total > _MAX_EXTENSION_TOTAL:
                    raise BadRequestError("the archive has an extension header that is too large")
            elif header.size < 0 or header.type == tarfile.GNUTYPE_SPARSE:
                raise BadRequestError(f"member {shown(header.name)} is of a kind that is not allowed")
            return header

    return Header


class _Counted:
    """Counts the bytes of an archive as they are read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.count = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self.count += len(piece)
        return piece


def _opened(pieces: Iterator[bytes]) -> tuple[IO[bytes], bool]:
    """Return the archive as a file that can be read once, and whether it is being decompressed."""
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= len(_ZSTD):
            break
    raw = cast("IO[bytes]", io.BufferedReader(_Pieces(first, pieces), _CHUNK))
    if first.startswith(_ZSTD):
        return cast("IO[bytes]", open_zstd(raw, "rb")), True
    return raw, False


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
