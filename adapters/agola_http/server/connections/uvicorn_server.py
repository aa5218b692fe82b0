"""Runs an ASGI application under uvicorn: listening, TLS, signals and an orderly shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from agola_core.errors import BadRequestError, UnavailableError
from agola_core.runtime.clock import until_next
from agola_http.server.connections.h11_connection import SAFE, Connection
from agola_http.server.connections.limits import Limits

_SHUTDOWN_SECONDS = 2
_TICK_SECONDS = 1.0


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Encryption of connections.

    Attributes:
        certificate: PEM file with the certificate and its chain.
        key: PEM file with its private key.
        client_authority: PEM file of the authority whose certificates clients must present; None if they need none.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None


class Server(uvicorn.Server):
    """Serves an application on a listening socket.

    Stops on a signal without raising it again, so that the caller can close what it serves.

    Args:
        app: The application.
        limits: Limits of requests, connections and streams.
        tls: How connections are encrypted.
        end_streams: Called before the server waits for open connections, so that streams end.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, *, tls: Tls | None = None, end_streams: Callable[[], None] = lambda: None
    ) -> None:
        self._end_streams = end_streams
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        connection = type("Connection", (Connection,), {"header_seconds": limits.header_seconds})
        config = uvicorn.Config(
            app,
            http=connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=list(SAFE),
            proxy_headers=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            timeout_keep_alive=limits.keep_alive_seconds,
            limit_concurrency=limits.connections,
            h11_max_incomplete_event_size=limits.header_bytes,
            lifespan="off",
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
            ssl_ca_certs=str(tls.client_authority) if tls and tls.client_authority else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_authority else ssl.CERT_NONE,
        )
        try:
            config.load()
        except OSError as error:
            raise BadRequestError(f"the certificate or its key cannot be used: {error.strerror or error}") from error
        super().__init__(config)

    async def main_loop(self) -> None:
        """Wait for the end; once a second the date in the answers' heads moves on."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), until_next(_TICK_SECONDS))

    @property
    def should_exit(self) -> bool:
        """Whether the server is to end; setting it wakes the server."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if value and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._ending.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        await run_in_threadpool(self._end_streams)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while the server runs, if it runs in the main thread."""
        try:
            previous = [(number, signal.signal(number, self.handle_exit)) for number in (signal.SIGINT, signal.SIGTERM)]
        except ValueError:  # not the main thread
            previous = []
        try:
            yield
        finally:
            for number, handler in previous:
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UnavailableError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # without it asyncio sets no TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise UnavailableError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def url_of(listener: socket.socket, host: str, *, tls: bool = False) -> str:
    """Return the URL of a listening socket."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{listener.getsockname()[1]}"
