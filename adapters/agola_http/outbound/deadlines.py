"""Total deadlines for blocking HTTP calls, and their cancellation when nobody waits for them any more.

The timeouts of an HTTP client are those of single reads, so a peer that brings a byte now and then is waited for
without end. Here the sockets themselves know until when the calling thread waits, and for whom.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

import httpcore2
import httpx2

from agola_http.outbound.waiting import waiting

SocketOption = tuple[int, int, int]


class DeadlineTransport(httpx2.HTTPTransport):
    """A transport whose connections keep the deadlines of `waiting.within`.

    Args:
        url: What it connects to.
        socket_options: Socket options of every connection.
        max_connections: The most connections at the same time.
        context: The TLS context; None trusts the known authorities.
    """

    def __init__(
        self,
        url: str,
        *,
        socket_options: Iterable[SocketOption],
        max_connections: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        context = context or _context(url)
        super().__init__(verify=context)
        self._pool.close()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=context,
            max_connections=max_connections,
            max_keepalive_connections=8,
            keepalive_expiry=5.0,
            network_backend=_Backend(),
            socket_options=list(socket_options),
        )


def _context(url: str) -> ssl.SSLContext:
    """Return a context that trusts the known authorities, or an empty one for plain HTTP, which does not need them."""
    return _authorities() if url.lower().startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _authorities() -> ssl.SSLContext:
    """Return a context that trusts the known authorities; cached, because reading them takes longer than many calls."""
    return httpx2.create_ssl_context()


class _Backend(httpcore2.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(super().connect_tcp(host, port, _left(timeout), local_address, socket_options))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if waiting.context is None:
            return self._inner.read(max_bytes, _left(timeout))
        forget = waiting.context.on_cancel(self._wake)
        try:
            return self._inner.read(max_bytes, _left(timeout))
        finally:
            forget()

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if waiting.until is None:
            self._inner.write(buffer, timeout)
            return
        connection = self._inner.get_extra_info("socket")
        left = memoryview(buffer)
        while left:
            connection.settimeout(_left(timeout))
            try:
                left = left[connection.send(left) :]
            except TimeoutError as error:
                raise httpcore2.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore2.WriteError(str(error)) from error

    def close(self) -> None:
        self._inner.close()

    def _wake(self) -> None:
        """Interrupt a read that waits."""
        with suppress(OSError):
            self._inner.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(timeout: float | None) -> float | None:
    """Return how many seconds one read or write may take.

    Raises:
        httpcore2.ReadTimeout: The deadline is over.
    """
    if waiting.until is None:
        return timeout
    left = waiting.until - time.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout("the deadline is over")
    return left if timeout is None else min(left, timeout)
