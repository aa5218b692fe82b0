"""Object storage on any S3 endpoint.

Every call is one request or a few, each with a deadline. Listings are never cached. Uploads carry checksums that
the server checks; whole reads are checked against them, and every read against the length that was announced.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime

from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
)
from agola_core.objectstorage.port import MAX_KEY_BYTES, ObjectInfo, Payload, check_text
from agola_core.objectstorage.remote import RangeReader, chunks, named
from agola_core.objectstorage.s3.client import S3Client
from agola_core.objectstorage.s3.outcomes import status_of
from agola_core.objectstorage.s3.protocol import requests
from agola_core.objectstorage.s3.protocol.checksums import ContentCheck
from agola_core.objectstorage.s3.protocol.connection import Answer, TruncatedBodyError
from agola_core.objectstorage.s3.upload import Uploader
from agola_core.objectstorage.s3.url import S3Options, parse_s3_url

_RANGE = 8 * 1024 * 1024
_DAMAGED_TRIES = 4


class S3Storage:
    """Objects in a bucket (see `agola_core.objectstorage.port.ObjectStorage`).

    Args:
        options: The bucket, and how it is reached.

    Raises:
        BadRequestError: There is no such bucket, or it is elsewhere.
        ForbiddenError: There are no credentials, or wrong ones, or they do not allow it.
        UnavailableError: The endpoint cannot be reached.
    """

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._prefix = f"{options.prefix}/" if options.prefix else ""
        self._client = S3Client(options)
        self._uploader = Uploader(self._client)
        try:
            self._open_bucket()
        except BaseException:
            self._client.close()
            raise

    @classmethod
    def from_url(cls, url: str) -> S3Storage:
        """Open the storage at an `s3://` URL (see `url`)."""
        return cls(parse_s3_url(url))

    def __repr__(self) -> str:
        """Show the location, without credentials."""
        return f"S3Storage({self._options.location!r})"

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes (see the port)."""
        if offset or length is not None:
            return self.read_range(path, offset, length)[0]
        for attempt in range(1, _DAMAGED_TRIES + 1):
            answer = self._client.call(requests.get_object(self._key(path)), named(path))
            check = ContentCheck(answer, len(answer.body))
            check.update(answer.body)
            try:
                check.finish()
                return answer.body
            except TruncatedBodyError as error:
                if attempt == _DAMAGED_TRIES:
                    raise UnavailableError(f"{named(path)}: the storage gives other bytes than it got") from error
            self._client.pause(attempt)  # rclone tells an object's checksum a moment after its bytes
        raise AssertionError

    def read_range(self, path: str, offset: int, length: int | None, etag: str = "") -> tuple[bytes, str]:
        """Return bytes of an object and its ETag, by one request (see `RangeSource`)."""
        last = None if length is None else offset + max(length, 1) - 1
        try:
            answer = self._client.call(requests.get_object(self._key(path), offset, last, etag), named(path))
        except ConflictError as error:
            raise NotFoundError(f"{named(path)} was replaced while it was read") from error
        except UnavailableError as error:
            if status_of(error.__cause__) == 416:  # the object ends before
                return b"", etag
            raise
        body = answer.body
        if not answer.headers.get("content-range", "").startswith(f"bytes {offset}-"):  # the server knows no ranges
            body = body[offset:]
        return body if length is None else body[:length], answer.headers.get("etag", "")

    def open_reader(self, path: str) -> RangeReader:
        """Return a reader of ranges of one object; it asks nothing before the first one (see the port)."""
        self._key(path)
        return RangeReader(self, path)

    def open_stream(self, path: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in pieces (see the port)."""
        answer = self._head(path)
        if _size(answer) <= _RANGE:
            return chunks(self.read(path), chunk_size)
        return self._stream(path, answer, chunk_size)

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        """Write a whole object (see the port)."""
        key = self._key(path)
        if if_absent and self._exists(path):  # some servers ignore the condition of the upload itself
            raise ConflictError(f"{named(path)} exists already")
        return self._uploader.upload(key, named(path), data, if_absent=if_absent)

    def stat(self, path: str) -> ObjectInfo:
        """Return an object's metadata (see the port)."""
        answer = self._head(path)
        return ObjectInfo(path, _size(answer), _modified(answer))

    def delete(self, path: str) -> None:
        """Delete an object (see the port); S3 does not tell whether there was one, so it is asked first."""
        self._head(path)
        try:
            self._client.call(requests.delete_object(self._key(path)), named(path))
        except UnavailableError:
            if self._is_there(path):  # or it is not known
                raise

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix (see the port)."""
        check_text(prefix, start_after)
        after = self._prefix + start_after if start_after else ""
        delimiter, token = "" if recursive else "/", ""
        while True:
            request = requests.list_objects(self._prefix + prefix, after, delimiter, token)
            page = self._client.fetch(request, requests.page_of, f"the list of {prefix!r}")
            found = [ObjectInfo(key.removeprefix(self._prefix), size, time) for key, size, time in page.objects]
            found += (ObjectInfo(beginning.removeprefix(self._prefix), 0, None) for beginning in page.prefixes)
            for info in sorted(found, key=lambda info: info.path.encode()):
                if info.path.encode() > start_after.encode():
                    yield info
            token = page.token
            if not token:
                return

    def close(self) -> None:
        """Close the connections; closing twice is harmless."""
        self._client.close()

    def _key(self, path: str) -> str:
        if not path:
            raise BadRequestError("object key '' is empty")
        check_text(path)
        if len((self._prefix + path).encode()) > MAX_KEY_BYTES:
            raise BadRequestError(f"object key {path[:80]!r} is longer than {MAX_KEY_BYTES} bytes with its prefix")
        return self._prefix + path

    def _head(self, path: str) -> Answer:
        key = self._key(path)
        try:
            return self._client.fetch(requests.head_object(key), requests.head_of, named(path))
        except ForbiddenError:  # the answer to a HEAD has no body that says why
            self._client.call(requests.get_object(key, 0, 0), named(path))
            raise

    def _exists(self, path: str) -> bool:
        try:
            self._head(path)
        except NotFoundError:
            return False
        return True

    def _is_there(self, path: str) -> bool:
        """Return False when an object is certainly not there; asked once, after a deletion whose outcome is unknown."""
        try:
            self._client.call(requests.head_object(self._key(path)), named(path), repeat=False)
        except NotFoundError:
            return False
        except AgolaError:
            return True
        return True

    def _stream(self, path: str, head: Answer, chunk_size: int) -> Iterator[bytes]:
        size = _size(head)
        check = ContentCheck(head, size)
        reader = RangeReader(self, path, head.headers.get("etag", ""))
        for offset in range(0, size, _RANGE):
            body = reader.read(offset, _RANGE)
            check.update(body)
            yield from chunks(body, chunk_size)
        try:
            check.finish()
        except TruncatedBodyError as error:
            raise UnavailableError(f"{named(path)}: the storage gives other bytes than it got") from error

    def _open_bucket(self) -> None:
        where = f"storage {self._options.location}"
        try:
            self._client.fetch(requests.list_objects(self._prefix, limit=1), requests.page_of, where)
        except UnavailableError as error:
            status = status_of(error.__cause__)
            if status not in {301, 307, 400, 404}:
                raise
            if status != 404 or not self._options.create_bucket:
                raise BadRequestError(str(error)) from error
            self._create_bucket(where)
        except NotFoundError as error:
            raise BadRequestError(f"{where}: there is no S3 server") from error

    def _create_bucket(self, where: str) -> None:
        region = self._options.region
        place = "" if region == "us-east-1" else region
        try:
            self._client.call(requests.create_bucket(place), where, repeat=False)
        except (UnavailableError, ForbiddenError) as error:
            if status_of(error.__cause__) != 409:  # 409: another process was first
                raise


def _size(answer: Answer) -> int:
    return int(answer.headers.get("content-length", 0))


def _modified(answer: Answer) -> datetime:
    return parsedate_to_datetime(answer.headers["last-modified"])
