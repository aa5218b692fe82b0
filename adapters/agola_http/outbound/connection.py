"""What both clients of the executor protocol share: connections that are kept, errors by status, bodies as streams.

A peer is not trusted with our memory or our threads: answers come as they are (nothing is decompressed), those that
are read whole have a size, and every wait has a deadline in all.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TypeVar

import httpx2
import msgspec

from agola_core.decoding import DECODE_ERRORS
from agola_core.errors import (
    APIError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from agola_http.outbound.deadlines import DeadlineTransport, within
from agola_http.protocol.names import PREFIX

# A peer that has vanished is noticed in half a minute, also where a quiet stream has no read timeout.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]
_ERRORS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
}
_MAX_MESSAGE = 4096
_MAX_CONNECTIONS = 64

T = TypeVar("T")


class Connection:
    """Kept connections to one peer; every call raises the errors of `agola_core.errors`.

    Args:
        url: Where the peer listens, without a path of the interface.
        peer: What it is called in errors.
        token: Sent as a bearer token; "" for none.
        timeout: Seconds for a connection, for an answer's head, and for each piece of a stream, each in all.
        answer_bytes: The most bytes of an answer that is read whole.
        max_connections: How many there may be at once.
        headers: Sent with every request.
        server_name: Whose certificate is expected, where the URL names an address.
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
    ) -> None:
        self._peer = peer
        self._timeout = timeout
        self._answer_bytes = answer_bytes
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx2.Client(
            base_url=url.rstrip("/") + PREFIX,
            headers={"Accept-Encoding": "identity", **(headers or {}), **authorization},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 5.0)),
            follow_redirects=False,
            trust_env=False,
            transport=DeadlineTransport(socket_options=_KEEPALIVE, max_connections=max_connections),
        )

    def show(self, name: str, value: str) -> None:
        """Send a header with every request from now on."""
        self._client.headers[name] = value

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Return the answer to a request: one of 2xx, or 304.

        Args:
            method: The method.
            path: Below the prefix.
            content: The body; one that comes in pieces may take any time.
            headers: Further headers.

        Raises:
            UnavailableError: The peer cannot be reached, takes too long, or is in trouble or in maintenance.
            APIError: It refused; of the type that its status says.
        """
        seconds = self._timeout if content is None or isinstance(content, bytes) else None
        try:
            with (
                within(seconds),
                self._client.stream(
                    method, path, content=content, headers=headers, extensions=self._extensions
                ) as response,
            ):
                body = self._whole(response)
        except httpx2.HTTPError as error:
            raise self._unavailable(error) from error
        self._check(response.status_code, body)
        return httpx2.Response(response.status_code, headers=response.headers, content=body)

    def decoded(self, path: str, record: type[T]) -> T:
        """Return the record that a GET answers with."""
        response = self.request("GET", path)
        try:
            return msgspec.json.decode(response.content, type=record)
        except DECODE_ERRORS as error:
            raise UnavailableError(f"{self._peer} answers what cannot be read: {error}") from error

    def stream(
        self, path: str, params: Mapping[str, str], *, endless: bool = False
    ) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """Return the headers and the body that a GET answers with; errors of the answer are raised at once.

        Args:
            path: Below the prefix.
            params: Of the query.
            endless: Whether silence is no error, before the head too: it is sent with the first piece.
        """
        timeout = httpx2.Timeout(self._timeout, read=None) if endless else httpx2.USE_CLIENT_DEFAULT
        opened = self._client.stream("GET", path, params=params, timeout=timeout, extensions=self._extensions)
        try:
            with within(None if endless else self._timeout):
                response = opened.__enter__()  # left by `_pieces`, whose caller reads as long as it likes
        except httpx2.HTTPError as error:
            raise self._unavailable(error) from error
        try:
            if not response.is_success:
                with within(self._timeout):
                    self._check(response.status_code, next(response.iter_raw(_MAX_MESSAGE), b""))
            self._check_encoding(response)
        except httpx2.HTTPError as error:
            opened.__exit__(None, None, None)
            raise self._unavailable(error) from error
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
            raise self._unavailable(error) from error
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

    def _check(self, status: int, body: bytes) -> None:
        if 200 <= status < 300 or status == 304:
            return
        message = _message(body) or f"status {status}"
        if status in _ERRORS:
            raise _ERRORS[status](message)
        if 400 <= status < 500:
            raise BadRequestError(f"{self._peer} answers {status}: {message}")
        raise UnavailableError(f"{self._peer} answers {status}: {message}")

    def _unavailable(self, error: httpx2.HTTPError) -> UnavailableError:
        return UnavailableError(f"{self._peer} cannot be reached: {str(error) or type(error).__name__}")


def _message(body: bytes) -> str:
    """Return what an error's body says, for a person: Agola's JSON object with a message, or plain text."""
    try:
        found = msgspec.json.decode(body)
        said = str(found["message"]) if isinstance(found, dict) and "message" in found else ""
    except DECODE_ERRORS:
        said = body.decode(errors="replace").strip()
    return "".join(character if character.isprintable() else " " for character in said[:_MAX_MESSAGE])
