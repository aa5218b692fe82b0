"""Calls to an S3 server: s3fs's client, with deadlines and with retries of what may be repeated.

s3fs makes and keeps the connections; its own calls are passed by, since they retry everything, creations too.
All threads share fsspec's event loop, on which any number of requests wait at the same time.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from aiobotocore.session import AioSession
from fsspec.asyn import get_loop
from s3fs import S3FileSystem

from agola_core.errors import AgolaError, ClosedError, DeadlineError
from agola_core.objectstorage.s3.errors import translate
from agola_core.objectstorage.s3.outcomes import TruncatedBodyError, row_of
from agola_core.objectstorage.s3.url import S3Options, explicit_credentials
from agola_core.runtime.forks import Origin

logger = logging.getLogger(__name__)

T = TypeVar("T")
Answer = dict[str, Any]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_BYTES_PER_SECOND = 1 << 20


class S3Calls:
    """The connection to one bucket. Thread-safe.

    Args:
        options: The bucket, and how it is reached.
    """

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self._loop: asyncio.AbstractEventLoop = get_loop()
        self._slots = asyncio.Semaphore(options.concurrency)
        self._files = S3FileSystem(
            asynchronous=True,
            loop=self._loop,
            session=_session(options.profile),
            skip_instance_cache=True,
            use_listings_cache=False,
            endpoint_url=options.endpoint or None,
            anon=options.anonymous,
            client_kwargs=_client_options(options),
            config_kwargs=_config(options),
            **(explicit_credentials(options.credentials, os.environ) if options.credentials else {}),
        )
        self._closed = False
        self._origin = Origin("the storage")

    def call(self, operation: str, what: str, *, repeat: bool = True, **parameters: Any) -> Answer:
        """Send a request and return the answer; the bytes of a body lie under `Body`.

        Args:
            operation: Such as `get_object`.
            what: What it is about, for messages.
            repeat: Whether it may be sent again when it fails; False for what is not idempotent.
            parameters: Its parameters, without the bucket.

        Raises:
            AgolaError: As the port says of each method.
        """
        return self.begin(operation, what, repeat=repeat, **parameters).result()

    def begin(self, operation: str, what: str, *, repeat: bool = True, **parameters: Any) -> Pending:
        """Send a request (see `call`) and return at once."""
        return Pending(self._start(self._call(operation, what, repeat, parameters)))

    def pause(self, attempt: int) -> None:
        """Wait before another attempt, longer each time."""
        self._start(asyncio.sleep(_pause(attempt))).result()

    def close(self) -> None:
        """Close the connections; closing twice is harmless."""
        if not self._closed and self._origin.is_here:  # a forked child has no thread that would answer
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()

    async def _close(self) -> None:
        client = await self._files.set_session()
        await client.close()

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            self._origin.check()
            if self._closed:
                raise ClosedError("the storage was closed")
        except ClosedError:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _call(self, operation: str, what: str, repeat: bool, parameters: Answer) -> Answer:
        body = len(parameters.get("Body", b"")) / _BYTES_PER_SECOND
        end = self._loop.time() + self.options.timeout + body
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._slots, asyncio.timeout(self.options.request_timeout + body) as limit:
                    return await self._send(operation, parameters, limit)
            except Exception as error:
                ours = translate(error, what, self.options.bucket)
                if not repeat or attempt >= self.options.attempts or not row_of(error).again:
                    raise ours from error
                pause = _pause(attempt)
                if self._loop.time() + pause >= end:
                    raise DeadlineError(f"{ours} (tried {attempt} times)") from error
                logger.info("trying again: operation=%s attempt=%d error=%s", operation, attempt, ours)
            await asyncio.sleep(pause)

    async def _send(self, operation: str, parameters: Answer, limit: asyncio.Timeout) -> Answer:
        client = await self._files.set_session()
        answer: Answer = await getattr(client, operation)(Bucket=self.options.bucket, **parameters)
        if "Body" in answer:
            length = answer["ContentLength"]
            limit.reschedule(self._loop.time() + self.options.request_timeout + length / _BYTES_PER_SECOND)
            async with answer["Body"] as stream:
                answer["Body"] = await stream.read()
            if len(answer["Body"]) != length:
                raise TruncatedBodyError(f"{len(answer['Body'])} of {length} bytes came")
        return answer


class Pending:
    """A request on its way."""

    def __init__(self, future: Future[Answer]) -> None:
        self._future = future

    def result(self) -> Answer:
        """Wait for the answer and return it, or raise its error."""
        try:
            return self._future.result()
        except AgolaError:
            raise
        except BaseException:  # the caller was interrupted: nobody waits any more
            self._future.cancel()
            raise

    def cancel(self) -> None:
        """Give it up; whether it takes effect is not known."""
        self._future.cancel()


@functools.cache
def _session(profile: str) -> AioSession:
    """Return the session of a profile; it holds the AWS configuration and S3's large model, which all clients share."""
    return AioSession(profile=profile or None)


def _pause(attempt: int) -> float:
    longest: float = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing


def _client_options(options: S3Options) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if options.region or options.endpoint:
        ambient = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        found["region_name"] = options.region or ambient or "us-east-1"
    if not options.tls_verify or options.tls_ca:
        found["verify"] = options.tls_ca or False
    return found


def _config(options: S3Options) -> dict[str, Any]:
    return {
        "connect_timeout": options.connect_timeout,
        "read_timeout": options.request_timeout,
        "max_pool_connections": options.concurrency,
        "retries": {"total_max_attempts": 1},
        "s3": {"addressing_style": "path" if options.by_path else "virtual"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
