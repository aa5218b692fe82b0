"""zstd, from the standard library where it has it."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError, compress, decompress
    from compression.zstd import open as open_zstd
else:
    from backports.zstd import ZstdError, compress, decompress
    from backports.zstd import open as open_zstd

__all__ = ["ZstdError", "compress", "decompress", "open_zstd"]
