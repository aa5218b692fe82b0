"""Uploads to S3: small objects in one request, large ones in parts. Never retries a creation blindly."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from agola_core.errors import UnavailableError
from agola_core.objectstorage.port import Payload
from agola_core.objectstorage.s3.client import S3Client
from agola_core.objectstorage.s3.multipart import MultipartUpload, Sweep
from agola_core.objectstorage.s3.outcomes import row_of
from agola_core.objectstorage.s3.protocol import requests
from agola_core.objectstorage.s3.protocol.checksums import upload_checksum
from agola_core.objectstorage.settle import Found, Written, look, settle, told
from agola_core.runtime import faultpoints


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
        written = Written(key, what, len(body), zlib.crc32(body))
        if if_absent:
            self._settle(written, lambda: self._client.call(request, what, repeat=False), if_absent)
            return
        try:
            self._client.call(request, what)
        except UnavailableError as error:
            found = self._found(written, repeat=False)
            if found is not Found.OURS:
                raise told(error, found, row_of(error.__cause__ or error)) from error.__cause__

    def _upload_parts(self, key: str, what: str, first: bytes, others: Iterator[bytes], if_absent: bool) -> int:
        written: Written | None = None
        try:
            with MultipartUpload(self._client, key, what) as upload:
                upload.send(first)
                for part in others:
                    upload.send(part)
                upload.finish_parts()
                written = Written(key, what, upload.size, upload.crc)
                faultpoints.reach("s3.before-complete")
                self._settle(written, lambda: upload.complete(if_absent=if_absent), if_absent)
        except UnavailableError:  # it was aborted since: what is there now stays
            if written is None or self._found(written, repeat=False) is not Found.OURS:
                raise
        return written.size

    def _settle(self, written: Written, attempt: Callable[[], object], if_absent: bool) -> None:
        settle(
            written,
            attempt,
            lambda: self._found(written, repeat=True),
            row_of,
            self._client.pause,
            attempts=self._client.options.attempts,
            if_absent=if_absent,
        )

    def _found(self, written: Written, *, repeat: bool) -> Found | None:
        """Return what is stored (see `look`).

        Args:
            written: What was written.
            repeat: Whether requests that fail are sent again.
        """
        key, what = written.key, written.what

        def head() -> tuple[int, str]:
            headers = self._client.call(requests.head_object(key), what, repeat=repeat).headers
            return int(headers.get("content-length", 0)), headers.get("etag", "")

        def read(offset: int, length: int, etag: str) -> bytes:
            part = requests.get_object(key, offset, offset + length - 1, etag)
            return self._client.call(part, what, repeat=repeat).body

        return look(written, head, read)


def _in_parts(data: Payload, size: int) -> Iterator[bytes]:
    """Yield the bytes in parts of one size, the last one shorter; an exact multiple ends without an empty part."""
    if isinstance(data, bytes | bytearray | memoryview):
        view = memoryview(data)
        for start in range(0, len(view), size):
            yield bytes(view[start : start + size])
        return
    held: list[bytes | memoryview] = []  # joined once: parts are large, and several are in memory at a time
    length = 0
    for piece in data:
        rest = memoryview(piece)
        while length + len(rest) >= size:
            held.append(rest[: size - length])
            rest = rest[size - length :]
            part, length = b"".join(held), 0
            held.clear()
            yield part
            del part
        if rest:
            held.append(bytes(rest))
            length += len(rest)
    if held:
        yield b"".join(held)
