"""zstd, from the standard library where it has it."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError, compress
    from compression.zstd import open as open_zstd
else:
    from backports.zstd import ZstdDecompressor, ZstdError, compress
    from backports.zstd import open as open_zstd

__all__ = ["ZstdError", "compress", "decompress", "open_zstd"]


def decompress(data: bytes, limit: int) -> bytes:
    """Return the bytes of one zstd frame.

    Args:
        data: The frame, whole.
        limit: The most bytes to return; a frame of more is refused before they are in memory.

    Raises:
        ZstdError: It is not one frame, or holds more bytes.
    """
    decompressor = ZstdDecompressor()
    result = decompressor.decompress(data, limit + 1)
    if len(result) > limit:
        raise ZstdError(f"more than {limit} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise ZstdError("not one whole frame")
    return result
