"""What decoding raises for bytes that are not the record they should be."""

from __future__ import annotations

import msgspec

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""msgspec's own error; text that is not UTF-8 and nesting without end raise Python's instead."""
