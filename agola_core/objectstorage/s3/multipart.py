"""Multipart uploads, and the sweep of uploads that killed processes left unfinished."""

from __future__ import annotations

import logging
import threading
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from agola_core.errors import AgolaError, BadRequestError
from agola_core.objectstorage.s3.client import S3Client
from agola_core.objectstorage.s3.protocol import requests
from agola_core.objectstorage.s3.protocol.checksums import parts_headers, upload_checksum
from agola_core.runtime import faultpoints

logger = logging.getLogger(__name__)

faultpoints.declare("s3.before-part", "s3.before-complete")

_PARTS_AT_ONCE = 4
_MAX_PARTS = 10_000
_ABANDONED = timedelta(hours=24)


class MultipartUpload:
    """One object that is uploaded in parts, some of them at the same time; a context manager that aborts on an error.

    Args:
        client: Of the bucket.
        key: The object's.
        what: It, for messages.

    Attributes:
        size: Of what was given to it so far, in bytes.
        crc: The crc32 of that.
    """

    def __init__(self, client: S3Client, key: str, what: str) -> None:
        self.size = 0
        self.crc = 0
        self._client = client
        self._key = key
        self._what = what
        self._pending: deque[Future[requests.Part]] = deque()
        self._parts: list[requests.Part] = []
        self._sent = 0
        self._threads = ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="s3-parts")

    def __enter__(self) -> Self:
        """Begin it."""
        options = self._client.options
        headers = parts_headers(options.checksum, options.part_size)
        self._id = self._client.fetch(requests.create_upload(self._key, headers), requests.upload_id_of, self._what)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abort it after an error, when no part is under way any more: a late one would stay."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if error is None:
            return
        try:
            self._client.call(requests.abort_upload(self._key, self._id), self._what)
        except AgolaError:
            logger.warning("an upload in parts stays until it is swept: key=%s", self._key, exc_info=True)

    def send(self, part: bytes) -> None:
        """Upload the next part; waits while too many are under way."""
        if len(self._pending) >= _PARTS_AT_ONCE:
            self._collect()
        self._sent += 1
        if self._sent > _MAX_PARTS:
            size = self._client.options.part_size
            raise BadRequestError(
                f"{self._what} has more than {_MAX_PARTS} parts of {size} bytes: set part_size higher"
            )
        self.size += len(part)
        self.crc = zlib.crc32(part, self.crc)
        faultpoints.reach("s3.before-part")
        self._pending.append(self._threads.submit(self._upload, self._sent, part))

    def finish_parts(self) -> None:
        """Wait for all parts."""
        while self._pending:
            self._collect()

    def complete(self, *, if_absent: bool) -> None:
        """Make one object of the parts, in one attempt."""
        request = requests.complete_upload(self._key, self._id, self._parts, if_absent=if_absent)
        self._client.call(request, self._what, repeat=False)

    def _upload(self, number: int, part: bytes) -> requests.Part:
        checksum = upload_checksum(self._client.options.checksum, part)
        request = requests.upload_part(self._key, self._id, number, part, checksum)
        return self._client.fetch(request, requests.part_of, self._what)

    def _collect(self) -> None:
        self._parts.append(self._pending.popleft().result())


class Sweep:
    """Aborts uploads that killed processes left unfinished.

    Args:
        client: Of the bucket.
    """

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._done = False

    def run_once(self) -> None:
        """Abort what is older than a day below the storage's prefix, once in the life of this storage."""
        with self._lock:
            if self._done:
                return
            self._done = True
        try:
            self.run(datetime.now(UTC) - _ABANDONED)
        except AgolaError:  # not allowed, or not known to this server: its own life-cycle rules must do
            logger.debug("abandoned uploads were not looked for", exc_info=True)

    def run(self, oldest: datetime) -> None:
        """Abort what was begun before a moment."""
        for upload in self.unfinished():
            if upload.initiated < oldest:
                logger.info("aborting an abandoned upload: key=%s", upload.key)
                self._client.call(requests.abort_upload(upload.key, upload.upload_id), f"upload of {upload.key!r}")

    def unfinished(self) -> list[requests.Unfinished]:
        """Return the unfinished uploads below the storage's prefix."""
        prefix = self._client.options.prefix and f"{self._client.options.prefix}/"
        found: list[requests.Unfinished] = []
        request: requests.Request | None = requests.list_uploads()
        while request is not None:
            uploads, markers = self._client.fetch(request, requests.uploads_of, "unfinished uploads")
            found += (upload for upload in uploads if upload.key.startswith(prefix))
            request = requests.list_uploads(*markers) if markers is not None else None
        return found
