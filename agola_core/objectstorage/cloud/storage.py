"""Object storage on Google Cloud Storage and Azure Blob Storage (see `agola_core.objectstorage.port.ObjectStorage`).

Keys must be portable (`check_portable`). An object whose bytes are known before its upload carries their crc32 as
metadata; reads of the whole object verify it.
"""

from __future__ import annotations

import functools
import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from obstore.exceptions import BaseError

from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    UnavailableError,
)
from agola_core.objectstorage.cloud.client import CloudClient
from agola_core.objectstorage.cloud.errors import ServiceError, translate
from agola_core.objectstorage.cloud.outcomes import row_of
from agola_core.objectstorage.cloud.url import CloudOptions, parse_cloud_url
from agola_core.objectstorage.port import MAX_KEY_BYTES, ObjectInfo, Payload, check_portable, check_text, is_portable
from agola_core.objectstorage.remote import RangeReader, backoff, chunks, named
from agola_core.objectstorage.settle import Found, Written, look, settle

_RANGE = 8 * 1024 * 1024
_DAMAGED_TRIES = 2
_CRC = "agola_crc32"
_LAST = "\U0010ffff"


class CloudStorage:
    """Objects in a bucket or container.

    Args:
        scheme: gs or az.
        options: The bucket, and how it is reached.

    Raises:
        BadRequestError: There is no such bucket, or the options cannot be used.
        ForbiddenError: There are no credentials, or they do not allow it.
        UnavailableError: The service cannot be reached.
    """

    def __init__(self, scheme: str, options: CloudOptions) -> None:
        self._name = f"{scheme}://{options.bucket}/{options.prefix}".rstrip("/")
        self._options = options
        self._prefix = f"{options.prefix}/" if options.prefix else ""
        if options.prefix:
            check_portable(options.prefix)
        self._client = CloudClient(scheme, options)
        self._open_bucket()

    @classmethod
    def from_url(cls, url: str) -> CloudStorage:
        """Open the storage at a `gs://` or `az://` URL (see `url`)."""
        return cls(url.partition("://")[0], parse_cloud_url(url))

    def __repr__(self) -> str:
        """Show the location, without credentials."""
        return f"CloudStorage({self._name!r})"

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes (see the port)."""
        if offset or length is not None:
            return self.read_range(path, offset, length)[0]
        for _ in range(_DAMAGED_TRIES):
            body, _etag, attributes = self._get(path, {})
            noted = attributes.get(_CRC)
            if noted is None or noted == f"{zlib.crc32(body):08x}":
                return body
        raise UnavailableError(f"{named(path)}: the storage gives other bytes than it got")

    def read_range(self, path: str, offset: int, length: int | None, etag: str = "") -> tuple[bytes, str]:
        """Return bytes of an object and its ETag, by one request (see `RangeSource`)."""
        wanted = {"offset": offset} if length is None else (offset, offset + max(length, 1))
        options = {"range": wanted, **({"if_match": etag} if etag else {})}
        try:
            body, found, _ = self._get(path, options)
        except ConflictError as error:
            raise NotFoundError(f"{named(path)} was replaced while it was read") from error
        except UnavailableError:
            if self.stat(path).size <= offset:  # services answer so differently that it is asked
                return b"", etag
            raise
        return body if length is None else body[:length], found

    def open_reader(self, path: str) -> RangeReader:
        """Return a reader of ranges of one object; it asks nothing before the first one (see the port)."""
        self._key(path)
        return RangeReader(self, path)

    def open_stream(self, path: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object's bytes in pieces (see the port)."""
        meta = self._head(path)
        if meta["size"] <= _RANGE:
            return chunks(self.read(path), chunk_size)
        reader = RangeReader(self, path, meta["e_tag"] or "")
        ranges = (reader.read(offset, _RANGE) for offset in range(0, meta["size"], _RANGE))
        return itertools.chain.from_iterable(chunks(body, chunk_size) for body in ranges)

    def write(self, path: str, data: Payload, *, if_absent: bool = False) -> int:
        """Write a whole object (see the port).

        A creation in several parts checks for an existing object before the upload; the service itself does not check.
        """
        key, what = self._key(path), named(path)
        if if_absent and self._exists(path):
            raise ConflictError(f"{what} exists already")
        if isinstance(data, bytes | bytearray | memoryview):
            body, others = bytes(data), None
        else:
            body, others = _first(iter(data), self._options.part_size)
        if others is not None:
            return self._write_parts(key, what, itertools.chain((body,), others))
        written = Written(key, what, len(body), zlib.crc32(body))
        attributes = {_CRC: f"{written.crc:08x}"}
        if len(body) > self._options.part_size and not if_absent:
            return self._write_parts(key, what, chunks(body, self._options.part_size), attributes)
        mode = "create" if if_absent else "overwrite"

        def attempt() -> None:
            self._client.call(
                lambda store: store.put(key, body, mode=mode, use_multipart=False, attributes=attributes),
                what,
                repeat=False,
            )

        self._settle(written, attempt, if_absent)
        return len(body)

    def stat(self, path: str) -> ObjectInfo:
        """Return an object's metadata (see the port)."""
        meta = self._head(path)
        return ObjectInfo(path, meta["size"], meta["last_modified"])

    def delete(self, path: str) -> None:
        """Delete an object (see the port); checks first that it exists."""
        self._head(path)
        key = self._key(path)
        try:
            self._client.call(lambda store: store.delete(key), named(path))
        except NotFoundError:  # an attempt before had done it
            return
        except UnavailableError:
            if self._is_there(path):  # or it is not known
                raise

    def list(self, prefix: str = "", start_after: str = "", recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix (see the port); the service lists whole directories."""
        check_text(prefix, start_after)
        whole = self._prefix + prefix
        directory = whole.rpartition("/")[0]
        found = self._listed(directory, whole, start_after) if recursive else self._level(directory)
        for key, size, modified in found:
            path = key.removeprefix(self._prefix)
            if path.startswith(prefix) and path.encode() > start_after.encode():
                yield ObjectInfo(path, size, modified)
            elif key > whole + _LAST:
                return

    def close(self) -> None:
        """Take no more requests; closing twice is harmless."""
        self._client.close()

    def _listed(self, directory: str, whole: str, start_after: str) -> Iterator[tuple[str, int, Any]]:
        what = f"the list of {whole!r}"
        after = max(self._prefix + start_after if start_after else "", _before(whole))
        while True:
            page, pages = self._client.call(functools.partial(_pages, directory=directory, after=after), what)
            while page:
                for meta in sorted(page, key=lambda meta: meta["path"].encode()):
                    yield meta["path"], meta["size"], meta["last_modified"]
                after = max(after, page[-1]["path"])
                try:
                    page = next(pages, None)
                except BaseError:  # begun again after what came, with retries
                    break
            else:
                return

    def _level(self, directory: str) -> Iterator[tuple[str, int, Any]]:
        result = self._client.call(
            lambda store: store.list_with_delimiter(directory or None), f"the list of {directory!r}"
        )
        objects = ((meta["path"], meta["size"], meta["last_modified"]) for meta in result["objects"])
        prefixes = ((f"{prefix}/", 0, None) for prefix in result["common_prefixes"])
        yield from sorted(itertools.chain(objects, prefixes), key=lambda entry: entry[0].encode())

    def _key(self, path: str) -> str:
        check_portable(path)
        if len((self._prefix + path).encode()) > MAX_KEY_BYTES:
            raise BadRequestError(f"object key {path[:80]!r} is longer than {MAX_KEY_BYTES} bytes with its prefix")
        return self._prefix + path

    def _get(self, path: str, options: dict[str, Any]) -> tuple[bytes, str, dict[str, str]]:
        key = self._key(path)

        def send(store: Any) -> tuple[bytes, str, dict[str, str]]:
            result = store.get(key, options=options)
            return bytes(result.bytes()), result.meta["e_tag"] or "", dict(result.attributes)

        return self._client.call(send, named(path))

    def _head(self, path: str) -> Any:
        key = self._key(path)
        return self._client.call(lambda store: store.head(key), named(path))

    def _exists(self, path: str) -> bool:
        try:
            self._head(path)
        except NotFoundError:
            return False
        return True

    def _is_there(self, path: str) -> bool:
        """Return False only if an object certainly does not exist."""
        try:
            self._head(path)
        except NotFoundError:
            return False
        except AgolaError:
            return True
        return True

    def _write_parts(
        self, key: str, what: str, pieces: Iterable[bytes], attributes: dict[str, str] | None = None
    ) -> int:
        size = crc = 0

        def counted() -> Iterator[bytes]:
            nonlocal size, crc
            for piece in pieces:
                size, crc = size + len(piece), zlib.crc32(piece, crc)
                yield bytes(piece)

        try:
            self._client.uploading.put(
                key,
                counted(),
                attributes=attributes,
                use_multipart=True,
                chunk_size=self._options.part_size,
                max_concurrency=4,
            )
        except BaseError as error:
            found = ServiceError.of(error)
            ours = translate(found, what, self._options.bucket)
            if isinstance(ours, UnavailableError) and self._found(Written(key, what, size, crc)) is Found.OURS:
                return size
            raise ours from found
        return size

    def _settle(self, written: Written, attempt: Callable[[], None], if_absent: bool) -> None:
        settle(
            written,
            attempt,
            lambda: self._found(written),
            row_of,
            lambda number: time.sleep(backoff(number)),
            attempts=self._options.attempts,
            if_absent=if_absent,
        )

    def _found(self, written: Written) -> Found | None:
        path = written.key.removeprefix(self._prefix)

        def head() -> tuple[int, str]:
            meta = self._head(path)
            return meta["size"], meta["e_tag"] or ""

        def read(offset: int, length: int, etag: str) -> bytes:
            return self._get(path, {"range": (offset, offset + length), **({"if_match": etag} if etag else {})})[0]

        return look(written, head, read)

    def _open_bucket(self) -> None:
        where = f"storage {self._name}"
        directory = self._options.prefix or None
        try:
            self._client.call(lambda store: next(iter(store.list(directory, chunk_size=1)), None), where)
        except UnavailableError as error:
            if getattr(error.__cause__, "status", 0) in {400, 404}:
                raise BadRequestError(str(error)) from error
            raise
        except NotFoundError as error:
            raise BadRequestError(f"{where}: bucket {self._options.bucket!r} does not exist") from error


def _first(pieces: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes] | None]:
    """Return the first bytes of a stream and the rest of it; None for the rest if nothing is left."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) > size:
            return bytes(held), pieces
    return bytes(held), None


def _pages(store: Any, directory: str, after: str) -> tuple[Any, Iterator[Any]]:
    """Return the first page of a listing (None if empty) and an iterator over the remaining pages."""
    offset = after if is_portable(after) else None
    pages = iter(store.list(directory or None, offset=offset, chunk_size=1000))
    return next(pages, None), pages


def _before(key: str) -> str:
    """Return a text that sorts before all keys that begin with a key, and after most smaller ones; or ""."""
    if not key or not key[-1].isascii() or not key[-1].isalnum() or key[-1] == "0":
        return ""
    return key[:-1] + chr(ord(key[-1]) - 1)
