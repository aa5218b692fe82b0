"""Pooled HTTP/1.1 connections to one server, checked before reuse, with a deadline on every request.

This module never sends a request twice. Its errors tell how far a request got: `NotConnectedError` means that nothing
was sent; after any other error the server may have received all of it.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any, NamedTuple, cast

_HEAD_ROOM = 64 * 1024
_IDLE_SECONDS = 30.0


class NotConnectedError(OSError):
    """No connection: refused, no route, no such host, no TLS. Nothing was sent."""


class UntrustedError(NotConnectedError):
    """The server's certificate is not trusted. Nothing was sent."""


class TruncatedBodyError(Exception):
    """An answer is shorter than announced, or its bytes are not those that were written."""


class Answer(NamedTuple):
    """An HTTP response.

    Attributes:
        status: Such as 200.
        headers: By lower-case name.
        body: All of it.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Proxy(NamedTuple):
    """An HTTP proxy.

    Attributes:
        host: A name or an address.
        port: TCP port.
        authorization: The value of the header Proxy-Authorization; "" for none.
    """

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        """Tell nothing secret."""
        return f"Proxy({self.host}:{self.port})"


class Server(NamedTuple):
    """Where connections lead.

    Attributes:
        host: A name or an address.
        port: TCP port.
        tls: How it is trusted; None for plain HTTP.
        proxy: The proxy on the way; None for none.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None


class Connections:
    """Connections to one server. Thread-safe: each request has one to itself.

    Args:
        server: Where they lead.
        connect_timeout: Seconds for a new one.
    """

    def __init__(self, server: Server, connect_timeout: float) -> None:
        self._server = server
        self._connect_timeout = connect_timeout
        self._idle: deque[tuple[socket.socket, float]] = deque()
        self._closed = False

    def request(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes | memoryview, seconds: float
    ) -> Answer:
        """Send a request and return the whole answer.

        Args:
            method: Such as GET.
            target: Path and query, encoded.
            headers: All but Content-Length.
            body: May be empty.
            seconds: The most for all of it; an answer gets a second more for each MiB that it announces.

        Raises:
            NotConnectedError: Nothing was sent.
            TimeoutError: There was no whole answer in time.
            TruncatedBodyError: The answer ends too early, or is not HTTP.
            OSError: The connection broke before the answer.
        """
        end = time.monotonic() + seconds
        proxy = self._server.proxy
        if proxy is not None and self._server.tls is None:
            headers = [*headers, *_authorization(proxy)]
            target = f"http://{next(value for name, value in headers if name == 'host')}{target}"
        connection = self._take() or self._connect(min(self._connect_timeout, seconds))
        keep = False
        try:
            answer, keep = _exchange(connection, method, target, headers, body, end)
        finally:
            if keep and not self._closed:
                self._idle.append((connection, time.monotonic()))
                self._drop_old()
            else:
                connection.close()
        return answer

    def close(self) -> None:
        """Close idle connections; a connection in use closes when its request ends."""
        self._closed = True
        while self._idle:
            self._idle.pop()[0].close()

    def _take(self) -> socket.socket | None:
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < _IDLE_SECONDS and not _is_readable(connection):
                return connection
            connection.close()  # the server has closed it, or is about to

    def _drop_old(self) -> None:
        """Close connections that have been idle for long: the last one used is taken first, so they are at the left."""
        while self._idle:
            try:
                connection, since = self._idle.popleft()
            except IndexError:  # another thread took it
                return
            if time.monotonic() - since < _IDLE_SECONDS:
                self._idle.appendleft((connection, since))
                return
            connection.close()

    def _connect(self, seconds: float) -> socket.socket:
        server = self._server
        first = server.proxy or server
        try:
            connection = socket.create_connection((first.host, first.port), timeout=seconds)
        except OSError as error:
            raise NotConnectedError(str(error) or "no connection in time") from error
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.proxy is not None and server.tls is not None:
                _tunnel(connection, server, server.proxy)
            if server.tls is not None:
                connection = server.tls.wrap_socket(connection, server_hostname=server.host)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise UntrustedError(str(error)) from error
        except OSError as error:
            connection.close()
            raise error if isinstance(error, NotConnectedError) else NotConnectedError(f"no TLS: {error}") from error
        return connection


def _authorization(proxy: Proxy) -> list[tuple[str, str]]:
    return [("proxy-authorization", proxy.authorization)] if proxy.authorization else []


def _tunnel(connection: socket.socket, server: Server, proxy: Proxy) -> None:
    """Have a proxy connect to the server."""
    target = f"[{server.host}]:{server.port}" if ":" in server.host else f"{server.host}:{server.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    lines += [f"{name}: {value}" for name, value in _authorization(proxy)]
    connection.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1"))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):  # byte by byte: what follows belongs to TLS
        byte = connection.recv(1)
        if not byte or len(answer) > _HEAD_ROOM:
            break
        answer += byte
    status = answer.partition(b"\r\n")[0].decode("latin-1").split(" ", 1)[-1][:100]
    if not status.startswith("200"):
        raise NotConnectedError(f"the proxy {proxy.host}:{proxy.port} refuses: {status or 'no answer'}")


def _is_readable(connection: socket.socket) -> bool:
    """Return whether an idle connection has unexpected data or was closed by the server."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _exchange(
    connection: socket.socket,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    body: bytes | memoryview,
    end: float,
) -> tuple[Answer, bool]:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if body or method in {"PUT", "POST"}:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
    refused: OSError | None = None
    try:
        connection.settimeout(_left(end))
        if len(body) <= _HEAD_ROOM:
            connection.sendall(head + body)
        else:
            connection.sendall(head)
            connection.settimeout(_left(end))
            connection.sendall(body)
    except (BrokenPipeError, ConnectionResetError) as error:
        refused = error  # a server may answer before it has the whole body, and close
    source = _Incoming(connection, end)
    response = HTTPResponse(cast("Any", source), method=method)
    try:
        response.begin()
        if response.length:
            source.end += response.length / (1 << 20)
        content = response.read()
    except IncompleteRead as error:
        raise TruncatedBodyError(f"{len(error.partial)} bytes came, and not {error.expected} more") from error
    except OSError:
        if refused is not None:
            raise refused from None
        raise
    except HTTPException as error:
        raise TruncatedBodyError(f"it is not HTTP: {type(error).__name__}") from error
    keep = not response.will_close and refused is None
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content), keep


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


class _Incoming(io.RawIOBase):
    """The incoming bytes of a connection, readable until a deadline that can be extended."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self._connection = connection
        self.end = end

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 64 * 1024)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self.end))
        return self._connection.recv_into(buffer)
