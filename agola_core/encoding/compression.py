"""zstd compression: from the standard library since Python 3.14, from backports.zstd before."""

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
    """Decompress one zstd frame.

    Args:
        data: The complete frame.
        limit: Maximum decompressed size in bytes; a larger frame is refused before it is held in memory.

    Raises:
        ZstdError: The data is not a single frame, or it decompresses to more than the limit.
    """
    decompressor = ZstdDecompressor()
    result = decompressor.decompress(data, limit + 1)
    if len(result) > limit:
        raise ZstdError(f"more than {limit} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise ZstdError("not one whole frame")
    return result
