"""A log's lines as the rows of a page. Pure."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def row_text(line: bytes) -> str:
    """Return a line as a terminal would leave it: without escapes, and what comes after its last carriage return.

    Args:
        line: The line, with or without its newline.
    """
    text = line.decode(errors="replace").removesuffix("\n")
    return _ESCAPE.sub("", text).rstrip("\r").rpartition("\r")[2]
