"""Errors of decoding stored records: damaged data, and data written by a later release."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from agola_core.errors import CorruptionError, FormatError

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""msgspec's own error, and Python's for text that is not UTF-8 and for unbounded nesting."""


T = TypeVar("T")


def decoded(decode: Callable[[bytes], T], data: bytes, path: str) -> T:
    """Decode stored data.

    Raises:
        CorruptionError: The decoder refuses the data; the error names the path.
    """
    try:
        return decode(data)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not what should be stored there: {error}", path=path) from error


class _Version(msgspec.Struct):
    format: int = 0


def newer(what: str, found: int, known: int) -> FormatError:
    """Return the error to raise for data that a later release wrote.

    Args:
        what: Name of the data, such as its path.
        found: Version of the data.
        known: Newest version that this release can read.
    """
    return FormatError(
        f"{what} has format {found}, newer than {known}, the newest that this release knows: "
        "use the release of agola-core that wrote it, or a later one"
    )


def check_json_format(data: bytes, what: str, known: int) -> None:
    """Refuse a JSON record of a later format, since its other fields may mean anything.

    Raises:
        FormatError: A later release wrote it.
    """
    try:
        found = msgspec.json.decode(data, type=_Version).format
    except DECODE_ERRORS:
        return  # not a record at all: the full decoder reports it
    if found > known:
        raise newer(what, found, known)


def check_magic(data: bytes | memoryview, magic: bytes, path: str) -> None:
    """Refuse an object whose first line is the magic of a later format; any other first line passes.

    Args:
        data: The beginning of the object.
        magic: Magic of the newest known version: a name, a dash, the version number and a newline.
        path: Path of the object.

    Raises:
        FormatError: A later release wrote it.
    """
    name, _, known = magic.rstrip().rpartition(b"-")
    start = bytes(data[: len(magic) + 8])
    number = start[len(name) + 1 :].partition(b"\n")[0]
    if start.startswith(name + b"-") and number.isdigit() and int(number) > int(known):
        raise newer(path, int(number), int(known))
