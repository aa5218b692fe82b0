"""Uploads to S3: small objects in one request, large ones in parts. Never retries a creation blindly."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from agola_core.errors import AgolaError, ConflictError, NotFoundError, UnavailableError
from agola_core.objectstorage.outcome import Outcome
from agola_core.objectstorage.port import Payload
from agola_core.objectstorage.s3.client import S3Client
from agola_core.objectstorage.s3.multipart import MultipartUpload, Sweep
from agola_core.objectstorage.s3.outcomes import row_of
from agola_core.objectstorage.s3.protocol import requests
from agola_core.objectstorage.s3.protocol.checksums import upload_checksum
from agola_core.runtime import faultpoints

_LOOK = 8 * 1024 * 1024


class _Found(enum.Enum):
    """What is stored after a write with an unknown outcome."""

    OURS = "exactly the bytes that were written"
    OTHER = "an object with other bytes"
    NOTHING = "no object"


class _Written(NamedTuple):
    """The object that a write intends to store."""

    key: str
    what: str
    size: int
    crc: int


class Uploader:
    """Writes whole objects.

    Args:
        client: Of the bucket.
    """

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self.sweep = Sweep(client)

    def upload(self, key: str, what: str, data: Payload, *, if_absent: bool) -> int:
        """Write an object and return its size (see the port); a source that raises leaves nothing."""
        parts = _in_parts(data, self._client.options.part_size)
        first = next(parts, b"")
        if len(first) < self._client.options.part_size:
            self._put(key, what, first, if_absent=if_absent)
            return len(first)
        self.sweep.run_once()
        return self._upload_parts(key, what, first, parts, if_absent)

    def _put(self, key: str, what: str, body: bytes, *, if_absent: bool) -> None:
        checksum = upload_checksum(self._client.options.checksum, body)
        request = requests.put_object(key, body, checksum, if_absent=if_absent)
        written = _Written(key, what, len(body), zlib.crc32(body))
        if if_absent:
            self._settle(written, lambda: self._client.call(request, what, repeat=False), if_absent)
            return
        try:
            self._client.call(request, what)
        except UnavailableError as error:
            found = self._found(written, repeat=False)
            if found is not _Found.OURS:
                raise _told(error, found) from error.__cause__

    def _upload_parts(self, key: str, what: str, first: bytes, others: Iterator[bytes], if_absent: bool) -> int:
        written: _Written | None = None
        try:
            with MultipartUpload(self._client, key, what) as upload:
                upload.send(first)
                for part in others:
                    upload.send(part)
                upload.finish_parts()
                written = _Written(key, what, upload.size, upload.crc)
                faultpoints.reach("s3.before-complete")
                self._settle(written, lambda: upload.complete(if_absent=if_absent), if_absent)
        except UnavailableError:  # it was aborted since: what is there now stays
            if written is None or self._found(written, repeat=False) is not _Found.OURS:
                raise
        return written.size

    def _settle(self, written: _Written, attempt: Callable[[], Any], if_absent: bool) -> None:
        """Attempt a write; check what is stored before each retry and before reporting a failure.

        A refusal is checked too: a proxy may have sent the request twice, in which case the refusal answers the second
        one and the first was applied.
        """
        attempts = self._client.options.attempts
        for number in range(1, attempts + 1):
            try:
                attempt()
                return
            except (UnavailableError, ConflictError) as error:
                found = self._found(written, repeat=True)
                if found is _Found.OURS:
                    return
                if isinstance(error, ConflictError) or (found is _Found.OTHER and if_absent):
                    raise ConflictError(f"{written.what} exists already") from error
                if number == attempts or not row_of(error.__cause__ or error).again:
                    raise _told(error, found) from error.__cause__
            self._client.pause(number)

    def _found(self, written: _Written, *, repeat: bool) -> _Found | None:
        """Compare the stored object with the written bytes; None if that cannot be determined.

        Args:
            written: What was written.
            repeat: Whether requests that fail are sent again.
        """
        what, crc = written.what, 0
        try:
            head = self._client.call(requests.head_object(written.key), what, repeat=repeat).headers
            if int(head.get("content-length", 0)) != written.size:
                return _Found.OTHER
            for offset in range(0, written.size, _LOOK):
                part = requests.get_object(written.key, offset, offset + _LOOK - 1, head.get("etag", ""))
                crc = zlib.crc32(self._client.call(part, what, repeat=repeat).body, crc)
        except NotFoundError:
            return _Found.NOTHING
        except ConflictError:  # replaced while it was looked at
            return _Found.OTHER
        except AgolaError:
            return None
        return _Found.OURS if crc == written.crc else _Found.OTHER


def _told(error: UnavailableError, found: _Found | None) -> UnavailableError:
    """Return the error to report for a failed write, given what is stored."""
    if found is None and row_of(error.__cause__ or error).outcome is Outcome.UNKNOWN:
        return type(error)(f"{error}; whether it was written cannot be told")
    return error


def _in_parts(data: Payload, size: int) -> Iterator[bytes]:
    """Yield the bytes in parts of one size, the last one shorter; an exact multiple ends without an empty part."""
    if isinstance(data, bytes | bytearray | memoryview):
        view = memoryview(data)
        for start in range(0, len(view), size):
            yield bytes(view[start : start + size])
        return
    held = bytearray()
    for piece in data:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
