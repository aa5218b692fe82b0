"""Pooled HTTP connections to one peer, with total deadlines, bounded answers and streamed bodies.

A peer is not trusted with our memory or our threads: answers come as they are (nothing is decompressed), those that
are read whole have a size, and every wait has a total deadline. The executor protocol uses them as they are;
`transport` is the client's, which repeats what may be repeated and raises what the service raised.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TypeVar

import httpx2
import msgspec

from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import AgolaError, BadRequestError, UnavailableError
from agola_http.outbound.deadlines import DeadlineTransport
from agola_http.outbound.waiting import within
from agola_http.protocol.errors import BY_STATUS

# A peer that has vanished is noticed in half a minute, also where a quiet stream has no read timeout.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]
_MAX_MESSAGE = 4096
_MAX_ERROR_BYTES = 64 * 1024
_CONNECT_SECONDS = 5.0
_MAX_CONNECTIONS = 64

Params = Iterable[tuple[str, str]]
T = TypeVar("T")


class Connection:
    """Pooled connections to one peer; every call raises the errors of `agola_core.errors`.

    Args:
        url: The base URL of all paths.
        peer: The name of the peer in errors.
        token: Sent as a bearer token; "" for none.
        timeout: Seconds for each of these: to connect, to receive a response's head, to receive a piece of a stream.
        answer_bytes: The largest response that is read whole, in bytes.
        max_connections: The most connections at the same time.
        headers: Sent with every request.
        server_name: The host of the expected certificate, if the URL contains an address.
        context: The TLS context; None trusts the known authorities.
    """

    def __init__(
        self,
        url: str,
        peer: str,
        *,
        token: str = "",
        timeout: float = 30.0,
        answer_bytes: int = 1 << 28,
        max_connections: int = _MAX_CONNECTIONS,
        headers: Mapping[str, str] | None = None,
        server_name: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._peer = peer
        self._timeout = timeout
        self._answer_bytes = answer_bytes
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx2.Client(
            base_url=url.rstrip("/"),
            headers={"Accept-Encoding": "identity", **(headers or {}), **authorization},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            follow_redirects=False,
            trust_env=False,
            transport=DeadlineTransport(
                url, socket_options=_KEEPALIVE, max_connections=max_connections, context=context
            ),
        )

    def show(self, name: str, value: str) -> None:
        """Send this header with every request from now on."""
        self._client.headers[name] = value

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> httpx2.Response:
        """Return the answer to a request: one of 2xx, or 304.

        Args:
            method: The method.
            path: The path.
            params: The query's parameters.
            content: The body; sending an iterable has no time limit.
            headers: Further headers.
            seconds: Seconds that it may take in total; infinite for no limit, None for the connection's timeout.

        Raises:
            UnavailableError: The peer cannot be reached, takes too long, or is in trouble or in maintenance.
            APIError: The peer refused the request; the type follows its status.
        """
        limit = self._timeout if seconds is None else seconds
        read = None if limit == math.inf else self._timeout
        in_all = limit if limit != math.inf and (content is None or isinstance(content, bytes)) else None
        try:
            with (
                within(in_all),
                self._client.stream(
                    method,
                    path,
                    params=list(params),
                    content=content,
                    headers=headers,
                    timeout=httpx2.Timeout(self._timeout, connect=min(self._timeout, _CONNECT_SECONDS), read=read),
                    extensions=self._extensions,
                ) as response,
            ):
                body = self._whole(response)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._failure(error) from error
        self._check(response, body)
        return httpx2.Response(response.status_code, headers=response.headers, content=body)

    def decoded(self, path: str, record: type[T]) -> T:
        """Return the record in the response to a GET."""
        response = self.request("GET", path)
        try:
            return msgspec.json.decode(response.content, type=record)
        except DECODE_ERRORS as error:
            raise UnavailableError(f"{self._peer} answers what cannot be read: {error}") from error

    def stream(
        self, path: str, params: Params = (), *, endless: bool = False
    ) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """Return the headers and the body of the response to a GET; raises an error response at once.

        Args:
            path: The path.
            params: The query's parameters.
            endless: Whether silence is allowed, also before the head, which is sent with the first piece.
        """
        timeout = httpx2.Timeout(self._timeout, read=None) if endless else httpx2.USE_CLIENT_DEFAULT
        opened = self._client.stream("GET", path, params=list(params), timeout=timeout, extensions=self._extensions)
        try:
            with within(None if endless else self._timeout):
                response = opened.__enter__()  # left by `_pieces`, whose caller reads as long as it likes
        except httpx2.HTTPError as error:
            raise self._failure(error) from error
        try:
            if not response.is_success:
                with within(self._timeout):
                    self._check(response, _beginning(response))
            self._check_encoding(response)
        except httpx2.HTTPError as error:
            opened.__exit__(None, None, None)
            raise self._failure(error) from error
        except BaseException:
            opened.__exit__(None, None, None)
            raise
        return response.headers, self._pieces(opened, response, None if endless else self._timeout)

    def _pieces(
        self, opened: AbstractContextManager[httpx2.Response], response: httpx2.Response, seconds: float | None
    ) -> Iterator[bytes]:
        pieces = response.iter_raw()
        try:
            while True:
                with within(seconds):
                    piece = next(pieces, None)
                if piece is None:
                    return
                yield piece
        except httpx2.HTTPError as error:
            raise self._failure(error) from error
        finally:
            opened.__exit__(None, None, None)

    def _whole(self, response: httpx2.Response) -> bytes:
        self._check_encoding(response)
        body = bytearray()
        for piece in response.iter_raw():
            body += piece
            if len(body) > self._answer_bytes:
                raise UnavailableError(f"{self._peer} answers more than {self._answer_bytes} bytes")
        return bytes(body)

    def _check_encoding(self, response: httpx2.Response) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise UnavailableError(f"{self._peer} answers as {encoding[:40]!r}, which nobody asked for")

    def _check(self, response: httpx2.Response, body: bytes) -> None:
        if not response.is_success and response.status_code != 304:
            raise self._refusal(response, body)

    def _refusal(self, response: httpx2.Response, body: bytes) -> AgolaError:
        """Return the error that an answer tells."""
        status = response.status_code
        message = _message(body) or f"status {status}"
        if status in BY_STATUS:
            return BY_STATUS[status](message)
        kind = BadRequestError if 400 <= status < 500 else UnavailableError
        return kind(f"{self._peer} answers {status}: {message}")

    def _failure(self, error: httpx2.HTTPError | httpx2.InvalidURL) -> AgolaError:
        """Return the error of a call that got no answer."""
        return UnavailableError(f"{self._peer} cannot be reached: {str(error) or type(error).__name__}")


def _beginning(response: httpx2.Response) -> bytes:
    body = b""
    for piece in response.iter_raw():
        body += piece
        if len(body) >= _MAX_ERROR_BYTES:
            break
    return body


def _message(body: bytes) -> str:
    """Return what an error's body says, for a person: Agola's JSON object with a message, or plain text."""
    try:
        found = msgspec.json.decode(body)
        said = str(found["message"]) if isinstance(found, dict) and "message" in found else ""
    except DECODE_ERRORS:
        said = body.decode(errors="replace").strip()
    return "".join(character if character.isprintable() else " " for character in said[:_MAX_MESSAGE])
