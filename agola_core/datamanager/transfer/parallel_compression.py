"""Compresses exports with gzip or zstd, in threads beside the one that reads the store, and decompresses them."""

from __future__ import annotations

import enum
import gzip
import io
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePath
from typing import IO, cast

from agola_core.encoding.compression import ZstdError, compress, open_zstd

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 20
_CHUNK = 1 << 18
_THREADS = 2
_AHEAD = 4

DAMAGE = (EOFError, OSError, ZstdError, zlib.error)
"""What reading a damaged compressed stream raises."""


class Compression(enum.StrEnum):
    """How a stream is compressed."""

    NONE = "none"
    GZIP = "gz"
    ZSTD = "zst"

    @classmethod
    def of(cls, name: str) -> Compression:
        """Return the compression that a file name's extension asks for."""
        return {".gz": cls.GZIP, ".zst": cls.ZSTD}.get(PurePath(name).suffix, cls.NONE)


def _gzip(block: bytes) -> bytes:
    return gzip.compress(block, 1, mtime=0)  # without a time, equal streams are equal files


def _zstd(block: bytes) -> bytes:
    return compress(block, 1)


def compress_stream(pieces: Iterator[bytes], compression: Compression) -> Iterator[bytes]:
    """Yield a compressed stream, in members that gzip and zstd readers accept as one stream.

    Args:
        pieces: The stream.
        compression: How to compress it.
    """
    match compression:
        case Compression.NONE:
            return pieces
        case Compression.GZIP:
            return _in_threads(_blocks(pieces), _gzip)
        case Compression.ZSTD:
            return _in_threads(_blocks(pieces), _zstd)


def gathered(pieces: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield the pieces in groups of about a size in bytes, or a little more."""
    held: list[bytes] = []
    have = 0
    for piece in pieces:
        held.append(piece)
        have += len(piece)
        if have >= size:
            yield held
            held, have = [], 0
    if held:
        yield held


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    return map(b"".join, gathered(pieces, _BLOCK))


def _in_threads(blocks: Iterator[bytes], work: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Yield the blocks' results in order; compressing releases the interpreter lock, so the reader goes on."""
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_THREADS, "pack") as threads:
        try:
            for block in blocks:
                pending.append(threads.submit(work, block))
                if len(pending) > _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def decompress_stream(file: IO[bytes]) -> IO[bytes]:
    """Return a stream decompressed, if its first bytes show that it is compressed.

    Reading it raises one of `DAMAGE` where the compressed stream is damaged or cut short.
    """
    start = b""
    while len(start) < len(_ZSTD) and (piece := file.read(len(_ZSTD) - len(start))):
        start += piece
    whole = cast("IO[bytes]", io.BufferedReader(Prefixed(start, file), _CHUNK))
    if start.startswith(_GZIP):
        return cast("IO[bytes]", io.BufferedReader(gzip.GzipFile(fileobj=whole), _CHUNK))
    if start == _ZSTD:
        return cast("IO[bytes]", io.BufferedReader(cast("io.RawIOBase", open_zstd(whole, "rb")), _CHUNK))
    return whole


class Prefixed(io.RawIOBase):
    """A file with some bytes in front of it."""

    def __init__(self, first: bytes, file: IO[bytes]) -> None:
        super().__init__()
        self._first = first
        self._file = file

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read from the bytes in front, then from the file."""
        wanted = len(buffer)
        if self._first:
            piece, self._first = self._first[:wanted], self._first[wanted:]
        else:
            piece = self._file.read(wanted)
        buffer[: len(piece)] = piece
        return len(piece)
