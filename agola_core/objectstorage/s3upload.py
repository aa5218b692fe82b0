"""Uploads to S3: small objects in one request, large ones in parts; creations that are never repeated blindly."""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from agola_core import faultpoints
from agola_core.errors import AgolaError, BadRequestError, ConflictError, NotFoundError, UnavailableError
from agola_core.objectstorage.port import Payload
from agola_core.objectstorage.s3calls import Pending, S3Calls
from agola_core.objectstorage.s3checks import PART_SIZE, upload_checksum
from agola_core.objectstorage.s3url import Checksum

logger = logging.getLogger(__name__)

faultpoints.declare("s3.before-part", "s3.before-complete")

_PARTS_AT_ONCE = 4
_MAX_PARTS = 10_000
_ABANDONED = timedelta(hours=24)


class Uploader:
    """Writes whole objects.

    Args:
        calls: The connection.
        read: Yields an object's bytes, to compare with after an outcome in doubt.
    """

    def __init__(self, calls: S3Calls, read: Callable[[str], Iterator[bytes]]) -> None:
        self._calls = calls
        self._read = read
        self._swept = False

    def upload(self, key: str, what: str, data: Payload, *, if_absent: bool) -> int:
        """Write an object and return its size (see the port); a source that raises leaves nothing."""
        parts = _in_parts(data, self._calls.options.part_size)
        first = next(parts, b"")
        if len(first) < self._calls.options.part_size:
            self._put(key, what, first, if_absent=if_absent)
            return len(first)
        self._sweep()
        return _PartsUpload(self._calls, key, what).run(first, parts, if_absent, self._create)

    def _put(self, key: str, what: str, body: bytes, *, if_absent: bool) -> None:
        fields: dict[str, Any] = {"Key": key, "Body": body, **upload_checksum(self._calls.options.checksum, body)}
        if not if_absent:
            self._calls.call("put_object", what, **fields)
            return
        self._create(
            key,
            lambda: self._calls.call("put_object", what, repeat=False, IfNoneMatch="*", **fields),
            len(body),
            zlib.crc32(body),
        )

    def _create(self, key: str, attempt: Callable[[], Any], size: int, crc: int) -> None:
        """Make an attempt to create an object, and look before another one when its outcome is in doubt.

        A refusal is in doubt too: the HTTP client may have sent the request twice, the first time with success.
        """
        doubt: UnavailableError | None = None
        for number in range(1, self._calls.options.attempts + 1):
            try:
                attempt()
                return
            except UnavailableError as error:
                doubt = error
            except (ConflictError, NotFoundError):  # not found: the upload's parts were put together already
                if self._holds(key, size, crc):
                    return
                raise
            if self._holds(key, size, crc):
                return
            self._calls.pause(number)
        assert doubt is not None
        raise doubt

    def _holds(self, key: str, size: int, crc: int) -> bool:
        """Return whether an object has exactly these bytes; raise `ConflictError` when it has others."""
        found_size = found_crc = 0
        try:
            for piece in self._read(key):
                found_size, found_crc = found_size + len(piece), zlib.crc32(piece, found_crc)
        except NotFoundError:
            return False
        if (found_size, found_crc) != (size, crc):
            raise ConflictError(f"object {key!r} exists already")
        return True

    def _sweep(self) -> None:
        """Abort what killed processes left half uploaded, once in the life of this storage."""
        if self._swept:
            return
        self._swept = True
        oldest = datetime.now(UTC) - _ABANDONED
        prefix = self._calls.options.prefix
        try:
            answer = self._calls.call("list_multipart_uploads", "unfinished uploads", Prefix=prefix and f"{prefix}/")
            for upload in answer.get("Uploads", ()):
                if upload["Initiated"] < oldest:
                    logger.info("aborting an abandoned upload: key=%s", upload["Key"])
                    what = f"upload of {upload['Key']!r}"
                    self._calls.call("abort_multipart_upload", what, Key=upload["Key"], UploadId=upload["UploadId"])
        except AgolaError:  # not allowed, or not known to this server: its own life-cycle rules must do
            logger.debug("abandoned uploads were not looked for", exc_info=True)


class _PartsUpload:
    """One object that is uploaded in parts, some of them at the same time."""

    def __init__(self, calls: S3Calls, key: str, what: str) -> None:
        self._calls = calls
        self._key = key
        self._what = what
        self._pending: deque[Pending] = deque()
        self._etags: list[dict[str, Any]] = []
        self._sent = 0
        self._size = 0
        self._crc = 0

    def run(self, first: bytes, others: Iterator[bytes], if_absent: bool, create: Callable[..., None]) -> int:
        options = self._calls.options
        algorithm: dict[str, Any] = {"ChecksumAlgorithm": "CRC32"} if options.checksum is Checksum.CRC32 else {}
        upload = self._calls.call(
            "create_multipart_upload",
            self._what,
            Key=self._key,
            Metadata={PART_SIZE: str(options.part_size)},
            **algorithm,
        )
        upload_id = upload["UploadId"]
        try:
            self._send(upload_id, first)
            for part in others:
                self._send(upload_id, part)
            while self._pending:
                self._collect()
            self._complete(upload_id, if_absent, create)
        except BaseException:
            self._abort(upload_id)
            raise
        return self._size

    def _send(self, upload_id: str, part: bytes) -> None:
        if len(self._pending) >= _PARTS_AT_ONCE:
            self._collect()
        self._sent += 1
        if self._sent > _MAX_PARTS:
            size = self._calls.options.part_size
            raise BadRequestError(
                f"{self._what} has more than {_MAX_PARTS} parts of {size} bytes: set part_size higher"
            )
        self._size, self._crc = self._size + len(part), zlib.crc32(part, self._crc)
        faultpoints.reach("s3.before-part")
        self._pending.append(
            self._calls.begin(
                "upload_part",
                self._what,
                Key=self._key,
                UploadId=upload_id,
                PartNumber=self._sent,
                Body=part,
                **upload_checksum(self._calls.options.checksum, part),
            )
        )

    def _collect(self) -> None:
        answer = self._pending.popleft().result()
        known = {name: answer[name] for name in ("ETag", "ChecksumCRC32") if answer.get(name)}
        self._etags.append({"PartNumber": len(self._etags) + 1, **known})

    def _complete(self, upload_id: str, if_absent: bool, create: Callable[..., None]) -> None:
        fields: dict[str, Any] = {
            "Key": self._key,
            "UploadId": upload_id,
            "MultipartUpload": {"Parts": self._etags},
            **({"IfNoneMatch": "*"} if if_absent else {}),
        }
        faultpoints.reach("s3.before-complete")
        create(
            self._key,
            lambda: self._calls.call("complete_multipart_upload", self._what, repeat=False, **fields),
            self._size,
            self._crc,
        )

    def _abort(self, upload_id: str) -> None:
        for pending in self._pending:
            pending.cancel()
        try:
            self._calls.call("abort_multipart_upload", self._what, Key=self._key, UploadId=upload_id)
        except AgolaError:
            logger.warning("an upload in parts stays until it is swept: key=%s", self._key, exc_info=True)


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
