"""Calls to a server over HTTP: deadlines, retries of what may be repeated, streams, and the errors that it told."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from agola_core.errors import BadRequestError, DeadlineError, UnavailableError
from agola_http.protocol.errors import ERROR_HEADER, restore

IDEMPOTENT = {"GET", "HEAD"}
_RETRIED_STATUSES = {502, 503, 504}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_ERROR_BYTES = 64 * 1024

Params = Sequence[tuple[str, str]]


class Transport:
    """Kept connections to one server. Thread-safe.

    Args:
        url: The server, without the interface's path.
        token: Sent as a bearer token; "" sends none. Never part of an error.
        timeout: Seconds that a call may take in all, and a stream may bring nothing.
        retries: How often a call that may be repeated is repeated when the server is away.
        authority: A PEM file of the authority that signed the server's certificate, beside the known ones.

    Raises:
        BadRequestError: The URL is none, or the authority's file cannot be used.
    """

    def __init__(
        self, url: str, token: str = "", *, timeout: float = 30.0, retries: int = 3, authority: Path | None = None
    ) -> None:
        self.url = _checked(url)
        self._timeout = timeout
        self.retries = retries
        context = httpx2.create_ssl_context()
        if authority is not None:
            try:
                context.load_verify_locations(authority)
            except OSError as error:
                raise BadRequestError(f"the authority {str(authority)!r} cannot be used: {error}") from error
        self._client = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout,
            verify=context,
            follow_redirects=False,
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections. Closing twice is harmless."""
        self._client.close()

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
            method: The method; calls that change nothing are repeated while the server is away.
            path: The path.
            params: The query's parameters.
            content: The body.
            headers: Further headers.
            patient: Work on the body may take any time: the timeout is the connection's alone.

        Raises:
            AgolaError: What the server told.
            UnavailableError: It cannot be reached, or broke off.
            DeadlineError: The time was over.
        """
        deadline = math.inf if patient else time.monotonic() + self._timeout
        attempts = 1 + (self.retries if method in IDEMPOTENT else 0)
        for attempt in range(attempts):
            try:
                return self._once(method, path, params, content, headers, deadline)
            except DeadlineError:
                raise
            except UnavailableError:
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - jitter
                if attempt + 1 == attempts or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
        raise AssertionError

    @contextmanager
    def stream(
        self, method: str, path: str, params: Params = (), *, endless: bool = False
    ) -> Iterator[Iterator[bytes]]:
        """Open an answer and give its pieces; its errors are raised at once, a break while the pieces are read.

        Args:
            method: The method.
            path: The path.
            params: The query's parameters.
            endless: The stream may bring nothing for any time.
        """
        timeout = httpx2.Timeout(self._timeout, read=None) if endless else httpx2.Timeout(self._timeout)
        with _told(self.url), self._client.stream(method, path, params=list(params), timeout=timeout) as response:
            if not response.is_success:
                raise restore(response.status_code, _beginning(response), response.headers.get(ERROR_HEADER, ""))
            yield response.iter_raw()

    def _once(
        self,
        method: str,
        path: str,
        params: Params,
        content: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str] | None,
        deadline: float,
    ) -> httpx2.Response:
        with (
            _told(self.url),
            self._client.stream(
                method,
                path,
                params=list(params),
                content=content,
                headers=headers,
                timeout=httpx2.Timeout(self._timeout, read=None if deadline == math.inf else self._timeout),
            ) as response,
        ):
            body = bytearray()
            for piece in response.iter_raw():
                body += piece
                if time.monotonic() > deadline:
                    raise DeadlineError(f"{self.url} took longer than {self._timeout:g} s")
            if not response.is_success and response.status_code != 304:
                raise restore(response.status_code, bytes(body[:_ERROR_BYTES]), response.headers.get(ERROR_HEADER, ""))
            return httpx2.Response(response.status_code, headers=response.headers, content=bytes(body))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Make the errors of the connection errors of the taxonomy."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise DeadlineError(f"{url} did not answer in time") from error
    except httpx2.InvalidURL as error:
        raise BadRequestError(f"not a URL: {error}") from error
    except httpx2.ConnectError as error:
        raise UnavailableError(f"{url} cannot be reached: {error}") from error
    except httpx2.HTTPError as error:
        raise UnavailableError(f"the connection to {url} broke off: {error}") from error


def _beginning(response: httpx2.Response) -> bytes:
    body = b""
    for piece in response.iter_raw():
        body += piece
        if len(body) >= _ERROR_BYTES:
            break
    return body


def _checked(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise BadRequestError(f"not a URL: {url[:200]!r}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise BadRequestError(f"not the URL of a service: {url[:200]!r}; one is http://127.0.0.1:4000")
    return url.rstrip("/")
