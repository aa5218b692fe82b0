"""The port: an object storage holds whole objects under text keys, and lists them as S3 does.

The contract suite `tests/contract/test_objectstorage.py` is the second half of the port; it runs on every backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol

from agola_core.errors import BadRequestError

MAX_KEY_BYTES = 1024
"""The longest key, in bytes of UTF-8: S3's limit."""

MAX_COMPONENT_BYTES = 255
"""The longest component of a portable key, in bytes of UTF-8: the limit of common file systems."""


class ObjectInfo(NamedTuple):
    """An object's metadata.

    Attributes:
        path: The object's key. For a list that is not recursive, a key that ends in "/" stands for all keys
            below it; its size is 0 and its time is None.
        size: In bytes.
        modified: When it was last written, with a time zone.
    """

    path: str
    size: int
    modified: datetime | None


Payload = bytes | bytearray | memoryview | Iterable[bytes]
"""Content to write: bytes, or an iterable of pieces that are never all in memory at once."""


class ObjectReader(Protocol):
    """Reads ranges of one version of an object: the version at opening or at the first read."""

    @property
    def remote(self) -> bool:
        """Whether a read waits for a network; then it is thread-safe, and worth being made ahead of its use."""

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the object; fewer at its end.

        Raises:
            NotFoundError: There is no such object, or no longer in this version.
        """

    def close(self) -> None:
        """Release its resources; closing twice is harmless."""


class ObjectStorage(Protocol):
    """The port. Thread-safe.

    Every method raises `BadRequestError` for a key that the backend cannot hold, `UnavailableError` when the
    backend is unreachable, overloaded or full, and `ForbiddenError` when it denies access.
    """

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes.

        Args:
            path: The key.
            offset: The first byte to return; at or past the end gives b"".
            length: The most bytes to return; None for all.

        Raises:
            NotFoundError: There is no such object.
        """

    def open_reader(self, path: str) -> ObjectReader:
        """Return a reader of ranges of one object: each of its reads is one request, or one system call.

        Raises:
            NotFoundError: There is no such object (raised here, or at the first read).
        """

    def open_stream(self, path: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in pieces, all from one version of the object.

        Raises:
            NotFoundError: There is no such object (raised at the call, not at the first piece).
        """

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        """Write a whole object, atomically and durably, and return its size in bytes.

        Readers see the old object or the new one. When writing fails, or `data` raises, nothing changed. Where that is
        not known at once it is looked at before anything is raised; an `UnavailableError` says when nobody could look,
        and a request that the server still has under way may take effect later (docs/guarantees.md has the tables).

        Args:
            path: The key.
            data: The bytes, or pieces of them.
            if_absent: Refuse to replace an object. Not every S3 server honours it, so correctness never
                rests on it: it is a second line behind the coordinator. Where it cannot be told who created an
                object that has exactly these bytes, it counts as written.

        Raises:
            ConflictError: `if_absent` was given and the object exists.
        """

    def stat(self, path: str) -> ObjectInfo:
        """Return an object's metadata.

        Raises:
            NotFoundError: There is no such object.
        """

    def delete(self, path: str) -> None:
        """Delete an object, durably.

        Raises:
            NotFoundError: There is no such object (S3 servers that do not tell are asked first).
        """

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with a prefix, in the byte order of their keys.

        Args:
            prefix: Any text, not only a directory.
            start_after: Only keys that sort after it.
            recursive: False stops at the next "/" after the prefix and yields each common beginning once.
        """

    def close(self) -> None:
        """Release connections; closing twice is harmless."""


def check_text(*keys: str) -> None:
    """Raise `BadRequestError` for a key, or the beginning of one, that no storage holds: it is not valid Unicode."""
    for key in keys:
        if not is_text(key):
            raise BadRequestError(f"object key {key[:80]!r} is not valid Unicode")


def is_text(name: str) -> bool:
    """Return whether a name is valid Unicode: Python puts lone surrogates for bytes of a file's name that are not."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def check_portable(path: str) -> str:
    """Return a key that every backend can hold as it is.

    Portable keys are relative paths of components between single slashes, none of them empty, "." or "..",
    each at most 255 bytes, without control characters; the whole at most 1024 bytes.

    Raises:
        BadRequestError: The key is not portable; says why.
    """
    reason = _not_portable(path)
    if reason is not None:
        raise BadRequestError(f"object key {path[:80]!r} {reason}")
    return path


def is_portable(path: str) -> bool:
    """Return whether every backend can hold a key as it is (see `check_portable`)."""
    return _not_portable(path) is None


def _not_portable(path: str) -> str | None:
    if not path:
        return "is empty"
    if not is_text(path):
        return "is not valid Unicode"
    encoded = path.encode()
    if len(encoded) > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes"
    if any(character < " " or character == "\x7f" for character in path):
        return "has a control character"
    for component in path.split("/"):
        if component in {"", ".", ".."}:
            return f"has a component {component!r}"
        if len(component.encode()) > MAX_COMPONENT_BYTES:
            return f"has a component longer than {MAX_COMPONENT_BYTES} bytes"
    return None
