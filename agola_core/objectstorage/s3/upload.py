"""Uploads to S3: small objects in one request, large ones in parts; creations that are never repeated blindly."""

from __future__ import annotations

import enum
import logging
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from agola_core.errors import AgolaError, BadRequestError, ConflictError, NotFoundError, UnavailableError
from agola_core.objectstorage.port import Payload
from agola_core.objectstorage.s3.checksums import PART_SIZE, upload_checksum
from agola_core.objectstorage.s3.client import Pending, S3Calls
from agola_core.objectstorage.s3.outcomes import Outcome, row_of
from agola_core.objectstorage.s3.url import Checksum
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("s3.before-part", "s3.before-complete")

_PARTS_AT_ONCE = 4
_MAX_PARTS = 10_000
_LOOK = 8 * 1024 * 1024
_ABANDONED = timedelta(hours=24)


class _Found(enum.Enum):
    """What is there after a write in doubt."""

    OURS = "exactly the bytes that were written"
    OTHER = "an object with other bytes"
    NOTHING = "no object"


class Uploader:
    """Writes whole objects.

    Args:
        calls: The connection.
    """

    def __init__(self, calls: S3Calls) -> None:
        self._calls = calls
        self._swept = False

    def upload(self, key: str, what: str, data: Payload, *, if_absent: bool) -> int:
        """Write an object and return its size (see the port); a source that raises leaves nothing."""
        parts = _in_parts(data, self._calls.options.part_size)
        first = next(parts, b"")
        if len(first) < self._calls.options.part_size:
            self._put(key, what, first, if_absent=if_absent)
            return len(first)
        self._sweep()
        upload = _PartsUpload(self._calls, key, what)
        try:
            return upload.run(first, parts, if_absent, self._settle)
        except UnavailableError:  # it was aborted since: what is there now stays
            if upload.complete and self._found(upload.written, repeat=False) is _Found.OURS:
                return upload.written.size
            raise

    def _put(self, key: str, what: str, body: bytes, *, if_absent: bool) -> None:
        fields: dict[str, Any] = {"Key": key, "Body": body, **upload_checksum(self._calls.options.checksum, body)}
        written = _Written(key, what, len(body), zlib.crc32(body))
        if if_absent:
            fields["IfNoneMatch"] = "*"
            self._settle(written, lambda: self._calls.call("put_object", what, repeat=False, **fields), if_absent)
            return
        try:
            self._calls.call("put_object", what, **fields)
        except UnavailableError as error:
            found = self._found(written, repeat=False)
            if found is not _Found.OURS:
                raise _told(error, found) from error.__cause__

    def _settle(self, written: _Written, attempt: Callable[[], Any], if_absent: bool) -> None:
        """Make an attempt that may not be repeated blindly, and look before another one and before anything is told.

        A refusal is looked at too: the HTTP client sends a PUT a second time by itself when a kept connection breaks,
        so the answer may be to the second one, and the first one was applied.
        """
        attempts = self._calls.options.attempts
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
            self._calls.pause(number)

    def _found(self, written: _Written, *, repeat: bool) -> _Found | None:
        """Look whether an object has exactly the bytes that were written; None when that cannot be told.

        Args:
            written: What was written.
            repeat: Whether requests that fail are sent again.
        """
        what, crc = written.what, 0
        try:
            head = self._calls.call("head_object", what, repeat=repeat, Key=written.key)
            if head["ContentLength"] != written.size:
                return _Found.OTHER
            for offset in range(0, written.size, _LOOK):
                part: dict[str, Any] = {"Range": f"bytes={offset}-{offset + _LOOK - 1}", "IfMatch": head["ETag"]}
                crc = zlib.crc32(
                    self._calls.call("get_object", what, repeat=repeat, Key=written.key, **part)["Body"], crc
                )
        except NotFoundError:
            return _Found.NOTHING
        except ConflictError:  # replaced while it was looked at
            return _Found.OTHER
        except AgolaError:
            return None
        return _Found.OURS if crc == written.crc else _Found.OTHER

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


def _told(error: UnavailableError, found: _Found | None) -> UnavailableError:
    """Return what a caller is told of a write that failed, and after which something, or None, was found."""
    if found is None and row_of(error.__cause__ or error).outcome is Outcome.UNKNOWN:
        return type(error)(f"{error}; whether it was written cannot be told")
    return error


class _Written(NamedTuple):
    """What an object is to be, as far as it was sent."""

    key: str
    what: str
    size: int
    crc: int


class _PartsUpload:
    """One object that is uploaded in parts, some of them at the same time.

    Attributes:
        written: What was sent so far.
        complete: Whether all of it was sent.
    """

    def __init__(self, calls: S3Calls, key: str, what: str) -> None:
        self.written = _Written(key, what, 0, 0)
        self.complete = False
        self._calls = calls
        self._key = key
        self._what = what
        self._pending: deque[Pending] = deque()
        self._etags: list[dict[str, Any]] = []
        self._sent = 0

    def run(
        self,
        first: bytes,
        others: Iterator[bytes],
        if_absent: bool,
        settle: Callable[[_Written, Callable[[], Any], bool], None],
    ) -> int:
        """Upload, and return the size.

        Args:
            first: The first part.
            others: The parts after it.
            if_absent: Refuse to replace an object.
            settle: Makes the attempt that puts the parts together, and knows what came of it (see `Uploader`).
        """
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
            self.complete = True
            faultpoints.reach("s3.before-complete")
            condition = {"IfNoneMatch": "*"} if if_absent else {}
            settle(self.written, lambda: self._complete(upload_id, condition), if_absent)
        except BaseException:
            self._abort(upload_id)
            raise
        return self.written.size

    def _send(self, upload_id: str, part: bytes) -> None:
        if len(self._pending) >= _PARTS_AT_ONCE:
            self._collect()
        self._sent += 1
        if self._sent > _MAX_PARTS:
            size = self._calls.options.part_size
            raise BadRequestError(
                f"{self._what} has more than {_MAX_PARTS} parts of {size} bytes: set part_size higher"
            )
        size, crc = self.written.size + len(part), zlib.crc32(part, self.written.crc)
        self.written = self.written._replace(size=size, crc=crc)
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

    def _complete(self, upload_id: str, condition: dict[str, Any]) -> None:
        parts = {"Parts": self._etags}
        self._calls.call(
            "complete_multipart_upload",
            self._what,
            repeat=False,
            Key=self._key,
            UploadId=upload_id,
            MultipartUpload=parts,
            **condition,
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
