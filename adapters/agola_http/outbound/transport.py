"""The client's calls to a service, with retries of idempotent requests and the errors that the service reported."""

from __future__ import annotations

import math
import random
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path

import httpx2

from agola_core.errors import AgolaError, BadRequestError, DeadlineError, UnavailableError
from agola_http.outbound.connection import Connection, Params
from agola_http.protocol.errors import ERROR_HEADER, restore

IDEMPOTENT = {"GET", "HEAD"}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_MAX_CONNECTIONS = 100


class Transport(Connection):
    """Pooled connections to one service. Thread-safe.

    Args:
        url: The service, without the interface's path.
        token: Sent as a bearer token; "" sends none. Never part of an error.
        timeout: Seconds that a call may take in total, and that a stream may be silent.
        retries: How often a call that changes nothing is retried while the service is unavailable.
        authority: A PEM file of the authority that signed the service's certificate, in addition to the known ones.

    Raises:
        BadRequestError: The URL is malformed, or the authority's file cannot be used.
    """

    def __init__(
        self, url: str, token: str = "", *, timeout: float = 30.0, retries: int = 3, authority: Path | None = None
    ) -> None:
        self.url = _checked(url)
        self.retries = retries
        context = None if authority is None else _believing(authority)
        super().__init__(
            self.url, self.url, token=token, timeout=timeout, max_connections=_MAX_CONNECTIONS, context=context
        )

    def call(
        self,
        method: str,
        path: str,
        params: Params = (),
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        patient: bool = False,
    ) -> httpx2.Response:
        """Return the whole answer to a call.

        Args:
            method: The method; calls that change nothing are retried while the service is unavailable.
            path: The path.
            params: The query's parameters.
            content: The body of the request.
            headers: Further headers.
            patient: The service may work on the body for any time: the timeout applies to connecting only.

        Raises:
            AgolaError: The error that the service reported.
            UnavailableError: The service cannot be reached, or the connection broke.
            DeadlineError: The time was over.
        """
        deadline = math.inf if patient else time.monotonic() + self._timeout
        attempts = 1 + (self.retries if method in IDEMPOTENT else 0)
        for attempt in range(attempts):
            try:
                left = deadline - time.monotonic()
                return self.request(method, path, params=params, content=content, headers=headers, seconds=left)
            except DeadlineError:
                raise
            except UnavailableError:
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - jitter
                if attempt + 1 == attempts or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
        raise AssertionError

    def pieces(
        self, path: str, params: Params = (), *, endless: bool = False
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Open the stream that a GET answers with (see `stream`); it is closed when the block ends."""
        return closing(self.stream(path, params, endless=endless)[1])  # type: ignore[type-var]

    def _refusal(self, response: httpx2.Response, body: bytes) -> AgolaError:
        return restore(response.status_code, body, response.headers.get(ERROR_HEADER, ""))

    def _failure(self, error: httpx2.HTTPError | httpx2.InvalidURL) -> AgolaError:
        if isinstance(error, httpx2.TimeoutException):
            return DeadlineError(f"{self.url} did not answer in time")
        if isinstance(error, httpx2.InvalidURL):
            return BadRequestError(f"not a URL: {error}")
        if isinstance(error, httpx2.ConnectError):
            return UnavailableError(f"{self.url} cannot be reached: {error}")
        return UnavailableError(f"the connection to {self.url} broke off: {error}")


def _believing(authority: Path) -> ssl.SSLContext:
    context = httpx2.create_ssl_context()
    try:
        context.load_verify_locations(authority)
    except OSError as error:
        raise BadRequestError(f"the authority {str(authority)!r} cannot be used: {error}") from error
    return context


def _checked(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise BadRequestError(f"not a URL: {url[:200]!r}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise BadRequestError(f"not the URL of a service: {url[:200]!r}; one is http://127.0.0.1:4000")
    return url.rstrip("/")
