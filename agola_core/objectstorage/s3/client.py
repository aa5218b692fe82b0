"""A client of one S3 bucket: signs requests, enforces deadlines, retries idempotent requests."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from agola_core.errors import ClosedError, DeadlineError
from agola_core.objectstorage.remote import backoff
from agola_core.objectstorage.s3.auth.configuration import Configuration
from agola_core.objectstorage.s3.auth.credentials import credentials_of
from agola_core.objectstorage.s3.auth.signing import EMPTY_HASH, Signer, encoded_query
from agola_core.objectstorage.s3.errors import translate
from agola_core.objectstorage.s3.outcomes import ResponseError, row_of
from agola_core.objectstorage.s3.protocol.connection import Answer, Connections
from agola_core.objectstorage.s3.protocol.endpoint import endpoint_of
from agola_core.objectstorage.s3.protocol.requests import Request, error_of
from agola_core.objectstorage.s3.url import S3Options
from agola_core.runtime.processes.forks import Origin, fork_safe

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BYTES_PER_SECOND = 1 << 20


class S3Client:
    """A client of one bucket. Thread-safe; each request runs in its caller's thread.

    Args:
        options: The bucket, and how it is reached.

    Raises:
        BadRequestError: The AWS configuration, or a file that an option names, cannot be used.
    """

    def __init__(self, options: S3Options) -> None:
        configuration = Configuration(os.environ, options.profile)
        self.options = options
        self.endpoint = endpoint_of(options, configuration)
        self._credentials = credentials_of(options, configuration)
        self._signer = Signer(self.endpoint.region)
        self._connections = Connections(self.endpoint.server, options.connect_timeout)
        self._slots = threading.BoundedSemaphore(options.concurrency)
        self._closed = fork_safe(threading.Event())
        self._origin = Origin("the storage")

    def call(self, request: Request, what: str, *, repeat: bool = True) -> Answer:
        """Send a request and return the whole response (see `fetch`)."""
        return self.fetch(request, _whole, what, repeat=repeat)

    def fetch(self, request: Request, parse: Callable[[Answer], T], what: str, *, repeat: bool = True) -> T:
        """Send a request and return its parsed response.

        Args:
            request: The request.
            parse: Parses the response.
            what: The subject, for messages.
            repeat: Whether it may be retried; False for requests that are not idempotent.

        Raises:
            AgolaError: As the port says of each method.
        """
        self._origin.check()
        body = len(request.body) / _BYTES_PER_SECOND
        end = time.monotonic() + self.options.timeout + body
        attempt = 0
        while True:
            attempt += 1
            if self._closed.is_set():
                raise ClosedError("the storage was closed")
            try:
                with self._slots:
                    return parse(self._send(request, self.options.request_timeout + body))
            except Exception as error:
                ours = translate(error, what, self.options.bucket)
                if not repeat or attempt >= self.options.attempts or not row_of(error).again:
                    raise ours from error
                pause = backoff(attempt)
                if time.monotonic() + pause >= end:
                    raise DeadlineError(f"{ours} (tried {attempt} times)") from error
                logger.info("trying again: method=%s attempt=%d error=%s", request.method, attempt, ours)
            self._closed.wait(pause)

    def pause(self, attempt: int) -> None:
        """Wait before another attempt."""
        self._closed.wait(backoff(attempt))

    def close(self) -> None:
        """Close the connections; closing twice is harmless."""
        self._closed.set()
        self._connections.close()

    def _send(self, request: Request, seconds: float) -> Answer:
        path, query = self.endpoint.path(request.key), encoded_query(request.query)
        headers = {"host": self.endpoint.host, **dict(request.headers)}
        if self._credentials is not None:
            payload_hash = hashlib.sha256(request.body).hexdigest() if request.body else EMPTY_HASH
            now = datetime.now(UTC)
            self._signer.sign(self._credentials.get(), request.method, path, query, headers, payload_hash, now)
        target = f"{path}?{query}" if query else path
        answer = self._connections.request(request.method, target, headers.items(), request.body, seconds)
        if answer.status >= 300:
            raise _refusal(answer)
        if not request.gives_object:  # S3 may find out after the status of success was sent that a request failed
            found = error_of(answer)
            if found is not None:
                raise ResponseError(500, *found)
        return answer


def _whole(answer: Answer) -> Answer:
    return answer


def _refusal(answer: Answer) -> ResponseError:
    code, message = error_of(answer) or ("", "")
    region = answer.headers.get("x-amz-bucket-region")
    if region and answer.status < 400:
        message = f"it is in {region}: set the option region. {message}".rstrip()
    return ResponseError(answer.status, code or str(answer.status), message)
